//! Options for setting a plain value, and the type of a key's remaining time.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Put, When};

/// Options for setting a plain value. A `Duration` converts to a ttl, `None` to no expiry.
///
/// ```
/// # use cache_core::plain::SetOptions;
/// # use std::time::Duration;
/// # async fn example(cache: &cache_core::Cache) -> Result<(), cache_core::Error> {
/// let once = SetOptions::new().ttl(Duration::from_secs(60)).if_absent(); // SET lock 1 PX 60000 NX
/// let is_first = cache.plain().text("lock").set("1", once).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "options do nothing until a value is set with them"]
pub struct SetOptions {
    ttl: Option<Duration>,
    keep_ttl: bool,
    when: When,
}

impl SetOptions {
    /// Returns options that set the value unconditionally, without expiry.
    pub const fn new() -> Self {
        Self { ttl: None, keep_ttl: false, when: When::Always }
    }

    /// Sets how long the value lives, in whole milliseconds. Default: no expiry.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Keeps the remaining time of the current value (`KEEPTTL`).
    pub const fn keep_ttl(mut self) -> Self {
        self.keep_ttl = true;
        self
    }

    /// Sets the value only if the key does not exist (`NX`).
    pub const fn if_absent(mut self) -> Self {
        self.when = When::Absent;
        self
    }

    /// Sets the value only if the key exists (`XX`).
    pub const fn if_present(mut self) -> Self {
        self.when = When::Present;
        self
    }

    pub(super) fn put(self) -> Result<Put> {
        if self.keep_ttl && self.ttl.is_some() {
            let detail = "`ttl` and `keep_ttl` contradict each other; use one of them";
            return Err(Error::new(ErrorKind::Configuration, "plain").detail(detail));
        }
        Ok(Put { expiry: checked(self.ttl)?, keep_expiry: self.keep_ttl, when: self.when })
    }
}

impl From<Duration> for SetOptions {
    fn from(ttl: Duration) -> Self {
        Self::new().ttl(ttl)
    }
}

impl From<Option<Duration>> for SetOptions {
    fn from(ttl: Option<Duration>) -> Self {
        ttl.map_or_else(Self::new, Self::from)
    }
}

/// The result of [`PlainValues::ttl`](crate::plain::PlainValues::ttl).
///
/// Exhaustive: Redis has no other answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeToLive {
    /// The key does not exist (`-2` in Redis).
    NoKey,
    /// The key lives until it is removed (`-1` in Redis).
    NoExpiry,
    /// The key ends after this long.
    Left(Duration),
}

pub(super) fn checked(ttl: Option<Duration>) -> Result<Option<Duration>> {
    if ttl.is_some_and(|ttl| ttl < Duration::from_millis(1)) {
        let detail = "the ttl must be at least one millisecond; use `remove` to remove a key, `None` for no expiry";
        return Err(Error::new(ErrorKind::Configuration, "plain").detail(detail));
    }
    Ok(ttl)
}
