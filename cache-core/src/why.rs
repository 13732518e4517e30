//! Explains the state of an entry in this process: what is kept of it, and what happened to it.
//!
//! No round trip: all of it is what this process knows. It contains no arguments and no values. It
//! contains those tags that the entry names.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::cache::Cache;
use crate::clock::wall_time;
use crate::engine::Engine;
use crate::key::Key;
use crate::observe::events::StaleCause;
use crate::observe::history::Noted;
pub use crate::observe::history::{Actor, HistoryEvent, Refusal, Scope};
use crate::value::codec::DefaultCodec;
use crate::value::return_type::{CacheValue, Plain, ValueType};
use crate::versions::Dependency;
use crate::versions::keys;

/// What a process knows of an entry, from [`CachedEntry::why`](crate::CachedEntry::why) or
/// [`Cache::why`](crate::Cache::why).
///
/// Its `Display` is a short text: a line for the kept value, and one for each step, in UTC, with
/// the time since the step before.
///
/// ```text
/// kept in this process: fresh for 3,590 s more
/// 12:03:04.123             miss in the store
/// 12:03:04.124  +0.8 ms    lease taken
/// 12:03:04.124  +0.0 ms    compute began
/// 12:03:04.136  +12.4 ms   compute ended after 12.4 ms
/// 12:03:04.137  +0.9 ms    stored, fresh for 3,600 s
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    local: Local,
    steps: Vec<Step>,
}

/// The state of an entry in the local tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Local {
    /// The local tier is turned off, for this function or for the cache.
    Off,
    /// There is no value: the next call reads the store.
    Absent,
    /// There is a value.
    Present(LocalCopy),
}

/// A value in the local tier. Times are counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalCopy {
    /// How long it is fresh. Zero: it is past its ttl and due for a refresh.
    pub fresh_for: Duration,
    /// How long it may be served, including the time in which it is refreshed in the background.
    pub served_for: Duration,
    /// A version of the value that is not known to be current: it was invalidated, or the
    /// connection was lost.
    pub unknown_version: Option<Scope>,
    /// Whether the connection was seen alive within `max_staleness`. Otherwise changes may have
    /// been missed.
    pub is_trusted: bool,
}

/// One step in the history of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// The time, by this machine's clock.
    pub at: SystemTime,
    /// What happened.
    pub what: HistoryEvent,
    /// The tag, for an invalidation or a fence of a tag.
    pub tag: Option<Box<str>>,
}

impl Why {
    /// Returns the state of the entry in the local tier.
    #[must_use]
    pub fn local(&self) -> Local {
        self.local
    }

    /// Returns what happened to the entry, the oldest step first.
    ///
    /// The history goes back as far as the capacity of
    /// [`CacheBuilder::history`](crate::CacheBuilder::history) allows.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl LocalCopy {
    /// Returns whether a call would be answered with this value.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.is_trusted && self.unknown_version.is_none() && !self.served_for.is_zero()
    }
}

impl Cache {
    /// Explains the state of an entry of [`get_or_compute`](Self::get_or_compute) with values of
    /// type `T`: what this process keeps of it, and what happened to it here. No round trip. See
    /// [`CachedEntry::why`](crate::CachedEntry::why).
    ///
    /// Only the tags of a value that is kept here are known.
    #[must_use]
    pub fn why<T: CacheValue>(&self, key: &Key) -> Why {
        let key =
            self.0.unnamed_key(key, const { ValueType::of::<Plain<T>, std::convert::Infallible, DefaultCodec>() });
        self.0.why(&key.value_key, &key.name, &[], false)
    }
}

impl Engine {
    /// Explains the entry with this key. `tags`: those that do not depend on the value. `is_off`:
    /// L1 is turned off for its function.
    pub(crate) fn why(&self, key: &str, name: &str, tags: &[Box<str>], is_off: bool) -> Why {
        let found = self.local.as_ref().filter(|_| !is_off).map(|local| local.inspect(key));
        let under = found.iter().flatten().flat_map(|found| found.under.iter());
        let mut wide: Vec<(String, Option<Box<str>>)> =
            vec![(keys::namespace_key(&self.namespace), None), (keys::function_key(&self.namespace, name), None)];
        wide.extend(tags.iter().map(|text| (keys::tag_key(&self.namespace, text), Some(text.clone()))));
        for key in under.map(Dependency::key) {
            if !wide.iter().any(|(known, _)| **known == **key) {
                let tag = key.split_once("@tag:").map(|(_, tag)| tag.into());
                wide.push((key.to_string(), tag));
            }
        }
        let mut noted: Vec<(Noted, Option<Box<str>>)> =
            self.history.of(key).into_iter().map(|noted| (noted, None)).collect();
        // Steps of many keys matter only after the first step of this one.
        if let Some(first) = noted.first().map(|(noted, _)| noted.order) {
            let of_many = wide
                .iter()
                .flat_map(|(key, tag)| self.history.of(key).into_iter().map(move |noted| (noted, tag.clone())));
            let of_all = self.history.of_all().into_iter().map(|noted| (noted, None));
            noted.extend(of_many.chain(of_all).filter(|(noted, _)| noted.order > first));
            noted.sort_by_key(|(noted, _)| noted.order);
        }
        // A connection is lost in several steps.
        noted.dedup_by(|(next, _), (before, _)| {
            next.what == HistoryEvent::ConnectionLost && before.what == HistoryEvent::ConnectionLost
        });
        let local = match found {
            None => Local::Off,
            Some(None) => Local::Absent,
            Some(Some(found)) => Local::Present(LocalCopy {
                fresh_for: found.fresh,
                served_for: found.served,
                unknown_version: found.under.iter().find(|on| !on.holds()).map(|on| keys::scope(on.key())),
                is_trusted: found.is_trusted,
            }),
        };
        let step = |(noted, tag): (Noted, _)| Step { at: wall_time(noted.at), what: noted.what, tag };
        Why { local, steps: noted.into_iter().map(step).collect() }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.local.fmt(f)?;
        let mut before = None;
        for step in &self.steps {
            let since: Option<SystemTime> = before.replace(step.at);
            let since = since.map(|before| format!("+{}", Short(step.at.duration_since(before).unwrap_or_default())));
            write!(f, "\n{}  {:<9}  {step}", TimeOfDay(step.at), since.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("never kept in this process"),
            Self::Absent => f.write_str("not kept in this process"),
            Self::Present(kept) => kept.fmt(f),
        }
    }
}

impl fmt::Display for LocalCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kept in this process")?;
        if !self.is_trusted {
            return f.write_str(", not served: the connection has not been confirmed alive");
        }
        if let Some(scope) = self.unknown_version {
            return write!(f, ", not served: the version of its {scope} is not known to be current");
        }
        match (self.fresh_for.is_zero(), self.served_for.is_zero()) {
            (_, true) => f.write_str(", not served: it has expired"),
            (true, false) => write!(f, ": due, served for {} more while it is refreshed", Short(self.served_for)),
            (false, false) => write!(f, ": fresh for {} more", Short(self.fresh_for)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tag, self.what) {
            (Some(tag), HistoryEvent::Invalidated(_, by)) => write!(f, "tag `{tag}` invalidated by {by}"),
            (Some(tag), HistoryEvent::FenceRaised) => write!(f, "fence on tag `{tag}` raised by this process"),
            (_, what) => what.fmt(f),
        }
    }
}

impl fmt::Display for HistoryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Hit { fresh_for } if fresh_for.is_zero() => f.write_str("hit in the store, past its ttl"),
            Self::Hit { fresh_for } => write!(f, "hit in the store, fresh for {} more", Short(fresh_for)),
            Self::Missed => f.write_str("miss in the store"),
            Self::Expired => f.write_str("value in the store past its ttl"),
            Self::Outdated(scope) => {
                write!(f, "record in the store from before an invalidation of its {scope}")
            }
            Self::Undecodable => f.write_str("bytes in the store are not a record"),
            Self::Fenced => f.write_str("write fence in the store: computed without storing"),
            Self::NotAwaited => f.write_str("another compute stored nothing a moment ago: computes without waiting"),
            Self::Waited => f.write_str("waits for the process that has the lease"),
            Self::LeaseTaken => f.write_str("lease taken"),
            Self::LeaseRenewed => f.write_str("lease renewed"),
            Self::LeaseLost => f.write_str("lease lost: invalidated, overwritten or evicted meanwhile"),
            Self::RunBegan => f.write_str("compute began"),
            Self::RunEnded { after } => write!(f, "compute ended after {}", Short(after)),
            Self::RunFailed { after } => write!(f, "compute failed after {}", Short(after)),
            Self::DeadlinePassed => f.write_str("compute took longer than its deadline"),
            Self::Filled { fresh_for } => write!(f, "stored, fresh for {}", Short(fresh_for)),
            Self::Renewed { fresh_for } => write!(f, "old value kept, fresh for {}", Short(fresh_for)),
            Self::FillRefused(Refusal::LeaseLost) => f.write_str("not stored: the lease was lost"),
            Self::FillRefused(Refusal::Outdated) => f.write_str(
                "not stored: invalidated by tag, function or namespace during the compute, or too many tags",
            ),
            Self::NotStored => f.write_str("not stored because of the function's options or a limit"),
            Self::Set => f.write_str("set by this process"),
            Self::Removed => f.write_str("invalidated by this process"),
            Self::Invalidated(scope, by) => write!(f, "{scope} invalidated by {by}"),
            Self::FenceRaised => f.write_str("fence raised by this process"),
            Self::FenceLifted => f.write_str("fence lifted by this process"),
            Self::FenceWithdrawn => f.write_str("fence withdrawn by this process"),
            Self::WriteFailed(kind) => write!(f, "write by this process failed ({kind:?})"),
            Self::Changed => f.write_str("changed in the store: dropped from this process"),
            Self::ConnectionLost => f.write_str("connection lost or established: everything dropped from this process"),
            Self::RefreshBegan => f.write_str("refresh began"),
            Self::RefreshFailed => f.write_str("refresh failed, the old value is kept"),
            Self::RefreshSkipped => f.write_str("refresh skipped: the maximum number of refreshes is running"),
            Self::Cooldown { lasts } => write!(f, "not refreshed for {}", Short(lasts)),
            Self::StaleServed(cause) => f.write_str(match cause {
                StaleCause::Failed => "old value served: the compute failed",
                StaleCause::DeadlinePassed => "old value served: the deadline passed",
                StaleCause::Throttled => "old value served: a compute failed a moment ago",
                StaleCause::SoftTimeout => "old value served: the compute is still running",
            }),
            Self::StoreFailed(kind) => write!(f, "the store failed ({kind:?})"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tag => "tag",
            Self::Function => "function",
            Self::Namespace => "namespace",
            Self::FunctionOrNamespace => "function or namespace",
        })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisProcess => "this process",
            Self::Another => "another process",
        })
    }
}

/// A readable duration: `0.8 ms`, `12.4 ms`, `3,590 s`.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            return write!(f, "{:.1} ms", self.0.as_secs_f64() * 1000.0);
        }
        if self.0 < Duration::from_secs(100) {
            return write!(f, "{:.1} s", self.0.as_secs_f64());
        }
        let digits = self.0.as_secs().to_string();
        for (index, digit) in digits.chars().enumerate() {
            let left = digits.len().saturating_sub(index);
            if index > 0 && left.is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(" s")
    }
}

/// The time of day in UTC, to the millisecond.
struct TimeOfDay(SystemTime);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since.as_secs() % 86_400, since.subsec_millis());
        write!(f, "{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_short_and_readable() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(12 * 3_600_000 + 184_123 + millis);
        let step = |millis, what| Step { at: at(millis), what, tag: None };
        let invalidated = HistoryEvent::Invalidated(Scope::Tag, Actor::Another);
        let why = Why {
            local: Local::Present(LocalCopy {
                fresh_for: Duration::from_secs(3590),
                served_for: Duration::from_secs(3590),
                unknown_version: None,
                is_trusted: true,
            }),
            steps: vec![
                step(0, HistoryEvent::Missed),
                step(1, HistoryEvent::RunEnded { after: Duration::from_micros(12_400) }),
                step(2_001, HistoryEvent::Filled { fresh_for: Duration::from_secs(1_234_567) }),
                Step { tag: Some("author:7".into()), ..step(200_001, invalidated) },
            ],
        };
        let lines = [
            "kept in this process: fresh for 3,590 s more",
            "12:03:04.123             miss in the store",
            "12:03:04.124  +1.0 ms    compute ended after 12.4 ms",
            "12:03:06.124  +2.0 s     stored, fresh for 1,234,567 s",
            "12:06:24.124  +198 s     tag `author:7` invalidated by another process",
        ];
        assert_eq!(why.to_string(), lines.join("\n"));
    }

    #[test]
    fn the_text_says_why_a_local_copy_is_not_served() {
        let kept = LocalCopy {
            fresh_for: Duration::from_secs(5),
            served_for: Duration::from_secs(9),
            unknown_version: None,
            is_trusted: true,
        };
        for (kept, is_served, says) in [
            (kept, true, "fresh for 5.0 s more"),
            (LocalCopy { fresh_for: Duration::ZERO, ..kept }, true, "due, served for 9.0 s more"),
            (LocalCopy { fresh_for: Duration::ZERO, served_for: Duration::ZERO, ..kept }, false, "it has expired"),
            (LocalCopy { unknown_version: Some(Scope::Function), ..kept }, false, "the version of its function"),
            (LocalCopy { is_trusted: false, ..kept }, false, "has not been confirmed alive"),
        ] {
            assert_eq!(kept.is_served(), is_served, "{says}");
            assert!(kept.to_string().contains(says), "{kept}");
        }
    }
}
