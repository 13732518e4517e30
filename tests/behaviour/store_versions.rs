//! Promises of every store about versions and fences.

use std::time::Duration;

use RawOver::{Nothing, Record};
use cache_core::store_testing::{RawAcquired, RawOver, RawSlot, RawStore, record};
use support::eventually;

use super::store_conformance::conformance;

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);
/// A fence that expires in a test.
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

/// Two attempts.
const A: u128 = 0xa;
const B: u128 = 0xb;

conformance! {
    a_version_is_made_once_and_stays
    a_value_and_its_versions_are_read_in_one_trip
    a_renewed_version_differs_and_is_reported
    a_renewal_creates_no_version
    a_version_that_is_read_is_kept_from_running_out
    a_fenced_key_is_not_filled
    a_lost_version_comes_back_as_another
    bytes_that_are_no_version_count_as_one
}

async fn a_version_is_made_once_and_stays(store: &RawStore) {
    let none = store.versions(&["a@version", "b@version"], false).await.unwrap();
    assert_eq!(none.0, [None, None]);
    let (made, _) = store.versions(&["a@version", "b@version"], true).await.unwrap();
    assert!(made[0].is_some() && made[1].is_some() && made[0] != made[1], "{made:?}");
    let (again, tracked) = store.versions(&["b@version", "a@version", "c@version"], false).await.unwrap();
    assert_eq!(again, [made[1], made[0], None]);
    assert!(tracked);
    assert_eq!(store.versions(&["a@version"], true).await.unwrap().0, [made[0]]);
    let left = store.load("a@version").await.unwrap().unwrap().1.unwrap();
    assert!(left > Duration::from_secs(89 * 24 * 3600), "{left:?}");
    assert_eq!(store.versions(&[], false).await.map(|(found, _)| found).unwrap_or_default(), []);
}

async fn a_value_and_its_versions_are_read_in_one_trip(store: &RawStore) {
    let (slot, found) = store.read_versioned("k", &["a@version"]).await.unwrap();
    assert_eq!(slot, RawSlot::Absent);
    assert_eq!(found, store.versions(&["a@version"], false).await.unwrap().0);
    assert!(found[0].is_some());
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    assert!(matches!(store.read_versioned("k", &["a@version"]).await.unwrap().0, RawSlot::Leased(_)));
    store.fill("k", A, Nothing, &record(1, "v"), TTL).await.unwrap();
    assert_eq!(store.read_versioned("k", &["a@version"]).await.unwrap(), (RawSlot::Bytes(record(1, "v")), found));
    assert_eq!(store.read_versioned("k", &[]).await.unwrap(), (RawSlot::Bytes(record(1, "v")), vec![]));
}

// I2
async fn a_renewed_version_differs_and_is_reported(store: &RawStore) {
    let told = store.told();
    let (before, _) = store.versions(&["a@version", "b@version"], true).await.unwrap();
    assert!(!told.of("a@version"), "what did not exist has not changed");
    store.renew_versions(&["a@version"]).await.unwrap();
    eventually("the change is reported", || async { told.of("a@version") }).await;
    let (after, _) = store.versions(&["a@version", "b@version"], true).await.unwrap();
    assert!(after[0].is_some() && after[0] != before[0], "{after:?}");
    assert_eq!(after[1], before[1]);
    assert!(!told.of("b@version"));
}

// I5: an entry stored under a lost version is a miss anyway
async fn a_renewal_creates_no_version(store: &RawStore) {
    store.versions(&["a@version"], true).await.unwrap();
    store.renew_versions(&["new@version", "a@version", "other@version"]).await.unwrap();
    let (found, _) = store.versions(&["new@version", "a@version", "other@version"], false).await.unwrap();
    assert!(found[0].is_none() && found[1].is_some() && found[2].is_none(), "{found:?}");
    assert_eq!(store.load("new@version").await.unwrap(), None);
}

async fn a_version_that_is_read_is_kept_from_running_out(store: &RawStore) {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let (made, _) = store.versions(&["old@version", "young@version"], true).await.unwrap();
    store.expire("old@version", Some(days(59))).await.unwrap();
    store.expire("young@version", Some(days(61))).await.unwrap();
    let left = |key: &'static str| async move { store.load(key).await.unwrap().unwrap().1.unwrap() };
    // Reading renews nothing.
    assert_eq!(store.versions(&["old@version"], false).await.unwrap().0, made[..1]);
    assert!(left("old@version").await < days(60));
    assert_eq!(store.versions(&["old@version", "young@version"], true).await.unwrap().0, made);
    assert!(left("old@version").await > days(89));
    assert!(left("young@version").await < days(62));
    // A fence has a limit of its own.
    store.fence_versions(&[], &["fenced@version"], 7, TTL).await.unwrap();
    assert_eq!(store.versions(&["fenced@version"], true).await.unwrap().0, [None]);
    assert!(left("fenced@version").await <= TTL);
}

// R22
async fn a_fenced_key_is_not_filled(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    store.raise(&["k"], "{f@version}:builds", 7, TTL).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Fenced);
    assert_eq!(store.read_versioned("k", &[]).await.unwrap().0, RawSlot::Fenced);
    assert_eq!(store.acquire("k", B, LEASE, Nothing).await.unwrap(), RawAcquired::Found(RawSlot::Fenced));
    assert_eq!(store.acquire("k", B, LEASE, Record(1)).await.unwrap(), RawAcquired::Found(RawSlot::Fenced));
    assert_eq!(store.acquire_in_place("k", B, LEASE, 1).await.unwrap(), RawAcquired::Found(RawSlot::Fenced));
    assert!(!store.fill("k", A, Nothing, &record(1, "old"), TTL).await.unwrap());
    assert!(!store.renew("k", A, Nothing, LEASE).await.unwrap());
    store.release("k", A, Nothing).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Fenced);
    store.fence_versions(&[], &["a@version"], 7, TTL).await.unwrap();
    assert_eq!(store.versions(&["a@version"], true).await.unwrap().0, [None]);
    assert!(store.expire("a@version", Some(SHORT)).await.unwrap());
    store.let_pass(AFTER_SHORT).await;
    assert!(store.versions(&["a@version"], true).await.unwrap().0[0].is_some());
}

// R16
async fn a_lost_version_comes_back_as_another(store: &RawStore) {
    let told = store.told();
    let (before, _) = store.versions(&["a@version"], true).await.unwrap();
    store.delete("a@version").await.unwrap();
    eventually("the loss is reported", || async { told.of("a@version") }).await;
    assert_eq!(store.versions(&["a@version"], false).await.unwrap().0, [None]);
    let (after, _) = store.versions(&["a@version"], true).await.unwrap();
    assert!(after[0].is_some() && after != before, "{after:?}");
}

async fn bytes_that_are_no_version_count_as_one(store: &RawStore) {
    let mut seen = Vec::new();
    for bytes in [&b""[..], b"1", b"\xff\xfe", b"0000000000000000000000000000000g"] {
        store.put("a@version", bytes, Some(TTL)).await.unwrap();
        let (found, _) = store.versions(&["a@version"], true).await.unwrap();
        assert!(found[0].is_some() && !seen.contains(&found), "{found:?}");
        seen.push(found);
    }
    store.delete("a@version").await.unwrap();
    store.hash_set("a@version", &[("field", b"value")]).await.unwrap();
    assert_eq!(store.versions(&["a@version"], true).await.unwrap().0, [None], "of another type: agrees with nothing");
    store.renew_versions(&["a@version"]).await.unwrap();
    assert!(store.versions(&["a@version"], true).await.unwrap().0[0].is_some());
}
