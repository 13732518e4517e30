//! Which old values may be served, and which refreshes are in progress in this process.
//!
//! ```text
//! a value that is due ── begin(key) ─┬─ Ticket ─> compute the next one; dropped at its end
//!                                    ├─ CoolingDown ─> a refresh is running, or failed a moment ago
//!                                    └─ Full ────> the maximum number of refreshes is running
//! ```
//!
//! Invariant: at most one refresh per key in this process, and no more than the bound for all keys.
//! Over all processes the lease next to the record ensures this; the state here only saves the
//! request for it at each hit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Timestamp, millis};
use crate::local::Service;
use crate::observe::events::StaleCause;
use crate::options::{Deadline, Defaults, EntryOptions, LocalTier, RefreshBy};
use crate::value::envelope::Envelope;
use crate::value::freshness::{Freshness, ahead_ms, calm, refresh_ahead, verdict};

/// How many keys may rest after a failure before the oldest are forgotten. For a forgotten key the
/// store is asked again.
const MOST_COOLING_DOWN: usize = 4096;

/// The staleness rules that follow from the options of a function and its cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StalenessPolicy {
    /// How long after its ttl a value is served at once.
    pub(crate) at_once: Duration,
    /// How long after its ttl a value may be served at all.
    pub(crate) window: Duration,
    /// How long a caller waits if a value within `window` is available; `None`: until the compute
    /// fails.
    pub(crate) soft_timeout: Option<Duration>,
    /// XFetch's beta; zero: no refresh ahead.
    pub(crate) beta: f64,
    /// How long a compute may take.
    pub(crate) deadline: Option<Duration>,
}

impl StalenessPolicy {
    /// Makes the rules. `owned`: the function's future owns what it needs, so that it can run in
    /// the background.
    pub(crate) fn new(defaults: &Defaults, options: &EntryOptions, owned: bool) -> Self {
        let revalidate = options.stale_while_revalidate.unwrap_or_default();
        let soft_timeout = options.soft_timeout.filter(|_| owned);
        let ahead = owned || options.refresh == RefreshBy::Caller;
        let beta = options.early.unwrap_or(defaults.early);
        Self {
            at_once: if soft_timeout.is_some() { Duration::ZERO } else { revalidate },
            window: revalidate.max(options.stale_if_error.unwrap_or_default()),
            soft_timeout,
            beta: if ahead && beta.is_finite() { beta.max(0.0) } else { 0.0 },
            deadline: match options.deadline {
                Deadline::Cache => defaults.deadline,
                Deadline::After(after) => Some(after),
                Deadline::Off => None,
            },
        }
    }
}

impl StalenessPolicy {
    /// Returns how long a record is kept after it may last be served. A refresh that was started
    /// before can then still replace it, and callers in the meantime find its lease next to the
    /// record instead of nothing. The next compute rarely takes three times as long as the last.
    pub(crate) fn kept_beyond(&self, cost: Duration) -> Duration {
        let is_refreshed = self.beta > 0.0 || !self.window.is_zero();
        if is_refreshed { cost.saturating_mul(3) } else { Duration::ZERO }
    }

    /// Returns whether a record past its ttl may be served if the next compute fails.
    pub(crate) fn may_fall_back_on(&self, envelope: &Envelope, now: Timestamp) -> bool {
        verdict(envelope, now) == Freshness::Stale && now < envelope.fresh_until().plus(self.window)
    }
}

/// How a record may be served now: at once, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServeWindow {
    /// Whether it should be refreshed meanwhile.
    pub(crate) is_due: bool,
    fresh: Duration,
    /// Before this, nothing is refreshed ahead.
    calm: Duration,
    stale: Duration,
    ahead_ms: f64,
    fill_id: u64,
}

impl ServeWindow {
    /// Returns how the record may be served; `None` if it may not be served at once.
    pub(crate) fn of(envelope: &Envelope, terms: &StalenessPolicy, now: Timestamp) -> Option<Self> {
        let fresh = now.until(envelope.fresh_until());
        let at_once = terms.at_once.min(envelope.stale_for);
        let is_due = match verdict(envelope, now) {
            Freshness::Expired => return None,
            Freshness::Fresh => refresh_ahead(envelope, now, terms.beta, crate::random::fraction()),
            Freshness::Stale if now < envelope.fresh_until().plus(at_once) => true,
            Freshness::Stale => return None,
        };
        Some(Self {
            is_due,
            fresh,
            calm: calm(envelope, now),
            stale: now.until(envelope.fresh_until().plus(at_once)).saturating_sub(fresh),
            ahead_ms: ahead_ms(envelope.cost, terms.beta),
            fill_id: envelope.fill_id,
        })
    }

    /// Returns how long it is fresh.
    pub(crate) fn fresh(self) -> Duration {
        self.fresh
    }

    /// Returns the same for L1.
    pub(crate) fn service(self, tier: LocalTier) -> Service {
        let longest = tier.limit(Duration::MAX);
        let Self { fresh, calm, stale, ahead_ms, fill_id, .. } = self;
        Service { fresh, calm, stale, longest, ahead_ms, fill_id }
    }
}

/// The refreshes of one cache.
#[derive(Debug)]
pub(crate) struct Refreshes {
    most: usize,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    running: HashMap<Arc<str>, u64>,
    /// Until when a record is not refreshed, on the coarse clock.
    cooldowns: HashMap<Arc<str>, Cooldown>,
}

#[derive(Debug, Clone, Copy)]
struct Cooldown {
    fill_id: u64,
    until: u64,
}

/// The result of [`Refreshes::begin`].
#[derive(Debug)]
pub(crate) enum Begun {
    /// Compute, and drop this at the end.
    Ticket(Ticket),
    /// A refresh is in progress, or failed a moment ago.
    CoolingDown,
    /// The maximum number of refreshes is running.
    Full,
}

/// A refresh in progress.
#[derive(Debug)]
pub(crate) struct Ticket {
    refreshes: Arc<Refreshes>,
    key: Arc<str>,
}

impl Refreshes {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, keys: Mutex::default() })
    }

    /// Returns whether the record with this fill id is being refreshed or resting.
    pub(crate) fn is_cooling_down(&self, key: &str, fill_id: u64, now: u64) -> bool {
        self.cooldown(key, fill_id, now).is_some()
    }

    /// Returns the cause to report to a caller that gets the old value for this reason.
    pub(crate) fn cooldown(&self, key: &str, fill_id: u64, now: u64) -> Option<StaleCause> {
        self.keys().cooldown(key, fill_id, now)
    }

    /// Starts a refresh if there is capacity and this key is neither refreshed nor resting.
    pub(crate) fn begin(self: &Arc<Self>, key: &Arc<str>, fill_id: u64, now: u64) -> Begun {
        let mut keys = self.keys();
        if keys.running.contains_key(key) || keys.cooldown(key, fill_id, now).is_some() {
            return Begun::CoolingDown;
        }
        if keys.running.len() >= self.most {
            return Begun::Full;
        }
        keys.running.insert(Arc::clone(key), fill_id);
        Begun::Ticket(Ticket { refreshes: Arc::clone(self), key: Arc::clone(key) })
    }

    /// Lets a record rest: its refresh has failed, or another process is refreshing it. Returns
    /// `true` if other keys were forgotten for it.
    pub(crate) fn begin_cooldown(&self, key: &Arc<str>, fill_id: u64, now: u64, rest: Duration) -> bool {
        let mut keys = self.keys();
        let mut is_full = false;
        if keys.cooldowns.len() >= MOST_COOLING_DOWN {
            keys.cooldowns.retain(|_, rest| now < rest.until);
            is_full = keys.cooldowns.len() >= MOST_COOLING_DOWN;
            if is_full {
                keys.cooldowns.clear();
            }
        }
        keys.cooldowns.insert(Arc::clone(key), Cooldown { fill_id, until: now.saturating_add(millis(rest)) });
        is_full
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn cooldown(&self, key: &str, fill_id: u64, now: u64) -> Option<StaleCause> {
        if self.running.get(key) == Some(&fill_id) {
            return Some(StaleCause::SoftTimeout);
        }
        let rest = self.cooldowns.get(key)?;
        (rest.fill_id == fill_id && now < rest.until).then_some(StaleCause::Throttled)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.refreshes.keys().running.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(refreshes: &Arc<Refreshes>, key: &str, now: u64) -> Begun {
        refreshes.begin(&key.into(), 1, now)
    }

    #[test]
    // F11
    fn refreshes_are_bounded_and_one_per_key() {
        let refreshes = Refreshes::new(2);
        let Begun::Ticket(first) = begin(&refreshes, "a", 0) else { panic!("there is a place") };
        assert!(matches!(begin(&refreshes, "a", 0), Begun::CoolingDown));
        assert!(refreshes.is_cooling_down("a", 1, 0));
        assert!(matches!(refreshes.begin(&"a".into(), 2, 0), Begun::CoolingDown), "one a key, whatever the record");
        // Another record of that key is not the one that is being refreshed.
        assert!(!refreshes.is_cooling_down("a", 2, 0));
        let Begun::Ticket(_second) = begin(&refreshes, "b", 0) else { panic!("there is a place") };
        assert!(matches!(begin(&refreshes, "c", 0), Begun::Full));
        drop(first);
        assert!(matches!(begin(&refreshes, "c", 0), Begun::Ticket(_)));
    }

    #[test]
    // F3
    fn a_failed_refresh_starts_a_cooldown_for_its_record() {
        let refreshes = Refreshes::new(2);
        refreshes.begin_cooldown(&"a".into(), 1, 1_000, Duration::from_secs(5));
        assert!(matches!(begin(&refreshes, "a", 5_999), Begun::CoolingDown));
        assert!(matches!(begin(&refreshes, "a", 6_000), Begun::Ticket(_)));
        // A new record is not resting.
        assert!(!refreshes.is_cooling_down("a", 2, 5_999));
        let rest = |other: &usize| refreshes.begin_cooldown(&other.to_string().into(), 1, 0, Duration::from_secs(5));
        assert_eq!(
            (0..2 * MOST_COOLING_DOWN).filter(rest).count(),
            2,
            "all are forgotten at once, and this is reported"
        );
        assert!(refreshes.keys().cooldowns.len() <= MOST_COOLING_DOWN);
    }
}
