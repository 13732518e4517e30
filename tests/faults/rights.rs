//! D8: each permission that the engine needs is checked before a connection is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::events::Event;
use cache_core::{Cache, CacheBuilder, ErrorKind, cached};
use futures::future::join_all;
use support::{PATIENT, RedisServer, eventually, soon};

#[cached(ttl = 60, skip(cache), cache = cache, tags("numbers", "number:{id}"))]
async fn doubled(cache: &Cache, id: u64) -> Option<u64> {
    let _ = cache;
    (id > 0).then_some(id * 2)
}

/// Triples ids, one by one and in batches.
#[cached(name = "tripled", ttl = 60, skip(cache), cache = cache)]
async fn tripled(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id * 3
}

#[cached(batch, name = "tripled", ttl = 60, skip(cache), cache = cache)]
async fn all_tripled(cache: &Cache, ids: &[u64]) -> HashMap<u64, u64> {
    let _ = cache;
    ids.iter().map(|id| (*id, id * 3)).collect()
}

/// Not used before the permission is lost.
#[cached(name = "late", ttl = 60, skip(cache, answer), cache = cache)]
async fn late(cache: &Cache, id: u64, answer: u64) -> u64 {
    let _ = (cache, id);
    answer
}

/// Returns the line of the page `acl`.
fn line() -> &'static str {
    let page = include_str!("../../cache-core/docs/acl.md");
    let line = page.lines().find_map(|line| line.strip_prefix("user shop on >password ")).unwrap();
    line.trim()
}

fn builder(server: &RedisServer, user: &str, more: &str) -> CacheBuilder {
    Cache::builder().url(format!("{}?{PATIENT}{more}", server.url_as(&format!("{user}:password"))))
}

fn set_user(server: &RedisServer, user: &str, rules: &str) {
    let mut arguments = vec!["ACL", "SETUSER", user, "on", ">password"];
    arguments.extend(rules.split(' '));
    server.cli(&arguments);
}

// D8
#[tokio::test]
async fn the_line_of_the_page_is_enough() {
    let server = RedisServer::start();
    set_user(&server, "shop", line());
    // Unknown before Redis 7.2, and not used there.
    server.cli(&["ACL", "SETUSER", "shop", "+client|setinfo"]);
    let connect = || builder(&server, "shop", "&namespace=shop&wait_for_replicas=0").require_store().connect();
    let (cache, other) = (connect().await.unwrap(), connect().await.unwrap());
    for cache in [&cache, &other] {
        assert_eq!((doubled(cache, 1).await, doubled(cache, 1).await), (Some(2), Some(2)));
        assert_eq!(doubled(cache, 0).await, None);
    }
    assert_eq!(cache.stats().computes + other.stats().computes, 3);
    doubled::entry(1).on(&cache).invalidate().await.unwrap();
    doubled::entry(1).on(&cache).set(Some(7)).await.unwrap();
    assert_eq!(doubled(&other, 1).await, Some(7));
    let fence = cache.fence().entry(&doubled::entry(1).on(&cache)).tag("numbers").raise().await.unwrap();
    fence.lift().await.unwrap();
    cache.invalidate_tags(["numbers", "number:1"]).await.unwrap();
    cache.clear().await.unwrap();
    assert_eq!(doubled(&other, 1).await, Some(2));
    assert_eq!(server.cli(&["ACL", "LOG"]), "", "nothing was refused");
}

// D8
#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let server = RedisServer::start();
    let needed = [
        "get",
        "getrange",
        "mget",
        "set",
        "setrange",
        "pttl",
        "pexpire",
        "pexpireat",
        "pexpiretime",
        "persist",
        "exists",
        "type",
        "rename",
        "del",
        "unlink",
        "sadd",
        "smembers",
        "time",
        "evalsha",
        "script|load",
        "client|tracking",
        "client|caching",
    ];
    for (number, right) in needed.into_iter().enumerate() {
        let user = format!("user{number}");
        set_user(&server, &user, &format!("~* &* +@all -{right}"));
        let error = builder(&server, &user, "").connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{right}: {error}");
        let text = error.to_string();
        assert!(text.contains(&format!("ACL SETUSER {user} +{right}`")), "{right}: {text}");
    }
    set_user(&server, "elsewhere", "~other:* &* +@all");
    let error = builder(&server, "elsewhere", "&namespace=shop").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("~shop:*") && error.to_string().contains("~shop@*"), "{error}");
    // Keys with read permission only.
    set_user(&server, "reader", "%R~* &* +@all");
    let text = builder(&server, "reader", "&namespace=shop").connect().await.unwrap_err().to_string();
    assert!(text.contains("~shop:*") && text.contains("~shop@*"), "{text}");
    set_user(&server, "several", "~* &* +@all -@scripting -smembers");
    let text = builder(&server, "several", "").connect().await.unwrap_err().to_string();
    assert!(text.contains("+evalsha +script|load +smembers"), "{text}");
}

// D8, D2: while a failover holds writes back, a connection can be made.
#[tokio::test]
async fn a_server_that_holds_writes_back_is_connected_to() {
    let server = RedisServer::start();
    server.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let builder = Cache::builder().url(format!("{}?{PATIENT}", server.url())).require_store();
    let cache = soon("it connects", builder.connect()).await.unwrap();
    assert!(cache.is_available());
    server.cli(&["CLIENT", "UNPAUSE"]);
    assert_eq!((doubled(&cache, 1).await, doubled(&cache, 1).await), (Some(2), Some(2)));
    assert_eq!(cache.stats().computes, 1);
}

// D8: an unneeded permission that is missing is an event.
#[tokio::test]
async fn rights_that_are_not_needed_are_events() {
    let server = RedisServer::start();
    set_user(&server, "app", "~* &* +@all -info -client|kill -client|info");
    let told = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&told);
    let builder = builder(&server, "app", "").on_event(move |event| match event {
        Event::InfoUnavailable => seen.lock().unwrap().0 += 1,
        Event::KillUnavailable { .. } => seen.lock().unwrap().1 += 1,
        _ => {}
    });
    let cache = builder.require_store().connect().await.unwrap();
    assert_eq!((doubled(&cache, 1).await, doubled(&cache, 1).await), (Some(2), Some(2)));
    assert_eq!(*told.lock().unwrap(), (1, 1));
}

// D8, X4: a revoked permission ends leases, and no caller waits for one.
#[tokio::test]
async fn a_right_that_is_lost_costs_no_wait_and_comes_back() {
    let server = RedisServer::start();
    set_user(&server, "app", "~* &* +@all");
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    // A wait for a lease would exceed the test's timeout.
    let builder = builder(&server, "app", "").lease(Duration::from_secs(600)).on_event(move |event| match event {
        Event::Disconnected { reason } => seen.lock().unwrap().push(format!("lost: {reason}")),
        Event::ConnectFailed { kind: ErrorKind::Configuration, reason } => {
            seen.lock().unwrap().push(format!("failed: {reason}"));
        }
        _ => {}
    });
    let cache = builder.connect().await.unwrap();
    assert_eq!(doubled(&cache, 1).await, Some(2));
    server.cli(&["ACL", "SETUSER", "app", "-@scripting"]);
    // The lease is taken, but neither the fill nor the script that gives the lease back is allowed.
    assert_eq!(soon("it is computed", doubled(&cache, 2)).await, Some(4));
    eventually("the connection is closed", || async { !cache.is_available() }).await;
    for id in 2..6 {
        assert_eq!(soon("no caller waits", doubled(&cache, id)).await, Some(id * 2));
    }
    let keys = server.cli(&["KEYS", "*"]);
    let leases = keys.lines().filter(|key| server.cli(&["TYPE", key]) == "string");
    let leases: Vec<_> = leases.filter(|key| server.cli(&["GET", key]).starts_with('L')).collect();
    assert!(leases.is_empty(), "{leases:?}");
    eventually("it is reported", || async { told.lock().unwrap().len() == 2 }).await;
    for told in told.lock().unwrap().iter() {
        assert!(told.contains("+evalsha") && told.contains("+script|load"), "{told}");
    }
    server.cli(&["ACL", "SETUSER", "app", "+@scripting"]);
    eventually("it comes back", || async { cache.is_available() }).await;
    let before = cache.stats().computes;
    assert_eq!((doubled(&cache, 2).await, doubled(&cache, 2).await), (Some(4), Some(4)));
    assert_eq!(cache.stats().computes, before + 1);
    // Reported once, however often it was tried.
    assert_eq!(told.lock().unwrap().len(), 2);
}

// T5, R6: no change would be pushed. Reads and writes, one by one and in batches, and versions.
#[tokio::test]
async fn a_read_that_the_server_refuses_to_track_is_not_kept() {
    let server = RedisServer::start();
    set_user(&server, "app", "~* &* +@all");
    let cache = builder(&server, "app", "").require_store().connect().await.unwrap();
    let other = Cache::connect(server.patient_url()).await.unwrap();
    let triple = |ids: &[u64]| ids.iter().map(|id| (*id, id * 3)).collect::<HashMap<_, _>>();
    assert_eq!(all_tripled(&other, &[1, 2, 3]).await, triple(&[1, 2, 3]));
    assert_eq!(late(&other, 1, 1).await, 1);
    for id in 10..20 {
        assert_eq!(tripled(&other, id).await, 3 * id);
    }
    for way in
        ["read", "read together", "read in a batch", "stored", "stored in a batch", "read under unknown versions"]
    {
        eventually("the versions are known", || async {
            let hits = cache.stats().local_hits;
            assert_eq!(tripled(&cache, 100).await, 300);
            cache.stats().local_hits > hits
        })
        .await;
        let before = cache.stats();
        server.cli(&["ACL", "SETUSER", "app", "-client|caching"]);
        for _ in 0..3 {
            match way {
                "read" => assert_eq!(tripled(&cache, 1).await, 3),
                // The first is sent alone, the others as one command.
                "read together" => {
                    let all = join_all((10..20).map(|id| tripled(&cache, id))).await;
                    assert!(all.into_iter().eq((10..20).map(|id| 3 * id)));
                }
                "read in a batch" => assert_eq!(all_tripled(&cache, &[2, 3]).await, triple(&[2, 3])),
                "stored" => assert_eq!(tripled(&cache, 50).await, 150),
                "stored in a batch" => assert_eq!(all_tripled(&cache, &[51, 52]).await, triple(&[51, 52])),
                // Computed if the connection was dropped in the meantime.
                _ => assert!(matches!(late(&cache, 1, 2).await, 1 | 2)),
            }
        }
        assert_eq!(cache.stats().local_hits, before.local_hits, "{way}");
        server.cli(&["ACL", "SETUSER", "app", "+client|caching"]);
        eventually("it comes back", || async { cache.is_available() }).await;
    }
}

// D1: also if the server may not be asked for its mode.
#[tokio::test]
async fn a_node_of_a_cluster_is_refused() {
    let server = RedisServer::builder().option("cluster-enabled", "yes").start();
    set_user(&server, "app", "~* &* +@all -info");
    for url in [server.url(), server.url_as("app:password")] {
        let error = Cache::connect(format!("{url}?{PATIENT}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(
            error.to_string().contains("node of a Redis Cluster") && error.to_string().contains("`redis://"),
            "{error}"
        );
    }
}
