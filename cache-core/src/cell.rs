//! Cells: stored bytes that cannot be computed again, such as sessions. Loads, creates, changes and
//! removes them.
//!
//! Invariant: a change replaces exactly the bytes that it was made from, or creates a key that does
//! not exist. So no change is lost, and what has ended is not recreated. Each change that is
//! reported as successful is applied exactly once, in the order of the calls. A change that cannot
//! be applied is skipped and does not stop the others.
//!
//! ```text
//! caller 1 ── change ─┐
//! caller 2 ── change ─┼─ apply all to the current bytes ─ before ─ swap ─ after ── answers
//! caller 3 ── change ─┘               ▲                            │
//!                                     └─────── current bytes ──────┘ on a conflict: at once
//! ```
//!
//! So one key takes as many changes per round trip as there are callers in this process, and a
//! caller waits for at most two trips: the one in flight, and its own. There is no pause before a
//! retry: backing off would starve this process under contention.
//!
//! The [`CellKind`] defines what a cell contains, in which form, and for how long.

mod gather;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use self::gather::{Gathering, Turn};
use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::store::cells::Limit;
pub(crate) use crate::store::cells::OverLimit;
pub(crate) use crate::store::{CellStore, Kind as Listed};
use crate::store::{Entered, Entering, Loaded, Mark, Replaced, Replacing, Swapped};

/// How many times a change is tried against conflicting ones.
const ATTEMPTS: u32 = 1000;

/// The content and behaviour of one kind of cells.
pub(crate) trait CellKind: Sized + Send + Sync + 'static {
    /// What was found in a cell, including the bytes that a swap compares.
    type Standing: Clone + Send + Sync;
    /// The value that changes are applied to.
    type Value: Clone + Send + Sync;
    /// The change that one caller wants. It may be applied several times.
    type Change: Send;
    /// The result for a caller.
    type Done: Clone + Send;
    /// An error. It is cloned for each caller of a shared swap.
    type Error: Clone + From<Error> + Send;

    fn cells(&self) -> &Cells<Self>;

    /// Returns the key of the cell and its current bytes.
    fn place(&self, standing: &Self::Standing) -> (String, Bytes);

    /// Decodes bytes that now are in the same place, or returns `None` if they are invalid.
    fn read(&self, standing: &Self::Standing, bytes: Bytes) -> Option<Self::Standing>;

    fn value(&self, standing: &Self::Standing) -> Self::Value;

    /// Returns whether this change may share a swap with others of its key: it does not move the
    /// cell.
    fn is_plain(&self, standing: &Self::Standing, change: &Self::Change) -> bool;

    fn apply(&self, value: &mut Self::Value, change: &mut Self::Change) -> Result<(), Self::Error>;

    /// Called before each attempt. Returns what to write for this value, and what to write with it
    /// in the same step. `alone`: the value contains this change only.
    fn before(
        &self,
        standing: &Self::Standing,
        value: Self::Value,
        change: &mut Self::Change,
        alone: bool,
    ) -> impl Future<Output = Result<Next<Self::Value>, Self::Error>> + Send;

    /// Called when the value says that the cell is to be removed.
    fn over(
        &self,
        standing: &Self::Standing,
        change: &mut Self::Change,
    ) -> impl Future<Output = Result<Self::Done, Self::Error>> + Send;

    /// Called after a conflict if a look is needed to find out what is stored now. Returns it.
    /// `taken`: another value is stored under the key that was to be written.
    fn look_again(
        &self,
        standing: &Self::Standing,
        change: &mut Self::Change,
        taken: bool,
    ) -> impl Future<Output = Result<Option<Self::Standing>, Self::Error>> + Send;

    /// Called when the cell that the change was to be made from no longer exists.
    fn gone(&self, change: &mut Self::Change) -> impl Future<Output = Result<Self::Done, Self::Error>> + Send;

    /// Makes room in a full index for one entry. The write is retried once after this.
    fn make_room(&self, value: &Self::Value) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns the result if the index is still full after that.
    fn full(&self) -> Self::Done;

    /// Called with the keys that were ended to make room for an entry.
    fn ended(&self, keys: &[String]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Called after the write.
    fn after(&self, standing: &Self::Standing, change: &Self::Change, value: Self::Value, draft: Draft) -> Self::Done;

    /// Called for each attempt that met the bytes of another write.
    fn conflict(&self);

    fn too_many_conflicts(&self) -> Self::Error;

    /// Returns the error for a change whose runtime has ended.
    fn lost(&self) -> Self::Error;
}

/// What to do with a value.
pub(crate) enum Next<V> {
    Write(Box<Draft>, V),
    /// Remove the cell.
    Over,
    /// The changes cannot be written together: each one is tried by itself.
    Apart,
}

/// What to write in one step.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) key: String,
    pub(crate) bytes: Bytes,
    /// `None`: without expiry, or keeping the current expiry.
    pub(crate) ttl: Option<Duration>,
    /// The key and the bytes that the change was made from. If this is another key, it is deleted
    /// in the same step. `None`: the cell is new.
    pub(crate) over: Option<(String, Bytes)>,
    /// An entry in an index in the same slot.
    pub(crate) with: Option<Entry>,
    /// Keys deleted in the same step. Used only together with an entry.
    pub(crate) deletes: Vec<String>,
    /// A mark for a key that ends in this step.
    pub(crate) mark: Option<Marked>,
}

/// A key that exists for this long to record that another key has ended.
pub(crate) struct Marked {
    pub(crate) key: String,
    pub(crate) lasts: Duration,
}

/// A member of an index.
pub(crate) struct Entry {
    pub(crate) index: String,
    pub(crate) member: String,
    pub(crate) lasts: Duration,
    /// Index and member of an entry that is removed in the same step.
    pub(crate) leaves: Option<(String, String)>,
    /// The largest number of members that may be in the index.
    pub(crate) limit: Option<(usize, OverLimit)>,
}

/// The result of one attempt.
pub(crate) enum Put {
    Done,
    /// These bytes are stored instead of the expected ones.
    Conflict(Bytes),
    /// Something else is stored, or nothing: a look is needed.
    Look,
    /// The key that was to be created exists.
    Taken,
    /// The index is full.
    Full,
}

type Panicked = Box<dyn Any + Send>;
type Outcome<K> = Result<Result<<K as CellKind>::Done, <K as CellKind>::Error>, Panicked>;
/// What a caller gets back: its change, unless it was lost, and the result.
type Answer<K> = (Option<<K as CellKind>::Change>, Result<<K as CellKind>::Done, <K as CellKind>::Error>);

/// The key and the bytes of the last write of this turn.
type Last = Option<(String, Bytes)>;

/// A change that waits to be applied.
struct Job<K: CellKind> {
    standing: K::Standing,
    change: K::Change,
    reply: oneshot::Sender<(K::Change, Outcome<K>)>,
}

impl<K: CellKind> Job<K> {
    fn answer(self, outcome: Outcome<K>) {
        // The caller may have gone away.
        drop(self.reply.send((self.change, outcome)));
    }
}

/// All cells of one kind in one store.
pub(crate) struct Cells<K: CellKind> {
    store: Arc<dyn CellStore>,
    clock: Clock,
    background: Arc<Background>,
    gathering: Arc<Gathering<Job<K>>>,
}

impl<K: CellKind> Cells<K> {
    pub(crate) fn new(store: Arc<dyn CellStore>, clock: Clock, background: Arc<Background>) -> Self {
        Self { store, clock, background, gathering: Arc::default() }
    }

    /// Returns the store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Loads the bytes under a key and their remaining time.
    pub(crate) async fn load(&self, key: &str) -> Result<Option<Loaded>> {
        self.store.load(key).await
    }

    /// Like [`load`](Self::load), and also whether the mark exists, in one round trip.
    pub(crate) async fn load_marked(&self, key: &str, mark: &str) -> Result<(Option<Loaded>, bool)> {
        self.store.load_marked(key, mark).await
    }

    /// Creates a key. Returns `false` if it exists.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes, ttl: Option<Duration>) -> Result<bool> {
        self.store.create(key, bytes, ttl).await
    }

    /// Sets the remaining time of a key. Returns `false` if it does not exist.
    pub(crate) async fn touch(&self, key: &str, ttl: Duration) -> Result<bool> {
        self.store.expire(key, Some(ttl)).await
    }

    /// Writes the mark and then removes the key. Returns `false` if the key did not exist.
    pub(crate) async fn remove(&self, key: &str, mark: Option<&Marked>) -> Result<bool> {
        match mark {
            Some(mark) => self.store.delete_marked(key, mark.lend()).await,
            None => self.store.delete(key).await,
        }
    }

    /// Returns the members of an index with the time when each ends, the earliest first.
    pub(crate) async fn members(&self, index: &str) -> Result<Vec<(String, Timestamp)>> {
        self.store.index_members(index).await
    }

    /// Adds a member, or extends its life, for this long.
    pub(crate) async fn enter(&self, index: &str, member: &str, lasts: Duration) -> Result<()> {
        self.store.index_put(index, member, lasts).await
    }

    pub(crate) async fn leave(&self, index: &str, members: &[String]) -> Result<()> {
        self.store.index_remove(index, members).await.map(drop)
    }

    /// Returns whether [`list`](Self::list) is supported.
    pub(crate) fn lists(&self) -> bool {
        self.store.lists()
    }

    /// Returns some keys that begin with `prefix`, and the cursor for the next call. Begin with
    /// zero; a returned zero means the end.
    pub(crate) async fn list(&self, prefix: &str, what: Listed, from: u64) -> Result<(Vec<String>, u64)> {
        self.store.list(prefix, what, from).await
    }

    /// Waits for a step for at most the time in `left`, and subtracts the time it took. Returns
    /// `None` if the time ran out; the step is then dropped. A store in this process has no limit.
    pub(crate) async fn within<T>(&self, left: &mut Duration, step: impl Future<Output = T> + Send) -> Option<T> {
        if self.store.reads_synchronously() {
            return Some(step.await);
        }
        let watch = self.clock.start();
        let result = tokio::select! {
            biased;
            done = step => Some(done),
            () = watch.reaches(*left) => None,
        };
        *left = left.saturating_sub(watch.elapsed());
        result
    }

    /// Runs the work in its own task, so that it continues if the caller goes away. Without a
    /// runtime it runs inline.
    async fn apart(&self, work: BoxFuture<'static, ()>) {
        if let Err(work) = self.background.run(work) {
            work.await;
        }
    }

    /// Makes one attempt to write. Also returns the keys that were ended to make room.
    async fn attempt(&self, draft: &Draft) -> Result<(Put, Vec<String>)> {
        let Draft { key, bytes, ttl, over, with, deletes, mark } = draft;
        let store = &self.store;
        let mark = mark.as_ref().map(Marked::lend);
        let Some(entry) = with else {
            let put = match over {
                Some((from, expected)) if from == key => {
                    match store.swap(key, expected.clone(), bytes.clone(), *ttl).await? {
                        Swapped::Done => Put::Done,
                        Swapped::Conflict(found) => Put::Conflict(found),
                        Swapped::Gone => Put::Look,
                    }
                }
                Some((from, expected)) => {
                    let replacing = Replacing { old: from, expected, key, bytes, expiry: *ttl, mark };
                    match store.replace(replacing).await? {
                        Replaced::Done => Put::Done,
                        Replaced::Taken => Put::Taken,
                        Replaced::Conflict | Replaced::Gone => Put::Look,
                    }
                }
                None if store.create(key, bytes.clone(), *ttl).await? => Put::Done,
                None => Put::Taken,
            };
            return Ok((put, Vec::new()));
        };
        let entering = Entering {
            key,
            bytes,
            expiry: *ttl,
            over: over.as_ref().map(|(from, expected)| (from.as_str(), expected)),
            deletes,
            index: &entry.index,
            member: &entry.member,
            lasts: entry.lasts,
            leaves: entry.leaves.as_ref().map(|(index, member)| (index.as_str(), member.as_str())),
            // Members are keys, so there is no prefix.
            limit: entry.limit.map(|(most, then)| Limit { prefix: "", most, then }),
            mark,
        };
        let stays = over.as_ref().is_some_and(|(from, _)| from == key);
        Ok(match store.enter(entering).await? {
            Entered::Done(ended) => (Put::Done, ended),
            Entered::Conflict(found) if stays => (Put::Conflict(found), Vec::new()),
            Entered::Conflict(_) | Entered::Gone => (Put::Look, Vec::new()),
            Entered::Taken => (Put::Taken, Vec::new()),
            Entered::Full => (Put::Full, Vec::new()),
        })
    }
}

impl Marked {
    fn lend(&self) -> Mark<'_> {
        Mark { key: &self.key, lasts: self.lasts }
    }
}

/// Makes one attempt to write, and a second one after making room if the index was full.
pub(crate) async fn put<K: CellKind>(kind: &K, draft: &Draft, value: &K::Value) -> Result<Put, K::Error> {
    let (mut put, mut ended) = kind.cells().attempt(draft).await?;
    if matches!(put, Put::Full) {
        kind.make_room(value).await?;
        (put, ended) = kind.cells().attempt(draft).await?;
    }
    if !ended.is_empty() {
        kind.ended(&ended).await?;
    }
    Ok(put)
}

/// Applies a change to the cell, together with all changes of this process that wait for the same
/// key. Gives the change back.
///
/// If it is dropped half-way, the change may have been made or not, as with a store error.
pub(crate) async fn change<K: CellKind>(kind: &Arc<K>, standing: K::Standing, change: K::Change) -> Answer<K> {
    let (key, _) = kind.place(&standing);
    let (reply, answer) = oneshot::channel();
    let cells = kind.cells();
    if let Some(turn) = cells.gathering.add(&key, Job { standing, change, reply }) {
        let kind = Arc::clone(kind);
        cells.apart(Box::pin(work(kind, turn))).await;
    }
    match answer.await {
        Ok((change, Ok(done))) => (Some(change), done),
        Ok((_, Err(panicked))) => resume_unwind(panicked),
        Err(_gone) => (None, Err(kind.lost())),
    }
}

async fn work<K: CellKind>(kind: Arc<K>, mut turn: Turn<Job<K>>) {
    let mut last = None;
    while let Some(jobs) = turn.next() {
        let mut group = Vec::new();
        for job in jobs {
            if kind.is_plain(&job.standing, &job.change) {
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
async fn together<K: CellKind>(kind: &K, mut group: Vec<Job<K>>, last: &mut Last) {
    // Callers that no longer wait have got no result: their changes are dropped.
    group.retain(|job| !job.reply.is_closed());
    if group.len() > 1 {
        match swap(kind, &mut group, last).await {
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
        let outcome = AssertUnwindSafe(swap(kind, &mut alone, last)).catch_unwind().await;
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
async fn swap<K: CellKind>(kind: &K, jobs: &mut Vec<Job<K>>, last: &mut Last) -> Result<Option<K::Done>, K::Error> {
    let Some(mut standing) = jobs.last().map(|job| job.standing.clone()) else { return Ok(None) };
    let (at, bytes) = kind.place(&standing);
    if let Some((_, newest)) = last.as_ref().filter(|(of, newest)| *of == at && *newest != bytes)
        && let Some(newer) = kind.read(&standing, newest.clone())
    {
        standing = newer;
    }
    for _ in 0..ATTEMPTS {
        let value = apply(kind, jobs, kind.value(&standing));
        let alone = jobs.len() == 1;
        let Some(job) = jobs.last_mut() else { return Ok(None) };
        let (draft, value) = match kind.before(&standing, value, &mut job.change, alone).await? {
            Next::Write(draft, value) => (*draft, value),
            Next::Over => return kind.over(&standing, &mut job.change).await.map(Some),
            Next::Apart => return Ok(None),
        };
        let found = match put(kind, &draft, &value).await? {
            Put::Done => {
                *last = Some((draft.key.clone(), draft.bytes.clone()));
                return Ok(Some(kind.after(&standing, &job.change, value, draft)));
            }
            Put::Full => return Ok(Some(kind.full())),
            Put::Conflict(found) => kind.read(&standing, found),
            Put::Look => kind.look_again(&standing, &mut job.change, false).await?,
            Put::Taken => kind.look_again(&standing, &mut job.change, true).await?,
        };
        kind.conflict();
        standing = match found {
            None => return kind.gone(&mut job.change).await.map(Some),
            // The cell has moved. Each job follows it by itself.
            Some(found) if !alone && kind.place(&found).0 != at => return Ok(None),
            Some(found) => found,
        };
    }
    Err(kind.too_many_conflicts())
}

/// Applies the changes of all jobs to the value.
fn apply<K: CellKind>(kind: &K, jobs: &mut Vec<Job<K>>, mut value: K::Value) -> K::Value {
    let several = jobs.len() > 1;
    for mut job in std::mem::take(jobs) {
        // A single job needs no copy: if it fails, the value is not used.
        let before = several.then(|| value.clone());
        match catch_unwind(AssertUnwindSafe(|| kind.apply(&mut value, &mut job.change))) {
            Ok(Ok(())) => jobs.push(job),
            Ok(Err(error)) => {
                value = before.unwrap_or(value);
                job.answer(Ok(Err(error)));
            }
            Err(panicked) => {
                value = before.unwrap_or(value);
                job.answer(Err(panicked));
            }
        }
    }
    value
}
