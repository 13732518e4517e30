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

mod compute;
mod look;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};

use self::look::Bases;
use crate::cache::Inner;
use crate::events::{StaleCause, bump};
use crate::history::What;
use crate::lease::Lease;
use crate::options::FlightScope;
use crate::read_through::Plan;
use crate::shape::{BatchReturn, Erased, Form as _, Optional, Parts};
use crate::single_flight::{self, Joined, Landing, Lead};
use crate::store::{Slot, has_fill_id};

/// How many keys go to the store in one trip. The server runs an MGET of so many in about a millisecond, in which it answers nobody else;
/// a larger batch takes several trips, and its function is called once all the same.
const MOST_IN_A_TRIP: usize = 1000;
/// How often keys may change hands under a batch before it computes them for itself.
const MAX_ROUNDS: usize = 1000;
/// How long to wait at most for somebody else's lease before looking again, whatever its time left says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What one call of the function came to: value or error of each id it was asked for, in that order; or an error of all.
pub(crate) type Returned = Result<Vec<Result<Erased, Erased>>, Erased>;

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

    /// Takes the duty to land this id, if nobody has it.
    fn join(&self, at: usize) -> Option<impl Future<Output = Landing> + use<>> {
        let Plan { key, value, rules, .. } = self.plan(at);
        single_flight::assert_not_inside(&key.value_key, &key.name);
        // A refresh is not served what began before it.
        if rules.options.flight == FlightScope::None || self.plan(at).refresh {
            return None;
        }
        match self.inner.flights.join(&key.value_key, (value.type_id)()) {
            Joined::Follow(flight) => {
                bump(&self.inner.events.count().joined);
                self.plan(at).count(self.inner, |own| &own.joined);
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
            ids.iter().for_each(|at| self.plan(*at).note(self.inner, What::StoreFailed(error.kind())));
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

    fn serve_old(&self, at: usize, old: Erased, cause: StaleCause) {
        self.plan(at).stale_served(self.inner, cause);
        self.settle(at, Landing::Value(old));
    }

    /// Waits until the key changes or its lease must have ended.
    async fn wait(&self, Leased { at, left, beside }: Leased) -> Step {
        if !std::mem::replace(&mut self.id(at).waited, true) {
            bump(&self.inner.events.count().waited);
            self.plan(at).count(self.inner, |own| &own.waited);
            self.plan(at).note(self.inner, What::Waited);
        }
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
}

fn lock(id: &Mutex<Id>) -> MutexGuard<'_, Id> {
    id.lock().unwrap_or_else(PoisonError::into_inner)
}
