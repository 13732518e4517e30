//! Promises of every store: the same tests for the embedded store and for Redis.
//!
//! Time passes through `let_pass` only, so a store with a manual clock needs no waiting.

use std::time::Duration;

use cache_core::ErrorKind;
use cache_core::store_testing::{RawAcquired, RawMessage, RawOver, RawSlot, RawStore, RawSwapped, record};
use futures::future::join;
use futures::{FutureExt, StreamExt};
use support::{eventually, soon};

use RawOver::{Nothing, Record};

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);
/// A ttl or lease that expires in a test.
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

/// Two attempts.
const A: u128 = 0xa;
const B: u128 = 0xb;

/// Defines each test for each store.
macro_rules! conformance {
    ($($name:ident)*) => {
        mod redis {
            use cache_core::store_testing::RawStore;
            use support::RedisServer;

            $(
                #[tokio::test]
                async fn $name() {
                    let server = RedisServer::start();
                    let store = RawStore::redis(&server.patient_url()).await.unwrap();
                    super::$name(&store).await;
                    assert!(store.close().await);
                }
            )*
        }

        mod embedded {
            use cache_core::store_testing::RawStore;

            $(
                #[tokio::test]
                async fn $name() {
                    let store = RawStore::memory();
                    super::$name(&store).await;
                    assert!(store.close().await);
                }
            )*
        }
    };
}

pub(super) use conformance;

conformance! {
    an_absent_key_is_absent
    a_record_expires
    a_write_unlinks_the_siblings_and_their_leases
    a_write_keeps_the_own_key_named_as_a_sibling
    a_removal_ends_every_lease_of_its_keys
    builds_are_known_until_they_expire
    a_recreated_registry_gives_the_function_another_version
    a_discard_removes_exactly_what_was_seen
    a_waiter_is_woken_by_a_fill
    a_waiter_is_woken_by_a_removal_and_by_a_release
    a_waiter_is_woken_by_the_end_of_the_lease
    a_waiter_of_another_key_sleeps_on
    a_value_is_put_loaded_and_deleted
    an_object_is_created_once
    a_swap_replaces_exactly_what_was_expected
    a_swap_can_keep_the_time_left
    an_expiry_is_set_and_removed
    a_hash_holds_fields
    another_type_is_refused_or_reported
    any_bytes_round_trip
    a_message_reaches_every_subscriber
    a_subscription_ends_with_its_last_subscriber
    a_closed_store_says_so
}

async fn an_absent_key_is_absent(store: &RawStore) {
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    assert_eq!(store.load("k").await.unwrap(), None);
    assert!(!store.delete("k").await.unwrap());
    assert!(store.is_available());
}

async fn a_record_expires(store: &RawStore) {
    store.write("k", &record(1, "v"), SHORT, &[], "builds").await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    store.fill("k", A, Nothing, &record(2, "v"), SHORT).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// R2, R21
async fn a_write_unlinks_the_siblings_and_their_leases(store: &RawStore) {
    store.write("k@old", &record(1, "old build"), TTL, &[], "builds").await.unwrap();
    store.acquire("k@old", A, LEASE, Record(1)).await.unwrap();
    store.acquire("k@older", B, LEASE, Nothing).await.unwrap();
    store.write("k@new", &record(2, "new"), TTL, &["k@old", "k@older"], "builds").await.unwrap();
    assert_eq!(store.read("k@new").await.unwrap(), RawSlot::Bytes(record(2, "new")));
    assert_eq!(store.read("k@old").await.unwrap(), RawSlot::Absent);
    assert!(!store.fill("k@old", A, Record(1), &record(3, "old"), TTL).await.unwrap());
    assert!(!store.fill("k@older", B, Nothing, &record(4, "old"), TTL).await.unwrap());
}

async fn a_write_keeps_the_own_key_named_as_a_sibling(store: &RawStore) {
    store.write("k", &record(1, "v"), TTL, &["k", "k2"], "builds").await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
}

// R1
async fn a_removal_ends_every_lease_of_its_keys(store: &RawStore) {
    store.write("a", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("a", A, LEASE, Record(1)).await.unwrap();
    store.acquire("b", B, LEASE, Nothing).await.unwrap();
    store.remove(&["a", "b"], "builds").await.unwrap();
    assert_eq!(store.acquire("a", 3, LEASE, Nothing).await.unwrap(), RawAcquired::Ours);
    assert_eq!(store.acquire("b", 4, LEASE, Nothing).await.unwrap(), RawAcquired::Ours);
    assert!(!store.fill("b", B, Nothing, &record(1, "v"), TTL).await.unwrap());
    // The lease of the refresh is gone too, so the next record can be refreshed immediately.
    assert!(store.fill("a", 3, Nothing, &record(5, "v"), TTL).await.unwrap());
    assert_eq!(store.acquire("a", 6, LEASE, Record(5)).await.unwrap(), RawAcquired::Ours);
    assert_eq!(store.remove(&[], "builds").await.unwrap(), Vec::<String>::new());
}

async fn builds_are_known_until_they_expire(store: &RawStore) {
    let builds = "{f@version}:builds";
    store.register_build(builds, "f@version", "f1", TTL).await.unwrap();
    store.register_build(builds, "f@version", "f2", TTL).await.unwrap();
    let mut known = store.remove(&["k"], builds).await.unwrap();
    known.sort();
    assert_eq!(known, ["f1", "f2"]);
    let mut known = store.write("k", &record(1, "v"), TTL, &[], builds).await.unwrap();
    known.sort();
    assert_eq!(known, ["f1", "f2"]);
    assert!(store.expire(builds, Some(SHORT)).await.unwrap());
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.remove(&["k"], builds).await.unwrap(), Vec::<String>::new());
}

// R25
async fn a_recreated_registry_gives_the_function_another_version(store: &RawStore) {
    let (builds, version) = ("{f@version}:builds", "f@version");
    let register = async |build: &str| store.register_build(builds, version, build, TTL).await.unwrap();
    let stands = async || store.versions(&[version], false).await.unwrap().0[0];
    // A version under which nothing was stored is not created (I5).
    assert_eq!((register("f1").await, stands().await), (None, None));
    let first = store.versions(&[version], true).await.unwrap().0[0];
    assert!(first.is_some());
    // The registry exists, so nothing changes.
    for build in ["f1", "f2"] {
        assert_eq!((register(build).await, stands().await), (first, first), "{build}");
    }
    store.delete(builds).await.unwrap();
    let told = store.told();
    let (_, tracked) = store.versions(&[version], true).await.unwrap();
    assert!(tracked);
    let second = register("f2").await;
    assert!(second.is_some() && second != first && stands().await == second);
    eventually("the change is reported", || async { told.of(version) }).await;
    assert_eq!((register("f1").await, stands().await), (second, second));
    let mut known = store.remove(&["k"], builds).await.unwrap();
    known.sort();
    assert_eq!(known, ["f1", "f2"]);
    let left = store.load(version).await.unwrap().unwrap().1.unwrap();
    assert!(left > Duration::from_secs(89 * 24 * 3600), "{left:?}");
}

// V7
async fn a_discard_removes_exactly_what_was_seen(store: &RawStore) {
    store.put("k", b"garbage", None).await.unwrap();
    store.discard("k", RawSlot::Bytes(b"other".to_vec())).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(b"garbage".to_vec()));
    store.discard("k", RawSlot::WrongType).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(b"garbage".to_vec()));
    store.discard("k", RawSlot::Bytes(b"garbage".to_vec())).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    store.hash_set("h", &[("f", b"v")]).await.unwrap();
    store.discard("h", RawSlot::Bytes(b"v".to_vec())).await.unwrap();
    assert_eq!(store.read("h").await.unwrap(), RawSlot::WrongType);
    store.discard("h", RawSlot::WrongType).await.unwrap();
    assert_eq!(store.read("h").await.unwrap(), RawSlot::Absent);
    store.acquire("l", A, LEASE, Nothing).await.unwrap();
    store.discard("l", RawSlot::Leased(None)).await.unwrap();
    assert!(store.fill("l", A, Nothing, &record(1, "v"), TTL).await.unwrap());
}

// X2
async fn a_waiter_is_woken_by_a_fill(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    let (slot, wake) = store.read_and_watch("k").await.unwrap();
    assert!(matches!(slot, RawSlot::Leased(_)));
    store.fill("k", A, Nothing, &record(1, "v"), TTL).await.unwrap();
    soon("the fill wakes the waiter", wake).await;
    let (slot, wake) = store.read_and_watch("k").await.unwrap();
    assert_eq!(slot, RawSlot::Bytes(record(1, "v")));
    store.write("k", &record(2, "w"), TTL, &[], "builds").await.unwrap();
    soon("the write wakes the watcher", wake).await;
}

// X2
async fn a_waiter_is_woken_by_a_removal_and_by_a_release(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    store.remove(&["k"], "builds").await.unwrap();
    soon("the removal wakes the waiter", wake).await;
    store.acquire("k", B, LEASE, Nothing).await.unwrap();
    let (_, first) = store.read_and_watch("k").await.unwrap();
    let (_, second) = store.read_and_watch("k").await.unwrap();
    store.release("k", B, Nothing).await.unwrap();
    soon("the release wakes both waiters", join(first, second)).await;
}

// R11: the push for an expiry comes when the server removes the key, soon after.
async fn a_waiter_is_woken_by_the_end_of_the_lease(store: &RawStore) {
    let mut lasts = SHORT;
    loop {
        store.acquire("k", A, lasts, Nothing).await.unwrap();
        let (slot, wake) = store.read_and_watch("k").await.unwrap();
        // A lease that has expired before it is read is taken again, with a longer duration.
        if slot != RawSlot::Absent {
            store.let_pass(lasts).await;
            soon("the end of the lease wakes the waiter", wake).await;
            break;
        }
        lasts *= 2;
    }
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

async fn a_waiter_of_another_key_sleeps_on(store: &RawStore) {
    let (_, mut wake) = store.read_and_watch("k").await.unwrap();
    let (_, other) = store.read_and_watch("other").await.unwrap();
    store.put("other", b"v", None).await.unwrap();
    soon("the write wakes the other waiter", other).await;
    assert!((&mut wake).now_or_never().is_none());
    store.put("k", b"v", None).await.unwrap();
    soon("the write wakes the waiter", wake).await;
}

async fn a_value_is_put_loaded_and_deleted(store: &RawStore) {
    store.put("k", b"v", None).await.unwrap();
    assert_eq!(store.load("k").await.unwrap(), Some((b"v".to_vec(), None)));
    store.put("k", b"w", Some(TTL)).await.unwrap();
    let (bytes, left) = store.load("k").await.unwrap().unwrap();
    assert_eq!(bytes, b"w");
    assert!(left.is_some_and(|left| left <= TTL && left > TTL / 2), "{left:?}");
    store.put("k", b"x", None).await.unwrap();
    assert_eq!(store.load("k").await.unwrap(), Some((b"x".to_vec(), None)));
    assert!(store.delete("k").await.unwrap());
    assert!(!store.delete("k").await.unwrap());
    store.put("k", b"y", Some(SHORT)).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.load("k").await.unwrap(), None);
}

async fn an_object_is_created_once(store: &RawStore) {
    assert!(store.create("k", b"first", Some(TTL)).await.unwrap());
    assert!(!store.create("k", b"second", None).await.unwrap());
    assert_eq!(store.load("k").await.unwrap().unwrap().0, b"first");
    assert!(store.delete("k").await.unwrap());
    assert!(store.create("k", b"brief", Some(SHORT)).await.unwrap());
    store.let_pass(AFTER_SHORT).await;
    assert!(store.create("k", b"second", None).await.unwrap());
    assert_eq!(store.load("k").await.unwrap(), Some((b"second".to_vec(), None)));
}

async fn a_swap_replaces_exactly_what_was_expected(store: &RawStore) {
    assert_eq!(store.swap("k", b"a", b"b", Some(TTL)).await.unwrap(), RawSwapped::Gone);
    assert_eq!(store.load("k").await.unwrap(), None);
    store.put("k", b"a", None).await.unwrap();
    assert_eq!(store.swap("k", b"other", b"b", Some(TTL)).await.unwrap(), RawSwapped::Conflict);
    assert_eq!(store.swap("k", b"a", b"b", Some(TTL)).await.unwrap(), RawSwapped::Done);
    let (bytes, left) = store.load("k").await.unwrap().unwrap();
    assert_eq!(bytes, b"b");
    assert!(left.is_some());
    assert_eq!(store.swap("k", b"a", b"c", None).await.unwrap(), RawSwapped::Conflict);
}

async fn a_swap_can_keep_the_time_left(store: &RawStore) {
    store.put("k", b"a", Some(TTL)).await.unwrap();
    assert_eq!(store.swap("k", b"a", b"b", None).await.unwrap(), RawSwapped::Done);
    assert!(store.load("k").await.unwrap().unwrap().1.is_some());
    store.put("k", b"a", None).await.unwrap();
    assert_eq!(store.swap("k", b"a", b"b", None).await.unwrap(), RawSwapped::Done);
    assert_eq!(store.load("k").await.unwrap(), Some((b"b".to_vec(), None)));
}

async fn an_expiry_is_set_and_removed(store: &RawStore) {
    assert!(!store.expire("k", Some(TTL)).await.unwrap());
    assert!(!store.expire("k", None).await.unwrap());
    store.put("k", b"v", None).await.unwrap();
    assert!(store.expire("k", Some(TTL)).await.unwrap());
    assert!(store.load("k").await.unwrap().unwrap().1.is_some());
    assert!(store.expire("k", None).await.unwrap());
    assert!(store.expire("k", None).await.unwrap());
    assert_eq!(store.load("k").await.unwrap(), Some((b"v".to_vec(), None)));
    assert!(store.expire("k", Some(SHORT)).await.unwrap());
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.load("k").await.unwrap(), None);
}

async fn a_hash_holds_fields(store: &RawStore) {
    assert_eq!(store.hash_get("h", "a").await.unwrap(), None);
    assert_eq!(store.hash_all("h").await.unwrap(), []);
    assert_eq!(store.hash_keys("h").await.unwrap(), Vec::<String>::new());
    store.hash_set("h", &[("a", b"1"), ("b", b"2")]).await.unwrap();
    store.hash_set("h", &[("b", b"3"), ("c", b"")]).await.unwrap();
    store.hash_set("h", &[]).await.unwrap();
    assert_eq!(store.hash_get("h", "b").await.unwrap(), Some(b"3".to_vec()));
    assert_eq!(store.hash_get("h", "c").await.unwrap(), Some(Vec::new()));
    let all = [("a", "1"), ("b", "3"), ("c", "")].map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    assert_eq!(store.hash_all("h").await.unwrap(), all);
    assert_eq!(store.hash_keys("h").await.unwrap(), ["a", "b", "c"]);
    assert_eq!(store.hash_remove("h", &["a", "c", "x"]).await.unwrap(), 2);
    assert_eq!(store.hash_remove("h", &[]).await.unwrap(), 0);
    assert_eq!(store.hash_keys("h").await.unwrap(), ["b"]);
    assert_eq!(store.hash_remove("h", &["b"]).await.unwrap(), 1);
    assert!(!store.delete("h").await.unwrap());
}

async fn another_type_is_refused_or_reported(store: &RawStore) {
    store.hash_set("h", &[("f", b"v")]).await.unwrap();
    assert_eq!(store.read("h").await.unwrap(), RawSlot::WrongType);
    assert_eq!(store.read_and_watch("h").await.unwrap().0, RawSlot::WrongType);
    for over in [Nothing, Record(1)] {
        let found = store.acquire("h", A, LEASE, over).await.unwrap();
        assert_eq!(found, RawAcquired::Found(RawSlot::WrongType));
        assert!(!store.fill("h", A, over, &record(1, "v"), TTL).await.unwrap());
        assert!(!store.renew("h", A, over, LEASE).await.unwrap());
        store.release("h", A, over).await.unwrap();
    }
    let refused = [store.load("h").await.map(drop), store.swap("h", b"a", b"b", None).await.map(drop)];
    store.put("s", b"v", None).await.unwrap();
    let refused = refused.into_iter().chain([
        store.hash_get("s", "f").await.map(drop),
        store.hash_set("s", &[("f", b"v")]).await,
        store.hash_all("s").await.map(drop),
        store.hash_keys("s").await.map(drop),
        store.hash_remove("s", &["f"]).await.map(drop),
    ]);
    for answer in refused {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Refused);
    }
    // An unconditional write replaces a key of any type.
    store.write("h", &record(1, "v"), TTL, &[], "builds").await.unwrap();
    assert_eq!(store.read("h").await.unwrap(), RawSlot::Bytes(record(1, "v")));
}

async fn any_bytes_round_trip(store: &RawStore) {
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for bytes in [&b""[..], b"\r\n", b"\0", b"L", &all] {
        store.put("k\r\n \0 {} ü", bytes, None).await.unwrap();
        assert_eq!(store.read("k\r\n \0 {} ü").await.unwrap(), RawSlot::Bytes(bytes.to_vec()));
    }
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    assert!(store.fill("k", A, Nothing, &all, TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(all));
}

async fn a_message_reaches_every_subscriber(store: &RawStore) {
    assert_eq!(store.publish("news", b"there are no subscribers").await.unwrap(), 0);
    let mut first = store.subscribe("news").await.unwrap();
    let mut second = store.subscribe("news").await.unwrap();
    let mut other = store.subscribe("other").await.unwrap();
    assert!(store.publish("news", b"hello").await.unwrap() >= 1);
    for subscriber in [&mut first, &mut second] {
        let message = soon("the message arrives", subscriber.next()).await;
        assert_eq!(message, Some(RawMessage::Payload(b"hello".to_vec())));
    }
    store.publish("other", b"else").await.unwrap();
    let message = soon("the message arrives", other.next()).await;
    assert_eq!(message, Some(RawMessage::Payload(b"else".to_vec())));
}

async fn a_subscription_ends_with_its_last_subscriber(store: &RawStore) {
    let first = store.subscribe("news").await.unwrap();
    let mut second = store.subscribe("news").await.unwrap();
    drop(first);
    store.publish("news", b"still").await.unwrap();
    let message = soon("the message arrives", second.next()).await;
    assert_eq!(message, Some(RawMessage::Payload(b"still".to_vec())));
    drop(second);
    eventually("there are no subscribers left", || async { store.publish("news", b"x").await.unwrap() == 0 }).await;
    let mut again = store.subscribe("news").await.unwrap();
    store.publish("news", b"again").await.unwrap();
    let message = soon("the message arrives", again.next()).await;
    assert_eq!(message, Some(RawMessage::Payload(b"again".to_vec())));
}

async fn a_closed_store_says_so(store: &RawStore) {
    let mut messages = store.subscribe("news").await.unwrap();
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    assert!(store.close().await);
    soon("closing wakes the waiter", wake).await;
    assert_eq!(soon("closing ends subscriptions", messages.next()).await, None);
    assert!(!store.is_available());
    assert_eq!(store.read("k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.put("k", b"v", None).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.subscribe("news").await.map(drop).unwrap_err().kind(), ErrorKind::Closed);
}
