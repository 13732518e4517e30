//! One tag for each element of a list in the value.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use cache_core::events::Event;
use cache_core::{Cache, cached};
use serde::{Deserialize, Serialize};
use support::{Gate, event, eventually, on_both_stores, soon};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Post {
    id: u32,
    author: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Page {
    name: String,
    posts: Vec<Post>,
    words: BTreeMap<String, u32>,
}

#[cached(
    name = "posts", ttl = 60, key = "{of}", skip(cache, gate, ids), cache = cache,
    tags("lists", "list:{of}", "post:{value[].id}", "author:{value[].author}")
)]
async fn posts(cache: &Cache, gate: &Gate, of: &str, ids: &[u32]) -> Result<Option<Arc<Vec<Post>>>, Infallible> {
    let _ = (cache, of);
    // The rows are read before the wait, as by a slow query.
    let posts = ids.iter().map(|id| Post { id: *id, author: (*id < 100).then_some(id % 3) }).collect();
    gate.pass().await;
    Ok((!ids.is_empty()).then(|| Arc::new(posts)))
}

/// Lists within the value, next to other fields.
#[cached(
    name = "page", ttl = 60, key = "{id}", skip(cache, page), cache = cache,
    tags("post:{value.posts[].id}", "word:{value.words[].0}", "on:{value.name}/{value.posts[].id}")
)]
async fn page(cache: &Cache, id: u32, page: Page) -> Page {
    let _ = (cache, id);
    page
}

#[cached(name = "ids", ttl = 60, key = "{n}", skip(cache), cache = cache, tags("n:{value[]}"))]
async fn ids(cache: &Cache, n: u32) -> Vec<u32> {
    let _ = cache;
    (0..n).collect()
}

async fn read(cache: &Cache, of: &str, ids: &[u32]) -> Vec<u32> {
    let posts = soon("a read", posts(cache, &Gate::open(), of, ids)).await.unwrap();
    posts.map_or_else(Vec::new, |posts| posts.iter().map(|post| post.id).collect())
}

async fn is_stored(cache: &Cache, of: &str) -> bool {
    posts::entry(of).on(cache).get().await.unwrap().is_some()
}

on_both_stores! {
    // I1
    async fn a_tag_of_any_element_ends_the_lists_that_hold_it_and_no_other(nodes: &Nodes) {
        let cache = nodes.node().await;
        for (tag, ended) in [
            ("post:1", [true, false, false]),
            ("post:2", [true, true, false]),
            ("post:3", [false, true, false]),
            ("post:200", [false, false, true]),
            ("author:0", [false, true, false]),
            ("author:1", [true, false, false]),
            ("author:!", [false, false, false]),
            ("list:c", [false, false, true]),
            ("lists", [true, true, true]),
            ("post:4", [false, false, false]),
        ] {
            for (of, ids) in [("a", [1, 2]), ("b", [2, 3]), ("c", [200, 201])] {
                assert_eq!(read(&cache, of, &ids).await, ids);
            }
            cache.invalidate_tag(tag).await.unwrap();
            let stored = [is_stored(&cache, "a").await, is_stored(&cache, "b").await, is_stored(&cache, "c").await];
            assert_eq!(stored.map(|stored| !stored), ended, "{tag}");
        }
    }

    async fn nested_lists_and_maps_have_their_tags(nodes: &Nodes) {
        let cache = nodes.node().await;
        let whole = Page {
            name: "news".to_owned(),
            posts: vec![Post { id: 1, author: None }, Post { id: 2, author: None }],
            words: [("tea".to_owned(), 3)].into(),
        };
        for (tag, stands) in [
            ("post:2", false),
            ("word:tea", false),
            ("word:3", true),
            ("on:news/1", false),
            ("on:news/3", true),
        ] {
            assert_eq!(page(&cache, 7, whole.clone()).await, whole);
            cache.invalidate_tag(tag).await.unwrap();
            assert_eq!(page::entry(7).on(&cache).get().await.unwrap().is_some(), stands, "{tag}");
        }
    }

    // I2
    async fn it_reaches_the_tier_of_another_node(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        read(&here, "a", &[1, 2]).await;
        eventually("it is kept there", || async {
            let hits = there.stats().local_hits;
            assert_eq!(read(&there, "a", &[9]).await, [1, 2]);
            there.stats().local_hits > hits
        })
        .await;
        here.invalidate_tag("post:2").await.unwrap();
        eventually("the push arrives", || async { read(&there, "a", &[9]).await == [9] }).await;
    }

    // R4
    async fn a_tag_of_an_element_that_changes_during_the_run_is_not_lost(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let run = tokio::spawn({
            let (here, gate) = (here.clone(), gate.clone());
            async move { posts(&here, &gate, "a", &[1, 2]).await.unwrap().unwrap().len() }
        });
        gate.arrival().await;
        there.invalidate_tag("post:2").await.unwrap();
        gate.let_through(1);
        assert_eq!(soon("the run", run).await.unwrap(), 2, "its caller gets it");
        for node in [&here, &there] {
            assert!(!is_stored(node, "a").await);
        }
    }

    async fn an_absent_value_and_an_empty_list_have_no_such_tags(nodes: &Nodes) {
        let cache = nodes.node().await;
        assert!(read(&cache, "a", &[]).await.is_empty());
        assert!(ids(&cache, 0).await.is_empty());
        cache.invalidate_tag("n:0").await.unwrap();
        assert_eq!(ids::entry(0).on(&cache).get().await.unwrap(), Some(vec![]));
    }

    async fn a_page_of_elements_fits_and_more_is_reported(nodes: &Nodes) {
        let cache = nodes.node().await;
        let mut events = cache.subscribe();
        for n in [128, 129] {
            assert_eq!(ids(&cache, n).await.len(), n as usize);
            assert_eq!(ids::entry(n).on(&cache).get().await.unwrap().is_some(), n == 128);
        }
        event(&mut events, "it is reported", |event| matches!(event, Event::TooManyTags { tags: 129, .. })).await;
        cache.invalidate_tag("n:127").await.unwrap();
        assert_eq!(ids::entry(128).on(&cache).get().await.unwrap(), None);
        // The same tag of many elements counts once.
        let same: Vec<u32> = (0..500).map(|n| n * 3 % 99).collect();
        assert_eq!(read(&cache, "same", &same).await.len(), 500);
        assert!(is_stored(&cache, "same").await);
    }
}
