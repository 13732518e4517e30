//! All entries of a function or a namespace: invalidated by one key, in every process, tier and
//! build.

use std::convert::Infallible;
use std::time::Duration;

use cache_core::events::Event;
use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<String, Infallible> {
    let _ = (cache, id);
    // The row is read before the wait, as by a slow query.
    let text = text.to_owned();
    gate.pass().await;
    Ok(text)
}

#[cached(name = "other", ttl = 60, key = "{id}", skip(cache, text), cache = cache)]
async fn other(cache: &Cache, id: u32, text: &str) -> Result<String, Infallible> {
    let _ = (cache, id);
    Ok(text.to_owned())
}

async fn read(cache: &Cache, id: u32, text: &str) -> String {
    soon("a read", row(cache, &Gate::open(), id, text)).await.unwrap()
}

fn start(cache: &Cache, gate: &Gate, id: u32, text: &'static str) -> tokio::task::JoinHandle<String> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move { row(&cache, &gate, id, text).await.unwrap() })
}

/// Reads until the local tier answers.
async fn kept(cache: &Cache, id: u32, text: &str) {
    eventually("the tier in this process has it", || async {
        let hits = cache.stats().local_hits;
        assert_eq!(read(cache, id, "computed anew").await, text);
        cache.stats().local_hits > hits
    })
    .await;
}

/// The ways to invalidate all entries of `row`.
#[derive(Debug, Clone, Copy)]
enum Way {
    Function,
    Namespace,
}

impl Way {
    const ALL: [Self; 2] = [Self::Function, Self::Namespace];

    async fn go(self, cache: &Cache) {
        match self {
            Self::Function => row::invalidate_all(cache).await.unwrap(),
            Self::Namespace => cache.clear().await.unwrap(),
        }
    }
}

on_both_stores! {
    // I1
    async fn all_entries_of_a_function_are_gone_and_no_others(nodes: &Nodes) {
        let cache = nodes.node().await;
        for id in 0..5 {
            read(&cache, id, "v1").await;
            other(&cache, id, "v1").await.unwrap();
        }
        row::invalidate_all(&cache).await.unwrap();
        for id in 0..5 {
            assert_eq!(row::entry(id).on(&cache).get().await.unwrap(), None);
            assert_eq!(row::entry(id).on(&cache).ttl().await.unwrap(), None);
            assert_eq!(read(&cache, id, "v2").await, "v2");
            assert_eq!(other(&cache, id, "v2").await.unwrap(), "v1");
        }
    }

    // I1
    async fn a_clear_ends_the_entries_of_its_namespace_only(nodes: &Nodes) {
        let cache = nodes.node().await;
        let neighbour = nodes.node_with(Cache::builder().namespace("neighbour")).await;
        let by_hand = |text: &'static str| {
            let cache = cache.clone();
            async move { cache.get_or_compute(Key::new("hand"), &EntryOptions::new(), || async { Ok::<_, Infallible>(text.to_owned()) }).await.unwrap() }
        };
        for cache in [&cache, &neighbour] {
            read(cache, 7, "v1").await;
        }
        by_hand("v1").await;
        cache.plain().set("plain", &1, None).await.unwrap();
        cache.clear().await.unwrap();
        assert_eq!(read(&cache, 7, "v2").await, "v2");
        assert_eq!(by_hand("v2").await, "v2");
        assert_eq!(read(&neighbour, 7, "v2").await, "v1");
        assert_eq!(cache.plain().get::<u32>("plain").await.unwrap(), Some(1));
    }

    // T7: a caller after an invalidation on the same node never gets the value from before
    async fn an_own_invalidation_is_seen_by_the_next_read(nodes: &Nodes) {
        let cache = nodes.node().await;
        for way in Way::ALL {
            for round in 0..20 {
                let text = format!("{way:?} {round}");
                read(&cache, 7, &text).await;
                read(&cache, 7, &text).await;
                way.go(&cache).await;
                let next = format!("{text} next");
                assert_eq!(read(&cache, 7, &next).await, next);
                way.go(&cache).await;
            }
        }
    }

    // R3
    async fn an_invalidation_of_all_kills_the_fill_in_flight(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for way in Way::ALL {
            for by in [&here, &there] {
                let (gate, mut events) = (Gate::shut(), here.subscribe());
                let slow = start(&here, &gate, 7, "v1");
                gate.arrival().await;
                way.go(by).await;
                gate.let_through(1);
                assert_eq!(soon("the old run ends", slow).await.unwrap(), "v1", "its caller gets its value");
                assert_eq!(row::entry(7).on(&there).get().await.unwrap(), None, "{way:?}");
                assert_eq!(row::entry(7).on(&here).get().await.unwrap(), None, "{way:?}");
                if std::ptr::eq(by, &raw const here) {
                    event(&mut events, "it is reported", |event| matches!(event, Event::FillRefused { .. })).await;
                }
                assert_eq!(read(&there, 7, "v2").await, "v2");
                assert_eq!(read(&here, 7, "v3").await, "v2");
                way.go(&here).await;
            }
        }
    }

    // T7, R3
    async fn a_caller_after_the_invalidation_does_not_join_a_run_from_before(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for way in Way::ALL {
            for by in [&here, &there] {
                let (gate, late) = (Gate::shut(), Gate::open());
                let slow = start(&here, &gate, 7, "v1");
                gate.arrival().await;
                read(&here, 99, "before").await;
                way.go(by).await;
                // A caller before the push may still join.
                eventually("the push arrives", || async { read(&here, 99, "after").await == "after" }).await;
                row::entry(99).on(&here).invalidate().await.unwrap();
                let waited = here.stats().waited;
                let next = start(&here, &late, 7, "v2");
                eventually("it waits for the old run's lease", || async { here.stats().waited > waited || next.is_finished() }).await;
                gate.let_through(1);
                assert_eq!(soon("the old run ends", slow).await.unwrap(), "v1");
                assert_eq!(soon("the new one ends", next).await.unwrap(), "v2", "{way:?}");
                way.go(&here).await;
            }
        }
    }

    // I2, T5
    async fn an_invalidation_of_all_reaches_the_other_nodes_tier_by_push(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for way in Way::ALL {
            read(&here, 7, "v1").await;
            kept(&there, 7, "v1").await;
            way.go(&here).await;
            // Only local hits until the push, so that nothing else can reach that node.
            eventually("the push arrives", || async { read(&there, 7, "v2").await == "v2" }).await;
            way.go(&here).await;
        }
    }

    // T6
    async fn a_cold_node_honours_earlier_clears(nodes: &Nodes) {
        let here = nodes.node().await;
        for way in Way::ALL {
            read(&here, 7, "v1").await;
            way.go(&here).await;
            let cold = nodes.node().await;
            assert_eq!(row::entry(7).on(&cold).get().await.unwrap(), None);
            assert_eq!(read(&cold, 7, "v2").await, "v2");
            way.go(&cold).await;
        }
    }

    // R15: two concurrent invalidations have no order and need none
    async fn invalidations_by_many_nodes_at_once_leave_nothing_old(nodes: &Nodes) {
        let all = [nodes.node().await, nodes.node().await, nodes.node().await];
        for round in 0..30 {
            let old = format!("v{round}");
            for node in &all {
                assert_eq!(read(node, 7, &old).await, old, "round {round}");
            }
            let each = all.iter().zip([Way::Function, Way::Namespace, Way::Function]);
            futures::future::join_all(each.map(|(node, way)| way.go(node))).await;
            for node in &all {
                assert_eq!(row::entry(7).on(node).get().await.unwrap(), None, "round {round}");
            }
            // A push to a tier may still be in transit.
            let new = format!("v{}", round + 1);
            for node in &all {
                eventually("old values are gone", || async { read(node, 7, &new).await == new }).await;
            }
        }
    }

    // R16
    async fn entries_whose_version_is_lost_are_misses(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for key in ["cache:row@version", "cache@version"] {
            read(&here, 7, "v1").await;
            kept(&there, 7, "v1").await;
            nodes.delete_by_hand(key).await;
            assert_eq!(row::entry(7).on(&nodes.node().await).get().await.unwrap(), None, "{key}");
            for node in [&here, &there] {
                eventually("the tier is notified", || async { read(node, 7, "v2").await == "v2" }).await;
            }
            // The recreated version is a different one.
            assert_eq!(row::entry(7).on(&here).get().await.unwrap().as_deref(), Some("v2"), "{key}");
            cache_is_usable(&here).await;
            row::entry(7).on(&here).invalidate().await.unwrap();
        }
    }

    // R16: foreign bytes under a version key count as another version, whatever they are
    async fn a_version_overwritten_by_hand_is_an_invalidation(nodes: &Nodes) {
        let cache = nodes.node().await;
        read(&cache, 7, "v1").await;
        nodes.write_by_hand("cache:row@version", "1").await;
        eventually("it is reported", || async { read(&cache, 7, "v2").await == "v2" }).await;
        cache_is_usable(&cache).await;
    }

    // R3: a value set after the invalidation began is kept, an earlier one is not
    async fn a_value_set_after_an_invalidation_stays(nodes: &Nodes) {
        let cache = nodes.node().await;
        for way in Way::ALL {
            row::entry(7).on(&cache).set("v1".to_owned()).await.unwrap();
            assert_eq!(read(&cache, 7, "v2").await, "v1");
            way.go(&cache).await;
            row::entry(7).on(&cache).set("v3".to_owned()).await.unwrap();
            assert_eq!(read(&cache, 7, "v4").await, "v3");
            assert_eq!(read(&nodes.node().await, 7, "v4").await, "v3");
        }
    }
}

/// Checks that a value is stored and served.
async fn cache_is_usable(cache: &Cache) {
    let text = read(cache, 99, "usable").await;
    kept(cache, 99, &text).await;
}

// R14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_off_invalidates_and_is_invalidated_like_any_other() {
    let nodes = Nodes::redis();
    let right = nodes.node().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let quarter = Duration::from_secs(15 * 60);
    for off in [now - quarter, now + quarter] {
        // The clock also does not advance, so its order cannot matter.
        let clock = cache_core::clock::Clock::manual();
        clock.advance(off - Duration::from_millis(1_767_225_600_000));
        let wrong = nodes.node_with(Cache::builder().clock(clock)).await;
        for way in Way::ALL {
            for (by, to) in [(&wrong, &right), (&right, &wrong)] {
                read(to, 7, "v1").await;
                way.go(by).await;
                assert_eq!(row::entry(7).on(to).get().await.unwrap(), None);
                assert_eq!(read(by, 7, "v2").await, "v2");
                eventually("the push arrives", || async { read(to, 7, "v3").await == "v2" }).await;
                way.go(by).await;
            }
        }
    }
}

// I1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_of_all_is_one_command_however_many_entries_there_are() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let cache = nodes.node().await;
    for entries in [1, 1000] {
        for id in 0..entries {
            read(&cache, id, "v1").await;
        }
        for way in Way::ALL {
            server.cli(&["CONFIG", "RESETSTAT"]);
            way.go(&cache).await;
            let stats = server.cli(&["INFO", "commandstats"]);
            let ran = |command: &str| stats.lines().any(|line| line.starts_with(&format!("cmdstat_{command}:")));
            let sets = stats.lines().find(|line| line.starts_with("cmdstat_set:")).unwrap_or_default();
            assert!(sets.starts_with("cmdstat_set:calls=1,"), "{stats}");
            for never in ["scan", "keys", "del", "unlink", "smembers", "evalsha", "mget"] {
                assert!(!ran(never), "{never}: {stats}");
            }
        }
    }
}

// T1: once its versions are known, a hit in the store is a plain GET
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_asks_for_versions_only_while_they_are_not_known() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let (here, there) = (nodes.node().await, nodes.node().await);
    for id in 0..50 {
        read(&here, id, "v1").await;
    }
    server.cli(&["CONFIG", "RESETSTAT"]);
    for id in 0..50 {
        assert_eq!(read(&there, id, "v2").await, "v1");
    }
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = |command: &str| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(['=', ',']).nth(1)).map_or(0, |calls| calls.parse::<u32>().unwrap())
    };
    // One of the GETs belongs to the script that registers, once in a process, that this build may
    // store under the function's name.
    assert_eq!((calls("mget"), calls("get"), calls("set")), (1, 50, 2), "{stats}");
}

mod builds {
    //! Two builds of one program, with one struct changed.

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
        old,
        pub(super) struct Thing {
            pub(super) a: u32,
        },
        Thing { a: 1 }
    );
    build!(
        new,
        pub(super) struct Thing {
            pub(super) a: u32,
            pub(super) b: u32,
        },
        Thing { a: 1, b: 2 }
    );

    on_both_stores! {
        // R21, I1
        async fn an_invalidation_of_all_by_one_build_reaches_the_others(nodes: &Nodes) {
            let (one, two, gate) = (nodes.node().await, nodes.node().await, Gate::open());
            old::thing(&one, &gate, 7).await.unwrap();
            new::thing(&two, &gate, 7).await.unwrap();
            // It does not know of the other build and does not need to.
            new::thing::invalidate_all(&two).await.unwrap();
            assert_eq!(old::thing::entry(7).on(&one).get().await.unwrap(), None);
            old::thing(&one, &gate, 7).await.unwrap();
            assert_eq!(new::thing::entry(7).on(&two).get().await.unwrap(), None);
            assert!(old::thing::entry(7).on(&two).get().await.unwrap().is_some());
        }
    }
}
