//! Promises of every store about leases and fills.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use cache_core::store_testing::{RawAcquired, RawOver, RawSlot, RawStore, UNAWAITED, record};
use futures::FutureExt as _;
use futures::future::{join, join_all};
use support::soon;

use RawOver::{Nothing, Record};

use super::store_conformance::conformance;

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);
/// A ttl or lease that expires in a test.
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

/// The length of a renewal. The time left then exceeds the original length of the lease.
const RENEWED: Duration = Duration::from_secs(100);

/// Three attempts.
const A: u128 = 0xa;
const B: u128 = 0xb;
const C: u128 = 0xc;

conformance! {
    a_lease_is_exclusive
    a_lease_is_seen_by_readers
    a_lease_ends_by_itself
    a_fill_stores_once
    a_fill_is_refused_after_a_removal
    a_fill_is_refused_after_a_write
    a_fill_is_refused_after_the_lease_ran_out
    a_fill_is_refused_to_another_attempt
    a_release_compares_the_token
    a_renewal_extends_the_own_lease_only
    a_lease_in_the_place_of_a_record_ends_it
    a_refresh_leaves_the_stale_record_readable
    a_refresh_is_exclusive
    a_refresh_wants_the_record_it_has_read
    a_refresh_is_refused_after_a_write
    a_write_ends_the_lease_of_a_refresh
    a_refresh_is_refused_after_a_removal
    a_refresh_is_refused_to_another_attempt
    a_refresh_lease_is_released_and_renewed_by_its_owner_only
    a_failed_refresh_leaves_a_throttle_that_all_see
    a_throttle_is_left_by_the_lease_s_owner_only_and_ends
    a_head_is_rewritten_under_the_lease_and_over_the_same_record_only
    a_record_lives_at_least_as_long_as_its_lease
    a_waiter_for_a_refresh_is_woken_when_its_lease_is_released
    a_run_that_stored_nothing_leaves_a_mark_that_one_attempt_takes_over
    a_mark_of_a_run_that_stored_nothing_ends_as_a_lease_does
    beside_a_record_a_run_that_stored_nothing_leaves_a_mark_too
    no_fill_survives_an_invalidation
}

// X1
async fn a_lease_is_exclusive(store: &RawStore) {
    assert_eq!(store.acquire("k", A, LEASE, Nothing).await.unwrap(), RawAcquired::Ours);
    let second = store.acquire("k", B, LEASE, Nothing).await.unwrap();
    assert!(matches!(second, RawAcquired::Found(RawSlot::Leased(_))), "{second:?}");
    assert_eq!(store.acquire("other", B, LEASE, Nothing).await.unwrap(), RawAcquired::Ours);
}

async fn a_lease_is_seen_by_readers(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    assert!(matches!(store.read("k").await.unwrap(), RawSlot::Leased(_)));
    let (slot, _wake) = store.read_and_watch("k").await.unwrap();
    let RawSlot::Leased(Some(left)) = slot else { panic!("{slot:?}") };
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
}

/// Returns how long a lease in the place of a record still lasts.
async fn lease_left(store: &RawStore, key: &str) -> Duration {
    match store.read_and_watch(key).await.unwrap().0 {
        RawSlot::Leased(Some(left)) => left,
        other => panic!("{other:?}"),
    }
}

/// Returns how long the lease of a refresh still lasts, as reported to another attempt that wants
/// it.
async fn refresh_lease_left(store: &RawStore, key: &str) -> Duration {
    match store.acquire(key, B, LEASE, Record(1)).await.unwrap() {
        RawAcquired::Found(RawSlot::Leased(Some(left))) => left,
        other => panic!("{other:?}"),
    }
}

async fn a_lease_in_the_place_of_a_record_ends_it(store: &RawStore) {
    assert_eq!(store.acquire_in_place("k", A, LEASE, 1).await.unwrap(), RawAcquired::Found(RawSlot::Absent));
    store.put("k", &record(1, "old"), Some(TTL)).await.unwrap();
    // A refresh in progress belongs to the old record.
    assert_eq!(store.acquire("k", B, LEASE, Record(1)).await.unwrap(), RawAcquired::Ours);
    assert_eq!(store.acquire_in_place("k", A, LEASE, 1).await.unwrap(), RawAcquired::Ours);
    assert!(matches!(store.read("k").await.unwrap(), RawSlot::Leased(_)));
    let late = store.acquire_in_place("k", B, LEASE, 1).await.unwrap();
    assert!(matches!(late, RawAcquired::Found(RawSlot::Leased(_))), "{late:?}");
    assert!(!store.fill("k", B, Record(1), &record(2, "late"), TTL).await.unwrap());
    assert!(store.renew("k", A, Nothing, LEASE).await.unwrap());
    assert!(store.fill("k", A, Nothing, &record(3, "new"), TTL).await.unwrap());
    let other = store.acquire_in_place("k", A, LEASE, 1).await.unwrap();
    assert_eq!(other, RawAcquired::Found(RawSlot::Bytes(record(3, "new"))));
    store.hash_set("hash", &[("field", b"value")]).await.unwrap();
    let other = store.acquire_in_place("hash", A, LEASE, 1).await.unwrap();
    assert_eq!(other, RawAcquired::Found(RawSlot::WrongType));
}

// R11
async fn a_lease_ends_by_itself(store: &RawStore) {
    store.acquire("k", A, SHORT, Nothing).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    assert_eq!(store.acquire("k", B, LEASE, Nothing).await.unwrap(), RawAcquired::Ours);
}

async fn a_fill_stores_once(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    assert!(store.fill("k", A, Nothing, &record(1, "v"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
    assert!(!store.fill("k", A, Nothing, &record(2, "w"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
    let late = store.acquire("k", B, LEASE, Nothing).await.unwrap();
    assert_eq!(late, RawAcquired::Found(RawSlot::Bytes(record(1, "v"))));
}

// R1
async fn a_fill_is_refused_after_a_removal(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    store.remove(&["k"], "builds").await.unwrap();
    assert!(!store.fill("k", A, Nothing, &record(1, "old"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// R2
async fn a_fill_is_refused_after_a_write(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    store.write("k", &record(2, "new"), TTL, &[], "builds").await.unwrap();
    assert!(!store.fill("k", A, Nothing, &record(1, "old"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(2, "new")));
}

// X5
async fn a_fill_is_refused_after_the_lease_ran_out(store: &RawStore) {
    store.acquire("k", A, SHORT, Nothing).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert!(!store.fill("k", A, Nothing, &record(1, "late"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// R10
async fn a_fill_is_refused_to_another_attempt(store: &RawStore) {
    store.acquire("k", A, SHORT, Nothing).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    store.acquire("k", B, LEASE, Nothing).await.unwrap();
    assert!(!store.fill("k", A, Nothing, &record(1, "first"), TTL).await.unwrap());
    assert!(store.fill("k", B, Nothing, &record(2, "second"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(2, "second")));
}

// R12
async fn a_release_compares_the_token(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    store.release("k", B, Nothing).await.unwrap();
    assert!(matches!(store.read("k").await.unwrap(), RawSlot::Leased(_)));
    store.release("k", A, Nothing).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    store.write("k", &record(1, "v"), TTL, &[], "builds").await.unwrap();
    store.release("k", A, Nothing).await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "v")));
}

// R13
async fn a_renewal_extends_the_own_lease_only(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    assert!(!store.renew("k", B, Nothing, RENEWED).await.unwrap());
    assert!(lease_left(store, "k").await <= LEASE, "of another attempt");
    assert!(store.renew("k", A, Nothing, RENEWED).await.unwrap());
    assert!(lease_left(store, "k").await > LEASE);
    assert!(store.fill("k", A, Nothing, &record(1, "v"), TTL).await.unwrap());
    assert!(!store.renew("k", A, Nothing, LEASE).await.unwrap());
}

// F1
async fn a_refresh_leaves_the_stale_record_readable(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    assert_eq!(store.acquire("k", A, LEASE, Record(1)).await.unwrap(), RawAcquired::Ours);
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "stale")));
    assert!(store.fill("k", A, Record(1), &record(2, "new"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(2, "new")));
    // The lease ends with the fill, so the next refresh can begin.
    assert_eq!(store.acquire("k", B, LEASE, Record(2)).await.unwrap(), RawAcquired::Ours);
}

// F1
async fn a_refresh_is_exclusive(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    assert_eq!(store.acquire("k", A, LEASE, Record(1)).await.unwrap(), RawAcquired::Ours);
    let second = store.acquire("k", B, LEASE, Record(1)).await.unwrap();
    assert!(matches!(second, RawAcquired::Found(RawSlot::Leased(Some(_)))), "{second:?}");
}

// F9
async fn a_refresh_wants_the_record_it_has_read(store: &RawStore) {
    let missing = store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    assert_eq!(missing, RawAcquired::Found(RawSlot::Absent));
    store.write("k", &record(2, "newer"), TTL, &[], "builds").await.unwrap();
    let newer = store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    assert_eq!(newer, RawAcquired::Found(RawSlot::Bytes(record(2, "newer"))));
    assert_eq!(store.acquire("k", A, LEASE, Record(2)).await.unwrap(), RawAcquired::Ours);
}

// R5
async fn a_refresh_is_refused_after_a_write(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    store.write("k", &record(2, "set"), TTL, &[], "builds").await.unwrap();
    assert!(!store.fill("k", A, Record(1), &record(3, "computed"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(2, "set")));
}

// R5: the new record can be refreshed immediately, by any attempt.
async fn a_write_ends_the_lease_of_a_refresh(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    store.write("k", &record(2, "set"), TTL, &[], "builds").await.unwrap();
    assert_eq!(store.acquire("k", B, LEASE, Record(2)).await.unwrap(), RawAcquired::Ours);
}

// R1
async fn a_refresh_is_refused_after_a_removal(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    store.remove(&["k"], "builds").await.unwrap();
    assert!(!store.fill("k", A, Record(1), &record(3, "computed"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// R10
async fn a_refresh_is_refused_to_another_attempt(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("k", A, SHORT, Record(1)).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.acquire("k", B, LEASE, Record(1)).await.unwrap(), RawAcquired::Ours);
    assert!(!store.fill("k", A, Record(1), &record(2, "first"), TTL).await.unwrap());
    assert!(store.fill("k", B, Record(1), &record(3, "second"), TTL).await.unwrap());
}

// R12, R13
async fn a_refresh_lease_is_released_and_renewed_by_its_owner_only(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    assert!(!store.renew("k", B, Record(1), RENEWED).await.unwrap());
    assert!(refresh_lease_left(store, "k").await <= LEASE, "of another attempt");
    assert!(store.renew("k", A, Record(1), RENEWED).await.unwrap());
    assert!(refresh_lease_left(store, "k").await > LEASE);
    store.release("k", B, Record(1)).await.unwrap();
    let held = store.acquire("k", B, LEASE, Record(1)).await.unwrap();
    assert!(matches!(held, RawAcquired::Found(RawSlot::Leased(_))), "{held:?}");
    store.release("k", A, Record(1)).await.unwrap();
    assert_eq!(store.acquire("k", B, LEASE, Record(1)).await.unwrap(), RawAcquired::Ours);
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "stale")));
}

// F3
async fn a_failed_refresh_leaves_a_throttle_that_all_see(store: &RawStore) {
    store.write("k", &record(1, "old"), TTL, &[], "b").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    assert!(store.throttle("k", A, LEASE).await.unwrap());
    soon("the waiter reads again", wake).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "old")));
    let found = store.acquire("k", B, LEASE, Record(1)).await.unwrap();
    assert!(matches!(found, RawAcquired::Throttled(Some(left)) if left <= LEASE && left > LEASE / 2), "{found:?}");
    // The attempt that failed is over. It can neither fill nor renew.
    assert!(!store.fill("k", A, Record(1), &record(2, "late"), TTL).await.unwrap());
    assert!(!store.renew("k", A, Record(1), LEASE).await.unwrap());
    // R17: a removal also removes the throttle.
    store.remove(&["k"], "b").await.unwrap();
    store.write("k", &record(3, "new"), TTL, &[], "b").await.unwrap();
    assert_eq!(store.acquire("k", B, LEASE, Record(3)).await.unwrap(), RawAcquired::Ours);
}

// F3
async fn a_throttle_is_left_by_the_lease_s_owner_only_and_ends(store: &RawStore) {
    store.write("k", &record(1, "old"), TTL, &[], "b").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    assert!(!store.throttle("k", B, SHORT).await.unwrap());
    assert!(store.throttle("k", A, SHORT).await.unwrap());
    assert!(!store.throttle("k", A, SHORT).await.unwrap());
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.acquire("k", B, LEASE, Record(1)).await.unwrap(), RawAcquired::Ours);
}

// V8, R1
async fn a_head_is_rewritten_under_the_lease_and_over_the_same_record_only(store: &RawStore) {
    let (old, new) = (record(1, "payload"), record(2, "payload"));
    let head = &new[..new.len() - "payload".len()];
    store.write("k", &old, TTL, &[], "b").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    assert!(!store.rewrite_head("k", B, 1, head, TTL * 2).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(old));
    assert!(store.rewrite_head("k", A, 1, head, TTL * 2).await.unwrap());
    let (bytes, left) = store.load("k").await.unwrap().unwrap();
    assert_eq!(bytes, new);
    assert!(left.is_some_and(|left| left > TTL && left <= TTL * 2), "it lives longer: {left:?}");
    assert!(!store.rewrite_head("k", A, 2, head, TTL).await.unwrap(), "the lease is gone");
    // Another record has replaced the one that was read.
    store.acquire("k", A, LEASE, Record(2)).await.unwrap();
    assert!(!store.rewrite_head("k", A, 1, head, TTL).await.unwrap());
    store.acquire("k", A, LEASE, Record(2)).await.unwrap();
    store.remove(&["k"], "b").await.unwrap();
    assert!(!store.rewrite_head("k", A, 2, head, TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// R28
async fn a_record_lives_at_least_as_long_as_its_lease(store: &RawStore) {
    let left = async |key| store.load(key).await.unwrap().and_then(|(_, left)| left).unwrap();
    store.write("k", &record(1, "stale"), LEASE, &[], "b").await.unwrap();
    store.acquire("k", A, TTL, Record(1)).await.unwrap();
    assert!(left("k").await > TTL - LEASE, "as long as the lease");
    assert!(store.renew("k", A, Record(1), 10 * TTL).await.unwrap());
    assert!(left("k").await > 9 * TTL, "as long as the renewed lease");
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "stale")));
    // A record with a longer ttl keeps it. A change of the ttl would be pushed to every process.
    store.write("long", &record(1, "stale"), 2 * TTL, &[], "b").await.unwrap();
    let (_, wake) = store.read_and_watch("long").await.unwrap();
    store.acquire("long", A, LEASE, Record(1)).await.unwrap();
    store.renew("long", A, Record(1), LEASE).await.unwrap();
    assert!(left("long").await > TTL);
    assert!(wake.now_or_never().is_none());
    // The record's replacement does not belong to the lease.
    store.write("k", &record(2, "set"), LEASE, &[], "b").await.unwrap();
    assert!(!store.renew("k", A, Record(1), TTL).await.unwrap());
    store.put("k", &record(3, "by hand"), Some(LEASE)).await.unwrap();
    store.acquire("k", B, LEASE, Record(3)).await.unwrap();
    store.put("k", &record(4, "by hand"), Some(LEASE)).await.unwrap();
    store.renew("k", B, Record(3), TTL).await.unwrap();
    assert!(left("k").await <= LEASE);
}

// X7
async fn a_waiter_for_a_refresh_is_woken_when_its_lease_is_released(store: &RawStore) {
    store.write("k", &record(1, "stale"), TTL, &[], "b").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    store.release("k", A, Record(1)).await.unwrap();
    soon("the waiter reads again", wake).await;
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    store.release_unstored("k", A, Record(1), LEASE).await.unwrap();
    soon("the waiter reads again", wake).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "stale")));
}

// X7
async fn a_run_that_stored_nothing_leaves_a_mark_that_one_attempt_takes_over(store: &RawStore) {
    store.acquire("k", A, LEASE, Nothing).await.unwrap();
    store.release_unstored("k", B, Nothing, LEASE).await.unwrap();
    assert!(matches!(store.read("k").await.unwrap(), RawSlot::Leased(_)), "only its owner leaves it");
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    store.release_unstored("k", A, Nothing, LEASE).await.unwrap();
    soon("the waiter reads again", wake).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Unstored);
    // The run that left it is over.
    assert!(!store.fill("k", A, Nothing, &record(1, "late"), TTL).await.unwrap());
    assert!(!store.renew("k", A, Nothing, LEASE).await.unwrap());
    store.release("k", A, Nothing).await.unwrap();
    assert_eq!(store.acquire("k", B, LEASE, Nothing).await.unwrap(), RawAcquired::Found(RawSlot::Unstored));
    let other_mark = store.acquire_over_mark("k", B, LEASE, C).await.unwrap();
    assert_eq!(other_mark, RawAcquired::Found(RawSlot::Unstored));
    assert_eq!(store.acquire_over_mark("k", B, LEASE, A).await.unwrap(), RawAcquired::Ours);
    // Later callers need not wait.
    assert!(matches!(store.read("k").await.unwrap(), RawSlot::Unawaited(_)));
    let late = store.acquire_over_mark("k", C, LEASE, A).await.unwrap();
    assert!(matches!(late, RawAcquired::Found(RawSlot::Unawaited(_))), "{late:?}");
    let late = store.acquire("k", C, LEASE, Nothing).await.unwrap();
    assert!(matches!(late, RawAcquired::Found(RawSlot::Unawaited(_))), "{late:?}");
    assert!(store.renew("k", B | UNAWAITED, Nothing, LEASE).await.unwrap());
    assert!(!store.fill("k", C | UNAWAITED, Nothing, &record(1, "other"), TTL).await.unwrap());
    assert!(store.fill("k", B | UNAWAITED, Nothing, &record(2, "new"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(2, "new")));
    let gone = store.acquire_over_mark("gone", B, LEASE, A).await.unwrap();
    assert_eq!(gone, RawAcquired::Found(RawSlot::Absent));
    store.hash_set("hash", &[("field", b"value")]).await.unwrap();
    let other = store.acquire_over_mark("hash", B, LEASE, A).await.unwrap();
    assert_eq!(other, RawAcquired::Found(RawSlot::WrongType));
}

// X7, R1, R2, R22
async fn a_mark_of_a_run_that_stored_nothing_ends_as_a_lease_does(store: &RawStore) {
    let leave = |rest| async move {
        store.acquire("k", A, LEASE, Nothing).await.unwrap();
        store.release_unstored("k", A, Nothing, rest).await.unwrap();
    };
    leave(SHORT).await;
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    leave(LEASE).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Unstored);
    store.remove(&["k"], "b").await.unwrap();
    assert_eq!(store.acquire_over_mark("k", B, LEASE, A).await.unwrap(), RawAcquired::Found(RawSlot::Absent));
    leave(LEASE).await;
    store.acquire_over_mark("k", B, LEASE, A).await.unwrap();
    store.write("k", &record(1, "set"), TTL, &[], "b").await.unwrap();
    assert!(!store.fill("k", B | UNAWAITED, Nothing, &record(2, "computed"), TTL).await.unwrap());
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(record(1, "set")));
    // A fence sets nothing aside for it and restores nothing.
    for is_taken in [false, true] {
        store.remove(&["k"], "b").await.unwrap();
        leave(LEASE).await;
        if is_taken {
            store.acquire_over_mark("k", B, LEASE, A).await.unwrap();
        }
        store.raise(&["k"], "b", C, LEASE).await.unwrap();
        assert_eq!(store.load("{k}:f").await.unwrap(), None);
        store.withdraw(&["k"], C).await.unwrap();
        assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    }
}

// X7
async fn beside_a_record_a_run_that_stored_nothing_leaves_a_mark_too(store: &RawStore) {
    store.write("k", &record(1, "old"), TTL, &[], "b").await.unwrap();
    store.acquire("k", A, LEASE, Record(1)).await.unwrap();
    store.release_unstored("k", A, Record(1), LEASE).await.unwrap();
    assert_eq!(store.acquire("k", B, LEASE, Record(1)).await.unwrap(), RawAcquired::Unawaited);
    let late = store.acquire("k", C, LEASE, Record(1)).await.unwrap();
    assert!(matches!(late, RawAcquired::Found(RawSlot::Unawaited(Some(_)))), "{late:?}");
    assert!(store.renew("k", B | UNAWAITED, Record(1), LEASE).await.unwrap());
    assert!(!store.fill("k", C | UNAWAITED, Record(1), &record(2, "other"), TTL).await.unwrap());
    assert!(store.fill("k", B | UNAWAITED, Record(1), &record(3, "new"), TTL).await.unwrap());
    // A release works even if the attempt does not know which form the lease has.
    store.acquire("k", A, LEASE, Record(3)).await.unwrap();
    store.release_unstored("k", A, Record(3), LEASE).await.unwrap();
    store.acquire("k", B, LEASE, Record(3)).await.unwrap();
    store.release("k", B, Record(3)).await.unwrap();
    assert_eq!(store.acquire("k", C, LEASE, Record(3)).await.unwrap(), RawAcquired::Ours);
}

// R1, R2, R5, R10: a few computes race with writers that change the row and then invalidate. At
// rest, no older row is stored. Each round is one interleaving. The record of one round is the
// stale one of the next.
async fn no_fill_survives_an_invalidation(store: &RawStore) {
    let row = &AtomicU64::new(0);
    let ids = &AtomicU64::new(1);
    // A pause, as in a compute or a transaction.
    let pause = |turns: u64| async move {
        for _ in 0..turns {
            store.read("elsewhere").await.unwrap();
        }
    };
    let compute = |before: u64, during: u64| async move {
        pause(before).await;
        let over = match store.read("k").await.unwrap() {
            RawSlot::Bytes(bytes) => Record(fill_id(&bytes)),
            _ => Nothing,
        };
        let id = ids.fetch_add(1, SeqCst);
        if store.acquire("k", id.into(), LEASE, over).await.unwrap() == RawAcquired::Ours {
            let seen = row.load(SeqCst);
            pause(during).await;
            store.fill("k", id.into(), over, &record(id, &seen.to_string()), TTL).await.unwrap();
        }
    };
    let invalidate = |before: u64, explicit: bool| async move {
        pause(before).await;
        let new = row.fetch_add(1, SeqCst) + 1;
        if explicit {
            let id = ids.fetch_add(1, SeqCst);
            store.write("k", &record(id, &new.to_string()), TTL, &[], "builds").await.unwrap();
        } else {
            store.remove(&["k"], "builds").await.unwrap();
        }
    };
    for round in 0..500_u64 {
        let computes = join_all((0..4).map(|n| compute((round + n) % 5, (round / 5 + 2 * n) % 6)));
        join(computes, invalidate(round % 7, round % 3 == 0)).await;
        let newest = row.load(SeqCst).to_string();
        if let RawSlot::Bytes(bytes) = store.read("k").await.unwrap() {
            assert_eq!(bytes, record(fill_id(&bytes), &newest), "an old row is stored in round {round}");
        }
        if round % 4 == 0 {
            store.remove(&["k"], "builds").await.unwrap();
        }
    }
}

fn fill_id(record: &[u8]) -> u64 {
    u64::from_le_bytes(record[6..14].try_into().unwrap())
}
