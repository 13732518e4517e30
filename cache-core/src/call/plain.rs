//! Reading through a plain key, which other programs share: JSON without a header, versions or
//! namespace.
//!
//! ```text
//! read the key ── a value ──> return it; L1 keeps it until its ttl ends or a change is pushed
//!  └─ nothing ─> share the run of the key in this process:
//!                 ├─ the lease, in a second key ─> read again ─> run ─> replace what was read
//!                 ├─ another caller's lease ──> wait for its end, read again
//!                 └─ a value of another shape, no store ──> run, store nothing
//! ```
//!
//! Invariant: the key only ever holds values, and a fill replaces only the bytes that were there
//! when its run began. An invalidation by this library removes the lease with the value, so a run
//! that it overtook stores nothing (R1, R2).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;

use crate::call::function::Function;
use crate::call::lifetime::lifetime_for;
use crate::call::look::{LONGEST_WAIT, begin_to_wait};
use crate::call::patience::Patience;
use crate::call::plan::{Plan, Tally};
use crate::call::run::{compute, tell, within};
use crate::coordination::lease::{End, Lease, Obstacle};
use crate::coordination::single_flight::{FlightOutcome, Leader};
use crate::engine::Engine;
use crate::error::{DeadlineExceeded, Error, ErrorKind, Result};
use crate::key::EntryKey;
use crate::local::{ParsedKey, PendingFill, Service};
use crate::observe::events::{Event, reason};
use crate::observe::function_stats::FunctionNumber;
use crate::observe::history::{HistoryEvent, Refusal};
use crate::options::{LocalTier, SingleFlightScope};
use crate::store::{LeaseTarget, Slot, plain_lease_key};
use crate::value::Erased;
use crate::value::codec::{Codec as _, Json, plain};
use crate::value::return_type::ValueType;
use crate::value::rules::Rules;
use crate::versions::Dependencies;

/// An absent value, as it is stored if `negative_ttl` is set.
const ABSENT: &[u8] = b"null";

impl Plan {
    /// Makes the plan of a plain key. `value` uses the codec [`Json`].
    pub(crate) fn plain(key: &str, name: &Arc<str>, value: ValueType, rules: Arc<Rules>, local: LocalTier) -> Self {
        let of = |key: String| EntryKey { value_key: key.into(), name: Arc::clone(name), fingerprint: "".into() };
        Self { plain: Some(of(plain_lease_key(key))), ..Self::new(of(key.to_owned()), value, rules, local) }
    }
}

/// Returns the stored value without a run. `None`: there is none, or it has another type.
pub(crate) async fn peek(engine: &Engine, plan: &Plan) -> Result<Option<Erased>> {
    Ok(match look(engine, plan).await?.0 {
        PlainContent::Value(value) => Some(value),
        PlainContent::Nothing | PlainContent::Foreign => None,
    })
}

/// Returns the bytes of a value and how long to store them. `None`: the function's rules do not
/// store it.
pub(crate) fn storable(engine: &Engine, plan: &Plan, value: &Erased) -> Result<Option<(Bytes, Duration)>> {
    let Some(lifetime) = lifetime_for(engine, plan, value) else { return Ok(None) };
    Ok(Some((encode(engine, plan, value)?, lifetime.fresh)))
}

/// Looks for a value. If there is none, computes and stores it.
pub(super) async fn lead(
    engine: &Arc<Engine>,
    plan: &Plan,
    lease_key: &EntryKey,
    function: Function,
    leader: &Leader,
) -> FlightOutcome {
    let filling = match find(engine, plan, lease_key).await {
        Ok(Found::Value(value)) => {
            plan.count(engine, Tally::Hits);
            return FlightOutcome::Value(value);
        }
        Ok(Found::Lease(filling)) => Some(filling),
        Ok(Found::Alone) => None,
        Err(error) => {
            failed(engine, plan, &error);
            None
        }
    };
    plan.count(engine, Tally::Misses);
    run(engine, plan, filling, function, leader).await
}

/// The content of the key, as this call sees it.
pub(super) enum PlainContent {
    Nothing,
    Value(Erased),
    /// Content of another type. It belongs to another program and stays.
    Foreign,
}

/// What a look found if this process does not keep the value.
#[derive(Default)]
pub(super) struct Seen<'a> {
    bytes: Option<Bytes>,
    mark: Option<PendingFill<'a>>,
}

/// The right to store, and the bytes to replace.
struct Filling<'a> {
    lease: Lease,
    over: Option<Bytes>,
    /// Reports changes since the read, if this process is notified of them.
    mark: Option<PendingFill<'a>>,
}

enum Found<'a> {
    Value(Erased),
    Lease(Filling<'a>),
    /// Compute without storing.
    Alone,
}

/// Reads the key, and keeps its value in L1. If the value is not kept, also returns its bytes and
/// its mark.
pub(super) async fn look<'a>(engine: &'a Engine, plan: &Plan) -> Result<(PlainContent, Option<Seen<'a>>)> {
    let key = &plan.key.value_key;
    let mark = engine.local.as_ref().filter(|_| plan.local != LocalTier::Off).map(|local| local.begin(key));
    // A key that holds a list or a hash is refused, which is a store error like any other.
    let (found, tracked) = match &mark {
        Some(_) => engine.store.load_tracked(key).await?,
        None => (engine.store.load(key).await?, false),
    };
    let mark = mark.filter(|_| tracked);
    let Some((bytes, left)) = found else {
        plan.observed(engine, HistoryEvent::Missed);
        return Ok((PlainContent::Nothing, Some(Seen { bytes: None, mark })));
    };
    let Some(value) = decode(&plan.value, &bytes) else {
        plan.observed(engine, HistoryEvent::Undecodable);
        let reason = "the value of the plain key cannot be decoded as this type";
        engine.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
        return Ok((PlainContent::Foreign, Some(Seen { bytes: Some(bytes), mark })));
    };
    let fresh = left.unwrap_or(Duration::MAX);
    plan.observed(engine, HistoryEvent::Hit { fresh_for: fresh });
    if plan.refresh {
        return Ok((PlainContent::Value(value), Some(Seen { bytes: Some(bytes), mark })));
    }
    if let Some(mark) = mark {
        let longest = plan.local.limit(Duration::MAX);
        let service = Service { fresh, calm: fresh, stale: Duration::ZERO, longest, ahead_ms: 0.0, fill_id: 0 };
        mark.keep(&value, (plan.value.weigh)(&value, bytes.len()), service, Dependencies::default());
    }
    Ok((PlainContent::Value(value), None))
}

/// Takes the lease, or waits for its holder. Each round either ends or waits for a change.
async fn find<'a>(engine: &'a Arc<Engine>, plan: &Plan, lease_key: &EntryKey) -> Result<Found<'a>> {
    let mut patience = Patience::new(engine, plan.terms(engine).deadline);
    let mut has_waited = false;
    while patience.look_again() {
        let mut taken = engine.leases.acquire(lease_key, LeaseTarget::Empty).await?;
        // The last run stored nothing: its waiters run at once, and one of them may store (X7).
        if let Err(Obstacle::Slot(Slot::Unstored(mark))) = taken {
            taken = engine.leases.acquire(lease_key, LeaseTarget::OverMark(mark)).await?;
        }
        let left = match taken {
            Ok(lease) => return under(engine, plan, lease).await,
            Err(Obstacle::Slot(Slot::Leased(left))) => left,
            // A refresh must store its value, so it waits.
            Err(Obstacle::Slot(Slot::Unawaited(left))) if plan.refresh => left,
            Err(Obstacle::Slot(Slot::Absent)) => continue,
            // These leases have no waiters, or the content of the lease key is unknown.
            Err(_) => return Ok(Found::Alone),
        };
        if plan.rules.options.single_flight != SingleFlightScope::Cluster {
            return Ok(Found::Alone);
        }
        if !std::mem::replace(&mut has_waited, true) {
            begin_to_wait(engine, plan);
        }
        wait(engine, plan, lease_key, left).await?;
        match look(engine, plan).await? {
            (PlainContent::Value(value), _) if !plan.refresh => return Ok(Found::Value(value)),
            (PlainContent::Foreign, _) => return Ok(Found::Alone),
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::Limit, "read").detail(
        "other processes held the lease for longer than a compute may take; the value is computed without storing it",
    ))
}

/// Under the lease, reads the key again: returns a value that was stored before, or what to
/// replace.
async fn under<'a>(engine: &'a Engine, plan: &Plan, lease: Lease) -> Result<Found<'a>> {
    let found = match look(engine, plan).await? {
        (PlainContent::Value(value), None) => Found::Value(value),
        (PlainContent::Foreign, _) if !plan.refresh => Found::Alone,
        (_, rest) => {
            let Seen { bytes: over, mark } = rest.unwrap_or_default();
            return Ok(Found::Lease(Filling { lease, over, mark }));
        }
    };
    if let Err(error) = lease.release(End::Free).await {
        engine.store_failed(&error);
    }
    Ok(found)
}

/// Waits until the lease has ended or must have ended.
async fn wait(engine: &Engine, plan: &Plan, lease_key: &EntryKey, left: Option<Duration>) -> Result<()> {
    let (slot, wake) = engine.store.read_and_watch(&lease_key.value_key).await?;
    let left = match slot {
        Slot::Leased(now) => now.or(left),
        Slot::Unawaited(now) if plan.refresh => now.or(left),
        _ => return Ok(()),
    };
    // A little longer: the server ends a lease when it next looks at the key, not on the
    // millisecond.
    let limit = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)).min(LONGEST_WAIT));
    tokio::select! {
        biased;
        () = wake => {}
        () = engine.clock.sleep(limit) => {}
    }
    Ok(())
}

/// Runs the function, under the lease if there is one, and stores what it returns. Otherwise
/// releases the lease.
async fn run(
    engine: &Arc<Engine>,
    plan: &Plan,
    filling: Option<Filling<'_>>,
    function: Function,
    leader: &Leader,
) -> FlightOutcome {
    let deadline = plan.terms(engine).deadline;
    let is_lent = matches!(function, Function::Lent(_));
    let mut run = Box::pin(compute(engine, plan, function, leader));
    leader.seen(engine.clock.boot());
    let outcome = {
        let kept = async {
            match &filling {
                Some(filling) => filling.lease.keep(&tell(leader), run.as_mut()).await,
                None => run.as_mut().await,
            }
        };
        // Dropped here at the deadline: the lease is released, and a waiter takes over.
        within(engine, deadline, kept).await
    };
    if let Some(FlightOutcome::Value(value)) = &outcome {
        if let Some(filling) = filling {
            // A panic of a closure or a `Serialize` costs the fill, never the value (S10).
            match AssertUnwindSafe(fill(engine, plan, filling, value)).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed(engine, plan, &error),
                Err(_payload) => {
                    plan.observed(engine, HistoryEvent::NotStored);
                    engine.events.emit(Event::FillPanicked { name: Arc::clone(&plan.key.name) });
                }
            }
        }
        return FlightOutcome::Value(Arc::clone(value));
    }
    if outcome.is_none() {
        plan.observed(engine, HistoryEvent::DeadlinePassed);
    }
    if let Some(filling) = filling {
        // The caller was dropped before the function returned: one of the waiters takes the lease.
        let end = if matches!(outcome, Some(FlightOutcome::Abandoned)) { End::Free } else { End::Unstored };
        if let Err(error) = filling.lease.release(end).await {
            engine.store_failed(&error);
        }
    }
    match (outcome, plan.overdue) {
        (Some(outcome), _) => outcome,
        // As for values with a header: see `run_under`.
        (None, Some(overdue)) => FlightOutcome::Failed(overdue(DeadlineExceeded::new(deadline.unwrap_or_default()))),
        (None, None) if is_lent => FlightOutcome::Abandoned,
        (None, None) => {
            leader.detach();
            run.await
        }
    }
}

/// Stores the value under the lease, or releases the lease.
async fn fill(engine: &Engine, plan: &Plan, filling: Filling<'_>, value: &Erased) -> Result<()> {
    let Filling { lease, over, mark } = filling;
    let (bytes, expiry) = match storable(engine, plan, value) {
        Ok(Some(storable)) => storable,
        Ok(None) => {
            plan.observed(engine, HistoryEvent::NotStored);
            return lease.release(End::Unstored).await;
        }
        Err(error) => {
            plan.observed(engine, HistoryEvent::NotStored);
            if error.kind() != ErrorKind::Limit {
                let name = Arc::clone(&plan.key.name);
                engine.events.emit(Event::EncodeFailed { name, reason: reason(&error) });
            }
            return lease.release(End::Unstored).await;
        }
    };
    // A value that was set and removed meanwhile leaves no trace in the store, but the push was
    // received.
    if mark.is_some_and(|mark| mark.has_changed()) {
        plan.observed(engine, HistoryEvent::FillRefused(Refusal::Outdated));
        return lease.release(End::Free).await;
    }
    if !lease.fill_plain(&plan.key.value_key, over, bytes, expiry).await? {
        plan.observed(engine, HistoryEvent::FillRefused(Refusal::LeaseLost));
        return Ok(());
    }
    // Before its push arrives: L1 must not serve the value that a refresh has replaced (T7).
    if let Some(local) = &engine.local {
        local.drop_key(&plan.key.value_key);
    }
    plan.observed(engine, HistoryEvent::Filled { fresh_for: expiry });
    Ok(())
}

fn decode(value: &ValueType, bytes: &[u8]) -> Option<Erased> {
    let of = |present: bool, json: &[u8]| (value.decode)(Json::ID, present, json).ok().flatten();
    let absent = if bytes == ABSENT { of(false, &[]) } else { None };
    absent.or_else(|| of(true, bytes)).or_else(|| of(true, &plain::quoted(bytes)?))
}

fn encode(engine: &Engine, plan: &Plan, value: &Erased) -> Result<Bytes> {
    if !(plan.value.is_present)(value) {
        return Ok(Bytes::from_static(ABSENT));
    }
    let mut json = Vec::new();
    if (plan.value.encode)(value, &mut json, &mut |_| {})? != Json::ID {
        let detail = "JSON cannot distinguish all values of this type, so it cannot be stored as a plain value";
        return Err(Error::new(ErrorKind::Encode, "encode").detail(detail));
    }
    let bytes = plain::of_json(json);
    let max = engine.limits.max_value_bytes;
    if bytes.len() > max {
        engine.events.emit(Event::TooLarge { name: Arc::clone(&plan.key.name), bytes: bytes.len() });
        let detail = format!(
            "the encoded value has {} bytes, the limit is {max}; see `CacheBuilder::max_value_bytes`",
            bytes.len()
        );
        return Err(Error::new(ErrorKind::Limit, "encode").detail(detail));
    }
    Ok(bytes.into())
}

pub(super) fn failed(engine: &Engine, plan: &Plan, error: &Error) {
    plan.observed(engine, HistoryEvent::StoreFailed(error.kind()));
    engine.store_failed(error);
}

/// Returns the value from L1.
pub(crate) fn in_local<T>(engine: &Engine, plan: &Plan, take: impl FnOnce(&Erased) -> Option<T>) -> Option<T> {
    let local = engine.local.as_ref().filter(|_| plan.local != LocalTier::Off)?;
    let hit = local.get_plain(&ParsedKey::parse(&plan.key.value_key).as_ref(), take)?;
    engine.functions.local_hit(FunctionNumber::of_name(&plan.key.name));
    Some(hit)
}
