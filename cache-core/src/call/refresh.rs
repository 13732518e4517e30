//! Refreshes: computing the next value while the old one is served.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::call::cooldown::{begin_cooldown, cool_down};
use crate::call::function::{Function, Lending, Lent, OwnedFunction, Returned};
use crate::call::plan::Plan;
use crate::call::run::{Fallback, run_under, within};
use crate::call::task::drive;
use crate::coordination::lease::{Lease, Obstacle};
use crate::coordination::refresh::{Begun, Ticket};
use crate::coordination::single_flight::{Caller, FlightOutcome, Leader};
use crate::engine::Engine;
use crate::observe::events::StaleCause;
use crate::observe::history::HistoryEvent;
use crate::store::{LeaseTarget, Replaces, Slot, has_fill_id};
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// How long a key is not refreshed again after a refresh was skipped.
const AFTER_SKIP: Duration = Duration::from_millis(100);

/// Starts a refresh in this process. `None`: this key needs none now, or the limit is reached.
fn begin(engine: &Engine, plan: &Plan, fill_id: u64) -> Option<Ticket> {
    match engine.refreshes.begin(&plan.key.value_key, fill_id, engine.clock.coarse()) {
        Begun::Ticket(ticket) => {
            plan.observed(engine, HistoryEvent::RefreshBegan);
            Some(ticket)
        }
        Begun::CoolingDown => None,
        Begun::Full => {
            plan.observed(engine, HistoryEvent::RefreshSkipped);
            // Otherwise a key that is requested often would emit the event at each hit.
            if plan.terms(engine).soft_timeout.is_none() {
                cool_down(engine, plan, fill_id, AFTER_SKIP);
            }
            None
        }
    }
}

/// Computes the next value in the background. No caller waits for it, and it does not end when a
/// caller does (F1, F10).
pub(crate) fn refresh_behind(engine: &Arc<Engine>, plan: &Arc<Plan>, fill_id: u64, function: OwnedFunction) {
    let Some(ticket) = begin(engine, plan, fill_id) else { return };
    let (owned, plan) = (Arc::clone(engine), Arc::clone(plan));
    // After the shutdown no task can be spawned, and a refresh is not needed.
    let _spawned = engine.background.work(async move {
        let (leader, _nobody_waits) = Leader::alone(&Caller::default());
        refresh(&owned, &plan, fill_id, Function::Owned(function), &leader, ticket).await;
    });
}

/// Computes the next value in this caller. `None`: another refresh runs, or this one failed, and
/// the caller returns the old value.
pub(crate) async fn refresh_here(
    engine: Arc<Engine>,
    plan: Arc<Plan>,
    fill_id: u64,
    function: BoxFuture<'_, Returned>,
) -> Option<FlightOutcome> {
    let ticket = begin(&engine, &plan, fill_id)?;
    let caller = Caller::here();
    let (leader, flight) = Leader::alone(&caller);
    let (name, background) = (Arc::clone(&plan.key.name), Arc::clone(&engine.background));
    let begin = |function| {
        let run = |leader: Arc<Leader>| async move {
            let refreshed = refresh(&engine, &plan, fill_id, function, &leader, ticket).await;
            refreshed.unwrap_or(FlightOutcome::Abandoned)
        };
        // Outside of a runtime the run is dropped, and the old value stays.
        drop(drive(&background, leader, run));
    };
    match Lending::new(function, flight, &caller, &name, begin).await {
        Lent::Completed(outcome @ (FlightOutcome::Value(_) | FlightOutcome::Panicked(_))) => Some(outcome),
        Lent::Completed(FlightOutcome::Failed(_) | FlightOutcome::Abandoned)
        | Lent::Unused(_)
        | Lent::Unfinished(_) => None,
    }
}

/// Runs one refresh over all processes. The lease is granted only while the due record is in the
/// store, so a newer record ends the refresh here (F9). The ticket is released at the end.
async fn refresh(
    engine: &Arc<Engine>,
    plan: &Plan,
    fill_id: u64,
    function: Function,
    leader: &Leader,
    _ticket: Ticket,
) -> Option<FlightOutcome> {
    // Read before the run, as in the foreground (R4).
    let mut basis = plan.basis(engine);
    if let Err(error) = basis.read_unknown(&engine.versions).await {
        engine.store_failed(&error);
        return None;
    }
    // The record may be from before the current function version, and this build may not be
    // registered under that version (R25).
    if let Err(error) = engine.builds.register_all(std::slice::from_mut(&mut basis), &plan.key).await {
        engine.store_failed(&error);
        return None;
    }
    if !basis.is_complete() {
        return None;
    }
    match engine.leases.acquire(&plan.key, LeaseTarget::Beside(fill_id)).await {
        Ok(Ok(lease)) => Some(run_under(engine, plan, Some(lease), &basis, function, Fallback::Served, leader).await),
        Ok(Err(Obstacle::Throttle(left) | Obstacle::Slot(Slot::Leased(left) | Slot::Unawaited(left)))) => {
            begin_cooldown(engine, plan, fill_id, left);
            None
        }
        Ok(Err(Obstacle::Slot(_))) => None,
        Err(error) => {
            engine.store_failed(&error);
            None
        }
    }
}

/// Runs the function in the background and waits for it up to the soft timeout. After that, callers
/// get the old value, and the run goes on and stores its value (F5).
pub(super) async fn run_at_most(
    engine: &Arc<Engine>,
    plan: &Arc<Plan>,
    lease: Lease,
    basis: VersionSnapshot,
    old: Erased,
    function: OwnedFunction,
    leader: &Arc<Leader>,
) -> FlightOutcome {
    let soft_timeout = plan.terms(engine).soft_timeout;
    let fill_id = match lease.over() {
        Replaces::Stale(fill_id) => fill_id,
        Replaces::Nothing => 0,
    };
    let function = Function::Owned(function);
    let Some(ticket) = begin(engine, plan, fill_id) else {
        return run_under(engine, plan, Some(lease), &basis, function, Fallback::Old(old), leader).await;
    };
    let (sender, mut completed) = oneshot::channel();
    let basis = Arc::new(basis);
    let (of_task, of_run, leader) = (Arc::clone(&basis), Arc::clone(plan), Arc::clone(leader));
    let (owned, fallback) = (Arc::clone(engine), Fallback::Old(Arc::clone(&old)));
    let _spawned = engine.background.work(async move {
        let outcome = run_under(&owned, &of_run, Some(lease), &of_task, function, fallback, &leader).await;
        drop(ticket);
        // An error means that no caller waits any more.
        let _nobody = sender.send(outcome);
    });
    match within(engine, soft_timeout, &mut completed).await {
        Some(Ok(outcome)) => outcome,
        // The sender was dropped: the cache was shut down.
        Some(Err(_)) => serve_old(engine, plan, old),
        None => match engine.store.read(&plan.key.value_key).await {
            // Invalidated meanwhile: the old value must not be served, so the soft timeout does not
            // apply (R17, F6).
            Ok(slot) if !matches!(&slot, Slot::Bytes(bytes) if has_fill_id(bytes, fill_id)) => {
                completed.await.unwrap_or(FlightOutcome::Value(old))
            }
            _ if !basis.stands(&engine.versions).await => completed.await.unwrap_or(FlightOutcome::Value(old)),
            _ => serve_old(engine, plan, old),
        },
    }
}

fn serve_old(engine: &Engine, plan: &Plan, old: Erased) -> FlightOutcome {
    plan.observed(engine, HistoryEvent::StaleServed(StaleCause::SoftTimeout));
    FlightOutcome::Value(old)
}
