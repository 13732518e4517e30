//! Several builds of one program on one store: a value invalidated by one build is served by none.

use std::convert::Infallible;
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::{Cache, cached};
use serde::{Deserialize, Serialize};
use support::{Gate, Nodes, eventually, on_both_stores, soon};

macro_rules! build {
    ($module:ident, $($field:ident)?) => {
        mod $module {
            use super::*;

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub(super) struct Thing {
                pub(super) a: u32,
                $($field: u32,)?
            }

            impl Thing {
                pub(super) fn of(a: u32) -> Self {
                    Self { a, $($field: 0,)? }
                }
            }

            #[cached(name = "thing", ttl = 60, key = "{id}", skip(cache, gate, a), cache = cache)]
            pub(super) async fn thing(cache: &Cache, gate: &Gate, id: u32, a: u32) -> Result<Thing, Infallible> {
                let _ = (cache, id);
                gate.pass().await;
                Ok(Thing::of(a))
            }

            pub(super) async fn read(cache: &Cache, id: u32, a: u32) -> u32 {
                soon("a read", thing(cache, &Gate::open(), id, a)).await.unwrap().a
            }

            pub(super) async fn stored(cache: &Cache, id: u32) -> Option<u32> {
                thing::entry(id).on(cache).get().await.unwrap().map(|thing| thing.a)
            }
        }
    };
}

build!(old,);
build!(new, b);

/// The key of the registry of builds of `thing`.
const REGISTRY: &str = "{cache:thing@version}:builds";

// R21: each operation has to reach the build itself, not only the first one that learns of it
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_at_once_each_reach_a_build_that_they_learn_of() {
    let nodes = Nodes::redis();
    let one = nodes.node().await;
    for round in 0..10 {
        for id in 0..4 {
            old::read(&one, id, round).await;
        }
        // A process that does not know of the other build yet.
        let two = nodes.node().await;
        let fence = two.fence().entry(&new::thing::entry(2).on(&two));
        let removed = new::thing::entry(0).on(&two);
        let set = new::thing::entry(1).on(&two);
        let lifted = two.fence().entry(&new::thing::entry(3).on(&two));
        let lifted = async { lifted.raise().await?.lift().await };
        let (removal, write, fence, lift) =
            tokio::join!(removed.invalidate(), set.set(new::Thing::of(9)), fence.raise(), lifted);
        removal.and(write).and(lift).unwrap();
        let fence = fence.unwrap();
        for id in 0..4 {
            assert_eq!(old::stored(&two, id).await, None, "round {round}: {id}");
        }
        assert_eq!(old::read(&two, 2, round + 1).await, round + 1);
        assert_eq!(old::stored(&two, 2).await, None, "it is fenced");
        fence.lift().await.unwrap();
    }
}

on_both_stores! {
    // R21, R22
    async fn a_fence_covers_a_build_that_it_learns_of_itself(nodes: &Nodes) {
        let (one, two) = (nodes.node().await, nodes.node().await);
        old::read(&one, 7, 1).await;
        let fence = two.fence().entry(&new::thing::entry(7).on(&two)).raise().await.unwrap();
        eventually("a push may be under way", || async { old::stored(&one, 7).await.is_none() }).await;
        assert_eq!(old::read(&one, 7, 2).await, 2);
        assert_eq!(old::stored(&one, 7).await, None, "what is computed under a fence is not stored");
        fence.withdraw().await.unwrap();
        eventually("a push may be under way", || async { old::stored(&one, 7).await == Some(1) }).await;
    }

    // R25
    async fn an_invalidation_that_finds_no_registry_reaches_all_builds(nodes: &Nodes) {
        let one = nodes.node().await;
        for (round, way) in ["invalidation", "set", "fence"].into_iter().enumerate() {
            let round = u32::try_from(round).unwrap();
            assert_eq!(old::read(&one, 7, round).await, round);
            nodes.delete_by_hand(REGISTRY).await;
            let two = nodes.node().await;
            let entry = new::thing::entry(7).on(&two);
            match way {
                "invalidation" => entry.invalidate().await.unwrap(),
                "set" => entry.set(new::Thing::of(9)).await.unwrap(),
                _ => two.fence().entry(&entry).raise().await.unwrap().lift().await.unwrap(),
            }
            assert_eq!(old::stored(&two, 7).await, None, "{way}");
            eventually("it is reported", || async { old::read(&one, 7, round + 1).await == round + 1 }).await;
            entry.invalidate().await.unwrap();
        }
    }

    // R25: the registry is lost, and another build recreates it
    async fn a_build_that_a_new_registry_does_not_name_is_reached(nodes: &Nodes) {
        let (one, two) = (nodes.node().await, nodes.node().await);
        old::read(&one, 7, 1).await;
        old::read(&one, 8, 1).await;
        nodes.delete_by_hand(REGISTRY).await;
        new::read(&two, 7, 2).await;
        let three = nodes.node().await;
        new::thing::entry(7).on(&three).invalidate().await.unwrap();
        assert_eq!(old::stored(&three, 7).await, None);
        eventually("it is reported", || async { old::read(&one, 7, 3).await == 3 }).await;
        // The build was registered, and registers again before it stores. A process that already
        // knew of it does the same.
        let four = nodes.node().await;
        new::thing::entry(7).on(&four).invalidate().await.unwrap();
        assert_eq!(old::stored(&four, 7).await, None);
    }

    // R25: a value is being computed while the registry is lost and recreated
    async fn a_run_from_before_a_lost_registry_is_not_stored_beyond_its_reach(nodes: &Nodes) {
        let (one, two, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let run = async { old::thing(&one, &gate, 7, 1).await.unwrap().a };
        let rest = async {
            gate.arrival().await;
            nodes.delete_by_hand(REGISTRY).await;
            new::read(&two, 8, 2).await;
            new::thing::entry(7).on(&nodes.node().await).invalidate().await.unwrap();
            gate.let_through(1);
        };
        assert_eq!(soon("the run ends", futures::future::join(run, rest)).await.0, 1);
        assert_eq!(old::stored(&two, 7).await, None);
    }

    // R25, T7
    async fn the_first_value_under_a_new_registry_is_served(nodes: &Nodes) {
        let one = nodes.node().await;
        // The first use of the function anywhere, and uses after the registry was lost.
        for round in 0..3 {
            if round == 0 {
                assert_eq!(new::read(&one, 0, 0).await, 0);
                assert_eq!(new::stored(&one, 0).await, Some(0));
            }
            nodes.delete_by_hand(REGISTRY).await;
            let two = nodes.node().await;
            new::thing::entry(9).on(&two).set(new::Thing::of(round)).await.unwrap();
            assert_eq!(new::stored(&two, 9).await, Some(round));
            eventually("the first is notified", || async { new::read(&one, 9, 7).await == round }).await;
            nodes.delete_by_hand(REGISTRY).await;
        }
    }
}

// R21, R25: also without a notification of the loss
#[tokio::test]
async fn a_build_that_goes_on_storing_registers_again_after_ten_minutes() {
    let clock = Clock::manual();
    let cache = Cache::builder().clock(clock.clone()).jitter(0.0).in_memory();
    let is_registered = async || cache.plain().get::<u32>(REGISTRY).await.is_err();
    old::read(&cache, 1, 1).await;
    assert!(is_registered().await, "a set is no number");
    assert!(cache.plain().remove(REGISTRY).await.unwrap());
    clock.advance(Duration::from_secs(599));
    old::read(&cache, 2, 1).await;
    assert!(!is_registered().await);
    clock.advance(Duration::from_secs(1));
    old::read(&cache, 3, 1).await;
    assert!(is_registered().await);
    assert_eq!(old::stored(&cache, 3).await, Some(1));
}
