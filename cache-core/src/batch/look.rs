//! What stands under the keys of a batch: values land, what is not there is leased, all ids with one trip at each step.

use std::ops::Range;
use std::sync::Arc;

use super::{Batch, Claim, Leased, Looked, MAX_ROUNDS, MOST_IN_A_TRIP};
use crate::envelope::Envelope;
use crate::error::Result;
use crate::events::{Event, StaleCause, bump};
use crate::history::What;
use crate::lease::{Lease, Obstacle};
use crate::local::Mark;
use crate::options::{FlightScope, LocalTier};
use crate::read_through::{Old, Plan, Served, Stored, judge, leave_alone, noted};
use crate::shape::Erased;
use crate::single_flight::Landing;
use crate::store::{Place, Slot, THROTTLE_MARK, lease_key};
use crate::tag::{Agreement, Basis};

/// The versions that ids go by: one for all, or one each if their tags differ.
pub(super) struct Bases(Vec<Basis>);

impl Bases {
    pub(super) fn of(&self, position: usize) -> Option<&Basis> {
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
type Opened = Option<std::result::Result<(Envelope, usize), &'static str>>;

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
        let basis = |plan: &Plan| Basis::new(self.inner, &plan.key.name, Some(&plan.rules));
        let first = plans().next();
        match first.filter(|first| plans().all(|plan| Arc::ptr_eq(&plan.rules, &first.rules))) {
            Some(first) => Bases(vec![basis(first)]),
            None => Bases(plans().map(basis).collect()),
        }
    }

    pub(super) async fn try_look(&self, ids: &[usize], looked: &mut Looked) -> Result<()> {
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
        let opened: Vec<Opened> =
            read.iter().map(|Read { position, slot, .. }| self.open(ids, *position, slot)).collect();
        let records = read.iter().zip(&opened).filter_map(|(read, opened)| {
            let (envelope, _) = opened.as_ref()?.as_ref().ok()?;
            Some((bases.of(read.position)?, envelope))
        });
        let mut agreements = Basis::agree_all(self.inner, &records.collect::<Vec<_>>()).await?.into_iter();
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
                Verdict::Uncached => claims.push(Claim { at, position, lease: None, old: None }),
                Verdict::Leased(left) => leased.push(Leased { at, left, beside: None }),
                Verdict::Want(place, old) => wanted.push(Wanted { position, place, slot, old }),
                Verdict::Foreign(reason) => {
                    let key = &self.plan(at).key;
                    self.inner.events.emit(Event::Undecodable { name: Arc::clone(&key.name), reason });
                    self.inner.store.discard(&key.value_key, &slot).await?;
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
        agreement: Option<Agreement>,
        basis: &Basis,
    ) -> Verdict {
        let (inner, plan) = (self.inner, self.plan(at));
        let Read { slot, mark, .. } = read;
        let bytes = match slot {
            Slot::Absent => {
                plan.note(inner, What::Missed);
                return Verdict::Want(Place::Empty, None);
            }
            // What is computed here may be older than the write that the fence is for (R22).
            Slot::Fenced => {
                plan.note(inner, What::Fenced);
                return Verdict::Uncached;
            }
            Slot::Leased(_) if plan.rules.options.flight != FlightScope::Cluster => return Verdict::Uncached,
            Slot::Leased(left) => return Verdict::Leased(left),
            Slot::WrongType => {
                plan.note(inner, What::Undecodable);
                return Verdict::Foreign("the key holds a value of another type");
            }
            Slot::Bytes(bytes) => bytes,
        };
        let stored = match (opened, agreement) {
            (Some(Ok((envelope, payload_at))), Some(Agreement::Yes(under))) => {
                judge(inner, plan, &envelope, bytes.get(payload_at..).unwrap_or_default(), under)
            }
            (Some(Ok(_)), Some(Agreement::Fenced)) => Stored::Fenced,
            (Some(Ok((envelope, _))), _) => Stored::Invalid(envelope.fill_id, Some(basis.ended_by(&envelope))),
            (Some(Err(reason)), _) => Stored::Foreign(reason),
            (None, _) => return Verdict::Uncached,
        };
        match noted(inner, plan, stored) {
            Stored::Value(Served { fill_id, .. }) | Stored::Old(Old { fill_id, .. }) if plan.refresh => {
                Verdict::Want(Place::Beside(fill_id), None)
            }
            Stored::Value(served) => {
                if let Some((mark, under)) = mark.zip(served.under) {
                    mark.keep(&served.value, served.payload_bytes, served.serving.service(plan.local), under);
                }
                bump(&inner.events.count().hits);
                plan.count(inner, |own| &own.hits);
                self.settle(at, Landing::Value(served.value));
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
            // As with a fence in the record's place.
            Stored::Fenced => Verdict::Uncached,
            Stored::Foreign(reason) => Verdict::Foreign(reason),
        }
    }

    fn resting(&self, plan: &Plan, fill_id: u64) -> Option<StaleCause> {
        self.inner.refreshes.resting(&plan.key.value_key, fill_id, self.inner.clock.coarse())
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
}
