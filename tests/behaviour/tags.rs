//! Entries invalidated by their tags, of arguments and of the value.

use std::convert::Infallible;
use std::sync::Arc;

use cache_core::events::Event;
use cache_core::{Cache, EntryOptions, Key, cached};
use serde::{Deserialize, Serialize};
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Post {
    author: u32,
    group: String,
    text: String,
}

/// One tag for all, one of an argument, two of the value.
#[cached(
    name = "post", ttl = 60, key = "{id}", skip(cache, gate, post), cache = cache,
    tags("posts", "post:{id}", "author:{value.author}", "group:{value.group}")
)]
async fn post(cache: &Cache, gate: &Gate, id: u32, post: Post) -> Result<Option<Arc<Post>>, Infallible> {
    let _ = (cache, id);
    // The row is read before the wait, as by a slow query.
    gate.pass().await;
    Ok(Some(Arc::new(post)))
}

/// None of its tags depend on the value.
#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache, tags("rows", "row:{id}"))]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<String, Infallible> {
    let _ = (cache, id);
    let text = text.to_owned();
    gate.pass().await;
    Ok(text)
}

fn by(author: u32, group: &str, text: &str) -> Post {
    Post { author, group: group.to_owned(), text: text.to_owned() }
}

async fn read_post(cache: &Cache, id: u32, of: Post) -> String {
    soon("a read", post(cache, &Gate::open(), id, of)).await.unwrap().unwrap().text.clone()
}

async fn read(cache: &Cache, id: u32, text: &str) -> String {
    soon("a read", row(cache, &Gate::open(), id, text)).await.unwrap()
}

/// Runs of other processes are not waited for.
#[cached(name = "alone", ttl = 60, single_flight = "process", key = "{id}", skip(cache, gate, text), cache = cache, tags("alone"))]
async fn alone(cache: &Cache, gate: &Gate, id: u32, text: &str) -> String {
    let _ = (cache, id);
    let text = text.to_owned();
    gate.pass().await;
    text
}

async fn is_stored(cache: &Cache, id: u32) -> bool {
    post::entry(id).on(cache).get().await.unwrap().is_some()
}

fn start(cache: &Cache, gate: &Gate, id: u32, of: Post) -> tokio::task::JoinHandle<String> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move { post(&cache, &gate, id, of).await.unwrap().unwrap().text.clone() })
}

/// All tags of `by(7, "a b/c", ..)` under id 1.
const TAGS: [&str; 4] = ["posts", "post:1", "author:7", "group:a b/c"];

on_both_stores! {
    // I1
    async fn a_tag_ends_its_entries_and_no_others(nodes: &Nodes) {
        let cache = nodes.node().await;
        let cases = [("posts", [false, false, false]), ("post:1", [false, true, true]), ("author:7", [false, false, true]),
            ("author:8", [true, true, false]), ("group:a b/c", [false, true, true]), ("group:", [true, true, false]),
            ("author:", [true; 3]), ("author", [true; 3]), ("nobody", [true; 3]), ("", [true; 3])];
        for (tag, left) in cases {
            read_post(&cache, 1, by(7, "a b/c", "v1")).await;
            read_post(&cache, 2, by(7, "d", "v1")).await;
            read_post(&cache, 3, by(8, "", "v1")).await;
            cache.invalidate_tag(tag).await.unwrap();
            let stored = [is_stored(&cache, 1).await, is_stored(&cache, 2).await, is_stored(&cache, 3).await];
            assert_eq!(stored, left, "{tag:?}");
        }
    }

    // T7
    async fn an_own_invalidation_of_a_tag_is_seen_by_the_next_read(nodes: &Nodes) {
        let cache = nodes.node().await;
        for (round, tag) in TAGS.iter().cycle().take(20).enumerate() {
            let text = format!("v{round}");
            assert_eq!(read_post(&cache, 1, by(7, "a b/c", &text)).await, text, "{tag}");
            assert_eq!(read_post(&cache, 1, by(7, "a b/c", "never")).await, text, "{tag}");
            cache.invalidate_tag(tag).await.unwrap();
        }
    }

    // I1
    async fn several_tags_are_invalidated_together(nodes: &Nodes) {
        let cache = nodes.node().await;
        for id in 1..=3 {
            read(&cache, id, "v1").await;
        }
        cache.invalidate_tags(["row:1", "row:3", "row:99"]).await.unwrap();
        cache.invalidate_tags([""; 0]).await.unwrap();
        for (id, text) in [(1, "v2"), (2, "v1"), (3, "v2")] {
            assert_eq!(read(&cache, id, "v2").await, text);
        }
    }

    // R4
    async fn a_tag_kills_the_fill_in_flight(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for tag in TAGS {
            for by_node in [&here, &there] {
                let gate = Gate::shut();
                let slow = start(&here, &gate, 1, by(7, "a b/c", "v1"));
                gate.arrival().await;
                by_node.invalidate_tag(tag).await.unwrap();
                gate.let_through(1);
                assert_eq!(soon("the old run ends", slow).await.unwrap(), "v1", "its caller gets its value");
                for node in [&here, &there] {
                    assert!(!is_stored(node, 1).await, "{tag}");
                }
                assert_eq!(read_post(&there, 1, by(7, "a b/c", "v2")).await, "v2", "{tag}");
                assert_eq!(read_post(&here, 1, by(7, "a b/c", "v3")).await, "v2", "{tag}");
                post::entry(1).on(&here).invalidate().await.unwrap();
            }
        }
    }

    // R4, T7
    async fn a_run_from_before_an_invalidation_is_not_joined_after_it(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for what in ["tag", "function", "namespace"] {
            for by in [&here, &there] {
                let (cache, gate) = (here.clone(), Gate::shut());
                assert_eq!(alone(&here, &Gate::open(), 2, "v1").await, "v1");
                let entered = gate.clone();
                let old = tokio::spawn(async move { alone(&cache, &entered, 1, "v1").await });
                gate.arrival().await;
                match what {
                    "tag" => by.invalidate_tag("alone").await.unwrap(),
                    "function" => alone::invalidate_all(by).await.unwrap(),
                    _ => by.clear().await.unwrap(),
                }
                let is_told = || async { alone::entry(2).on(&here).get().await.unwrap().is_none() };
                eventually("it is reported", is_told).await;
                let new = soon("a later caller runs", alone(&here, &Gate::open(), 1, "v2")).await;
                assert_eq!(new, "v2", "{what}");
                gate.let_through(1);
                assert_eq!(soon("the old run ends", old).await.unwrap(), "v1", "{what}");
                alone::entry(1).on(&here).invalidate().await.unwrap();
            }
        }
    }

    // R4: tags of the value, including the tag before the change and the one after it
    async fn a_value_that_changes_its_tags_is_found_under_the_new_ones(nodes: &Nodes) {
        let cache = nodes.node().await;
        read_post(&cache, 1, by(7, "a", "v1")).await;
        cache.invalidate_tag("author:7").await.unwrap();
        read_post(&cache, 1, by(8, "a", "v2")).await;
        cache.invalidate_tag("author:7").await.unwrap();
        assert!(is_stored(&cache, 1).await);
        cache.invalidate_tag("author:8").await.unwrap();
        assert!(!is_stored(&cache, 1).await);
    }

    // I2
    async fn a_tag_reaches_the_other_nodes_tier_by_push(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for tag in TAGS {
            read_post(&here, 1, by(7, "a b/c", "v1")).await;
            eventually("the tier has it", || async {
                let hits = there.stats().local_hits;
                assert_eq!(read_post(&there, 1, by(7, "a b/c", "never")).await, "v1");
                there.stats().local_hits > hits
            })
            .await;
            here.invalidate_tag(tag).await.unwrap();
            eventually("the push arrives", || async { read_post(&there, 1, by(7, "a b/c", "v2")).await == "v2" }).await;
            post::entry(1).on(&here).invalidate().await.unwrap();
            eventually("the removal arrives", || async { !is_stored(&there, 1).await }).await;
        }
    }

    // T6
    async fn a_cold_node_honours_earlier_invalidations_of_tags(nodes: &Nodes) {
        let here = nodes.node().await;
        for tag in TAGS {
            read_post(&here, 1, by(7, "a b/c", "v1")).await;
            here.invalidate_tag(tag).await.unwrap();
            let cold = nodes.node().await;
            assert!(!is_stored(&cold, 1).await, "{tag}");
            assert_eq!(read_post(&cold, 1, by(7, "a b/c", "v2")).await, "v2");
            post::entry(1).on(&here).invalidate().await.unwrap();
        }
    }

    // R16
    async fn entries_whose_tag_is_lost_are_misses(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for key in ["cache@tag:posts", "cache@tag:post:1", "cache@tag:author:7", "cache@tag:group:a%20b/c"] {
            read_post(&here, 1, by(7, "a b/c", "v1")).await;
            read_post(&there, 1, by(7, "a b/c", "v1")).await;
            nodes.delete_by_hand(key).await;
            assert!(!is_stored(&nodes.node().await, 1).await, "{key}");
            for node in [&here, &there] {
                eventually("the tier is notified", || async { read_post(node, 1, by(7, "a b/c", "v2")).await == "v2" }).await;
            }
            post::entry(1).on(&here).invalidate().await.unwrap();
            eventually("the removal arrives", || async { !is_stored(&there, 1).await }).await;
        }
    }

    async fn a_value_set_by_hand_has_its_tags(nodes: &Nodes) {
        let cache = nodes.node().await;
        for tag in TAGS {
            post::entry(1).on(&cache).set(Some(Arc::new(by(7, "a b/c", "v1")))).await.unwrap();
            assert!(is_stored(&cache, 1).await);
            cache.invalidate_tag(tag).await.unwrap();
            assert!(!is_stored(&cache, 1).await, "{tag}");
        }
    }

    async fn a_call_by_hand_has_tags_by_its_options(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let ask = |cache: &Cache, tags: &[&str], text: &'static str| {
            let (cache, options) = (cache.clone(), EntryOptions::new().tags(tags));
            async move { cache.get_or_compute(Key::new("hand"), &options, || async { Ok::<_, Infallible>(text.to_owned()) }).await.unwrap() }
        };
        assert_eq!(ask(&here, &["a", "b:1", "a"], "v1").await, "v1");
        assert_eq!(ask(&there, &["b:1", "a"], "v2").await, "v1");
        here.invalidate_tag("b:1").await.unwrap();
        assert_eq!(ask(&here, &["a", "b:1"], "v3").await, "v3");
        eventually("the push arrives", || async { ask(&there, &["a", "b:1"], "v4").await == "v3" }).await;
        // No invalidation of the new tag would reach an entry that was stored without it.
        let cold = nodes.node().await;
        if matches!(nodes, Nodes::Redis(_)) {
            assert_eq!(ask(&cold, &["a", "b:1", "new"], "v5").await, "v5");
        }
    }

    async fn a_value_with_too_many_tags_is_returned_and_not_stored(nodes: &Nodes) {
        let cache = nodes.node().await;
        let mut events = cache.subscribe();
        for (tags, fills) in [(128, 1), (129, 1), (1000, 1)] {
            let options = EntryOptions::new().tags((0..tags).map(|tag| format!("tag:{tag}")));
            let compute = || async { Ok::<_, Infallible>(tags) };
            assert_eq!(cache.get_or_compute(Key::new("many").part(&tags), &options, compute).await.unwrap(), tags);
            assert_eq!(cache.stats().fills, fills);
        }
        event(&mut events, "it is reported", |event| matches!(event, Event::TooManyTags { tags: 129, .. })).await;
    }

    async fn a_tag_longer_than_a_record_holds_works_like_any_other(nodes: &Nodes) {
        let cache = nodes.node().await;
        let long = "x".repeat(1000);
        for (tag, stored) in [(format!("group:{long}y"), true), (format!("group:{long}"), false)] {
            read_post(&cache, 1, by(7, &long, "v1")).await;
            cache.invalidate_tag(tag).await.unwrap();
            assert_eq!(is_stored(&cache, 1).await, stored);
        }
    }
}

// R4: a change of another tag of the same kind during a run costs at most the fill
#[tokio::test]
async fn an_invalidation_of_the_same_kind_during_a_run_stores_nothing_wrong() {
    let nodes = Nodes::embedded();
    let cache = nodes.node().await;
    let gate = Gate::shut();
    let slow = start(&cache, &gate, 1, by(7, "a", "v1"));
    gate.arrival().await;
    cache.invalidate_tag("author:8").await.unwrap();
    gate.let_through(1);
    assert_eq!(soon("the run ends", slow).await.unwrap(), "v1");
    assert!(!is_stored(&cache, 1).await, "whether its own tag was meant is not known");
    assert_eq!(read_post(&cache, 1, by(7, "a", "v2")).await, "v2");
    assert!(is_stored(&cache, 1).await);
}

// I1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_of_tags_is_one_trip_however_many_entries_there_are() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let cache = nodes.node().await;
    for entries in [1, 500] {
        for id in 0..entries {
            read(&cache, id, "v1").await;
        }
        for (tags, sets) in [(&["rows"][..], 1), (&["row:1"], 2), (&["row:1", "row:2", "never used"], 4)] {
            server.cli(&["CONFIG", "RESETSTAT"]);
            cache.invalidate_tags(tags).await.unwrap();
            let stats = server.cli(&["INFO", "commandstats"]);
            let calls = format!("cmdstat_set:calls={sets},");
            assert!(stats.lines().any(|line| line.starts_with(&calls)), "{tags:?}: {stats}");
            for never in ["scan", "keys", "del", "unlink", "smembers", "evalsha", "mget"] {
                assert!(!stats.contains(&format!("cmdstat_{never}:")), "{never}: {stats}");
            }
        }
    }
}

// I5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidations_of_unused_tags_leave_nothing_behind() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let cache = nodes.node().await;
    read(&cache, 1, "v1").await;
    let keys = || server.cli(&["DBSIZE"]).trim().to_owned();
    let before = keys();
    for thousand in 0..10 {
        let tags = |id: u32| format!("nobody:{}", 1000 * thousand + id);
        futures::future::join_all((0..1000).map(|id| {
            let (cache, tag) = (&cache, tags(id));
            async move { cache.invalidate_tag(tag).await.unwrap() }
        }))
        .await;
    }
    // The same holds for functions and namespaces, entries, and fences that have ended.
    cache.invalidate_tag("rows:of:nobody").await.unwrap();
    post::invalidate_all(&cache).await.unwrap();
    post::entry(1).on(&cache).invalidate().await.unwrap();
    nodes.node_with(Cache::builder().namespace("nobody's")).await.clear().await.unwrap();
    let fence = || cache.fence().tag("nobody:0").entry(&post::entry(1).on(&cache)).raise();
    fence().await.unwrap().lift().await.unwrap();
    fence().await.unwrap().withdraw().await.unwrap();
    assert_eq!(keys(), before);
    assert_eq!(read(&cache, 1, "v2").await, "v1", "what is stored is untouched");
}

// T1: the versions of argument tags are requested together with the value
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_with_tags_is_one_trip_and_one_more_for_tags_by_the_value() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let here = nodes.node().await;
    read(&here, 1, "v1").await;
    read_post(&here, 1, by(7, "a", "v1")).await;
    read_post(&here, 2, by(7, "a", "v1")).await;
    let there = nodes.node().await;
    let reads = async |ask: &dyn Fn() -> futures::future::BoxFuture<'static, String>| {
        server.cli(&["CONFIG", "RESETSTAT"]);
        assert_eq!(ask().await, "v1");
        let stats = server.cli(&["INFO", "commandstats"]);
        let calls = |command: &str| {
            let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:calls=")));
            line.and_then(|line| line.split(['=', ',']).nth(1)).map_or(0, |calls| calls.parse::<u32>().unwrap())
        };
        (calls("mget"), calls("get"))
    };
    let cache = there.clone();
    let of_row = move || {
        let cache = cache.clone();
        Box::pin(async move { read(&cache, 1, "v2").await }) as futures::future::BoxFuture<'static, String>
    };
    let of_post = |id: u32| {
        let cache = there.clone();
        move || {
            let cache = cache.clone();
            Box::pin(async move { read_post(&cache, id, by(7, "a", "v2")).await })
                as futures::future::BoxFuture<'static, String>
        }
    };
    // The GET belongs to the script that registers, once in a process, that this build may store
    // under the function's name.
    assert_eq!(reads(&of_row).await, (1, 1));
    assert_eq!(reads(&of_row).await, (0, 0), "kept in this process");
    assert_eq!(reads(&of_post(1)).await, (2, 1));
    // All versions but that of the tag `post:2` are known by now.
    assert_eq!(reads(&of_post(2)).await, (1, 0));
}

/// A value that is held in an `Arc`.
#[cached(name = "whole", ttl = 60, key = "{id}", skip(cache, post), cache = cache, tags("author:{value.author}"))]
async fn whole(cache: &Cache, id: u32, post: Post) -> Arc<Post> {
    let _ = (cache, id);
    Arc::new(post)
}

on_both_stores! {
    // I1
    async fn a_value_in_arc_tells_its_tags(nodes: &Nodes) {
        let cache = nodes.node().await;
        whole(&cache, 1, by(7, "a", "old")).await;
        cache.invalidate_tag("author:8").await.unwrap();
        assert_eq!(whole(&cache, 1, by(7, "a", "new")).await.text, "old");
        cache.invalidate_tag("author:7").await.unwrap();
        assert_eq!(whole(&cache, 1, by(7, "a", "new")).await.text, "new");
    }
}
