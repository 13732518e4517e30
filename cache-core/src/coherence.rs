//! Applies the store's pushes to what this process keeps.
//!
//! A change of a key drops its L1 entry and poisons its pending fill; a gap does so for all. A run under way is not joined
//! for longer than the staleness bound without its lease having been seen to stand: see [`Lease::keep`](crate::lease::Lease::keep).

use std::sync::Arc;

use crate::local::Local;
use crate::sabotage::{self, Guard};
use crate::store::Listener;

/// What a store tells, applied.
pub(crate) struct Coherence {
    pub(crate) local: Arc<Local>,
}

impl Listener for Coherence {
    fn changed(&self, key: &str) {
        self.local.drop_key(key);
    }

    fn gap(&self) {
        if !sabotage::is(Guard::GapEmptiesLocal) {
            self.local.clear();
        }
    }
}
