//! The pipeline after a miss, top to bottom.
//!
//! ```text
//! share the run in this process ─> read ── a record ──────────────────────────> its value
//!                                   ├───── one past its time ─> serve it and refresh, or run the function and fall back on it
//!                                   ├───── nothing ─────> take the lease ──> run the function ──> fill
//!                                   ├───── a lease ─────> wait for the push or its end, read again
//!                                   └───── no store ────> run the function
//! ```
//!
//! Invariant: a fault of the store never reaches the caller, and a computed value always does.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

mod fill;
mod old;
mod run;

pub(crate) use self::fill::{Sealed, Storable, lifetime_for, storable, try_seal};
pub(crate) use self::run::{Fallback, give_up, leave_alone, refresh_behind, refresh_here, unseen, within};
use self::run::{run_at_most, run_under};
use crate::cache::Inner;
use crate::clock::Stopwatch;
use crate::entry::EntryKey;
use crate::envelope::Envelope;
use crate::error::{DeadlineExceeded, Error, ErrorKind, Result};
use crate::events::{Event, StaleCause, bump};
use crate::function_stats::{FunctionCounters, FunctionNumber};
use crate::history::{Refusal, Scope, What};
use crate::lease::{Lease, Obstacle};
use crate::local::Mark;
use crate::options::{FlightScope, LocalTier};
use crate::refresh::{Serving, Terms};
use crate::shape::{Erased, Rules, ValueType};
use crate::single_flight::{self, Joined, Landing};
use crate::store::{Over, Slot, THROTTLE_MARK, lease_key};
use crate::tag::{Agreement, Basis};
use crate::versions::Dependencies;

/// How long to wait at most for somebody else's lease before looking again, whatever its time left says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often a key may change hands under a caller before it computes for itself.
const MAX_ROUNDS: usize = 1000;

/// One call: what is asked for, and by which rules.
pub(crate) struct Plan {
    pub(crate) key: EntryKey,
    pub(crate) value: ValueType,
    pub(crate) rules: Arc<Rules>,
    pub(crate) local: LocalTier,
    /// Run the function even if a value stands, and replace it.
    pub(crate) refresh: bool,
    /// Makes the function's own error of a passed deadline, if there is a way.
    pub(crate) overdue: Option<fn(DeadlineExceeded) -> Erased>,
    /// Where the function looks for the value that it may keep.
    pub(crate) old: Option<Arc<OldValue>>,
    /// The function's future owns what it needs, and may go on without its caller.
    pub(crate) owned: bool,
    /// Where the function is counted, once that was asked.
    pub(crate) number: OnceLock<FunctionNumber>,
}

impl Plan {
    pub(crate) fn new(key: EntryKey, value: ValueType, rules: Arc<Rules>, local: LocalTier) -> Self {
        Self {
            key,
            value,
            rules,
            local,
            refresh: false,
            overdue: None,
            old: None,
            owned: false,
            number: OnceLock::new(),
        }
    }

    /// Adds one to a counter of the function.
    pub(crate) fn count(&self, inner: &Inner, counter: impl FnOnce(&FunctionCounters) -> &AtomicU64) {
        let number = *self.number.get_or_init(|| FunctionNumber::by_hand(&self.key.name));
        if let Some(counters) = inner.functions.of(number) {
            bump(counter(counters));
        }
    }

    /// Tells that a value was not stored.
    pub(crate) fn fill_refused(&self, inner: &Inner, why: Refusal) {
        self.note(inner, What::FillRefused(why));
        self.count(inner, |own| &own.refused_fills);
        inner.events.emit(Event::FillRefused { name: Arc::clone(&self.key.name) });
    }

    pub(crate) fn note(&self, inner: &Inner, what: What) {
        inner.history.note(&self.key.value_key, what);
    }

    pub(crate) fn stale_served(&self, inner: &Inner, cause: StaleCause) {
        self.note(inner, What::StaleServed(cause));
        self.count(inner, |own| &own.stale);
        inner.events.emit(Event::StaleServed { name: Arc::clone(&self.key.name), cause });
    }

    pub(crate) fn terms(&self, inner: &Inner) -> Terms {
        Terms::new(inner, &self.rules.options, self.owned)
    }
}

/// The value past its time that a function is given before it runs. It returns this very value to keep it.
pub(crate) type OldValue = Mutex<Option<Erased>>;

/// The function's run: its value or its error, types erased.
pub(crate) type Function<'a> = BoxFuture<'a, Result<Erased, Erased>>;

/// For a function that borrows from its caller.
pub(crate) async fn run_here(inner: &Arc<Inner>, plan: &Plan, function: Function<'_>) -> Landing {
    single_flight::assert_not_inside(&plan.key.value_key, &plan.key.name);
    if plan.rules.options.flight == FlightScope::None || plan.refresh {
        return lead_here(inner, plan, function, &|_| {}).await;
    }
    loop {
        match inner.flights.join(&plan.key.value_key, (plan.value.type_id)()) {
            Joined::Follow(flight) => {
                bump(&inner.events.count().joined);
                plan.count(inner, |own| &own.joined);
                // Dropped here: the run belongs to another caller and goes on.
                match flight.await {
                    Landing::Abandoned => {}
                    landing => return landing,
                }
            }
            Joined::Lead(duty) => {
                let duty = Mutex::new(Some(duty));
                let land = |landing: Landing| {
                    let duty = duty.lock().unwrap_or_else(PoisonError::into_inner).take();
                    duty.into_iter().for_each(|duty| duty.land(landing.clone()));
                };
                // Dropped here: the duty goes too, and a follower takes over.
                let landing = lead_here(inner, plan, function, &land).await;
                land(landing.clone());
                return landing;
            }
        }
    }
}

/// For a function that owns all it needs.
pub(crate) async fn run_shared(inner: &Arc<Inner>, plan: Plan, function: Function<'static>) -> Landing {
    single_flight::assert_not_inside(&plan.key.value_key, &plan.key.name);
    let plan = Arc::new(plan);
    if plan.rules.options.flight == FlightScope::None {
        return lead(inner, &plan, function).await;
    }
    let value = (plan.value.type_id)();
    let mut function = Some(function);
    loop {
        let run = || -> BoxFuture<'static, Landing> {
            let (inner, plan, function) = (Arc::clone(inner), Arc::clone(&plan), function.take());
            Box::pin(async move {
                match function {
                    Some(function) => lead(&inner, &plan, function).await,
                    None => Landing::Abandoned,
                }
            })
        };
        let (flight, is_new) = inner.flights.share(&plan.key.value_key, value, run);
        if is_new {
            return flight.await;
        }
        plan.count(inner, |own| &own.joined);
        bump(&inner.events.count().joined);
        match flight.await {
            // It borrowed from a caller that is gone: a batch, or another function of the name.
            Landing::Abandoned => {}
            landing => return landing,
        }
    }
}

/// Looks, and if there is nothing computes and stores: what one caller does for all.
async fn lead(inner: &Arc<Inner>, plan: &Arc<Plan>, function: Function<'static>) -> Landing {
    let mut basis = Basis::new(inner, &plan.key.name, Some(&plan.rules));
    match look(inner, plan, &mut basis).await {
        Found::Due(value, fill_id) => {
            bump(&inner.events.count().hits);
            plan.count(inner, |own| &own.hits);
            refresh_behind(inner, plan, fill_id, function);
            Landing::Value(value)
        }
        Found::Lease(lease, Some(old)) => match plan.terms(inner).soft_timeout {
            Some(soft_timeout) => run_at_most(inner, plan, lease, basis, old, function, soft_timeout).await,
            None => settle(inner, plan, Found::Lease(lease, Some(old)), &basis, function, &|_| {}).await,
        },
        found => settle(inner, plan, found, &basis, function, &|_| {}).await,
    }
}

/// The same for a function that borrows. `land` lets go of those who wait, before this caller is done.
async fn lead_here(
    inner: &Arc<Inner>,
    plan: &Plan,
    function: Function<'_>,
    land: &(dyn Fn(Landing) + Sync),
) -> Landing {
    let mut basis = Basis::new(inner, &plan.key.name, Some(&plan.rules));
    match look(inner, plan, &mut basis).await {
        Found::Due(value, fill_id) => {
            land(Landing::Value(Arc::clone(&value)));
            refresh_here(inner, plan, fill_id, function).await.unwrap_or(Landing::Value(value))
        }
        found => settle(inner, plan, found, &basis, function, land).await,
    }
}

/// Returns what was found, or runs the function.
async fn settle(
    inner: &Arc<Inner>,
    plan: &Plan,
    found: Found,
    basis: &Basis,
    function: Function<'_>,
    land: &(dyn Fn(Landing) + Sync),
) -> Landing {
    match found {
        Found::Value(value) | Found::Due(value, _) => {
            bump(&inner.events.count().hits);
            plan.count(inner, |own| &own.hits);
            Landing::Value(value)
        }
        Found::Old(value, cause) => {
            plan.stale_served(inner, cause);
            Landing::Value(value)
        }
        Found::Lease(lease, old) => {
            bump(&inner.events.count().misses);
            plan.count(inner, |own| &own.misses);
            let fallback = old.map_or(Fallback::None, Fallback::Old);
            run_under(inner, plan, Some(lease), basis, function, fallback, land).await
        }
        Found::Nothing => {
            bump(&inner.events.count().misses);
            plan.count(inner, |own| &own.misses);
            run_under(inner, plan, None, basis, function, Fallback::None, land).await
        }
    }
}

/// What looking came to.
enum Found {
    /// A value to return.
    Value(Erased),
    /// A value to return while the record with this fill id is computed anew.
    Due(Erased, u64),
    /// A value past its time, and why it is to be returned all the same.
    Old(Erased, StaleCause),
    /// Nothing fresh, and the right to fill it; a value past its time that may be fallen back on.
    Lease(Lease, Option<Erased>),
    /// Nothing usable, and no store to fill: compute for the caller alone.
    Nothing,
}

/// Reads until there is a value, the lease, or no hope of either. Each round either ends or waits for a change.
async fn look(inner: &Arc<Inner>, plan: &Plan, basis: &mut Basis) -> Found {
    match try_look(inner, plan, basis).await {
        Ok(found) => found,
        Err(error) => {
            plan.note(inner, What::StoreFailed(error.kind()));
            inner.store_failed(&error);
            Found::Nothing
        }
    }
}

async fn try_look(inner: &Arc<Inner>, plan: &Plan, basis: &mut Basis) -> Result<Found> {
    let key = &*plan.key.value_key;
    let (mut slot, mut mark) = read(inner, plan, basis).await?;
    // Since when, once it waits.
    let mut waited: Option<Stopwatch> = None;
    for _ in 0..MAX_ROUNDS {
        if !basis.is_complete() {
            return Ok(Found::Nothing);
        }
        let read_marked = mark.take();
        slot = match slot {
            Slot::Absent => {
                plan.note(inner, What::Missed);
                inner.builds.register(inner, &plan.key).await?;
                match Lease::acquire(inner, &plan.key, Over::Nothing).await? {
                    Ok(lease) => return Ok(Found::Lease(lease, None)),
                    Err(Obstacle::Slot(found)) => found,
                    // There is no record, so there is none to fall back on.
                    Err(Obstacle::Throttle(_)) => Slot::Absent,
                }
            }
            Slot::Bytes(bytes) => match noted(inner, plan, decode(inner, plan, basis, &bytes).await?) {
                Stored::Value(value) if !plan.refresh => {
                    if let Some((mark, under)) = read_marked.zip(value.under) {
                        mark.keep(&value.value, value.payload_bytes, value.serving.service(plan.local), under);
                    }
                    let now = inner.clock.coarse();
                    return Ok(if value.serving.is_due && !inner.refreshes.is_resting(key, value.fill_id, now) {
                        Found::Due(value.value, value.fill_id)
                    } else {
                        Found::Value(value.value)
                    });
                }
                Stored::Invalid(fill_id, _) => {
                    // It has no other use: so the lease stands where those who wait look.
                    inner.builds.register(inner, &plan.key).await?;
                    match Lease::acquire_in_place(inner, &plan.key, fill_id).await? {
                        Ok(lease) => return Ok(Found::Lease(lease, None)),
                        Err(Obstacle::Slot(found)) => found,
                        // It is not beside a record.
                        Err(Obstacle::Throttle(_)) => Slot::Absent,
                    }
                }
                // As with a fence in the record's place.
                Stored::Fenced => return Ok(Found::Nothing),
                stored @ (Stored::Value(_) | Stored::Old(_)) => {
                    match take_over(inner, plan, stored, waited.as_ref().map(Stopwatch::elapsed)).await? {
                        Next::End(found) => return Ok(found),
                        Next::Look(Some(found)) => found,
                        Next::Look(None) => Slot::Bytes(bytes),
                        // Somebody else refreshes it.
                        Next::Wait(left) => {
                            waited.get_or_insert_with(|| begin_to_wait(inner, plan));
                            (slot, mark) = wait(inner, plan, basis, left).await?;
                            continue;
                        }
                    }
                }
                Stored::Foreign(reason) => {
                    inner.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
                    inner.store.discard(key, &Slot::Bytes(bytes)).await?;
                    Slot::Absent
                }
            },
            Slot::WrongType => {
                plan.note(inner, What::Undecodable);
                inner.events.emit(Event::Undecodable {
                    name: Arc::clone(&plan.key.name),
                    reason: "the key holds a value of another type",
                });
                inner.store.discard(key, &Slot::WrongType).await?;
                Slot::Absent
            }
            // What this caller computes is its own affair: it may be older than the write that the fence is for (R22).
            Slot::Fenced => {
                plan.note(inner, What::Fenced);
                return Ok(Found::Nothing);
            }
            Slot::Leased(_) if plan.rules.options.flight != FlightScope::Cluster => return Ok(Found::Nothing),
            Slot::Leased(left) => {
                waited.get_or_insert_with(|| begin_to_wait(inner, plan));
                (slot, mark) = wait(inner, plan, basis, left).await?;
                continue;
            }
        };
    }
    Err(Error::new(ErrorKind::Limit, "read")
        .detail("the key changed hands too often; the value is computed without storing it"))
}

/// How to go on from a record that is to be replaced.
enum Next {
    End(Found),
    /// At what stands there now; `None`: the record still does.
    Look(Option<Slot>),
    Wait(Option<Duration>),
}

/// Takes the lease beside a record. What may be fallen back on is, where the last refresh failed a moment ago, or another process
/// takes longer than a caller is willing to wait: whatever else woke it, `waited` is how long it has.
async fn take_over(inner: &Arc<Inner>, plan: &Plan, stored: Stored, waited: Option<Duration>) -> Result<Next> {
    let key = &plan.key.value_key;
    let (fill_id, old) = match stored {
        Stored::Old(old) => (old.fill_id, old.value.filter(|_| !plan.refresh)),
        Stored::Value(value) => (value.fill_id, None),
        Stored::Invalid(..) | Stored::Fenced | Stored::Foreign(_) => return Ok(Next::Look(None)),
    };
    if let Some(old) = &old
        && let Some(cause) = inner.refreshes.resting(key, fill_id, inner.clock.coarse())
    {
        return Ok(Next::End(Found::Old(Arc::clone(old), cause)));
    }
    let soft_timeout = plan.terms(inner).soft_timeout;
    Ok(match (Lease::acquire(inner, &plan.key, Over::Record(fill_id)).await?, old) {
        (Ok(lease), old) => Next::End(Found::Lease(lease, old)),
        (Err(Obstacle::Throttle(left)), Some(old)) => {
            leave_alone(inner, plan, fill_id, left);
            Next::End(Found::Old(old, StaleCause::Throttled))
        }
        // Whoever has nothing to serve meanwhile, or was told to refresh, is not held up by another's failure.
        (Err(Obstacle::Throttle(_)), None) => {
            inner.store.discard(&lease_key(key), &Slot::Bytes(THROTTLE_MARK.into())).await?;
            Next::Look(None)
        }
        (Err(Obstacle::Slot(Slot::Leased(left))), old) => match soft_timeout.zip(old) {
            None => Next::Wait(left),
            Some((most, old)) => match most.saturating_sub(waited.unwrap_or_default()) {
                Duration::ZERO => Next::End(Found::Old(old, StaleCause::SoftTimeout)),
                rest => Next::Wait(Some(left.map_or(rest, |left| left.min(rest)))),
            },
        },
        (Err(Obstacle::Slot(found)), _) => Next::Look(Some(found)),
    })
}

/// A read whose value may be kept in L1, if it comes with a mark.
async fn read<'a>(inner: &'a Inner, plan: &Plan, basis: &mut Basis) -> Result<(Slot, Option<Mark<'a>>)> {
    let key = &plan.key.value_key;
    match &inner.local {
        Some(local) if plan.local != LocalTier::Off => {
            let mark = local.begin(key);
            let (slot, tracked) = basis.read(inner, key, true).await?;
            Ok((slot, tracked.then_some(mark)))
        }
        _ => Ok((basis.read(inner, key, false).await?.0, None)),
    }
}

/// Once for a call, however often it is woken.
fn begin_to_wait(inner: &Inner, plan: &Plan) -> Stopwatch {
    bump(&inner.events.count().waited);
    plan.count(inner, |own| &own.waited);
    plan.note(inner, What::Waited);
    inner.clock.start()
}

/// Waits until the key changes or its lease must have ended, then reads it.
async fn wait<'a>(
    inner: &'a Arc<Inner>,
    plan: &Plan,
    basis: &mut Basis,
    left: Option<Duration>,
) -> Result<(Slot, Option<Mark<'a>>)> {
    let key = &*plan.key.value_key;
    let (slot, wake) = inner.store.read_and_watch(key).await?;
    match &slot {
        // The lease of a refresh stands in the second key: the record itself tells when it is replaced.
        Slot::Bytes(bytes) if plan.refresh || matches!(decode(inner, plan, basis, bytes).await?, Stored::Old(_)) => {}
        Slot::Leased(_) => {}
        _ => return Ok((slot, None)),
    }
    let left = if let Slot::Leased(left) = &slot { *left } else { left };
    // A little over: the server ends a lease when it next looks at the key, not on the millisecond.
    let limit = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)).min(LONGEST_WAIT));
    tokio::select! {
        biased;
        () = wake => {}
        () = inner.clock.sleep(limit) => {}
    }
    read(inner, plan, basis).await
}

/// What stored bytes are to this call.
pub(crate) enum Stored {
    /// A value that may be returned at once.
    Value(Served),
    /// A record past its time.
    Old(Old),
    /// A record from before an invalidation, with its fill id: never served again, however stale a value may be (R17). Without a scope: of an
    /// absence, where the function has none.
    Invalid(u64, Option<Scope>),
    /// A record under a fence on a tag of its value: not served now, and left where it is.
    Fenced,
    /// No record of this function.
    Foreign(&'static str),
}

/// A value that may be returned, and what is known of it.
pub(crate) struct Served {
    pub(crate) value: Erased,
    pub(crate) fill_id: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) serving: Serving,
    /// What L1 has to go by; `None`: it cannot.
    pub(crate) under: Option<Dependencies>,
}

/// What is past its time; a value if it may be fallen back on.
pub(crate) struct Old {
    pub(crate) fill_id: u64,
    pub(crate) value: Option<Erased>,
}

/// Takes a trip only for a record with tags that nothing is known of.
async fn decode(inner: &Inner, plan: &Plan, basis: &Basis, bytes: &Bytes) -> Result<Stored> {
    let (envelope, payload_at) = match Envelope::open(bytes, &plan.key.value_key) {
        Ok(opened) => opened,
        Err(reason) => return Ok(Stored::Foreign(reason)),
    };
    Ok(match basis.agrees(inner, &envelope).await? {
        Agreement::Yes(under) => judge(inner, plan, &envelope, bytes.get(payload_at..).unwrap_or_default(), under),
        Agreement::No => Stored::Invalid(envelope.fill_id, Some(basis.ended_by(&envelope))),
        Agreement::Fenced => Stored::Fenced,
    })
}

/// Puts what was read into the history of its key.
pub(crate) fn noted(inner: &Inner, plan: &Plan, stored: Stored) -> Stored {
    let what = match &stored {
        Stored::Value(value) => What::Hit { fresh_for: value.serving.fresh() },
        Stored::Old(_) => What::Expired,
        Stored::Invalid(_, Some(scope)) => What::Outdated(*scope),
        Stored::Invalid(_, None) => What::Missed,
        Stored::Fenced => What::Fenced,
        Stored::Foreign(_) => What::Undecodable,
    };
    plan.note(inner, what);
    stored
}

/// A record whose versions stand.
pub(crate) fn judge(
    inner: &Inner,
    plan: &Plan,
    envelope: &Envelope,
    payload: &[u8],
    under: Option<Dependencies>,
) -> Stored {
    let (now, fill_id) = (inner.store.now(), envelope.fill_id);
    let terms = plan.terms(inner);
    let serving = Serving::of(envelope, &terms, now);
    if serving.is_none() && !terms.may_fall_back_on(envelope, now) {
        return Stored::Old(Old { fill_id, value: None });
    }
    match ((plan.value.decode)(envelope.codec, envelope.present, payload), serving) {
        (Ok(Some(value)), Some(serving)) => {
            Stored::Value(Served { value, fill_id, payload_bytes: payload.len(), serving, under })
        }
        (Ok(Some(value)), None) => Stored::Old(Old { fill_id, value: Some(value) }),
        // A function that always returns one shares its name with one that need not: to this call it is a miss.
        (Ok(None), _) => Stored::Invalid(fill_id, None),
        (Err(_), _) => Stored::Foreign("the payload is not a value of this type"),
    }
}
