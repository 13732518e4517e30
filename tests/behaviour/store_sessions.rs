//! What every store promises to sessions: one key in the place of another, and indexes whose members end by themselves.

use std::time::Duration;

use cache_core::store_testing::{RawReplaced, RawStore};
use futures::future::join_all;

use super::store_conformance::conformance;

const TTL: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

conformance! {
    a_swap_that_meets_others_bytes_tells_them
    a_key_takes_the_place_of_another
    a_replacement_wants_exactly_what_was_read
    a_replacement_has_its_expiry
    one_of_many_replacements_wins
    replacements_in_both_directions_do_not_wait_for_each_other
    members_of_an_index_end_by_themselves
    an_index_ends_with_its_last_member
    a_member_takes_the_place_of_another_only_if_that_is_there
    members_are_removed
    an_index_of_another_type_is_left_alone
}

async fn bytes(store: &RawStore, key: &str) -> Option<Vec<u8>> {
    store.load(key).await.unwrap().map(|(bytes, _)| bytes)
}

async fn a_swap_that_meets_others_bytes_tells_them(store: &RawStore) {
    store.put("k", b"theirs \r\n\0", None).await.unwrap();
    assert_eq!(store.swap_conflict("k", b"mine", b"new").await.unwrap().unwrap(), b"theirs \r\n\0");
    // Bytes that look like a reply of another sort.
    store.put("k", b"1", None).await.unwrap();
    assert_eq!(store.swap_conflict("k", b"mine", b"new").await.unwrap().unwrap(), b"1");
    assert_eq!(bytes(store, "k").await.unwrap(), b"1");
}

async fn a_key_takes_the_place_of_another(store: &RawStore) {
    // Many pairs: in one shard or slot, and in two.
    for pair in 0..100 {
        let (old, new) = (format!("old:{pair}"), format!("new:{pair}"));
        store.put(&old, b"before", Some(TTL)).await.unwrap();
        assert_eq!(store.replace(&old, b"before", &new, b"after", Some(TTL)).await.unwrap(), RawReplaced::Done);
        assert_eq!(bytes(store, &old).await, None);
        assert_eq!(bytes(store, &new).await.unwrap(), b"after");
    }
}

async fn a_replacement_wants_exactly_what_was_read(store: &RawStore) {
    assert_eq!(store.replace("old", b"a", "new", b"b", None).await.unwrap(), RawReplaced::Gone);
    store.put("old", b"other", None).await.unwrap();
    assert_eq!(store.replace("old", b"a", "new", b"b", None).await.unwrap(), RawReplaced::Conflict);
    store.put("new", b"taken", None).await.unwrap();
    assert_eq!(store.replace("old", b"other", "new", b"b", None).await.unwrap(), RawReplaced::Taken);
    // Nothing was changed by any of them.
    assert_eq!(bytes(store, "old").await.unwrap(), b"other");
    assert_eq!(bytes(store, "new").await.unwrap(), b"taken");
}

async fn a_replacement_has_its_expiry(store: &RawStore) {
    store.put("old", b"a", Some(TTL)).await.unwrap();
    store.replace("old", b"a", "new", b"b", Some(SHORT)).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(bytes(store, "new").await, None);
    store.put("old", b"a", Some(TTL)).await.unwrap();
    store.replace("old", b"a", "new", b"b", None).await.unwrap();
    assert_eq!(store.load("new").await.unwrap().unwrap().1, None);
}

async fn one_of_many_replacements_wins(store: &RawStore) {
    store.put("old", b"a", None).await.unwrap();
    let keys: Vec<String> = (0..20).map(|n| format!("new:{n}")).collect();
    let results = join_all(keys.iter().map(|key| store.replace("old", b"a", key, b"b", None))).await;
    let done = results.into_iter().filter(|result| matches!(result, Ok(RawReplaced::Done))).count();
    let standing = join_all(keys.iter().map(|key| bytes(store, key))).await.into_iter().flatten().count();
    assert_eq!((done, standing), (1, 1));
}

async fn replacements_in_both_directions_do_not_wait_for_each_other(store: &RawStore) {
    store.put("a", b"v", None).await.unwrap();
    let spawn = |from: &'static str, to: &'static str| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                store.replace(from, b"v", to, b"v", None).await.unwrap();
            }
        })
    };
    let tasks = [spawn("a", "b"), spawn("b", "a"), spawn("a", "c"), spawn("c", "b")];
    for task in tasks {
        support::soon("no deadlock", task).await.unwrap();
    }
    let standing = join_all(["a", "b", "c"].map(|key| bytes(store, key))).await;
    assert_eq!(standing.into_iter().flatten().count(), 1);
}

async fn members(store: &RawStore, key: &str) -> Vec<String> {
    store.index_members(key).await.unwrap().into_iter().map(|(member, _)| member).collect()
}

async fn members_of_an_index_end_by_themselves(store: &RawStore) {
    assert_eq!(members(store, "i").await, Vec::<String>::new());
    store.index_put("i", "late", TTL, None).await.unwrap();
    store.index_put("i", "soon", SHORT, None).await.unwrap();
    assert_eq!(members(store, "i").await, ["soon", "late"], "the first to end at the head");
    store.let_pass(AFTER_SHORT).await;
    let left = store.index_members("i").await.unwrap();
    assert!(matches!(&left[..], [(member, left)] if member == "late" && *left > TTL / 2), "{left:?}");
    // Put again, it ends later.
    store.index_put("i", "late", TTL * 3, None).await.unwrap();
    assert!(store.index_members("i").await.unwrap()[0].1 > TTL * 2);
}

async fn an_index_ends_with_its_last_member(store: &RawStore) {
    store.index_put("i", "a", TTL, None).await.unwrap();
    store.index_put("i", "b", SHORT, None).await.unwrap();
    assert!(!store.create("i", b"x", None).await.unwrap(), "it stands");
    assert_eq!(store.index_remove("i", &["a"]).await.unwrap(), 1);
    store.index_put("i", "b", SHORT, None).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert!(store.create("i", b"x", None).await.unwrap(), "it is gone without a trace");
}

async fn a_member_takes_the_place_of_another_only_if_that_is_there(store: &RawStore) {
    assert!(!store.index_put("i", "new", TTL, Some("old")).await.unwrap());
    assert_eq!(members(store, "i").await, Vec::<String>::new());
    store.index_put("i", "old", TTL, None).await.unwrap();
    assert!(store.index_put("i", "new", TTL, Some("old")).await.unwrap());
    assert_eq!(members(store, "i").await, ["new"]);
    assert!(store.index_put("i", "new", TTL, Some("new")).await.unwrap());
    // One that has ended is not there.
    store.index_put("i", "short", SHORT, None).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert!(!store.index_put("i", "newer", TTL, Some("short")).await.unwrap());
    assert_eq!(members(store, "i").await, ["new"]);
}

async fn members_are_removed(store: &RawStore) {
    for member in ["a", "b", "c"] {
        store.index_put("i", member, TTL, None).await.unwrap();
    }
    assert_eq!(store.index_remove("i", &["a", "c", "nobody"]).await.unwrap(), 2);
    assert_eq!(members(store, "i").await, ["b"]);
    assert_eq!(store.index_remove("i", &["b"]).await.unwrap(), 1);
    assert_eq!(store.index_remove("i", &["b"]).await.unwrap(), 0);
    assert_eq!(store.index_remove("nothing", &["b"]).await.unwrap(), 0);
    assert!(store.create("i", b"x", None).await.unwrap());
}

async fn an_index_of_another_type_is_left_alone(store: &RawStore) {
    store.put("i", b"text", None).await.unwrap();
    assert!(store.index_members("i").await.is_err());
    assert!(store.index_put("i", "a", TTL, None).await.is_err());
    assert_eq!(bytes(store, "i").await.unwrap(), b"text");
}
