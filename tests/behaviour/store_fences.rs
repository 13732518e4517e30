//! Promises of every store about fences that set the record in their place aside.

use std::time::Duration;

use RawOver::{Nothing, Record};
use cache_core::store_testing::{RawAcquired, RawOver, RawSlot, RawStore, record};
use support::eventually;

use super::store_conformance::conformance;

const LIMIT: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);
/// A duration that expires in a test.
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

const BUILDS: &str = "{f@version}:builds";

/// Two fences.
const A: u128 = 0xa;
const B: u128 = 0xb;

conformance! {
    a_withdrawn_fence_leaves_the_record_with_its_old_end
    a_record_put_aside_is_gone_when_the_fence_is
    a_record_ends_under_a_fence_as_it_would_without
    only_a_record_is_put_aside
    an_ended_fence_puts_nothing_back
    a_fence_that_was_cut_leaves_nothing_to_the_next
    the_last_of_two_withdrawn_fences_puts_the_record_back
    a_lifted_fence_leaves_the_other_and_removes_the_record_before_both
    a_lifted_fence_ends_what_was_stored_since_it_was_cut
    an_expired_fence_beside_another_removes_the_record_before_both
    seventeen_fences_stand_until_the_last_of_them_would_end
    a_raised_fence_ends_the_lease_of_a_refresh
    all_siblings_are_fenced_and_the_known_builds_told
    a_removal_also_removes_the_record_put_aside
    a_withdrawn_fence_leaves_the_version_before_it
    a_lifted_fence_on_a_version_leaves_the_other
    a_version_under_a_fence_that_ran_out_does_not_come_back
    a_lift_ends_an_existing_version_and_creates_none
    raising_lifting_and_withdrawing_are_reported
}

fn aside(key: &str) -> String {
    format!("{{{key}}}:f")
}

async fn write(store: &RawStore, key: &str, ttl: Duration) {
    store.write(key, &record(1, "v"), ttl, &[], BUILDS).await.unwrap();
}

async fn raise(store: &RawStore, key: &str, fence: u128, limit: Duration) {
    assert!(!store.raise(&[key], BUILDS, fence, limit).await.unwrap().1, "there is room");
}

async fn lift(store: &RawStore, key: &str, fence: u128) {
    store.lift(&[key], BUILDS, fence).await.unwrap();
}

async fn read(store: &RawStore, key: &str) -> RawSlot {
    store.read(key).await.unwrap()
}

/// Returns the remaining time to live of the key.
async fn left(store: &RawStore, key: &str) -> Option<Duration> {
    store.load(key).await.unwrap().map(|(_, left)| left.unwrap())
}

async fn a_withdrawn_fence_leaves_the_record_with_its_old_end(store: &RawStore) {
    write(store, "k", TTL).await;
    raise(store, "k", A, LIMIT).await;
    assert_eq!(read(store, "k").await, RawSlot::Fenced);
    assert!(left(store, "k").await.unwrap() <= LIMIT);
    assert!(left(store, &aside("k")).await.unwrap() <= LIMIT);
    store.withdraw(&["k"], A).await.unwrap();
    assert_eq!(read(store, "k").await, RawSlot::Bytes(record(1, "v")));
    let left_again = left(store, "k").await.unwrap();
    assert!(left_again <= TTL && left_again > TTL - Duration::from_secs(5), "{left_again:?}");
    assert_eq!(left(store, &aside("k")).await, None);
    // A second withdrawal has no effect.
    store.withdraw(&["k"], A).await.unwrap();
    assert_eq!(read(store, "k").await, RawSlot::Bytes(record(1, "v")));
}

async fn a_record_put_aside_is_gone_when_the_fence_is(store: &RawStore) {
    write(store, "k", TTL).await;
    raise(store, "k", A, LIMIT).await;
    assert!(left(store, &aside("k")).await.is_some_and(|left| left <= LIMIT));
    store.withdraw(&["k"], A).await.unwrap();
    raise(store, "k", A, SHORT).await;
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(left(store, &aside("k")).await, None);
    assert_eq!(read(store, "k").await, RawSlot::Absent);
    store.withdraw(&["k"], A).await.unwrap();
    assert_eq!(read(store, "k").await, RawSlot::Absent);
}

async fn a_record_ends_under_a_fence_as_it_would_without(store: &RawStore) {
    write(store, "k", SHORT).await;
    raise(store, "k", A, LIMIT).await;
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(left(store, &aside("k")).await, None);
    assert_eq!(read(store, "k").await, RawSlot::Fenced);
    store.withdraw(&["k"], A).await.unwrap();
    assert_eq!(read(store, "k").await, RawSlot::Absent);
}

async fn only_a_record_is_put_aside(store: &RawStore) {
    store.acquire("leased", B, LIMIT, Nothing).await.unwrap();
    store.hash_set("hash", &[("field", b"value")]).await.unwrap();
    store.put("without end", b"owned by another writer", None).await.unwrap();
    for key in ["absent", "leased", "hash", "without end"] {
        raise(store, key, A, LIMIT).await;
        assert_eq!(read(store, key).await, RawSlot::Fenced, "{key}");
        assert_eq!(left(store, &aside(key)).await, None, "{key}");
        store.withdraw(&[key], A).await.unwrap();
        assert_eq!(read(store, key).await, RawSlot::Absent, "{key}");
    }
    assert!(!store.fill("leased", B, Nothing, &record(2, "old"), TTL).await.unwrap());
}

async fn an_ended_fence_puts_nothing_back(store: &RawStore) {
    write(store, "removed", TTL).await;
    raise(store, "removed", A, LIMIT).await;
    store.delete("removed").await.unwrap();
    write(store, "written", TTL).await;
    raise(store, "written", A, LIMIT).await;
    store.write("written", &record(2, "new"), TTL, &[], BUILDS).await.unwrap();
    store.withdraw(&["removed", "written"], A).await.unwrap();
    assert_eq!(read(store, "removed").await, RawSlot::Absent);
    assert_eq!(read(store, "written").await, RawSlot::Bytes(record(2, "new")));
}

async fn a_fence_that_was_cut_leaves_nothing_to_the_next(store: &RawStore) {
    write(store, "k", TTL).await;
    raise(store, "k", A, LIMIT).await;
    store.delete("k").await.unwrap();
    raise(store, "k", B, LIMIT).await;
    assert_eq!(left(store, &aside("k")).await, None);
    // The first fence has nothing left to withdraw there.
    store.withdraw(&["k"], A).await.unwrap();
    assert_eq!(read(store, "k").await, RawSlot::Fenced);
    store.withdraw(&["k"], B).await.unwrap();
    assert_eq!(read(store, "k").await, RawSlot::Absent);
}

// R27
async fn the_last_of_two_withdrawn_fences_puts_the_record_back(store: &RawStore) {
    for [first, second] in [[A, B], [B, A]] {
        write(store, "k", TTL).await;
        raise(store, "k", A, LIMIT).await;
        raise(store, "k", B, LIMIT).await;
        store.withdraw(&["k"], first).await.unwrap();
        assert_eq!(read(store, "k").await, RawSlot::Fenced);
        store.withdraw(&["k"], second).await.unwrap();
        assert_eq!(read(store, "k").await, RawSlot::Bytes(record(1, "v")));
        assert!(left(store, "k").await.unwrap() > TTL - Duration::from_secs(5));
    }
}

// R27
async fn a_lifted_fence_leaves_the_other_and_removes_the_record_before_both(store: &RawStore) {
    for [first, second] in [[A, B], [B, A]] {
        for both_happened in [true, false] {
            write(store, "k", TTL).await;
            raise(store, "k", A, LIMIT).await;
            raise(store, "k", B, LIMIT).await;
            lift(store, "k", first).await;
            assert_eq!(read(store, "k").await, RawSlot::Fenced, "the other writer is at it");
            assert_eq!(left(store, &aside("k")).await, None);
            assert_eq!(store.acquire("k", 0xc, LIMIT, Nothing).await.unwrap(), RawAcquired::Found(RawSlot::Fenced));
            if both_happened {
                lift(store, "k", second).await;
            } else {
                store.withdraw(&["k"], second).await.unwrap();
            }
            assert_eq!(read(store, "k").await, RawSlot::Absent);
        }
    }
    // Also if the fence that is withdrawn first restores the record.
    write(store, "k", TTL).await;
    raise(store, "k", A, LIMIT).await;
    raise(store, "k", B, LIMIT).await;
    store.withdraw(&["k"], A).await.unwrap();
    lift(store, "k", B).await;
    assert_eq!(read(store, "k").await, RawSlot::Absent);
}

async fn a_lifted_fence_ends_what_was_stored_since_it_was_cut(store: &RawStore) {
    raise(store, "record", A, LIMIT).await;
    write(store, "record", TTL).await;
    store.acquire("record", B, LIMIT, Record(1)).await.unwrap();
    raise(store, "leased", A, LIMIT).await;
    store.delete("leased").await.unwrap();
    store.acquire("leased", B, LIMIT, Nothing).await.unwrap();
    raise(store, "fenced", A, LIMIT).await;
    store.delete("fenced").await.unwrap();
    write(store, "fenced", TTL).await;
    raise(store, "fenced", B, LIMIT).await;
    store.lift(&["record", "leased", "fenced", "absent"], BUILDS, A).await.unwrap();
    for key in ["record", "leased", "absent"] {
        assert_eq!(read(store, key).await, RawSlot::Absent, "{key}");
    }
    assert!(!store.fill("record", B, Record(1), &record(2, "old"), TTL).await.unwrap());
    assert!(!store.fill("leased", B, Nothing, &record(2, "old"), TTL).await.unwrap());
    // The other fence stays, and the record it found was from before this write.
    assert_eq!(read(store, "fenced").await, RawSlot::Fenced);
    store.withdraw(&["fenced"], B).await.unwrap();
    assert_eq!(read(store, "fenced").await, RawSlot::Absent);
}

// R22, R27: its holder has died, perhaps after the commit
async fn an_expired_fence_beside_another_removes_the_record_before_both(store: &RawStore) {
    for [short, long] in [[A, B], [B, A]] {
        write(store, "k", TTL).await;
        let limit = |fence: u128| if fence == short { SHORT } else { LIMIT };
        raise(store, "k", A, limit(A)).await;
        raise(store, "k", B, limit(B)).await;
        assert!(left(store, &aside("k")).await.is_none_or(|left| left <= SHORT));
        store.let_pass(AFTER_SHORT).await;
        assert_eq!(left(store, &aside("k")).await, None);
        assert_eq!(read(store, "k").await, RawSlot::Fenced, "as long as the other fence is raised");
        store.withdraw(&["k"], long).await.unwrap();
        assert_eq!(read(store, "k").await, RawSlot::Absent);
    }
}

// R27, C1
async fn seventeen_fences_stand_until_the_last_of_them_would_end(store: &RawStore) {
    let (version, _) = store.versions(&["tag"], true).await.unwrap();
    for fence in 1..=16 {
        raise(store, "k", fence, LIMIT).await;
        assert!(!store.fence_versions(&[], &["tag"], fence, LIMIT).await.unwrap());
    }
    for (fence, limit) in [(17, LIMIT * 2), (18, LIMIT)] {
        assert!(store.raise(&["k"], BUILDS, fence, limit).await.unwrap().1, "it is reported");
        assert!(store.fence_versions(&[], &["tag"], fence, limit).await.unwrap());
    }
    for fence in 1..=18 {
        lift(store, "k", fence).await;
        store.withdraw_versions(&[], &["tag"], fence).await.unwrap();
    }
    for key in ["k", "tag"] {
        assert_eq!(read(store, key).await, RawSlot::Fenced, "{key}");
        let left = left(store, key).await.unwrap();
        assert!(left > LIMIT && left <= LIMIT * 2, "{key}: {left:?}");
    }
    assert_eq!(store.versions(&["tag"], true).await.unwrap().0, [None]);
    // There is room for a fence again.
    raise(store, "k", A, LIMIT).await;
    lift(store, "k", A).await;
    assert!(version[0].is_some());
}

async fn a_raised_fence_ends_the_lease_of_a_refresh(store: &RawStore) {
    write(store, "k", TTL).await;
    assert_eq!(store.acquire("k", B, LIMIT, Record(1)).await.unwrap(), RawAcquired::Ours);
    raise(store, "k", A, LIMIT).await;
    store.withdraw(&["k"], A).await.unwrap();
    assert!(!store.fill("k", B, Record(1), &record(2, "old"), TTL).await.unwrap());
    assert!(!store.rewrite_head("k", B, 1, &record(2, ""), TTL).await.unwrap());
    assert_eq!(read(store, "k").await, RawSlot::Bytes(record(1, "v")));
    assert_eq!(store.acquire("k", B, LIMIT, Record(1)).await.unwrap(), RawAcquired::Ours);
}

async fn all_siblings_are_fenced_and_the_known_builds_told(store: &RawStore) {
    for build in ["one", "two"] {
        store.register_build(BUILDS, "f@version", build, TTL).await.unwrap();
    }
    write(store, "k@two", TTL).await;
    let (mut builds, crowded) = store.raise(&["k@one", "k@two"], BUILDS, A, LIMIT).await.unwrap();
    builds.sort();
    assert_eq!((builds, crowded), (vec!["one".to_owned(), "two".to_owned()], false));
    for key in ["k@one", "k@two"] {
        assert_eq!(read(store, key).await, RawSlot::Fenced);
    }
    store.withdraw(&["k@one", "k@two"], A).await.unwrap();
    assert_eq!(read(store, "k@one").await, RawSlot::Absent);
    assert_eq!(read(store, "k@two").await, RawSlot::Bytes(record(1, "v")));
    store.withdraw(&[], A).await.unwrap();
    let mut builds = store.lift(&["k@one", "k@two"], BUILDS, A).await.unwrap();
    builds.sort();
    assert_eq!(builds, ["one", "two"]);
    assert_eq!(read(store, "k@two").await, RawSlot::Absent);
}

async fn a_removal_also_removes_the_record_put_aside(store: &RawStore) {
    write(store, "k", TTL).await;
    raise(store, "k", A, LIMIT).await;
    store.remove(&["k"], BUILDS).await.unwrap();
    assert_eq!(left(store, &aside("k")).await, None);
    assert_eq!(read(store, "k").await, RawSlot::Absent);
}

async fn versions(store: &RawStore, keys: &[&str]) -> Vec<Option<u128>> {
    store.versions(keys, true).await.unwrap().0
}

// R27
async fn a_withdrawn_fence_leaves_the_version_before_it(store: &RawStore) {
    let before = versions(store, &["kind", "a", "b"]).await;
    assert!(!store.fence_versions(&["kind"], &["a", "b", "c"], A, LIMIT).await.unwrap());
    let fenced = versions(store, &["kind", "a", "b", "c"]).await;
    assert!(fenced[0].is_some() && fenced[0] != before[0], "the kind is new");
    assert_eq!(fenced[1..], [None, None, None]);
    assert!(left(store, "a").await.unwrap() <= LIMIT);
    store.fence_versions(&[], &["b"], B, LIMIT).await.unwrap();
    store.withdraw_versions(&["kind"], &["a", "b", "c"], A).await.unwrap();
    let after = versions(store, &["kind", "a", "b"]).await;
    assert!(after[0].is_some() && after[0] != fenced[0], "the kind is new once more");
    assert_eq!(after[1..], [before[1], None]);
    assert!(left(store, "a").await.unwrap() > Duration::from_secs(89 * 24 * 3600));
    assert_eq!(store.versions(&["c"], false).await.unwrap().0, [None], "nothing is left of it");
    store.withdraw_versions(&[], &["b"], B).await.unwrap();
    assert_eq!(versions(store, &["b"]).await, [before[2]]);
    // A version that was renewed in between stays.
    store.fence_versions(&[], &["b"], A, LIMIT).await.unwrap();
    store.renew_versions(&["b"]).await.unwrap();
    let renewed = versions(store, &["b"]).await;
    store.withdraw_versions(&[], &["b"], A).await.unwrap();
    assert_eq!(versions(store, &["b"]).await, renewed);
    assert!(renewed[0].is_some() && renewed[0] != before[2]);
}

// R27
async fn a_lifted_fence_on_a_version_leaves_the_other(store: &RawStore) {
    for [first, second] in [[A, B], [B, A]] {
        for both_happened in [true, false] {
            let before = versions(store, &["kind", "tag"]).await;
            for fence in [A, B] {
                store.fence_versions(&[], &["tag"], fence, LIMIT).await.unwrap();
            }
            store.lift_versions(&["kind"], &["tag"], first).await.unwrap();
            let between = versions(store, &["kind", "tag"]).await;
            assert!(between[0].is_some() && between[0] != before[0], "the kind is new");
            assert_eq!(between[1], None, "the other writer is at it");
            if both_happened {
                store.lift_versions(&[], &["tag"], second).await.unwrap();
            } else {
                store.withdraw_versions(&[], &["tag"], second).await.unwrap();
            }
            let after = versions(store, &["tag"]).await;
            assert!(after[0].is_some() && after[0] != before[1]);
        }
    }
}

// R22, R27
async fn a_version_under_a_fence_that_ran_out_does_not_come_back(store: &RawStore) {
    let before = versions(store, &["tag"]).await;
    store.fence_versions(&[], &["tag"], A, SHORT).await.unwrap();
    store.fence_versions(&[], &["tag"], B, LIMIT).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(versions(store, &["tag"]).await, [None], "as long as the other fence is raised");
    store.withdraw_versions(&[], &["tag"], B).await.unwrap();
    let after = versions(store, &["tag"]).await;
    assert!(after[0].is_some() && after != before);
    // A version written by another program is not restored either: the server does not know its
    // meaning.
    store.put("foreign", b"1", Some(TTL)).await.unwrap();
    store.fence_versions(&[], &["foreign"], A, LIMIT).await.unwrap();
    store.withdraw_versions(&[], &["foreign"], A).await.unwrap();
    assert_eq!(store.versions(&["foreign"], false).await.unwrap().0, [None]);
}

// I5
async fn a_lift_ends_an_existing_version_and_creates_none(store: &RawStore) {
    let before = versions(store, &["stands", "function"]).await;
    store.lift_versions(&["function", "no function"], &["stands", "absent"], A).await.unwrap();
    let (after, _) = store.versions(&["stands", "function", "absent", "no function"], false).await.unwrap();
    assert!(after[0].is_some() && after[0] != before[0] && after[1].is_some() && after[1] != before[1], "{after:?}");
    assert_eq!(after[2..], [None, None]);
    store.fence_versions(&[], &["never used"], A, LIMIT).await.unwrap();
    store.lift_versions(&[], &["never used"], A).await.unwrap();
    assert_eq!(left(store, "never used").await, None);
}

// I2
async fn raising_lifting_and_withdrawing_are_reported(store: &RawStore) {
    for lifts in [true, false] {
        write(store, "k", TTL).await;
        let (_, tracked) = store.versions(&["tag"], true).await.unwrap();
        assert!(tracked);
        let _slot = store.read_and_watch("k").await.unwrap();
        let told = store.told();
        raise(store, "k", A, LIMIT).await;
        store.fence_versions(&[], &["tag"], A, LIMIT).await.unwrap();
        eventually("both are notified", || async { told.of("k") && told.of("tag") }).await;
        let (_, tracked) = store.versions(&["tag"], true).await.unwrap();
        assert!(tracked);
        let _slot = store.read_and_watch("k").await.unwrap();
        let told = store.told();
        if lifts {
            lift(store, "k", A).await;
            store.lift_versions(&[], &["tag"], A).await.unwrap();
        } else {
            store.withdraw(&["k"], A).await.unwrap();
            store.withdraw_versions(&[], &["tag"], A).await.unwrap();
        }
        eventually("both are notified", || async { told.of("k") && told.of("tag") }).await;
    }
}
