//! The run of a batch: one call of the function under the leases of all its ids, and their
//! outcomes.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;

use super::look::Bases;
use super::{Batch, Claim, MOST_AT_A_TIME, Run, Step, TRIPS_AT_A_TIME, outcomes};
use crate::call::fill::{Storable, storable};
use crate::call::lifetime::lifetime_for;
use crate::call::plan::Tally;
use crate::call::run::{Fallback, give_up, within};
use crate::coordination::lease::{End, Lease, LeaseNotice, Renewals};
use crate::coordination::single_flight::{FlightOutcome, Running};
use crate::error::{DeadlineExceeded, Result};
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, StaleCause};
use crate::observe::history::{HistoryEvent, Refusal};
use crate::options::LocalTier;
use crate::store::Filled;
use crate::value::Erased;
use crate::versions::snapshot::VersionSnapshot;

impl Batch<'_> {
    /// Runs the function for these ids, stores what it returns, releases the other leases, and
    /// completes the ids.
    pub(super) async fn compute(&self, mut claims: Vec<Claim>, bases: Bases) -> Step {
        claims.sort_unstable_by_key(|claim| claim.at);
        let engine = self.engine;
        let ids: Vec<usize> = claims.iter().map(|claim| claim.at).collect();
        let Some(one) = ids.first().map(|at| self.plan(*at)) else { return Step::Completed };
        for plan in ids.iter().map(|at| self.plan(*at)) {
            plan.count(engine, Tally::Misses);
            plan.note(engine, HistoryEvent::RunBegan);
        }
        one.count(engine, Tally::Computes);
        let (leased, leases): (Vec<usize>, Vec<Lease>) =
            claims.iter_mut().enumerate().filter_map(|(index, claim)| Some((index, claim.lease.take()?))).unzip();
        let (started, deadline) = (engine.clock.start(), one.terms(engine).deadline);
        let (mut run, began) = (Box::pin(self.call(&ids)), engine.clock.boot());
        ids.iter().for_each(|at| self.seen(*at, began));
        let returned = {
            // Rarely needed, and then mostly for all keys.
            let by_key: OnceLock<HashMap<&str, usize>> = OnceLock::new();
            let of_keys = || ids.iter().map(|at| (&*self.plan(*at).key.value_key, *at)).collect();
            let tell = |key: &str, told: LeaseNotice| {
                if let Some(at) = by_key.get_or_init(of_keys).get(key) {
                    self.tell(*at, told);
                }
            };
            let kept = engine.leases.keep_all(&leases, &tell, run.as_mut());
            // Dropped here at the deadline: the leases are released, and waiters take over.
            within(engine, deadline, kept).await
        };
        let cost = started.elapsed();
        for (index, lease) in leased.into_iter().zip(leases) {
            if let Some(claim) = claims.get_mut(index) {
                claim.lease = Some(lease);
            }
        }
        let Some(returned) = returned else {
            self.pass_deadline(claims, &bases, deadline.unwrap_or_default(), run).await;
            return Step::Completed;
        };
        // The caller was dropped, and this run ends with it.
        let Some(returned) = returned else { return Step::Completed };
        let (mut values, mut failures) = (Vec::new(), Vec::new());
        for (claim, outcome) in claims.into_iter().zip(outcomes(returned, ids.len())) {
            let plan = self.plan(claim.at);
            match outcome {
                FlightOutcome::Value(value) => {
                    plan.note(engine, HistoryEvent::RunEnded { after: cost });
                    values.push((claim, value));
                }
                outcome => {
                    plan.note(engine, HistoryEvent::RunFailed { after: cost });
                    failures.push((claim, outcome));
                }
            }
        }
        if !failures.is_empty() {
            one.count(engine, Tally::ComputeErrors);
        }
        tokio::join!(self.store(values, &bases, cost), self.fail(failures, &bases, StaleCause::Failed));
        Step::Completed
    }

    /// Requests a call of the function from the caller. `None`: the caller was dropped.
    async fn call(&self, ids: &[usize]) -> Option<Run> {
        let one = self.plan(*ids.first()?);
        let running = {
            let held: Vec<_> = ids.iter().map(|at| self.id(*at)).collect();
            let runs = held.iter().filter_map(|id| Some(id.leader.as_ref()?.run()));
            let keys = ids.iter().map(|at| Arc::clone(&self.plan(*at).key.value_key));
            Running::new(&one.key.name, keys, runs, self.caller)
        };
        self.calls?.call(ids.to_vec(), running).await
    }

    /// Stores the values, then completes their ids.
    async fn store(&self, mut values: Vec<(Claim, Erased)>, bases: &Bases, cost: Duration) {
        let (mut unstored, mut free, mut renewals) = (Vec::new(), Vec::new(), Renewals::start(&self.engine.leases));
        for from in (0..values.len()).step_by(MOST_AT_A_TIME) {
            let left = values.iter().skip(from).filter_map(|(claim, _)| Some((claim.at, claim.lease.as_ref()?)));
            renewals.renew_when_due(&self.engine.leases, left, |at, told| self.tell(at, told)).await;
            let mut prepared = values.iter_mut().skip(from).take(MOST_AT_A_TIME).filter_map(|(claim, value)| {
                let (lease, basis) = (claim.lease.take()?, bases.of(claim.position)?);
                let (at, value) = (claim.at, Arc::clone(value));
                Some(async move {
                    let storable = self.prepare(at, &value, basis, cost).await;
                    (at, value, lease, storable)
                })
            });
            let mut fills = Vec::new();
            loop {
                // Each value may have tags of its own, whose versions are read.
                let some = join_all(prepared.by_ref().take(TRIPS_AT_A_TIME)).await;
                if some.is_empty() {
                    break;
                }
                for (at, value, lease, storable) in some {
                    match storable {
                        Ok(Ok(storable)) => fills.push((at, value, lease, storable)),
                        Ok(Err(End::Unstored)) => unstored.push(lease),
                        Ok(Err(End::Free)) => free.push(lease),
                        Err(error) => {
                            self.plan(at).note(self.engine, HistoryEvent::StoreFailed(error.kind()));
                            self.engine.store_failed(&error);
                            free.push(lease);
                        }
                    }
                }
            }
            if !fills.is_empty() {
                self.fill(fills).await;
            }
        }
        self.release(unstored, End::Unstored).await;
        self.release(free, End::Free).await;
        for (claim, value) in values {
            self.settle(claim.at, FlightOutcome::Value(value));
        }
    }

    /// Prepares a value for the store. A panic of a closure or a `Serialize` costs the fill, never
    /// the value (S10).
    async fn prepare(
        &self,
        at: usize,
        value: &Erased,
        basis: &VersionSnapshot,
        cost: Duration,
    ) -> Result<Result<Storable, End>> {
        let plan = self.plan(at);
        let prepare = async {
            match lifetime_for(self.engine, plan, value) {
                Some(lifetime) => storable(self.engine, plan, basis, value, lifetime, cost).await,
                None => {
                    plan.note(self.engine, HistoryEvent::NotStored);
                    Ok(Err(End::Unstored))
                }
            }
        };
        AssertUnwindSafe(prepare).catch_unwind().await.unwrap_or_else(|_payload| {
            plan.note(self.engine, HistoryEvent::NotStored);
            self.engine.events.emit(Event::FillPanicked { name: Arc::clone(&plan.key.name) });
            Ok(Err(End::Unstored))
        })
    }

    /// Stores the records, in as many round trips as their bytes need.
    async fn fill(&self, fills: Vec<(usize, Erased, Lease, Storable)>) {
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        for (at, value, lease, Storable { record, expiry, fresh_for, kept_by }) in fills {
            let plan = self.plan(at);
            let local = self.engine.local.as_ref().filter(|_| plan.local != LocalTier::Off);
            let mark = local.map(|local| local.begin(&plan.key.value_key));
            records.push((lease, record.clone(), expiry, mark.is_some()));
            kept.push((plan, value, mark.zip(kept_by), record.len(), fresh_for));
        }
        let filled = self.engine.leases.fill_many(records).await;
        if mutants::removed(Invariant::BatchMarksBeforeFill)
            && let Some(local) = &self.engine.local
        {
            for (plan, _, kept_by, ..) in &mut kept {
                *kept_by = kept_by.take().map(|(_, kept_by)| (local.begin(&plan.key.value_key), kept_by));
            }
        }
        let filled = match filled {
            Ok(filled) => filled,
            Err(error) => {
                kept.iter().for_each(|(plan, ..)| plan.note(self.engine, HistoryEvent::StoreFailed(error.kind())));
                return self.engine.store_failed(&error);
            }
        };
        for ((plan, value, kept_by, bytes, fresh_for), filled) in kept.into_iter().zip(filled) {
            match filled {
                Ok(Filled::Refused) => {
                    plan.observed(self.engine, HistoryEvent::FillRefused(Refusal::LeaseLost));
                    continue;
                }
                Ok(Filled::Stored) => {}
                Ok(Filled::Tracked) => {
                    if let Some((mark, (serving, under))) = kept_by {
                        mark.keep(&value, (plan.value.weigh)(&value, bytes), serving.service(plan.local), under);
                    }
                }
                Err(error) => {
                    plan.note(self.engine, HistoryEvent::StoreFailed(error.kind()));
                    self.engine.store_failed(&error);
                    continue;
                }
            }
            plan.observed(self.engine, HistoryEvent::Filled { fresh_for });
        }
    }

    /// Releases the leases, then completes the ids with an old value that is still valid, or with
    /// the failure. An id with neither stays open.
    async fn fail(&self, failures: Vec<(Claim, FlightOutcome)>, bases: &Bases, cause: StaleCause) {
        let (mut leases, mut failed, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for (Claim { at, position, lease, old: value, beside }, outcome) in failures {
            match (value, outcome) {
                (Some(value), outcome @ (FlightOutcome::Failed(_) | FlightOutcome::Abandoned)) => {
                    old.push(async move {
                        let fallback = match (&lease, beside) {
                            (None, Some(fill_id)) => Fallback::Unleased(Arc::clone(&value), fill_id),
                            _ => Fallback::Old(Arc::clone(&value)),
                        };
                        // Not a value that was invalidated meanwhile (R17).
                        let stands = give_up(self.engine, self.plan(at), lease, &fallback, End::Unstored).await
                            && match bases.of(position) {
                                Some(basis) => basis.stands(&self.engine.versions).await,
                                None => false,
                            };
                        match outcome {
                            _ if stands => self.serve_old(at, value, cause),
                            FlightOutcome::Abandoned => {}
                            outcome => self.settle(at, outcome),
                        }
                    })
                }
                (_, outcome) => {
                    leases.extend(lease);
                    failed.push((at, outcome));
                }
            }
        }
        let released = async {
            self.release(leases, End::Unstored).await;
            let failed = failed.into_iter().filter(|(_, outcome)| !matches!(outcome, FlightOutcome::Abandoned));
            failed.for_each(|(at, outcome)| self.settle(at, outcome));
        };
        let served = async {
            let mut old = old.into_iter();
            while !join_all(old.by_ref().take(TRIPS_AT_A_TIME)).await.is_empty() {}
        };
        tokio::join!(released, served);
    }

    /// Handles a passed deadline: the keys are released, and nothing that the run returns is
    /// stored.
    async fn pass_deadline(
        &self,
        claims: Vec<Claim>,
        bases: &Bases,
        deadline: Duration,
        run: impl Future<Output = Option<Run>>,
    ) {
        let ids: Vec<usize> = claims.iter().map(|claim| claim.at).collect();
        let Some(plan) = ids.first().map(|at| self.plan(*at)) else { return };
        self.engine.events.emit(Event::DeadlinePassed { name: Arc::clone(&plan.key.name) });
        plan.count(self.engine, Tally::ComputeErrors);
        ids.iter().for_each(|at| self.plan(*at).note(self.engine, HistoryEvent::DeadlinePassed));
        let outcome = match plan.overdue {
            Some(overdue) => FlightOutcome::Failed(overdue(DeadlineExceeded::new(deadline))),
            None => FlightOutcome::Abandoned,
        };
        let failures = claims.into_iter().map(|claim| (claim, outcome.clone())).collect();
        self.fail(failures, bases, StaleCause::DeadlinePassed).await;
        // The error type cannot express the deadline: the run goes on for its caller, and waiters
        // take over.
        let left: Vec<bool> = ids.iter().map(|at| self.id(*at).outcome.is_none()).collect();
        if !left.contains(&true) {
            return;
        }
        for (at, _) in ids.iter().zip(&left).filter(|(_, left)| **left) {
            // Dropping the leader abandons the flight.
            let leader = self.id(*at).leader.take();
            drop(leader);
        }
        let Some(run) = run.await else { return };
        let completed = outcomes(run, ids.len());
        for ((at, outcome), _) in ids.into_iter().zip(completed).zip(left).filter(|(_, left)| *left) {
            self.settle(at, outcome);
        }
    }

    async fn release(&self, leases: Vec<Lease>, end: End) {
        let mut leases = leases.into_iter().peekable();
        while leases.peek().is_some() {
            let chunk = leases.by_ref().take(MOST_AT_A_TIME).collect();
            if let Err(error) = self.engine.leases.release_many(chunk, end).await {
                self.engine.store_failed(&error);
            }
        }
    }
}
