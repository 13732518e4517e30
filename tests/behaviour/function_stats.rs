//! Statistics of a cache by function.

use std::sync::Arc;

use cache_core::events::FunctionStats;
use cache_core::events::Stats;
use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Gate, eventually, on_both_stores, soon};

#[cached(name = "counted.first", ttl = 60, key = "{id}", skip(cache, gate), cache = cache)]
async fn first(cache: &Cache, gate: &Gate, id: u32) -> Result<Arc<str>, String> {
    let _ = cache;
    gate.pass().await;
    if id == 0 { Err("no zero".to_owned()) } else { Ok(id.to_string().into()) }
}

#[cached(name = "counted.second", ttl = 60, skip(cache), cache = cache)]
async fn second(cache: &Cache, id: u32) -> u32 {
    id
}

fn of(cache: &Cache, name: &str) -> FunctionStats {
    cache.function_stats().into_iter().find(|stats| &*stats.name == name).unwrap_or_default()
}

fn calls(stats: &FunctionStats) -> u64 {
    stats.local_hits + stats.hits + stats.misses + stats.joined
}

/// A counter of a function, and the cache's counter of the same name.
type Pair = (fn(&FunctionStats) -> u64, fn(&Stats) -> u64);

/// Checks that each counter of the cache is the sum of the functions' counters of that name.
fn adds_up(cache: &Cache) {
    let (all, stats) = (cache.function_stats(), cache.stats());
    let own: [Pair; 12] = [
        (|own| own.local_hits, |all| all.local_hits),
        (|own| own.hits, |all| all.hits),
        (|own| own.misses, |all| all.misses),
        (|own| own.computes, |all| all.computes),
        (|own| own.compute_errors, |all| all.compute_errors),
        (|own| own.fills, |all| all.fills),
        (|own| own.renewed, |all| all.renewed),
        (|own| own.refused_fills, |all| all.refused_fills),
        (|own| own.stale, |all| all.stale),
        (|own| own.refreshes, |all| all.refreshes),
        (|own| own.joined, |all| all.joined),
        (|own| own.waited, |all| all.waited),
    ];
    for (index, (own, sum)) in own.into_iter().enumerate() {
        assert_eq!(all.iter().map(own).sum::<u64>(), sum(&stats), "counter {index}: {all:?} {stats:?}");
    }
}

on_both_stores! {
    async fn each_function_is_counted_by_itself_and_the_cache_is_their_sum(nodes: &Nodes) {
        let (cache, open) = (nodes.node().await, Gate::open());
        for _ in 0..10 {
            first(&cache, &open, 7).await.unwrap();
        }
        for id in 0..3 {
            second(&cache, id).await;
        }
        first(&cache, &open, 0).await.unwrap_err();
        let (one, two) = (of(&cache, "counted.first"), of(&cache, "counted.second"));
        assert_eq!((one.misses, one.computes, one.compute_errors, one.fills), (2, 2, 1, 1));
        assert_eq!((one.local_hits + one.hits, calls(&one)), (9, 11));
        assert_eq!((two.misses, two.computes, two.fills, calls(&two)), (3, 3, 3, 3));
        assert_eq!((one.hit_ratio(), two.hit_ratio()), (Some(9.0 / 11.0), Some(0.0)));
        assert!(one.local_hits > 0, "{one:?}");
        adds_up(&cache);
        let names: Vec<_> = cache.function_stats().iter().map(|stats| stats.name.to_string()).collect();
        assert_eq!(names, ["counted.first", "counted.second"]);
    }

    async fn caches_count_for_themselves(nodes: &Nodes) {
        let (here, there, open) = (nodes.node().await, nodes.node().await, Gate::open());
        first(&here, &open, 7).await.unwrap();
        for _ in 0..20 {
            first(&there, &open, 7).await.unwrap();
        }
        let (of_here, of_there) = (of(&here, "counted.first"), of(&there, "counted.first"));
        assert_eq!((of_here.misses, calls(&of_here)), (1, 1));
        assert_eq!((of_there.misses, of_there.hits + of_there.local_hits), (0, 20));
        assert!(of_there.local_hits > 0);
        adds_up(&here);
        adds_up(&there);
    }

    async fn runs_that_are_shared_waited_for_or_refused_are_counted(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let call = |cache: &Cache| {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move { first(&cache, &gate, 7).await })
        };
        let runs = [call(&here)];
        gate.arrival().await;
        let joins = [call(&here), call(&here)];
        eventually("they join", || async { of(&here, "counted.first").joined == 2 }).await;
        let waits = [call(&there)];
        eventually("it waits", || async { of(&there, "counted.first").waited > 0 }).await;
        gate.let_through(1_000);
        for call in runs.into_iter().chain(joins).chain(waits) {
            soon("all end", call).await.unwrap().unwrap();
        }
        let gate = Gate::shut();
        first::entry(7).on(&here).invalidate().await.unwrap();
        let run = tokio::spawn({
            let (here, gate) = (here.clone(), gate.clone());
            async move { first(&here, &gate, 7).await }
        });
        gate.arrival().await;
        first::entry(7).on(&there).invalidate().await.unwrap();
        gate.let_through(1);
        soon("it ends", run).await.unwrap().unwrap();
        let stats = of(&here, "counted.first");
        assert_eq!((stats.joined, stats.refused_fills, stats.fills), (2, 1, 1), "{stats:?}");
        adds_up(&here);
        adds_up(&there);
    }

    async fn keys_by_hand_are_counted_by_their_name(nodes: &Nodes) {
        let cache = nodes.node().await;
        let compute = || async { Ok::<_, String>(1) };
        for id in [1, 2, 1, 1] {
            cache.get_or_compute(Key::new("counted.by_hand").part(&id), &EntryOptions::new(), compute).await.unwrap();
        }
        let stats = of(&cache, "counted.by_hand");
        assert_eq!((stats.misses, stats.hits + stats.local_hits), (2, 2));
        adds_up(&cache);
    }
}
