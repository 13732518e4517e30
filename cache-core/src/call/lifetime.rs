//! For how long a value is stored.

use std::time::Duration;

use crate::call::plan::Plan;
use crate::coordination::refresh::StalenessPolicy;
use crate::engine::Engine;
use crate::mutants::{self, Invariant};
use crate::store::RECORD_EXPIRY_MAX;
use crate::value::Erased;

/// How long a value is fresh, and how long it may be served after that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    pub(super) fresh: Duration,
    pub(super) stale: Duration,
}

impl Lifetime {
    /// How long the record stands.
    pub(super) fn expiry(self, terms: StalenessPolicy, cost: Duration) -> Duration {
        self.fresh.saturating_add(self.stale).saturating_add(terms.kept_beyond(cost)).min(RECORD_EXPIRY_MAX)
    }
}

/// How long to store this value; `None`: not at all (V2, V3, V4, V5).
pub(crate) fn lifetime_for(engine: &Engine, plan: &Plan, value: &Erased) -> Option<Lifetime> {
    let rules = &plan.rules;
    let (ttl, stale) = if (plan.value.is_present)(value) {
        let is_refused = rules.cache_if.as_ref().is_some_and(|cache_if| !cache_if(value));
        if is_refused && !mutants::removed(Invariant::CacheIfIsAsked) {
            return None;
        }
        let by_value = rules.ttl_of.as_ref().and_then(|ttl_of| ttl_of(value));
        (by_value.or(rules.options.ttl).unwrap_or(engine.defaults.ttl), plan.terms(engine).window)
    } else {
        (rules.options.negative_ttl.or(engine.defaults.negative_ttl)?, Duration::ZERO)
    };
    // Downward only: a ttl is a promise of how old a value can be.
    let jitter = rules.options.jitter.unwrap_or(engine.defaults.jitter).clamp(0.0, 1.0);
    let shorter = if jitter > 0.0 { ttl.mul_f64(jitter * crate::random::fraction()) } else { Duration::ZERO };
    // Redis counts whole milliseconds, and refuses zero.
    let least = Duration::from_millis(1);
    let fresh = ttl.saturating_sub(shorter).clamp(least, RECORD_EXPIRY_MAX);
    (ttl >= least).then(|| Lifetime { fresh, stale: stale.min(RECORD_EXPIRY_MAX.saturating_sub(fresh)) })
}
