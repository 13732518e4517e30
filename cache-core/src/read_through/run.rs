//! Running the function: under a lease and a deadline, in the foreground or behind a value that is served meanwhile.
//!
//! | run | who waits | it fails | its deadline passes |
//! |---|---|---|---|
//! | nothing at hand | its callers | the error is theirs | theirs too, or it goes on without its key |
//! | an old value to fall back on | its callers | the old value, throttle | the old value, throttle |
//! | behind a served value | nobody | an event, throttle | an event, throttle |

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use super::fill::fill;
use super::old::OldRecord;
use super::{Function, Lending, Lent, OwnedFunction, Plan, Returned, drive};
use crate::engine::Engine;
use crate::error::DeadlineExceeded;
use crate::events::{Event, StaleCause, Table};
use crate::history::What;
use crate::lease::{End, Lease, Obstacle, Told};
use crate::refresh::{Begun, Ticket};
use crate::sabotage::{self, Guard};
use crate::single_flight::{Caller, Landing, Leader};
use crate::store::{Over, Slot, has_fill_id};
use crate::tag::Basis;
use crate::value::Erased;

/// How long a key is left alone whose refresh was skipped.
const AFTER_SKIP: Duration = Duration::from_millis(100);

/// What there is if the function comes to nothing.
pub(crate) enum Fallback {
    /// Nothing.
    None,
    /// A value past its time, whose record the lease is beside.
    Old(Erased),
    /// A value past its time, of the record with this fill id. There is no lease.
    Unleased(Erased, u64),
    /// A value that its callers have got already.
    Served,
}

/// What a run does with what was learned of its lease.
pub(super) fn tell(leader: &Leader) -> impl Fn(&str, Told) + Sync {
    |_, told| match told {
        Told::Stood(at) => leader.seen(at),
        Told::Lost => leader.detach(),
    }
}

/// Runs the function under the lease, if there is one, and stores what it returns; gives the lease back otherwise.
///
/// `leader`: of those who wait for this run in this process.
pub(super) async fn run_under(
    engine: &Arc<Engine>,
    plan: &Plan,
    lease: Option<Lease>,
    basis: &Basis,
    function: Function,
    fallback: Fallback,
    leader: &Leader,
) -> Landing {
    let old = OldRecord::hand_over(engine, plan, lease.as_ref(), basis).await;
    let (started, deadline) = (engine.clock.start(), plan.terms(engine).deadline);
    let is_lent = matches!(function, Function::Lent(_));
    let mut run = Box::pin(compute(engine, plan, function, leader));
    leader.seen(engine.clock.boot());
    let landing = {
        let kept = async {
            match &lease {
                Some(lease) => lease.keep(&tell(leader), run.as_mut()).await,
                None => run.as_mut().await,
            }
        };
        // Dropped here: the lease is given back, and a waiter takes over.
        within(engine, deadline, kept).await
    };
    let cause = match &landing {
        Some(Landing::Value(value)) => {
            let late = late_basis(engine, plan, &fallback).await;
            let basis = late.as_ref().unwrap_or(basis);
            if let Some(lease) = lease {
                let fill = fill(engine, plan, lease, basis, value, started.elapsed(), old);
                // A panic of a closure or a `Serialize` costs the fill, never the value (S10).
                match AssertUnwindSafe(fill).catch_unwind().await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        plan.observed(engine, What::StoreFailed(error.kind()));
                        engine.store_failed(&error);
                    }
                    Err(_payload) => {
                        plan.observed(engine, What::NotStored);
                        engine.events.emit(Event::FillPanicked { name: Arc::clone(&plan.key.name) });
                    }
                }
            }
            return Landing::Value(Arc::clone(value));
        }
        Some(_) => StaleCause::Failed,
        None => {
            plan.observed(engine, What::DeadlinePassed);
            StaleCause::DeadlinePassed
        }
    };
    // Its caller has gone before the function came to anything: one of those who wait takes the lease.
    let end = if matches!(landing, Some(Landing::Abandoned)) { End::Free } else { End::Unstored };
    let stands = give_up(engine, plan, lease, &fallback, end).await;
    // Also where an invalidation of everything has ended it, or one by tag: that leaves its key alone (R17).
    let may_be_served = matches!(fallback, Fallback::Old(_) | Fallback::Unleased(..));
    let stands = stands && (!may_be_served || basis.stands(&engine.versions).await);
    match (landing, fallback) {
        (Some(Landing::Failed(_)) | None, Fallback::Old(old) | Fallback::Unleased(old, _)) if stands => {
            plan.observed(engine, What::StaleServed(cause));
            Landing::Value(old)
        }
        (landing, Fallback::Served) => {
            plan.observed(engine, What::RefreshFailed);
            landing.unwrap_or(Landing::Abandoned)
        }
        (Some(landing), _) => landing,
        (None, _) => match plan.overdue {
            // The run ends here: nothing can be stored by it any more.
            Some(overdue) => Landing::Failed(overdue(DeadlineExceeded::new(deadline.unwrap_or_default()))),
            // Its callers cannot be told: the key is free for others. A function that borrows goes on for its own caller, one that
            // owns for all who wait for it. What it returns is not stored.
            None if is_lent => Landing::Abandoned,
            None => {
                leader.detach();
                run.await
            }
        },
    }
}

/// What stands after the run, where a test has removed the guard that goes by what stood before it.
async fn late_basis(engine: &Engine, plan: &Plan, fallback: &Fallback) -> Option<Basis> {
    let is_behind = matches!(fallback, Fallback::Served);
    let guard = if is_behind { Guard::VersionsFromBeforeRefresh } else { Guard::VersionsFromBeforeRun };
    if !sabotage::is(guard) {
        return None;
    }
    let mut basis = plan.basis(engine);
    basis.read_unknown(&engine.versions).await.ok()?;
    Some(basis)
}

/// Gives the lease back; where there is something to serve, for the throttle's time to nobody. Whether the record beside it still stood:
/// else it was invalidated meanwhile, and is not to be served (R17).
pub(crate) async fn give_up(
    engine: &Arc<Engine>,
    plan: &Plan,
    lease: Option<Lease>,
    fallback: &Fallback,
    end: End,
) -> bool {
    let Some(lease) = lease else {
        let Fallback::Unleased(_, fill_id) = fallback else { return false };
        return engine.store.holds(&plan.key.value_key, *fill_id).await.unwrap_or_else(|error| {
            engine.store_failed(&error);
            true
        });
    };
    let throttle = engine.limits.refresh_throttle;
    let done = match (fallback, lease.over()) {
        (Fallback::Old(_) | Fallback::Served, Over::Record(fill_id)) => {
            leave_alone(engine, plan, fill_id, Some(throttle));
            lease.throttle(throttle).await
        }
        _ => lease.release(end).await.map(|()| false),
    };
    done.unwrap_or_else(|error| {
        engine.store_failed(&error);
        // Nobody can tell; an old value is what is left.
        true
    })
}

/// Runs the function for its callers.
pub(super) async fn compute(engine: &Engine, plan: &Plan, function: Function, leader: &Leader) -> Landing {
    plan.observed(engine, What::RunBegan);
    let started = engine.clock.start();
    let landing = function.run(leader.running(&plan.key.name, &plan.key.value_key)).await;
    let after = started.elapsed();
    if matches!(landing, Landing::Failed(_) | Landing::Panicked(_)) {
        plan.observed(engine, What::RunFailed { after });
    } else {
        plan.observed(engine, What::RunEnded { after });
    }
    landing
}

pub(crate) async fn within<T>(engine: &Engine, limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    let Some(limit) = limit else { return Some(work.await) };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = engine.clock.sleep(limit) => None,
    }
}

/// No refresh of this record from this process for that long.
pub(crate) fn leave_alone(engine: &Engine, plan: &Plan, fill_id: u64, rest: Option<Duration>) {
    let rest = rest.unwrap_or(engine.limits.refresh_throttle).min(engine.limits.refresh_throttle);
    plan.observed(engine, What::LeftAlone { rest });
    rest_from_now(engine, plan, fill_id, rest);
}

fn rest_from_now(engine: &Engine, plan: &Plan, fill_id: u64, rest: Duration) {
    if engine.refreshes.rest(&plan.key.value_key, fill_id, engine.clock.coarse(), rest) {
        engine.events.table_full(Table::Resting);
    }
}

/// Takes a place among the refreshes of this process, if this key needs one and there is one.
fn begin(engine: &Engine, plan: &Plan, fill_id: u64) -> Option<Ticket> {
    match engine.refreshes.begin(&plan.key.value_key, fill_id, engine.clock.coarse()) {
        Begun::Ticket(ticket) => {
            plan.observed(engine, What::RefreshBegan);
            Some(ticket)
        }
        Begun::Resting => None,
        Begun::Full => {
            plan.observed(engine, What::RefreshSkipped);
            // Else a key that is asked for often would tell it at each hit.
            if plan.terms(engine).soft_timeout.is_none() {
                rest_from_now(engine, plan, fill_id, AFTER_SKIP);
            }
            None
        }
    }
}

/// Computes the next value in the background: no caller waits for it, and no caller's end ends it (F1, F10).
pub(crate) fn refresh_behind(engine: &Arc<Engine>, plan: &Arc<Plan>, fill_id: u64, function: OwnedFunction) {
    let Some(ticket) = begin(engine, plan, fill_id) else { return };
    let (owned, plan) = (Arc::clone(engine), Arc::clone(plan));
    // After the shutdown nobody can, and nobody needs it.
    let _spawned = engine.background.work(async move {
        let (leader, _nobody_waits) = Leader::alone(&Caller::default());
        refresh(&owned, &plan, fill_id, Function::Owned(function), &leader, ticket).await;
    });
}

/// Computes the next value in this caller; `None`: somebody else does, or it came to nothing, and the old one is to be returned.
pub(crate) async fn refresh_here(
    engine: Arc<Engine>,
    plan: Arc<Plan>,
    fill_id: u64,
    function: BoxFuture<'_, Returned>,
) -> Option<Landing> {
    let ticket = begin(&engine, &plan, fill_id)?;
    let caller = Caller::here();
    let (leader, flight) = Leader::alone(&caller);
    let (name, background) = (Arc::clone(&plan.key.name), Arc::clone(&engine.background));
    let begin = |function| {
        let run = |leader: Arc<Leader>| async move {
            let refreshed = refresh(&engine, &plan, fill_id, function, &leader, ticket).await;
            refreshed.unwrap_or(Landing::Abandoned)
        };
        // Outside of a runtime it is dropped, and the old value stays.
        drop(drive(&background, leader, run));
    };
    match Lending::new(function, flight, &caller, &name, begin).await {
        Lent::Landed(landing @ (Landing::Value(_) | Landing::Panicked(_))) => Some(landing),
        Lent::Landed(Landing::Failed(_) | Landing::Abandoned) | Lent::Unused(_) | Lent::LeftAlone(_) => None,
    }
}

/// One refresh over all processes: the lease is to be had only while the record that is due still stands, so a newer one ends it here
/// (F9). The ticket goes at the end.
async fn refresh(
    engine: &Arc<Engine>,
    plan: &Plan,
    fill_id: u64,
    function: Function,
    leader: &Leader,
    _ticket: Ticket,
) -> Option<Landing> {
    // Before the run, as in the foreground (R4).
    let mut basis = plan.basis(engine);
    if let Err(error) = basis.read_unknown(&engine.versions).await {
        engine.store_failed(&error);
        return None;
    }
    // The record may be of the version before, and this build may not be registered under the one that stands (R25).
    if let Err(error) = engine.builds.register_all(std::slice::from_mut(&mut basis), &plan.key).await {
        engine.store_failed(&error);
        return None;
    }
    if !basis.is_complete() {
        return None;
    }
    match engine.leases.acquire(&plan.key, Over::Record(fill_id)).await {
        Ok(Ok(lease)) => Some(run_under(engine, plan, Some(lease), &basis, function, Fallback::Served, leader).await),
        Ok(Err(Obstacle::Throttle(left) | Obstacle::Slot(Slot::Leased(left) | Slot::Unawaited(left)))) => {
            leave_alone(engine, plan, fill_id, left);
            None
        }
        Ok(Err(Obstacle::Slot(_))) => None,
        Err(error) => {
            engine.store_failed(&error);
            None
        }
    }
}

/// Runs the function in the background and waits for it no longer than the soft timeout: then its callers get the old value, and
/// the run goes on and is stored (F5).
pub(super) async fn run_at_most(
    engine: &Arc<Engine>,
    plan: &Arc<Plan>,
    lease: Lease,
    basis: Basis,
    old: Erased,
    function: OwnedFunction,
    leader: &Arc<Leader>,
) -> Landing {
    let soft_timeout = plan.terms(engine).soft_timeout;
    let fill_id = match lease.over() {
        Over::Record(fill_id) => fill_id,
        Over::Nothing => 0,
    };
    let function = Function::Owned(function);
    let Some(ticket) = begin(engine, plan, fill_id) else {
        return run_under(engine, plan, Some(lease), &basis, function, Fallback::Old(old), leader).await;
    };
    let (sender, mut landed) = oneshot::channel();
    let basis = Arc::new(basis);
    let (of_task, of_run, leader) = (Arc::clone(&basis), Arc::clone(plan), Arc::clone(leader));
    let (owned, fallback) = (Arc::clone(engine), Fallback::Old(Arc::clone(&old)));
    let _spawned = engine.background.work(async move {
        let landing = run_under(&owned, &of_run, Some(lease), &of_task, function, fallback, &leader).await;
        drop(ticket);
        // An error says that nobody waits any more.
        let _nobody = sender.send(landing);
    });
    match within(engine, soft_timeout, &mut landed).await {
        Some(Ok(landing)) => landing,
        // Dropped without a word: the cache was shut down.
        Some(Err(_)) => serve_old(engine, plan, old),
        None => match engine.store.read(&plan.key.value_key).await {
            // Invalidated meanwhile: there is no old value any more, and so no soft timeout (R17, F6).
            Ok(slot) if !matches!(&slot, Slot::Bytes(bytes) if has_fill_id(bytes, fill_id)) => {
                landed.await.unwrap_or(Landing::Value(old))
            }
            _ if !basis.stands(&engine.versions).await => landed.await.unwrap_or(Landing::Value(old)),
            _ => serve_old(engine, plan, old),
        },
    }
}

fn serve_old(engine: &Engine, plan: &Plan, old: Erased) -> Landing {
    plan.observed(engine, What::StaleServed(StaleCause::SoftTimeout));
    Landing::Value(old)
}
