//! What a call finds in the store, until it may return a value or has to run the function.

use std::sync::Arc;
use std::time::Duration;

use crate::call::cooldown::leave_alone;
use crate::call::patience::Patience;
use crate::call::plan::Plan;
use crate::call::record::{Hit, Stored, decode, kept, noted};
use crate::clock::Stopwatch;
use crate::coordination::lease::{Lease, Obstacle};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Mark;
use crate::observe::events::{Event, StaleCause};
use crate::observe::history::HistoryEvent;
use crate::options::{LocalTier, SingleFlightScope};
use crate::store::{Replaces, Slot, THROTTLE_MARK, lease_key};
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// How long to wait at most for somebody else's lease before looking again, whatever its time left says.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What looking came to.
pub(super) enum Found {
    /// A value to return.
    Value(Erased),
    /// A value to return while the record with this fill id is computed anew.
    Due(Erased, u64),
    /// A value past its time, and why it is to be returned all the same.
    Old(Erased, StaleCause),
    /// Nothing fresh, and the right to fill it; a value past its time that may be fallen back on.
    Lease(Lease, Option<Erased>),
    /// The record with this fill id may be fallen back on, and cannot be replaced now: compute for the caller alone.
    Unleased(Erased, u64),
    /// Nothing usable, and no store to fill: compute for the caller alone.
    Nothing,
}

/// Reads until there is a value, the lease, or no hope of either. Each round either ends or waits for a change.
pub(super) async fn look(
    engine: &Arc<Engine>,
    plan: &Plan,
    basis: &mut VersionSnapshot,
    slot: Option<std::result::Result<Slot, ()>>,
) -> Found {
    let slot = match slot {
        Some(Ok(slot)) => Some(slot),
        Some(Err(())) => return Found::Nothing,
        None => None,
    };
    match try_look(engine, plan, basis, slot).await {
        Ok(found) => found,
        Err(error) => {
            plan.observed(engine, HistoryEvent::StoreFailed(error.kind()));
            engine.store_failed(&error);
            Found::Nothing
        }
    }
}

async fn try_look(engine: &Arc<Engine>, plan: &Plan, basis: &mut VersionSnapshot, slot: Option<Slot>) -> Result<Found> {
    let key = &*plan.key.value_key;
    let (mut slot, mut mark) = match slot {
        Some(slot) => (slot, None),
        None => engine.builds.introduce(&plan.key, read(engine, plan, basis)).await?,
    };
    // Since when, once it waits.
    let mut waited: Option<Stopwatch> = None;
    let mut patience = Patience::new(engine, plan.terms(engine).deadline);
    while patience.look_again() {
        if !basis.is_complete() {
            return Ok(Found::Nothing);
        }
        let read_marked = mark.take();
        slot = match slot {
            Slot::Absent => {
                plan.observed(engine, HistoryEvent::Missed);
                engine.builds.register_all(std::slice::from_mut(basis), &plan.key).await?;
                match engine.leases.acquire(&plan.key, Replaces::Nothing).await? {
                    Ok(lease) => return Ok(Found::Lease(lease, None)),
                    Err(Obstacle::Slot(found)) => found,
                    // There is no record, so there is none to fall back on.
                    Err(Obstacle::Throttle(_)) => Slot::Absent,
                }
            }
            Slot::Bytes(bytes) => {
                match noted(engine, plan, decode(engine, plan, basis, &bytes, read_marked.is_some()).await?) {
                    Stored::Value(value) if !plan.refresh => {
                        return Ok(match kept(engine, plan, value, read_marked) {
                            Hit { value, due: Some(fill_id) } => Found::Due(value, fill_id),
                            Hit { value, due: None } => Found::Value(value),
                        });
                    }
                    Stored::Invalid(fill_id, _) => {
                        // It has no other use: so the lease stands where those who wait look.
                        engine.builds.register_all(std::slice::from_mut(basis), &plan.key).await?;
                        match engine.leases.acquire_in_place(&plan.key, fill_id).await? {
                            Ok(lease) => return Ok(Found::Lease(lease, None)),
                            Err(Obstacle::Slot(found)) => found,
                            // It is not beside a record.
                            Err(Obstacle::Throttle(_)) => Slot::Absent,
                        }
                    }
                    // As with a fence in the record's place.
                    Stored::Fenced => return Ok(Found::Nothing),
                    stored @ (Stored::Value(_) | Stored::Old(_) | Stored::Newer(..)) => {
                        match take_over(engine, plan, stored, waited.as_ref().map(Stopwatch::elapsed)).await? {
                            Next::End(found) => return Ok(found),
                            Next::Look(Some(found)) => found,
                            Next::Look(None) => Slot::Bytes(bytes),
                            // Somebody else refreshes it.
                            Next::Wait(left) => {
                                waited.get_or_insert_with(|| begin_to_wait(engine, plan));
                                (slot, mark) = wait(engine, plan, basis, left).await?;
                                continue;
                            }
                        }
                    }
                    Stored::Foreign(reason) => {
                        engine.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
                        engine.store.discard(key, &Slot::Bytes(bytes)).await?;
                        Slot::Absent
                    }
                }
            }
            Slot::WrongType => {
                plan.observed(engine, HistoryEvent::Undecodable);
                engine.events.emit(Event::Undecodable {
                    name: Arc::clone(&plan.key.name),
                    reason: "the key holds a value of another type",
                });
                engine.store.discard(key, &Slot::WrongType).await?;
                Slot::Absent
            }
            // What this caller computes is its own affair: it may be older than the write that the fence is for (R22).
            Slot::Fenced => {
                plan.observed(engine, HistoryEvent::Fenced);
                return Ok(Found::Nothing);
            }
            // The run before stored nothing: those who waited for it run at once, and one of them may store (X7).
            Slot::Unstored(mark) => {
                plan.observed(engine, HistoryEvent::NotAwaited);
                engine.builds.register_all(std::slice::from_mut(basis), &plan.key).await?;
                match engine.leases.acquire_over_mark(&plan.key, mark).await? {
                    Ok(lease) => return Ok(Found::Lease(lease, None)),
                    Err(Obstacle::Slot(Slot::Unawaited(_) | Slot::Unstored(_)) | Obstacle::Throttle(_)) => {
                        return Ok(Found::Nothing);
                    }
                    Err(Obstacle::Slot(found)) => found,
                }
            }
            // A refresh has to store, so it does wait.
            Slot::Unawaited(_) if !plan.refresh => {
                plan.observed(engine, HistoryEvent::NotAwaited);
                return Ok(Found::Nothing);
            }
            Slot::Leased(_) | Slot::Unawaited(_) if plan.rules.options.single_flight != SingleFlightScope::Cluster => {
                return Ok(Found::Nothing);
            }
            Slot::Leased(left) | Slot::Unawaited(left) => {
                waited.get_or_insert_with(|| begin_to_wait(engine, plan));
                (slot, mark) = wait(engine, plan, basis, left).await?;
                continue;
            }
        };
    }
    Err(Error::new(ErrorKind::Limit, "read")
        .detail("others held the key for longer than a run may take; the value is computed without storing it"))
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
async fn take_over(engine: &Arc<Engine>, plan: &Plan, stored: Stored, waited: Option<Duration>) -> Result<Next> {
    let key = &plan.key.value_key;
    let (fill_id, old) = match stored {
        Stored::Old(old) => (old.fill_id, old.value.filter(|_| !plan.refresh)),
        Stored::Value(value) => (value.fill_id, None),
        Stored::Newer(fill_id, _) => (fill_id, None),
        Stored::Invalid(..) | Stored::Fenced | Stored::Foreign(_) => return Ok(Next::Look(None)),
    };
    if let Some(old) = &old
        && let Some(cause) = engine.refreshes.resting(key, fill_id, engine.clock.coarse())
    {
        return Ok(Next::End(Found::Old(Arc::clone(old), cause)));
    }
    let soft_timeout = plan.terms(engine).soft_timeout;
    Ok(match (engine.leases.acquire(&plan.key, Replaces::Stale(fill_id)).await?, old) {
        (Ok(lease), old) => Next::End(Found::Lease(lease, old)),
        (Err(Obstacle::Throttle(left)), Some(old)) => {
            leave_alone(engine, plan, fill_id, left);
            Next::End(Found::Old(old, StaleCause::Throttled))
        }
        // Whoever has nothing to serve meanwhile, or was told to refresh, is not held up by another's failure.
        (Err(Obstacle::Throttle(_)), None) => {
            engine.store.discard(&lease_key(key), &Slot::Bytes(THROTTLE_MARK.into())).await?;
            Next::Look(None)
        }
        // The run before stored nothing: this caller runs at once too (X7).
        (Err(Obstacle::Slot(Slot::Unawaited(_))), old) if !plan.refresh => {
            plan.observed(engine, HistoryEvent::NotAwaited);
            Next::End(old.map_or(Found::Nothing, |old| Found::Unleased(old, fill_id)))
        }
        (Err(Obstacle::Slot(Slot::Leased(left) | Slot::Unawaited(left))), old) => match soft_timeout.zip(old) {
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
pub(super) async fn read<'a>(
    engine: &'a Engine,
    plan: &Plan,
    basis: &mut VersionSnapshot,
) -> Result<(Slot, Option<Mark<'a>>)> {
    let key = &plan.key.value_key;
    match &engine.local {
        Some(local) if plan.local != LocalTier::Off => {
            let mark = local.begin(key);
            let (slot, tracked) = basis.read(&engine.versions, key, true).await?;
            Ok((slot, tracked.then_some(mark)))
        }
        _ => Ok((basis.read(&engine.versions, key, false).await?.0, None)),
    }
}

/// Once for a call, however often it is woken.
pub(super) fn begin_to_wait(engine: &Engine, plan: &Plan) -> Stopwatch {
    plan.observed(engine, HistoryEvent::Waited);
    engine.clock.start()
}

/// Waits until the key changes or its lease must have ended, then reads it.
async fn wait<'a>(
    engine: &'a Arc<Engine>,
    plan: &Plan,
    basis: &mut VersionSnapshot,
    left: Option<Duration>,
) -> Result<(Slot, Option<Mark<'a>>)> {
    let key = &*plan.key.value_key;
    let (slot, wake) = engine.store.read_and_watch(key).await?;
    match &slot {
        // The lease of a refresh stands in the second key: the record itself tells when it is replaced.
        Slot::Bytes(bytes) if plan.refresh || is_to_be_replaced(&decode(engine, plan, basis, bytes, false).await?) => {
            if !engine.leases.is_awaited_beside(key, plan.refresh).await? {
                return Ok((slot, None));
            }
        }
        Slot::Leased(_) => {}
        Slot::Unawaited(_) if plan.refresh => {}
        _ => return Ok((slot, None)),
    }
    let left = if let Slot::Leased(left) | Slot::Unawaited(left) = &slot { *left } else { left };
    // A little over: the server ends a lease when it next looks at the key, not on the millisecond.
    let limit = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)).min(LONGEST_WAIT));
    tokio::select! {
        biased;
        () = wake => {}
        () = engine.clock.sleep(limit) => {}
    }
    read(engine, plan, basis).await
}

/// Whether the lease of whoever computes the value stands beside it.
fn is_to_be_replaced(stored: &Stored) -> bool {
    matches!(stored, Stored::Old(_) | Stored::Newer(..))
}
