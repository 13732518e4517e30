//! Values that are revalidated and kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::events::Event;
use cache_core::options::{Deadline, Revalidated};
use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

use super::{HOUR, Refused, SHORT};

/// A page that supports revalidation. The old values it is called with are recorded.
async fn page(
    cache: &Cache,
    gate: &Gate,
    asked: &Mutex<Vec<Option<String>>>,
    ttl: Duration,
) -> Result<String, Refused> {
    let options = EntryOptions::new().ttl(ttl).stale_if_error(HOUR).deadline(Deadline::Off);
    let revalidate = |old: Option<String>| async {
        asked.lock().unwrap().push(old.clone());
        gate.pass().await;
        Ok(old.map_or_else(|| Revalidated::New("text ".repeat(10_000)), Revalidated::NotModified))
    };
    cache
        .get_or_revalidate(Key::new("page"), &options, revalidate)
        .await
        .map_err(|error: Arc<Refused>| (*error).clone())
}

/// The entry of the same key.
#[cached(name = "page", cache = cache, skip(cache))]
async fn entry_of_page(cache: &Cache) -> String {
    let _ = cache;
    String::new()
}

on_both_stores! {
    // V8
    async fn a_value_that_is_not_modified_stays_and_its_ttl_is_renewed(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let (gate, asked) = (Gate::open(), Mutex::new(Vec::new()));
        let text = page(&here, &gate, &asked, SHORT).await.unwrap();
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(SHORT); }
        eventually("it is asked again", || async {
            assert_eq!(page(&here, &gate, &asked, HOUR).await.as_ref(), Ok(&text));
            asked.lock().unwrap().len() == 2
        }).await;
        assert_eq!(*asked.lock().unwrap(), [None, Some(text.clone())]);
        assert_eq!((here.stats().fills, here.stats().renewed), (1, 1));
        if let Nodes::Redis(server) = nodes {
            // The one `SET` of the payload was its first fill.
            assert_eq!(server.commandstats().get("setrange"), Some(&1));
            assert_eq!(server.commandstats().get("set").copied(), Some(5), "two leases, a value and two versions");
        }
        // All nodes see it for its new ttl.
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(HOUR / 2); }
        for cache in [&there, &here] {
            assert_eq!(page(cache, &gate, &asked, HOUR).await.as_ref(), Ok(&text));
        }
        assert_eq!(gate.runs(), 2);
    }

    // V8, R1
    async fn a_value_that_was_invalidated_while_it_was_asked_for_is_not_renewed(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (gate, asked) = (Gate::open(), Arc::new(Mutex::new(Vec::new())));
        let text = page(&cache, &gate, &asked, SHORT).await.unwrap();
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(SHORT); }
        let (mut events, gate) = (cache.subscribe(), Gate::shut());
        let slow = tokio::spawn({
            let (cache, gate, asked) = (cache.clone(), gate.clone(), Arc::clone(&asked));
            async move {
                while gate.runs() == 0 {
                    page(&cache, &gate, &asked, HOUR).await.unwrap();
                }
            }
        });
        gate.arrival().await;
        entry_of_page::entry().on(&cache).invalidate().await.unwrap();
        gate.let_through(1);
        soon("it returns", slow).await.unwrap();
        event(&mut events, "it is reported", |event| matches!(event, Event::FillRefused { .. })).await;
        assert_eq!(page(&cache, &Gate::open(), &asked, HOUR).await, Ok(text.clone()));
        assert_eq!(*asked.lock().unwrap(), [None, Some(text), None]);
    }
}

// V8: a value in an `Arc` is kept like any other.
#[tokio::test]
async fn a_shared_value_that_is_not_modified_stays() {
    let clock = cache_core::clock::Clock::manual();
    let cache = Cache::builder().jitter(0.0).clock(clock.clone()).in_memory();
    let options = EntryOptions::new().ttl(SHORT).stale_if_error(HOUR);
    for renewed in 0..3 {
        let revalidate = |old: Option<Arc<String>>| async {
            let new = || Revalidated::New(Arc::new("text".to_owned()));
            Ok::<_, Refused>(old.map_or_else(new, Revalidated::NotModified))
        };
        let value = cache.get_or_revalidate(Key::new("shared"), &options, revalidate).await;
        assert_eq!(**value.as_ref().unwrap(), "text");
        assert_eq!((cache.stats().fills, cache.stats().renewed), (1, renewed));
        clock.advance(SHORT);
    }
}
