//! Sharing one run among the callers of a key in this process.
//!
//! ```text
//! join the flight of the key ─┬─ led by another ─> wait for its outcome
//!                             └─ led here ───────> a task of its own: look, take the lease, run the function, fill
//! ```
//!
//! Invariant: a run is a task, ends when nobody waits for it any more, and hands over one outcome, whatever panics in it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::call::body::{Function, Lending, Lent, OwnedFunction, Returned};
use crate::call::lead::{Read, lead};
use crate::call::plan::{Plan, Tally};
use crate::call::task::drive;
use crate::coordination::single_flight::{Caller, Flight, FlightOutcome, Joined, Leader, Panic};
use crate::engine::Engine;
use crate::options::SingleFlightScope;

/// How often a caller begins a run that ends without an outcome before it runs its function alone.
const MAX_ABANDONED: u32 = 3;

/// For a function that owns all it needs. Dropped, the run goes on for the others who wait for it.
pub(crate) async fn run_shared(engine: &Arc<Engine>, plan: Plan, read: Read, function: OwnedFunction) -> FlightOutcome {
    let caller = Caller::here();
    caller.assert_not_inside(&plan.key.value_key, &plan.key.name);
    let (plan, mut read) = (Arc::new(plan), Some(read));
    loop {
        let (leader, flight) = match join(engine, &plan, &mut read, &caller) {
            Joined::Lead(leader, flight) => (leader, flight),
            Joined::Follow(flight) => match follow(engine, &plan, flight, &caller).await {
                // It borrowed from a caller that is gone: a batch, or another function of the name.
                FlightOutcome::Abandoned => {
                    read = None;
                    continue;
                }
                landing => return landing,
            },
        };
        let read = read_of(engine, &plan, read.take());
        if let Err(outside_of_a_runtime) = begin(engine, &plan, read, Function::Owned(function), leader) {
            outside_of_a_runtime.await;
        }
        return flight.landed(&caller, &plan.key.name).await;
    }
}

/// For a function that borrows from its caller. Dropped, one of the others who wait for the run leads their own.
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
    /// How many runs it has begun that ended without an outcome.
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
                    landing => return Stage::Done(landing),
                },
            }
        };
        if *begun >= MAX_ABANDONED {
            let running = leader.running(&plan.key.name, &plan.key.value_key);
            return Stage::Then(finish(Box::pin(running.run(function))));
        }
        let read = read_of(engine, plan, read);
        // Outside of a runtime it is dropped, and the function is not used.
        let begin = |function| drop(begin(engine, plan, read, function, leader));
        let lending = Lending::new(function, flight, caller, &plan.key.name, begin);
        Stage::Then(lend(lending, entering))
    }
    .boxed()
}

fn lend<'a>(lending: Lending<'a>, mut entering: Entering) -> BoxFuture<'a, Stage<'a>> {
    entering.begun = entering.begun.saturating_add(1);
    let next = |lent| match lent {
        Lent::Landed(landing) => Stage::Done(landing),
        Lent::LeftAlone(run) => Stage::Then(finish(run)),
        Lent::Unused(function) => Stage::Then(enter(entering, None, function)),
    };
    lending.map(next).boxed()
}

/// What the function returns is this caller's, and nobody else's.
fn finish<'a>(run: BoxFuture<'a, Result<Returned, Panic>>) -> BoxFuture<'a, Stage<'a>> {
    run.map(|returned| Stage::Done(Function::returned(returned))).boxed()
}

/// A call in stages, one boxed future each. What an earlier one needed of the stack is free again while a later one is polled, so
/// that functions which call each other find room for hundreds of levels.
pub(crate) struct Stages<'a>(BoxFuture<'a, Stage<'a>>);

/// How a stage ends.
pub(crate) enum Stage<'a> {
    /// With the outcome of the call.
    Done(FlightOutcome),
    /// Another one follows.
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
                Poll::Ready(Stage::Done(landing)) => return Poll::Ready(landing),
                Poll::Ready(Stage::Then(next)) => self.0 = next,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Joins the flight of the key as far as its function shares runs.
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
    flight.landed(caller, &plan.key.name).await
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
