//! Single flight: one run per key in this process. Callers that arrive during the run share its
//! outcome.
//!
//! ```text
//! join(key) ── no run in flight ─> Lead: a leader, which completes the flight
//!           └─ a run in flight ──> Follow: wait for the outcome
//! ```
//!
//! Invariant: at most one flight per key can be joined. A flight can no longer be joined once its
//! key was written, or a version on which its value depends has changed: the run continues for the
//! callers that wait for it, and callers that arrive after the write start a new one (promise T7).
//! A run never detaches a flight that is not its own (R19). A run is also not joined if its
//! function began, or its lease was last seen to exist, longer ago than the staleness bound: its
//! process may have been suspended.
//!
//! Callers wait on a channel, and each is woken by its own task. A run is never polled by a caller
//! of another run.

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
use crate::mutants::{self, Invariant};
use crate::sync::{Mutex, MutexGuard, SHARDS};
use crate::value::Erased;
use crate::versions::Since;

/// The outcome of a run.
#[derive(Clone)]
pub(crate) enum FlightOutcome {
    /// A value.
    Value(Erased),
    /// The function's own error.
    Failed(Erased),
    /// The function, or other user code, panicked.
    Panicked(Panic),
    /// The run ended without an outcome: its caller was dropped, or its runtime has ended.
    Abandoned,
}

/// A caught panic. The first caller that takes it gets the payload, the others get its message.
#[derive(Clone)]
pub(crate) struct Panic(Arc<Mutex<Result<Box<dyn Any + Send>, String>>>);

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Arc::new(Mutex::new(Ok(payload))))
    }

    /// Resumes the panic in this caller.
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
    /// How long after it was last seen a run can be joined, in milliseconds.
    longest_unseen: u64,
}

/// A flight that can be joined.
struct Attached {
    value: TypeId,
    /// The versions on which the run's value will depend, as they were before the run.
    since: Vec<Since>,
    run: Weak<Run>,
}

/// A run that callers may wait for.
pub(crate) struct Run {
    state: Mutex<State>,
    /// What its function waits for. Set when the function is called.
    waits: OnceLock<Arc<Waits>>,
    /// The caller that runs its function, if the function borrows from that caller.
    lender: OnceLock<Arc<Lender>>,
    /// The value was not invalidated before this moment on the boot clock. [`NOT_BEGUN`] if the
    /// function was not called yet.
    seen: AtomicU64,
}

const NOT_BEGUN: u64 = u64::MAX;

/// The channel between a run and its callers. Not a channel of tokio: those wake in random order,
/// and the simulation of several nodes replays every order from its seed.
#[derive(Default)]
struct State {
    outcome: Option<FlightOutcome>,
    /// The number of waiting callers.
    flights: usize,
    /// Set when a waiting caller found that the lender is stalled.
    is_given_up: bool,
    /// The number of the next caller. Callers are woken in this order.
    next: u64,
    wakers: BTreeMap<u64, Waker>,
    /// The waker of the leader, which waits until no caller waits.
    leader: Option<Waker>,
}

/// The result of [`Flights::join`].
pub(crate) enum Joined {
    /// No run in flight: run, then complete the flight.
    Lead(Leader, Flight),
    /// A run is in flight: wait for the outcome.
    Follow(Flight),
}

/// A caller's end of a flight. Dropping it ends the wait.
pub(crate) struct Flight {
    run: Arc<Run>,
    number: u64,
}

impl Flight {
    /// Waits for the outcome of the run.
    ///
    /// # Panics
    /// If the run waits for the run from which this call is made: neither would ever end.
    pub(crate) async fn outcome(&self, caller: &Caller, name: &str) -> FlightOutcome {
        let _waiting = self.wait(caller, name);
        let mut watch = Watch::default();
        poll_fn(|context| {
            let completed = self.poll(context);
            if completed.is_pending() && self.run.lender.get().is_some_and(|lender| watch.is_held(lender, context)) {
                self.run.give_up();
            }
            completed
        })
        .await
    }

    /// Records which caller runs the function of the run.
    pub(crate) fn lent_by(&self, lender: &Arc<Lender>) {
        // A run has one function, so this is set once.
        let _set = self.run.lender.set(Arc::clone(lender));
    }

    /// Records that the function around this call waits for the run, for as long as the returned
    /// value lives. Panics like [`outcome`](Self::outcome).
    pub(crate) fn wait(&self, caller: &Caller, name: &str) -> Option<Waiting> {
        caller.wait_for(&self.run, name)
    }

    /// Polls for the outcome.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<FlightOutcome> {
        let mut state = lock(&self.run.state);
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
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

/// The run's end of a flight. Dropping it abandons the flight.
pub(crate) struct Leader {
    run: Arc<Run>,
    attached: Mutex<Option<Attachment>>,
    /// The caller that began the run.
    caller: Caller,
}

impl Leader {
    /// Makes a run that no other caller can join, and the flight of its one caller.
    pub(crate) fn alone(caller: &Caller) -> (Self, Flight) {
        let (run, flight) = Run::new();
        (Self { run, attached: Mutex::new(None), caller: caller.clone() }, flight)
    }

    /// Hands the outcome to all waiting callers. Later callers start a new run. Only the first
    /// outcome counts.
    pub(crate) fn complete(&self, outcome: FlightOutcome) {
        self.detach();
        let mut state = lock(&self.run.state);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Makes later callers start a new run.
    pub(crate) fn detach(&self) {
        let attached = lock(&self.attached).take();
        // Dropped outside the lock.
        drop(attached);
    }

    /// Resolves once no caller waits, or a follower has given up the run. The flight can no longer
    /// be joined then.
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
        // Callers join under the lock of the shard, so none can join between the check and the
        // removal.
        if attached.as_ref().is_some_and(|attached| !attached.remove_if_unwanted(&self.run)) {
            return Poll::Pending;
        }
        let removed = attached.take();
        drop(attached);
        drop(removed);
        Poll::Ready(())
    }

    /// Returns the running function called `name` for this flight.
    pub(crate) fn running(&self, name: &Arc<str>, key: &Arc<str>) -> Arc<Running> {
        Running::new(name, [Arc::clone(key)], [&self.run], &self.caller)
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Records that what the run returns was not invalidated before this moment on the boot clock:
    /// either its function began then, or a check of its lease that began then found the lease.
    pub(crate) fn seen(&self, at: u64) {
        self.run.seen.store(at, Ordering::Relaxed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.complete(FlightOutcome::Abandoned);
    }
}

/// Detaches the flight when dropped, unless another flight has taken its place.
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
        if mutants::removed(Invariant::FlightLeaves) {
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

    /// Ends the run without an outcome, so that one of the waiting callers leads a new one.
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
    /// `longest_unseen`: how long after it was last seen a run can be joined.
    pub(crate) fn new(clock: Clock, longest_unseen: Duration) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, hasher: RandomState::new(), clock, longest_unseen: millis(longest_unseen) })
    }

    /// Joins the flight of this key, or leads a new one. `since`: the versions on which the run's
    /// value will depend.
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

    /// Returns the flight of this key, if there is one to join.
    pub(crate) fn find(&self, key: &Arc<str>, value: TypeId) -> Option<Flight> {
        self.find_in(&self.shard(key), key, value)
    }

    /// Returns the flight of this key and value type, if it can be joined.
    fn find_in(&self, shard: &HashMap<Arc<str>, Attached>, key: &Arc<str>, value: TypeId) -> Option<Flight> {
        // Two functions with the same name may store different types with the same structure. They
        // do not share runs.
        let attached = shard.get(key).filter(|attached| attached.value == value)?;
        // The run may compute a value from before an invalidation that this caller must see.
        if attached.since.iter().any(Since::has_changed) {
            return None;
        }
        let run = attached.run.upgrade().filter(|run| !run.is_given_up())?;
        // Compares clock readings instead of using a timer: timers do not run in a suspended
        // process.
        let seen = run.seen.load(Ordering::Relaxed);
        let is_unseen = seen != NOT_BEGUN && self.clock.boot().saturating_sub(seen) > self.longest_unseen;
        if is_unseen && !mutants::removed(Invariant::UnseenRunIsNotJoined) {
            return None;
        }
        Some(Run::join(&run))
    }

    /// Makes later callers of this key start a new run.
    pub(crate) fn detach(&self, key: &str) {
        let detached = self.shard(key).remove(key);
        // Dropped outside the lock.
        drop(detached);
    }

    /// Makes later callers of every key start a new run.
    pub(crate) fn detach_all(&self) {
        for shard in &self.shards {
            let detached = std::mem::take(&mut *lock(shard));
            drop(detached);
        }
    }

    /// Returns the number of keys with a flight that can be joined.
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
    /// The innermost function that runs around this point of this task; it links to the outer ones.
    static RUNNING: Arc<Running>;
}

/// A running function, as seen from inside it.
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
    /// Makes the record of the function `name`, which runs for these keys. Whoever waits for one of
    /// `runs` waits for this function. `caller`: the functions around it, as far as known.
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

    /// Runs the function. Panics are caught, and a call for one of the keys from inside is detected
    /// (S6, S7).
    pub(crate) async fn run<T>(self: Arc<Self>, function: BoxFuture<'_, T>) -> Result<T, Panic> {
        AssertUnwindSafe(RUNNING.scope(self, function)).catch_unwind().await.map_err(Panic::new)
    }
}

/// Drops the chain iteratively: recursion over thousands of functions would overflow the stack.
impl Drop for Running {
    fn drop(&mut self) {
        let mut outer = self.outer.take();
        while let Some(mut running) = outer.and_then(Arc::into_inner) {
            outer = running.outer.take();
        }
    }
}

/// The functions that run around a call.
#[derive(Clone, Default)]
pub(crate) struct Caller(Option<Arc<Running>>);

impl Caller {
    /// Returns the functions around the current call.
    pub(crate) fn here() -> Self {
        Self(RUNNING.try_with(Arc::clone).ok())
    }

    /// Panics if the function of `key` runs around this call: it would wait for itself forever.
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
                        "`{name}` calls itself for the key it is computing, and would wait for itself forever; call \
                        its `uncached` companion instead"
                    );
                }
            }
            let Some(outer) = frame.outer.as_ref() else { return };
            frame = outer;
        }
    }

    /// Records that the function around this call waits for a run, for as long as the returned
    /// value lives.
    fn wait_for(&self, run: &Arc<Run>, name: &str) -> Option<Waiting> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let waits = &self.0.as_ref()?.waits;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&waits.runs).insert(id, Arc::downgrade(run));
        let waiting = Waiting { waits: Arc::clone(waits), id };
        // Recorded before the check: if two functions begin to wait for each other, at least one
        // sees both.
        if leads_to(run, waits) {
            #[expect(
                clippy::panic,
                reason = "a bug in the calling program, documented on the attribute; the alternative is to hang"
            )]
            {
                panic!(
                    "`{}` calls `{name}` for a key whose compute waits for this compute of `{}`: both would wait \
                    forever; call an `uncached` companion in one of them",
                    waits.name, waits.name
                );
            }
        }
        Some(waiting)
    }
}

/// Marks that a function waits for a run. Dropping it ends the mark.
pub(crate) struct Waiting {
    waits: Arc<Waits>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.waits.runs).remove(&self.id);
    }
}

/// Returns whether a run waits for a function, directly or through other runs.
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
