//! The right to fill a key, over all processes that share the store.
//!
//! Invariant: a token belongs to one attempt. Whatever else touches the key (an invalidation, a set, an eviction, a `DEL`
//! typed by hand) ends the lease, and a fill without its lease stores nothing (R1, R2, R10, R12).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Inner;
use crate::entry::EntryKey;
use crate::error::{ErrorKind, Result};
use crate::events::bump;
use crate::store::{Acquired, Filled, Over, Slot, Token};

/// A lease that was ours when it was taken. Dropped, it is given back in the background.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    key: Arc<str>,
    token: Token,
    over: Over,
    /// Whether it has still to be given back.
    held: bool,
}

impl Lease {
    /// Takes it, or tells what stands in the way.
    pub(crate) async fn acquire(inner: &Arc<Inner>, key: &EntryKey, over: Over) -> Result<Result<Self, Slot>> {
        let lease = Self::wanted(inner, key, over);
        let acquired = inner.store.acquire(&lease.key, lease.token, inner.limits.lease, over).await;
        lease.answered(acquired)
    }

    /// Takes it in the place of a record that an invalidation has ended.
    pub(crate) async fn acquire_in_place(
        inner: &Arc<Inner>,
        key: &EntryKey,
        fill_id: u64,
    ) -> Result<Result<Self, Slot>> {
        let lease = Self::wanted(inner, key, Over::Nothing);
        let acquired = inner.store.acquire_in_place(&lease.key, lease.token, inner.limits.lease, fill_id).await;
        lease.answered(acquired)
    }

    fn wanted(inner: &Arc<Inner>, key: &EntryKey, over: Over) -> Self {
        // Made before the request: dropped while that is under way, the lease may be ours all the same.
        Self { inner: Arc::clone(inner), key: Arc::clone(&key.value_key), token: Token::random(), over, held: true }
    }

    fn answered(mut self, acquired: Result<Acquired>) -> Result<Result<Self, Slot>> {
        match acquired {
            Ok(Acquired::Ours) => Ok(Ok(self)),
            Ok(Acquired::Found(slot)) => {
                self.held = false;
                Ok(Err(slot))
            }
            Err(error) => {
                // An answer that did not come in time says nothing: given back in any case, when the store answers again.
                self.held = error.kind() == ErrorKind::Unavailable && self.inner.store.is_available();
                Err(error)
            }
        }
    }

    /// Drives `work`, and renews the lease while that goes on: at a third of its time, so that it does not end, and at half the
    /// staleness bound, so that a run that was invalidated elsewhere is not joined for longer than that.
    pub(crate) async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        let limit = self.inner.limits.lease;
        let pause = limit.mul_f64(1.0 / 3.0).min(self.inner.limits.max_staleness.mul_f64(0.5));
        let started = self.inner.clock.start();
        let renewal = async {
            // Counted from the start, so that a slow renewal does not push the next one back.
            for renewals in 1_u32.. {
                started.reaches(pause.saturating_mul(renewals)).await;
                match self.inner.store.renew(&self.key, self.token, self.over, limit).await {
                    Ok(true) => bump(&self.inner.events.count().renewals),
                    // Lost: the fill will be refused and told then. Callers that come from now on start anew.
                    Ok(false) => {
                        self.inner.flights.detach(&self.key);
                        break;
                    }
                    Err(error) => self.inner.store_failed(&error),
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

    /// Stores the record if the lease is still ours.
    pub(crate) async fn fill(mut self, record: Bytes, ttl: Duration) -> Result<Filled> {
        let filled = self.inner.store.fill(&self.key, self.token, self.over, record, ttl).await?;
        self.held = false;
        Ok(filled)
    }

    /// Gives it back, so that the next caller need not wait for its end.
    pub(crate) async fn release(mut self) -> Result<()> {
        self.inner.store.release(&self.key, self.token, self.over).await?;
        self.held = false;
        Ok(())
    }
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
