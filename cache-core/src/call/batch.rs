//! Partial-miss read-through of many ids: what [`read_through`](crate::call::read_through) does for one key, with one trip for all keys at each step.
//!
//! ```text
//! read all ─┬─ fresh records ─> their values: no run, no flight
//!           └─ else ─> a task: join the flights of these ids
//!                       ├─ led by others ─> wait for them (while the own ones go on)
//!                       └─ led here ─┬─ nothing ──────────> take all leases ─> run the function once ─> fill all
//!                                    ├─ somebody's lease ─> wait for each; those that come free are read again
//!                                    └─ no store ─────────> run the function
//! ```
//!
//! The function borrows from its caller, who runs it when the task asks for that.
//!
//! Invariant: nothing is held back while waiting. Leases are held only while the function runs and its values are stored; a flight that
//! is led here waits for the holder of a lease, who waits for nobody, and never for another flight. So batches that lead and follow
//! each other crosswise all come to an end.

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
use crate::coordination::lease::{Lease, Told};
use crate::coordination::single_flight::{Caller, Flight, FlightOutcome, Joined, Leader, Panic, Running};
use crate::engine::Engine;
use crate::observe::events::StaleCause;
use crate::observe::history::HistoryEvent;
use crate::options::SingleFlightScope;
use crate::store::{Slot, has_fill_id};
use crate::value::Erased;
use crate::value::return_type::{BatchReturn, Form as _, Optional, Parts};

/// How many keys are read, leased or stored at a time. A larger batch takes several rounds, and its
/// function is called once all the same. The store also cuts what it sends by bytes.
const MOST_AT_A_TIME: usize = 1000;
/// How many trips of single ids are under way at a time, where they cannot be put together.
const TRIPS_AT_A_TIME: usize = 32;
/// How long to wait at most for somebody else's lease before looking again, whatever its time left says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What one call of the function came to: value or error of each id it was asked for, in that order; or an error of all.
pub(crate) type Returned = Result<Vec<Result<Erased, Erased>>, Erased>;

/// The function, asked for ids by their positions.
pub(crate) type Function<'a> = dyn Fn(Vec<usize>) -> BoxFuture<'a, Returned> + Send + Sync + 'a;

/// What a call of the function comes to, if it does not panic.
type Run = Result<Returned, Panic>;

/// A run's end of the function, which its caller runs.
struct Calls(mpsc::UnboundedSender<Call>);

/// A call of the function that a run asks its caller for.
struct Call {
    ids: Vec<usize>,
    running: Arc<Running>,
    returned: oneshot::Sender<Run>,
}

impl Calls {
    /// `None`: its caller is gone.
    async fn call(&self, ids: Vec<usize>, running: Arc<Running>) -> Option<Run> {
        let (returned, awaited) = oneshot::channel();
        self.0.send(Call { ids, running, returned }).ok()?;
        awaited.await.ok()
    }
}

/// The landing of each plan, in their order. The plans are of one function, each of another key.
///
/// Dropped, its leases are given back, and those who wait for its flights lead them.
pub(crate) async fn run<'a>(engine: &Arc<Engine>, plans: &Arc<[Plan]>, function: &Function<'a>) -> Vec<FlightOutcome> {
    let caller = Caller::here();
    for plan in plans.iter() {
        caller.assert_not_inside(&plan.key.value_key, &plan.key.name);
    }
    let (probe, unserved) = {
        let batch = Batch { engine, plans, calls: None, caller: &caller, ids: ids(plans) };
        let unserved = batch.probe().await;
        (batch.landings(), unserved)
    };
    if unserved.ids.is_empty() {
        return probe.into_iter().map(|landing| landing.unwrap_or(FlightOutcome::Abandoned)).collect();
    }
    let open = unserved.ids.clone();
    let landed = run_unserved(engine, plans, unserved, &caller, function).await;
    let landed = match landed {
        Some(Ok(landed)) => landed,
        Some(Err(panic)) => plans.iter().map(|_| Some(FlightOutcome::Panicked(panic.clone()))).collect(),
        // Its runtime has ended, or there is none: what is left is computed for this caller alone.
        None => run_alone(plans, open, &caller, function).await,
    };
    let both = probe.into_iter().zip(landed);
    both.map(|(probe, landed)| probe.or(landed).unwrap_or(FlightOutcome::Abandoned)).collect()
}

/// In a task of its own, which asks for calls of the function. `None`: it ended without an outcome.
async fn run_unserved(
    engine: &Arc<Engine>,
    plans: &Arc<[Plan]>,
    unserved: Unserved,
    caller: &Caller,
    function: &Function<'_>,
) -> Option<Result<Vec<Option<FlightOutcome>>, Panic>> {
    let (calls, mut called) = mpsc::unbounded_channel();
    let (mut done, mut landed) = oneshot::channel();
    let (background, engine) = (Arc::clone(&engine.background), Arc::clone(engine));
    let (plans, caller) = (Arc::clone(plans), caller.clone());
    let task = async move {
        let run = async {
            let calls = Calls(calls);
            let batch =
                Batch { engine: &engine, plans: &plans, calls: Some(&calls), caller: &caller, ids: ids(&plans) };
            batch.run(unserved).await;
            batch.landings()
        };
        let landed = tokio::select! {
            biased;
            landed = AssertUnwindSafe(run).catch_unwind() => landed.map_err(Panic::new),
            () = done.closed() => return,
        };
        // An error says that its caller has gone.
        let _gone = done.send(landed);
    };
    background.run(task.boxed()).ok()?;
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            landed = &mut landed => return landed.ok(),
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
    let mut landed: Vec<Option<FlightOutcome>> = plans.iter().map(|_| None).collect();
    let Some(one) = plans.first() else { return landed };
    let keys = open.iter().filter_map(|at| Some(Arc::clone(&plans.get(*at)?.key.value_key)));
    let running = Running::new(&one.key.name, keys, [], caller);
    let returned = running.run(function(open.clone())).await;
    for (at, landing) in open.iter().zip(landings(returned, open.len())) {
        if let Some(place) = landed.get_mut(*at) {
            *place = Some(landing);
        }
    }
    landed
}

fn ids(plans: &[Plan]) -> Vec<Mutex<Id>> {
    plans.iter().map(|_| Mutex::default()).collect()
}

/// Of each of so many ids.
fn landings(run: Run, count: usize) -> Vec<FlightOutcome> {
    let all = |landing: FlightOutcome| std::iter::repeat_n(landing, count).collect();
    match run {
        Ok(Ok(each)) => {
            each.into_iter().map(|one| one.map_or_else(FlightOutcome::Failed, FlightOutcome::Value)).collect()
        }
        Ok(Err(error)) => all(FlightOutcome::Failed(error)),
        Err(panic) => all(FlightOutcome::Panicked(panic)),
    }
}

/// What the function returned of each of these, in their order. Of what it was not asked for, nothing is taken.
pub(crate) fn by_id<R, K, T, E>(wanted: Vec<K>, returned: R) -> Returned
where
    R: BatchReturn<Id = K, Value = T, Error = E>,
    K: Eq + Hash,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    let Parts { found, failed } = returned.split().map_err(|error| Arc::new(error) as Erased)?;
    let mut by_id: HashMap<K, Result<T, E>> = found.into_iter().map(|(id, value)| (id, Ok(value))).collect();
    // Both found and failed: nobody knows.
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
    /// `None`: it only reads.
    calls: Option<&'a Calls>,
    caller: &'a Caller,
    ids: Vec<Mutex<Id>>,
}

/// What has become of one id.
#[derive(Default)]
struct Id {
    /// While others may follow.
    leader: Option<Leader>,
    landing: Option<FlightOutcome>,
    /// For another process, and was counted.
    waited: bool,
}

/// What is to be done next.
enum Step {
    /// Ids were looked for.
    Looked(Looked),
    /// This one is to be looked for again.
    Changed(usize),
    /// Ids have landed.
    Landed,
}

/// What looking came to, for the ids that have not landed.
struct Looked {
    bases: Bases,
    /// To be computed.
    claims: Vec<Claim>,
    /// Somebody else computes them.
    leased: Vec<Leased>,
}

/// An id to be computed.
struct Claim {
    at: usize,
    /// Where its basis is.
    position: usize,
    /// `None`: its value is its callers' alone.
    lease: Option<Lease>,
    /// What there is if the function fails.
    old: Option<Erased>,
    /// Whose record has this fill id.
    beside: Option<u64>,
}

/// An id that somebody else computes.
struct Leased {
    at: usize,
    left: Option<Duration>,
    /// The lease is beside the record with this fill id.
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

    /// Lands all of these ids.
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
                        followed.push(async move { (at, flight.landed(self.caller, &self.plan(at).key.name).await) })
                    }
                }
            }
            // Side by side: neither waits for the other.
            let ((), landed) = tokio::join!(self.lead(own, unserved.take()), join_all(followed));
            for (at, landing) in landed {
                match landing {
                    // Its caller is gone: the next round leads it, or follows who does.
                    FlightOutcome::Abandoned => open.push(at),
                    landing => self.settle(at, landing),
                }
            }
        }
    }

    fn landings(self) -> Vec<Option<FlightOutcome>> {
        self.ids.into_iter().map(|id| lock(&id).landing.take()).collect()
    }

    /// Whether this id's run is shared with other callers. A refresh is not served what began before it.
    fn shares(&self, at: usize) -> bool {
        let plan = self.plan(at);
        plan.rules.options.single_flight != SingleFlightScope::None && !plan.refresh
    }

    /// Leads the flight of this id, if nobody does.
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

    fn settle(&self, at: usize, landing: FlightOutcome) {
        let mut id = self.id(at);
        let leader = id.leader.take();
        id.landing = Some(landing.clone());
        drop(id);
        leader.into_iter().for_each(|leader| leader.complete(landing.clone()));
    }

    /// What the run returns for this id was not invalidated before this moment on the boot clock.
    fn seen(&self, at: usize, when: u64) {
        if let Some(leader) = &self.id(at).leader {
            leader.seen(when);
        }
    }

    fn tell(&self, at: usize, told: Told) {
        match told {
            Told::Stood(when) => self.seen(at, when),
            Told::Lost => self.detach(at),
        }
    }

    /// Callers of this id that come after this start anew.
    fn detach(&self, at: usize) {
        if let Some(leader) = &self.id(at).leader {
            leader.detach();
        }
    }

    /// Lands all of these.
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
            // All that has happened at the same time: what came free together is read together.
            loop {
                match step {
                    Step::Landed => {}
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

    /// Reads what is not read yet, and takes the leases of what is not there. `patience`: what is left of it.
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
        // Whatever the store could not tell of is computed for the callers alone.
        let Looked { claims, leased, .. } = &mut looked;
        let known: HashSet<usize> =
            claims.iter().map(|claim| claim.at).chain(leased.iter().map(|leased| leased.at)).collect();
        for (position, at) in ids.into_iter().enumerate() {
            if !known.contains(&at) && self.id(at).landing.is_none() {
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
                    // The lease of a refresh stands in the second key: the record itself tells when it is replaced.
                    // It may have been given back before the watching began. Where nobody can tell, reading does.
                    (Slot::Bytes(bytes), Some(fill_id))
                        if has_fill_id(bytes, fill_id)
                            && self.engine.leases.is_awaited_beside(key, is_refresh).await.unwrap_or(false) =>
                    {
                        Some(left)
                    }
                    _ => None,
                };
                if let Some(left) = left {
                    // A little over: the server ends a lease when it next looks at the key, not on the millisecond.
                    let left = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)));
                    tokio::select! {
                        biased;
                        () = wake => {}
                        () = self.engine.clock.sleep(left.min(LONGEST_WAIT)) => {}
                    }
                }
            }
            // What reads next finds it too, and computes.
            Err(error) => self.engine.store_failed(&error),
        }
        Step::Changed(at)
    }
}

fn lock(id: &Mutex<Id>) -> MutexGuard<'_, Id> {
    id.lock().unwrap_or_else(PoisonError::into_inner)
}
