//! Runs the function: under a lease and a deadline, in the foreground or in the background.
//!
//! | run | waiters | it fails | its deadline passes |
//! |---|---|---|---|
//! | without an old value | callers | an error | an error, or it goes on without its key |
//! | with an old value as fallback | callers | the old value, throttle | the old value, throttle |
//! | behind a served value | none | an event, throttle | an event, throttle |

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use crate::call::cooldown::begin_cooldown;
use crate::call::fill::fill;
use crate::call::function::Function;
use crate::call::plan::Plan;
use crate::call::revalidate::StaleRecord;
use crate::coordination::lease::{End, Lease, LeaseNotice};
use crate::coordination::single_flight::{FlightOutcome, Leader};
use crate::engine::Engine;
use crate::error::DeadlineExceeded;
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, StaleCause};
use crate::observe::history::HistoryEvent;
use crate::store::Replaces;
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// What to serve if the function fails.
pub(crate) enum Fallback {
    /// Nothing.
    None,
    /// An expired value. The lease is held next to its record.
    Old(Erased),
    /// An expired value, from the record with this fill id. There is no lease.
    Unleased(Erased, u64),
    /// The callers already have a value.
    Served,
}

/// Returns the callback that notifies the leader of changes of its lease.
pub(super) fn tell(leader: &Leader) -> impl Fn(&str, LeaseNotice) + Sync {
    |_, told| match told {
        LeaseNotice::Stood(at) => leader.seen(at),
        LeaseNotice::Lost => leader.detach(),
    }
}

/// Runs the function, under the lease if there is one, and stores what it returns. Otherwise
/// releases the lease.
///
/// `leader`: the leader of the callers that wait for this run in this process.
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
    let outcome = {
        let kept = async {
            match &lease {
                Some(lease) => lease.keep(&tell(leader), run.as_mut()).await,
                None => run.as_mut().await,
            }
        };
        // Dropped here at the deadline: the lease is released, and a waiter takes over.
        within(engine, deadline, kept).await
    };
    let cause = match &outcome {
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
    // The caller was dropped before the function returned: one of the waiters takes the lease.
    let end = if matches!(outcome, Some(FlightOutcome::Abandoned)) { End::Free } else { End::Unstored };
    let stands = give_up(engine, plan, lease, &fallback, end).await;
    // The versions are checked too: an invalidation by tag, or of everything, does not touch the
    // key (R17).
    let may_be_served = matches!(fallback, Fallback::Old(_) | Fallback::Unleased(..));
    let stands = stands && (!may_be_served || basis.stands(&engine.versions).await);
    match (outcome, fallback) {
        (Some(FlightOutcome::Failed(_)) | None, Fallback::Old(old) | Fallback::Unleased(old, _)) if stands => {
            plan.observed(engine, HistoryEvent::StaleServed(cause));
            FlightOutcome::Value(old)
        }
        (outcome, Fallback::Served) => {
            plan.observed(engine, HistoryEvent::RefreshFailed);
            outcome.unwrap_or(FlightOutcome::Abandoned)
        }
        (Some(outcome), _) => outcome,
        (None, _) => match plan.overdue {
            // The run ends here and can no longer store anything.
            Some(overdue) => FlightOutcome::Failed(overdue(DeadlineExceeded::new(deadline.unwrap_or_default()))),
            // The error type cannot express the deadline. The key is released for others. A
            // function that borrows goes on for its own caller, one that owns for all its waiters.
            // Its value is not stored.
            None if is_lent => FlightOutcome::Abandoned,
            None => {
                leader.detach();
                run.await
            }
        },
    }
}

/// Test only: re-reads the versions after the run when the corresponding guard is disabled.
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

/// Releases the lease. If there is a value to serve, no process refreshes it until the throttle
/// ends. Returns whether the record next to the lease was still there. If not, it was invalidated
/// meanwhile and must not be served (R17).
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
            begin_cooldown(engine, plan, fill_id, Some(throttle));
            lease.throttle(throttle).await
        }
        _ => lease.release(end).await.map(|()| false),
    };
    done.unwrap_or_else(|error| {
        engine.store_failed(&error);
        // Unknown. The old value is the best that is left.
        true
    })
}

/// Runs the function, and records its start and end.
pub(super) async fn compute(engine: &Engine, plan: &Plan, function: Function, leader: &Leader) -> FlightOutcome {
    plan.observed(engine, HistoryEvent::RunBegan);
    let started = engine.clock.start();
    let outcome = function.run(leader.running(&plan.key.name, &plan.key.value_key)).await;
    let after = started.elapsed();
    if matches!(outcome, FlightOutcome::Failed(_) | FlightOutcome::Panicked(_)) {
        plan.observed(engine, HistoryEvent::RunFailed { after });
    } else {
        plan.observed(engine, HistoryEvent::RunEnded { after });
    }
    outcome
}

pub(crate) async fn within<T>(engine: &Engine, limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    let Some(limit) = limit else { return Some(work.await) };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = engine.clock.sleep(limit) => None,
    }
}
