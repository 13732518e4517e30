//! Frees the memory of invalidated entries.

use cache_core::codec::Json;
use cache_core::store_testing::RawStore;
use cache_core::sweep::{SweepCursor, Swept};
use cache_core::testing::record;
use cache_core::{Cache, cached};
use support::on_both_stores;

#[cached(name = "stays", ttl = 60, local = false, key = "{id}", skip(cache), cache = cache)]
async fn stays(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

#[cached(name = "ends", ttl = 60, local = false, key = "{id}", skip(cache), tags("ending", "all:{id}"), cache = cache)]
async fn ends(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

/// More tags than fit into the first bytes that are read.
#[cached(name = "tagged", ttl = 60, local = false, tags("ending", "a-long-tag-of-the-element:{value[]}"), cache = cache, skip(cache))]
async fn tagged(cache: &Cache) -> Vec<u32> {
    let _ = cache;
    (0..40).collect()
}

async fn sweep(cache: &Cache) -> (u64, u64) {
    let (mut looked_at, mut removed, mut from) = (0, 0, Some(SweepCursor::default()));
    while let Some(cursor) = from {
        let Swept { looked_at: more, removed: gone, next, .. } = cache.sweep(cursor, 2).await.unwrap();
        (looked_at, removed, from) = (looked_at + more, removed + gone, next);
    }
    (looked_at, removed)
}

on_both_stores! {
    // C6, I1
    async fn a_sweep_removes_what_was_ended_and_nothing_else(nodes: &Nodes) {
        let (cache, other) = (nodes.node().await, nodes.node_with(Cache::builder().namespace("other")).await);
        for id in 0..300 {
            stays(&cache, id).await;
            ends(&cache, id).await;
            ends(&other, id).await;
        }
        tagged(&cache).await;
        cache.plain().set("cache:plain:1@x", &"text", None).await.unwrap();
        assert_eq!(sweep(&cache).await, (601, 0));

        // A fence may be withdrawn. Then all its entries are served again.
        let fence = cache.fence().tag("ending").raise().await.unwrap();
        assert_eq!(sweep(&cache).await, (601, 0));
        fence.withdraw().await.unwrap();
        ends(&cache, 7).await;
        assert_eq!(cache.stats().computes, 601);

        // The embedded store has already begun by itself.
        cache.invalidate_tag("ending").await.unwrap();
        let (looked_at, removed) = sweep(&cache).await;
        assert!(removed > 280 && looked_at == 300 + removed, "{removed} of {looked_at}");
        assert_eq!(sweep(&cache).await, (300, 0));
        for id in 0..300 {
            stays(&cache, id).await;
        }
        assert_eq!(cache.stats().computes, 601, "what stays is served");
        assert_eq!(cache.plain().get::<String>("cache:plain:1@x").await.unwrap().as_deref(), Some("text"));
        assert_eq!(sweep(&other).await, (300, 0), "another namespace");

        // Newly stored entries live, and a clear ends all of them.
        for id in 0..300 {
            ends(&cache, id).await;
        }
        assert_eq!(sweep(&cache).await, (600, 0));
        cache.clear().await.unwrap();
        sweep(&cache).await;
        assert_eq!(sweep(&cache).await, (0, 0));
    }
}

async fn stored_meanwhile(store: &RawStore) {
    let key = |id: u32| format!("cache:f:{id}@x");
    let seal = |id: u32, value: &str| record::seal::<Json, _>(&key(id), &value.to_owned()).unwrap();
    for id in 0..3 {
        store.put(&key(id), &seal(id, "first"), None).await.unwrap();
    }
    store.put("cache:g:1@x", b"no record", None).await.unwrap();
    let mut heads = store.heads("cache:").await.unwrap();
    heads.sort();
    assert_eq!(heads.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [0, 1, 2].map(key));
    store.put(&key(1), &seal(1, "second"), None).await.unwrap();
    assert_eq!(store.remove_heads(&heads).await.unwrap(), 2);
    let stands = store.heads("cache:").await.unwrap();
    assert_eq!(stands.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(1)]);
    assert_eq!(store.remove_heads(&stands).await.unwrap(), 1);
}

#[tokio::test]
// C6
async fn a_record_that_was_stored_meanwhile_is_not_swept() {
    stored_meanwhile(&RawStore::memory()).await;
    let server = support::RedisServer::start();
    stored_meanwhile(&RawStore::redis(&server.url()).await.unwrap()).await;
}
