//! The pipeline after a miss in this process, top to bottom.
//!
//! ```text
//! read ── a fresh record ──> its value: no run, no flight
//!  └─ else ─> share the run of the key in this process, a task of its own:
//!              ├─ a record past its time ─> serve it and refresh, or run the function and fall back on it
//!              ├─ nothing ─────> take the lease ──> run the function ──> fill
//!              ├─ a lease ─────> wait for the push or its end, read again
//!              └─ no store ────> run the function
//! ```
//!
//! Invariant: a fault of the store never reaches the caller, and a computed value always does.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

mod fill;
mod flight;
mod function;
mod lifetime;
mod old;
mod patience;
pub(crate) mod plain;
mod run;

pub(crate) use self::fill::{Sealed, Storable, storable, try_seal};
pub(crate) use self::flight::{Stage, Stages, drive, run_here, run_shared};
pub(crate) use self::function::{Function, Lending, Lent, OwnedFunction, Returned};
pub(crate) use self::lifetime::lifetime_for;
pub(crate) use self::patience::Patience;
pub(crate) use self::run::{Fallback, give_up, leave_alone, refresh_behind, refresh_here, within};
use self::run::{run_at_most, run_under};
use crate::clock::Stopwatch;
use crate::engine::Engine;
use crate::envelope::{Envelope, Unreadable};
use crate::error::{DeadlineExceeded, Error, ErrorKind, Result};
use crate::events::{Counters, Event, StaleCause, Table, bump};
use crate::function_stats::{FunctionCounters, FunctionNumber};
use crate::history::{Scope, What};
use crate::key::EntryKey;
use crate::lease::{Lease, Obstacle};
use crate::local::Mark;
use crate::options::{FlightScope, LocalTier};
use crate::refresh::{Serving, Terms};
use crate::shape::{Returns, Rules, ValueType};
use crate::single_flight::{Landing, Leader};
use crate::store::{Over, Slot, THROTTLE_MARK, lease_key};
use crate::tag::{Agreement, Basis};
use crate::value::Erased;
use crate::versions::Dependencies;

/// How long to wait at most for somebody else's lease before looking again, whatever its time left says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

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
    /// The key of the lease, where the value is plain: shared with other programs.
    pub(crate) plain: Option<EntryKey>,
    /// That of the function, if it is known or was asked for.
    pub(crate) number: OnceLock<FunctionNumber>,
}

/// What is counted of a function, and of its cache.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tally {
    Hits,
    Misses,
    Computes,
    ComputeErrors,
    Fills,
    Renewed,
    RefusedFills,
    Stale,
    Refreshes,
    Joined,
    Waited,
}

impl Tally {
    fn of_function(self, counters: &FunctionCounters) -> &AtomicU64 {
        match self {
            Self::Hits => &counters.hits,
            Self::Misses => &counters.misses,
            Self::Computes => &counters.computes,
            Self::ComputeErrors => &counters.compute_errors,
            Self::Fills => &counters.fills,
            Self::Renewed => &counters.renewed,
            Self::RefusedFills => &counters.refused_fills,
            Self::Stale => &counters.stale,
            Self::Refreshes => &counters.refreshes,
            Self::Joined => &counters.joined,
            Self::Waited => &counters.waited,
        }
    }

    /// `None`: its event counts.
    fn of_cache(self, counters: &Counters) -> Option<&AtomicU64> {
        Some(match self {
            Self::Hits => &counters.hits,
            Self::Misses => &counters.misses,
            Self::Computes => &counters.computes,
            Self::ComputeErrors => &counters.compute_errors,
            Self::Fills => &counters.fills,
            Self::Renewed => &counters.renewed,
            Self::RefusedFills | Self::Stale => return None,
            Self::Refreshes => &counters.refreshes,
            Self::Joined => &counters.joined,
            Self::Waited => &counters.waited,
        })
    }
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
            plain: None,
            number: OnceLock::new(),
        }
    }

    /// Notes a step in the key's history, counts it for the function and its cache, and emits its event.
    pub(crate) fn observed(&self, engine: &Engine, what: What) {
        self.note(engine, what);
        let tally = match what {
            What::RunBegan => Tally::Computes,
            What::RunFailed { .. } | What::DeadlinePassed => Tally::ComputeErrors,
            What::Filled { .. } => Tally::Fills,
            What::Renewed { .. } => Tally::Renewed,
            What::FillRefused(_) => Tally::RefusedFills,
            What::StaleServed(_) => Tally::Stale,
            What::RefreshBegan => Tally::Refreshes,
            What::Waited => Tally::Waited,
            What::RefreshFailed | What::RefreshSkipped => return self.emit_event_of(engine, what),
            _ => return,
        };
        self.count(engine, tally);
        self.emit_event_of(engine, what);
    }

    /// Emits the event that goes with a step, if there is one.
    fn emit_event_of(&self, engine: &Engine, what: What) {
        let name = || Arc::clone(&self.key.name);
        engine.events.emit(match what {
            What::DeadlinePassed => Event::DeadlinePassed { name: name() },
            What::FillRefused(_) => Event::FillRefused { name: name() },
            What::StaleServed(cause) => Event::StaleServed { name: name(), cause },
            What::RefreshFailed => Event::RefreshFailed { name: name() },
            What::RefreshSkipped => Event::RefreshSkipped { name: name() },
            _ => return,
        });
    }

    /// Notes a step in the key's history only: of one id among those of a batch, which count once.
    pub(crate) fn note(&self, engine: &Engine, what: What) {
        engine.history.note(&self.key.value_key, what);
    }

    /// Counts for the function, and for its cache.
    pub(crate) fn count(&self, engine: &Engine, tally: Tally) {
        let number = self.number();
        if number.is_one_of_others() {
            engine.events.table_full(Table::FunctionNames);
        }
        if let Some(of_cache) = tally.of_cache(engine.events.count()) {
            bump(of_cache);
        }
        if let Some(counters) = engine.functions.of(number) {
            bump(tally.of_function(counters));
        }
    }

    /// That of its function.
    pub(crate) fn number(&self) -> FunctionNumber {
        *self.number.get_or_init(|| FunctionNumber::by_hand(&self.key.name))
    }

    /// What a value of it depends on; nothing is read yet.
    pub(crate) fn basis(&self, engine: &Engine) -> Basis {
        Basis::new(&engine.versions, &self.key.name, self.number(), &self.rules)
    }

    pub(crate) fn terms(&self, engine: &Engine) -> Terms {
        Terms::new(&engine.defaults, &self.rules.options, self.owned)
    }
}

/// The value past its time that a function is given before it runs. It returns this very value to keep it.
pub(crate) type OldValue = Mutex<Option<Erased>>;

/// What reading the store before any run came to.
pub(crate) enum Probed {
    /// A value to return.
    Value(Erased),
    /// A value to return while the record with this fill id is computed anew.
    Due(Erased, u64),
    /// Left to a run.
    Miss(Read),
}

/// What stood in the store when a call looked, and the versions that it goes by.
pub(crate) struct Read {
    basis: Basis,
    /// `None`: not read yet. An error: the store does not answer, which was told.
    slot: Option<std::result::Result<Slot, ()>>,
}

/// Reads the store before any flight is entered: a fresh record needs none.
pub(crate) async fn probe(engine: &Engine, plan: &Plan) -> Probed {
    let mut basis = plan.basis(engine);
    // Whoever finds a run under way waits for it: what it will bring is not there yet.
    let is_running = || engine.flights.find(&plan.key.value_key, (plan.value.type_id)()).is_some();
    if plan.rules.options.flight != FlightScope::None && is_running() {
        return Probed::Miss(Read { basis, slot: None });
    }
    match try_probe(engine, plan, &mut basis).await {
        Ok(Ok(value)) => value,
        Ok(Err(slot)) => Probed::Miss(Read { basis, slot: Some(Ok(slot)) }),
        Err(error) => {
            plan.observed(engine, What::StoreFailed(error.kind()));
            engine.store_failed(&error);
            Probed::Miss(Read { basis, slot: Some(Err(())) })
        }
    }
}

/// A call whose function borrows from its caller. `boxed` is called where the function may be needed.
pub(crate) fn read_or_run_here<'a, F: Send + 'a>(
    engine: &Arc<Engine>,
    plan: Plan,
    function: F,
    boxed: impl FnOnce(F) -> BoxFuture<'a, Returned> + Send + 'a,
) -> Stages<'a> {
    let engine = Arc::clone(engine);
    let first = async move {
        match probe(&engine, &plan).await {
            Probed::Value(value) => Stage::Done(Landing::Value(value)),
            Probed::Due(value, fill_id) => {
                let refresh = refresh_here(engine, Arc::new(plan), fill_id, boxed(function));
                Stage::Then(refresh.map(|refreshed| Stage::Done(refreshed.unwrap_or(Landing::Value(value)))).boxed())
            }
            Probed::Miss(read) => run_here(&engine, Arc::new(plan), Some(read), boxed(function)).into(),
        }
    };
    Stages::new(first.boxed())
}

async fn try_probe(engine: &Engine, plan: &Plan, basis: &mut Basis) -> Result<std::result::Result<Probed, Slot>> {
    let (slot, mark) = engine.builds.introduce(&plan.key, read(engine, plan, basis)).await?;
    let Slot::Bytes(bytes) = &slot else { return Ok(Err(slot)) };
    if !basis.is_complete() {
        return Ok(Err(slot));
    }
    let Stored::Value(served) = decode(engine, plan, basis, bytes, mark.is_some()).await? else { return Ok(Err(slot)) };
    plan.observed(engine, What::Hit { fresh_for: served.serving.fresh() });
    plan.count(engine, Tally::Hits);
    Ok(Ok(match kept(engine, plan, served, mark) {
        Hit { value, due: Some(fill_id) } => Probed::Due(value, fill_id),
        Hit { value, due: None } => Probed::Value(value),
    }))
}

/// A value that was read, kept in L1 if it may be.
fn kept(engine: &Engine, plan: &Plan, served: Served, mark: Option<Mark<'_>>) -> Hit {
    let Served { value, fill_id, payload_bytes, serving, under } = served;
    if let Some((mark, under)) = mark.zip(under) {
        mark.keep(&value, (plan.value.weigh)(&value, payload_bytes), serving.service(plan.local), under);
    }
    let is_resting = || engine.refreshes.is_resting(&plan.key.value_key, fill_id, engine.clock.coarse());
    Hit { value, due: (serving.is_due && !is_resting()).then_some(fill_id) }
}

/// A value to return; `due`: while the record with this fill id is computed anew.
struct Hit {
    value: Erased,
    due: Option<u64>,
}

/// Looks, and if there is nothing computes and stores: what one caller does for all.
async fn lead(engine: &Arc<Engine>, plan: &Arc<Plan>, read: Read, function: Function, leader: &Arc<Leader>) -> Landing {
    if let Some(lease_key) = &plan.plain {
        return plain::lead(engine, plan, lease_key, function, leader).await;
    }
    let Read { mut basis, slot } = read;
    let found = match look(engine, plan, &mut basis, slot).await {
        Found::Value(value) => {
            plan.count(engine, Tally::Hits);
            return Landing::Value(value);
        }
        Found::Due(value, fill_id) => {
            plan.count(engine, Tally::Hits);
            // One that borrows from its caller cannot run behind it: the next call refreshes.
            if let Function::Owned(function) = function {
                refresh_behind(engine, plan, fill_id, function);
            }
            return Landing::Value(value);
        }
        Found::Old(value, cause) => {
            plan.observed(engine, What::StaleServed(cause));
            return Landing::Value(value);
        }
        Found::Lease(lease, old) => (Some(lease), old.map_or(Fallback::None, Fallback::Old)),
        Found::Unleased(old, fill_id) => (None, Fallback::Unleased(old, fill_id)),
        Found::Nothing => (None, Fallback::None),
    };
    plan.count(engine, Tally::Misses);
    let waits_for_less = plan.terms(engine).soft_timeout.is_some();
    match (found, function) {
        ((Some(lease), Fallback::Old(old)), Function::Owned(function)) if waits_for_less => {
            run_at_most(engine, plan, lease, basis, old, function, leader).await
        }
        ((lease, fallback), function) => run_under(engine, plan, lease, &basis, function, fallback, leader).await,
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
    /// The record with this fill id may be fallen back on, and cannot be replaced now: compute for the caller alone.
    Unleased(Erased, u64),
    /// Nothing usable, and no store to fill: compute for the caller alone.
    Nothing,
}

/// Reads until there is a value, the lease, or no hope of either. Each round either ends or waits for a change.
async fn look(
    engine: &Arc<Engine>,
    plan: &Plan,
    basis: &mut Basis,
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
            plan.observed(engine, What::StoreFailed(error.kind()));
            engine.store_failed(&error);
            Found::Nothing
        }
    }
}

async fn try_look(engine: &Arc<Engine>, plan: &Plan, basis: &mut Basis, slot: Option<Slot>) -> Result<Found> {
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
                plan.observed(engine, What::Missed);
                engine.builds.register_all(std::slice::from_mut(basis), &plan.key).await?;
                match engine.leases.acquire(&plan.key, Over::Nothing).await? {
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
                plan.observed(engine, What::Undecodable);
                engine.events.emit(Event::Undecodable {
                    name: Arc::clone(&plan.key.name),
                    reason: "the key holds a value of another type",
                });
                engine.store.discard(key, &Slot::WrongType).await?;
                Slot::Absent
            }
            // What this caller computes is its own affair: it may be older than the write that the fence is for (R22).
            Slot::Fenced => {
                plan.observed(engine, What::Fenced);
                return Ok(Found::Nothing);
            }
            // The run before stored nothing: those who waited for it run at once, and one of them may store (X7).
            Slot::Unstored(mark) => {
                plan.observed(engine, What::NotAwaited);
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
                plan.observed(engine, What::NotAwaited);
                return Ok(Found::Nothing);
            }
            Slot::Leased(_) | Slot::Unawaited(_) if plan.rules.options.flight != FlightScope::Cluster => {
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
    Ok(match (engine.leases.acquire(&plan.key, Over::Record(fill_id)).await?, old) {
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
            plan.observed(engine, What::NotAwaited);
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
async fn read<'a>(engine: &'a Engine, plan: &Plan, basis: &mut Basis) -> Result<(Slot, Option<Mark<'a>>)> {
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
fn begin_to_wait(engine: &Engine, plan: &Plan) -> Stopwatch {
    plan.observed(engine, What::Waited);
    engine.clock.start()
}

/// Waits until the key changes or its lease must have ended, then reads it.
async fn wait<'a>(
    engine: &'a Arc<Engine>,
    plan: &Plan,
    basis: &mut Basis,
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
    /// A record of a build that knows more, with its fill id: it stays until it is replaced, as one past its time.
    Newer(u64, &'static str),
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

/// Takes a trip only for a record with tags that nothing is known of. `keeps`: the value may be kept
/// in L1.
async fn decode(engine: &Engine, plan: &Plan, basis: &Basis, bytes: &Bytes, keeps: bool) -> Result<Stored> {
    let (envelope, payload_at) = match Envelope::open(bytes, &plan.key.value_key) {
        Ok(opened) => opened,
        Err(Unreadable::Foreign(reason)) => return Ok(Stored::Foreign(reason)),
        Err(Unreadable::Newer(fill_id, reason)) => return Ok(Stored::Newer(fill_id, reason)),
    };
    Ok(match basis.agrees(&engine.versions, &envelope, keeps).await? {
        Agreement::Yes(under) => judge(engine, plan, &envelope, bytes.get(payload_at..).unwrap_or_default(), under),
        Agreement::No => Stored::Invalid(envelope.fill_id, Some(basis.ended_by(&envelope))),
        Agreement::Fenced => Stored::Fenced,
    })
}

/// Puts what was read into the history of its key.
pub(crate) fn noted(engine: &Engine, plan: &Plan, stored: Stored) -> Stored {
    let what = match &stored {
        Stored::Value(value) => What::Hit { fresh_for: value.serving.fresh() },
        Stored::Old(_) => What::Expired,
        Stored::Invalid(_, Some(scope)) => What::Outdated(*scope),
        Stored::Invalid(_, None) => What::Missed,
        Stored::Fenced => What::Fenced,
        Stored::Newer(_, reason) => {
            engine.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
            What::Undecodable
        }
        Stored::Foreign(_) => What::Undecodable,
    };
    plan.observed(engine, what);
    stored
}

/// A record whose versions stand.
pub(crate) fn judge(
    engine: &Engine,
    plan: &Plan,
    envelope: &Envelope,
    payload: &[u8],
    under: Option<Dependencies>,
) -> Stored {
    let (now, fill_id) = (engine.store.now(), envelope.fill_id);
    let terms = plan.terms(engine);
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

impl<R> Returns<R> {
    /// What the caller gets of a run.
    pub(crate) fn land(self, landing: Landing, name: &str) -> R {
        let returned = match landing {
            Landing::Value(value) => (self.of.ok)(&value),
            Landing::Failed(error) => (self.of.err)(error),
            Landing::Panicked(panic) => panic.resume(name),
            Landing::Abandoned => None,
        };
        #[expect(
            clippy::panic,
            reason = "flights are told apart by value type, and abandoned ones are led anew; only a bug here leads to it"
        )]
        returned.unwrap_or_else(|| panic!("a run of `{name}` came to a value of another type"))
    }
}
