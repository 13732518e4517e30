//! Looks in the store until the call may return a value or has to run the function.

use std::sync::Arc;
use std::time::Duration;

use crate::call::cooldown::begin_cooldown;
use crate::call::patience::Patience;
use crate::call::plan::Plan;
use crate::call::record::{self, Hit, Stored, kept, noted, undecodable};
use crate::call::verdict::{Request, Verdict, decide, decide_refused};
use crate::clock::Stopwatch;
use crate::coordination::lease::{Lease, Obstacle};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::local::PendingFill;
use crate::observe::events::StaleCause;
use crate::observe::history::HistoryEvent;
use crate::options::LocalTier;
use crate::store::{LeaseTarget, Slot, THROTTLE_MARK, lease_key};
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// The longest wait for another caller's lease before looking again, whatever time the lease has
/// left.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The result of a look.
pub(super) enum Found {
    /// Return this value.
    Value(Erased),
    /// Return this value, and refresh the record with this fill id.
    Due(Erased, u64),
    /// Return this expired value, for this reason.
    Old(Erased, StaleCause),
    /// There is no fresh value, and the caller holds the lease. An expired value may serve as a
    /// fallback.
    Lease(Lease, Option<Erased>),
    /// The record with this fill id may serve as a fallback, and cannot be replaced now: compute
    /// without storing.
    Unleased(Erased, u64),
    /// There is no usable value, and nothing can be stored: compute without storing.
    Nothing,
}

/// Reads until there is a value or the lease, or neither can be had. Each round either ends or
/// waits for a change.
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
        None => first_read(engine, plan, basis).await?,
    };
    // When the wait began.
    let mut waited: Option<Stopwatch> = None;
    let mut patience = Patience::new(engine, plan.terms(engine).deadline);
    let request = Request::of(engine, plan);
    let cooldown = |fill_id| engine.refreshes.cooldown(key, fill_id, engine.clock.coarse());
    let mut verdict = Verdict::LookAt(slot.clone());
    loop {
        verdict = match verdict {
            Verdict::LookAt(found) => {
                if !patience.look_again() {
                    let detail = "other processes held the lease for longer than a compute may take; the value is \
                        computed without storing it";
                    return Err(Error::new(ErrorKind::Limit, "read").detail(detail));
                }
                if !basis.is_complete() {
                    return Ok(Found::Nothing);
                }
                slot = found;
                let stored = record::read(engine, plan, basis, &slot, mark.is_some()).await?;
                decide(request, noted(engine, plan, stored), cooldown)
            }
            Verdict::Serve(served) => {
                return Ok(match kept(engine, plan, served, mark) {
                    Hit { value, due: Some(fill_id) } => Found::Due(value, fill_id),
                    Hit { value, due: None } => Found::Value(value),
                });
            }
            Verdict::ServeOld(old, cause) => return Ok(Found::Old(old, cause)),
            Verdict::Compute(None) => return Ok(Found::Nothing),
            Verdict::Compute(Some((old, fill_id))) => return Ok(Found::Unleased(old, fill_id)),
            Verdict::Acquire(target, old) => {
                mark = None;
                engine.builds.register_all(std::slice::from_mut(basis), &plan.key).await?;
                match engine.leases.acquire(&plan.key, target).await? {
                    Ok(lease) => return Ok(Found::Lease(lease, old)),
                    Err(obstacle) => {
                        let waited = waited.as_ref().map(Stopwatch::elapsed).unwrap_or_default();
                        refused(engine, plan, target, old, obstacle, waited)
                    }
                }
            }
            Verdict::Wait(left) => {
                waited.get_or_insert_with(|| begin_to_wait(engine, plan));
                let found;
                (found, mark) = wait(engine, plan, basis, left).await?;
                Verdict::LookAt(found)
            }
            Verdict::Discard(reason) => {
                mark = None;
                undecodable(engine, plan, reason);
                engine.store.discard(key, &slot).await?;
                Verdict::LookAt(Slot::Absent)
            }
            Verdict::EndThrottle => {
                end_throttle(engine, plan).await?;
                Verdict::LookAt(slot.clone())
            }
        };
    }
}

/// Decides after the lease was refused: see [`decide_refused`]. Records what the decision rests on.
pub(super) fn refused(
    engine: &Engine,
    plan: &Plan,
    target: LeaseTarget,
    old: Option<Erased>,
    obstacle: Obstacle,
    waited: Duration,
) -> Verdict {
    match (&obstacle, target) {
        (Obstacle::Throttle(left), LeaseTarget::Beside(fill_id)) if old.is_some() => {
            begin_cooldown(engine, plan, fill_id, *left);
        }
        (Obstacle::Slot(Slot::Unawaited(_)), LeaseTarget::Beside(_)) if !plan.refresh => {
            plan.observed(engine, HistoryEvent::NotAwaited);
        }
        _ => {}
    }
    decide_refused(Request::of(engine, plan), target, old, obstacle, waited)
}

/// Removes the mark of a failed refresh, which blocks the next one.
pub(super) async fn end_throttle(engine: &Engine, plan: &Plan) -> Result<()> {
    let throttle = Slot::Bytes(THROTTLE_MARK.into());
    engine.store.discard(&lease_key(&plan.key.value_key), &throttle).await
}

/// Reads the value as [`read`] does. At the first read of the function in this process, also
/// registers its build.
pub(super) async fn first_read<'a>(
    engine: &'a Engine,
    plan: &Plan,
    basis: &mut VersionSnapshot,
) -> Result<(Slot, Option<PendingFill<'a>>)> {
    let build = &plan.key.fingerprint;
    if basis.has_introduced(build) {
        return read(engine, plan, basis).await;
    }
    let found = Box::pin(engine.builds.introduce(&plan.key, read(engine, plan, basis))).await?;
    basis.set_introduced(build);
    Ok(found)
}

/// Reads the value. If it comes with a mark, L1 may keep it.
pub(super) async fn read<'a>(
    engine: &'a Engine,
    plan: &Plan,
    basis: &mut VersionSnapshot,
) -> Result<(Slot, Option<PendingFill<'a>>)> {
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

/// Records that the call waits. Called once per call, however often it is woken.
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
) -> Result<(Slot, Option<PendingFill<'a>>)> {
    let key = &*plan.key.value_key;
    let (slot, wake) = engine.store.read_and_watch(key).await?;
    match &slot {
        // The lease of a refresh is in the second key. A watch on the record sees the replacement.
        Slot::Bytes(_)
            if plan.refresh || is_to_be_replaced(&record::read(engine, plan, basis, &slot, false).await?) =>
        {
            if !engine.leases.is_awaited_beside(key, plan.refresh).await? {
                return Ok((slot, None));
            }
        }
        Slot::Leased(_) => {}
        Slot::Unawaited(_) if plan.refresh => {}
        _ => return Ok((slot, None)),
    }
    let left = if let Slot::Leased(left) | Slot::Unawaited(left) = &slot { *left } else { left };
    // A little longer: the server ends a lease when it next looks at the key, not on the
    // millisecond.
    let limit = left.map_or(LONGEST_WAIT, |left| left.saturating_add(Duration::from_millis(5)).min(LONGEST_WAIT));
    tokio::select! {
        biased;
        () = wake => {}
        () = engine.clock.sleep(limit) => {}
    }
    read(engine, plan, basis).await
}

/// Returns whether the lease for the next value is held next to this record.
fn is_to_be_replaced(stored: &Stored) -> bool {
    matches!(stored, Stored::Old(_) | Stored::Newer(..))
}
