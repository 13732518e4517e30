//! What the leader of a flight does for all callers of its key.

use std::sync::Arc;

use crate::call::function::Function;
use crate::call::look::{Found, look};
use crate::call::plain;
use crate::call::plan::{Plan, Tally};
use crate::call::refresh::{refresh_behind, run_at_most};
use crate::call::run::{Fallback, run_under};
use crate::coordination::single_flight::{FlightOutcome, Leader};
use crate::engine::Engine;
use crate::observe::history::HistoryEvent;
use crate::store::Slot;
use crate::versions::snapshot::VersionSnapshot;

/// The result of a read before the flight, and the versions that it is compared with.
pub(crate) struct Read {
    pub(super) basis: VersionSnapshot,
    /// `None`: not read yet. An error: the store did not answer, and an event was emitted.
    pub(super) slot: Option<Result<Slot, ()>>,
}

/// Looks for a value. If there is none, computes and stores it.
pub(super) async fn lead(
    engine: &Arc<Engine>,
    plan: &Arc<Plan>,
    read: Read,
    function: Function,
    leader: &Arc<Leader>,
) -> FlightOutcome {
    if let Some(lease_key) = &plan.plain {
        return plain::lead(engine, plan, lease_key, function, leader).await;
    }
    let Read { mut basis, slot } = read;
    let found = match look(engine, plan, &mut basis, slot).await {
        Found::Value(value) => {
            plan.count(engine, Tally::Hits);
            return FlightOutcome::Value(value);
        }
        Found::Due(value, fill_id) => {
            plan.count(engine, Tally::Hits);
            // A function that borrows from its caller cannot run in the background. The next call
            // refreshes.
            if let Function::Owned(function) = function {
                refresh_behind(engine, plan, fill_id, function);
            }
            return FlightOutcome::Value(value);
        }
        Found::Old(value, cause) => {
            plan.observed(engine, HistoryEvent::StaleServed(cause));
            return FlightOutcome::Value(value);
        }
        Found::Lease(lease, old) => (Some(lease), old.map_or(Fallback::None, Fallback::Old)),
        Found::Unleased(old, fill_id) => (None, Fallback::Unleased(old, fill_id)),
        Found::Nothing => (None, Fallback::None),
    };
    plan.count(engine, Tally::Misses);
    let waits_for_less = plan.terms(engine).soft_timeout.is_some();
    match (found, function) {
        ((Some(lease), Fallback::Old(old)), Function::Owned(function)) if waits_for_less => {
            run_at_most(engine, plan, lease, basis, old, function, leader).await
        }
        ((lease, fallback), function) => run_under(engine, plan, lease, &basis, function, fallback, leader).await,
    }
}
