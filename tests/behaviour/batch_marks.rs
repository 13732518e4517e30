//! A change that is pushed while a batch is read or stored is not lost: the values of the batch are
//! not kept in L1.
//!
//! The tests run on one thread. All replies of the server are held back until it has also sent the
//! change, so the reply and the push behind it arrive together.

use std::collections::HashMap;

use cache_core::{Cache, cached};
use support::{Gate, Proxy, RedisServer, eventually, soon};

#[cached(batch, name = "marked", ttl = 600, skip(cache, gate), cache = cache)]
async fn many(cache: &Cache, gate: &Gate, ids: &[u32]) -> HashMap<u32, String> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, format!("computed {id}"))).collect()
}

#[cached(name = "marked", ttl = 600, skip(cache), cache = cache)]
async fn one(cache: &Cache, id: u32) -> String {
    let _ = cache;
    format!("anew {id}")
}

const PATIENT: &str = "?response_timeout=20s&connect_timeout=20s&max_staleness=60s";

/// Returns a server, a proxy, a cache connected through the proxy, and a cache that makes changes.
async fn nodes() -> (RedisServer, Proxy, Cache, Cache) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let here = Cache::connect(&format!("{}{PATIENT}", proxy.url())).await.unwrap();
    let there = Cache::connect(&server.url()).await.unwrap();
    // The versions are known from now on, so each of the following operations is one round trip.
    assert_eq!(many(&here, &Gate::open(), &[100, 101]).await.len(), 2);
    (server, proxy, here, there)
}

async fn set(there: &Cache, id: u32, text: &str) {
    soon("a write", one::entry(id).on(there).set(text.to_owned())).await.unwrap();
}

/// Reads until the value is this one. A stale value in L1 would be served forever.
async fn becomes(here: &Cache, id: u32, text: &str) {
    eventually("the change is seen", || async { soon("a read", one(here, id)).await == text }).await;
}

/// Returns how often the server has executed this command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
// R6, B1
async fn a_change_between_the_sending_of_a_batch_read_and_its_answer_is_not_lost() {
    let (server, proxy, here, there) = nodes().await;
    for round in 0..5 {
        let ids = [round * 2, round * 2 + 1];
        for id in ids {
            set(&there, id, "old").await;
        }
        let before = calls(&server, "mget");
        proxy.hold_answers();
        let read = tokio::spawn({
            let here = here.clone();
            async move { many(&here, &Gate::open(), &ids).await }
        });
        eventually("the server has answered", || async { calls(&server, "mget") > before }).await;
        set(&there, ids[0], "new").await;
        proxy.heal();
        let read = soon("the batch", read).await.unwrap();
        assert!(read.values().all(|text| text == "old"), "{read:?}");
        becomes(&here, ids[0], "new").await;
        becomes(&here, ids[1], "old").await;
    }
}

#[tokio::test]
// R6, B1
async fn a_change_between_the_storing_of_a_batch_and_its_answer_is_not_lost() {
    let (_server, proxy, here, there) = nodes().await;
    for round in 0..5 {
        let (ids, gate) = ([round * 2, round * 2 + 1], Gate::shut());
        let run = tokio::spawn({
            let (here, gate) = (here.clone(), gate.clone());
            async move { many(&here, &gate, &ids).await }
        });
        gate.arrival().await;
        proxy.hold_answers();
        gate.let_through(1);
        for id in ids {
            eventually("it is stored", || async { one::entry(id).on(&there).get().await.unwrap().is_some() }).await;
        }
        set(&there, ids[0], "new").await;
        proxy.heal();
        let run = soon("the batch", run).await.unwrap();
        assert_eq!(run[&ids[0]], format!("computed {}", ids[0]));
        becomes(&here, ids[0], "new").await;
        becomes(&here, ids[1], &format!("computed {}", ids[1])).await;
    }
}
