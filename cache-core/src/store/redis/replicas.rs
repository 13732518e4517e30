//! Invalidations that return only once replicas have them (R24).
//!
//! ```text
//! write ─> separate connection ─> reply ─> ticket ─┐
//! write ─> ..                  ─> reply ─> ticket ─┴─> one WAIT for all that have a ticket
//!                                                      ─> enough replicas?
//! ```
//!
//! They use a separate connection, because WAIT counts the writes of the connection it is sent on
//! and blocks everything after it on that connection: on the shared one, every call of the process.
//! Callers that come while a WAIT is in progress share the next one, so a replica that does not
//! answer costs a caller two timeouts at most, however many callers there are.
//!
//! Invariant: a WAIT covers a write only if it was sent on the same connection after that write's
//! reply. A ticket belongs to one connection, and is drawn after the reply. The connection is made
//! with the first such write and again after a failure; no command is repeated.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, RedisResult};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::config::Replicas;
use super::connection::{Identity, Link};
use super::error;
use super::reply::{self, Replies};
use super::wire::Wire;
use crate::clock::millis;
use crate::error::{Error, ErrorKind, Result};

/// The writes that wait for replicas.
pub(super) struct Replicated {
    link: Arc<Link>,
    wanted: Replicas,
    current: Mutex<Option<Arc<Writer>>>,
}

/// One connection.
struct Writer {
    wire: Wire,
    identity: Option<Identity>,
    lost: Arc<AtomicBool>,
    /// Writes that were answered.
    tickets: AtomicU64,
    /// Locked while a WAIT is in progress.
    round: Mutex<Round>,
}

/// The result of the last WAIT.
#[derive(Default)]
struct Round {
    /// All tickets up to this one.
    covered: u64,
    acknowledged: u64,
}

impl Replicated {
    pub(super) fn new(link: Arc<Link>, wanted: Replicas) -> Self {
        Self { link, wanted, current: Mutex::default() }
    }

    /// Runs the commands, contiguous, in one round trip, and waits for the replicas. If a reply is
    /// an error, it returns at once: a refused command is not waited for.
    ///
    /// Cancelled while waiting, the writes may or may not have been executed, and the other waiting
    /// callers go on.
    pub(super) async fn run(&self, step: &'static str, pipeline: &Pipeline) -> Result<Replies> {
        let writer = self.writer(step).await?;
        let mut connection = writer.wire.client();
        // A WAIT may be in front of them.
        let bound = self.wanted.timeout.saturating_add(self.link.config.response_timeout);
        let sent = connection.send_packed_commands(pipeline, 0, pipeline.len());
        let values = writer.within(step, bound, sent).await?;
        if !Replies::new(step, values.clone()).any_refused() {
            self.acknowledged(step, &writer).await?;
        }
        Ok(Replies::new(step, values))
    }

    async fn acknowledged(&self, step: &'static str, writer: &Writer) -> Result<()> {
        let ticket = writer.tickets.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        // The lock is fair: callers that wait here are covered by the round of the first of them.
        let mut round = writer.round.lock().await;
        if round.covered < ticket {
            let covers = writer.tickets.load(Ordering::SeqCst);
            let mut command = redis::cmd("WAIT");
            command.arg(self.wanted.count).arg(millis(self.wanted.timeout).max(1));
            // A WAIT whose caller was dropped may be in front of this one.
            let bound = self.wanted.timeout.saturating_mul(2).saturating_add(self.link.config.response_timeout);
            let mut connection = writer.wire.client();
            let answer = writer.within(step, bound, connection.send_packed_command(&command)).await?;
            *round = Round { covered: covers, acknowledged: reply::count(step, answer)? };
        }
        let Replicas { count, timeout } = self.wanted;
        if round.acknowledged >= u64::from(count) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotReplicated, step).detail(format!(
            "{} of {count} replicas have acknowledged the write within {} ms; the primary has executed it, but a \
            failover may undo it",
            round.acknowledged,
            timeout.as_millis()
        )))
    }

    /// Returns the connection; makes a new one if there is none that works.
    async fn writer(&self, step: &'static str) -> Result<Arc<Writer>> {
        // Fails at once while the server is unreachable, like every call.
        drop(self.link.session(step).await?);
        let mut current = self.current.lock().await;
        if let Some(writer) = current.as_ref().filter(|writer| writer.is_usable()) {
            return Ok(Arc::clone(writer));
        }
        let lost = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&lost);
        let on_push = move |push: PushInfo| -> Result<(), std::fmt::Error> {
            if push.kind == PushKind::Disconnection {
                told.store(true, Ordering::Release);
            }
            Ok(())
        };
        let before = current.as_ref().and_then(|before| before.identity.clone());
        let connect = async {
            let wire = self.link.log_in(on_push).await?;
            let mut connection = wire.client();
            let identity = self.link.identify(&mut connection).await;
            if let Some(before) = &before {
                self.link.kill(&mut connection, before, identity.as_ref()).await;
            }
            Ok((wire, identity))
        };
        let connect = timeout(self.link.config.connect_timeout, connect);
        let (wire, identity) = connect.await.map_err(|_elapsed| error::timed_out(step))??;
        let writer = Writer { wire, identity, lost, tickets: AtomicU64::new(0), round: Mutex::default() };
        Ok(Arc::clone(current.insert(Arc::new(writer))))
    }

    /// Drops the connection.
    pub(super) fn close(&self) {
        // If the lock is held, the call that holds it fails, since the store is closed.
        if let Ok(mut current) = self.current.try_lock() {
            *current = None;
        }
    }
}

impl Writer {
    fn is_usable(&self) -> bool {
        !self.lost.load(Ordering::Acquire) && !self.wire.is_abandoned()
    }

    /// Waits for a call. A connection that did not answer in time is not used again.
    async fn within<T>(
        &self,
        step: &'static str,
        bound: Duration,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T> {
        let failed = match timeout(bound, call).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error::of(step, &error),
            Err(_elapsed) => error::timed_out(step),
        };
        if failed.kind() == ErrorKind::Unavailable {
            self.lost.store(true, Ordering::Release);
        }
        Err(failed)
    }
}
