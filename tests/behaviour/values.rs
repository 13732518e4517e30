//! Which values are stored, and the effect of stored bytes on a caller.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cache_core::events::Event;
use cache_core::store_testing::{RawSlot, RawStore};
use cache_core::{Cache, EntryOptions, Key, cached};
use futures::FutureExt as _;
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

#[cached(name = "fallible", ttl = 60, key = "{id}", skip(cache, gate, fails), cache = cache)]
async fn fallible(cache: &Cache, gate: &Gate, id: u32, fails: bool) -> Result<String, String> {
    let _ = cache;
    gate.pass().await;
    if fails { Err(format!("no {id}")) } else { Ok(format!("row {id}")) }
}

/// A value that determines its own ttl, and whether it is stored.
#[cached(name = "by_value", ttl = |seconds| Duration::from_secs(*seconds), cache_if = |seconds| *seconds != 13, bypass = fresh, key = "{seconds}", skip(cache, gate, fresh), cache = cache)]
async fn by_value(cache: &Cache, gate: &Gate, seconds: u64, fresh: bool) -> Result<u64, String> {
    let _ = cache;
    gate.pass().await;
    Ok(seconds)
}

#[cached(batch, name = "many_rows", ttl = 60, skip(cache, gate), cache = cache)]
async fn many_rows(cache: &Cache, gate: &Gate, ids: &[u32]) -> HashMap<u32, String> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, format!("row {id}"))).collect()
}

on_both_stores! {
    // V3
    async fn a_closure_gives_each_value_its_own_ttl(nodes: &Nodes) {
        let (cache, gate) = (nodes.node_with(Cache::builder().jitter(0.0)).await, Gate::open());
        for seconds in [20, 2000] {
            by_value(&cache, &gate, seconds, false).await.unwrap();
            let left = by_value::entry(seconds).on(&cache).ttl().await.unwrap().unwrap();
            assert!(left <= Duration::from_secs(seconds) && left > Duration::from_secs(seconds - 5), "{left:?}");
        }
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(20));
            by_value(&cache, &gate, 2000, false).await.unwrap();
            assert_eq!(gate.runs(), 2);
            by_value(&cache, &gate, 20, false).await.unwrap();
            assert_eq!(gate.runs(), 3);
        }
    }

    // V5
    async fn a_value_that_cache_if_refuses_is_not_stored(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        for runs in 1..=3 {
            assert_eq!(by_value(&cache, &gate, 13, false).await, Ok(13));
            assert_eq!(by_value::entry(13).on(&cache).get().await.unwrap(), None);
            assert_eq!(gate.runs(), runs);
        }
        for _ in 0..3 {
            assert_eq!(by_value(&cache, &gate, 14, false).await, Ok(14));
        }
        assert_eq!(gate.runs(), 4);
    }

    // V6
    async fn a_bypassed_call_neither_reads_nor_stores(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        for _ in 0..2 {
            by_value(&cache, &gate, 60, true).await.unwrap();
            assert_eq!(by_value::entry(60).on(&cache).get().await.unwrap(), None);
        }
        by_value(&cache, &gate, 60, false).await.unwrap();
        by_value(&cache, &gate, 60, false).await.unwrap();
        assert_eq!(gate.runs(), 3);
        by_value(&cache, &gate, 60, true).await.unwrap();
        assert_eq!(gate.runs(), 4, "what is stored is not read");
    }

    // V1
    async fn an_error_is_never_stored(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        for _ in 0..3 {
            assert_eq!(fallible(&cache, &gate, 7, true).await, Err("no 7".to_owned()));
            assert_eq!(fallible::entry(7).on(&cache).get().await.unwrap(), None);
        }
        assert_eq!(gate.runs(), 3);
        // The lease is given back immediately, so the next caller need not wait for its expiry.
        assert_eq!(soon("the next run", fallible(&cache, &gate, 7, false)).await.unwrap(), "row 7");
        assert_eq!(cache.stats().waited, 0);
    }

    // V2
    async fn an_absent_value_is_stored_only_with_a_negative_ttl_and_for_that_time(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        let key = || Key::new("absent");
        let ask = |options: EntryOptions| {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move {
                let compute = || async { gate.pass().await; Ok::<Option<u32>, Infallible>(None) };
                cache.get_or_compute_optional(key(), &options, compute).await.unwrap()
            }
        };
        let without = EntryOptions::new().ttl(Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(ask(without.clone()).await, None);
        }
        assert_eq!(gate.runs(), 2);
        let with = without.negative_ttl(Duration::from_secs(5));
        for _ in 0..5 {
            assert_eq!(ask(with.clone()).await, None);
        }
        assert_eq!(gate.runs(), 3);
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_millis(4_999));
            ask(with.clone()).await;
            assert_eq!(gate.runs(), 3);
            clock.advance(Duration::from_millis(1));
            ask(with.clone()).await;
            assert_eq!(gate.runs(), 4);
        }
    }

    // V7
    async fn foreign_bytes_are_a_miss_with_an_event(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        let mut events = cache.subscribe();
        let entry = fallible::entry(7).on(&cache);
        let foreign = ["\"text\"", "12345", "{\"cookie\":{}}", "null"];
        for (round, text) in foreign.iter().enumerate() {
            nodes.write_by_hand(entry.key(), text).await;
            assert_eq!(entry.get().await.unwrap(), None);
            event(&mut events, "it is reported", |event| matches!(event, Event::Undecodable { name, .. } if &**name == "fallible")).await;
            assert_eq!(soon("it is computed", fallible(&cache, &gate, 7, false)).await.unwrap(), "row 7");
            assert_eq!(gate.runs(), round + 1);
            assert_eq!(soon("it is stored", fallible(&cache, &gate, 7, false)).await.unwrap(), "row 7");
            assert_eq!(gate.runs(), round + 1, "what was computed replaced the foreign bytes");
        }
    }

    // V7, B1
    async fn foreign_bytes_in_a_batch_are_a_miss_and_replaced(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        nodes.write_by_hand(many_rows::entry(2).on(&cache).key(), "\"text\"").await;
        for _ in 0..2 {
            assert_eq!(soon("a batch", many_rows(&cache, &gate, &[1, 2, 3])).await.len(), 3);
        }
        assert_eq!(gate.runs(), 1, "what was computed replaced the foreign bytes");
        assert_eq!(many_rows::entry(2).on(&cache).get().await.unwrap(), Some(Some("row 2".to_owned())));
    }

    // V7
    async fn a_value_of_another_redis_type_is_a_miss_with_an_event(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        let mut events = cache.subscribe();
        let entry = fallible::entry(7).on(&cache);
        cache.plain().hash::<String>(entry.key()).set("field", &"value".to_owned()).await.unwrap();
        assert_eq!(entry.get().await.unwrap(), None);
        assert_eq!(soon("it is computed", fallible(&cache, &gate, 7, false)).await.unwrap(), "row 7");
        event(&mut events, "it is reported", |event| matches!(event, Event::Undecodable { .. })).await;
        assert_eq!(entry.get().await.unwrap().as_deref(), Some("row 7"));
        assert_eq!(gate.runs(), 1);
    }

    // V7
    async fn a_record_moved_to_another_key_is_not_served_there(nodes: &Nodes) {
        let Nodes::Redis(server) = nodes else { return };
        let (cache, gate) = (nodes.node().await, Gate::open());
        fallible(&cache, &gate, 1, false).await.unwrap();
        let (one, two) = (fallible::entry(1).on(&cache), fallible::entry(2).on(&cache));
        server.cli(&["COPY", one.key(), two.key()]);
        assert_eq!(two.get().await.unwrap(), None);
        assert_eq!(fallible(&cache, &gate, 2, false).await.unwrap(), "row 2");
    }

    // V7
    async fn a_value_over_the_size_limit_is_returned_and_not_stored(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder().max_value_bytes(1000)).await;
        let mut events = cache.subscribe();
        let compute = || async { Ok::<_, Infallible>("x".repeat(1000)) };
        let value = cache.get_or_compute(Key::new("large"), &EntryOptions::new(), compute).await.unwrap();
        assert_eq!(value.len(), 1000);
        event(&mut events, "it is reported", |event| matches!(event, Event::TooLarge { bytes, .. } if *bytes > 1000)).await;
        assert_eq!(cache.stats().fills, 0);
    }

    // V7
    async fn a_type_that_the_codec_cannot_read_back_is_stored_as_messagepack(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        let mut events = cache.subscribe();
        let ask = || async {
            let compute = || async { gate.pass().await; Ok::<_, Infallible>(serde_json::json!({ "a": [1, "b", null] })) };
            cache.get_or_compute(Key::new("json"), &EntryOptions::new(), compute).await.unwrap()
        };
        let first = ask().await;
        assert_eq!(ask().await, first);
        assert_eq!(gate.runs(), 1);
        // Reported once in a process, by the first cache that stores the type.
        while let Ok(event) = events.try_recv() {
            assert!(!matches!(event, Event::EncodeFailed { .. }), "{event:?}");
        }
    }

    // V3
    async fn a_value_is_served_until_its_ttl_ends_and_not_after(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::open());
        fallible(&cache, &gate, 7, false).await.unwrap();
        let left = fallible::entry(7).on(&cache).ttl().await.unwrap().unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(55), "{left:?}");
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_millis(59_999));
            fallible(&cache, &gate, 7, false).await.unwrap();
            assert_eq!(gate.runs(), 1);
            clock.advance(Duration::from_millis(1));
            fallible(&cache, &gate, 7, false).await.unwrap();
            assert_eq!(gate.runs(), 2);
        }
    }

    async fn an_arc_is_stored_as_its_content(nodes: &Nodes) {
        let (cache, other) = (nodes.node().await, nodes.node().await);
        let key = || Key::new("arc").part("é:/ {x}");
        let stored = cache.get_or_compute(key(), &EntryOptions::new(), || async { Ok::<Arc<str>, Infallible>("text".into()) }).await.unwrap();
        let read = other.get_or_compute(key(), &EntryOptions::new(), || async { Ok::<String, Infallible>("another".into()) }).await.unwrap();
        assert_eq!(&*stored, read);
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
}

#[tokio::test]
// V7
async fn unsuitable_codecs_and_incomplete_fingerprints_are_reported() {
    #[cached(ttl = 60, skip(cache), cache = cache)]
    async fn untagged(cache: &Cache, id: u32) -> Untagged {
        if id == 0 { Untagged::Number(id) } else { Untagged::Text("x".to_owned()) }
    }
    let cache = Cache::in_memory();
    let mut events = cache.subscribe();
    for id in [0, 1, 0, 1] {
        untagged(&cache, id).await;
    }
    assert_eq!(untagged::entry(1).on(&cache).get().await.unwrap(), Some(Untagged::Text("x".to_owned())));
    assert_eq!(cache.stats().computes, 2);
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(match event {
            Event::FingerprintIncomplete { type_name } => format!("incomplete {type_name}"),
            Event::CodecReplaced { type_name, codec } => format!("{codec} replaced for {type_name}"),
            other => panic!("{other:?}"),
        });
    }
    told.sort();
    let name = std::any::type_name::<Untagged>();
    assert_eq!(told, [format!("bincode replaced for {name}"), format!("incomplete {name}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// V7
async fn every_mutation_of_a_stored_record_is_a_miss_with_an_event() {
    let server = support::RedisServer::start();
    let cache = Cache::builder().url(server.patient_url()).local_limit_bytes(0).connect().await.unwrap();
    let store = RawStore::redis(&server.patient_url()).await.unwrap();
    let gate = Gate::open();
    fallible(&cache, &gate, 7, false).await.unwrap();
    let key = fallible::entry(7).on(&cache).key().to_owned();
    let RawSlot::Bytes(record) = store.read(&key).await.unwrap() else { panic!("there is a record") };
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = move |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % limit as u64).unwrap()
    };
    for round in 0..1500_u64 {
        let mut bytes = record.clone();
        match round % 4 {
            0 => bytes.truncate(below(bytes.len())),
            1 => bytes[below(record.len())] ^= 1 << below(8),
            // A forged length: the first byte of the payload is the length of the text.
            2 => bytes[42] = bytes[42].wrapping_add(1 + below(255) as u8),
            _ => bytes.extend((0..=below(40)).map(|_| below(256) as u8)),
        }
        store.put(&key, &bytes, None).await.unwrap();
        assert_eq!(fallible(&cache, &gate, 7, false).await.unwrap(), "row 7");
        assert_eq!(cache.stats().undecodable, round + 1, "each is reported once: {bytes:?}");
        assert_eq!(gate.runs() as u64, round + 2, "computed again each time");
    }
}

/// The same entries, several at a time.
#[cached(batch, name = "fallible", ttl = 60, key = "{ids}", skip(cache, gate), cache = cache)]
async fn fallibles(cache: &Cache, gate: &Gate, ids: &[u32]) -> Result<HashMap<u32, String>, String> {
    let _ = cache;
    gate.pass().await;
    Ok(ids.iter().map(|id| (*id, format!("row {id}"))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// V7, X1: an unknown layout also represents an unknown flag. Both are distinguished from garbage
async fn a_record_of_a_newer_build_stays_until_it_is_replaced() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let (here, there) = (nodes.node().await, nodes.node().await);
    let store = RawStore::redis(&server.url()).await.unwrap();
    fallible(&here, &Gate::open(), 7, false).await.unwrap();
    let entry = fallible::entry(7).on(&here);
    let RawSlot::Bytes(mut newer) = store.read(entry.key()).await.unwrap() else { panic!("there is a record") };
    newer[2] += 1;
    let minute = Some(Duration::from_secs(60));
    for by_batch in [false, true] {
        store.put(entry.key(), &newer, minute).await.unwrap();
        eventually("the tier is notified", || async { entry.get().await.unwrap().is_none() }).await;
        let mut events = here.subscribe();
        fallible(&here, &Gate::open(), 7, true).await.unwrap_err();
        event(&mut events, "it is reported", |event| matches!(event, Event::Undecodable { .. })).await;
        assert_eq!(store.read(entry.key()).await.unwrap(), RawSlot::Bytes(newer.clone()), "a run that failed");
        // The mark of that run, which makes others not wait (X7).
        store.delete(&format!("{{{}}}:l", entry.key())).await.unwrap();
        let (gate, waited) = (Gate::shut(), there.stats().waited);
        let run = async {
            if by_batch {
                fallibles(&here, &gate, &[7]).await.unwrap().remove(&7).unwrap()
            } else {
                fallible(&here, &gate, 7, false).await.unwrap()
            }
        };
        let rest = async {
            gate.arrival().await;
            assert_eq!(store.read(entry.key()).await.unwrap(), RawSlot::Bytes(newer.clone()), "others can read it");
            let waits = async {
                if by_batch {
                    fallibles(&there, &gate, &[7]).await.unwrap().remove(&7).unwrap()
                } else {
                    fallible(&there, &gate, 7, false).await.unwrap()
                }
            };
            let pass = async {
                eventually("it waits for the other process", || async { there.stats().waited > waited }).await;
                gate.let_through(1);
            };
            futures::future::join(waits, pass).await.0
        };
        let both = soon("both have it", futures::future::join(run, rest)).await;
        assert_eq!(both, ("row 7".to_owned(), "row 7".to_owned()));
        assert_eq!(gate.runs(), 1);
        assert_eq!(entry.get().await.unwrap().as_deref(), Some("row 7"));
    }
}

#[test]
fn a_hit_in_the_embedded_store_is_one_poll_without_a_runtime() {
    let (cache, gate) = (Cache::builder().local_limit_bytes(0).in_memory(), Gate::open());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fallible(&cache, &gate, 7, false)).unwrap();
    runtime.shutdown_background();
    // No runtime is left that could run a task or wake this one.
    for _ in 0..3 {
        assert_eq!(fallible(&cache, &gate, 7, false).now_or_never(), Some(Ok("row 7".to_owned())));
    }
    assert_eq!((gate.runs(), cache.stats().hits, cache.stats().local_hits), (1, 3, 0));
}
