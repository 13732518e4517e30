//! One run per key in this process: callers that arrive while it is under way share its outcome.
//!
//! ```text
//! join(key) ── nobody runs ──> Lead: a leader, who completes the flight
//!           └─ somebody runs ─> Follow: wait for the outcome
//! ```
//!
//! Invariant: at most one flight per key can be joined. A flight cannot be joined any more once its
//! key was written, or a version that its value depends on has changed: the run goes on for those
//! who wait for it, and callers that arrive after the write start a new one (promise T7). A run
//! never detaches a flight that is not its own (R19). Nor is a run joined whose function began, or
//! whose lease was last seen to stand, longer ago than the staleness bound: its process may have
//! been stopped.
//!
//! Callers wait on a channel, and each is woken by its own task: no run is ever polled by a caller of another.

#[path = "single_flight/lender.rs"]
mod lender;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::lender::Lender;
use self::lender::Watch;
use crate::clock::{Clock, millis};
use crate::sabotage::{self, Guard};
use crate::sync::{Mutex, MutexGuard, SHARDS};
use crate::value::Erased;
use crate::versions::Since;

/// What a run comes to.
#[derive(Clone)]
pub(crate) enum Landing {
    /// A value.
    Value(Erased),
    /// The function's own error.
    Failed(Erased),
    /// The function, or other code of the user's, panicked.
    Panicked(Panic),
    /// It ended without an outcome: its caller was dropped, or its runtime has ended.
    Abandoned,
}

/// A caught panic: the first that takes it gets the payload, the others its message.
#[derive(Clone)]
pub(crate) struct Panic(Arc<Mutex<Result<Box<dyn Any + Send>, String>>>);

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Arc::new(Mutex::new(Ok(payload))))
    }

    /// Goes on panicking in this caller.
    pub(crate) fn resume(&self, name: &str) -> ! {
        let mut taken = lock(&self.0);
        let told = match &*taken {
            Ok(payload) => message(&**payload),
            Err(told) => told.clone(),
        };
        let before = std::mem::replace(&mut *taken, Err(told));
        drop(taken);
        match before {
            Ok(payload) => resume_unwind(payload),
            Err(told) => {
                resume_unwind(Box::new(format!("`{name}` panicked in another caller that this one waited for: {told}")))
            }
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)").to_owned()
}

/// The flights of one cache.
pub(crate) struct Flights {
    shards: Vec<Mutex<HashMap<Arc<str>, Attached>>>,
    hasher: RandomState,
    clock: Clock,
    /// For how long a run is joined after it was last seen, in milliseconds.
    longest_unseen: u64,
}

/// A flight that can be joined.
struct Attached {
    value: TypeId,
    /// The versions that the run's value will depend on, as they were before it.
    since: Vec<Since>,
    run: Weak<Run>,
}

/// A run that somebody may wait for.
pub(crate) struct Run {
    state: Mutex<State>,
    /// What its function waits for, from when that is called.
    waits: OnceLock<Arc<Waits>>,
    /// The caller that runs its function, where that borrows.
    lender: OnceLock<Arc<Lender>>,
    /// What it returns was not invalidated before this moment on the boot clock. [`NOT_BEGUN`]: its
    /// function was not called yet.
    seen: AtomicU64,
}

const NOT_BEGUN: u64 = u64::MAX;

/// The channel between a run and its callers. By hand: those of tokio wake in an order that is drawn, and the simulation of
/// several nodes replays every order by its seed.
#[derive(Default)]
struct State {
    outcome: Option<Landing>,
    /// How many callers wait.
    flights: usize,
    /// Its lender is held by one of those who wait for it.
    is_given_up: bool,
    /// The number of the next caller; they are woken in this order.
    next: u64,
    wakers: BTreeMap<u64, Waker>,
    /// Of the leader, who waits until nobody waits.
    leader: Option<Waker>,
}

/// The answer to [`Flights::join`].
pub(crate) enum Joined {
    /// Nobody runs: run, then complete the flight.
    Lead(Leader, Flight),
    /// Somebody runs: wait for the outcome.
    Follow(Flight),
}

/// A caller's end of a flight. Dropped, the caller does not wait any more.
pub(crate) struct Flight {
    run: Arc<Run>,
    number: u64,
}

impl Flight {
    /// The outcome of the run.
    ///
    /// # Panics
    /// If the run waits for the run that this caller is called by: neither would ever end.
    pub(crate) async fn landed(&self, caller: &Caller, name: &str) -> Landing {
        let _waiting = self.wait(caller, name);
        let mut watch = Watch::default();
        poll_fn(|context| {
            let landed = self.poll(context);
            if landed.is_pending() && self.run.lender.get().is_some_and(|lender| watch.is_held(lender, context)) {
                self.run.give_up();
            }
            landed
        })
        .await
    }

    /// Notes who runs the function of the run.
    pub(crate) fn lent_by(&self, lender: &Arc<Lender>) {
        // A run has one function.
        let _set = self.run.lender.set(Arc::clone(lender));
    }

    /// Notes that the function around this call waits for the run, for as long as what is returned lives. Panics as
    /// [`landed`](Self::landed).
    pub(crate) fn wait(&self, caller: &Caller, name: &str) -> Option<Waiting> {
        caller.wait_for(&self.run, name)
    }

    /// The outcome, once there is one.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Landing> {
        let mut state = lock(&self.run.state);
        if let Some(landing) = &state.outcome {
            return Poll::Ready(landing.clone());
        }
        let replaced = state.wakers.insert(self.number, context.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = lock(&self.run.state);
        state.flights = state.flights.saturating_sub(1);
        let own = state.wakers.remove(&self.number);
        let leader = if state.flights == 0 { state.leader.take() } else { None };
        drop(state);
        drop(own);
        leader.into_iter().for_each(Waker::wake);
    }
}

/// The run's end of a flight. Dropped, it abandons the flight.
pub(crate) struct Leader {
    run: Arc<Run>,
    attached: Mutex<Option<Attachment>>,
    /// Who began the run.
    caller: Caller,
}

impl Leader {
    /// Of a run that no other caller can join, and the end of its one caller.
    pub(crate) fn alone(caller: &Caller) -> (Self, Flight) {
        let (run, flight) = Run::new();
        (Self { run, attached: Mutex::new(None), caller: caller.clone() }, flight)
    }

    /// Hands the outcome to whoever waits. Callers that come later start anew. Only the first outcome counts.
    pub(crate) fn complete(&self, landing: Landing) {
        self.detach();
        let mut state = lock(&self.run.state);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(landing);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Callers that come after this start anew.
    pub(crate) fn detach(&self) {
        let attached = lock(&self.attached).take();
        // Dropped outside the lock.
        drop(attached);
    }

    /// Resolves once nobody waits any more, or its followers have given it up; the flight cannot be joined then.
    pub(crate) async fn unwanted(&self) {
        poll_fn(|context| self.poll_unwanted(context)).await;
    }

    fn poll_unwanted(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.run.state);
        let replaced = state.leader.replace(context.waker().clone());
        let (is_wanted, is_given_up) = (state.flights > 0, state.is_given_up);
        drop(state);
        drop(replaced);
        if is_given_up {
            self.detach();
            return Poll::Ready(());
        }
        if is_wanted {
            return Poll::Pending;
        }
        let mut attached = lock(&self.attached);
        // Callers join under the lock of the shard: none can come between the look and the removal.
        if attached.as_ref().is_some_and(|attached| !attached.remove_if_unwanted(&self.run)) {
            return Poll::Pending;
        }
        let removed = attached.take();
        drop(attached);
        drop(removed);
        Poll::Ready(())
    }

    /// The function called `name` as it runs for this flight.
    pub(crate) fn running(&self, name: &Arc<str>, key: &Arc<str>) -> Arc<Running> {
        Running::new(name, [Arc::clone(key)], [&self.run], &self.caller)
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// What the run returns was not invalidated before this moment on the boot clock: its function
    /// began then, or its lease was asked after then, and stood.
    pub(crate) fn seen(&self, at: u64) {
        self.run.seen.store(at, Ordering::Relaxed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.complete(Landing::Abandoned);
    }
}

/// Detaches the flight when dropped, unless another has taken its place.
struct Attachment {
    flights: Arc<Flights>,
    key: Arc<str>,
    run: Weak<Run>,
}

impl Attachment {
    fn remove_if_unwanted(&self, run: &Run) -> bool {
        let mut shard = self.flights.shard(&self.key);
        let is_unwanted = lock(&run.state).flights == 0;
        let removed = if is_unwanted { self.take(&mut shard) } else { None };
        drop(shard);
        drop(removed);
        is_unwanted
    }

    fn take(&self, shard: &mut HashMap<Arc<str>, Attached>) -> Option<Attached> {
        let is_own = shard.get(&self.key).is_some_and(|attached| attached.run.ptr_eq(&self.run));
        if is_own { shard.remove(&self.key) } else { None }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if sabotage::is(Guard::FlightLeaves) {
            return;
        }
        let mut shard = self.flights.shard(&self.key);
        let removed = self.take(&mut shard);
        drop(shard);
        drop(removed);
    }
}

impl Run {
    fn new() -> (Arc<Self>, Flight) {
        let run = Arc::new(Self {
            state: Mutex::default(),
            waits: OnceLock::new(),
            lender: OnceLock::new(),
            seen: AtomicU64::new(NOT_BEGUN),
        });
        let flight = Self::join(&run);
        (run, flight)
    }

    /// The run ends without an outcome, so that one of those who wait for it leads another.
    fn give_up(&self) {
        let mut state = lock(&self.state);
        state.is_given_up = true;
        let leader = state.leader.take();
        drop(state);
        leader.into_iter().for_each(Waker::wake);
    }

    fn is_given_up(&self) -> bool {
        lock(&self.state).is_given_up
    }

    fn join(run: &Arc<Self>) -> Flight {
        let mut state = lock(&run.state);
        let number = state.next;
        state.next = number.saturating_add(1);
        state.flights = state.flights.saturating_add(1);
        drop(state);
        Flight { run: Arc::clone(run), number }
    }
}

impl Flights {
    /// `longest_unseen`: how long a run is joined after it was last seen.
    pub(crate) fn new(clock: Clock, longest_unseen: Duration) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, hasher: RandomState::new(), clock, longest_unseen: millis(longest_unseen) })
    }

    /// Joins the flight of this key, or leads one. `since`: the versions that the run's value will depend on.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Arc<str>,
        value: TypeId,
        since: impl FnOnce() -> Vec<Since>,
        caller: &Caller,
    ) -> Joined {
        let mut shard = self.shard(key);
        if let Some(flight) = self.find_in(&shard, key, value) {
            return Joined::Follow(flight);
        }
        let (run, flight) = Run::new();
        let attached = Attached { value, since: since(), run: Arc::downgrade(&run) };
        let attachment = Attachment { flights: Arc::clone(self), key: Arc::clone(key), run: Arc::downgrade(&run) };
        let replaced = shard.insert(Arc::clone(key), attached);
        drop(shard);
        drop(replaced);
        Joined::Lead(Leader { run, attached: Mutex::new(Some(attachment)), caller: caller.clone() }, flight)
    }

    /// The flight of this key, if there is one to join.
    pub(crate) fn find(&self, key: &Arc<str>, value: TypeId) -> Option<Flight> {
        self.find_in(&self.shard(key), key, value)
    }

    /// The flight of this key and value type, while it can be joined.
    fn find_in(&self, shard: &HashMap<Arc<str>, Attached>, key: &Arc<str>, value: TypeId) -> Option<Flight> {
        // Two functions told to share a name may store different types of one structure; they do
        // not share runs.
        let attached = shard.get(key).filter(|attached| attached.value == value)?;
        // What the run computes may be older than an invalidation that this caller came after.
        if attached.since.iter().any(Since::has_changed) {
            return None;
        }
        let run = attached.run.upgrade().filter(|run| !run.is_given_up())?;
        // A look at the clock, no timer: none runs in a process that is stopped.
        let seen = run.seen.load(Ordering::Relaxed);
        let is_unseen = seen != NOT_BEGUN && self.clock.boot().saturating_sub(seen) > self.longest_unseen;
        if is_unseen && !sabotage::is(Guard::UnseenRunIsNotJoined) {
            return None;
        }
        Some(Run::join(&run))
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

tokio::task_local! {
    /// The functions that run around this point of this task, innermost first.
    static RUNNING: Arc<Running>;
}

/// A function that runs, as seen from inside of it.
pub(crate) struct Running {
    /// The hash and the text of each key that it runs for, sorted.
    keys: Vec<(u64, Arc<str>)>,
    waits: Arc<Waits>,
    outer: Option<Arc<Running>>,
}

/// What a running function waits for.
struct Waits {
    name: Arc<str>,
    runs: Mutex<HashMap<u64, Weak<Run>>>,
}

impl Running {
    /// The function called `name` runs for these keys, and whoever waits for one of `runs` waits for it. `caller`: who waits for
    /// it, as far as it is known.
    pub(crate) fn new<'a>(
        name: &Arc<str>,
        keys: impl IntoIterator<Item = Arc<str>>,
        runs: impl IntoIterator<Item = &'a Arc<Run>>,
        caller: &Caller,
    ) -> Arc<Self> {
        let mut keys: Vec<_> = keys.into_iter().map(|key| (xxh3_64(key.as_bytes()), key)).collect();
        keys.sort_unstable();
        let waits = Arc::new(Waits { name: Arc::clone(name), runs: Mutex::default() });
        for run in runs {
            // A run calls its function once.
            let _set = run.waits.set(Arc::clone(&waits));
        }
        Arc::new(Self { keys, waits, outer: caller.0.clone() })
    }

    /// Runs the function. A panic is caught, and a call of one of the keys from inside is noticed (S6, S7).
    pub(crate) async fn run<T>(self: Arc<Self>, function: BoxFuture<'_, T>) -> Result<T, Panic> {
        AssertUnwindSafe(RUNNING.scope(self, function)).catch_unwind().await.map_err(Panic::new)
    }
}

/// One after another: a chain of thousands, dropped by recursion, would overflow the stack.
impl Drop for Running {
    fn drop(&mut self) {
        let mut outer = self.outer.take();
        while let Some(mut running) = outer.and_then(Arc::into_inner) {
            outer = running.outer.take();
        }
    }
}

/// Which functions run around a call.
#[derive(Clone, Default)]
pub(crate) struct Caller(Option<Arc<Running>>);

impl Caller {
    /// Of the call that is made here.
    pub(crate) fn here() -> Self {
        Self(RUNNING.try_with(Arc::clone).ok())
    }

    /// Panics if the function of `key` runs around this call: it would wait for itself for ever.
    pub(crate) fn assert_not_inside(&self, key: &str, name: &str) {
        let Some(mut frame) = self.0.as_ref() else { return };
        let hash = xxh3_64(key.as_bytes());
        loop {
            let is_inside = match frame.keys.as_slice() {
                [(other, running)] => *other == hash && **running == *key,
                many => {
                    let at = many.partition_point(|(other, _)| *other < hash);
                    let mut same = many.iter().skip(at).take_while(|(other, _)| *other == hash);
                    same.any(|(_, running)| **running == *key)
                }
            };
            if is_inside {
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
            let Some(outer) = frame.outer.as_ref() else { return };
            frame = outer;
        }
    }

    /// Notes that the function around this call waits for a run, for as long as what is returned lives.
    fn wait_for(&self, run: &Arc<Run>, name: &str) -> Option<Waiting> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let waits = &self.0.as_ref()?.waits;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&waits.runs).insert(id, Arc::downgrade(run));
        let waiting = Waiting { waits: Arc::clone(waits), id };
        // Noted before it is looked for: of two that begin to wait for each other, one sees both.
        if leads_to(run, waits) {
            #[expect(
                clippy::panic,
                reason = "a bug in the calling program, documented on the attribute; the alternative is to hang"
            )]
            {
                panic!(
                    "`{}` calls `{name}` for a key whose run waits for this very run of `{}`: both would wait for ever; call an `uncached` companion in one of them",
                    waits.name, waits.name
                );
            }
        }
        Some(waiting)
    }
}

/// A function waits for a run.
pub(crate) struct Waiting {
    waits: Arc<Waits>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.waits.runs).remove(&self.id);
    }
}

/// Whether a run waits for a function, directly or by way of other runs.
fn leads_to(run: &Run, function: &Arc<Waits>) -> bool {
    let waits_of = |run: &Weak<Run>| run.upgrade().and_then(|run| run.waits.get().map(Arc::clone));
    let mut open: Vec<Arc<Waits>> = run.waits.get().map(Arc::clone).into_iter().collect();
    let mut seen = HashSet::new();
    while let Some(waits) = open.pop() {
        if Arc::ptr_eq(&waits, function) {
            return true;
        }
        if seen.insert(Arc::as_ptr(&waits) as usize) {
            let runs: Vec<Weak<Run>> = lock(&waits.runs).values().cloned().collect();
            open.extend(runs.iter().filter_map(waits_of));
        }
    }
    false
}
