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
use crate::error::Result;
use crate::store::{Acquired, Over, Slot, Token};

/// A lease that was ours when it was taken.
#[derive(Debug)]
pub(crate) struct Lease {
    key: Arc<str>,
    token: Token,
    over: Over,
}

impl Lease {
    /// Takes it, or tells what stands in the way.
    pub(crate) async fn acquire(inner: &Inner, key: &EntryKey, over: Over) -> Result<Result<Self, Slot>> {
        let token = Token::random();
        match inner.store.acquire(&key.value_key, token, inner.limits.lease, over).await? {
            Acquired::Ours => Ok(Ok(Self { key: Arc::clone(&key.value_key), token, over })),
            Acquired::Found(slot) => Ok(Err(slot)),
        }
    }

    /// Drives `work`, and renews the lease at a third of its time while that goes on.
    pub(crate) async fn keep<T>(&self, inner: &Inner, work: impl Future<Output = T>) -> T {
        let renewal = async {
            loop {
                inner.clock.sleep(inner.limits.lease / 3).await;
                match inner.store.renew(&self.key, self.token, self.over, inner.limits.lease).await {
                    Ok(true) => {}
                    // Lost: the fill will be refused and told then.
                    Ok(false) => break,
                    Err(error) => inner.events.store_failed(&error),
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

    /// Stores the record if the lease is still ours; `false` if not.
    pub(crate) async fn fill(self, inner: &Inner, record: Bytes, ttl: Duration) -> Result<bool> {
        inner.store.fill(&self.key, self.token, self.over, record, ttl).await
    }

    /// Gives it back, so that the next caller need not wait for its end.
    pub(crate) async fn release(self, inner: &Inner) -> Result<()> {
        inner.store.release(&self.key, self.token, self.over).await
    }
}
