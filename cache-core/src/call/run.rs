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

use crate::call::body::Function;
use crate::call::cooldown::leave_alone;
use crate::call::fill::fill;
use crate::call::plan::Plan;
use crate::call::revalidate::StaleRecord;
use crate::coordination::lease::{End, Lease, Told};
use crate::coordination::single_flight::{FlightOutcome, Leader};
use crate::engine::Engine;
use crate::error::DeadlineExceeded;
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, StaleCause};
use crate::observe::history::HistoryEvent;
use crate::store::Replaces;
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

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
    basis: &VersionSnapshot,
    function: Function,
    fallback: Fallback,
    leader: &Leader,
) -> FlightOutcome {
    let old = StaleRecord::offer_old_value(engine, plan, lease.as_ref(), basis).await;
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
        Some(FlightOutcome::Value(value)) => {
            let late = late_basis(engine, plan, &fallback).await;
            let basis = late.as_ref().unwrap_or(basis);
            if let Some(lease) = lease {
                let fill = fill(engine, plan, lease, basis, value, started.elapsed(), old);
                // A panic of a closure or a `Serialize` costs the fill, never the value (S10).
                match AssertUnwindSafe(fill).catch_unwind().await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        plan.observed(engine, HistoryEvent::StoreFailed(error.kind()));
                        engine.store_failed(&error);
                    }
                    Err(_payload) => {
                        plan.observed(engine, HistoryEvent::NotStored);
                        engine.events.emit(Event::FillPanicked { name: Arc::clone(&plan.key.name) });
                    }
                }
            }
            return FlightOutcome::Value(Arc::clone(value));
        }
        Some(_) => StaleCause::Failed,
        None => {
            plan.observed(engine, HistoryEvent::DeadlinePassed);
            StaleCause::DeadlinePassed
        }
    };
    // Its caller has gone before the function came to anything: one of those who wait takes the lease.
    let end = if matches!(landing, Some(FlightOutcome::Abandoned)) { End::Free } else { End::Unstored };
    let stands = give_up(engine, plan, lease, &fallback, end).await;
    // Also where an invalidation of everything has ended it, or one by tag: that leaves its key alone (R17).
    let may_be_served = matches!(fallback, Fallback::Old(_) | Fallback::Unleased(..));
    let stands = stands && (!may_be_served || basis.stands(&engine.versions).await);
    match (landing, fallback) {
        (Some(FlightOutcome::Failed(_)) | None, Fallback::Old(old) | Fallback::Unleased(old, _)) if stands => {
            plan.observed(engine, HistoryEvent::StaleServed(cause));
            FlightOutcome::Value(old)
        }
        (landing, Fallback::Served) => {
            plan.observed(engine, HistoryEvent::RefreshFailed);
            landing.unwrap_or(FlightOutcome::Abandoned)
        }
        (Some(landing), _) => landing,
        (None, _) => match plan.overdue {
            // The run ends here: nothing can be stored by it any more.
            Some(overdue) => FlightOutcome::Failed(overdue(DeadlineExceeded::new(deadline.unwrap_or_default()))),
            // Its callers cannot be told: the key is free for others. A function that borrows goes on for its own caller, one that
            // owns for all who wait for it. What it returns is not stored.
            None if is_lent => FlightOutcome::Abandoned,
            None => {
                leader.detach();
                run.await
            }
        },
    }
}

/// What stands after the run, where a test has removed the guard that goes by what stood before it.
async fn late_basis(engine: &Engine, plan: &Plan, fallback: &Fallback) -> Option<VersionSnapshot> {
    let is_behind = matches!(fallback, Fallback::Served);
    let guard = if is_behind { Invariant::VersionsFromBeforeRefresh } else { Invariant::VersionsFromBeforeRun };
    if !mutants::removed(guard) {
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
        (Fallback::Old(_) | Fallback::Served, Replaces::Stale(fill_id)) => {
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
pub(super) async fn compute(engine: &Engine, plan: &Plan, function: Function, leader: &Leader) -> FlightOutcome {
    plan.observed(engine, HistoryEvent::RunBegan);
    let started = engine.clock.start();
    let landing = function.run(leader.running(&plan.key.name, &plan.key.value_key)).await;
    let after = started.elapsed();
    if matches!(landing, FlightOutcome::Failed(_) | FlightOutcome::Panicked(_)) {
        plan.observed(engine, HistoryEvent::RunFailed { after });
    } else {
        plan.observed(engine, HistoryEvent::RunEnded { after });
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
