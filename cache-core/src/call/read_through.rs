//! The pipeline after a miss in this process, top to bottom.
//!
//! ```text
//! read ── a fresh record ──> its value: no run, no flight
//!  └─ else ─> share the run of the key in this process, a task of its own:
//!              ├─ a record past its time ─> serve it and refresh, or run the function and fall back on it
//!              ├─ nothing ─────> take the lease ──> run the function ──> fill
//!              ├─ a lease ─────> wait for the push or its end, read again
//!              └─ no store ────> run the function
//! ```
//!
//! Invariant: a fault of the store never reaches the caller, and a computed value always does.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::call::body::Returned;
use crate::call::flight::{Stage, Stages, run_here};
use crate::call::lead::Read;
use crate::call::look::read;
use crate::call::plain;
use crate::call::plan::{Plan, Tally};
use crate::call::record::Hit;
use crate::call::record::kept;
use crate::call::record::{Stored, decode};
use crate::call::refresh::refresh_here;
use crate::coordination::single_flight::FlightOutcome;
use crate::engine::Engine;
use crate::error::Result;
use crate::observe::history::HistoryEvent;
use crate::options::SingleFlightScope;
use crate::store::Slot;
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// What reading the store before any run came to.
pub(crate) enum Probed {
    /// A value to return.
    Value(Erased),
    /// A value to return while the record with this fill id is computed anew.
    Due(Erased, u64),
    /// Left to a run.
    Miss(Read),
}

/// Reads the store before any flight is entered: a fresh record needs none.
pub(crate) async fn probe(engine: &Engine, plan: &Plan) -> Probed {
    let mut basis = plan.basis(engine);
    // Whoever finds a run under way waits for it: what it will bring is not there yet.
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

/// A call whose function borrows from its caller. `boxed` is called where the function may be needed.
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
    let (slot, mark) = engine.builds.introduce(&plan.key, read(engine, plan, basis)).await?;
    let Slot::Bytes(bytes) = &slot else { return Ok(Err(slot)) };
    if !basis.is_complete() {
        return Ok(Err(slot));
    }
    let Stored::Value(served) = decode(engine, plan, basis, bytes, mark.is_some()).await? else { return Ok(Err(slot)) };
    plan.observed(engine, HistoryEvent::Hit { fresh_for: served.serving.fresh() });
    plan.count(engine, Tally::Hits);
    Ok(Ok(match kept(engine, plan, served, mark) {
        Hit { value, due: Some(fill_id) } => Probed::Due(value, fill_id),
        Hit { value, due: None } => Probed::Value(value),
    }))
}

/// The same for plain values: what is stored, else what the function returns.
pub(crate) fn read_or_run_plain<'a>(engine: &Arc<Engine>, plan: Plan, function: BoxFuture<'a, Returned>) -> Stages<'a> {
    let engine = Arc::clone(engine);
    let first = async move {
        // A run under way is not waited for if there is a value: whoever wrote that, wrote it
        // since.
        match plain::look(&engine, &plan).await {
            Ok((plain::Standing::Value(value), _)) => {
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
