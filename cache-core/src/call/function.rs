//! The function of a run: owned by the run, or lent by the caller that began the run.
//!
//! ```text
//! Owned  ── the run polls it, in its own task
//! Lent   ── the run asks its caller to run it, and gets what it returned:
//!           run ── start ──> caller polls the function ── returned ──> run
//! ```
//!
//! Invariant: a caller never polls the run itself. So leases are renewed and deadlines pass whether
//! or not the caller is polled. A function that borrows adds only its own frames to the stack of
//! its caller.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::coordination::single_flight::{Caller, Flight, FlightOutcome, Lender, Panic, Running, Waiting};
use crate::value::Erased;

/// The function's value or error, types erased.
pub(crate) type Returned = Result<Erased, Erased>;

/// A function that owns everything it uses.
pub(crate) type OwnedFunction = BoxFuture<'static, Returned>;

/// The function of a run.
pub(crate) enum Function {
    /// Polled in the run's own task.
    Owned(OwnedFunction),
    /// Polled by its caller.
    Lent(Borrowed),
}

/// The run's end of a function that its caller keeps.
pub(crate) struct Borrowed {
    start: oneshot::Sender<Arc<Running>>,
    returned: oneshot::Receiver<Result<Returned, Panic>>,
}

impl Function {
    /// Runs the function.
    pub(crate) async fn run(self, running: Arc<Running>) -> FlightOutcome {
        let returned = match self {
            Self::Owned(function) => running.run(function).await,
            Self::Lent(Borrowed { start, returned }) => match start.send(running) {
                Ok(()) => match returned.await {
                    Ok(returned) => returned,
                    Err(oneshot::Canceled) => return FlightOutcome::Abandoned,
                },
                Err(_running) => return FlightOutcome::Abandoned,
            },
        };
        Self::returned(returned)
    }

    /// Converts what a function returned into an outcome.
    pub(crate) fn returned(returned: Result<Returned, Panic>) -> FlightOutcome {
        match returned {
            Ok(Ok(value)) => FlightOutcome::Value(value),
            Ok(Err(error)) => FlightOutcome::Failed(error),
            Err(panic) => FlightOutcome::Panicked(panic),
        }
    }
}

/// How a run with a lent function ended for its caller.
pub(crate) enum Lent<'a> {
    /// With this outcome.
    Completed(FlightOutcome),
    /// Without an outcome, before the function was called.
    Unused(BoxFuture<'a, Returned>),
    /// Without an outcome, while the function was running.
    Unfinished(BoxFuture<'a, Result<Returned, Panic>>),
}

/// A caller that has begun a run, and runs the function when the run asks for it.
///
/// The future is written without `async`: it is polled between each function and the functions that
/// it calls, so it must use little stack.
///
/// If it is dropped, the run ends at the latest when it needs the function.
pub(crate) struct Lending<'a> {
    lender: Arc<Lender>,
    /// Made from the lender.
    waker: Waker,
    flight: Flight,
    _waiting: Option<Waiting>,
    function: Option<BoxFuture<'a, Returned>>,
    started: Option<oneshot::Receiver<Arc<Running>>>,
    run: Option<BoxFuture<'a, Result<Returned, Panic>>>,
    returned: Option<oneshot::Sender<Result<Returned, Panic>>>,
}

impl<'a> Lending<'a> {
    /// Makes the future. `begin` begins the run of this flight.
    pub(crate) fn new(
        function: BoxFuture<'a, Returned>,
        flight: Flight,
        caller: &Caller,
        name: &str,
        begin: impl FnOnce(Function),
    ) -> Self {
        let (start, started) = oneshot::channel();
        let (returned, awaited) = oneshot::channel();
        let waiting = flight.wait(caller, name);
        let lender = Lender::new();
        flight.lent_by(&lender);
        begin(Function::Lent(Borrowed { start, returned: awaited }));
        Self {
            waker: Waker::from(Arc::clone(&lender)),
            lender,
            flight,
            _waiting: waiting,
            function: Some(function),
            started: Some(started),
            run: None,
            returned: Some(returned),
        }
    }

    fn outcome(&mut self, outcome: FlightOutcome) -> Lent<'a> {
        match (outcome, self.run.take(), self.function.take()) {
            (FlightOutcome::Abandoned, Some(run), _) => Lent::Unfinished(run),
            (FlightOutcome::Abandoned, None, Some(function)) => Lent::Unused(function),
            (outcome, ..) => Lent::Completed(outcome),
        }
    }
}

impl<'a> Future for Lending<'a> {
    type Output = Lent<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Lent<'a>> {
        let this = &mut *self;
        this.lender.note_poll(context);
        let context = &mut Context::from_waker(&this.waker);
        loop {
            // First, because a run that has ended does not need the function.
            if let Poll::Ready(outcome) = this.flight.poll(context) {
                return Poll::Ready(this.outcome(outcome));
            }
            if let Some(run) = &mut this.run {
                let Poll::Ready(done) = run.as_mut().poll(context) else { return Poll::Pending };
                this.run = None;
                // An error means that the run has ended with its runtime. The value is valid all
                // the same.
                if let Some(Err(done)) = this.returned.take().map(|returned| returned.send(done)) {
                    return Poll::Ready(Lent::Completed(Function::returned(done)));
                }
            } else if let Some(started) = &mut this.started {
                let Poll::Ready(running) = Pin::new(started).poll(context) else { return Poll::Pending };
                this.started = None;
                // An error means that the run does not need the function: its outcome will follow.
                let Some((running, function)) = running.ok().zip(this.function.take()) else { return Poll::Pending };
                this.run = Some(Box::pin(running.run(function)));
            } else {
                return Poll::Pending;
            }
        }
    }
}
