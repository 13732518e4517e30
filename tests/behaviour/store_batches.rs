//! Promises of every store about operations on several keys: the same as of separate operations.

use std::time::Duration;

use cache_core::store_testing::{RawAcquired, RawClaim, RawOver, RawPlace, RawSlot, RawStore, UNAWAITED, record};
use support::eventually;

use super::store_conformance::conformance;

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);
const A: u128 = 0xa;
const B: u128 = 0xb;

conformance! {
    several_values_and_versions_are_read_at_once
    several_leases_are_each_exclusive
    several_fills_are_each_under_their_lease
    several_leases_are_renewed_and_released_by_their_owner_only
    several_runs_that_stored_nothing_leave_a_mark_each
    a_key_of_another_type_does_not_affect_the_others
    a_change_of_any_read_key_is_reported
}

async fn several_values_and_versions_are_read_at_once(store: &RawStore) {
    store.write("b", &record(2, "two"), TTL, &[], "{n@version}:builds").await.unwrap();
    store.acquire("c", A, LEASE, RawOver::Nothing).await.unwrap();
    for track in [true, false] {
        let (slots, versions) = store.read_many(&["a", "b", "c"], &["v1", "v2"], track).await.unwrap();
        assert_eq!(slots[..2], [RawSlot::Absent, RawSlot::Bytes(record(2, "two"))]);
        assert!(matches!(slots[2], RawSlot::Leased(_)));
        assert!(versions[0].is_some() && versions[1].is_some() && versions[0] != versions[1]);
        assert_eq!(store.versions(&["v1", "v2"], false).await.unwrap().0, versions, "they were made, once");
        assert_eq!(store.read_many(&["a", "b", "c"], &[], track).await.unwrap(), (slots, Vec::new()));
    }
}

// X1
async fn several_leases_are_each_exclusive(store: &RawStore) {
    for key in ["instead", "beside", "taken"] {
        store.write(key, &record(7, key), TTL, &[], "{n@version}:builds").await.unwrap();
    }
    store.acquire("leased", B, LEASE, RawOver::Nothing).await.unwrap();
    store.acquire("taken", B, LEASE, RawOver::Record(7)).await.unwrap();
    let wants = [
        ("empty", A, RawPlace::Empty),
        ("leased", A, RawPlace::Empty),
        ("instead", A, RawPlace::Instead(7)),
        ("beside", A, RawPlace::Beside(7)),
        ("taken", A, RawPlace::Beside(7)),
        ("beside", A, RawPlace::Beside(8)),
        ("gone", A, RawPlace::Instead(7)),
    ];
    let answers: Vec<_> = store.acquire_many(&wants, LEASE).await.unwrap().into_iter().map(Result::unwrap).collect();
    let found = |slot| RawAcquired::Found(slot);
    assert_eq!(answers[0], RawAcquired::Ours);
    assert!(matches!(answers[1], RawAcquired::Found(RawSlot::Leased(_))));
    assert_eq!(answers[2..4], [RawAcquired::Ours, RawAcquired::Ours]);
    assert!(matches!(answers[4], RawAcquired::Found(RawSlot::Leased(_))));
    assert_eq!(answers[5..], [found(RawSlot::Bytes(record(7, "beside"))), found(RawSlot::Absent)]);
    assert!(matches!(store.read("instead").await.unwrap(), RawSlot::Leased(_)));
    assert_eq!(store.read("beside").await.unwrap(), RawSlot::Bytes(record(7, "beside")));
}

// R1, R10
async fn several_fills_are_each_under_their_lease(store: &RawStore) {
    for key in ["a", "removed", "others"] {
        store.acquire(key, if key == "others" { B } else { A }, LEASE, RawOver::Nothing).await.unwrap();
    }
    store.write("old", &record(7, "old"), TTL, &[], "{n@version}:builds").await.unwrap();
    store.acquire("old", A, LEASE, RawOver::Record(7)).await.unwrap();
    store.remove(&["removed"], "{n@version}:builds").await.unwrap();
    let new = record(8, "new");
    let fill = |key, over| (RawClaim(key, A, over), &new[..]);
    let fills = [
        fill("a", RawOver::Nothing),
        fill("removed", RawOver::Nothing),
        fill("others", RawOver::Nothing),
        fill("old", RawOver::Record(7)),
    ];
    let filled: Vec<bool> = store.fill_many(&fills, TTL).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(filled, [true, false, false, true]);
    let (slots, _) = store.read_many(&["a", "removed", "old"], &[], false).await.unwrap();
    assert_eq!(slots, [RawSlot::Bytes(new.clone()), RawSlot::Absent, RawSlot::Bytes(new.clone())]);
    assert!(matches!(store.read("others").await.unwrap(), RawSlot::Leased(_)));
}

// R12
async fn several_leases_are_renewed_and_released_by_their_owner_only(store: &RawStore) {
    store.write("old", &record(7, "old"), TTL, &[], "{n@version}:builds").await.unwrap();
    store.acquire("mine", A, LEASE, RawOver::Nothing).await.unwrap();
    store.acquire("theirs", B, LEASE, RawOver::Nothing).await.unwrap();
    store.acquire("old", A, LEASE, RawOver::Record(7)).await.unwrap();
    let claims = [
        RawClaim("mine", A, RawOver::Nothing),
        RawClaim("theirs", A, RawOver::Nothing),
        RawClaim("old", A, RawOver::Record(7)),
    ];
    let renewed: Vec<bool> =
        store.renew_many(&claims, 2 * LEASE).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(renewed, [true, false, true]);
    store.release_many(&claims).await.unwrap();
    assert_eq!(store.read("mine").await.unwrap(), RawSlot::Absent);
    assert!(matches!(store.read("theirs").await.unwrap(), RawSlot::Leased(_)));
    assert_eq!(store.acquire("old", B, LEASE, RawOver::Record(7)).await.unwrap(), RawAcquired::Ours);
}

// X7
async fn several_runs_that_stored_nothing_leave_a_mark_each(store: &RawStore) {
    store.write("old", &record(7, "old"), TTL, &[], "n@builds").await.unwrap();
    store.acquire("mine", A, LEASE, RawOver::Nothing).await.unwrap();
    store.acquire("theirs", B, LEASE, RawOver::Nothing).await.unwrap();
    store.acquire("old", A, LEASE, RawOver::Record(7)).await.unwrap();
    let claims = ["mine", "theirs"].map(|key| RawClaim(key, A, RawOver::Nothing));
    let claims = [&claims[..], &[RawClaim("old", A, RawOver::Record(7))]].concat();
    store.release_many_unstored(&claims, LEASE).await.unwrap();
    assert_eq!(store.read("mine").await.unwrap(), RawSlot::Unstored);
    assert!(matches!(store.read("theirs").await.unwrap(), RawSlot::Leased(_)));
    let wants =
        [("mine", B, RawPlace::OverMark(A)), ("gone", B, RawPlace::OverMark(A)), ("old", B, RawPlace::Beside(7))];
    let answers: Vec<_> = store.acquire_many(&wants, LEASE).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [RawAcquired::Ours, RawAcquired::Found(RawSlot::Absent), RawAcquired::Unawaited]);
    let new = record(8, "new");
    let fills = [(RawClaim("mine", B | UNAWAITED, RawOver::Nothing), &new[..])];
    assert!(store.fill_many(&fills, TTL).await.unwrap().remove(0).unwrap());
}

// V7
async fn a_key_of_another_type_does_not_affect_the_others(store: &RawStore) {
    store.hash_set("hash", &[("field", b"value")]).await.unwrap();
    store.read_many(&["hash", "a"], &[], true).await.unwrap();
    let wants = [("hash", A, RawPlace::Empty), ("a", A, RawPlace::Empty), ("hash", A, RawPlace::Beside(7))];
    let answers: Vec<_> = store.acquire_many(&wants, LEASE).await.unwrap().into_iter().map(Result::unwrap).collect();
    let other_type = RawAcquired::Found(RawSlot::WrongType);
    assert_eq!(answers, [other_type.clone(), RawAcquired::Ours, other_type]);
}

// I2
async fn a_change_of_any_read_key_is_reported(store: &RawStore) {
    let told = store.told();
    store.read_many(&["a", "b"], &["v"], true).await.unwrap();
    store.write("b", &record(1, "new"), TTL, &[], "{n@version}:builds").await.unwrap();
    store.renew_versions(&["v"]).await.unwrap();
    eventually("both are notified", || async { told.of("b") && told.of("v") }).await;
    assert!(!told.of("a"));
}
