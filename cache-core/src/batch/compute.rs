//! The run of a batch: one call of the function under the leases of all ids it is asked for, and what becomes of each.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::look::Bases;
use super::{Batch, Claim, MOST_IN_A_TRIP, Returned, Step};
use crate::error::DeadlineExceeded;
use crate::events::{Event, StaleCause, bump};
use crate::history::{Refusal, What};
use crate::lease::Lease;
use crate::options::LocalTier;
use crate::read_through::{Fallback, Storable, give_up, lifetime_for, storable, unseen, within};
use crate::shape::Erased;
use crate::single_flight::{self, Landing, Panic};
use crate::store::Filled;

/// What a call of the function comes to, if it does not panic.
type Run = Result<Returned, Panic>;

impl Batch<'_> {
    /// Runs the function for these, stores what it returns, gives the other leases back, and lands them.
    pub(super) async fn compute(&self, mut claims: Vec<Claim>, bases: Bases) -> Step {
        claims.sort_unstable_by_key(|claim| claim.at);
        let (inner, counters) = (self.inner, self.inner.events.count());
        let ids: Vec<usize> = claims.iter().map(|claim| claim.at).collect();
        let Some(one) = ids.first().map(|at| self.plan(*at)) else { return Step::Landed };
        for plan in ids.iter().map(|at| self.plan(*at)) {
            bump(&counters.misses);
            plan.count(inner, |own| &own.misses);
            plan.note(inner, What::RunBegan);
        }
        bump(&counters.computes);
        one.count(inner, |own| &own.computes);
        let key = |at: &usize| Arc::clone(&self.plan(*at).key.value_key);
        let unleased: Vec<Arc<str>> =
            claims.iter().filter(|claim| claim.lease.is_none()).map(|claim| key(&claim.at)).collect();
        let (leased, leases): (Vec<usize>, Vec<Lease>) =
            claims.iter_mut().enumerate().filter_map(|(index, claim)| Some((index, claim.lease.take()?))).unzip();
        let (started, deadline) = (inner.clock.start(), one.terms(inner).deadline);
        let function = (self.function)(ids.clone());
        let mut run = Box::pin(single_flight::run_all(ids.iter().map(key).collect(), function));
        let returned = {
            let kept = Lease::keep_all(inner, &leases, async {
                if unleased.is_empty() { run.as_mut().await } else { unseen(inner, &unleased, run.as_mut()).await }
            });
            // Dropped here: the leases are given back in the background, and those who wait take over.
            within(inner, deadline, kept).await
        };
        let cost = started.elapsed();
        for (index, lease) in leased.into_iter().zip(leases) {
            if let Some(claim) = claims.get_mut(index) {
                claim.lease = Some(lease);
            }
        }
        let Some(returned) = returned else {
            self.pass_deadline(claims, &bases, deadline.unwrap_or_default(), run).await;
            return Step::Landed;
        };
        let (mut values, mut failures) = (Vec::new(), Vec::new());
        for (claim, landing) in claims.into_iter().zip(landings(returned, ids.len())) {
            let plan = self.plan(claim.at);
            match landing {
                Landing::Value(value) => {
                    plan.note(inner, What::RunEnded { after: cost });
                    values.push((claim, value));
                }
                landing => {
                    plan.note(inner, What::RunFailed { after: cost });
                    failures.push((claim, landing));
                }
            }
        }
        if !failures.is_empty() {
            bump(&counters.compute_errors);
            one.count(inner, |own| &own.compute_errors);
        }
        tokio::join!(self.store(values, &bases, cost), self.fail(failures, &bases, StaleCause::Failed));
        Step::Landed
    }

    /// Stores the values, then lands them.
    async fn store(&self, mut values: Vec<(Claim, Erased)>, bases: &Bases, cost: Duration) {
        let (mut unstored, mut fills) = (Vec::new(), Vec::new());
        let prepared = values.iter_mut().filter_map(|(claim, value)| {
            let (lease, basis) = (claim.lease.take()?, bases.of(claim.position)?);
            let (at, value) = (claim.at, Arc::clone(value));
            Some(async move {
                let plan = self.plan(at);
                let storable = match lifetime_for(self.inner, plan, &value) {
                    Some(lifetime) => storable(self.inner, plan, basis, &value, lifetime, cost).await,
                    None => {
                        plan.note(self.inner, What::NotStored);
                        Ok(None)
                    }
                };
                (at, value, lease, storable)
            })
        });
        for (at, value, lease, storable) in join_all(prepared).await {
            match storable {
                Ok(Some(storable)) => fills.push((at, value, lease, storable)),
                Ok(None) => unstored.push(lease),
                Err(error) => {
                    self.plan(at).note(self.inner, What::StoreFailed(error.kind()));
                    self.inner.store_failed(&error);
                    unstored.push(lease);
                }
            }
        }
        let mut fills = fills.into_iter().peekable();
        while fills.peek().is_some() {
            self.fill(fills.by_ref().take(MOST_IN_A_TRIP).collect()).await;
        }
        self.release(unstored).await;
        for (claim, value) in values {
            self.settle(claim.at, Landing::Value(value));
        }
    }

    /// One trip.
    async fn fill(&self, fills: Vec<(usize, Erased, Lease, Storable)>) {
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        for (at, value, lease, Storable { record, expiry, fresh_for, kept_by }) in fills {
            let plan = self.plan(at);
            let local = self.inner.local.as_ref().filter(|_| plan.local != LocalTier::Off);
            let mark = local.map(|local| local.begin(&plan.key.value_key));
            kept.push((plan, value, mark.zip(kept_by), record.len(), fresh_for));
            records.push((lease, record, expiry));
        }
        let filled = match Lease::fill_many(self.inner, records).await {
            Ok(filled) => filled,
            Err(error) => {
                kept.iter().for_each(|(plan, ..)| plan.note(self.inner, What::StoreFailed(error.kind())));
                return self.inner.store_failed(&error);
            }
        };
        for ((plan, value, kept_by, bytes, fresh_for), filled) in kept.into_iter().zip(filled) {
            match filled {
                Ok(Filled::Refused) => {
                    plan.fill_refused(self.inner, Refusal::LeaseLost);
                    continue;
                }
                Ok(Filled::Stored) => {}
                Ok(Filled::Tracked) => {
                    if let Some((mark, (serving, under))) = kept_by {
                        mark.keep(&value, bytes, serving.service(plan.local), under);
                    }
                }
                Err(error) => {
                    plan.note(self.inner, What::StoreFailed(error.kind()));
                    self.inner.store_failed(&error);
                    continue;
                }
            }
            bump(&self.inner.events.count().fills);
            plan.count(self.inner, |own| &own.fills);
            plan.note(self.inner, What::Filled { fresh_for });
        }
    }

    /// Gives the leases back, then lands what there is instead: an old value that still stands, or the failure. What is left without either
    /// is not landed.
    async fn fail(&self, failures: Vec<(Claim, Landing)>, bases: &Bases, cause: StaleCause) {
        let (mut leases, mut failed, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for (Claim { at, position, lease, old: value }, landing) in failures {
            match (value, landing) {
                (Some(value), landing @ (Landing::Failed(_) | Landing::Abandoned)) => old.push(async move {
                    let fallback = Fallback::Old(Arc::clone(&value));
                    // Not what an invalidation has ended meanwhile (R17).
                    let stands = give_up(self.inner, self.plan(at), lease, &fallback).await
                        && match bases.of(position) {
                            Some(basis) => basis.stands(self.inner).await,
                            None => false,
                        };
                    match landing {
                        _ if stands => self.serve_old(at, value, cause),
                        Landing::Abandoned => {}
                        landing => self.settle(at, landing),
                    }
                }),
                (_, landing) => {
                    leases.extend(lease);
                    failed.push((at, landing));
                }
            }
        }
        let released = async {
            self.release(leases).await;
            let failed = failed.into_iter().filter(|(_, landing)| !matches!(landing, Landing::Abandoned));
            failed.for_each(|(at, landing)| self.settle(at, landing));
        };
        tokio::join!(released, join_all(old));
    }

    /// The keys are free, and nothing that the run comes to is stored.
    async fn pass_deadline(
        &self,
        claims: Vec<Claim>,
        bases: &Bases,
        deadline: Duration,
        run: impl Future<Output = Run>,
    ) {
        let ids: Vec<usize> = claims.iter().map(|claim| claim.at).collect();
        let Some(plan) = ids.first().map(|at| self.plan(*at)) else { return };
        self.inner.events.emit(Event::DeadlinePassed { name: Arc::clone(&plan.key.name) });
        bump(&self.inner.events.count().compute_errors);
        plan.count(self.inner, |own| &own.compute_errors);
        ids.iter().for_each(|at| self.plan(*at).note(self.inner, What::DeadlinePassed));
        let landing = match plan.overdue {
            Some(overdue) => Landing::Failed(overdue(DeadlineExceeded::new(deadline))),
            None => Landing::Abandoned,
        };
        let failures = claims.into_iter().map(|claim| (claim, landing.clone())).collect();
        self.fail(failures, bases, StaleCause::DeadlinePassed).await;
        // Its caller cannot be told: the run goes on for it. Those who wait take over.
        let left: Vec<bool> = ids.iter().map(|at| self.id(*at).landing.is_none()).collect();
        if !left.contains(&true) {
            return;
        }
        for (at, _) in ids.iter().zip(&left).filter(|(_, left)| **left) {
            let duty = self.id(*at).duty.take();
            duty.into_iter().for_each(|duty| duty.land(Landing::Abandoned));
            self.inner.flights.detach(&self.plan(*at).key.value_key);
        }
        let landed = landings(run.await, ids.len());
        for ((at, landing), _) in ids.into_iter().zip(landed).zip(left).filter(|(_, left)| *left) {
            self.settle(at, landing);
        }
    }

    async fn release(&self, leases: Vec<Lease>) {
        let mut leases = leases.into_iter().peekable();
        while leases.peek().is_some() {
            let chunk = leases.by_ref().take(MOST_IN_A_TRIP).collect();
            if let Err(error) = Lease::release_many(self.inner, chunk).await {
                self.inner.store_failed(&error);
            }
        }
    }
}

/// Of each of so many ids.
fn landings(run: Run, count: usize) -> Vec<Landing> {
    let all = |landing: Landing| std::iter::repeat_n(landing, count).collect();
    match run {
        Ok(Ok(each)) => each.into_iter().map(|one| one.map_or_else(Landing::Failed, Landing::Value)).collect(),
        Ok(Err(error)) => all(Landing::Failed(error)),
        Err(panic) => all(Landing::Panicked(panic)),
    }
}
