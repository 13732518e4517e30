//! What stands under the keys of a batch: values land, what is not there is leased, all ids with one trip at each step.

use std::ops::Range;
use std::sync::Arc;

use super::{Batch, Claim, Leased, Looked, MOST_AT_A_TIME};
use crate::call::cooldown::leave_alone;
use crate::call::patience::Patience;
use crate::call::plan::{Plan, Tally};
use crate::call::record::{Old, Served, Stored, judge, noted};
use crate::coordination::lease::{Obstacle, Renewals, Told};
use crate::coordination::single_flight::FlightOutcome;
use crate::error::Result;
use crate::local::Mark;
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, StaleCause};
use crate::observe::history::HistoryEvent;
use crate::options::{LocalTier, SingleFlightScope};
use crate::store::{Place, Slot, THROTTLE_MARK, lease_key};
use crate::value::Erased;
use crate::value::envelope::{Envelope, Unreadable};
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// The versions that ids go by: one for all, or one each if their tags differ.
pub(super) struct Bases(Vec<VersionSnapshot>);

impl Bases {
    pub(super) fn of(&self, position: usize) -> Option<&VersionSnapshot> {
        match self.0.as_slice() {
            [shared] => Some(shared),
            all => all.get(position),
        }
    }

    /// Of these positions, in this order.
    fn only(self, positions: &[usize]) -> Self {
        if self.0.len() <= 1 {
            return self;
        }
        let mut all: Vec<Option<VersionSnapshot>> = self.0.into_iter().map(Some).collect();
        Self(positions.iter().filter_map(|position| all.get_mut(*position)?.take()).collect())
    }

    fn of_all(&mut self, positions: Range<usize>) -> &mut [VersionSnapshot] {
        match self.0.as_mut_slice() {
            shared @ [_] => shared,
            all => all.get_mut(positions).unwrap_or_default(),
        }
    }
}

/// What stood under a key. `None`: the store did not answer, which was told.
pub(super) type Answered = Option<Slot>;

/// The ids that the store has no fresh value of.
pub(super) struct Unserved {
    pub(super) ids: Vec<usize>,
    /// In their order.
    pub(super) bases: Bases,
    /// What stood under their keys, in their order. `None`: not read yet.
    slots: Option<Vec<Answered>>,
}

impl Unserved {
    pub(super) fn position(&self, at: usize) -> Option<usize> {
        // They rise.
        self.ids.binary_search(&at).ok()
    }

    /// What was read of these ids. `None`: nothing.
    pub(super) fn of(self, ids: &[usize]) -> Option<(Bases, Vec<Answered>)> {
        let positions: Vec<usize> = ids.iter().filter_map(|at| self.position(*at)).collect();
        let bases = self.bases.only(&positions);
        let mut all = self.slots?;
        let slots = positions.iter().filter_map(|position| all.get_mut(*position).map(Option::take)).collect();
        Some((bases, slots))
    }
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

/// A record's header and where its payload begins, or why it is none; `None`: no bytes.
type Opened = Option<std::result::Result<(Envelope, usize), Unreadable>>;

/// What is to be done about an id.
enum Verdict {
    /// Nothing any more.
    Landed,
    /// To be computed, if the lease is to be had.
    Want(Place, Option<Erased>),
    /// Somebody else computes it.
    Leased(Option<std::time::Duration>),
    /// To be computed for its callers alone.
    Uncached,
    /// There is something that is no record, and has to go.
    Foreign(&'static str),
}

impl<'a> Batch<'a> {
    pub(super) fn bases(&self, ids: &[usize]) -> Bases {
        let plans = || ids.iter().map(|at| self.plan(*at));
        let basis = |plan: &Plan| plan.basis(self.engine);
        let first = plans().next();
        match first.filter(|first| plans().all(|plan| Arc::ptr_eq(&plan.rules, &first.rules))) {
            Some(first) => Bases(vec![basis(first)]),
            None => Bases(plans().map(basis).collect()),
        }
    }

    /// Serves what the store has fresh, before any flight is entered. What is left is for a run.
    pub(super) async fn probe(&self) -> Unserved {
        let all: Vec<usize> = (0..self.plans.len()).collect();
        // Whoever finds a run under way waits for it: what it will bring is not there yet.
        let is_running = |at: &usize| {
            let Plan { key, value, .. } = self.plan(*at);
            self.shares(*at) && self.engine.flights.find(&key.value_key, (value.type_id)()).is_some()
        };
        if all.iter().any(|at| self.plan(*at).refresh || is_running(at)) {
            return Unserved { bases: self.bases(&all), ids: all, slots: None };
        }
        let mut bases = self.bases(&all);
        let slots = match self.try_probe(&all, &mut bases).await {
            Ok(slots) => slots,
            Err(error) => {
                all.iter().for_each(|at| self.plan(*at).note(self.engine, HistoryEvent::StoreFailed(error.kind())));
                self.engine.store_failed(&error);
                let slots = Some(all.iter().map(|_| None).collect());
                return Unserved { bases, ids: all, slots };
            }
        };
        let (ids, slots): (Vec<usize>, Vec<Answered>) = slots.into_iter().unzip();
        Unserved { bases: bases.only(&ids), ids, slots: Some(slots) }
    }

    /// What stands under the ids that have no value to return.
    async fn try_probe(&self, all: &[usize], bases: &mut Bases) -> Result<Vec<(usize, Answered)>> {
        let read = self.introduce(all, bases).await?;
        // Their trip failed, one before it did not.
        let unanswered = read.len()..all.len();
        let opened: Vec<Opened> =
            read.iter().map(|Read { position, slot, .. }| self.open(all, *position, slot)).collect();
        let records = read.iter().zip(&opened).filter_map(|(read, opened)| {
            let (envelope, _) = opened.as_ref()?.as_ref().ok()?;
            Some((bases.of(read.position)?, envelope, read.mark.is_some()))
        });
        let mut agreements =
            VersionSnapshot::agree_all(&self.engine.versions, &records.collect::<Vec<_>>()).await?.into_iter();
        let mut left = Vec::new();
        for (read, opened) in read.into_iter().zip(opened) {
            let agreement = if let Some(Ok(_)) = &opened { agreements.next() } else { None };
            let is_complete = bases.of(read.position).is_some_and(VersionSnapshot::is_complete);
            let stored = match (&read.slot, opened, agreement) {
                (Slot::Bytes(bytes), Some(Ok((envelope, payload_at))), Some(VersionCheck::Yes(under)))
                    if is_complete =>
                {
                    let payload = bytes.get(payload_at..).unwrap_or_default();
                    Some(judge(self.engine, self.plan(read.position), &envelope, payload, under))
                }
                _ => None,
            };
            match stored {
                Some(Stored::Value(served)) => {
                    self.plan(read.position).note(self.engine, HistoryEvent::Hit { fresh_for: served.serving.fresh() });
                    self.serve(read.position, served, read.mark);
                }
                _ => left.push((read.position, Some(read.slot))),
            }
        }
        left.extend(unanswered.map(|at| (at, None)));
        Ok(left)
    }

    /// Lands a value that was read.
    fn serve(&self, at: usize, served: Served, mark: Option<Mark<'_>>) {
        let plan = self.plan(at);
        if let Some((mark, under)) = mark.zip(served.under) {
            let weight = (plan.value.weigh)(&served.value, served.payload_bytes);
            mark.keep(&served.value, weight, served.serving.service(plan.local), under);
        }
        plan.count(self.engine, Tally::Hits);
        self.settle(at, FlightOutcome::Value(served.value));
    }

    pub(super) async fn try_look(
        &self,
        ids: &[usize],
        slots: Option<Vec<Answered>>,
        looked: &mut Looked,
        mut patience: Patience,
    ) -> Result<()> {
        let unmarked = |(position, slot): (usize, Answered)| Some(Read { position, slot: slot?, mark: None });
        let mut read = match slots {
            Some(slots) => slots.into_iter().enumerate().filter_map(unmarked).collect(),
            None => self.introduce(ids, &mut looked.bases).await?,
        };
        while patience.look_again() {
            let wanted = self.sort(ids, read, looked).await?;
            if wanted.is_empty() {
                return Ok(());
            }
            read = self.acquire(ids, wanted, looked).await?;
        }
        Ok(())
    }

    /// Reads; beside the first read of the function in this process, its build is registered.
    async fn introduce(&self, ids: &[usize], bases: &mut Bases) -> Result<Vec<Read<'a>>> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        self.engine.builds.introduce(&self.plan(*first).key, self.read(ids, bases)).await
    }

    async fn read(&self, ids: &[usize], bases: &mut Bases) -> Result<Vec<Read<'a>>> {
        let mut read = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(MOST_AT_A_TIME) {
            let plans: Vec<&Plan> = chunk.iter().map(|at| self.plan(*at)).collect();
            let keys: Vec<Arc<str>> = plans.iter().map(|plan| Arc::clone(&plan.key.value_key)).collect();
            // Before the read is sent.
            let mark = |plan: &&Plan| {
                let local = self.engine.local.as_ref().filter(|_| plan.local != LocalTier::Off);
                local.map(|local| local.begin(&plan.key.value_key))
            };
            let marks: Vec<Option<Mark<'a>>> = plans.iter().map(mark).collect();
            let track = marks.iter().any(Option::is_some);
            let start = read.len();
            let positions = start..start.saturating_add(chunk.len());
            let (slots, tracked) =
                match VersionSnapshot::read_many(&self.engine.versions, bases.of_all(positions.clone()), &keys, track)
                    .await
                {
                    Ok(found) => found,
                    Err(error) if read.is_empty() => return Err(error),
                    // What was read before is good. The others are computed for their callers alone.
                    Err(error) => {
                        let left = ids.iter().skip(start);
                        left.for_each(|at| self.plan(*at).note(self.engine, HistoryEvent::StoreFailed(error.kind())));
                        self.engine.store_failed(&error);
                        break;
                    }
                };
            let is_late = mutants::removed(Invariant::BatchMarksBeforeRead);
            let marks = if is_late { plans.iter().map(mark).collect() } else { marks };
            let all = positions.zip(slots).zip(marks);
            read.extend(all.map(|((position, slot), mark)| Read { position, slot, mark: mark.filter(|_| tracked) }));
        }
        Ok(read)
    }

    /// Lands the ids that have a value to return; those that are to be computed, if nobody else does.
    async fn sort(&self, ids: &[usize], read: Vec<Read<'a>>, looked: &mut Looked) -> Result<Vec<Wanted>> {
        let Looked { bases, claims, leased } = looked;
        let opened: Vec<Opened> =
            read.iter().map(|Read { position, slot, .. }| self.open(ids, *position, slot)).collect();
        let records = read.iter().zip(&opened).filter_map(|(read, opened)| {
            let (envelope, _) = opened.as_ref()?.as_ref().ok()?;
            Some((bases.of(read.position)?, envelope, read.mark.is_some()))
        });
        let mut agreements =
            VersionSnapshot::agree_all(&self.engine.versions, &records.collect::<Vec<_>>()).await?.into_iter();
        let mut wanted = Vec::new();
        for (read, opened) in read.into_iter().zip(opened) {
            let Some(&at) = ids.get(read.position) else { continue };
            let agreement = if let Some(Ok(_)) = &opened { agreements.next() } else { None };
            let (position, slot) = (read.position, read.slot.clone());
            let verdict = match bases.of(position) {
                Some(basis) if basis.is_complete() => self.verdict(at, read, opened, agreement, basis),
                _ => Verdict::Uncached,
            };
            match verdict {
                Verdict::Landed => {}
                Verdict::Uncached => claims.push(Claim { at, position, lease: None, old: None, beside: None }),
                Verdict::Leased(left) => leased.push(Leased { at, left, beside: None }),
                Verdict::Want(place, old) => wanted.push(Wanted { position, place, slot, old }),
                Verdict::Foreign(reason) => {
                    let key = &self.plan(at).key;
                    self.engine.events.emit(Event::Undecodable { name: Arc::clone(&key.name), reason });
                    self.engine.store.discard(&key.value_key, &slot).await?;
                    wanted.push(Wanted { position, place: Place::Empty, slot: Slot::Absent, old: None });
                }
            }
        }
        Ok(wanted)
    }

    fn open(&self, ids: &[usize], position: usize, slot: &Slot) -> Opened {
        let Slot::Bytes(bytes) = slot else { return None };
        Some(Envelope::open(bytes, &self.plan(*ids.get(position)?).key.value_key))
    }

    /// Lands the id if there is a value to return.
    fn verdict(
        &self,
        at: usize,
        read: Read<'a>,
        opened: Opened,
        agreement: Option<VersionCheck>,
        basis: &VersionSnapshot,
    ) -> Verdict {
        let (engine, plan) = (self.engine, self.plan(at));
        let Read { slot, mark, .. } = read;
        let bytes = match slot {
            Slot::Absent => {
                plan.note(engine, HistoryEvent::Missed);
                return Verdict::Want(Place::Empty, None);
            }
            // What is computed here may be older than the write that the fence is for (R22).
            Slot::Fenced => {
                plan.note(engine, HistoryEvent::Fenced);
                return Verdict::Uncached;
            }
            // The run before stored nothing: those who waited for it run at once, and one of them may store (X7).
            Slot::Unstored(mark) => {
                plan.note(engine, HistoryEvent::NotAwaited);
                return Verdict::Want(Place::OverMark(mark), None);
            }
            Slot::Unawaited(_) if !plan.refresh => {
                plan.note(engine, HistoryEvent::NotAwaited);
                return Verdict::Uncached;
            }
            Slot::Leased(_) | Slot::Unawaited(_) if plan.rules.options.single_flight != SingleFlightScope::Cluster => {
                return Verdict::Uncached;
            }
            Slot::Leased(left) | Slot::Unawaited(left) => return Verdict::Leased(left),
            Slot::WrongType => {
                plan.note(engine, HistoryEvent::Undecodable);
                return Verdict::Foreign("the key holds a value of another type");
            }
            Slot::Bytes(bytes) => bytes,
        };
        let stored = match (opened, agreement) {
            (Some(Ok((envelope, payload_at))), Some(VersionCheck::Yes(under))) => {
                judge(engine, plan, &envelope, bytes.get(payload_at..).unwrap_or_default(), under)
            }
            (Some(Ok(_)), Some(VersionCheck::Fenced)) => Stored::Fenced,
            (Some(Ok((envelope, _))), _) => Stored::Invalid(envelope.fill_id, Some(basis.ended_by(&envelope))),
            (Some(Err(Unreadable::Newer(fill_id, reason))), _) => Stored::Newer(fill_id, reason),
            (Some(Err(Unreadable::Foreign(reason))), _) => Stored::Foreign(reason),
            (None, _) => return Verdict::Uncached,
        };
        match noted(engine, plan, stored) {
            Stored::Value(Served { fill_id, .. }) | Stored::Old(Old { fill_id, .. }) if plan.refresh => {
                Verdict::Want(Place::Beside(fill_id), None)
            }
            Stored::Value(served) => {
                self.serve(at, served, mark);
                Verdict::Landed
            }
            Stored::Old(Old { fill_id, value }) => match self.resting(plan, fill_id).zip(value.as_ref()) {
                Some((cause, old)) => {
                    self.serve_old(at, Arc::clone(old), cause);
                    Verdict::Landed
                }
                None => Verdict::Want(Place::Beside(fill_id), value),
            },
            Stored::Invalid(fill_id, _) => Verdict::Want(Place::Instead(fill_id), None),
            Stored::Newer(fill_id, _) => Verdict::Want(Place::Beside(fill_id), None),
            // As with a fence in the record's place.
            Stored::Fenced => Verdict::Uncached,
            Stored::Foreign(reason) => Verdict::Foreign(reason),
        }
    }

    fn resting(&self, plan: &Plan, fill_id: u64) -> Option<StaleCause> {
        self.engine.refreshes.resting(&plan.key.value_key, fill_id, self.engine.clock.coarse())
    }

    /// Takes the leases; what stands in their way is to be sorted again.
    async fn acquire(&self, ids: &[usize], wanted: Vec<Wanted>, looked: &mut Looked) -> Result<Vec<Read<'a>>> {
        let at_of = |wanted: &Wanted| ids.get(wanted.position).copied();
        if let Some(first) = wanted.first().and_then(at_of) {
            self.engine.builds.register_all(&mut looked.bases.0, &self.plan(first).key).await?;
        }
        let mut again = Vec::new();
        let mut wanted = wanted.into_iter();
        let mut renewals = Renewals::start(&self.engine.leases);
        loop {
            // The first of many would end before the last is taken.
            let taken = looked.claims.iter().filter_map(|claim| Some((claim.at, claim.lease.as_ref()?)));
            let tell = |at, told| {
                // Nothing is computed yet: that they stand says nothing of a value.
                if told == Told::Lost {
                    self.detach(at);
                }
            };
            renewals.renew_when_due(&self.engine.leases, taken, tell).await;
            let chunk: Vec<(usize, Wanted)> =
                wanted.by_ref().take(MOST_AT_A_TIME).filter_map(|wanted| Some((at_of(&wanted)?, wanted))).collect();
            if chunk.is_empty() {
                return Ok(again);
            }
            let places: Vec<_> = chunk.iter().map(|(at, wanted)| (&self.plan(*at).key, wanted.place)).collect();
            let answers = self.engine.leases.acquire_many(&places).await?;
            for ((at, Wanted { position, place, slot, old }), answer) in chunk.into_iter().zip(answers) {
                let beside = if let Place::Beside(fill_id) = place { Some(fill_id) } else { None };
                match answer {
                    Ok(Ok(lease)) => looked.claims.push(Claim { at, position, lease: Some(lease), old, beside }),
                    // Somebody else refreshes it.
                    Ok(Err(Obstacle::Slot(Slot::Unawaited(_)))) if beside.is_some() && !self.plan(at).refresh => {
                        self.plan(at).note(self.engine, HistoryEvent::NotAwaited);
                        looked.claims.push(Claim { at, position, lease: None, old, beside });
                    }
                    Ok(Err(Obstacle::Slot(Slot::Leased(left) | Slot::Unawaited(left)))) if beside.is_some() => {
                        looked.leased.push(Leased { at, left, beside });
                    }
                    // Another took the mark: this one runs at once too.
                    Ok(Err(Obstacle::Slot(Slot::Unstored(_)))) if matches!(place, Place::OverMark(_)) => {
                        looked.claims.push(Claim { at, position, lease: None, old: None, beside: None });
                    }
                    Ok(Err(Obstacle::Slot(slot))) => again.push(Read { position, slot, mark: None }),
                    Ok(Err(Obstacle::Throttle(left))) => match old {
                        Some(old) => {
                            leave_alone(self.engine, self.plan(at), beside.unwrap_or_default(), left);
                            self.serve_old(at, old, StaleCause::Throttled);
                        }
                        // Whoever has nothing to serve meanwhile is not held up by another's failure.
                        None => {
                            let throttle = Slot::Bytes(THROTTLE_MARK.into());
                            let key = lease_key(&self.plan(at).key.value_key);
                            self.engine.store.discard(&key, &throttle).await?;
                            again.push(Read { position, slot, mark: None });
                        }
                    },
                    Err(error) => {
                        self.engine.store_failed(&error);
                        looked.claims.push(Claim { at, position, lease: None, old: None, beside: None });
                    }
                }
            }
        }
    }
}
