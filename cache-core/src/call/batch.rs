//! Reading through for many ids: the steps of [`read_through`](crate::call::read_through), with one
//! round trip for all keys at each step.
//!
//! ```text
//! read all ─┬─ fresh records ─> their values: no run, no flight
//!           └─ else ─> a task: join the flights of these ids
//!                       ├─ led by others ─> wait for them (while the own ones go on)
//!                       └─ led here ─┬─ nothing ────────> take all leases ─> run once ─> fill all
//!                                    ├─ another's lease ─> wait for each, read it again
//!                                    └─ no store ────────> run the function
//! ```
//!
//! The function borrows from its caller, which runs it when the task asks for it.
//!
//! Invariant: a batch holds no lease while it waits. It holds leases only while the function runs
//! and its values are stored. A flight that is led here waits for the holder of a lease, which
//! waits for no other process, and never for another flight. So batches that lead and follow each
//! other crosswise always finish.

mod compute;
mod look;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use self::look::{Bases, Unserved};
use crate::call::patience::Patience;
use crate::call::plan::{Plan, Tally};
use crate::coordination::lease::{Lease, LeaseNotice};
use crate::coordination::single_flight::{Caller, Flight, FlightOutcome, Joined, Leader, Panic, Running};
use crate::engine::Engine;
use crate::observe::events::StaleCause;
use crate::observe::history::HistoryEvent;
use crate::options::SingleFlightScope;
use crate::store::{Slot, has_fill_id};
use crate::value::Erased;
use crate::value::return_type::{BatchReturn, Form as _, Optional, Parts};

/// How many keys are read, leased or stored at a time. A larger batch takes several rounds; its
/// function is still called once. The store also limits each request by bytes.
const MOST_AT_A_TIME: usize = 1000;
/// How many round trips of single ids run at the same time, if they cannot be combined.
const TRIPS_AT_A_TIME: usize = 32;
/// The longest wait for another caller's lease before looking again, whatever time the lease has
/// left.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What one call of the function returned: value or error of each id, in the order of the ids, or
/// one error for all.
pub(crate) type Returned = Result<Vec<Result<Erased, Erased>>, Erased>;

/// The function, called with the positions of ids.
pub(crate) type Function<'a> = dyn Fn(Vec<usize>) -> BoxFuture<'a, Returned> + Send + Sync + 'a;

/// What a call of the function returned, or its panic.
type Run = Result<Returned, Panic>;

/// The run's end of the function, which its caller runs.
struct Calls(mpsc::UnboundedSender<Call>);

/// A request of a run to its caller, to call the function.
struct Call {
    ids: Vec<usize>,
    running: Arc<Running>,
    returned: oneshot::Sender<Run>,
}

impl Calls {
    /// Requests a call. `None`: the caller was dropped.
    async fn call(&self, ids: Vec<usize>, running: Arc<Running>) -> Option<Run> {
        let (returned, awaited) = oneshot::channel();
        self.0.send(Call { ids, running, returned }).ok()?;
        awaited.await.ok()
    }
}

/// Returns the outcome of each plan, in their order. The plans belong to one function, and each has
/// another key.
///
/// If it is dropped, its leases are released, and callers that wait for its flights lead them.
pub(crate) async fn run<'a>(engine: &Arc<Engine>, plans: &Arc<[Plan]>, function: &Function<'a>) -> Vec<FlightOutcome> {
    let caller = Caller::here();
    for plan in plans.iter() {
        caller.assert_not_inside(&plan.key.value_key, &plan.key.name);
    }
    let (probe, unserved) = {
        let batch = Batch { engine, plans, calls: None, caller: &caller, ids: ids(plans) };
        let unserved = batch.probe().await;
        (batch.outcomes(), unserved)
    };
    if unserved.ids.is_empty() {
        return probe.into_iter().map(|outcome| outcome.unwrap_or(FlightOutcome::Abandoned)).collect();
    }
    let open = unserved.ids.clone();
    let completed = run_unserved(engine, plans, unserved, &caller, function).await;
    let completed = match completed {
        Some(Ok(completed)) => completed,
        Some(Err(panic)) => plans.iter().map(|_| Some(FlightOutcome::Panicked(panic.clone()))).collect(),
        // The runtime has ended, or there is none: the rest is computed without storing.
        None => run_alone(plans, open, &caller, function).await,
    };
    let both = probe.into_iter().zip(completed);
    both.map(|(probe, completed)| probe.or(completed).unwrap_or(FlightOutcome::Abandoned)).collect()
}

/// Runs the rest in a task, which requests calls of the function. `None`: the task ended without an
/// outcome.
async fn run_unserved(
    engine: &Arc<Engine>,
    plans: &Arc<[Plan]>,
    unserved: Unserved,
    caller: &Caller,
    function: &Function<'_>,
) -> Option<Result<Vec<Option<FlightOutcome>>, Panic>> {
    let (calls, mut called) = mpsc::unbounded_channel();
    let (mut done, mut completed) = oneshot::channel();
    let (background, engine) = (Arc::clone(&engine.background), Arc::clone(engine));
    let (plans, caller) = (Arc::clone(plans), caller.clone());
    let task = async move {
        let run = async {
            let calls = Calls(calls);
            let batch =
                Batch { engine: &engine, plans: &plans, calls: Some(&calls), caller: &caller, ids: ids(&plans) };
            batch.run(unserved).await;
            batch.outcomes()
        };
        let completed = tokio::select! {
            biased;
            completed = AssertUnwindSafe(run).catch_unwind() => completed.map_err(Panic::new),
            () = done.closed() => return,
        };
        // An error means that the caller was dropped.
        let _gone = done.send(completed);
    };
    background.run(task.boxed()).ok()?;
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            completed = &mut completed => return completed.ok(),
            Some(()) = running.next() => {}
            Some(Call { ids, running: frame, returned }) = called.recv() => {
                let run = frame.run(function(ids));
                running.push(async move {
                    let _gone = returned.send(run.await);
                });
            }
        }
    }
}

async fn run_alone(
    plans: &[Plan],
    open: Vec<usize>,
    caller: &Caller,
    function: &Function<'_>,
) -> Vec<Option<FlightOutcome>> {
    let mut completed: Vec<Option<FlightOutcome>> = plans.iter().map(|_| None).collect();
    let Some(one) = plans.first() else { return completed };
    let keys = open.iter().filter_map(|at| Some(Arc::clone(&plans.get(*at)?.key.value_key)));
    let running = Running::new(&one.key.name, keys, [], caller);
    let returned = running.run(function(open.clone())).await;
    for (at, outcome) in open.iter().zip(outcomes(returned, open.len())) {
        if let Some(place) = completed.get_mut(*at) {
            *place = Some(outcome);
        }
    }
    completed
}

fn ids(plans: &[Plan]) -> Vec<Mutex<Id>> {
    plans.iter().map(|_| Mutex::default()).collect()
}

/// Converts the result of a run into one outcome per id.
fn outcomes(run: Run, count: usize) -> Vec<FlightOutcome> {
    let all = |outcome: FlightOutcome| std::iter::repeat_n(outcome, count).collect();
    match run {
        Ok(Ok(each)) => {
            each.into_iter().map(|one| one.map_or_else(FlightOutcome::Failed, FlightOutcome::Value)).collect()
        }
        Ok(Err(error)) => all(FlightOutcome::Failed(error)),
        Err(panic) => all(FlightOutcome::Panicked(panic)),
    }
}

/// Returns the result of each of these ids, in their order. Ids that were not requested are
/// ignored.
pub(crate) fn by_id<R, K, T, E>(wanted: Vec<K>, returned: R) -> Returned
where
    R: BatchReturn<Id = K, Value = T, Error = E>,
    K: Eq + Hash,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    let Parts { found, failed } = returned.split().map_err(|error| Arc::new(error) as Erased)?;
    let mut by_id: HashMap<K, Result<T, E>> = found.into_iter().map(|(id, value)| (id, Ok(value))).collect();
    // If an id is both found and failed, the error is used.
    by_id.extend(failed.into_iter().map(|(id, error)| (id, Err(error))));
    let of_id = |id: K| match by_id.remove(&id) {
        Some(Ok(value)) => Ok(Optional::<T>::erase(Some(value))),
        Some(Err(error)) => Err(Arc::new(error) as Erased),
        None => Ok(Optional::<T>::erase(None)),
    };
    Ok(wanted.into_iter().map(of_id).collect())
}

struct Batch<'a> {
    engine: &'a Arc<Engine>,
    plans: &'a [Plan],
    /// `None`: only reads.
    calls: Option<&'a Calls>,
    caller: &'a Caller,
    ids: Vec<Mutex<Id>>,
}

/// The state of one id.
#[derive(Default)]
struct Id {
    /// Present while others may follow.
    leader: Option<Leader>,
    outcome: Option<FlightOutcome>,
    /// Waited for another process, which is counted once.
    waited: bool,
}

/// The next step of a batch.
enum Step {
    /// A look at some ids has finished.
    Looked(Looked),
    /// This id must be looked up again.
    Changed(usize),
    /// Some ids have their outcome.
    Completed,
}

/// The result of a look, for the ids without an outcome.
struct Looked {
    bases: Bases,
    /// To be computed here.
    claims: Vec<Claim>,
    /// Computed by another process.
    leased: Vec<Leased>,
}

/// An id to be computed.
struct Claim {
    at: usize,
    /// Index into [`Looked::bases`].
    position: usize,
    /// `None`: the value is not stored.
    lease: Option<Lease>,
    /// The fallback if the function fails.
    old: Option<Erased>,
    /// The fill id of that fallback's record.
    beside: Option<u64>,
}

/// An id that another process computes.
struct Leased {
    at: usize,
    left: Option<Duration>,
    /// The lease is held next to the record with this fill id.
    beside: Option<u64>,
}

impl<'a> Batch<'a> {
    fn plan(&self, at: usize) -> &'a Plan {
        #[expect(clippy::indexing_slicing, reason = "positions come from enumerating the plans")]
        &self.plans[at]
    }

    fn id(&self, at: usize) -> MutexGuard<'_, Id> {
        #[expect(clippy::indexing_slicing, reason = "there are as many as plans")]
        lock(&self.ids[at])
    }

    /// Completes all of these ids.
    async fn run(&self, unserved: Unserved) {
        let mut open = unserved.ids.clone();
        let mut unserved = Some(unserved);
        while !open.is_empty() {
            let mut own = Vec::new();
            let mut followed = Vec::new();
            for at in open.drain(..) {
                match self.join(at, unserved.as_ref()) {
                    None => own.push(at),
                    Some(flight) => {
                        followed.push(async move { (at, flight.outcome(self.caller, &self.plan(at).key.name).await) })
                    }
                }
            }
            // Concurrently, so that neither waits for the other.
            let ((), completed) = tokio::join!(self.lead(own, unserved.take()), join_all(followed));
            for (at, outcome) in completed {
                match outcome {
                    // The leader was dropped: the next round leads this flight, or follows its new
                    // leader.
                    FlightOutcome::Abandoned => open.push(at),
                    outcome => self.settle(at, outcome),
                }
            }
        }
    }

    fn outcomes(self) -> Vec<Option<FlightOutcome>> {
        self.ids.into_iter().map(|id| lock(&id).outcome.take()).collect()
    }

    /// Returns whether the run of this id is shared with other callers. A refresh does not join a
    /// run that began before it.
    fn shares(&self, at: usize) -> bool {
        let plan = self.plan(at);
        plan.rules.options.single_flight != SingleFlightScope::None && !plan.refresh
    }

    /// Joins the flight of this id. `None`: this batch leads it.
    fn join(&self, at: usize, unserved: Option<&Unserved>) -> Option<Flight> {
        let plan = self.plan(at);
        let Plan { key, value, .. } = plan;
        if !self.shares(at) {
            return None;
        }
        let since = || match unserved.and_then(|unserved| unserved.bases.of(unserved.position(at)?)) {
            Some(basis) => basis.since(),
            None => plan.basis(self.engine).since(),
        };
        match self.engine.flights.join(&key.value_key, (value.type_id)(), since, self.caller) {
            Joined::Follow(flight) => {
                self.plan(at).count(self.engine, Tally::Joined);
                Some(flight)
            }
            Joined::Lead(leader, _waits_here) => {
                self.id(at).leader = Some(leader);
                None
            }
        }
    }

    fn settle(&self, at: usize, outcome: FlightOutcome) {
        let mut id = self.id(at);
        let leader = id.leader.take();
        id.outcome = Some(outcome.clone());
        drop(id);
        leader.into_iter().for_each(|leader| leader.complete(outcome.clone()));
    }

    /// Records that this id was not invalidated before this moment on the boot clock.
    fn seen(&self, at: usize, when: u64) {
        if let Some(leader) = &self.id(at).leader {
            leader.seen(when);
        }
    }

    fn tell(&self, at: usize, told: LeaseNotice) {
        match told {
            LeaseNotice::Stood(when) => self.seen(at, when),
            LeaseNotice::Lost => self.detach(at),
        }
    }

    /// Detaches the flight of this id: later callers start a run of their own.
    fn detach(&self, at: usize) {
        if let Some(leader) = &self.id(at).leader {
            leader.detach();
        }
    }

    /// Completes all ids that this batch leads.
    async fn lead(&self, own: Vec<usize>, unserved: Option<Unserved>) {
        let mut work: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
        let Some(first) = own.first() else { return };
        let mut patience = Patience::new(self.engine, self.plan(*first).terms(self.engine).deadline);
        let (mut unserved, mut open) = (unserved, own);
        loop {
            if !open.is_empty() {
                let may_look = patience.look_again();
                let patience = may_look.then(|| patience.clone());
                work.push(self.look(std::mem::take(&mut open), patience, unserved.take()).boxed());
            }
            let Some(mut step) = work.next().await else { return };
            // Handles everything that is ready, so that keys released together are read together.
            loop {
                match step {
                    Step::Completed => {}
                    Step::Changed(at) => open.push(at),
                    Step::Looked(Looked { bases, claims, leased }) => {
                        if !claims.is_empty() {
                            work.push(self.compute(claims, bases).boxed());
                        }
                        leased.into_iter().for_each(|leased| work.push(self.wait(leased).boxed()));
                    }
                }
                match work.next().now_or_never().flatten() {
                    Some(next) => step = next,
                    None => break,
                }
            }
        }
    }

    /// Reads the ids that are not read yet, and takes the leases of those without a value.
    ///
    /// `patience`: what the batch has left. `None`: it has used up its looks.
    async fn look(&self, ids: Vec<usize>, patience: Option<Patience>, unserved: Option<Unserved>) -> Step {
        let (bases, read) = match unserved.and_then(|unserved| unserved.of(&ids)) {
            Some((bases, read)) => (bases, Some(read)),
            None => (self.bases(&ids), None),
        };
        let mut looked = Looked { bases, claims: Vec::new(), leased: Vec::new() };
        let is_unanswered = read.as_ref().is_some_and(|slots| slots.iter().all(Option::is_none));
        if let Some(patience) = patience.filter(|_| !is_unanswered)
            && let Err(error) = self.try_look(&ids, read, &mut looked, patience).await
        {
            ids.iter().for_each(|at| self.plan(*at).note(self.engine, HistoryEvent::StoreFailed(error.kind())));
            self.engine.store_failed(&error);
        }
        // Ids that the store could not answer are computed without storing.
        let Looked { claims, leased, .. } = &mut looked;
        let known: HashSet<usize> =
            claims.iter().map(|claim| claim.at).chain(leased.iter().map(|leased| leased.at)).collect();
        for (position, at) in ids.into_iter().enumerate() {
            if !known.contains(&at) && self.id(at).outcome.is_none() {
                claims.push(Claim { at, position, lease: None, old: None, beside: None });
            }
        }
        Step::Looked(looked)
    }

    fn serve_old(&self, at: usize, old: Erased, cause: StaleCause) {
        self.plan(at).observed(self.engine, HistoryEvent::StaleServed(cause));
        self.settle(at, FlightOutcome::Value(old));
    }

    /// Waits until the key changes or its lease must have ended.
    async fn wait(&self, Leased { at, left, beside }: Leased) -> Step {
        if !std::mem::replace(&mut self.id(at).waited, true) {
            self.plan(at).observed(self.engine, HistoryEvent::Waited);
        }
        let key = &self.plan(at).key.value_key;
        match self.engine.store.read_and_watch(key).await {
            Ok((slot, wake)) => {
                let is_refresh = self.plan(at).refresh;
                let left = match (&slot, beside) {
                    (Slot::Leased(left), _) => Some(*left),
                    (Slot::Unawaited(left), _) if is_refresh => Some(*left),
                    // The lease of a refresh is in the second key, and a watch on the record sees
                    // the replacement. The lease may have been released before the watch began. If
                    // that is unknown, the next read decides.
                    (Slot::Bytes(bytes), Some(fill_id))
                        if has_fill_id(bytes, fill_id)
                            && self.engine.leases.is_awaited_beside(key, is_refresh).await.unwrap_or(false) =>
                    {
                        Some(left)
                    }
                    _ => None,
                };
                if let Some(left) = left {
                    // A little longer: the server ends a lease when it next looks at the key, not
                    // on the millisecond.
                    let left = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)));
                    tokio::select! {
                        biased;
                        () = wake => {}
                        () = self.engine.clock.sleep(left.min(LONGEST_WAIT)) => {}
                    }
                }
            }
            // The next read fails too, and the id is then computed.
            Err(error) => self.engine.store_failed(&error),
        }
        Step::Changed(at)
    }
}

fn lock(id: &Mutex<Id>) -> MutexGuard<'_, Id> {
    id.lock().unwrap_or_else(PoisonError::into_inner)
}
