//! How far callers of one key share a run: `flight`.

use cache_core::{Cache, cached};
use support::{Gate, eventually, on_both_stores, soon};
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
