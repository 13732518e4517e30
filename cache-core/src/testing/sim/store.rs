//! The simulated store as seen by one node.

mod cells;
mod fences;
mod leases;
mod plain;
mod unsupported;
mod values;
mod versions;

use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use tokio::sync::oneshot;

use super::{LATE_MS, RESPONSE_TIMEOUT_MS, World, request};
use crate::error::{Error, ErrorKind, Result};
use crate::store::memory::MemoryStore;
use crate::store::{Listener, Operation, Store, Trust};

/// One node's side of its link.
pub(super) struct SimStore {
    world: World,
    node: usize,
}

impl SimStore {
    pub(super) fn new(world: World, node: usize) -> Self {
        Self { world, node }
    }

    /// Makes one round trip: `run` is executed at the store when it arrives there, for this
    /// connection.
    async fn call<T: Send + 'static>(
        &self,
        step: &'static str,
        run: impl FnOnce(&World, &MemoryStore, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Held until the reply has arrived: a connection that was given up still delivers its
        // replies.
        let session = self.world.state().nodes[self.node].current.clone();
        let Some(session) = session else { return Err(unavailable(step).unsent()) };
        let (connection, (answer, answered)) = (session.connection, oneshot::channel());
        let run = move |world: &World, store: &MemoryStore| run(world, store, connection);
        self.world.send(connection, step, request(run, answer));
        let answered = self.world.bounded(self.node, RESPONSE_TIMEOUT_MS, answered).await;
        // The task is woken but runs later: what follows the reply on the connection is handled
        // first.
        if self.world.draw_for(connection, 4) == 0 {
            self.world.pause(self.world.draw_for(connection, LATE_MS)).await;
        }
        match answered {
            Some(Ok(result)) => result,
            Some(Err(_lost)) => Err(unavailable(step)),
            None => {
                self.world.state().nodes[self.node].doubt.notify_one();
                Err(unavailable(step))
            }
        }
    }

    /// Makes a round trip for one operation of the embedded store.
    fn pass<'a, T: Send + 'static>(
        &'a self,
        step: &'static str,
        run: impl FnOnce(&MemoryStore) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'a, Result<T>> {
        self.call(step, move |_, store, _| run(store)).boxed()
    }
}

/// Takes the result of the embedded store, which answers at once.
fn now<T>(answer: BoxFuture<'_, Result<T>>) -> Result<T> {
    answer.now_or_never().unwrap_or_else(|| Err(unavailable("simulated")))
}

fn unavailable(step: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, step)
}

/// Refuses operations that the simulation does not need.
fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    let refusal = Error::new(ErrorKind::Refused, "simulated").detail("the simulated store cannot do this");
    future::ready(Err(refusal)).boxed()
}

impl Store for SimStore {
    fn listen(&self, listener: Weak<dyn Listener>) {
        self.world.state().nodes[self.node].pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.world.state().nodes[self.node].trust)
    }

    fn later(&self, operation: Operation) {
        self.world.later(self.node, operation);
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }

    fn is_available(&self) -> bool {
        self.world.state().nodes[self.node].current.is_some()
    }

    fn epoch(&self) -> u64 {
        self.world.state().nodes[self.node].epoch
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
}
