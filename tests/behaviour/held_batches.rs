//! Batches whose caller holds them and does not poll them, and who waits for their ids.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_core::error::DeadlineExceeded;
use cache_core::{Cache, cached};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use support::{eventually, on_both_stores, soon};

use super::runs::in_time;

#[derive(Debug, Clone, PartialEq)]
struct Late;

impl From<DeadlineExceeded> for Late {
    fn from(_: DeadlineExceeded) -> Self {
        Self
    }
}

/// Only the first run is held.
#[cached(batch, name = "held_batch", ttl = 60, negative_ttl = 20, skip(cache, runs), cache = cache)]
async fn held(cache: &Cache, runs: &AtomicU32, ids: &[u32]) -> Result<HashMap<u32, u32>, Late> {
    let _ = cache;
    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
        std::future::pending::<()>().await;
    }
    Ok(ids.iter().map(|id| (*id, *id)).collect())
}

/// The same entries, one id at a time.
#[cached(name = "held_batch", ttl = 60, negative_ttl = 20, skip(cache, runs), cache = cache)]
async fn held_one(cache: &Cache, runs: &AtomicU32, id: u32) -> Result<Option<u32>, Late> {
    let _ = cache;
    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
        std::future::pending::<()>().await;
    }
    Ok(Some(id))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Batch,
    Single,
}

impl Kind {
    fn call<'a>(self, cache: &'a Cache, runs: &'a AtomicU32) -> BoxFuture<'a, Result<Option<u32>, Late>> {
        match self {
            Self::Batch => Box::pin(async { Ok(held(cache, runs, &[7, 8]).await?.remove(&7)) }),
            Self::Single => Box::pin(held_one(cache, runs, 7)),
        }
    }
}

on_both_stores! {
    // S12
    async fn waiting_for_an_unpolled_caller_of_a_batch_ends_at_the_deadline(nodes: &Nodes) {
        for kinds in [(Kind::Batch, Kind::Batch), (Kind::Batch, Kind::Single), (Kind::Single, Kind::Batch)] {
            let (leader, follower) = kinds;
            let settings = Cache::builder().namespace(format!("{leader:?}{follower:?}")).jitter(0.0);
            let cache = nodes.node_with(settings.deadline(Duration::from_millis(300))).await;
            let runs = Arc::new(AtomicU32::new(0));
            let mut first = leader.call(&cache, &runs);
            eventually("the first runs", || {
                let _pending = (&mut first).now_or_never();
                let is_running = runs.load(Ordering::SeqCst) == 1;
                async move { is_running }
            })
            .await;
            let follows = tokio::spawn({
                let (cache, runs) = (cache.clone(), Arc::clone(&runs));
                async move { follower.call(&cache, &runs).await }
            });
            eventually("it follows", || async { cache.stats().joined >= 1 }).await;
            // It shares the deadline of the first caller.
            let landed = in_time(nodes, "the follower returns", follows).await.unwrap();
            assert_eq!(landed, Err(Late), "{kinds:?}");
            assert_eq!(soon("it is called again", follower.call(&cache, &runs)).await, Ok(Some(7)), "{kinds:?}");
            drop(first);
        }
    }
}
