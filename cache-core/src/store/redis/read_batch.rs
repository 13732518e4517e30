//! Reads that would queue anyway go out together.
//!
//! ```text
//! a read ── few are under way ──> GET, at once
//!        └─ else ──> waits for the next MGET, which takes all that wait
//! ```
//!
//! Invariant: a read is sent after it was asked for, so what the caller has set up before (a mark in L1) is in place when the server
//! looks. No read waits for longer than one response timeout: what waits behind an MGET that is not answered fails with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::connection::Link;
use super::{faults, on, reply};
use crate::error::{Error, Result};
use crate::store::Slot;

const STEP: &str = "read";
/// How many reads make a trip of their own at a time: with so few, waiting for others costs more than it saves.
const ALONE: usize = 4;
/// How many MGETs are under way at a time: one that the server works on, one that is on its way.
const TOGETHER: usize = 2;
/// How many keys one has at most. The server does nothing else while it answers.
const MOST_KEYS: usize = 128;

/// The slot, and whether its next change is told.
type Answer = Result<(Slot, bool)>;

/// Where reads are asked for.
pub(super) struct Reads {
    alone: AtomicUsize,
    queue: mpsc::UnboundedSender<Read>,
}

/// A read that waits. Its caller waits too, so there are no more of them than callers.
struct Read {
    key: Box<str>,
    track: bool,
    answer: oneshot::Sender<Answer>,
}

/// What [`serve`] takes from.
pub(super) struct Queue(mpsc::UnboundedReceiver<Read>);

/// A place among those that go alone; given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reads {
    pub(super) fn new() -> (Self, Queue) {
        let (queue, waiting) = mpsc::unbounded_channel();
        (Self { alone: AtomicUsize::new(0), queue }, Queue(waiting))
    }

    /// Dropped while waiting, a read may still be sent; its answer goes to nobody.
    pub(super) async fn read(&self, link: &Link, key: &str, track: bool) -> Answer {
        if let Some(_place) = self.place() {
            return alone(link, key, track).await;
        }
        // Without a connection it fails at once, and does not queue.
        let _connected = link.session(STEP)?;
        let (answer, answered) = oneshot::channel();
        let asked = self.queue.send(Read { key: key.into(), track, answer });
        match (asked, answered.await) {
            (Ok(()), Ok(answer)) => answer,
            _ => Err(faults::closed(STEP)),
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        let before = self.alone.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.alone);
        (before < ALONE).then_some(place)
    }
}

async fn alone(link: &Link, key: &str, track: bool) -> Answer {
    let session = link.session(STEP)?;
    if !track || !session.tracks() {
        return Ok((reply::slot(STEP, link.command(STEP, &on(key, "GET")).await?, None)?, false));
    }
    let mut pipeline = redis::pipe();
    pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    pipeline.add_command(on(key, "GET"));
    let mut replies = link.pipeline_on(&session, STEP, &pipeline).await?;
    let tracked = replies.value().is_ok();
    Ok((reply::slot(STEP, replies.raw()?, None)?, tracked))
}

/// Sends what waits, until the store is closed.
pub(super) async fn serve(link: Arc<Link>, Queue(mut queue): Queue) {
    let mut trips = FuturesUnordered::new();
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            biased;
            Some(answered) = trips.next() => {
                if let Err(error) = answered {
                    // They have waited as long as this one, or longer than it took to fail.
                    while let Ok(read) = queue.try_recv() {
                        read.answer(Err(Error::again(&error)));
                    }
                }
            }
            taken = queue.recv_many(&mut waiting, MOST_KEYS), if trips.len() < TOGETHER => {
                if taken == 0 {
                    return;
                }
                trips.push(together(&link, waiting));
            }
            () = link.until_closed() => return,
        }
    }
}

/// One trip for all of them.
async fn together(link: &Link, mut reads: Vec<Read>) -> Result<()> {
    reads.retain(|read| !read.answer.is_closed());
    match fetch(link, &reads).await {
        Ok((slots, tracked)) => {
            for (read, slot) in reads.into_iter().zip(slots) {
                let tracked = tracked && read.track;
                read.answer(Ok((slot, tracked)));
            }
            Ok(())
        }
        Err(error) => {
            for read in reads {
                read.answer(Err(error.again()));
            }
            Err(error)
        }
    }
}

async fn fetch(link: &Link, reads: &[Read]) -> Result<(Vec<Slot>, bool)> {
    if reads.is_empty() {
        return Ok((Vec::new(), false));
    }
    let session = link.session(STEP)?;
    let track = session.tracks() && reads.iter().any(|read| read.track);
    let mut pipeline = redis::pipe();
    if track {
        pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    }
    pipeline.cmd("MGET");
    for read in reads {
        pipeline.arg(&*read.key);
    }
    let mut replies = link.pipeline_on(&session, STEP, &pipeline).await?;
    let tracked = track && replies.value().is_ok();
    let found = reply::all_bytes(STEP, replies.raw()?)?;
    if found.len() != reads.len() {
        return Err(faults::unexpected(STEP));
    }
    // A value of another type is nothing to MGET: taking the lease tells.
    Ok((found.into_iter().map(|bytes| Slot::of(bytes, None)).collect(), tracked))
}

impl Read {
    fn answer(self, answer: Answer) {
        // An error says that its caller has gone.
        let _gone = self.answer.send(answer);
    }
}
