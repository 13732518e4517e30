//! The pipeline after a miss, top to bottom.
//!
//! ```text
//! share the run in this process ─> read ── a record ──────────────────────────> its value
//!                                   ├───── nothing ─────> take the lease ──> run the function ──> fill
//!                                   ├───── a lease ─────> wait for the push or its end, read again
//!                                   └───── no store ────> run the function
//! ```
//!
//! Invariant: a fault of the store never reaches the caller, and a computed value always does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::cache::Inner;
use crate::entry::EntryKey;
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, bump, reason};
use crate::freshness::{Freshness, verdict};
use crate::lease::Lease;
use crate::local::Mark;
use crate::options::{FlightScope, LocalTier};
use crate::shape::{Erased, Rules, ValueType};
use crate::single_flight::{self, Joined, Landing};
use crate::store::{Filled, Over, Slot};
use crate::tag::{Agreement, Basis, Under};
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
}

/// The function's run: its value or its error, types erased.
pub(crate) type Function<'a> = BoxFuture<'a, Result<Erased, Erased>>;

/// For a function that borrows from its caller.
pub(crate) async fn run_here(inner: &Arc<Inner>, plan: &Plan, function: Function<'_>) -> Landing {
    single_flight::assert_not_inside(&plan.key.value_key, &plan.key.name);
    if plan.rules.options.flight == FlightScope::None || plan.refresh {
        return lead(inner, plan, function).await;
    }
    loop {
        match inner.flights.join(&plan.key.value_key, (plan.value.type_id)()) {
            Joined::Follow(flight) => {
                bump(&inner.events.count().joined);
                // Dropped here: the run belongs to another caller and goes on.
                match flight.await {
                    Landing::Abandoned => {}
                    landing => return landing,
                }
            }
            Joined::Lead(duty) => {
                // Dropped here: the duty goes too, and a follower takes over.
                let landing = lead(inner, plan, function).await;
                duty.land(landing.clone());
                return landing;
            }
        }
    }
}

/// For a function that owns all it needs.
pub(crate) async fn run_shared(inner: &Arc<Inner>, plan: Plan, function: Function<'static>) -> Landing {
    single_flight::assert_not_inside(&plan.key.value_key, &plan.key.name);
    if plan.rules.options.flight == FlightScope::None {
        return lead(inner, &plan, function).await;
    }
    let key = Arc::clone(&plan.key.value_key);
    let value = (plan.value.type_id)();
    let owned = Arc::clone(inner);
    let run = move || -> BoxFuture<'static, Landing> { Box::pin(async move { lead(&owned, &plan, function).await }) };
    let (flight, is_new) = inner.flights.share(&key, value, run);
    if !is_new {
        bump(&inner.events.count().joined);
    }
    flight.await
}

/// Looks, and if there is nothing computes and stores: what one caller does for all.
async fn lead(inner: &Arc<Inner>, plan: &Plan, function: Function<'_>) -> Landing {
    let mut basis = Basis::new(inner, &plan.key.name, Some(&plan.rules));
    match look(inner, plan, &mut basis).await {
        Found::Value(value) => {
            bump(&inner.events.count().hits);
            Landing::Value(value)
        }
        Found::Lease(lease) => {
            bump(&inner.events.count().misses);
            compute_and_fill(inner, plan, lease, &basis, function).await
        }
        Found::Nothing => {
            bump(&inner.events.count().misses);
            compute(inner, plan, function).await
        }
    }
}

/// What looking came to.
enum Found {
    /// A value to return.
    Value(Erased),
    /// Nothing usable, and the right to fill it.
    Lease(Lease),
    /// Nothing usable, and no store to fill: compute for the caller alone.
    Nothing,
}

/// Reads until there is a value, the lease, or no hope of either. Each round either ends or waits for a change.
async fn look(inner: &Arc<Inner>, plan: &Plan, basis: &mut Basis) -> Found {
    match try_look(inner, plan, basis).await {
        Ok(found) => found,
        Err(error) => {
            inner.store_failed(&error);
            Found::Nothing
        }
    }
}

async fn try_look(inner: &Arc<Inner>, plan: &Plan, basis: &mut Basis) -> Result<Found> {
    let key = &*plan.key.value_key;
    let (mut slot, mut mark) = read(inner, plan, basis).await?;
    for _ in 0..MAX_ROUNDS {
        if !basis.is_complete() {
            return Ok(Found::Nothing);
        }
        let read_marked = mark.take();
        slot = match slot {
            Slot::Absent => {
                inner.builds.register(inner, &plan.key).await?;
                match Lease::acquire(inner, &plan.key, Over::Nothing).await? {
                    Ok(lease) => return Ok(Found::Lease(lease)),
                    Err(found) => found,
                }
            }
            Slot::Bytes(bytes) => match decode(inner, plan, basis, &bytes).await? {
                Stored::Value(value) if !plan.refresh => {
                    if let Some((mark, under)) = read_marked.zip(value.under) {
                        mark.keep(&value.value, value.payload_bytes, value.left, under);
                    }
                    return Ok(Found::Value(value.value));
                }
                Stored::Invalid(fill_id) => {
                    // It has no other use: so the lease stands where those who wait look.
                    inner.builds.register(inner, &plan.key).await?;
                    match Lease::acquire_in_place(inner, &plan.key, fill_id).await? {
                        Ok(lease) => return Ok(Found::Lease(lease)),
                        Err(found) => found,
                    }
                }
                Stored::Value(Fresh { fill_id, .. }) | Stored::Old(fill_id) => {
                    match Lease::acquire(inner, &plan.key, Over::Record(fill_id)).await? {
                        Ok(lease) => return Ok(Found::Lease(lease)),
                        // The record was replaced or removed meanwhile, or somebody else refreshes it.
                        Err(Slot::Leased(left)) => {
                            (slot, mark) = wait(inner, plan, basis, left).await?;
                            continue;
                        }
                        Err(found) => found,
                    }
                }
                Stored::Foreign(reason) => {
                    inner.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
                    inner.store.discard(key, &Slot::Bytes(bytes)).await?;
                    Slot::Absent
                }
            },
            Slot::WrongType => {
                inner.events.emit(Event::Undecodable {
                    name: Arc::clone(&plan.key.name),
                    reason: "the key holds a value of another type",
                });
                inner.store.discard(key, &Slot::WrongType).await?;
                Slot::Absent
            }
            // What this caller computes is its own affair: it may be older than the write that the fence is for (R22).
            Slot::Fenced => return Ok(Found::Nothing),
            Slot::Leased(_) if plan.rules.options.flight != FlightScope::Cluster => return Ok(Found::Nothing),
            Slot::Leased(left) => {
                (slot, mark) = wait(inner, plan, basis, left).await?;
                continue;
            }
        };
    }
    Err(Error::new(ErrorKind::Limit, "read")
        .detail("the key changed hands too often; the value is computed without storing it"))
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

/// Waits until the key changes or its lease must have ended, then reads it.
async fn wait<'a>(
    inner: &'a Arc<Inner>,
    plan: &Plan,
    basis: &mut Basis,
    left: Option<Duration>,
) -> Result<(Slot, Option<Mark<'a>>)> {
    bump(&inner.events.count().waited);
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
        () = wake => {}
        () = inner.clock.sleep(limit) => {}
    }
    read(inner, plan, basis).await
}

/// What stored bytes are to this call.
enum Stored {
    /// A value that may be returned.
    Value(Fresh),
    /// A record past its time, with its fill id.
    Old(u64),
    /// A record from before an invalidation, with its fill id: never served again, however stale a value may be (R17).
    Invalid(u64),
    /// No record of this function.
    Foreign(&'static str),
}

/// A value that may be returned, and what is known of it.
struct Fresh {
    value: Erased,
    fill_id: u64,
    payload_bytes: usize,
    /// How long it stays fresh, and in L1 at most.
    left: Duration,
    /// What L1 has to go by; `None`: it cannot.
    under: Option<Dependencies>,
}

/// Takes a trip only for a record with tags that nothing is known of.
async fn decode(inner: &Inner, plan: &Plan, basis: &Basis, bytes: &Bytes) -> Result<Stored> {
    let (envelope, payload_at) = match Envelope::open(bytes, &plan.key.value_key) {
        Ok(opened) => opened,
        Err(reason) => return Ok(Stored::Foreign(reason)),
    };
    Ok(match basis.agrees(inner, &envelope).await? {
        Agreement::Yes(under) => judge(inner, plan, &envelope, bytes.get(payload_at..).unwrap_or_default(), under),
        Agreement::No => Stored::Invalid(envelope.fill_id),
    })
}

/// A record whose versions stand.
fn judge(inner: &Inner, plan: &Plan, envelope: &Envelope, payload: &[u8], under: Option<Dependencies>) -> Stored {
    let now = inner.store.now();
    match verdict(envelope, now) {
        Freshness::Fresh | Freshness::RefreshAhead => {}
        Freshness::Stale | Freshness::Expired => return Stored::Old(envelope.fill_id),
    }
    let left = plan.local.limit(now.until(envelope.fresh_until()));
    match (plan.value.decode)(envelope.codec, envelope.present, payload) {
        Ok(Some(value)) => {
            Stored::Value(Fresh { value, fill_id: envelope.fill_id, payload_bytes: payload.len(), left, under })
        }
        Ok(None) => Stored::Foreign("an absent value where the function always returns one"),
        Err(_) => Stored::Foreign("the payload is not a value of this type"),
    }
}

/// Runs the function for its caller alone.
async fn compute(inner: &Inner, plan: &Plan, function: Function<'_>) -> Landing {
    bump(&inner.events.count().computes);
    let landing = single_flight::run(&plan.key.value_key, function).await;
    if matches!(landing, Landing::Failed(_) | Landing::Panicked(_)) {
        bump(&inner.events.count().compute_errors);
    }
    landing
}

/// Runs the function under the lease, stores what it returns, gives the lease back otherwise.
async fn compute_and_fill(
    inner: &Arc<Inner>,
    plan: &Plan,
    lease: Lease,
    basis: &Basis,
    function: Function<'_>,
) -> Landing {
    let started = inner.clock.start();
    // Dropped here: the lease is given back in the background, and a waiter takes over.
    let landing = lease.keep(compute(inner, plan, function)).await;
    let stored = match &landing {
        Landing::Value(value) => fill(inner, plan, lease, basis, value, started.elapsed()).await,
        Landing::Failed(_) | Landing::Panicked(_) | Landing::Abandoned => lease.release().await,
    };
    if let Err(error) = stored {
        inner.store_failed(&error);
    }
    landing
}

async fn fill(
    inner: &Arc<Inner>,
    plan: &Plan,
    lease: Lease,
    basis: &Basis,
    value: &Erased,
    cost: Duration,
) -> Result<()> {
    let Some(ttl) = ttl_for(inner, plan, value) else { return lease.release().await };
    // Stored all the same, it would be a miss for everybody.
    let under =
        if basis.has_changed() { None } else { basis.of_value(inner, &plan.key.name, &plan.rules, value).await? };
    let Some(mut under) = under else {
        inner.events.emit(Event::FillRefused { name: Arc::clone(&plan.key.name) });
        return lease.release().await;
    };
    let dependencies = under.dependencies.take();
    let Some(record) = seal(inner, plan, value, under, ttl, cost) else { return lease.release().await };
    let mark = inner.local.as_ref().filter(|_| plan.local != LocalTier::Off);
    let mark = mark.map(|local| local.begin(&plan.key.value_key));
    let bytes = record.len();
    match lease.fill(record, ttl).await? {
        Filled::Refused => {
            inner.events.emit(Event::FillRefused { name: Arc::clone(&plan.key.name) });
            return Ok(());
        }
        Filled::Stored => {}
        Filled::Tracked => {
            if let Some((mark, under)) = mark.zip(dependencies) {
                mark.keep(value, bytes, plan.local.limit(ttl), under);
            }
        }
    }
    bump(&inner.events.count().fills);
    Ok(())
}

/// How long to store this value; `None`: not at all (V2, V3, V5).
pub(crate) fn ttl_for(inner: &Inner, plan: &Plan, value: &Erased) -> Option<Duration> {
    let rules = &plan.rules;
    let ttl = if (plan.value.is_present)(value) {
        if rules.cache_if.as_ref().is_some_and(|cache_if| !cache_if(value)) {
            return None;
        }
        let by_value = rules.ttl_of.as_ref().and_then(|ttl_of| ttl_of(value));
        by_value.or(rules.options.ttl).unwrap_or(inner.defaults.ttl)
    } else {
        rules.options.negative_ttl.or(inner.defaults.negative_ttl)?
    };
    // Redis counts whole milliseconds, and refuses zero.
    (ttl >= Duration::from_millis(1)).then_some(ttl)
}

/// The record of a value; `None`, with an event, if it cannot be stored.
fn seal(inner: &Inner, plan: &Plan, value: &Erased, under: Under, ttl: Duration, cost: Duration) -> Option<Bytes> {
    match try_seal(inner, plan, value, under, ttl, cost) {
        Ok(record) => Some(record),
        Err(error) => {
            // Too large is told with its size, where that is known.
            if error.kind() != ErrorKind::Limit {
                let name = Arc::clone(&plan.key.name);
                inner.events.emit(Event::EncodeFailed { name, reason: reason(&error) });
            }
            None
        }
    }
}

/// The record of a value.
pub(crate) fn try_seal(
    inner: &Inner,
    plan: &Plan,
    value: &Erased,
    under: Under,
    ttl: Duration,
    cost: Duration,
) -> Result<Bytes> {
    let envelope = Envelope {
        codec: plan.value.codec_id,
        present: (plan.value.is_present)(value),
        fill_id: crate::random::u64(),
        created: inner.store.now(),
        fresh_for: ttl,
        stale_for: Duration::ZERO,
        cost,
        versions: under.versions,
        tags: under.tags,
    };
    let mut replaced = || {
        inner.events.emit(Event::CodecReplaced { type_name: (plan.value.type_name)(), codec: plan.value.codec_name });
    };
    let record = envelope.seal(&plan.key.value_key, |out| (plan.value.encode)(value, out, &mut replaced))?;
    let max = inner.limits.max_value_bytes;
    if record.len() > max {
        inner.events.emit(Event::TooLarge { name: Arc::clone(&plan.key.name), bytes: record.len() });
        let detail = format!(
            "the encoded value has {} bytes, the limit is {max}; see `CacheBuilder::max_value_bytes`",
            record.len()
        );
        return Err(Error::new(ErrorKind::Limit, "encode").detail(detail));
    }
    Ok(record.into())
}
