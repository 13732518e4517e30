//! Reads what is kept under a key, for display and for the consistency meter. Not for serving it.

use std::time::Duration;

use super::{Local, ParsedKey};
use crate::mutants::{self, Invariant};
use crate::versions::Dependencies;

/// The result of [`Local::inspect`], counted from now.
pub(crate) struct Inspected {
    pub(crate) fresh: Duration,
    pub(crate) served: Duration,
    pub(crate) is_trusted: bool,
    /// The fill id of its record.
    pub(crate) fill_id: u64,
    pub(crate) under: Dependencies,
}

impl Inspected {
    /// Returns whether a call would get it.
    pub(crate) fn is_served(&self) -> bool {
        (self.is_trusted || mutants::removed(Invariant::TrustEnds)) && !self.served.is_zero() && self.under.hold()
    }
}

impl Local {
    /// Returns what is kept under a key, whether it may be served or not. Does not count as a use.
    pub(crate) fn inspect(&self, key: &str) -> Option<Inspected> {
        let (now, parsed, guard) = (self.now.clock.coarse(), ParsedKey::parse(key), self.entries.guard());
        let (kept, ()) = self.entries.get_key_value(&self.look(parsed.as_ref()), &guard)?;
        if !kept.is_of(self.now.epoch()) {
            return None;
        }
        let until = |ms: u32| kept.until.saturating_add(ms.into());
        let left = |ms: u32| Duration::from_millis(until(ms).saturating_sub(now));
        Some(Inspected {
            fresh: left(kept.chancy_ms),
            served: left(kept.served_ms),
            is_trusted: self.trust.holds(now),
            fill_id: kept.fill_id,
            under: kept.under.clone(),
        })
    }
}
