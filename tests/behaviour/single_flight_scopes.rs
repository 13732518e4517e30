//! The option `single_flight`: the scope in which callers of one key share a run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cache_core::clock::Clock;
use cache_core::events::Stats;
use cache_core::{Cache, cached};
use futures::future::BoxFuture;
use support::{Gate, Nodes, Proxy, RedisServer, eventually, on_both_stores, soon};
use tokio::task::JoinSet;

/// Functions for each scope: one that owns its arguments, one that borrows them, and a batch.
macro_rules! functions {
    ($($scope:ident $flight:literal)*) => {$(
        mod $scope {
            use super::*;

            #[cached(ttl = 60, skip(cache, gate), cache = &cache, single_flight = $flight)]
            pub(super) async fn owning(cache: Cache, gate: Gate, id: u32) -> u32 {
                let _ = &cache;
                gate.pass().await;
                id
            }

            #[cached(ttl = 60, skip(cache, gate), cache = cache, single_flight = $flight)]
            async fn borrowing(cache: &Cache, gate: &Gate, id: u32) -> u32 {
                let _ = cache;
                gate.pass().await;
                id
            }

            #[cached(batch, ttl = 60, skip(cache, gate), cache = cache, single_flight = $flight)]
            async fn many(cache: &Cache, gate: &Gate, ids: &[u32]) -> HashMap<u32, u32> {
                let _ = cache;
                gate.pass().await;
                ids.iter().map(|id| (*id, *id)).collect()
            }

            pub(super) fn call(kind: Kind, cache: &Cache, gate: &Gate) -> BoxFuture<'static, u32> {
                let (cache, gate) = (cache.clone(), gate.clone());
                match kind {
                    Kind::Owning => Box::pin(owning(cache, gate, 7)),
                    Kind::Borrowing => Box::pin(async move { borrowing(&cache, &gate, 7).await }),
                    Kind::Batch => Box::pin(async move { many(&cache, &gate, &[7]).await[&7] }),
                }
            }
        }
    )*};
}

functions! {
    over_all "cluster"
    in_the_process "process"
    not_at_all "none"
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Owning,
    Borrowing,
    Batch,
}

/// Starts two callers in each of two nodes.
fn started(
    call: fn(Kind, &Cache, &Gate) -> BoxFuture<'static, u32>,
    kind: Kind,
    both: &[Cache; 2],
    gate: &Gate,
) -> JoinSet<u32> {
    both.iter().flat_map(|node| [call(kind, node, gate), call(kind, node, gate)]).collect()
}

on_both_stores! {
    // S1, X1
    async fn a_run_is_shared_as_far_as_the_function_says(nodes: &Nodes) {
        for kind in [Kind::Owning, Kind::Borrowing, Kind::Batch] {
            let both = [nodes.node().await, nodes.node().await];
            let sum = |count: fn(Stats) -> u64| both.iter().map(|node| count(node.stats())).sum::<u64>();

            let gate = Gate::shut();
            let calls = started(over_all::call, kind, &both, &gate);
            gate.arrival().await;
            eventually("all others wait", || async { (sum(|stats| stats.joined), sum(|stats| stats.waited)) == (2, 1) }).await;
            gate.let_through(4);
            assert_eq!(soon("all have it", calls.join_all()).await, [7; 4]);
            assert_eq!(gate.runs(), 1, "{kind:?}");

            let gate = Gate::shut();
            let calls = started(in_the_process::call, kind, &both, &gate);
            gate.arrival().await;
            gate.arrival().await;
            eventually("the others join", || async { sum(|stats| stats.joined) == 4 }).await;
            gate.let_through(4);
            assert_eq!(soon("all have it", calls.join_all()).await, [7; 4]);
            assert_eq!(gate.runs(), 2, "one in each process, {kind:?}");

            let gate = Gate::shut();
            let calls = started(not_at_all::call, kind, &both, &gate);
            for _ in 0..4 {
                soon("each runs it", gate.arrival()).await;
            }
            gate.let_through(4);
            assert_eq!(soon("all have it", calls.join_all()).await, [7; 4]);

            // The value of the first to start is stored, in every scope.
            let gate = Gate::open();
            let third = nodes.node().await;
            for call in [over_all::call, in_the_process::call, not_at_all::call] {
                call(kind, &third, &gate).await;
            }
            assert_eq!(gate.runs(), 0, "{kind:?}");
        }
    }
}

macro_rules! expiring {
    ($($scope:ident $flight:literal)*) => {$(
        mod $scope {
            use super::*;

            #[cached(
                name = $flight, ttl = 1, stale_if_error = 600, early = 0, skip(cache, gate), cache = &cache,
                single_flight = $flight
            )]
            pub(super) async fn owning(cache: Cache, gate: Gate, id: u32) -> Result<u32, String> {
                let _ = &cache;
                gate.pass().await;
                Ok(id)
            }

            #[cached(
                name = $flight, ttl = 1, stale_if_error = 600, early = 0, skip(cache, gate), cache = cache,
                single_flight = $flight
            )]
            async fn borrowing(cache: &Cache, gate: &Gate, id: u32) -> Result<u32, String> {
                let _ = cache;
                gate.pass().await;
                Ok(id)
            }

            #[cached(
                batch, name = $flight, ttl = 1, stale_if_error = 600, skip(cache, gate), cache = cache,
                single_flight = $flight
            )]
            async fn many(cache: &Cache, gate: &Gate, ids: &[u32]) -> Result<HashMap<u32, u32>, String> {
                let _ = cache;
                gate.pass().await;
                Ok(ids.iter().map(|id| (*id, *id)).collect())
            }

            pub(super) fn call(kind: Kind, cache: &Cache, gate: &Gate, id: u32) -> BoxFuture<'static, u32> {
                let (cache, gate) = (cache.clone(), gate.clone());
                Box::pin(async move {
                    match kind {
                        Kind::Owning => owning(cache, gate, id).await.unwrap(),
                        Kind::Borrowing => borrowing(&cache, &gate, id).await.unwrap(),
                        Kind::Batch => many(&cache, &gate, &[id]).await.unwrap()[&id],
                    }
                })
            }

            pub(super) async fn is_expired(cache: &Cache, id: u32) -> bool {
                owning::entry(id).on(cache).ttl().await.unwrap().is_none()
            }
        }
    )*};
}

expiring! {
    expiring_in_the_process "process"
    expiring_not_at_all "none"
}

on_both_stores! {
    // S1, X1
    async fn no_caller_waits_for_a_process_that_does_not_share_its_compute(nodes: &Nodes) {
        let both = [nodes.node().await, nodes.node().await];
        let kinds = [(1, Kind::Owning), (2, Kind::Borrowing), (3, Kind::Batch)];
        let (filling, running) = (Gate::open(), Gate::shut());
        for (id, kind) in kinds {
            expiring_in_the_process::call(kind, &both[0], &filling, id).await;
            expiring_not_at_all::call(kind, &both[0], &filling, id).await;
        }
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(2));
        }
        for (id, _) in kinds {
            eventually("it has expired", || expiring_in_the_process::is_expired(&both[1], id)).await;
            eventually("it has expired", || expiring_not_at_all::is_expired(&both[1], id)).await;
        }
        let mut first = JoinSet::new();
        for (id, kind) in kinds {
            // These take the leases beside the records.
            first.spawn(expiring_in_the_process::call(kind, &both[0], &running, id));
            running.arrival().await;
            first.spawn(expiring_not_at_all::call(kind, &both[0], &running, id));
            running.arrival().await;
            let gate = Gate::open();
            let other = expiring_in_the_process::call(kind, &both[1], &gate, id);
            assert_eq!(soon("the other process computes too", other).await, id);
            for node in &both {
                let other = expiring_not_at_all::call(kind, node, &gate, id);
                assert_eq!(soon("every caller computes", other).await, id);
            }
            assert_eq!(gate.runs(), 3, "{kind:?}");
        }
        running.let_through(2 * kinds.len());
        assert_eq!(soon("all have it", first.join_all()).await.len(), 2 * kinds.len());
    }
}

/// Longer than the interval of a waiter that polls if the server cannot push.
const WHILE: Duration = Duration::from_millis(450);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// X2
async fn a_waiter_sends_no_requests_until_it_is_notified() {
    let server = RedisServer::start();
    // No lease is renewed in this time. A renewal would be pushed like any change.
    let long = Duration::from_secs(300);
    let settings = || Cache::builder().url(server.url()).lease(long).max_staleness(long);
    let (here, there) = (settings().connect().await.unwrap(), settings().connect().await.unwrap());
    let gate = Gate::shut();
    let mut calls = JoinSet::new();
    calls.spawn(over_all::owning(here.clone(), gate.clone(), 7));
    gate.arrival().await;
    calls.spawn(over_all::owning(there.clone(), gate.clone(), 7));
    let reads = || server.commandstats().get("get").copied().unwrap_or(0);
    eventually("it waits", || async { there.stats().waited == 1 && reads() > 0 }).await;
    let (before, began) = (reads(), Instant::now());
    while began.elapsed() < WHILE {
        server.cli(&["PING"]);
    }
    assert_eq!(reads(), before, "no polling");
    gate.let_through(1);
    assert_eq!(soon("both have it", calls.join_all()).await, [7; 2]);
    assert_eq!(gate.runs(), 1);
}

// One thread: everything that can run has run when this task continues.
#[tokio::test(flavor = "current_thread")]
// T7: its lease may have been lost since.
async fn a_run_that_was_not_seen_for_longer_than_the_bound_is_not_joined() {
    for kind in [Kind::Owning, Kind::Borrowing, Kind::Batch] {
        let (server, clock) = (RedisServer::start(), Clock::manual());
        let proxy = Proxy::start(server.port()).await;
        let bound = Duration::from_secs(200);
        // The store has real timeouts, none of which passes in this test.
        let url = format!("{}?response_timeout=60s&connect_timeout=60s&max_staleness=200s", proxy.url());
        let settings = Cache::builder().url(url).lease(Duration::from_secs(3600)).deadline(None);
        let here = settings.clock(clock.clone()).connect().await.unwrap();
        let gate = Gate::shut();
        let slow = tokio::spawn(over_all::call(kind, &here, &gate));
        gate.arrival().await;
        // Its renewals do not reach the server.
        proxy.hold_requests();
        for (passes, joined) in [(bound, 1), (Duration::from_secs(1), 1)] {
            clock.advance(passes);
            let late = tokio::spawn(over_all::call(kind, &here, &gate));
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(here.stats().joined, joined, "{kind:?}");
            late.abort();
        }
        proxy.heal();
        gate.let_through(3);
        assert_eq!(soon("the run ends", slow).await.unwrap(), 7, "{kind:?}");
    }
}
