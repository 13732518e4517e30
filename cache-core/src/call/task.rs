//! A run as a task of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::background::Background;
use crate::coordination::single_flight::{FlightOutcome, Leader, Panic};

/// Spawns a run. It ends when nobody waits for it any more, and a panic in it is the outcome of its flight (S10).
///
/// # Errors
/// The run itself, outside of a runtime.
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
        let landing = tokio::select! {
            biased;
            landing = AssertUnwindSafe(run).catch_unwind() => landing,
            () = leader.unwanted() => Ok(FlightOutcome::Abandoned),
        };
        leader.complete(landing.unwrap_or_else(|payload| FlightOutcome::Panicked(Panic::new(payload))));
    };
    background.run(task.boxed())
}
