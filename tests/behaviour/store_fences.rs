//! What every store promises of fences that put aside what stood in their places.

use std::time::Duration;

use RawOver::{Nothing, Record};
use cache_core::store_testing::{RawAcquired, RawOver, RawSlot, RawStore, record};
use support::eventually;

use super::store_conformance::conformance;

const LIMIT: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);
/// A time that a test lets run out.
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

/// Two fences.
const A: u128 = 0xa;
const B: u128 = 0xb;

conformance! {
    a_withdrawn_fence_leaves_the_record_with_its_old_end
    a_record_put_aside_is_gone_when_the_fence_is
    a_record_ends_under_a_fence_as_it_would_without
    only_a_record_is_put_aside
    a_fence_that_does_not_stand_any_more_puts_nothing_back
    a_second_fence_does_not_put_back_what_the_first_found
    a_raised_fence_ends_the_lease_of_a_refresh
    all_siblings_are_fenced_and_the_known_builds_told
    a_removal_takes_what_is_put_aside
    a_withdrawn_fence_leaves_the_version_that_is_named
    raising_and_withdrawing_are_told
}

fn aside(key: &str) -> String {
    format!("{{{key}}}:f")
}

async fn write(store: &RawStore, key: &str, ttl: Duration) {
    store.write(key, &record(1, "v"), ttl, &[], "f@builds").await.unwrap();
}

/// When what was put aside would have ended.
async fn raise(store: &RawStore, key: &str, fence: u128, limit: Duration) -> Option<u64> {
    store.raise(&[key], "f@builds", fence, limit).await.unwrap().0[0]
}

async fn a_withdrawn_fence_leaves_the_record_with_its_old_end(store: &RawStore) {
    write(store, "k", TTL).await;
    let ends = raise(store, "k", A, LIMIT).await;
    let expected = store.now_millis() + 60_000;
    assert!(ends.is_some_and(|ends| ends.abs_diff(expected) < 5_000), "{ends:?} {expected}");
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Fenced);
    let left = store.load("k").await.unwrap().unwrap().1.unwrap();
    assert!(left <= LIMIT, "{left:?}");
    store.withdraw(&[("k", ends)], A).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
    let left = store.load("k").await.unwrap().unwrap().1.unwrap();
    assert!(left <= TTL && left > TTL - Duration::from_secs(5), "{left:?}");
    assert_eq!(store.load(&aside("k")).await.unwrap(), None);
    // Once more says nothing.
    store.withdraw(&[("k", ends)], A).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
}

async fn a_record_put_aside_is_gone_when_the_fence_is(store: &RawStore) {
    write(store, "k", TTL).await;
    let ends = raise(store, "k", A, SHORT).await;
    assert!(ends.is_some() && store.load(&aside("k")).await.unwrap().is_some());
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.load(&aside("k")).await.unwrap(), None);
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    store.withdraw(&[("k", ends)], A).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

async fn a_record_ends_under_a_fence_as_it_would_without(store: &RawStore) {
    write(store, "k", SHORT).await;
    let ends = raise(store, "k", A, LIMIT).await;
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.load(&aside("k")).await.unwrap(), None);
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Fenced);
    store.withdraw(&[("k", ends)], A).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

async fn only_a_record_is_put_aside(store: &RawStore) {
    assert_eq!(raise(store, "absent", A, LIMIT).await, None);
    store.acquire("leased", B, LIMIT, Nothing).await.unwrap();
    assert_eq!(raise(store, "leased", A, LIMIT).await, None);
    store.hash_set("hash", &[("field", b"value")]).await.unwrap();
    assert_eq!(raise(store, "hash", A, LIMIT).await, None);
    for key in ["absent", "leased", "hash"] {
        assert_eq!(store.read(key).await.unwrap(), RawSlot::Fenced, "{key}");
        assert_eq!(store.load(&aside(key)).await.unwrap(), None, "{key}");
        store.withdraw(&[(key, None)], A).await.unwrap();
        assert_eq!(store.read(key).await.unwrap(), RawSlot::Absent, "{key}");
    }
    assert!(!store.fill("leased", B, Nothing, &record(2, "old"), TTL).await.unwrap());
}

async fn a_fence_that_does_not_stand_any_more_puts_nothing_back(store: &RawStore) {
    write(store, "removed", TTL).await;
    let removed = raise(store, "removed", A, LIMIT).await;
    store.delete("removed").await.unwrap();
    write(store, "written", TTL).await;
    let written = raise(store, "written", A, LIMIT).await;
    store.write("written", &record(2, "new"), TTL, &[], "f@builds").await.unwrap();
    store.withdraw(&[("removed", removed), ("written", written)], A).await.unwrap();
    assert_eq!(store.read("removed").await.unwrap(), RawSlot::Absent);
    assert_eq!(store.read("written").await.unwrap(), RawSlot::Bytes(record(2, "new")));
}

async fn a_second_fence_does_not_put_back_what_the_first_found(store: &RawStore) {
    write(store, "k", TTL).await;
    let first = raise(store, "k", A, LIMIT).await;
    let second = raise(store, "k", B, LIMIT).await;
    assert_eq!((first.is_some(), second), (true, None));
    store.withdraw(&[("k", first)], A).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Fenced);
    store.withdraw(&[("k", second)], B).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    // Nor what an earlier one has left behind.
    write(store, "k", TTL).await;
    let first = raise(store, "k", A, LIMIT).await;
    store.delete("k").await.unwrap();
    assert_eq!(raise(store, "k", B, LIMIT).await, None);
    store.withdraw(&[("k", first)], B).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

async fn a_raised_fence_ends_the_lease_of_a_refresh(store: &RawStore) {
    write(store, "k", TTL).await;
    assert_eq!(store.acquire("k", B, LIMIT, Record(1)).await.unwrap(), RawAcquired::Ours);
    let ends = raise(store, "k", A, LIMIT).await;
    store.withdraw(&[("k", ends)], A).await.unwrap();
    assert!(!store.fill("k", B, Record(1), &record(2, "old"), TTL).await.unwrap());
    assert!(!store.rewrite_head("k", B, 1, &record(2, ""), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
    assert_eq!(store.acquire("k", B, LIMIT, Record(1)).await.unwrap(), RawAcquired::Ours);
}

async fn all_siblings_are_fenced_and_the_known_builds_told(store: &RawStore) {
    for build in ["one", "two"] {
        store.register_build("f@builds", build, TTL).await.unwrap();
    }
    write(store, "k@two", TTL).await;
    let (ends, mut builds) = store.raise(&["k@one", "k@two"], "f@builds", A, LIMIT).await.unwrap();
    builds.sort();
    assert_eq!(builds, ["one", "two"]);
    assert!(ends[0].is_none() && ends[1].is_some(), "{ends:?}");
    for key in ["k@one", "k@two"] {
        assert_eq!(store.read(key).await.unwrap(), RawSlot::Fenced);
    }
    store.withdraw(&[("k@one", ends[0]), ("k@two", ends[1])], A).await.unwrap();
    assert_eq!(store.read("k@one").await.unwrap(), RawSlot::Absent);
    assert_eq!(store.read("k@two").await.unwrap(), RawSlot::Bytes(record(1, "v")));
    store.withdraw(&[], A).await.unwrap();
}

async fn a_removal_takes_what_is_put_aside(store: &RawStore) {
    write(store, "k", TTL).await;
    raise(store, "k", A, LIMIT).await;
    store.remove(&["k"], "f@builds").await.unwrap();
    assert_eq!(store.load(&aside("k")).await.unwrap(), None);
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

async fn a_withdrawn_fence_leaves_the_version_that_is_named(store: &RawStore) {
    let (before, _) = store.versions(&["kind", "a", "b"], true).await.unwrap();
    let found = store.fence_versions(&["kind"], &["a", "b", "c"], A, LIMIT).await.unwrap();
    assert_eq!(found, [before[1], before[2], None]);
    let (fenced, _) = store.versions(&["kind", "a", "b", "c"], true).await.unwrap();
    assert!(fenced[0].is_some() && fenced[0] != before[0], "the kind is new");
    assert_eq!(fenced[1..], [None, None, None]);
    let left = store.load("a").await.unwrap().unwrap().1.unwrap();
    assert!(left <= LIMIT, "{left:?}");
    // Another fence finds none that it could return to, and the first is not in its place any more.
    assert_eq!(store.fence_versions(&[], &["b"], B, LIMIT).await.unwrap(), [None]);
    let named = store.withdraw_version(&["kind"], "a", A).await.unwrap();
    store.withdraw_version(&[], "b", A).await.unwrap();
    let (after, _) = store.versions(&["kind", "a", "b"], true).await.unwrap();
    assert!(after[0].is_some() && after[0] != fenced[0], "the kind is new once more");
    assert_eq!(after[1..], [Some(named), None]);
    let left = store.load("a").await.unwrap().unwrap().1.unwrap();
    assert!(left > Duration::from_secs(89 * 24 * 3600), "{left:?}");
    // One that was renewed meanwhile stays.
    store.renew_versions(&["b"]).await.unwrap();
    let (renewed, _) = store.versions(&["b"], false).await.unwrap();
    store.withdraw_version(&[], "b", B).await.unwrap();
    assert_eq!(store.versions(&["b"], false).await.unwrap().0, renewed);
}

// I2
async fn raising_and_withdrawing_are_told(store: &RawStore) {
    write(store, "k", TTL).await;
    let (_, tracked) = store.versions(&["tag"], true).await.unwrap();
    assert!(tracked);
    let _slot = store.read_and_watch("k").await.unwrap();
    let told = store.told();
    let ends = raise(store, "k", A, LIMIT).await;
    store.fence_versions(&[], &["tag"], A, LIMIT).await.unwrap();
    eventually("both are told", || async { told.of("k") && told.of("tag") }).await;
    let (_, tracked) = store.versions(&["tag"], true).await.unwrap();
    assert!(tracked);
    let _slot = store.read_and_watch("k").await.unwrap();
    let told = store.told();
    store.withdraw(&[("k", ends)], A).await.unwrap();
    store.withdraw_version(&[], "tag", A).await.unwrap();
    eventually("both are told", || async { told.of("k") && told.of("tag") }).await;
}
