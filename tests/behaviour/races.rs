//! Interleavings that other caches handle wrongly. Each run waits at a gate while the other side
//! acts.

use std::convert::Infallible;
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::events::Event;
use cache_core::why::HistoryEvent;
use cache_core::{Cache, cached};
use support::{Gate, Nodes, Proxy, RedisServer, event, eventually, on_both_stores, soon};

/// A row as the function would read it from a database.
#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<String, String> {
    let _ = (cache, id);
    // The row is read before the wait, as by a slow query.
    let text = text.to_owned();
    gate.pass().await;
    if text == "error" { Err(text) } else { Ok(text) }
}

/// Starts a call on a task of its own. Its run waits at the gate.
fn start(cache: &Cache, gate: &Gate, text: &'static str) -> tokio::task::JoinHandle<Result<String, String>> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move { row(&cache, &gate, 7, text).await })
}

async fn read(cache: &Cache, text: &str) -> String {
    soon("a read", row(cache, &Gate::open(), 7, text)).await.unwrap()
}

on_both_stores! {
    // R1
    async fn an_invalidation_kills_the_fill_in_flight(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        for by in [&here, &there] {
            let mut events = here.subscribe();
            let slow = start(&here, &gate, "v1");
            gate.arrival().await;
            row::entry(7).on(by).invalidate().await.unwrap();
            gate.let_through(1);
            assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap(), "v1", "its caller gets its value");
            event(&mut events, "the fill is refused", |event| matches!(event, Event::FillRefused { .. })).await;
            assert_eq!(row::entry(7).on(&here).get().await.unwrap(), None);
            assert_eq!(read(&here, "v2").await, "v2");
            assert_eq!(read(&there, "v3").await, "v2");
            row::entry(7).on(&here).invalidate().await.unwrap();
        }
    }

    // R1
    async fn a_key_deleted_by_hand_kills_the_fill_in_flight(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        let slow = start(&here, &gate, "v1");
        gate.arrival().await;
        nodes.delete_by_hand(row::entry(7).on(&here).key()).await;
        gate.let_through(1);
        assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap(), "v1");
        assert_eq!(read(&here, "v2").await, "v2");
    }

    // R2
    async fn an_explicit_set_is_not_overwritten_by_an_older_run(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        for by in [&here, &there] {
            let slow = start(&here, &gate, "v1");
            gate.arrival().await;
            row::entry(7).on(by).set("v2".to_owned()).await.unwrap();
            gate.let_through(1);
            assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap(), "v1");
            for node in [&here, &there] {
                assert_eq!(row::entry(7).on(node).get().await.unwrap().as_deref(), Some("v2"));
            }
            row::entry(7).on(&here).invalidate().await.unwrap();
        }
    }

    // T7
    async fn an_own_write_is_read_back_at_once_even_while_an_older_run_goes_on(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        let slow = start(&here, &gate, "v1");
        gate.arrival().await;
        row::entry(7).on(&here).set("v2".to_owned()).await.unwrap();
        assert_eq!(read(&here, "v3").await, "v2", "the read joined a run from before the write");
        row::entry(7).on(&here).invalidate().await.unwrap();
        assert_eq!(read(&here, "v4").await, "v4");
        gate.let_through(1);
        assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap(), "v1");
        assert_eq!(read(&here, "v5").await, "v4");
    }

    // R10
    async fn a_lease_belongs_to_one_attempt_not_to_a_client(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        let first = start(&here, &gate, "v1");
        gate.arrival().await;
        row::entry(7).on(&here).invalidate().await.unwrap();
        let second_gate = Gate::shut();
        let second = start(&here, &second_gate, "v2");
        second_gate.arrival().await;
        // The first attempt ends while the second, of the same client, has the lease.
        gate.let_through(1);
        assert_eq!(soon("the first ends", first).await.unwrap().unwrap(), "v1");
        assert_eq!(row::entry(7).on(&here).get().await.unwrap(), None, "the first attempt stored on the second's lease");
        second_gate.let_through(1);
        assert_eq!(soon("the second ends", second).await.unwrap().unwrap(), "v2");
        assert_eq!(row::entry(7).on(&here).get().await.unwrap().as_deref(), Some("v2"));
    }

    // R19
    async fn the_end_of_an_old_run_leaves_the_newer_one_to_be_joined(nodes: &Nodes) {
        let (here, old, new) = (nodes.node().await, Gate::shut(), Gate::shut());
        let first = start(&here, &old, "v1");
        old.arrival().await;
        row::entry(7).on(&here).invalidate().await.unwrap();
        let second = start(&here, &new, "v2");
        new.arrival().await;
        old.let_through(1);
        assert_eq!(soon("the old run ends", first).await.unwrap().unwrap(), "v1");
        let other = Gate::open();
        let third = start(&here, &other, "v3");
        eventually("it joins the newer run", || async { here.stats().joined == 1 }).await;
        new.let_through(1);
        for call in [second, third] {
            assert_eq!(soon("both end", call).await.unwrap().unwrap(), "v2");
        }
        assert_eq!(other.runs(), 0);
    }

    // R19, T7
    async fn a_run_that_learns_that_its_lease_is_lost_leaves_the_newer_one_to_be_joined(nodes: &Nodes) {
        let lease = Duration::from_secs(3);
        let node = || nodes.node_with(Cache::builder().jitter(0.0).lease(lease));
        let (here, there) = (node().await, node().await);
        let losses = || row::entry(7).on(&here).why().steps().iter().filter(|step| step.what == HistoryEvent::LeaseLost).count();
        for by_another in [false, true] {
            let (old, new, unused) = (Gate::shut(), Gate::shut(), Gate::open());
            let (joined, waited, lost) = (here.stats().joined, here.stats().waited, losses());
            let first = start(&here, &old, "v1");
            old.arrival().await;
            row::entry(7).on(&here).invalidate().await.unwrap();
            let mut newer = vec![start(if by_another { &there } else { &here }, &new, "v2")];
            new.arrival().await;
            if by_another {
                // The newer run of this process waits for that of the other one.
                newer.push(start(&here, &unused, "v3"));
                eventually("it waits", || async { here.stats().waited > waited }).await;
            }
            // A third of the lease, after which every run renews its own.
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(lease / 3);
            }
            eventually("the old run learns of it", || async { losses() > lost }).await;
            newer.push(start(&here, &unused, "v4"));
            eventually("it joins the newer run", || async { here.stats().joined > joined }).await;
            old.let_through(1);
            assert_eq!(soon("the old run ends", first).await.unwrap().unwrap(), "v1");
            newer.push(start(&here, &unused, "v5"));
            eventually("so does one after its end", || async { here.stats().joined > joined + 1 }).await;
            new.let_through(1);
            for call in newer {
                assert_eq!(soon("all end", call).await.unwrap().unwrap(), "v2");
            }
            assert_eq!(unused.runs(), 0);
            row::entry(7).on(&here).invalidate().await.unwrap();
        }
    }

    // R12
    async fn a_holder_whose_lease_is_gone_does_not_release_the_next_ones(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let failing = start(&here, &gate, "error");
        gate.arrival().await;
        nodes.let_expire(row::entry(7).on(&here).key(), Duration::from_secs(11));
        let next_gate = Gate::shut();
        let next = start(&there, &next_gate, "v2");
        next_gate.arrival().await;
        gate.let_through(1);
        assert!(soon("the first fails", failing).await.unwrap().is_err());
        // If the lease were released, a third run would start. Instead, the third caller waits and
        // gets the value that the second stores.
        let third_gate = Gate::open();
        let third = start(&here, &third_gate, "v3");
        eventually("the third waits", || async { here.stats().waited >= 1 }).await;
        next_gate.let_through(1);
        assert_eq!(soon("the second ends", next).await.unwrap().unwrap(), "v2");
        assert_eq!(soon("the third ends", third).await.unwrap().unwrap(), "v2");
        assert_eq!(third_gate.runs(), 0);
    }

    // X1, X2
    async fn a_second_process_waits_for_the_first_and_gets_its_value(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let first = start(&here, &gate, "v1");
        gate.arrival().await;
        let other = Gate::open();
        let second = start(&there, &other, "v2");
        eventually("the second waits", || async { there.stats().waited >= 1 }).await;
        gate.let_through(1);
        assert_eq!(soon("the first ends", first).await.unwrap().unwrap(), "v1");
        assert_eq!(soon("the second is woken", second).await.unwrap().unwrap(), "v1");
        assert_eq!(other.runs(), 0);
    }

    // R13, X4
    async fn a_lease_is_renewed_while_its_run_is_alive(nodes: &Nodes) {
        // Short enough to be exceeded, and long enough for a busy machine to renew.
        let lease = Duration::from_secs(3);
        let here = nodes.node_with(Cache::builder().lease(lease)).await;
        let (there, gate, other) = (nodes.node().await, Gate::shut(), Gate::open());
        let slow = start(&here, &gate, "v1");
        gate.arrival().await;
        let second = start(&there, &other, "v2");
        eventually("the second waits", || async { there.stats().waited >= 1 }).await;
        // Longer than the lease.
        for renewals in 1..=4 {
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(lease / 3);
            }
            eventually("the lease is renewed", || async { here.stats().renewals >= renewals }).await;
        }
        assert_eq!(other.runs(), 0);
        gate.let_through(1);
        assert_eq!(soon("the first ends", slow).await.unwrap().unwrap(), "v1");
        assert_eq!(soon("the second ends", second).await.unwrap().unwrap(), "v1");
    }

    // R11, X3
    async fn the_lease_of_a_dead_holder_is_taken_over(nodes: &Nodes) {
        let (there, gate) = (nodes.node().await, Gate::shut());
        // The closest to a separate process within this one: its runtime ends without a chance to
        // clean up.
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connected = process.spawn(nodes.node_in_a_process());
        let here = soon("it connects", connected).await.unwrap();
        let (cache, held) = (here.clone(), gate.clone());
        let _dead = process.spawn(async move { row(&cache, &held, 7, "v1").await });
        gate.arrival().await;
        process.shutdown_background();
        let second = start(&there, &Gate::open(), "v2");
        eventually("the second waits", || async { there.stats().waited >= 1 || second.is_finished() }).await;
        nodes.let_expire(row::entry(7).on(&here).key(), Duration::from_secs(11));
        assert_eq!(soon("it takes over", second).await.unwrap().unwrap(), "v2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T7, S1
async fn a_run_beyond_the_staleness_bound_is_joined_while_its_lease_is_seen() {
    let (clock, bound) = (Clock::manual(), Duration::from_secs(2));
    // A third of the lease would be too late.
    let settings = Cache::builder().lease(Duration::from_secs(30)).max_staleness(bound);
    let here = settings.clock(clock.clone()).in_memory();
    let (gate, other) = (Gate::shut(), Gate::open());
    let slow = start(&here, &gate, "v1");
    gate.arrival().await;
    for renewals in 1..=4 {
        clock.advance(bound / 2);
        eventually("the lease is seen", || async { here.stats().renewals >= renewals }).await;
    }
    let late = start(&here, &other, "v2");
    eventually("it joins the run", || async { here.stats().joined == 1 }).await;
    gate.let_through(1);
    for call in [slow, late] {
        assert_eq!(soon("both end", call).await.unwrap().unwrap(), "v1");
    }
    assert_eq!(other.runs(), 0);
}

// One thread: everything that can run has run when this task continues.
#[tokio::test(flavor = "current_thread")]
// T7: the lease may have been lost since the server looked at it.
async fn a_run_is_seen_when_its_renewal_is_sent_not_when_it_is_answered() {
    let (server, clock) = (RedisServer::start(), Clock::manual());
    let proxy = Proxy::start(server.port()).await;
    let bound = Duration::from_secs(200);
    // The store has real timeouts, none of which passes in this test.
    let url = format!("{}?response_timeout=60s&connect_timeout=60s&max_staleness=200s", proxy.url());
    let settings = Cache::builder().url(url).lease(Duration::from_secs(3600)).deadline(None);
    let here = settings.clock(clock.clone()).connect().await.unwrap();
    let (gate, other) = (Gate::shut(), Gate::open());
    let slow = start(&here, &gate, "v1");
    gate.arrival().await;
    let scripts = || server.commandstats().get("evalsha").copied().unwrap_or(0);
    let before = scripts();
    proxy.hold_answers();
    clock.advance(bound / 2);
    eventually("the server has renewed the lease", || async { scripts() > before }).await;
    clock.advance(bound + Duration::from_secs(1));
    // The next renewal is due, and does not reach the server.
    proxy.hold_requests();
    eventually("the first renewal is answered", || async { here.stats().renewals == 1 }).await;
    let late = start(&here, &other, "v2");
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(here.stats().joined, 0, "it asks the store first");
    proxy.heal();
    gate.let_through(1);
    for call in [slow, late] {
        assert_eq!(soon("both end", call).await.unwrap().unwrap(), "v1");
    }
    assert_eq!(other.runs(), 0);
}

mod two_builds {
    //! Several builds of one program, with one struct changed.

    use serde::{Deserialize, Serialize};

    use super::*;

    macro_rules! build {
        ($module:ident, $type:item, $value:expr) => {
            mod $module {
                use super::*;
                #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
                $type

                #[cached(name = "thing", ttl = 60, key = "{id}", skip(cache, gate), cache = cache)]
                pub(super) async fn thing(cache: &Cache, gate: &Gate, id: u32) -> Result<Thing, Infallible> {
                    let _ = (cache, id);
                    gate.pass().await;
                    Ok($value)
                }
            }
        };
    }
    build!(
        original,
        pub(super) struct Thing {
            pub a: u32,
            pub b: u32,
        },
        Thing { a: 1, b: 2 }
    );
    build!(
        reordered,
        pub(super) struct Thing {
            pub b: u32,
            pub a: u32,
        },
        Thing { a: 3, b: 4 }
    );
    build!(
        added,
        pub(super) struct Thing {
            pub a: u32,
            pub b: u32,
            #[serde(default)]
            pub c: bool,
        },
        Thing { a: 5, b: 6, c: true }
    );
    build!(
        removed,
        pub(super) struct Thing {
            pub a: u32,
        },
        Thing { a: 7 }
    );
    build!(
        retyped,
        pub(super) struct Thing {
            pub a: i32,
            pub b: u32,
        },
        Thing { a: 8, b: 9 }
    );
    build!(
        variants,
        pub(super) enum Thing {
            A(u32),
            B { b: u32 },
        },
        Thing::A(10)
    );
    build!(
        more_variants,
        pub(super) enum Thing {
            A(u32),
            New,
            B { b: u32 },
        },
        Thing::New
    );

    /// Checks that each build stores and reads its own values.
    macro_rules! check_builds {
        ($nodes:expr, $($module:ident),+) => {{
            let gate = Gate::open();
            $(let $module = $nodes.node().await;)+
            for _ in 0..2 {
                $(
                    let value = soon("a build", $module::thing(&$module, &gate, 7)).await.unwrap();
                    assert_eq!(Some(value), $module::thing::entry(7).on(&$module).get().await.unwrap());
                )+
            }
            assert_eq!(gate.runs(), [$(stringify!($module)),+].len(), "each build ran once and then hit");
        }};
    }

    on_both_stores! {
        // R21
        async fn builds_share_a_store_without_reading_or_evicting_each_other(nodes: &Nodes) {
            check_builds!(nodes, original, reordered, added, removed, retyped, variants, more_variants);
        }

        // R21
        async fn an_invalidation_by_one_build_reaches_the_others(nodes: &Nodes) {
            let (old, new, gate) = (nodes.node().await, nodes.node().await, Gate::open());
            for _ in 0..3 {
                original::thing(&old, &gate, 7).await.unwrap();
                added::thing(&new, &gate, 7).await.unwrap();
                original::thing::entry(7).on(&old).invalidate().await.unwrap();
                assert_eq!(added::thing::entry(7).on(&new).get().await.unwrap(), None);
                original::thing(&old, &gate, 7).await.unwrap();
                added::thing(&new, &gate, 7).await.unwrap();
                added::thing::entry(7).on(&new).invalidate().await.unwrap();
                assert_eq!(original::thing::entry(7).on(&old).get().await.unwrap(), None);
            }
        }

        // R21
        async fn an_invalidation_by_one_build_kills_the_fill_in_flight_of_another(nodes: &Nodes) {
            let (old, new, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
            let slow = tokio::spawn({
                let (old, gate) = (old.clone(), gate.clone());
                async move { original::thing(&old, &gate, 7).await }
            });
            gate.arrival().await;
            // This process does not know of the other build. It learns of it in the same round
            // trip.
            added::thing::entry(7).on(&new).invalidate().await.unwrap();
            gate.let_through(1);
            soon("the run ends", slow).await.unwrap().unwrap();
            assert_eq!(original::thing::entry(7).on(&old).get().await.unwrap(), None);
        }

        // R21
        async fn an_invalidation_reaches_a_build_that_has_only_set(nodes: &Nodes) {
            let (old, new) = (nodes.node().await, nodes.node().await);
            original::thing::entry(7).on(&old).set(original::Thing { a: 0, b: 0 }).await.unwrap();
            added::thing::entry(7).on(&new).invalidate().await.unwrap();
            assert_eq!(original::thing::entry(7).on(&old).get().await.unwrap(), None);
        }

        // R21
        async fn a_set_by_one_build_removes_the_value_of_another(nodes: &Nodes) {
            let (old, new, gate) = (nodes.node().await, nodes.node().await, Gate::open());
            original::thing(&old, &gate, 7).await.unwrap();
            added::thing::entry(7).on(&new).set(added::Thing { a: 0, b: 0, c: false }).await.unwrap();
            assert_eq!(original::thing::entry(7).on(&old).get().await.unwrap(), None);
        }
    }
}
