//! What can be said about one entry. Data only.

use std::time::Duration;

use crate::key::tag_name;

/// Options of one function's entries, or of one [`Cache::get_or_compute`](crate::Cache::get_or_compute) call.
///
/// Whatever is not set comes from the cache's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct EntryOptions {
    /// See [`ttl`](Self::ttl).
    pub ttl: Option<Duration>,
    /// See [`negative_ttl`](Self::negative_ttl).
    pub negative_ttl: Option<Duration>,
    /// See [`jitter`](Self::jitter).
    pub jitter: Option<f64>,
    /// See [`stale_while_revalidate`](Self::stale_while_revalidate).
    pub stale_while_revalidate: Option<Duration>,
    /// See [`stale_if_error`](Self::stale_if_error).
    pub stale_if_error: Option<Duration>,
    /// See [`refresh`](Self::refresh).
    pub refresh: RefreshBy,
    /// See [`soft_timeout`](Self::soft_timeout).
    pub soft_timeout: Option<Duration>,
    /// See [`deadline`](Self::deadline).
    pub deadline: Deadline,
    /// See [`early`](Self::early).
    pub early: Option<f64>,
    /// See [`flight`](Self::flight).
    pub flight: FlightScope,
    /// See [`local`](Self::local).
    pub local: LocalTier,
    pub(crate) tags: Vec<Box<str>>,
}

/// What the tier in this process does with a function's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalTier {
    /// Keeps them as long as they are fresh, or as long as the cache says.
    #[default]
    Cache,
    /// Keeps them for at most this long.
    For(Duration),
    /// Keeps none: each call reads the store.
    Off,
}

/// Who computes the new value while an old one is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshBy {
    /// A task in the background; no caller waits for it, and no caller's end ends it. The function has to own its arguments.
    #[default]
    Background,
    /// The caller that finds the old value first; all others get the old value at once.
    Caller,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadline {
    /// As long as the cache says.
    #[default]
    Cache,
    /// At most this long.
    After(Duration),
    /// As long as it likes; a run that hangs keeps its key.
    Off,
}

/// What asking whether a value is still current came to: see [`Cache::get_or_revalidate`](crate::Cache::get_or_revalidate).
///
/// Exhaustive: there is no third answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidated<T> {
    /// There is a new value.
    New(T),
    /// The old one, given back: it is served for another ttl, and not stored anew.
    NotModified(T),
}

/// How far callers of one key share one run of the function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlightScope {
    /// Over all processes that share the store: one runs, the others wait for its value.
    #[default]
    Cluster,
    /// Within this process; two processes may run at the same time, and what the first of them to start returns is stored.
    Process,
    /// Not at all: every caller that misses runs the function.
    None,
}

impl LocalTier {
    /// How long a value may be kept that is fresh for so long.
    pub(crate) fn limit(self, left: Duration) -> Duration {
        match self {
            Self::Cache | Self::Off => left,
            Self::For(longest) => left.min(longest),
        }
    }
}

impl EntryOptions {
    /// Nothing set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ttl: None,
            negative_ttl: None,
            jitter: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            refresh: RefreshBy::Background,
            soft_timeout: None,
            deadline: Deadline::Cache,
            early: None,
            flight: FlightScope::Cluster,
            local: LocalTier::Cache,
            tags: Vec::new(),
        }
    }

    /// How long a value is served. Zero means: not stored. Default: the cache's, one hour unless set.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long an absent value (`None`) is served. Default: an absent value is not stored.
    #[must_use]
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// The largest fraction by which a ttl is randomly shortened: each stored value ends at a random time between
    /// `ttl * (1 - jitter)` and `ttl`, never later. Turn it on where many values are stored at the same moment, so that
    /// they do not end together. Default: the cache's, zero unless set. Costs nothing.
    #[must_use]
    pub const fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = Some(fraction);
        self
    }

    /// For how long after its ttl a value is still served at once, while one refresh in all processes computes the next
    /// (RFC 5861). Refreshes are bounded by [`CacheBuilder::refreshes_in_flight`](crate::CacheBuilder::refreshes_in_flight).
    ///
    /// Where the function borrows from its caller, as in [`Cache::get_or_compute`](crate::Cache::get_or_compute), one caller computes
    /// and the others get the old value: see [`RefreshBy::Caller`].
    ///
    /// Absent values (`None`) are not served beyond their `negative_ttl`. Default: none. Costs memory in the store for that much longer.
    #[must_use]
    pub const fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// For how long after its ttl a value is served if computing the next one fails or takes longer than the [`deadline`](Self::deadline)
    /// (RFC 5861). After a failure the old value is served without another attempt for
    /// [`CacheBuilder::refresh_throttle`](crate::CacheBuilder::refresh_throttle), in all processes. An invalidated value is never served.
    ///
    /// Counted from the end of the ttl, beside `stale_while_revalidate` and not after it. A panic is no error: it reaches the caller.
    /// Default: none. Costs memory in the store for that much longer.
    #[must_use]
    pub const fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }

    /// Who computes while an old value is served. Default: [`RefreshBy::Background`].
    #[must_use]
    pub const fn refresh(mut self, by: RefreshBy) -> Self {
        self.refresh = by;
        self
    }

    /// How long a caller waits for the new value where an old one may be served: then it gets the old one, and the run
    /// goes on in the background and is stored. Without an old value it is ignored.
    ///
    /// With `stale_while_revalidate` callers get the old value at once; this makes them wait that long first. Ignored where the function
    /// borrows from its caller, as in [`Cache::get_or_compute`](crate::Cache::get_or_compute). Default: none.
    #[must_use]
    pub const fn soft_timeout(mut self, after: Duration) -> Self {
        self.soft_timeout = Some(after);
        self
    }

    /// How long a run may take: see [`DeadlineExceeded`](crate::DeadlineExceeded) for what its callers get. The key is free afterwards,
    /// and nothing that this run computes is stored. Default: the cache's, 30 s unless set.
    #[must_use]
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    /// How early a value that is asked for is computed anew before its ttl ends: the beta of XFetch (Vattani, Chierichetti and
    /// Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015). The longer a value takes to compute, the earlier; above
    /// 1 earlier, below 1 later, zero never. No value is before half of its ttl has passed. The
    /// value is served meanwhile, and the refresh runs in the background.
    ///
    /// Where the function borrows from its caller it is off, unless the [caller refreshes](RefreshBy::Caller).
    /// Default: the cache's, 1.0 unless set. Costs a random number for each hit within 37 times the compute's duration of the end.
    #[must_use]
    pub const fn early(mut self, beta: f64) -> Self {
        self.early = Some(beta);
        self
    }

    /// How long the tier in this process may keep a value. Default: as long as it is fresh.
    #[must_use]
    pub const fn local(mut self, local: LocalTier) -> Self {
        self.local = local;
        self
    }

    /// The tags of the entry, for [`Cache::invalidate_tag`](crate::Cache::invalidate_tag): up to 16, else its value is not stored. Each
    /// is a name in the stored record, and one more load on a hit. Default: none.
    ///
    /// All calls of one key give the same tags: a value that another call stored without one of them is a miss.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.tags.clear();
        tags.into_iter().for_each(|tag| self.push_tag(tag_name(tag.as_ref())));
        self
    }

    /// Each tag once.
    pub(crate) fn push_tag(&mut self, tag: Box<str>) {
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
    }

    /// How far callers share one run. Default: [`FlightScope::Cluster`].
    #[must_use]
    pub const fn flight(mut self, scope: FlightScope) -> Self {
        self.flight = scope;
        self
    }
}

/// What an entry gets where its function says nothing.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub(crate) ttl: Duration,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) jitter: f64,
    pub(crate) early: f64,
    pub(crate) deadline: Option<Duration>,
}

/// The bounds of one cache.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) lease: Duration,
    pub(crate) max_value_bytes: usize,
    pub(crate) max_staleness: Duration,
    pub(crate) refresh_throttle: Duration,
}
