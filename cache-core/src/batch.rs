//! Partial-miss read-through of many ids: what [`read_through`](crate::read_through) does for one key, with one trip for all keys at each step.
//!
//! ```text
//! join the flights of all ids ─┬─ led by others ─> wait for them (while the own ones go on)
//!                              └─ led here ─> read all ─┬─ records ──────────> their values
//!                                                       ├─ nothing ──────────> take all leases ─> run the function once ─> fill all
//!                                                       ├─ somebody's lease ─> wait for each; those that come free are read again
//!                                                       └─ no store ─────────> run the function
//! ```
//!
//! Invariant: nothing is held back while waiting. Leases are held only while the function runs and its values are stored; a flight that
//! is led here waits for the holder of a lease, who waits for nobody, and never for another flight. So batches that lead and follow
//! each other crosswise all come to an end.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};

use crate::cache::Inner;
use crate::envelope::Envelope;
use crate::error::{DeadlineExceeded, Result};
use crate::events::{Event, StaleCause, bump};
use crate::lease::{Lease, Obstacle};
use crate::local::Mark;
use crate::options::{FlightScope, LocalTier};
use crate::read_through::{
    Fallback, Old, Plan, Storable, Stored, give_up, judge, leave_alone, lifetime_for, storable, unseen, within,
};
use crate::shape::Erased;
use crate::single_flight::{self, Joined, Landing, Lead, Panic};
use crate::store::{Filled, Place, Slot, THROTTLE_MARK, has_fill_id, lease_key};
use crate::tag::{Agreement, Basis};

/// How many keys go to the store in one trip. The server runs an MGET of so many in about a millisecond, in which it answers nobody else;
/// a larger batch takes several trips, and its function is called once all the same.
const MOST_IN_A_TRIP: usize = 1000;
/// How often keys may change hands under a batch before it computes them for itself.
const MAX_ROUNDS: usize = 1000;
/// How long to wait at most for somebody else's lease before looking again, whatever its time left says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What one call of the function came to: value or error of each id it was asked for, in that order; or an error of all.
pub(crate) type Returned = std::result::Result<Vec<std::result::Result<Erased, Erased>>, Erased>;

/// The function, asked for ids by their positions.
pub(crate) type Function<'a> = dyn Fn(Vec<usize>) -> BoxFuture<'a, Returned> + Send + Sync + 'a;

/// The landing of each plan, in their order. The plans are of one function, each of another key.
///
/// Dropped, its leases are given back, and those who wait for its flights lead them.
pub(crate) async fn run<'a>(inner: &'a Arc<Inner>, plans: &'a [Plan], function: &'a Function<'a>) -> Vec<Landing> {
    let batch = Batch { inner, plans, function, ids: plans.iter().map(|_| Mutex::default()).collect() };
    let mut open: Vec<usize> = (0..plans.len()).collect();
    while !open.is_empty() {
        let mut own = Vec::new();
        let mut followed = Vec::new();
        for at in open.drain(..) {
            match batch.join(at) {
                None => own.push(at),
                Some(flight) => followed.push(async move { (at, flight.await) }),
            }
        }
        // Side by side: neither waits for the other.
        let ((), landed) = tokio::join!(batch.lead(own), join_all(followed));
        for (at, landing) in landed {
            match landing {
                // Its caller is gone: the next round leads it, or follows who does.
                Landing::Abandoned => open.push(at),
                landing => batch.settle(at, landing),
            }
        }
    }
    batch.ids.into_iter().map(|id| lock(&id).landing.take().unwrap_or(Landing::Abandoned)).collect()
}

struct Batch<'a> {
    inner: &'a Arc<Inner>,
    plans: &'a [Plan],
    function: &'a Function<'a>,
    ids: Vec<Mutex<Id>>,
}

/// What has become of one id.
#[derive(Default)]
struct Id {
    /// While others may follow.
    duty: Option<Lead>,
    landing: Option<Landing>,
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
}

/// An id that somebody else computes.
struct Leased {
    at: usize,
    left: Option<Duration>,
    /// The lease is beside the record with this fill id.
    beside: Option<u64>,
}

/// An id with what stands under its key.
struct Read<'a> {
    position: usize,
    slot: Slot,
    mark: Option<Mark<'a>>,
}

/// An id that has no value to return.
struct Wanted {
    position: usize,
    place: Place,
    /// The record that the lease is to replace.
    slot: Slot,
    old: Option<Erased>,
}

/// The versions that ids go by: one for all, or one each if their tags differ.
struct Bases(Vec<Basis>);

impl Bases {
    fn of(&self, position: usize) -> Option<&Basis> {
        match self.0.as_slice() {
            [shared] => Some(shared),
            all => all.get(position),
        }
    }

    fn of_all(&mut self, positions: Range<usize>) -> &mut [Basis] {
        match self.0.as_mut_slice() {
            shared @ [_] => shared,
            all => all.get_mut(positions).unwrap_or_default(),
        }
    }
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

    /// Takes the duty to land this id, if nobody has it.
    fn join(&self, at: usize) -> Option<impl Future<Output = Landing> + use<>> {
        let Plan { key, value, rules, .. } = self.plan(at);
        single_flight::assert_not_inside(&key.value_key, &key.name);
        if rules.options.flight == FlightScope::None {
            return None;
        }
        match self.inner.flights.join(&key.value_key, (value.type_id)()) {
            Joined::Follow(flight) => {
                bump(&self.inner.events.count().joined);
                Some(flight)
            }
            Joined::Lead(duty) => {
                self.id(at).duty = Some(duty);
                None
            }
        }
    }

    fn settle(&self, at: usize, landing: Landing) {
        let mut id = self.id(at);
        let duty = id.duty.take();
        id.landing = Some(landing.clone());
        drop(id);
        duty.into_iter().for_each(|duty| duty.land(landing.clone()));
    }

    /// Lands all of these.
    async fn lead(&self, own: Vec<usize>) {
        let mut work: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
        let mut rounds = 0_usize;
        let mut open = own;
        loop {
            if !open.is_empty() {
                rounds = rounds.saturating_add(1);
                work.push(self.look(std::mem::take(&mut open), rounds).boxed());
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

    /// Reads, and takes the leases of what is not there.
    async fn look(&self, ids: Vec<usize>, rounds: usize) -> Step {
        let mut looked = Looked { bases: self.bases(&ids), claims: Vec::new(), leased: Vec::new() };
        if rounds <= MAX_ROUNDS
            && let Err(error) = self.try_look(&ids, &mut looked).await
        {
            self.inner.store_failed(&error);
        }
        // Whatever the store could not tell of is computed for the callers alone.
        let Looked { claims, leased, .. } = &mut looked;
        let known: HashSet<usize> =
            claims.iter().map(|claim| claim.at).chain(leased.iter().map(|leased| leased.at)).collect();
        for (position, at) in ids.into_iter().enumerate() {
            if !known.contains(&at) && self.id(at).landing.is_none() {
                claims.push(Claim { at, position, lease: None, old: None });
            }
        }
        Step::Looked(looked)
    }

    fn bases(&self, ids: &[usize]) -> Bases {
        let plans = || ids.iter().map(|at| self.plan(*at));
        let basis = |plan: &Plan| Basis::new(self.inner, &plan.key.name, Some(&plan.rules));
        let first = plans().next();
        match first.filter(|first| plans().all(|plan| Arc::ptr_eq(&plan.rules, &first.rules))) {
            Some(first) => Bases(vec![basis(first)]),
            None => Bases(plans().map(basis).collect()),
        }
    }

    async fn try_look(&self, ids: &[usize], looked: &mut Looked) -> Result<()> {
        let mut read = self.read(ids, &mut looked.bases).await?;
        for _ in 0..MAX_ROUNDS {
            let wanted = self.sort(ids, read, looked).await?;
            if wanted.is_empty() {
                return Ok(());
            }
            read = self.acquire(ids, wanted, looked).await?;
        }
        Ok(())
    }

    async fn read(&self, ids: &[usize], bases: &mut Bases) -> Result<Vec<Read<'a>>> {
        let mut read = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(MOST_IN_A_TRIP) {
            let plans: Vec<&Plan> = chunk.iter().map(|at| self.plan(*at)).collect();
            let keys: Vec<Arc<str>> = plans.iter().map(|plan| Arc::clone(&plan.key.value_key)).collect();
            // Before the read is sent.
            let mark = |plan: &&Plan| {
                let local = self.inner.local.as_ref().filter(|_| plan.local != LocalTier::Off);
                local.map(|local| local.begin(&plan.key.value_key))
            };
            let marks: Vec<Option<Mark<'a>>> = plans.iter().map(mark).collect();
            let track = marks.iter().any(Option::is_some);
            let start = read.len();
            let positions = start..start.saturating_add(chunk.len());
            let (slots, tracked) = Basis::read_many(self.inner, bases.of_all(positions.clone()), &keys, track).await?;
            let all = positions.zip(slots).zip(marks);
            read.extend(all.map(|((position, slot), mark)| Read { position, slot, mark: mark.filter(|_| tracked) }));
        }
        Ok(read)
    }

    /// Lands the ids that have a value to return; those that are to be computed, if nobody else does.
    async fn sort(&self, ids: &[usize], read: Vec<Read<'a>>, looked: &mut Looked) -> Result<Vec<Wanted>> {
        let Looked { bases, claims, leased } = looked;
        let opened: Vec<_> = read.iter().map(|Read { position, slot, .. }| self.open(ids, *position, slot)).collect();
        let records = read.iter().zip(&opened).filter_map(|(read, opened)| {
            let (envelope, _) = opened.as_ref()?.as_ref().ok()?;
            Some((bases.of(read.position)?, envelope))
        });
        let mut agreements = Basis::agree_all(self.inner, &records.collect::<Vec<_>>()).await?.into_iter();
        let mut wanted = Vec::new();
        for (Read { position, slot, mark }, opened) in read.into_iter().zip(opened) {
            let Some(&at) = ids.get(position) else { continue };
            let plan = self.plan(at);
            let agreement = if let Some(Ok(_)) = &opened { agreements.next() } else { None };
            let mut want = |place, slot, old| wanted.push(Wanted { position, place, slot, old });
            let mut uncached = || claims.push(Claim { at, position, lease: None, old: None });
            if !bases.of(position).is_some_and(Basis::is_complete) {
                uncached();
                continue;
            }
            let foreign = match slot {
                Slot::Absent => {
                    want(Place::Empty, slot, None);
                    continue;
                }
                // What is computed here may be older than the write that the fence is for (R22).
                Slot::Fenced => {
                    uncached();
                    continue;
                }
                Slot::Leased(_) if plan.rules.options.flight != FlightScope::Cluster => {
                    uncached();
                    continue;
                }
                Slot::Leased(left) => {
                    leased.push(Leased { at, left, beside: None });
                    continue;
                }
                Slot::WrongType => "the key holds a value of another type",
                Slot::Bytes(ref bytes) => match (opened, agreement) {
                    (Some(Err(reason)), _) => reason,
                    (Some(Ok((envelope, payload_at))), Some(Agreement::Yes(under))) => {
                        let payload = bytes.get(payload_at..).unwrap_or_default();
                        match judge(self.inner, plan, &envelope, payload, under) {
                            Stored::Value(served) => {
                                if let Some((mark, under)) = mark.zip(served.under) {
                                    let service = served.serving.service(plan.local);
                                    mark.keep(&served.value, served.payload_bytes, service, under);
                                }
                                bump(&self.inner.events.count().hits);
                                self.settle(at, Landing::Value(served.value));
                                continue;
                            }
                            Stored::Old(Old { fill_id, value }) => {
                                match self.resting(plan, fill_id).zip(value.as_ref()) {
                                    Some((cause, old)) => self.serve_old(at, Arc::clone(old), cause),
                                    None => want(Place::Beside(fill_id), slot, value),
                                }
                                continue;
                            }
                            Stored::Invalid(fill_id) => {
                                want(Place::Instead(fill_id), slot, None);
                                continue;
                            }
                            Stored::Foreign(reason) => reason,
                        }
                    }
                    (Some(Ok((envelope, _))), _) => {
                        want(Place::Instead(envelope.fill_id), slot, None);
                        continue;
                    }
                    (None, _) => continue,
                },
            };
            self.inner.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason: foreign });
            self.inner.store.discard(&plan.key.value_key, &slot).await?;
            want(Place::Empty, Slot::Absent, None);
        }
        Ok(wanted)
    }

    fn open(
        &self,
        ids: &[usize],
        position: usize,
        slot: &Slot,
    ) -> Option<std::result::Result<(Envelope, usize), &'static str>> {
        let Slot::Bytes(bytes) = slot else { return None };
        Some(Envelope::open(bytes, &self.plan(*ids.get(position)?).key.value_key))
    }

    fn resting(&self, plan: &Plan, fill_id: u64) -> Option<StaleCause> {
        self.inner.refreshes.resting(&plan.key.value_key, fill_id, self.inner.clock.coarse())
    }

    fn serve_old(&self, at: usize, old: Erased, cause: StaleCause) {
        self.inner.events.emit(Event::StaleServed { name: Arc::clone(&self.plan(at).key.name), cause });
        self.settle(at, Landing::Value(old));
    }

    /// Takes the leases; what stands in their way is to be sorted again.
    async fn acquire(&self, ids: &[usize], wanted: Vec<Wanted>, looked: &mut Looked) -> Result<Vec<Read<'a>>> {
        let at_of = |wanted: &Wanted| ids.get(wanted.position).copied();
        if let Some(first) = wanted.first().and_then(at_of) {
            self.inner.builds.register(self.inner, &self.plan(first).key).await?;
        }
        let mut again = Vec::new();
        let mut wanted = wanted.into_iter();
        loop {
            let chunk: Vec<(usize, Wanted)> =
                wanted.by_ref().take(MOST_IN_A_TRIP).filter_map(|wanted| Some((at_of(&wanted)?, wanted))).collect();
            if chunk.is_empty() {
                return Ok(again);
            }
            let places: Vec<_> = chunk.iter().map(|(at, wanted)| (&self.plan(*at).key, wanted.place)).collect();
            let answers = Lease::acquire_many(self.inner, &places).await?;
            for ((at, Wanted { position, place, slot, old }), answer) in chunk.into_iter().zip(answers) {
                let beside = if let Place::Beside(fill_id) = place { Some(fill_id) } else { None };
                match answer {
                    Ok(Ok(lease)) => looked.claims.push(Claim { at, position, lease: Some(lease), old }),
                    // Somebody else refreshes it.
                    Ok(Err(Obstacle::Slot(Slot::Leased(left)))) if beside.is_some() => {
                        looked.leased.push(Leased { at, left, beside });
                    }
                    Ok(Err(Obstacle::Slot(slot))) => again.push(Read { position, slot, mark: None }),
                    Ok(Err(Obstacle::Throttle(left))) => match old {
                        Some(old) => {
                            leave_alone(self.inner, self.plan(at), beside.unwrap_or_default(), left);
                            self.serve_old(at, old, StaleCause::Throttled);
                        }
                        // Whoever has nothing to serve meanwhile is not held up by another's failure.
                        None => {
                            let throttle = Slot::Bytes(THROTTLE_MARK.into());
                            let key = lease_key(&self.plan(at).key.value_key);
                            self.inner.store.discard(&key, &throttle).await?;
                            again.push(Read { position, slot, mark: None });
                        }
                    },
                    Err(error) => {
                        self.inner.store_failed(&error);
                        looked.claims.push(Claim { at, position, lease: None, old: None });
                    }
                }
            }
        }
    }

    /// Waits until the key changes or its lease must have ended.
    async fn wait(&self, Leased { at, left, beside }: Leased) -> Step {
        bump(&self.inner.events.count().waited);
        match self.inner.store.read_and_watch(&self.plan(at).key.value_key).await {
            Ok((slot, wake)) => {
                let left = match (&slot, beside) {
                    (Slot::Leased(left), _) => Some(*left),
                    // The lease of a refresh stands in the second key: the record itself tells when it is replaced.
                    (Slot::Bytes(bytes), Some(fill_id)) if has_fill_id(bytes, fill_id) => Some(left),
                    _ => None,
                };
                if let Some(left) = left {
                    // A little over: the server ends a lease when it next looks at the key, not on the millisecond.
                    let left = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)));
                    tokio::select! {
                        biased;
                        () = wake => {}
                        () = self.inner.clock.sleep(left.min(LONGEST_WAIT)) => {}
                    }
                }
            }
            // What reads next finds it too, and computes.
            Err(error) => self.inner.store_failed(&error),
        }
        Step::Changed(at)
    }

    /// Runs the function for these, stores what it returns, gives the other leases back, and lands them.
    async fn compute(&self, mut claims: Vec<Claim>, bases: Bases) -> Step {
        claims.sort_unstable_by_key(|claim| claim.at);
        let (inner, counters) = (self.inner, self.inner.events.count());
        claims.iter().for_each(|_| bump(&counters.misses));
        bump(&counters.computes);
        let ids: Vec<usize> = claims.iter().map(|claim| claim.at).collect();
        let key = |at: &usize| Arc::clone(&self.plan(*at).key.value_key);
        let unleased: Vec<Arc<str>> =
            claims.iter().filter(|claim| claim.lease.is_none()).map(|claim| key(&claim.at)).collect();
        let (leased, leases): (Vec<usize>, Vec<Lease>) =
            claims.iter_mut().enumerate().filter_map(|(index, claim)| Some((index, claim.lease.take()?))).unzip();
        let (started, deadline) = (inner.clock.start(), ids.first().and_then(|at| self.deadline(*at)));
        let function = (self.function)(ids.clone());
        let mut run = Box::pin(single_flight::run_all(ids.iter().map(key).collect(), function));
        let returned = {
            let kept = Lease::keep_all(inner, &leases, async {
                if unleased.is_empty() { run.as_mut().await } else { unseen(inner, &unleased, run.as_mut()).await }
            });
            // Dropped here: the leases are given back in the background, and those who wait take over.
            within(inner, deadline, kept).await
        };
        let cost = started.elapsed();
        for (index, lease) in leased.into_iter().zip(leases) {
            if let Some(claim) = claims.get_mut(index) {
                claim.lease = Some(lease);
            }
        }
        let Some(returned) = returned else {
            self.pass_deadline(claims, &bases, deadline.unwrap_or_default(), run).await;
            return Step::Landed;
        };
        let (mut values, mut failures) = (Vec::new(), Vec::new());
        for (claim, landing) in claims.into_iter().zip(landings(returned, ids.len())) {
            match landing {
                Landing::Value(value) => values.push((claim, value)),
                landing => failures.push((claim, landing)),
            }
        }
        if !failures.is_empty() {
            bump(&counters.compute_errors);
        }
        tokio::join!(self.store(values, &bases, cost), self.fail(failures, &bases, StaleCause::Failed));
        Step::Landed
    }

    fn deadline(&self, at: usize) -> Option<Duration> {
        self.plan(at).terms(self.inner).deadline
    }

    /// Stores the values, then lands them.
    async fn store(&self, mut values: Vec<(Claim, Erased)>, bases: &Bases, cost: Duration) {
        let (mut unstored, mut fills) = (Vec::new(), Vec::new());
        let prepared = values.iter_mut().filter_map(|(claim, value)| {
            let (lease, basis) = (claim.lease.take()?, bases.of(claim.position)?);
            let (at, value) = (claim.at, Arc::clone(value));
            Some(async move {
                let plan = self.plan(at);
                let storable = match lifetime_for(self.inner, plan, &value) {
                    Some(lifetime) => storable(self.inner, plan, basis, &value, lifetime, cost).await,
                    None => Ok(None),
                };
                (at, value, lease, storable)
            })
        });
        for (at, value, lease, storable) in join_all(prepared).await {
            match storable {
                Ok(Some(storable)) => fills.push((at, value, lease, storable)),
                Ok(None) => unstored.push(lease),
                Err(error) => {
                    self.inner.store_failed(&error);
                    unstored.push(lease);
                }
            }
        }
        let mut fills = fills.into_iter().peekable();
        while fills.peek().is_some() {
            self.fill(fills.by_ref().take(MOST_IN_A_TRIP).collect()).await;
        }
        self.release(unstored).await;
        for (claim, value) in values {
            self.settle(claim.at, Landing::Value(value));
        }
    }

    /// One trip.
    async fn fill(&self, fills: Vec<(usize, Erased, Lease, Storable)>) {
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        for (at, value, lease, Storable { record, expiry, kept_by }) in fills {
            let plan = self.plan(at);
            let local = self.inner.local.as_ref().filter(|_| plan.local != LocalTier::Off);
            let mark = local.map(|local| local.begin(&plan.key.value_key));
            kept.push((plan, value, mark.zip(kept_by), record.len()));
            records.push((lease, record, expiry));
        }
        let filled = match Lease::fill_many(self.inner, records).await {
            Ok(filled) => filled,
            Err(error) => return self.inner.store_failed(&error),
        };
        for ((plan, value, kept_by, bytes), filled) in kept.into_iter().zip(filled) {
            match filled {
                Ok(Filled::Refused) => {
                    self.inner.events.emit(Event::FillRefused { name: Arc::clone(&plan.key.name) });
                    continue;
                }
                Ok(Filled::Stored) => {}
                Ok(Filled::Tracked) => {
                    if let Some((mark, (serving, under))) = kept_by {
                        mark.keep(&value, bytes, serving.service(plan.local), under);
                    }
                }
                Err(error) => {
                    self.inner.store_failed(&error);
                    continue;
                }
            }
            bump(&self.inner.events.count().fills);
        }
    }

    /// Gives the leases back, then lands what there is instead: an old value that still stands, or the failure. What is left without either
    /// is not landed.
    async fn fail(&self, failures: Vec<(Claim, Landing)>, bases: &Bases, cause: StaleCause) {
        let (mut leases, mut failed, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for (Claim { at, position, lease, old: value }, landing) in failures {
            match (value, landing) {
                (Some(value), landing @ (Landing::Failed(_) | Landing::Abandoned)) => old.push(async move {
                    let fallback = Fallback::Old(Arc::clone(&value));
                    // Not what an invalidation has ended meanwhile (R17).
                    let stands = give_up(self.inner, self.plan(at), lease, &fallback).await
                        && match bases.of(position) {
                            Some(basis) => basis.stands(self.inner).await,
                            None => false,
                        };
                    match landing {
                        _ if stands => self.serve_old(at, value, cause),
                        Landing::Abandoned => {}
                        landing => self.settle(at, landing),
                    }
                }),
                (_, landing) => {
                    leases.extend(lease);
                    failed.push((at, landing));
                }
            }
        }
        let released = async {
            self.release(leases).await;
            let failed = failed.into_iter().filter(|(_, landing)| !matches!(landing, Landing::Abandoned));
            failed.for_each(|(at, landing)| self.settle(at, landing));
        };
        tokio::join!(released, join_all(old));
    }

    /// The keys are free, and nothing that the run comes to is stored.
    async fn pass_deadline(
        &self,
        claims: Vec<Claim>,
        bases: &Bases,
        deadline: Duration,
        run: impl Future<Output = Run>,
    ) {
        let ids: Vec<usize> = claims.iter().map(|claim| claim.at).collect();
        let Some(plan) = ids.first().map(|at| self.plan(*at)) else { return };
        self.inner.events.emit(Event::DeadlinePassed { name: Arc::clone(&plan.key.name) });
        bump(&self.inner.events.count().compute_errors);
        let landing = match plan.overdue {
            Some(overdue) => Landing::Failed(overdue(DeadlineExceeded::new(deadline))),
            None => Landing::Abandoned,
        };
        let failures = claims.into_iter().map(|claim| (claim, landing.clone())).collect();
        self.fail(failures, bases, StaleCause::DeadlinePassed).await;
        // Its caller cannot be told: the run goes on for it. Those who wait take over.
        let left: Vec<bool> = ids.iter().map(|at| self.id(*at).landing.is_none()).collect();
        if !left.contains(&true) {
            return;
        }
        for (at, _) in ids.iter().zip(&left).filter(|(_, left)| **left) {
            let duty = self.id(*at).duty.take();
            duty.into_iter().for_each(|duty| duty.land(Landing::Abandoned));
            self.inner.flights.detach(&self.plan(*at).key.value_key);
        }
        let landed = landings(run.await, ids.len());
        for ((at, landing), _) in ids.into_iter().zip(landed).zip(left).filter(|(_, left)| *left) {
            self.settle(at, landing);
        }
    }

    async fn release(&self, leases: Vec<Lease>) {
        let mut leases = leases.into_iter().peekable();
        while leases.peek().is_some() {
            let chunk = leases.by_ref().take(MOST_IN_A_TRIP).collect();
            if let Err(error) = Lease::release_many(self.inner, chunk).await {
                self.inner.store_failed(&error);
            }
        }
    }
}

/// What a call of the function comes to, if it does not panic.
type Run = std::result::Result<Returned, Panic>;

/// Of each of so many ids.
fn landings(run: Run, count: usize) -> Vec<Landing> {
    let all = |landing: Landing| std::iter::repeat_n(landing, count).collect();
    match run {
        Ok(Ok(each)) => each.into_iter().map(|one| one.map_or_else(Landing::Failed, Landing::Value)).collect(),
        Ok(Err(error)) => all(Landing::Failed(error)),
        Err(panic) => all(Landing::Panicked(panic)),
    }
}

fn lock(id: &Mutex<Id>) -> MutexGuard<'_, Id> {
    id.lock().unwrap_or_else(PoisonError::into_inner)
}
