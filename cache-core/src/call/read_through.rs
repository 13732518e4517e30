//! The slow path after a miss in this process, top to bottom.
//!
//! ```text
//! read ── a fresh record ──> its value: no run, no flight
//!  └─ else ─> share the run of the key in this process, in a task:
//!              ├─ an expired record ─> serve and refresh it, or run with it as fallback
//!              ├─ no record ───> take the lease ──> run the function ──> fill
//!              ├─ a lease ─────> wait for the push or its end, read again
//!              └─ no store ────> run the function
//! ```
//!
//! Invariant: a store error never reaches the caller, and a computed value always does.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::call::flight::{Stage, Stages, run_here};
use crate::call::function::Returned;
use crate::call::leader::Read;
use crate::call::look::first_read;
use crate::call::plain;
use crate::call::plan::{Plan, Tally};
use crate::call::record::{self, Hit, kept};
use crate::call::refresh::refresh_here;
use crate::call::verdict::{Request, Verdict, decide};
use crate::coordination::single_flight::FlightOutcome;
use crate::engine::Engine;
use crate::error::Result;
use crate::observe::history::HistoryEvent;
use crate::options::SingleFlightScope;
use crate::store::Slot;
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// The result of reading the store before any run.
pub(crate) enum Probed {
    /// Return this value.
    Value(Erased),
    /// Return this value, and refresh the record with this fill id.
    Due(Erased, u64),
    /// The value must be computed.
    Miss(Read),
}

/// Reads the store before any flight is entered. A fresh record needs no flight.
pub(crate) async fn probe(engine: &Engine, plan: &Plan) -> Probed {
    let mut basis = plan.basis(engine);
    // If a run is under way, the caller waits for it: its value is not in the store yet.
    let is_running = || engine.flights.find(&plan.key.value_key, (plan.value.type_id)()).is_some();
    if plan.rules.options.single_flight != SingleFlightScope::None && is_running() {
        return Probed::Miss(Read { basis, slot: None });
    }
    match try_probe(engine, plan, &mut basis).await {
        Ok(Ok(value)) => value,
        Ok(Err(slot)) => Probed::Miss(Read { basis, slot: Some(Ok(slot)) }),
        Err(error) => {
            plan.observed(engine, HistoryEvent::StoreFailed(error.kind()));
            engine.store_failed(&error);
            Probed::Miss(Read { basis, slot: Some(Err(())) })
        }
    }
}

/// Runs a call whose function borrows from its caller. `boxed` is called only if the function may
/// be needed.
pub(crate) fn read_or_run_here<'a, F: Send + 'a>(
    engine: &Arc<Engine>,
    plan: Plan,
    function: F,
    boxed: impl FnOnce(F) -> BoxFuture<'a, Returned> + Send + 'a,
) -> Stages<'a> {
    let engine = Arc::clone(engine);
    let first = async move {
        match probe(&engine, &plan).await {
            Probed::Value(value) => Stage::Done(FlightOutcome::Value(value)),
            Probed::Due(value, fill_id) => {
                let refresh = refresh_here(engine, Arc::new(plan), fill_id, boxed(function));
                Stage::Then(
                    refresh.map(|refreshed| Stage::Done(refreshed.unwrap_or(FlightOutcome::Value(value)))).boxed(),
                )
            }
            Probed::Miss(read) => run_here(&engine, Arc::new(plan), Some(read), boxed(function)).into(),
        }
    };
    Stages::new(first.boxed())
}

async fn try_probe(
    engine: &Engine,
    plan: &Plan,
    basis: &mut VersionSnapshot,
) -> Result<std::result::Result<Probed, Slot>> {
    let (slot, mark) = first_read(engine, plan, basis).await?;
    if !matches!(slot, Slot::Bytes(_)) || !basis.is_complete() {
        return Ok(Err(slot));
    }
    let stored = record::read(engine, plan, basis, &slot, mark.is_some()).await?;
    let Verdict::Serve(served) = decide(Request::of(engine, plan), stored, |_| None) else { return Ok(Err(slot)) };
    plan.observed(engine, HistoryEvent::Hit { fresh_for: served.serving.fresh() });
    plan.count(engine, Tally::Hits);
    Ok(Ok(match kept(engine, plan, served, mark) {
        Hit { value, due: Some(fill_id) } => Probed::Due(value, fill_id),
        Hit { value, due: None } => Probed::Value(value),
    }))
}

/// Like [`read_or_run_here`], for plain values: returns the stored value, or runs the function.
pub(crate) fn read_or_run_plain<'a>(engine: &Arc<Engine>, plan: Plan, function: BoxFuture<'a, Returned>) -> Stages<'a> {
    let engine = Arc::clone(engine);
    let first = async move {
        // If there is a value, a run under way is not waited for: the value was written after the
        // run began.
        match plain::look(&engine, &plan).await {
            Ok((plain::PlainContent::Value(value), _)) => {
                plan.count(&engine, Tally::Hits);
                return Stage::Done(FlightOutcome::Value(value));
            }
            Ok(_) => {}
            Err(error) => plain::failed(&engine, &plan, &error),
        }
        run_here(&engine, Arc::new(plan), None, function).into()
    };
    Stages::new(first.boxed())
}
