//! Applies the store's pushes to what this process keeps.
//!
//! A change of a key drops its L1 entry and poisons its pending fill, one of a version makes it unknown and ends the
//! joining of runs under way; a gap does so for all. Nor is a run joined for longer than the staleness bound without its lease having been seen to stand: see [`Lease::keep`](crate::lease::Lease::keep).

use std::sync::Arc;

use crate::history::{By, History, What};
use crate::local::Local;
use crate::sabotage::{self, Guard};
use crate::single_flight::Flights;
use crate::store::Listener;
use crate::tag;
use crate::versions::{Told, Versions};

/// What a store tells, applied.
pub(crate) struct Coherence {
    pub(crate) local: Option<Arc<Local>>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) history: Arc<History>,
}

impl Listener for Coherence {
    fn changed(&self, key: &str) {
        let local = self.local.as_ref().filter(|_| !sabotage::is(Guard::PushDropsEntry));
        if local.is_some_and(|local| local.drop_key(key)) {
            self.history.note(key, What::Changed);
        }
        let told = self.versions.changed(key);
        if told != Told::NoVersion {
            // Runs of its entries go on for who waits for them, and nobody joins them any more.
            self.flights.detach_all();
        }
        // Of an own invalidation nothing was known any more.
        if told == Told::Known {
            self.history.note(key, What::Invalidated(tag::scope(key), By::Another));
        }
    }

    fn gap(&self) {
        if let Some(local) = &self.local
            && !sabotage::is(Guard::GapEmptiesLocal)
        {
            local.clear();
        }
        if !sabotage::is(Guard::GapForgetsVersions) {
            self.versions.clear();
        }
        // A renewed lease tells nothing of an invalidation by version, and the push of it may be what was lost.
        self.flights.detach_all();
        self.history.note_of_all(What::ConnectionLost);
    }
}
