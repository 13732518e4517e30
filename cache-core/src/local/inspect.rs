//! What is kept of a key, for telling people and for the consistency meter. Not for serving it.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use quick_cache::Equivalent;

use super::{Kept, Local, LocalKeyRef};
use crate::sabotage::{self, Guard};
use crate::versions::Dependencies;

/// What [`Local::inspect`] finds, counted from now.
pub(crate) struct Inspected {
    pub(crate) fresh: Duration,
    pub(crate) served: Duration,
    pub(crate) is_trusted: bool,
    /// The record it came from.
    pub(crate) fill_id: u64,
    pub(crate) under: Dependencies,
}

impl Inspected {
    /// Whether a call would get it.
    pub(crate) fn is_served(&self) -> bool {
        (self.is_trusted || sabotage::is(Guard::TrustEnds)) && !self.served.is_zero() && self.under.hold()
    }
}

impl Local {
    /// What is kept under a key, whether it may be served or not. It does not count as a use.
    pub(crate) fn inspect(&self, key: &str) -> Option<Inspected> {
        let now = self.clock.coarse();
        let look =
            Look { key: LocalKeyRef::parse(key), now, is_trusted: self.trust.holds(now), found: Cell::new(None) };
        self.entries.peek(&look)?;
        look.found.into_inner()
    }
}

/// A look-up that reads the entry where it lies, as a hit does.
struct Look<'a> {
    key: LocalKeyRef<'a>,
    now: u64,
    is_trusted: bool,
    found: Cell<Option<Inspected>>,
}

impl Equivalent<Kept> for Look<'_> {
    fn equivalent(&self, kept: &Kept) -> bool {
        let is = self.key.is(&kept.key);
        if is {
            let until = |ms: u32| kept.until.saturating_add(ms.into());
            let left = |ms: u32| Duration::from_millis(until(ms).saturating_sub(self.now));
            self.found.set(Some(Inspected {
                fresh: left(kept.chancy_ms),
                served: left(kept.served_ms),
                is_trusted: self.is_trusted,
                fill_id: kept.fill_id,
                under: kept.under.clone(),
            }));
        }
        is
    }
}

impl Hash for Look<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}
