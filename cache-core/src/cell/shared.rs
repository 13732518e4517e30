//! Changes of one cell by many callers of this process, written in one swap.
//!
//! Invariant: changes are applied in the order of the calls. A change that cannot be applied is
//! skipped and does not stop the others.
//!
//! ```text
//! caller 1 ── change ─┐
//! caller 2 ── change ─┼─ apply all to the current object ── swap ── answers
//! caller 3 ── change ─┘
//! ```
//!
//! So one key takes as many changes per round trip as there are callers in this process, and a
//! caller waits for at most two trips: the one in flight, and its own.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::oneshot;

use super::gather::{Gathering, Turn};
use super::{CellKind, Object, Stored, Verdict, open, swap};

/// A kind of cells whose changes are gathered.
pub(crate) trait SharedKind: CellKind<StalenessPolicy: Clone, Error: Clone> {
    /// The change that one caller wants. It may be applied several times.
    type Change: Send;
    /// The result for a caller.
    type Done: Clone + Send;

    fn gathered(&self) -> &Gathered<Self>;

    fn apply(&self, object: &mut Object<Self>, change: &mut Self::Change) -> Result<(), Self::Error>;

    /// Completes a write, and returns the result for all whose changes it contains.
    fn finish(
        &self,
        verdict: Verdict<Self>,
        terms: &Self::StalenessPolicy,
        change: &mut Self::Change,
    ) -> impl Future<Output = Result<Self::Done, Self::Error>> + Send;

    /// Returns the error for a change whose runtime has ended.
    fn lost(&self) -> Self::Error;
}

/// The changes that wait, by key.
pub(crate) struct Gathered<K: SharedKind>(Arc<Gathering<Job<K>>>);

impl<K: SharedKind> Default for Gathered<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

type Panicked = Box<dyn Any + Send>;
type Outcome<K> = Result<Result<<K as SharedKind>::Done, <K as CellKind>::Error>, Panicked>;
/// What a caller gets back: its change, unless it was lost, and the result.
type Answer<K> = (Option<<K as SharedKind>::Change>, Result<<K as SharedKind>::Done, <K as CellKind>::Error>);

/// The key and the bytes of the last write of this turn.
type Last = Option<(String, Bytes)>;

/// A change that waits to be applied.
struct Job<K: SharedKind> {
    current: Stored<K>,
    terms: K::StalenessPolicy,
    change: K::Change,
    /// Whether it may share a swap with others of its key.
    shares: bool,
    reply: oneshot::Sender<(K::Change, Outcome<K>)>,
}

impl<K: SharedKind> Job<K> {
    fn answer(self, outcome: Outcome<K>) {
        // The caller may have gone away.
        drop(self.reply.send((self.change, outcome)));
    }
}

/// Applies a change to the cell, together with all changes of this process that wait for the same
/// key. Gives the change back. `shares`: the change needs no terms of its own.
///
/// If it is dropped half-way, the change may have been made or not, as with a store error.
pub(crate) async fn change<K: SharedKind>(
    kind: &Arc<K>,
    current: Stored<K>,
    terms: K::StalenessPolicy,
    change: K::Change,
    shares: bool,
) -> Answer<K> {
    let key = current.key.clone();
    let (reply, answer) = oneshot::channel();
    if let Some(turn) = kind.gathered().0.add(&key, Job { current, terms, change, shares, reply }) {
        let kind = Arc::clone(kind);
        let work = work(Arc::clone(&kind), turn);
        kind.cells().apart(Box::pin(work)).await;
    }
    match answer.await {
        Ok((change, Ok(done))) => (Some(change), done),
        Ok((_, Err(panicked))) => resume_unwind(panicked),
        Err(_gone) => (None, Err(kind.lost())),
    }
}

async fn work<K: SharedKind>(kind: Arc<K>, mut turn: Turn<Job<K>>) {
    let mut last = None;
    while let Some(jobs) = turn.next() {
        let mut group = Vec::new();
        for job in jobs {
            if job.shares {
                group.push(job);
                continue;
            }
            together(&*kind, std::mem::take(&mut group), &mut last).await;
            together(&*kind, vec![job], &mut last).await;
        }
        together(&*kind, group, &mut last).await;
    }
}

/// Makes all of these changes, in one swap if possible.
async fn together<K: SharedKind>(kind: &K, mut group: Vec<Job<K>>, last: &mut Last) {
    // Callers that no longer wait have got no result: their changes are dropped.
    group.retain(|job| !job.reply.is_closed());
    if group.len() > 1 {
        match swap_all(kind, &mut group, last).await {
            Ok(Some(done)) => return group.into_iter().for_each(|job| job.answer(Ok(Ok(done.clone())))),
            Err(error) => return group.into_iter().for_each(|job| job.answer(Ok(Err(error.clone())))),
            Ok(None) => {}
        }
    }
    for job in group {
        if job.reply.is_closed() {
            continue;
        }
        let mut alone = vec![job];
        let outcome = AssertUnwindSafe(swap_all(kind, &mut alone, last)).catch_unwind().await;
        let Some(job) = alone.pop() else { continue };
        job.answer(match outcome {
            Ok(Ok(Some(done))) => Ok(Ok(done)),
            Ok(Ok(None)) => Ok(Err(kind.too_many_conflicts())),
            Ok(Err(error)) => Ok(Err(error)),
            Err(panicked) => Err(panicked),
        });
    }
}

/// Makes one swap for all jobs. Jobs whose change fails get their result and leave. Returns `None`
/// if no job is left, or if no single swap fits all of them; nothing was written then.
async fn swap_all<K: SharedKind>(
    kind: &K,
    jobs: &mut Vec<Job<K>>,
    last: &mut Last,
) -> Result<Option<K::Done>, K::Error> {
    let Some(job) = jobs.last() else { return Ok(None) };
    let (mut current, terms) = (job.current.clone(), job.terms.clone());
    if let Some((_, newest)) = last.as_ref().filter(|(key, newest)| *key == current.key && *newest != current.bytes) {
        let loaded = (newest.clone(), current.left);
        if let Some(newer) = open(kind, current.at.clone(), current.key.clone(), loaded)? {
            current = newer;
        }
    }
    let verdict = swap(kind, current, &terms, |object| {
        let object = apply(kind, jobs, object);
        (!jobs.is_empty()).then_some((object, jobs.len() == 1))
    });
    let Some(verdict) = verdict.await? else { return Ok(None) };
    if let Verdict::Written { draft, .. } = &verdict {
        *last = Some((draft.key.clone(), draft.bytes.clone()));
    }
    let Some(job) = jobs.last_mut() else { return Ok(None) };
    kind.finish(verdict, &terms, &mut job.change).await.map(Some)
}

/// Applies the changes of all jobs to the object.
fn apply<K: SharedKind>(kind: &K, jobs: &mut Vec<Job<K>>, mut object: Object<K>) -> Object<K> {
    let several = jobs.len() > 1;
    for mut job in std::mem::take(jobs) {
        // A single job needs no copy: if it fails, the object is not used.
        let before = several.then(|| object.clone());
        match catch_unwind(AssertUnwindSafe(|| kind.apply(&mut object, &mut job.change))) {
            Ok(Ok(())) => jobs.push(job),
            Ok(Err(error)) => {
                object = before.unwrap_or(object);
                job.answer(Ok(Err(error)));
            }
            Err(panicked) => {
                object = before.unwrap_or(object);
                job.answer(Err(panicked));
            }
        }
    }
    object
}
