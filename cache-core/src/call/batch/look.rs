//! Looks for the ids of a batch in the store: returns values and takes leases, with one round trip
//! for all ids at each step.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Batch, Claim, Leased, Looked, MOST_AT_A_TIME};
use crate::call::look::{end_throttle, refused};
use crate::call::patience::Patience;
use crate::call::plan::{Plan, Tally};
use crate::call::record::{Opened, Served, Stored, judge_checked, noted, open, undecodable};
use crate::call::verdict::{Request, Verdict, decide};
use crate::coordination::lease::{LeaseNotice, Renewals};
use crate::coordination::single_flight::FlightOutcome;
use crate::error::Result;
use crate::local::PendingFill;
use crate::mutants::{self, Invariant};
use crate::observe::history::HistoryEvent;
use crate::options::LocalTier;
use crate::store::{LeaseTarget, Slot};
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

/// The versions that the ids depend on: one snapshot for all, or one each if their tags differ.
pub(super) struct Bases(Vec<VersionSnapshot>);

impl Bases {
    pub(super) fn of(&self, position: usize) -> Option<&VersionSnapshot> {
        match self.0.as_slice() {
            [shared] => Some(shared),
            all => all.get(position),
        }
    }

    /// Keeps these positions, in this order.
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

/// The content of a key. `None`: the store did not answer, and an event was emitted.
pub(super) type Answered = Option<Slot>;

/// The ids without a fresh value in the store.
pub(super) struct Unserved {
    pub(super) ids: Vec<usize>,
    /// In the order of `ids`.
    pub(super) bases: Bases,
    /// The contents of their keys, in the order of `ids`. `None`: not read yet.
    slots: Option<Vec<Answered>>,
}

impl Unserved {
    pub(super) fn position(&self, at: usize) -> Option<usize> {
        // The ids are in ascending order.
        self.ids.binary_search(&at).ok()
    }

    /// Returns what was read for these ids. `None`: nothing was read.
    pub(super) fn of(self, ids: &[usize]) -> Option<(Bases, Vec<Answered>)> {
        let positions: Vec<usize> = ids.iter().filter_map(|at| self.position(*at)).collect();
        let bases = self.bases.only(&positions);
        let mut all = self.slots?;
        let slots = positions.iter().filter_map(|position| all.get_mut(*position).map(Option::take)).collect();
        Some((bases, slots))
    }
}

/// An id and the content of its key.
struct Read<'a> {
    position: usize,
    slot: Slot,
    mark: Option<PendingFill<'a>>,
}

/// An id that has no value to return.
struct Wanted {
    position: usize,
    target: LeaseTarget,
    /// The record that the lease replaces.
    slot: Slot,
    old: Option<Erased>,
}

/// What is open while a batch looks.
struct Open<'a> {
    /// Contents of keys to decide about.
    read: Vec<Read<'a>>,
    /// Leases to take.
    wanted: Vec<Wanted>,
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

    /// Serves the fresh values of the store, before any flight is entered. Returns the rest.
    pub(super) async fn probe(&self) -> Unserved {
        let all: Vec<usize> = (0..self.plans.len()).collect();
        // If a run is under way, the caller waits for it: its value is not in the store yet.
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

    /// Serves the fresh values. Returns the other ids with the contents of their keys.
    async fn try_probe(&self, all: &[usize], bases: &mut Bases) -> Result<Vec<(usize, Answered)>> {
        let read = self.introduce(all, bases).await?;
        // Their round trip failed, while an earlier one succeeded.
        let unanswered = read.len()..all.len();
        let mut left = Vec::new();
        for (read, stored) in self.judged(all, read, bases).await? {
            let at = read.position;
            let plan = self.plan(at);
            match stored.map(|stored| decide(Request::of(self.engine, plan), stored, |_| None)) {
                Some(Verdict::Serve(served)) => {
                    plan.note(self.engine, HistoryEvent::Hit { fresh_for: served.serving.fresh() });
                    self.serve(at, served, read.mark);
                }
                _ => left.push((at, Some(read.slot))),
            }
        }
        left.extend(unanswered.map(|at| (at, None)));
        Ok(left)
    }

    /// Opens and judges what was read. `None`: the versions of an id are not all known, so nothing
    /// can be served or stored.
    async fn judged<'b>(
        &'b self,
        ids: &[usize],
        read: Vec<Read<'a>>,
        bases: &'b Bases,
    ) -> Result<impl Iterator<Item = (Read<'a>, Option<Stored>)> + use<'a, 'b>> {
        let opened: Vec<(Read<'a>, &Plan, Opened)> = read
            .into_iter()
            .filter_map(|read| {
                let plan = self.plan(*ids.get(read.position)?);
                let opened = open(&read.slot, &plan.key.value_key);
                Some((read, plan, opened))
            })
            .collect();
        let records: Vec<_> = opened
            .iter()
            .filter_map(|(read, _, opened)| Some((bases.of(read.position)?, opened.envelope()?, read.mark.is_some())))
            .collect();
        let mut checks = VersionSnapshot::agree_all(&self.engine.versions, &records).await?.into_iter();
        // One time for all of them.
        let now = self.engine.store.now();
        let judged = opened.into_iter().map(move |(read, plan, opened)| {
            let basis = bases.of(read.position);
            let stored = match opened {
                Opened::Record { envelope, payload } => basis
                    .zip(checks.next())
                    .map(|(basis, check)| judge_checked(self.engine, plan, basis, (&envelope, &payload), check, now)),
                Opened::Other(stored) => Some(stored),
            };
            (read, stored.filter(|_| basis.is_some_and(VersionSnapshot::is_complete)))
        });
        Ok(judged)
    }

    /// Completes an id with a value that was read.
    fn serve(&self, at: usize, mut served: Served, mark: Option<PendingFill<'_>>) {
        let plan = self.plan(at);
        served.keep(&plan.value, plan.local, mark);
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
        let read = match slots {
            Some(slots) => slots.into_iter().enumerate().filter_map(unmarked).collect(),
            None => self.introduce(ids, &mut looked.bases).await?,
        };
        let mut open = Open { read, wanted: Vec::new() };
        while patience.look_again() {
            self.judge(ids, &mut open, looked).await?;
            if open.read.is_empty() && open.wanted.is_empty() {
                return Ok(());
            }
            self.acquire(ids, &mut open, looked).await?;
        }
        Ok(())
    }

    /// Reads. At the first read of the function in this process, also registers its build.
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
            let marks: Vec<Option<PendingFill<'a>>> = plans.iter().map(mark).collect();
            let track = marks.iter().any(Option::is_some);
            let start = read.len();
            let positions = start..start.saturating_add(chunk.len());
            let (slots, tracked) =
                match VersionSnapshot::read_many(&self.engine.versions, bases.of_all(positions.clone()), &keys, track)
                    .await
                {
                    Ok(found) => found,
                    Err(error) if read.is_empty() => return Err(error),
                    // What was read so far is valid. The rest is computed without storing.
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

    /// Decides about what was read.
    async fn judge(&self, ids: &[usize], open: &mut Open<'a>, looked: &mut Looked) -> Result<()> {
        let engine = self.engine;
        let read = std::mem::take(&mut open.read);
        let judged: Vec<_> = self.judged(ids, read, &looked.bases).await?.collect();
        for (read, stored) in judged {
            let Some(&at) = ids.get(read.position) else { continue };
            let plan = self.plan(at);
            let cooldown = |fill_id| engine.refreshes.cooldown(&plan.key.value_key, fill_id, engine.clock.coarse());
            let verdict = match stored {
                Some(stored) => decide(Request::of(engine, plan), noted(engine, plan, stored), cooldown),
                None => Verdict::Compute(None),
            };
            self.follow(at, read, verdict, None, open, looked).await?;
        }
        Ok(())
    }

    /// Takes the leases, and decides about those that were refused.
    async fn acquire(&self, ids: &[usize], open: &mut Open<'a>, looked: &mut Looked) -> Result<()> {
        let at_of = |wanted: &Wanted| ids.get(wanted.position).copied();
        let wanted = std::mem::take(&mut open.wanted);
        if let Some(first) = wanted.first().and_then(at_of) {
            self.engine.builds.register_all(&mut looked.bases.0, &self.plan(first).key).await?;
        }
        let mut wanted = wanted.into_iter();
        let mut renewals = Renewals::start(&self.engine.leases);
        loop {
            // Renewed meanwhile, or the first of many leases would end before the last is taken.
            let taken = looked.claims.iter().filter_map(|claim| Some((claim.at, claim.lease.as_ref()?)));
            let tell = |at, told| {
                // Nothing is computed yet, so a held lease says nothing about a value.
                if told == LeaseNotice::Lost {
                    self.detach(at);
                }
            };
            renewals.renew_when_due(&self.engine.leases, taken, tell).await;
            let chunk: Vec<(usize, Wanted)> =
                wanted.by_ref().take(MOST_AT_A_TIME).filter_map(|wanted| Some((at_of(&wanted)?, wanted))).collect();
            if chunk.is_empty() {
                return Ok(());
            }
            let targets: Vec<_> = chunk.iter().map(|(at, wanted)| (&self.plan(*at).key, wanted.target)).collect();
            let answers = self.engine.leases.acquire_many(&targets).await?;
            for ((at, Wanted { position, target, slot, old }), answer) in chunk.into_iter().zip(answers) {
                let beside = if let LeaseTarget::Beside(fill_id) = target { Some(fill_id) } else { None };
                match answer {
                    Ok(Ok(lease)) => looked.claims.push(Claim { at, position, lease: Some(lease), old, beside }),
                    Ok(Err(obstacle)) => {
                        // A batch has no soft timeout, so how long it has waited does not matter.
                        let verdict = refused(self.engine, self.plan(at), target, old, obstacle, Duration::ZERO);
                        let read = Read { position, slot, mark: None };
                        self.follow(at, read, verdict, beside, open, looked).await?;
                    }
                    Err(error) => {
                        self.engine.store_failed(&error);
                        looked.claims.push(Claim { at, position, lease: None, old: None, beside: None });
                    }
                }
            }
        }
    }

    /// Does what a verdict says, or notes what it needs. `beside`: the fill id of the record next
    /// to which the lease is held that the verdict is about.
    async fn follow(
        &self,
        at: usize,
        read: Read<'a>,
        verdict: Verdict,
        beside: Option<u64>,
        open: &mut Open<'a>,
        looked: &mut Looked,
    ) -> Result<()> {
        let Read { position, slot, mark } = read;
        match verdict {
            Verdict::Serve(served) => self.serve(at, served, mark),
            Verdict::ServeOld(old, cause) => self.serve_old(at, old, cause),
            Verdict::Acquire(target, old) => open.wanted.push(Wanted { position, target, slot, old }),
            Verdict::Wait(left) => looked.leased.push(Leased { at, left, beside }),
            Verdict::Compute(old) => {
                let (old, beside) = old.unzip();
                looked.claims.push(Claim { at, position, lease: None, old, beside });
            }
            Verdict::LookAt(slot) => open.read.push(Read { position, slot, mark: None }),
            Verdict::EndThrottle => {
                end_throttle(self.engine, self.plan(at)).await?;
                open.read.push(Read { position, slot, mark: None });
            }
            Verdict::Discard(reason) => {
                undecodable(self.engine, self.plan(at), reason);
                self.engine.store.discard(&self.plan(at).key.value_key, &slot).await?;
                open.wanted.push(Wanted { position, target: LeaseTarget::Empty, slot: Slot::Absent, old: None });
            }
        }
        Ok(())
    }
}
