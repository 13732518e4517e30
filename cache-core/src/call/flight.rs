//! Shares one run among the callers of a key in this process.
//!
//! ```text
//! join the flight of the key ─┬─ led by another ─> wait for its outcome
//!                             └─ led here ───────> a task: look, take the lease, run, fill
//! ```
//!
//! Invariant: a run is a task. It ends when no caller waits for it any more, and it yields exactly
//! one outcome, whatever panics in it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::call::function::{Function, Lending, Lent, OwnedFunction, Returned};
use crate::call::leader::{Read, lead};
use crate::call::plan::{Plan, Tally};
use crate::call::task::drive;
use crate::coordination::single_flight::{Caller, Flight, FlightOutcome, Joined, Leader, Panic};
use crate::engine::Engine;
use crate::options::SingleFlightScope;

/// How many runs without an outcome a caller begins before it runs its function alone.
const MAX_ABANDONED: u32 = 3;

/// Runs a function that owns everything it uses. If this caller is dropped, the run goes on for the
/// other callers that wait for it.
pub(crate) async fn run_shared(engine: &Arc<Engine>, plan: Plan, read: Read, function: OwnedFunction) -> FlightOutcome {
    let caller = Caller::here();
    caller.assert_not_inside(&plan.key.value_key, &plan.key.name);
    let (plan, mut read) = (Arc::new(plan), Some(read));
    loop {
        let (leader, flight) = match join(engine, &plan, &mut read, &caller) {
            Joined::Lead(leader, flight) => (leader, flight),
            Joined::Follow(flight) => match follow(engine, &plan, flight, &caller).await {
                // The function borrowed from a caller that was dropped: a batch, or another
                // function of this name.
                FlightOutcome::Abandoned => {
                    read = None;
                    continue;
                }
                outcome => return outcome,
            },
        };
        let read = read_of(engine, &plan, read.take());
        if let Err(outside_of_a_runtime) = begin(engine, &plan, read, Function::Owned(function), leader) {
            outside_of_a_runtime.await;
        }
        return flight.outcome(&caller, &plan.key.name).await;
    }
}

/// Runs a function that borrows from its caller. If this caller is dropped, one of the others that
/// wait for the run leads its own.
pub(crate) fn run_here<'a>(
    engine: &Arc<Engine>,
    plan: Arc<Plan>,
    read: Option<Read>,
    function: BoxFuture<'a, Returned>,
) -> Stages<'a> {
    let caller = Caller::here();
    caller.assert_not_inside(&plan.key.value_key, &plan.key.name);
    Stages::new(enter(Entering { engine: Arc::clone(engine), plan, caller, begun: 0 }, read, function))
}

/// A call whose function borrows, while it joins or leads a flight.
struct Entering {
    engine: Arc<Engine>,
    plan: Arc<Plan>,
    caller: Caller,
    /// How many of the runs that it began have ended without an outcome.
    begun: u32,
}

fn enter<'a>(entering: Entering, read: Option<Read>, function: BoxFuture<'a, Returned>) -> BoxFuture<'a, Stage<'a>> {
    async move {
        let Entering { engine, plan, caller, begun } = &entering;
        let mut read = read;
        let (leader, flight) = loop {
            match join(engine, plan, &mut read, caller) {
                Joined::Lead(leader, flight) => break (leader, flight),
                Joined::Follow(flight) => match follow(engine, plan, flight, caller).await {
                    FlightOutcome::Abandoned => read = None,
                    outcome => return Stage::Done(outcome),
                },
            }
        };
        if *begun >= MAX_ABANDONED {
            let running = leader.running(&plan.key.name, &plan.key.value_key);
            return Stage::Then(finish(Box::pin(running.run(function))));
        }
        let read = read_of(engine, plan, read);
        // Outside of a runtime the run is dropped, and the function is not used.
        let begin = |function| drop(begin(engine, plan, read, function, leader));
        let lending = Lending::new(function, flight, caller, &plan.key.name, begin);
        Stage::Then(lend(lending, entering))
    }
    .boxed()
}

fn lend<'a>(lending: Lending<'a>, mut entering: Entering) -> BoxFuture<'a, Stage<'a>> {
    entering.begun = entering.begun.saturating_add(1);
    let next = |lent| match lent {
        Lent::Completed(outcome) => Stage::Done(outcome),
        Lent::Unfinished(run) => Stage::Then(finish(run)),
        Lent::Unused(function) => Stage::Then(enter(entering, None, function)),
    };
    lending.map(next).boxed()
}

/// Finishes a run whose result goes to this caller only.
fn finish<'a>(run: BoxFuture<'a, Result<Returned, Panic>>) -> BoxFuture<'a, Stage<'a>> {
    run.map(|returned| Stage::Done(Function::returned(returned))).boxed()
}

/// A call in stages, one boxed future each. The stack that a stage used is free while later stages
/// are polled. So functions that call each other can nest hundreds of levels deep.
pub(crate) struct Stages<'a>(BoxFuture<'a, Stage<'a>>);

/// How a stage ends.
pub(crate) enum Stage<'a> {
    /// With the outcome of the call.
    Done(FlightOutcome),
    /// With another stage.
    Then(BoxFuture<'a, Stage<'a>>),
}

impl<'a> Stages<'a> {
    pub(crate) fn new(first: BoxFuture<'a, Stage<'a>>) -> Self {
        Self(first)
    }
}

impl<'a> From<Stages<'a>> for Stage<'a> {
    fn from(stages: Stages<'a>) -> Self {
        Self::Then(stages.0)
    }
}

impl Future for Stages<'_> {
    type Output = FlightOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<FlightOutcome> {
        loop {
            match self.0.as_mut().poll(context) {
                Poll::Ready(Stage::Done(outcome)) => return Poll::Ready(outcome),
                Poll::Ready(Stage::Then(next)) => self.0 = next,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Joins the flight of the key, if the function shares runs.
fn join(engine: &Engine, plan: &Plan, read: &mut Option<Read>, caller: &Caller) -> Joined {
    if plan.rules.options.single_flight == SingleFlightScope::None || plan.refresh {
        let (leader, flight) = Leader::alone(caller);
        return Joined::Lead(leader, flight);
    }
    let basis = &read.get_or_insert_with(|| Read::unread(engine, plan)).basis;
    engine.flights.join(&plan.key.value_key, (plan.value.type_id)(), || basis.since(), caller)
}

fn read_of(engine: &Engine, plan: &Plan, read: Option<Read>) -> Read {
    read.unwrap_or_else(|| Read::unread(engine, plan))
}

impl Read {
    fn unread(engine: &Engine, plan: &Plan) -> Self {
        Self { basis: plan.basis(engine), slot: None }
    }
}

async fn follow(engine: &Engine, plan: &Plan, flight: Flight, caller: &Caller) -> FlightOutcome {
    plan.count(engine, Tally::Joined);
    flight.outcome(caller, &plan.key.name).await
}

/// Begins the run of a flight.
fn begin(
    engine: &Arc<Engine>,
    plan: &Arc<Plan>,
    read: Read,
    function: Function,
    leader: Leader,
) -> Result<(), BoxFuture<'static, ()>> {
    let (engine, plan) = (Arc::clone(engine), Arc::clone(plan));
    let background = Arc::clone(&engine.background);
    drive(&background, leader, move |leader| async move { lead(&engine, &plan, read, function, &leader).await })
}
