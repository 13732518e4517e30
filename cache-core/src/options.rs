//! What can be said about one entry. Data only.

use std::time::Duration;

use crate::key::tag_name;

/// Options of one function's entries, or of one [`Cache::get_or_compute`](crate::Cache::get_or_compute) call.
///
/// Whatever is not set comes from the cache's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryOptions {
    /// See [`ttl`](Self::ttl).
    pub ttl: Option<Duration>,
    /// See [`negative_ttl`](Self::negative_ttl).
    pub negative_ttl: Option<Duration>,
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
        Self { ttl: None, negative_ttl: None, flight: FlightScope::Cluster, local: LocalTier::Cache, tags: Vec::new() }
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
