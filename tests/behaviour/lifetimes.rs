//! Entries that live for months: as long as their versions are in use, and no longer than a year.

use std::time::Duration;

use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Nodes, on_both_stores};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[cached(name = "yearly", ttl = "300d", key = "{id}", skip(cache), local = false, cache = cache, tags("all", "number:{value}"))]
async fn yearly(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

/// Returns an embedded store with its manual clock and a first node.
async fn embedded() -> (Nodes, cache_core::clock::Clock, Cache) {
    let nodes = Nodes::embedded();
    let Nodes::Embedded(_, clock) = &nodes else { unreachable!("it is") };
    let (clock, node) = (clock.clone(), nodes.node().await);
    (nodes, clock, node)
}

#[tokio::test]
async fn an_entry_that_is_used_outlives_the_versions_it_was_stored_under() {
    let (nodes, clock, here) = embedded().await;
    yearly(&here, 7).await;
    for _ in 0..10 {
        clock.advance(DAY * 29);
        yearly(&here, 7).await;
    }
    assert_eq!(here.stats().computes, 1);
    // A process that has just started knows the versions from the store only.
    let there = nodes.node().await;
    yearly(&there, 7).await;
    assert_eq!((there.stats().computes, there.stats().hits), (0, 1));
    clock.advance(DAY * 10);
    yearly(&there, 7).await;
    assert_eq!(there.stats().computes, 1, "its ttl has passed");
}

#[tokio::test]
// R16
async fn an_entry_that_nobody_uses_for_a_quarter_is_computed_again() {
    let (nodes, clock, here) = embedded().await;
    yearly(&here, 7).await;
    clock.advance(DAY * 91);
    let there = nodes.node().await;
    yearly(&there, 7).await;
    assert_eq!(there.stats().computes, 1);
}

on_both_stores! {
    async fn no_entry_lives_longer_than_a_year(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder().namespace("app").jitter(0.0)).await;
        let options = EntryOptions::new().ttl(DAY * 5000).stale_if_error(DAY * 5000);
        let compute = || async { Ok::<_, String>(1) };
        cache.get_or_compute(Key::new("k"), &options, compute).await.unwrap();
        let entry = yearly::entry(7).on(&cache);
        entry.set(7).await.unwrap();
        assert!(entry.ttl().await.unwrap().unwrap() > DAY * 299);
        match nodes {
            Nodes::Embedded(_, clock) => {
                for days in [29; 12].into_iter().chain([16]) {
                    clock.advance(DAY * days);
                    cache.get_or_compute(Key::new("k"), &options, compute).await.unwrap();
                }
                cache.get_or_compute(Key::new("k"), &options, compute).await.unwrap();
                assert_eq!(cache.stats().computes, 1);
                clock.advance(DAY);
                cache.get_or_compute(Key::new("k"), &options, compute).await.unwrap();
                assert_eq!(cache.stats().computes, 2);
            }
            Nodes::Redis(server) => {
                let keys = server.cli(&["KEYS", "app:k:*"]);
                let left: u128 = server.cli(&["PTTL", keys.trim()]).trim().parse().unwrap();
                assert!((DAY * 364).as_millis() < left && left <= (DAY * 365).as_millis(), "{left}");
                // The registration of a build lasts longer than any record (R21).
                let registry: u128 = server.cli(&["PTTL", "{app:k@version}:builds"]).trim().parse().unwrap();
                assert!(registry > (DAY * 366).as_millis(), "{registry}");
            }
        }
    }
}
