//! Options of one cached entry. Data only.

use std::time::Duration;

use crate::key::tag_name;

/// Options of one function's entries, or of one
/// [`Cache::get_or_compute`](crate::Cache::get_or_compute) call.
///
/// An option that is not set takes the cache's default.
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
    /// See [`single_flight`](Self::single_flight).
    pub single_flight: SingleFlightScope,
    /// See [`local`](Self::local).
    pub local: LocalTier,
    pub(crate) tags: Vec<Box<str>>,
}

/// What the local tier does with a function's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalTier {
    /// Keeps a value while it is fresh, but no longer than the cache's own limit.
    #[default]
    Cache,
    /// Keeps a value for at most this long.
    For(Duration),
    /// Keeps no value: every call reads the store.
    Off,
}

/// Who computes the new value while an old one is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshBy {
    /// A background task. No caller waits for it, and it goes on when a caller is dropped. The
    /// function must own its arguments.
    #[default]
    Background,
    /// The caller that finds the old value first. All other callers get the old value at once.
    Caller,
}

/// How long one compute may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadline {
    /// The cache's default.
    #[default]
    Cache,
    /// At most this long.
    After(Duration),
    /// No limit. A compute that hangs keeps its key.
    Off,
}

/// The result of a revalidation: see [`Cache::get_or_revalidate`](crate::Cache::get_or_revalidate).
///
/// Exhaustive: no third variant will be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidated<T> {
    /// There is a new value.
    New(T),
    /// The old value is still current. It is passed back and served for another ttl; its payload is
    /// not stored again.
    NotModified(T),
}

/// Which callers of one key share one compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SingleFlightScope {
    /// All processes that share the store: one computes, the others wait for its value.
    #[default]
    Cluster,
    /// The callers in this process. Two processes may compute at the same time; the value of the
    /// one that started first is stored.
    Process,
    /// No callers: every caller that misses computes.
    None,
}

impl LocalTier {
    /// Returns how long a value may be kept that is fresh for `left`.
    pub(crate) fn limit(self, left: Duration) -> Duration {
        match self {
            Self::Cache | Self::Off => left,
            Self::For(longest) => left.min(longest),
        }
    }
}

impl EntryOptions {
    /// Makes options with nothing set.
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
            single_flight: SingleFlightScope::Cluster,
            local: LocalTier::Cache,
            tags: Vec::new(),
        }
    }

    /// Sets how long a value is served after it was computed.
    ///
    /// Zero: the value is not stored. Default: the cache's default, which is one hour unless set.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how long an absent value (`None`) is served.
    ///
    /// Default: an absent value is not stored.
    #[must_use]
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// Sets the largest fraction by which a ttl is randomly shortened.
    ///
    /// Each stored value expires at a random time between `ttl * (1 - jitter)` and `ttl`, never
    /// later. Use it where many values are stored at the same moment, so that they do not expire
    /// together. Default: the cache's default, which is zero unless set. Costs nothing.
    #[must_use]
    pub const fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = Some(fraction);
        self
    }

    /// Sets for how long after its ttl a value is still served at once, while one refresh in all
    /// processes computes the next one (RFC 5861).
    ///
    /// Refreshes are bounded by
    /// [`CacheBuilder::refreshes_in_flight`](crate::CacheBuilder::refreshes_in_flight).
    ///
    /// If the function borrows from its caller, as in
    /// [`Cache::get_or_compute`](crate::Cache::get_or_compute), one caller computes and the others
    /// get the old value: see [`RefreshBy::Caller`].
    ///
    /// Absent values (`None`) are not served beyond their `negative_ttl`. Default: none. Cost: the
    /// store keeps each value for that much longer.
    #[must_use]
    pub const fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// Sets for how long after its ttl a value is served if the next compute fails or exceeds the
    /// [`deadline`](Self::deadline) (RFC 5861).
    ///
    /// After a failure all processes serve the old value without another attempt for
    /// [`CacheBuilder::refresh_throttle`](crate::CacheBuilder::refresh_throttle). An invalidated
    /// value is never served.
    ///
    /// The window starts at the end of the ttl. It overlaps `stale_while_revalidate` and is not
    /// added to it. A panic is not an error: it reaches the caller. Default: none. Cost: the store
    /// keeps each value for that much longer.
    #[must_use]
    pub const fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }

    /// Sets who computes while an old value is served. Default: [`RefreshBy::Background`].
    #[must_use]
    pub const fn refresh(mut self, by: RefreshBy) -> Self {
        self.refresh = by;
        self
    }

    /// Sets how long a caller waits for the new value before it gets the old one.
    ///
    /// The compute goes on in the background and its value is stored. Ignored if there is no old
    /// value that may be served.
    ///
    /// With `stale_while_revalidate` callers get the old value at once; this option makes them wait
    /// that long first. Ignored if the function borrows from its caller, as in
    /// [`Cache::get_or_compute`](crate::Cache::get_or_compute). Default: none.
    #[must_use]
    pub const fn soft_timeout(mut self, after: Duration) -> Self {
        self.soft_timeout = Some(after);
        self
    }

    /// Sets how long one compute may take.
    ///
    /// See [`DeadlineExceeded`](crate::error::DeadlineExceeded) for what its callers get.
    /// Afterwards the key is free, and the late value of this compute is not stored. Default: the
    /// cache's default, which is 30 s unless set.
    #[must_use]
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how early a value that is in use is refreshed before its ttl ends: the beta of XFetch.
    ///
    /// The source is Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede
    /// Prevention", VLDB 2015. The longer a value takes to compute, the earlier it is refreshed; a
    /// beta above 1 refreshes earlier, below 1 later, and zero turns it off. No value is refreshed
    /// before half of its ttl has passed. The old value is served while the refresh runs in the
    /// background.
    ///
    /// If the function borrows from its caller, early refresh is off unless the [caller
    /// refreshes](RefreshBy::Caller). Default: the cache's default, which is 1.0 unless set. Cost:
    /// one random number for each hit in the last part of the ttl, which is 37 times the duration
    /// of the compute times beta.
    #[must_use]
    pub const fn early(mut self, beta: f64) -> Self {
        self.early = Some(beta);
        self
    }

    /// Sets how long the local tier may keep a value. Default: while the value is fresh.
    #[must_use]
    pub const fn local(mut self, local: LocalTier) -> Self {
        self.local = local;
        self
    }

    /// Sets the tags of the entry, for [`Cache::invalidate_tag`](crate::Cache::invalidate_tag).
    ///
    /// At most 128; with more the value is not stored. Each tag costs its name in the stored record
    /// and one more load on a hit. Default: none.
    ///
    /// All calls of one key must give the same tags: a value that another call stored without one
    /// of them is a miss.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.tags.clear();
        tags.into_iter().for_each(|tag| self.push_tag(tag_name(tag.as_ref())));
        self
    }

    /// Adds a tag unless it is there already.
    pub(crate) fn push_tag(&mut self, tag: Box<str>) {
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
    }

    /// Sets which callers share one compute. Default: [`SingleFlightScope::Cluster`].
    #[must_use]
    pub const fn single_flight(mut self, scope: SingleFlightScope) -> Self {
        self.single_flight = scope;
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
