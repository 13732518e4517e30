//! One run per key in this process: callers that arrive while it is under way share what it lands.
//!
//! ```text
//! join(key) ── nobody runs ──> Lead: run it, land it
//!           └─ somebody runs ─> Follow: wait for the landing
//! ```
//!
//! Invariant: at most one attached flight per key. A write to the key detaches its flight: the run goes on for those who
//! wait for it, but callers that arrive after the write do not join a run that began before it (promise T7).
//!
//! A run that owns all it needs is driven by whoever waits for it, so it lives exactly as long as somebody does (S4, S5).
//! A run that borrows from its caller ends with that caller; it lands [`Landing::Abandoned`] and a follower leads.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::shape::Erased;
use crate::sync::{Mutex, MutexGuard, SHARDS};

/// What a run comes to.
#[derive(Clone)]
pub(crate) enum Landing {
    /// A value.
    Value(Erased),
    /// The function's own error.
    Failed(Erased),
    /// The function panicked.
    Panicked(Panic),
    /// Its caller was dropped before it came to anything.
    Abandoned,
}

/// A caught panic: the first that takes it gets the payload, the others its story.
#[derive(Clone)]
pub(crate) struct Panic(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Panic {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Arc::new(Mutex::new(Some(payload))))
    }

    /// Goes on panicking in this caller.
    pub(crate) fn resume(&self, name: &str) -> ! {
        match lock(&self.0).take() {
            Some(payload) => resume_unwind(payload),
            None => resume_unwind(Box::new(format!("`{name}` panicked in another caller that this one waited for"))),
        }
    }
}

type Flight = Shared<BoxFuture<'static, Landing>>;

/// The flights of one cache.
pub(crate) struct Flights {
    shards: Vec<Mutex<HashMap<Arc<str>, Attached>>>,
    hasher: RandomState,
    next_id: AtomicU64,
}

struct Attached {
    id: u64,
    value: TypeId,
    flight: WeakShared<BoxFuture<'static, Landing>>,
}

/// The answer to [`Flights::join`].
pub(crate) enum Joined {
    /// Nobody runs: run, then land it. Dropping it abandons the flight.
    Lead(Lead),
    /// Somebody runs: wait for the landing.
    Follow(Flight),
}

/// The duty to land a flight.
pub(crate) struct Lead {
    landing: oneshot::Sender<Landing>,
    // Keeps the flight joinable while no follower holds it.
    _flight: Flight,
    attached: Attachment,
}

impl Lead {
    /// Hands the landing to whoever waits. Callers that come later start anew.
    pub(crate) fn land(self, landing: Landing) {
        drop(self.attached);
        // An error says that nobody waits.
        let _nobody = self.landing.send(landing);
    }
}

/// Detaches the flight when dropped, unless another has taken its place.
struct Attachment {
    flights: Arc<Flights>,
    key: Arc<str>,
    id: u64,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.key);
        if shard.get(&self.key).is_some_and(|attached| attached.id == self.id) {
            shard.remove(&self.key);
        }
    }
}

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(0),
        })
    }

    /// For a run that borrows from its caller.
    pub(crate) fn join(self: &Arc<Self>, key: &Arc<str>, value: TypeId) -> Joined {
        let mut shard = self.shard(key);
        if let Some(flight) = find(&shard, key, value) {
            return Joined::Follow(flight);
        }
        let (sender, receiver) = oneshot::channel();
        let flight = receiver.map(|landing| landing.unwrap_or(Landing::Abandoned)).boxed().shared();
        let attached = self.attach(&mut shard, key, value, &flight);
        Joined::Lead(Lead { landing: sender, _flight: flight, attached })
    }

    /// For a run that owns all it needs: it is made only if nobody runs, and whoever waits drives it. The `bool`: whether it is a new one.
    pub(crate) fn share(
        self: &Arc<Self>,
        key: &Arc<str>,
        value: TypeId,
        run: impl FnOnce() -> BoxFuture<'static, Landing>,
    ) -> (Flight, bool) {
        let mut shard = self.shard(key);
        if let Some(flight) = find(&shard, key, value) {
            return (flight, false);
        }
        let run = run();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let attachment = Attachment { flights: Arc::clone(self), key: Arc::clone(key), id };
        let flight = async move {
            let attachment = attachment;
            let landing = run.await;
            drop(attachment);
            landing
        }
        .boxed()
        .shared();
        insert(&mut shard, key, id, value, &flight);
        (flight, true)
    }

    /// Callers that come after this start anew.
    pub(crate) fn detach(&self, key: &str) {
        let detached = self.shard(key).remove(key);
        // Dropped outside the lock.
        drop(detached);
    }

    /// Callers of any key that come after this start anew.
    pub(crate) fn detach_all(&self) {
        for shard in &self.shards {
            let detached = std::mem::take(&mut *lock(shard));
            drop(detached);
        }
    }

    /// How many keys have a flight that can be joined.
    pub(crate) fn attached_keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn attach(
        self: &Arc<Self>,
        shard: &mut HashMap<Arc<str>, Attached>,
        key: &Arc<str>,
        value: TypeId,
        flight: &Flight,
    ) -> Attachment {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        insert(shard, key, id, value, flight);
        Attachment { flights: Arc::clone(self), key: Arc::clone(key), id }
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<Arc<str>, Attached>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS, the length")]
        lock(&self.shards[index])
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("attached_keys", &self.attached_keys()).finish_non_exhaustive()
    }
}

/// The attached flight of this key and value type, while anybody waits for it.
fn find(shard: &HashMap<Arc<str>, Attached>, key: &Arc<str>, value: TypeId) -> Option<Flight> {
    // Two functions told to share a name may store different types of one structure; they do not share runs.
    shard.get(key).filter(|attached| attached.value == value)?.flight.upgrade()
}

fn insert(shard: &mut HashMap<Arc<str>, Attached>, key: &Arc<str>, id: u64, value: TypeId, flight: &Flight) {
    if let Some(flight) = flight.downgrade() {
        shard.insert(Arc::clone(key), Attached { id, value, flight });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

tokio::task_local! {
    /// The keys whose functions run around this point of this task, innermost first.
    static RUNNING: Arc<Running>;
}

struct Running {
    /// Sorted.
    keys: Vec<Arc<str>>,
    outer: Option<Arc<Running>>,
}

/// Runs the function of `key`: a panic is caught, and a call of the same key from inside is noticed (S6, S7).
pub(crate) async fn run(key: &Arc<str>, function: BoxFuture<'_, Result<Erased, Erased>>) -> Landing {
    match run_all(vec![Arc::clone(key)], function).await {
        Ok(Ok(value)) => Landing::Value(value),
        Ok(Err(error)) => Landing::Failed(error),
        Err(panic) => Landing::Panicked(panic),
    }
}

/// The same for a run that is of several keys.
pub(crate) async fn run_all<T>(mut keys: Vec<Arc<str>>, function: BoxFuture<'_, T>) -> Result<T, Panic> {
    keys.sort_unstable();
    let frame = Running { keys, outer: RUNNING.try_with(Arc::clone).ok() };
    let function = RUNNING.scope(Arc::new(frame), function);
    AssertUnwindSafe(function).catch_unwind().await.map_err(Panic::new)
}

/// Panics if the function of `key` runs around this call: it would wait for itself for ever.
pub(crate) fn assert_not_inside(key: &str, name: &str) {
    let inside = RUNNING.try_with(|innermost| {
        let mut frame = Some(innermost);
        while let Some(running) = frame {
            if running.keys.binary_search_by(|running| (**running).cmp(key)).is_ok() {
                return true;
            }
            frame = running.outer.as_ref();
        }
        false
    });
    if inside == Ok(true) {
        #[expect(
            clippy::panic,
            reason = "a bug in the calling program, documented on the attribute; the alternative is to hang"
        )]
        {
            panic!(
                "`{name}` calls itself for the key it is computing, and would wait for itself for ever; call its `uncached` companion there"
            );
        }
    }
}
