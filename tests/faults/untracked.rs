//! A server that cannot track reads: nothing is kept in the process, and no change goes unseen.

use std::collections::HashMap;

use cache_core::events::Event;
use cache_core::{Cache, cached};
use futures::future::join_all;
use support::{Gate, PATIENT, Proxy, RedisServer, event};

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache, tags("rows", "of:{value}"))]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> String {
    let _ = (cache, id);
    gate.pass().await;
    text.to_owned()
}

#[cached(batch, name = "many", ttl = 60, key = "{ids}", skip(cache, gate, text), cache = cache, tags("rows"))]
async fn many(cache: &Cache, gate: &Gate, ids: &[u32], text: &str) -> HashMap<u32, String> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, text.to_owned())).collect()
}

/// Reads one row, several at once, and a batch. Returns the one text that all of them have.
async fn read(cache: &Cache, gate: &Gate, text: &str) -> String {
    let one = row(cache, gate, 1, text).await;
    let several = join_all((2..8).map(|id| row(cache, gate, id, text))).await;
    let batch = many(cache, gate, &[1, 2], text).await;
    for other in several.into_iter().chain(batch.into_values()) {
        assert_eq!(other, one);
    }
    one
}

// T5, R4: no change would be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untracked_reads_and_their_versions_are_not_kept() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    proxy.refuse_tracking();
    let (sender, mut events) = tokio::sync::broadcast::channel(64);
    let builder = Cache::builder().url(format!("{}?{PATIENT}", proxy.url())).on_event(move |event| {
        drop(sender.send(event.clone()));
    });
    let here = builder.connect().await.unwrap();
    event(&mut events, "it is reported", |event| matches!(event, Event::TrackingUnavailable { .. })).await;
    let there = Cache::connect(server.patient_url()).await.unwrap();
    let gate = Gate::open();
    assert_eq!(read(&there, &gate, "v1").await, "v1");
    for _ in 0..3 {
        assert_eq!(read(&here, &gate, "never").await, "v1");
    }
    // Each of these is seen by the next read, without a push.
    for id in 1..8 {
        row::entry(id).on(&there).set("v2".to_owned()).await.unwrap();
    }
    for id in 1..3 {
        many::entry(id).on(&there).set(Some("v2".to_owned())).await.unwrap();
    }
    assert_eq!(read(&here, &gate, "never").await, "v2");
    there.invalidate_tag("rows").await.unwrap();
    assert_eq!(read(&here, &gate, "v3").await, "v3");
    there.clear().await.unwrap();
    assert_eq!(read(&here, &gate, "v4").await, "v4");
    there.invalidate_tag("of:v4").await.unwrap();
    assert_eq!(row(&here, &gate, 1, "v5").await, "v5");
    assert_eq!(here.stats().local_hits, 0);
}
