//! Batches reads that would queue anyway.
//!
//! ```text
//! a read ── nothing in progress ──> GET, at once, by its caller
//!        └─ else ──> waits for the next MGET: one is in progress at a time, with as many keys as
//!                     are expected to return a MiB
//! ```
//!
//! Invariant: a read is sent after it was requested, so everything that its caller has set up
//! before (a mark in L1) is in place when the server reads, and no caller gets a value that was
//! read before a write that was answered before its request. A read fails by its own round trip,
//! never by that of another: its time counts from when it is sent. A read that has waited for
//! [`LONGEST`] response timeouts when its turn comes is not sent any more, and a round trip takes
//! at most as long; so no read takes longer than twice that. If the server stops answering, all
//! fail as soon as the connection is given up. An MGET waits only for another MGET, which a task of
//! the store drives. It never waits for a GET, whose caller may have stopped polling it.
//!
//! The task may end with its runtime (D9). It is then started again elsewhere, and a read that it
//! left without an answer is sent by its caller.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use redis::Value;
use tokio::sync::Notify;

mod waiting;

use self::waiting::{Batch, Waiting};
use super::connection::{Link, Session};
use super::retry::{Tries, retry};
use super::trips::Sizes;
use super::wire::LONGEST;
use super::{error, on, reply};
use crate::clock::millis;
use crate::error::Result;
use crate::store::{Reading, Slot};
use crate::sync::{Mutex, MutexGuard};

const STEP: &str = "read";
/// The maximum number of keys of an MGET. The server does nothing else while it answers.
const MOST_KEYS: usize = 128;

/// The slot, and whether its next change is notified.
type Answer = Result<(Slot, bool)>;

/// The queue of reads.
pub(super) struct Reads {
    queue: Mutex<Queue>,
    /// Notified when there is something to send and no MGET is in progress.
    wake: Notify,
    sizes: Arc<Sizes>,
}

#[derive(Default)]
struct Queue {
    /// A GET is in progress.
    alone: bool,
    /// An MGET is in progress.
    together: bool,
    /// No task sends reads that would wait here.
    closed: bool,
    /// How often the sending task was started.
    servers: u64,
    /// Batches that are not sent yet, the oldest first.
    batches: VecDeque<Arc<Batch>>,
}

/// A read that was accepted.
enum Taken<'a> {
    Alone(Alone<'a>),
    Waits(Waiting),
}

/// A GET is in progress until this is dropped.
struct Alone<'a>(&'a Reads);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.queue().alone = false;
    }
}

impl Reads {
    pub(super) fn new(sizes: Arc<Sizes>) -> Self {
        Self { queue: Mutex::default(), wake: Notify::new(), sizes }
    }

    /// Starts a read. Dropped while waiting, a read may still be sent; its answer is discarded.
    pub(super) fn begin<'a>(&'a self, link: &'a Link, key: &'a str, track: bool) -> Reading<'a> {
        let mut asked = Asked { reads: self, link, key, track, tries: Tries::new(link) };
        let Some(session) = link.usable() else { return Reading::Boxed(Box::pin(asked.again())) };
        match self.take(link.coarse(), key, track) {
            Ok(Taken::Waits(waiting)) => Reading::Waits(Queued { asked, state: State::Waits(waiting) }),
            Ok(Taken::Alone(under_way)) => Reading::Boxed(Box::pin(async move {
                match asked.alone(&session).await {
                    Err(error) if asked.tries.is_retryable(link, &error) => {
                        drop(under_way);
                        asked.again().await
                    }
                    answer => answer,
                }
            })),
            Err(_closed) => Reading::Boxed(Box::pin(asked.again())),
        }
    }

    fn take(&self, now: u64, key: &str, track: bool) -> Result<Taken<'_>> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(error::closed(STEP));
        }
        if !queue.alone && !queue.together && queue.batches.is_empty() {
            queue.alone = true;
            return Ok(Taken::Alone(Alone(self)));
        }
        let joined = queue.batches.back().and_then(|last| last.join(now, key, track));
        let waiting = joined.unwrap_or_else(|| {
            // All callers that waited for it may be gone.
            while queue.batches.back().is_some_and(|last| last.is_unwanted()) {
                queue.batches.pop_back();
            }
            let (batch, waiting) = Batch::new(now, key, track);
            queue.batches.push_back(batch);
            waiting
        });
        if !queue.together {
            self.wake.notify_one();
        }
        Ok(Taken::Waits(waiting))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what to send next; `None` if no read waits. `longest`: the maximum wait of a read.
    fn next_trip(&self, now: u64, longest: Duration) -> Option<Trip<'_>> {
        let mut queue = self.queue();
        while let Some(first) = queue.batches.front() {
            let places = first.take(now, millis(longest), &self.sizes);
            let batch = Arc::clone(first);
            if batch.is_taken() {
                queue.batches.pop_front();
            }
            if !places.is_empty() {
                queue.together = true;
                return Some(Trip { reads: self, batch, places });
            }
        }
        None
    }
}

/// A requested read.
#[derive(Clone, Copy)]
struct Asked<'a> {
    reads: &'a Reads,
    link: &'a Link,
    key: &'a str,
    track: bool,
    tries: Tries,
}

impl Asked<'_> {
    async fn alone(&self, session: &Session) -> Answer {
        let (slot, tracked) = alone(self.link, session, self.key, self.track).await?;
        self.reads.sizes.saw(self.key, bytes_of(&slot));
        Ok((slot, tracked))
    }

    /// Sends the read from its caller. If the runtime of the connection has ended, the connection
    /// is taken over first.
    async fn again(self) -> Answer {
        retry(self.link, move || async move { self.alone(&*self.link.session(STEP).await?).await }).await
    }
}

/// A read that waits to be sent with others.
pub(crate) struct Queued<'a> {
    asked: Asked<'a>,
    state: State<'a>,
}

enum State<'a> {
    Waits(Waiting),
    /// It was left without an answer.
    Again(BoxFuture<'a, Answer>),
}

impl Future for Queued<'_> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Waits(waiting) => match ready!(Pin::new(waiting).poll(context)) {
                    Err(error) if this.asked.tries.is_retryable(this.asked.link, &error) => {
                        this.state = State::Again(Box::pin(this.asked.again()));
                    }
                    answer => return Poll::Ready(answer),
                },
                State::Again(read) => return read.as_mut().poll(context),
            }
        }
    }
}

/// Sends waiting reads until the store is closed. Reads wait for it from this call on.
pub(super) fn serve(link: Arc<Link>, reads: Arc<Reads>) -> impl Future<Output = ()> + Send + 'static {
    let closing = Closing::new(reads);
    async move { send_all(&link, &closing.reads).await }
}

async fn send_all(link: &Link, reads: &Reads) {
    let mut closed = std::pin::pin!(link.until_closed());
    let longest = link.config.response_timeout.saturating_mul(LONGEST);
    loop {
        tokio::select! {
            biased;
            () = reads.wake.notified() => {}
            () = &mut closed => return,
        }
        while let Some(trip) = reads.next_trip(link.coarse(), longest) {
            tokio::select! {
                biased;
                () = trip.run(link) => {}
                () = &mut closed => return,
            }
        }
    }
}

/// Wakes all waiting callers when the task ends, however it ends.
struct Closing {
    reads: Arc<Reads>,
    server: u64,
}

impl Closing {
    fn new(reads: Arc<Reads>) -> Self {
        let mut queue = reads.queue();
        queue.closed = false;
        queue.servers = queue.servers.wrapping_add(1);
        let server = queue.servers;
        drop(queue);
        // Sends reads that came in the meantime.
        reads.wake.notify_one();
        Self { reads, server }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let mut queue = self.reads.queue();
        // When a runtime ends, it drops its tasks one by one: the next sending task may be running
        // already.
        if queue.servers != self.server {
            return;
        }
        queue.closed = true;
        let batches = std::mem::take(&mut queue.batches);
        drop(queue);
        batches.iter().for_each(|batch| batch.close());
    }
}

/// Keys of a batch that are sent with one MGET.
struct Trip<'a> {
    reads: &'a Reads,
    batch: Arc<Batch>,
    /// Their positions in the batch.
    places: Vec<usize>,
}

impl Trip<'_> {
    async fn run(mut self, link: &Link) {
        match self.fetch(link).await {
            Ok(found) => self.batch.answer(self.places.drain(..).zip(found.into_iter().map(Ok)), &self.reads.sizes),
            Err(error) => {
                self.batch.answer(self.places.drain(..).map(|place| (place, Err(error.again()))), &self.reads.sizes);
            }
        }
    }

    async fn fetch(&mut self, link: &Link) -> Result<Vec<(Slot, bool)>> {
        let session = link.usable().ok_or_else(|| link.disconnected(STEP))?;
        // Untracked ones first: the server remembers all keys of a tracked command.
        let plain = self.batch.sort(&mut self.places, session.tracks());
        let tracked = self.places.len().saturating_sub(plain);
        let mut pipeline = redis::Pipeline::with_capacity(3);
        let (untracked, rest) = self.places.split_at_checked(plain).unwrap_or_default();
        for (places, track) in [(untracked, false), (rest, true)].into_iter().filter(|(some, _)| !some.is_empty()) {
            if track {
                pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
            }
            pipeline.add_command(self.batch.mget(places));
        }
        let mut replies = link.pipeline_on(&session, STEP, &pipeline).await?;
        let mut found = Vec::with_capacity(self.places.len());
        if plain > 0 {
            slots(&mut found, plain, replies.raw()?, false)?;
        }
        if tracked > 0 {
            let is_tracked = replies.value().is_ok();
            slots(&mut found, tracked, replies.raw()?, is_tracked)?;
        }
        Ok(found)
    }
}

impl Drop for Trip<'_> {
    fn drop(&mut self) {
        // The rest has no answer: the task has ended.
        if !self.places.is_empty() {
            let closed = self.places.drain(..).map(|place| (place, Err(error::closed(STEP))));
            self.batch.answer(closed, &self.reads.sizes);
        }
        let mut queue = self.reads.queue();
        queue.together = false;
        // For a task that is dropped late, when the next one is running already.
        if !queue.batches.is_empty() {
            self.reads.wake.notify_one();
        }
    }
}

fn bytes_of(slot: &Slot) -> usize {
    if let Slot::Bytes(bytes) = slot { bytes.len() } else { 0 }
}

async fn alone(link: &Link, session: &Session, key: &str, track: bool) -> Answer {
    if !track || !session.tracks() {
        return Ok((reply::slot(STEP, link.command_on(session, STEP, &on(key, "GET")).await?, None)?, false));
    }
    let mut pipeline = redis::Pipeline::with_capacity(2);
    pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    pipeline.add_command(on(key, "GET"));
    let mut replies = link.pipeline_on(session, STEP, &pipeline).await?;
    let tracked = replies.value().is_ok();
    Ok((reply::slot(STEP, replies.raw()?, None)?, tracked))
}

/// MGET returns nothing for a value of another type; taking the lease finds it.
fn slots(found: &mut Vec<(Slot, bool)>, count: usize, value: Value, tracked: bool) -> Result<()> {
    let Value::Array(values) = reply::checked(STEP, value)? else { return Err(error::unexpected(STEP)) };
    if values.len() != count {
        return Err(error::unexpected(STEP));
    }
    for value in values {
        let bytes: Option<Bytes> = reply::bytes(STEP, value)?;
        found.push((Slot::of(bytes, None), tracked));
    }
    Ok(())
}

#[cfg(test)]
#[path = "read_batch/tests.rs"]
mod tests;
