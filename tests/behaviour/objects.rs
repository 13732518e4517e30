//! Objects of the cache: no update is lost, and no removed object comes back.

use std::time::Duration;

use cache_core::object::{CacheObject, Objects};
use cache_core::{Cache, ErrorKind};
use serde::{Deserialize, Serialize};
use support::{Nodes, on_both_stores, soon};
use tokio::task::JoinSet;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id)]
struct Cart {
    id: String,
    items: Vec<String>,
    count: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "visit", ttl = 100, sliding, id = id, codec = "json")]
struct Visit {
    id: u64,
    pages: u32,
}

/// The cart of the next build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id)]
struct NewCart {
    id: String,
    #[serde(default)]
    note: String,
    items: Vec<String>,
    count: u32,
}

/// A type that cannot read the record of either build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id)]
struct OtherCart {
    id: String,
    total: u64,
}

fn carts(cache: &Cache) -> Objects<Cart> {
    cache.objects()
}

fn cart(id: &str) -> Cart {
    Cart { id: id.to_owned(), items: vec!["tea".to_owned()], count: 0 }
}

on_both_stores! {
    async fn create_load_save_and_remove(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        assert_eq!(carts(&here).load("a").await.unwrap(), None);
        assert!(carts(&here).create(&cart("a")).await.unwrap());
        assert!(!carts(&there).create(&Cart { count: 9, ..cart("a") }).await.unwrap());
        assert_eq!(carts(&there).load("a").await.unwrap(), Some(cart("a")));
        carts(&there).save(&Cart { count: 5, ..cart("a") }).await.unwrap();
        assert_eq!(carts(&here).load("a").await.unwrap().unwrap().count, 5);
        assert!(carts(&here).remove("a").await.unwrap());
        assert!(!carts(&here).remove("a").await.unwrap());
        assert_eq!(carts(&there).load("a").await.unwrap(), None);
    }

    async fn no_update_is_lost(nodes: &Nodes) {
        let caches = [nodes.node().await, nodes.node().await, nodes.node().await];
        carts(&caches[0]).create(&cart("busy")).await.unwrap();
        let mut updates = JoinSet::new();
        for task in 0..12 {
            let carts = carts(&caches[task % 3]);
            updates.spawn(async move {
                for _ in 0..25 {
                    carts.update("busy", |cart| cart.count += 1).await.unwrap().unwrap();
                }
            });
        }
        soon("all updates", updates.join_all()).await;
        assert_eq!(carts(&caches[0]).load("busy").await.unwrap().unwrap().count, 300);
    }

    async fn a_conflict_brings_what_is_stored_now(nodes: &Nodes) {
        let cache = nodes.node().await;
        let carts = carts(&cache);
        carts.create(&cart("a")).await.unwrap();
        let gets = || match nodes {
            Nodes::Embedded(..) => 0,
            Nodes::Redis(server) => server.commandstats().get("get").copied().unwrap_or(0),
        };
        let (before, runtime) = (gets(), tokio::runtime::Handle::current());
        let mut seen = Vec::new();
        let updated = carts.update("a", |cart| {
            seen.push(cart.count);
            cart.count += 1;
            if seen.len() < 3 {
                // Another client writes it between the read and the write.
                let other = Cart { count: cart.count * 10, ..cart.clone() };
                tokio::task::block_in_place(|| runtime.block_on(carts.save(&other))).unwrap();
            }
        });
        assert_eq!(updated.await.unwrap().unwrap().count, 111);
        assert_eq!(seen, [0, 10, 110]);
        // Reads it once, whatever the conflicts; a script that swaps has one read in it each time.
        assert!(gets() - before <= 1 + 3, "{} reads", gets() - before);
    }

    async fn an_update_never_recreates_what_was_removed(nodes: &Nodes) {
        let cache = nodes.node().await;
        let carts = carts(&cache);
        assert_eq!(carts.update("gone", |cart| cart.count += 1).await.unwrap(), None);
        carts.create(&cart("a")).await.unwrap();
        let mut tries = 0;
        let (plain, runtime) = (cache.plain(), tokio::runtime::Handle::current());
        let updated = carts.update("a", |cart| {
            tries += 1;
            cart.count += 1;
            // Another client removes it between the read and the write.
            let remove = plain.remove("cache:cart:a@object");
            tokio::task::block_in_place(|| runtime.block_on(remove)).unwrap();
        }).await.unwrap();
        assert_eq!((updated, tries), (None, 1));
        assert_eq!(carts.load("a").await.unwrap(), None);
    }

    async fn an_object_outlives_a_change_of_its_struct(nodes: &Nodes) {
        let cache = nodes.node().await;
        carts(&cache).create(&cart("a")).await.unwrap();
        let new = cache.objects::<NewCart>().update("a", |cart| cart.note = "gift".to_owned()).await.unwrap().unwrap();
        assert_eq!((new.items.len(), new.count), (1, 0));
        assert_eq!(carts(&cache).load("a").await.unwrap(), Some(cart("a")), "the old build goes on reading");
        let error = cache.objects::<OtherCart>().load("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(error.to_string().contains("#[serde(default)]"), "{error}");
        assert!(!format!("{error:?}").contains("tea"), "{error:?}");
        assert_eq!(carts(&cache).load("a").await.unwrap(), Some(cart("a")), "nothing is lost by the failed read");
    }

    async fn an_update_may_not_change_the_id(nodes: &Nodes) {
        let cache = nodes.node().await;
        carts(&cache).create(&cart("a")).await.unwrap();
        let error = carts(&cache).update("a", |cart| cart.id = "b".to_owned()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert_eq!(carts(&cache).load("a").await.unwrap(), Some(cart("a")));
    }

    async fn a_sliding_object_lives_on_while_it_is_used_and_others_do_not(nodes: &Nodes) {
        let cache = nodes.node().await;
        let visits = cache.objects::<Visit>();
        visits.create(&Visit { id: 1, pages: 1 }).await.unwrap();
        carts(&cache).create(&cart("a")).await.unwrap();
        match nodes {
            Nodes::Embedded(_, clock) => {
                for _ in 0..10 {
                    clock.advance(Duration::from_secs(60));
                    assert!(visits.load(&1).await.unwrap().is_some());
                }
                // Early in the object's life, a load does not change the expiry.
                clock.advance(Duration::from_secs(10));
                visits.load(&1).await.unwrap();
                assert_eq!(visits.ttl(&1).await.unwrap(), Some(Duration::from_secs(90)));
                assert!(visits.touch(&1).await.unwrap());
                assert_eq!(visits.ttl(&1).await.unwrap(), Some(Duration::from_secs(100)));
                clock.advance(Duration::from_secs(100));
                assert_eq!(visits.load(&1).await.unwrap(), None);
                clock.advance(Duration::from_secs(7 * 86400));
                assert_eq!(carts(&cache).load("a").await.unwrap(), None);
            }
            Nodes::Redis(server) => {
                let key = "cache:visit:1@object";
                server.cli(&["EXPIRE", key, "40"]);
                assert!(visits.load(&1).await.unwrap().is_some());
                assert!(visits.ttl(&1).await.unwrap().unwrap() > Duration::from_secs(90));
                server.cli(&["EXPIRE", "cache:cart:a@object", "40"]);
                carts(&cache).update("a", |cart| cart.count += 1).await.unwrap();
                assert!(carts(&cache).ttl("a").await.unwrap().unwrap() <= Duration::from_secs(40));
            }
        }
        assert!(!visits.touch(&2).await.unwrap());
    }

    async fn an_update_gives_a_sliding_object_its_full_time_and_leaves_another_what_it_has(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (visits, carts) = (cache.objects::<Visit>(), carts(&cache));
        visits.create(&Visit { id: 1, pages: 1 }).await.unwrap();
        carts.create(&cart("a")).await.unwrap();
        match nodes {
            Nodes::Embedded(_, clock) => clock.advance(Duration::from_secs(60)),
            Nodes::Redis(server) => ["cache:visit:1@object", "cache:cart:a@object"].iter().for_each(|key| {
                server.cli(&["EXPIRE", key, "40"]);
            }),
        }
        visits.update(&1, |visit| visit.pages += 1).await.unwrap().unwrap();
        carts.update("a", |cart| cart.count += 1).await.unwrap().unwrap();
        assert!(visits.ttl(&1).await.unwrap().unwrap() > Duration::from_secs(90));
        let left = carts.ttl("a").await.unwrap().unwrap();
        match nodes {
            Nodes::Embedded(..) => assert_eq!(left, Duration::from_secs(7 * 86_400 - 60)),
            Nodes::Redis(_) => assert!(left <= Duration::from_secs(40), "{left:?}"),
        }
    }
}
