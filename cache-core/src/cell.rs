//! Stored bytes that cannot be computed again, such as sessions: how they are loaded, created,
//! changed and removed.
//!
//! Invariant: a change replaces exactly the bytes that it was made from, or creates a key that does
//! not exist. So no change is lost, and what has ended is not recreated. Each change whose caller is
//! told that it succeeded is applied exactly once, in the order of the calls. A change that cannot
//! be applied is left out, and does not stop the others.
//!
//! ```text
//! caller 1 ── change ─┐
//! caller 2 ── change ─┼─ apply all to what I read ─ before ─ swap, with an entry ─ after ── answers
//! caller 3 ── change ─┘             ▲                          │
//!                                   └── the bytes that stand ──┘ somebody was faster: at once
//! ```
//!
//! So one key takes as many changes in a round trip as there are callers in this process, and a
//! caller waits for two trips at most: the one that is under way, and its own. There is no pause
//! before the next attempt: a process that makes one would never get its turn.
//!
//! What stands in a cell, in which form and for how long, is told by its [`CellKind`].

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
use crate::store::{Entered, Entering, Loaded, Mark, Replaced, Swapped};

/// How often a change is tried against conflicting ones.
const ATTEMPTS: u32 = 1000;

/// What stands in cells of one kind.
pub(crate) trait CellKind: Sized + Send + Sync + 'static {
    /// What was found in a cell, with the bytes that a swap compares.
    type Standing: Clone + Send + Sync;
    /// What changes are made to.
    type Value: Clone + Send + Sync;
    /// What one caller wants. It may be applied several times.
    type Change: Send;
    /// What a caller is told.
    type Done: Clone + Send;
    /// A fault, for each caller.
    type Error: Clone + From<Error> + Send;

    fn cells(&self) -> &Cells<Self>;

    /// Where it stands, and as which bytes.
    fn place(&self, standing: &Self::Standing) -> (String, Bytes);

    /// The value of these bytes, which stand in its place now; `None`: they are none.
    fn read(&self, standing: &Self::Standing, bytes: Bytes) -> Option<Self::Standing>;

    fn value(&self, standing: &Self::Standing) -> Self::Value;

    /// Whether it may go out together with others of this key: it stays where it is.
    fn is_plain(&self, standing: &Self::Standing, change: &Self::Change) -> bool;

    fn apply(&self, value: &mut Self::Value, change: &mut Self::Change) -> Result<(), Self::Error>;

    /// Before each attempt: what is to be written for this value, and what with it in the same step.
    /// `alone`: it was made of this one change.
    fn before(
        &self,
        standing: &Self::Standing,
        value: Self::Value,
        change: &mut Self::Change,
        alone: bool,
    ) -> impl Future<Output = Result<Next<Self::Value>, Self::Error>> + Send;

    /// The value says that nothing is to stand any more.
    fn over(
        &self,
        standing: &Self::Standing,
        change: &mut Self::Change,
    ) -> impl Future<Output = Result<Self::Done, Self::Error>> + Send;

    /// Somebody was faster. What stands now, if it can be told by a look only. `taken`: something
    /// stands where it was to be.
    fn look_again(
        &self,
        standing: &Self::Standing,
        change: &mut Self::Change,
        taken: bool,
    ) -> impl Future<Output = Result<Option<Self::Standing>, Self::Error>> + Send;

    /// What it was to be made from has ended.
    fn gone(&self, change: &mut Self::Change) -> impl Future<Output = Result<Self::Done, Self::Error>> + Send;

    /// The index has no room for an entry. It is tried once more after this.
    fn make_room(&self, value: &Self::Value) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// It has none after that either.
    fn full(&self) -> Self::Done;

    /// These keys were ended to make room for an entry.
    fn ended(&self, keys: &[String]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// After it was written.
    fn after(&self, standing: &Self::Standing, change: &Self::Change, value: Self::Value, draft: Draft) -> Self::Done;

    /// An attempt has met others' bytes.
    fn conflict(&self);

    fn too_many_conflicts(&self) -> Self::Error;

    /// The runtime on which it was to be done has ended.
    fn lost(&self) -> Self::Error;
}

/// What becomes of a value.
pub(crate) enum Next<V> {
    Write(Box<Draft>, V),
    /// Nothing is to stand any more.
    Over,
    /// Not all of it can be written: each change is tried by itself.
    Apart,
}

/// What is to be written in one step.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) key: String,
    pub(crate) bytes: Bytes,
    /// `None`: without an end, or with the end that it has.
    pub(crate) ttl: Option<Duration>,
    /// The key and the bytes that it is made from; another key is deleted with that. `None`: from
    /// nothing.
    pub(crate) over: Option<(String, Bytes)>,
    /// An entry in an index, in the same slot.
    pub(crate) with: Option<Entry>,
    /// Deleted along with it, if it has an entry.
    pub(crate) deletes: Vec<String>,
    /// What a key leaves behind that ends with this.
    pub(crate) mark: Option<Marked>,
}

/// A key that stands for so long to say that another one has ended.
pub(crate) struct Marked {
    pub(crate) key: String,
    pub(crate) lasts: Duration,
}

/// A member of an index.
pub(crate) struct Entry {
    pub(crate) index: String,
    pub(crate) member: String,
    pub(crate) lasts: Duration,
    /// Index and member of an entry that goes.
    pub(crate) leaves: Option<(String, String)>,
    /// How many members that stand there may be.
    pub(crate) limit: Option<(usize, OverLimit)>,
}

/// What one attempt came to.
pub(crate) enum Put {
    Done,
    /// This stands instead of what it was made from.
    Conflict(Bytes),
    /// Something else stands, or nothing.
    Look,
    /// Something stands where it was to be.
    Taken,
    /// It would be one too many.
    Full,
}

type Panicked = Box<dyn Any + Send>;
type Outcome<K> = Result<Result<<K as CellKind>::Done, <K as CellKind>::Error>, Panicked>;
/// What a caller gets back: its change, if there is still one, and what became of it.
type Answer<K> = (Option<<K as CellKind>::Change>, Result<<K as CellKind>::Done, <K as CellKind>::Error>);

/// What stands under which key, as far as the last change knows.
type Last = Option<(String, Bytes)>;

/// A change that waits.
struct Job<K: CellKind> {
    standing: K::Standing,
    change: K::Change,
    reply: oneshot::Sender<(K::Change, Outcome<K>)>,
}

impl<K: CellKind> Job<K> {
    fn answer(self, outcome: Outcome<K>) {
        // Whoever asked may be gone.
        drop(self.reply.send((self.change, outcome)));
    }
}

/// The cells of one kind in one store.
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

    /// The store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// The bytes under a key, and how long they have left.
    pub(crate) async fn load(&self, key: &str) -> Result<Option<Loaded>> {
        self.store.load(key).await
    }

    /// As [`load`](Self::load), and whether the mark stands, in one trip.
    pub(crate) async fn load_marked(&self, key: &str, mark: &str) -> Result<(Option<Loaded>, bool)> {
        self.store.load_marked(key, mark).await
    }

    /// Makes a key that is not there. `false`: it is.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes, ttl: Option<Duration>) -> Result<bool> {
        self.store.create(key, bytes, ttl).await
    }

    /// Gives it so much time from now on. `false`: nothing stands there.
    pub(crate) async fn touch(&self, key: &str, ttl: Duration) -> Result<bool> {
        self.store.expire(key, Some(ttl)).await
    }

    /// Removes what stands there, and leaves the mark before that. `false`: nothing did.
    pub(crate) async fn remove(&self, key: &str, mark: Option<&Marked>) -> Result<bool> {
        match mark {
            Some(mark) => self.store.delete_marked(key, mark.lend()).await,
            None => self.store.delete(key).await,
        }
    }

    /// The members of an index with when each ends, the first to end at the head.
    pub(crate) async fn members(&self, index: &str) -> Result<Vec<(String, Timestamp)>> {
        self.store.index_members(index).await
    }

    /// Has a member stay for so long.
    pub(crate) async fn enter(&self, index: &str, member: &str, lasts: Duration) -> Result<()> {
        self.store.index_put(index, member, lasts).await
    }

    pub(crate) async fn leave(&self, index: &str, members: &[String]) -> Result<()> {
        self.store.index_remove(index, members).await.map(drop)
    }

    /// Whether [`list`](Self::list) can be asked.
    pub(crate) fn lists(&self) -> bool {
        self.store.lists()
    }

    /// Some keys that begin with `prefix`, and where to go on; zero: begin, and over.
    pub(crate) async fn list(&self, prefix: &str, what: Listed, from: u64) -> Result<(Vec<String>, u64)> {
        self.store.list(prefix, what, from).await
    }

    /// Waits for a step, but for no longer than what is left; takes what it took from that. `None`:
    /// nothing is left, and the step was dropped. Without effect for a store in this process.
    pub(crate) async fn within<T>(&self, left: &mut Duration, step: impl Future<Output = T> + Send) -> Option<T> {
        if self.store.is_at_hand() {
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

    /// Does this in a task of its own, which a caller that goes away does not take along; without a
    /// runtime here and now.
    async fn apart(&self, work: BoxFuture<'static, ()>) {
        if let Err(work) = self.background.run(work) {
            work.await;
        }
    }

    /// One attempt.
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
                    match store.replace(from, expected.clone(), key, bytes.clone(), *ttl, mark).await? {
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
            // Members are keys, so nothing stands before them.
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

/// One attempt to write this, with room made for its entry where that is needed.
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

/// Makes a change of what stands, together with those of all others here that wait for the same key;
/// gives the change back.
///
/// Dropped half way, it may have been made or not, as with a fault of the store.
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

/// Makes all of these changes, in one swap if that can be.
async fn together<K: CellKind>(kind: &K, mut group: Vec<Job<K>>, last: &mut Last) {
    // Whoever does not wait any more has been told nothing.
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

/// One swap for all of them. Those that cannot be made are answered and leave. `None`: none is left,
/// or there is no swap that fits all of them, and nothing was written.
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
            // It has moved: each finds it there.
            Some(found) if !alone && kind.place(&found).0 != at => return Ok(None),
            Some(found) => found,
        };
    }
    Err(kind.too_many_conflicts())
}

/// What all of them make of what stands.
fn apply<K: CellKind>(kind: &K, jobs: &mut Vec<Job<K>>, mut value: K::Value) -> K::Value {
    let several = jobs.len() > 1;
    for mut job in std::mem::take(jobs) {
        // Of one that is alone nothing is left if it fails.
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
