//! What a cache consists of.
//!
//! Each part owns what it uses. This module only holds them together for the calls that need several.

use std::sync::Arc;

use crate::background::Background;
use crate::clock::Clock;
use crate::coordination::build_registry::Builds;
use crate::coordination::coherence::Coherence;
use crate::coordination::consistency_meter::Meter;
use crate::coordination::keep_warm::InUse;
use crate::coordination::lease::Leases;
use crate::coordination::refresh::Refreshes;
use crate::coordination::single_flight::Flights;
use crate::error::Error;
use crate::key::EntryKey;
use crate::local::Local;
use crate::observe::events::Events;
use crate::observe::function_stats::Functions;
use crate::observe::history::History;
use crate::options::{Defaults, Limits};
use crate::store::Store;
use crate::versions::snapshot::VersionReader;

/// The parts of one cache, shared by all its handles.
pub(crate) struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) address: Box<str>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) namespace: Box<str>,
    /// L1; `None`: turned off.
    pub(crate) local: Option<Arc<Local>>,
    /// Listens to the store for as long as this lives.
    pub(crate) _coherence: Arc<Coherence>,
    pub(crate) versions: Arc<VersionReader>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) builds: Builds,
    pub(crate) leases: Arc<Leases>,
    pub(crate) defaults: Defaults,
    pub(crate) limits: Limits,
    pub(crate) background: Arc<Background>,
    pub(crate) refreshes: Arc<Refreshes>,
    pub(crate) history: Arc<History>,
    pub(crate) functions: Functions,
    /// `None`: turned off.
    pub(crate) meter: Option<Meter>,
    /// Touched in the store for as long as this lives.
    pub(crate) _in_use: Arc<InUse>,
}

impl Engine {
    /// Samples a hit in L1, if the meter is on and chance says so.
    pub(crate) fn meter_hit(&self, key: impl FnOnce() -> EntryKey) {
        if let Some(meter) = &self.meter {
            meter.hit(key);
        }
    }

    /// Tells of a store fault that a call survived.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.events.store_failed(error, self.store.is_available());
    }
}
