//! Drives a run as a task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::background::Background;
use crate::coordination::single_flight::{FlightOutcome, Leader, Panic};

/// Spawns a run as a task. The task ends when no caller waits for it. A panic in it is the outcome
/// of its flight (S10).
///
/// # Errors
/// Returns the run itself outside of a runtime.
pub(crate) fn drive<F>(
    background: &Background,
    leader: Leader,
    run: impl FnOnce(Arc<Leader>) -> F,
) -> Result<(), BoxFuture<'static, ()>>
where
    F: Future<Output = FlightOutcome> + Send + 'static,
{
    let leader = Arc::new(leader);
    let run = run(Arc::clone(&leader));
    let task = async move {
        let outcome = tokio::select! {
            biased;
            outcome = AssertUnwindSafe(run).catch_unwind() => outcome,
            () = leader.unwanted() => Ok(FlightOutcome::Abandoned),
        };
        leader.complete(outcome.unwrap_or_else(|payload| FlightOutcome::Panicked(Panic::new(payload))));
    };
    background.run(task.boxed())
}
