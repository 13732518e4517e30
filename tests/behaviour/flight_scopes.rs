//! How far callers of one key share a run: `flight`.

use std::time::{Duration, Instant};

use cache_core::{Cache, cached};
use support::{Gate, RedisServer, eventually, on_both_stores, soon};
use tokio::task::JoinSet;

macro_rules! functions {
    ($($name:ident $flight:literal)*) => {$(
        #[cached(ttl = 60, skip(cache, gate), cache = &cache, flight = $flight)]
        async fn $name(cache: Cache, gate: Gate, id: u32) -> u32 {
            let _ = &cache;
            gate.pass().await;
            id
        }
    )*};
}

functions! {
    over_all "cluster"
    in_the_process "process"
    not_at_all "none"
}

/// Two callers in each of two nodes.
macro_rules! started {
    ($function:ident, $both:expr, $gate:expr) => {{
        let mut calls = JoinSet::new();
        for node in $both {
            for _ in 0..2 {
                calls.spawn($function(node.clone(), $gate.clone(), 7));
            }
        }
        calls
    }};
}

on_both_stores! {
    // S1, X1
    async fn a_run_is_shared_as_far_as_the_function_says(nodes: &Nodes) {
        let both = [nodes.node().await, nodes.node().await];
        let sum = |count: fn(cache_core::events::Stats) -> u64| both.iter().map(|node| count(node.stats())).sum::<u64>();

        let gate = Gate::shut();
        let calls = started!(over_all, &both, gate);
        gate.arrival().await;
        eventually("all others wait", || async { (sum(|stats| stats.joined), sum(|stats| stats.waited)) == (2, 1) }).await;
        gate.let_through(4);
        assert_eq!(soon("all have it", calls.join_all()).await, [7; 4]);
        assert_eq!(gate.runs(), 1);

        let gate = Gate::shut();
        let calls = started!(in_the_process, &both, gate);
        gate.arrival().await;
        gate.arrival().await;
        eventually("the others join", || async { sum(|stats| stats.joined) == 4 }).await;
        gate.let_through(4);
        assert_eq!(soon("all have it", calls.join_all()).await, [7; 4]);
        assert_eq!(gate.runs(), 2, "one in each process");

        let gate = Gate::shut();
        let calls = started!(not_at_all, &both, gate);
        for _ in 0..4 {
            gate.arrival().await;
        }
        gate.let_through(4);
        assert_eq!(soon("all have it", calls.join_all()).await, [7; 4]);

        // What the first to start has returned is stored, whatever the scope.
        let gate = Gate::open();
        let third = nodes.node().await;
        over_all(third.clone(), gate.clone(), 7).await;
        in_the_process(third.clone(), gate.clone(), 7).await;
        not_at_all(third.clone(), gate.clone(), 7).await;
        assert_eq!(gate.runs(), 0);
    }
}

/// Longer than the pause of a waiter that polls, where the server cannot push.
const WHILE: Duration = Duration::from_millis(450);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// X2
async fn who_waits_for_another_process_asks_nothing_until_it_is_told() {
    let server = RedisServer::start();
    // So that no lease is renewed meanwhile, which is told like any change.
    let long = Duration::from_secs(300);
    let settings = || Cache::builder().url(server.url()).lease(long).max_staleness(long);
    let (here, there) = (settings().connect().await.unwrap(), settings().connect().await.unwrap());
    let gate = Gate::shut();
    let mut calls = JoinSet::new();
    calls.spawn(over_all(here.clone(), gate.clone(), 7));
    gate.arrival().await;
    calls.spawn(over_all(there.clone(), gate.clone(), 7));
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
