//! The right to fill a key, over all processes that share the store.
//!
//! Invariant: a token belongs to one attempt. Whatever else touches the key (an invalidation, a set, an eviction, a `DEL`
//! typed by hand) ends the lease, and a fill without its lease stores nothing (R1, R2, R10, R12).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Inner;
use crate::clock::Stopwatch;
use crate::entry::EntryKey;
use crate::error::{Error, ErrorKind, Result};
use crate::events::bump;
use crate::history::What;
use crate::sabotage::{self, Guard};
use crate::store::{Acquired, Claim, Fill, Filled, Over, Place, Slot, Token, Want};

/// A lease that was ours when it was taken. Dropped, it is given back in the background.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    key: Arc<str>,
    token: Token,
    over: Over,
    /// Started before it was asked for: from then on it is known to have been ours.
    asked: Stopwatch,
    /// Whether it has still to be given back.
    held: bool,
}

/// What stands in the way of a lease.
pub(crate) enum Obstacle {
    /// This is there now.
    Slot(Slot),
    /// The last refresh of the record failed, and the next one has to wait that long.
    Throttle(Option<Duration>),
}

impl Lease {
    /// Takes it, or tells what stands in the way.
    pub(crate) async fn acquire(inner: &Arc<Inner>, key: &EntryKey, over: Over) -> Result<Result<Self, Obstacle>> {
        let lease = Self::wanted(inner, key, over);
        let acquired = inner.store.acquire(&lease.key, lease.token, inner.limits.lease, over).await;
        lease.answered(acquired)
    }

    /// Takes it in the place of a record that an invalidation has ended.
    pub(crate) async fn acquire_in_place(
        inner: &Arc<Inner>,
        key: &EntryKey,
        fill_id: u64,
    ) -> Result<Result<Self, Obstacle>> {
        let lease = Self::wanted(inner, key, Over::Nothing);
        let acquired = inner.store.acquire_in_place(&lease.key, lease.token, inner.limits.lease, fill_id).await;
        lease.answered(acquired)
    }

    /// Takes one for each, or tells what stands in the way, in one trip.
    pub(crate) async fn acquire_many(
        inner: &Arc<Inner>,
        wanted: &[(&EntryKey, Place)],
    ) -> Result<Vec<Result<Result<Self, Obstacle>>>> {
        let leases: Vec<Self> = wanted.iter().map(|(key, place)| Self::wanted(inner, key, place.over())).collect();
        let want = |(lease, (_, place)): (&Self, &(_, Place))| {
            let Self { key, token, .. } = lease;
            Want { key: Arc::clone(key), token: *token, place: *place }
        };
        let wants: Vec<Want> = leases.iter().zip(wanted).map(want).collect();
        // Dropped here: all of them are given back in the background.
        match inner.store.acquire_many(&wants, inner.limits.lease).await {
            Ok(answers) => Ok(leases.into_iter().zip(answers).map(|(lease, answer)| lease.answered(answer)).collect()),
            Err(error) => {
                leases.into_iter().for_each(|lease| lease.unanswered(&error));
                Err(error)
            }
        }
    }

    fn wanted(inner: &Arc<Inner>, key: &EntryKey, over: Over) -> Self {
        // Made before the request: dropped while that is under way, the lease may be ours all the same.
        Self {
            inner: Arc::clone(inner),
            key: Arc::clone(&key.value_key),
            token: token(inner),
            over,
            asked: inner.clock.start(),
            held: true,
        }
    }

    fn answered(mut self, acquired: Result<Acquired>) -> Result<Result<Self, Obstacle>> {
        match acquired {
            Ok(Acquired::Ours) => {
                self.inner.history.note(&self.key, What::LeaseTaken);
                Ok(Ok(self))
            }
            Ok(Acquired::Found(slot)) => {
                self.held = false;
                Ok(Err(Obstacle::Slot(slot)))
            }
            Ok(Acquired::Throttled(left)) => {
                self.held = false;
                Ok(Err(Obstacle::Throttle(left)))
            }
            Err(error) => {
                self.unanswered(&error);
                Err(error)
            }
        }
    }

    /// An answer that did not come in time says nothing: given back in any case, when the store answers again.
    fn unanswered(mut self, error: &Error) {
        self.held = error.kind() == ErrorKind::Unavailable && self.inner.store.is_available();
    }

    /// Drives `work`, and renews the lease while that goes on: at a third of its time, so that it does not end, and at half the
    /// staleness bound, since a run that may have been invalidated elsewhere is not joined for longer than that. Where the store does not
    /// answer, the run goes on for those who wait for it.
    pub(crate) async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        Self::keep_all(&self.inner, std::slice::from_ref(self), work).await
    }

    /// The same for the leases of one run, renewed together.
    pub(crate) async fn keep_all<T>(inner: &Inner, leases: &[Self], work: impl Future<Output = T>) -> T {
        let limit = inner.limits.lease;
        let pause = limit.mul_f64(1.0 / 3.0).min(inner.limits.max_staleness.mul_f64(0.5));
        let started = inner.clock.start();
        let renewal = async {
            let mut claims: Vec<Claim> = leases.iter().map(Self::claim).collect();
            let (mut seen, mut is_joined) =
                (leases.first().map_or_else(|| started.clone(), |first| first.asked.clone()), true);
            // Counted from the start, so that a slow renewal does not push the next one back.
            for renewals in 1_u32.. {
                if claims.is_empty() {
                    break;
                }
                let (asked, renewed) = {
                    let mut renewed = pin!(async {
                        started.reaches(pause.saturating_mul(renewals)).await;
                        let asked = inner.clock.start();
                        (asked, inner.store.renew_many(&claims, limit).await)
                    });
                    tokio::select! {
                        biased;
                        renewed = &mut renewed => renewed,
                        () = seen.reaches(inner.limits.max_staleness), if is_joined => {
                            is_joined = sabotage::is(Guard::UnseenRunDetaches);
                            if !is_joined {
                                claims.iter().for_each(|claim| inner.flights.detach(&claim.key));
                            }
                            renewed.await
                        }
                    }
                };
                let renewed = match renewed {
                    Ok(renewed) => renewed,
                    Err(error) => {
                        inner.store_failed(&error);
                        continue;
                    }
                };
                let (before, mut told) = (claims.len(), 0_usize);
                let mut answers = renewed.into_iter();
                claims.retain(|claim| match answers.next() {
                    Some(Ok(true)) => {
                        told = told.saturating_add(1);
                        bump(&inner.events.count().renewals);
                        inner.history.note(&claim.key, What::LeaseRenewed);
                        true
                    }
                    // Lost: the fill will be refused and told then. Callers that come from now on start anew.
                    Some(Ok(false)) => {
                        if !sabotage::is(Guard::LostLeaseDetaches) {
                            inner.history.note(&claim.key, What::LeaseLost);
                            inner.flights.detach(&claim.key);
                        }
                        told = told.saturating_add(1);
                        false
                    }
                    Some(Err(error)) => {
                        inner.store_failed(&error);
                        true
                    }
                    None => true,
                });
                if told == before {
                    seen = asked;
                }
            }
            std::future::pending::<T>().await
        };
        tokio::select! {
            biased;
            done = work => done,
            never = renewal => never,
        }
    }

    fn claim(&self) -> Claim {
        Claim { key: Arc::clone(&self.key), token: self.token, over: self.over }
    }

    /// Stores the record if the lease is still ours.
    pub(crate) async fn fill(mut self, record: Bytes, ttl: Duration) -> Result<Filled> {
        let filled = self.inner.store.fill(&self.key, self.token, self.over, record, ttl).await?;
        self.held = false;
        Ok(filled)
    }

    /// The same for each, in one trip.
    pub(crate) async fn fill_many(inner: &Inner, fills: Vec<(Self, Bytes, Duration)>) -> Result<Vec<Result<Filled>>> {
        let fill = |(lease, record, expiry): &(Self, Bytes, Duration)| Fill {
            claim: lease.claim(),
            record: record.clone(),
            expiry: *expiry,
        };
        let filled = inner.store.fill_many(&fills.iter().map(fill).collect::<Vec<_>>()).await?;
        for ((lease, ..), _) in fills.into_iter().zip(&filled).filter(|(_, filled)| filled.is_ok()) {
            lease.forget();
        }
        Ok(filled)
    }

    /// Gives them back in one trip.
    pub(crate) async fn release_many(inner: &Inner, leases: Vec<Self>) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        inner.store.release_many(&leases.iter().map(Self::claim).collect::<Vec<_>>()).await?;
        leases.into_iter().for_each(Self::forget);
        Ok(())
    }

    /// There is nothing to give back any more.
    fn forget(mut self) {
        self.held = false;
    }

    /// Rewrites the first bytes of the record that the lease is beside, if both still stand.
    pub(crate) async fn rewrite_head(mut self, head: Bytes, expiry: Duration) -> Result<bool> {
        let Over::Record(fill_id) = self.over else { return self.release().await.map(|()| false) };
        let rewritten = self.inner.store.rewrite_head(&self.key, self.token, fill_id, head, expiry).await?;
        self.held = false;
        Ok(rewritten)
    }

    /// Which record it is beside.
    pub(crate) fn over(&self) -> Over {
        self.over
    }

    /// Gives it back after a failed refresh: no process tries again for that long. Whether it was still ours, and so the record still stood.
    pub(crate) async fn throttle(mut self, throttle: Duration) -> Result<bool> {
        let stood = self.inner.store.throttle(&self.key, self.token, throttle).await?;
        self.held = false;
        Ok(stood)
    }

    /// Gives it back, so that the next caller need not wait for its end.
    pub(crate) async fn release(mut self) -> Result<()> {
        self.inner.store.release(&self.key, self.token, self.over).await?;
        self.held = false;
        Ok(())
    }
}

/// A new token. Without its guard it is the client's, as in libraries that leave it at that.
fn token(inner: &Arc<Inner>) -> Token {
    if sabotage::is(Guard::TokenOfAttempt) {
        return Token::from_bits(Arc::as_ptr(inner).addr() as u128);
    }
    Token::random()
}

/// A caller that is dropped must not make the next one wait for the lease's end.
impl Drop for Lease {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let (inner, key, token, over) = (Arc::clone(&self.inner), Arc::clone(&self.key), self.token, self.over);
        // Outside a runtime or after the shutdown nobody can: then the lease runs out by itself.
        let _spawned = self.inner.background.work(async move {
            if let Err(error) = inner.store.release(&key, token, over).await {
                inner.store_failed(&error);
            }
        });
    }
}
