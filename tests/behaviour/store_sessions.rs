//! Promises of every store to sessions: replacing one key by another, indexes with expiring
//! members, both in one step, and marks of ended sessions.

use std::time::Duration;

use cache_core::store_testing::{RawEntered, RawEntering, RawReplaced, RawStore};
use futures::future::join_all;

use super::store_conformance::conformance;

const TTL: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);
const AFTER_SHORT: Duration = Duration::from_millis(60);

conformance! {
    a_conflicting_swap_returns_the_current_bytes
    a_key_takes_the_place_of_another
    a_replacement_wants_exactly_what_was_read
    a_replacement_has_its_expiry
    one_of_many_replacements_wins
    replacements_in_both_directions_do_not_wait_for_each_other
    members_of_an_index_end_by_themselves
    an_index_ends_with_its_last_member
    members_are_removed
    an_index_of_another_type_is_left_alone
    a_key_and_its_entry_are_written_in_one_step
    a_refused_write_changes_nothing
    an_entry_takes_the_place_of_another_with_its_key
    an_entry_above_the_limit_is_refused
    above_the_limit_the_entry_that_ends_first_is_removed
    entries_without_a_key_do_not_count
    concurrent_entries_stay_within_the_limit
    an_ended_key_leaves_a_mark
    keys_are_listed_by_prefix
}

async fn bytes(store: &RawStore, key: &str) -> Option<Vec<u8>> {
    store.load(key).await.unwrap().map(|(bytes, _)| bytes)
}

async fn a_conflicting_swap_returns_the_current_bytes(store: &RawStore) {
    store.put("k", b"theirs \r\n\0", None).await.unwrap();
    assert_eq!(store.swap_conflict("k", b"mine", b"new").await.unwrap().unwrap(), b"theirs \r\n\0");
    // Bytes that look like a reply of another kind.
    store.put("k", b"1", None).await.unwrap();
    assert_eq!(store.swap_conflict("k", b"mine", b"new").await.unwrap().unwrap(), b"1");
    assert_eq!(bytes(store, "k").await.unwrap(), b"1");
}

async fn a_key_takes_the_place_of_another(store: &RawStore) {
    // Many pairs: within one shard or slot, and across two.
    for pair in 0..100 {
        let (old, new) = (format!("old:{pair}"), format!("new:{pair}"));
        store.put(&old, b"before", Some(TTL)).await.unwrap();
        assert_eq!(store.replace(&old, b"before", &new, b"after", Some(TTL), None).await.unwrap(), RawReplaced::Done);
        assert_eq!(bytes(store, &old).await, None);
        assert_eq!(bytes(store, &new).await.unwrap(), b"after");
    }
}

async fn a_replacement_wants_exactly_what_was_read(store: &RawStore) {
    assert_eq!(store.replace("old", b"a", "new", b"b", None, None).await.unwrap(), RawReplaced::Gone);
    store.put("old", b"other", None).await.unwrap();
    assert_eq!(store.replace("old", b"a", "new", b"b", None, None).await.unwrap(), RawReplaced::Conflict);
    store.put("new", b"taken", None).await.unwrap();
    assert_eq!(store.replace("old", b"other", "new", b"b", None, None).await.unwrap(), RawReplaced::Taken);
    // None of them changed anything.
    assert_eq!(bytes(store, "old").await.unwrap(), b"other");
    assert_eq!(bytes(store, "new").await.unwrap(), b"taken");
}

async fn a_replacement_has_its_expiry(store: &RawStore) {
    store.put("old", b"a", Some(TTL)).await.unwrap();
    store.replace("old", b"a", "new", b"b", Some(SHORT), None).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(bytes(store, "new").await, None);
    store.put("old", b"a", Some(TTL)).await.unwrap();
    store.replace("old", b"a", "new", b"b", None, None).await.unwrap();
    assert_eq!(store.load("new").await.unwrap().unwrap().1, None);
}

async fn one_of_many_replacements_wins(store: &RawStore) {
    store.put("old", b"a", None).await.unwrap();
    let keys: Vec<String> = (0..20).map(|n| format!("new:{n}")).collect();
    let results = join_all(keys.iter().map(|key| store.replace("old", b"a", key, b"b", None, None))).await;
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
                store.replace(from, b"v", to, b"v", None, None).await.unwrap();
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
    store.index_put("i", "late", TTL).await.unwrap();
    store.index_put("i", "soon", TTL / 2).await.unwrap();
    assert_eq!(members(store, "i").await, ["soon", "late"], "the first to end at the head");
    store.index_put("i", "soon", SHORT).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    let left = store.index_members("i").await.unwrap();
    assert!(matches!(&left[..], [(member, left)] if member == "late" && *left > TTL / 2), "{left:?}");
    // If it is put again, it expires later.
    store.index_put("i", "late", TTL * 3).await.unwrap();
    assert!(store.index_members("i").await.unwrap()[0].1 > TTL * 2);
}

async fn an_index_ends_with_its_last_member(store: &RawStore) {
    store.index_put("i", "a", TTL).await.unwrap();
    store.index_put("i", "b", SHORT).await.unwrap();
    assert!(!store.create("i", b"x", None).await.unwrap(), "it stands");
    assert_eq!(store.index_remove("i", &["a"]).await.unwrap(), 1);
    store.index_put("i", "b", SHORT).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert!(store.create("i", b"x", None).await.unwrap(), "it is gone without a trace");
}

async fn members_are_removed(store: &RawStore) {
    for member in ["a", "b", "c"] {
        store.index_put("i", member, TTL).await.unwrap();
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
    assert!(store.index_put("i", "a", TTL).await.is_err());
    assert_eq!(bytes(store, "i").await.unwrap(), b"text");
}

/// Returns a new session `s:<member>` of the user with the index `i`.
fn new(member: &str) -> (String, RawEntering<'_>) {
    let entering =
        RawEntering { bytes: b"new", expiry: Some(TTL), index: "i", member, left: TTL, ..RawEntering::default() };
    (format!("s:{member}"), entering)
}

async fn enter(store: &RawStore, member: &str, left: Duration, limit: Option<(usize, bool)>) -> RawEntered {
    let (key, entering) = new(member);
    let limit = limit.map(|(most, refuse)| ("s:", most, refuse));
    store.enter(RawEntering { key: &key, left, limit, ..entering }).await.unwrap()
}

fn done(ended: &[&str]) -> RawEntered {
    RawEntered::Done(ended.iter().map(|member| (*member).to_owned()).collect())
}

async fn a_key_and_its_entry_are_written_in_one_step(store: &RawStore) {
    // Many users: within one shard, and across several.
    for user in 0..50 {
        let (index, key, other) = (format!("i:{user}"), format!("s:{user}"), format!("o:{user}"));
        let (_, entering) = new("m");
        let entering = RawEntering { key: &key, index: &index, ..entering };
        assert_eq!(store.enter(entering).await.unwrap(), done(&[]));
        assert_eq!(
            (bytes(store, &key).await.unwrap(), members(store, &index).await),
            (b"new".to_vec(), vec!["m".to_owned()])
        );
        // Replaces existing bytes: of the same key, and of another one.
        let again = RawEntering { bytes: b"again", over: Some((&key, b"new")), left: TTL * 2, ..entering };
        assert_eq!(store.enter(again).await.unwrap(), done(&[]));
        assert!(store.index_members(&index).await.unwrap()[0].1 > TTL);
        let moved = RawEntering { key: &other, over: Some((&key, b"again")), expiry: None, ..entering };
        assert_eq!(store.enter(moved).await.unwrap(), done(&[]));
        assert_eq!((bytes(store, &key).await, bytes(store, &other).await.unwrap()), (None, b"new".to_vec()));
        assert_eq!(store.load(&other).await.unwrap().unwrap().1, None, "no expiry");
    }
    enter(store, "short", SHORT, None).await;
    assert!(store.load("s:short").await.unwrap().unwrap().1.unwrap() > TTL / 2);
    store.let_pass(AFTER_SHORT).await;
    assert!(store.create("i", b"x", None).await.unwrap(), "the index ended with its last entry");
}

async fn a_refused_write_changes_nothing(store: &RawStore) {
    enter(store, "a", TTL, None).await;
    store.put("s:taken", b"theirs", None).await.unwrap();
    let (_, entering) = new("b");
    let from = |key, expected| RawEntering { over: Some((key, expected)), ..entering };
    for (what, entering, expected) in [
        ("taken", RawEntering { key: "s:taken", ..entering }, RawEntered::Taken),
        ("taken by another", RawEntering { key: "s:taken", ..from("s:a", b"new") }, RawEntered::Taken),
        ("conflict", RawEntering { key: "s:a", ..from("s:a", b"old") }, RawEntered::Conflict(b"new".to_vec())),
        ("conflict, to move", RawEntering { key: "s:b", ..from("s:a", b"old") }, RawEntered::Conflict(b"new".to_vec())),
        ("gone", RawEntering { key: "s:b", ..from("s:b", b"old") }, RawEntered::Gone),
        ("gone, to move", RawEntering { key: "s:c", ..from("s:b", b"old") }, RawEntered::Gone),
        ("full", RawEntering { key: "s:b", limit: Some(("s:", 1, true)), ..entering }, RawEntered::Full),
    ] {
        let all =
            RawEntering { deletes: &["s:taken"], leaves: Some(("j", "a")), mark: Some(("mark", TTL)), ..entering };
        assert_eq!(store.enter(all).await.unwrap(), expected, "{what}");
    }
    // Nor if something is of another type.
    store.put("text", b"text", None).await.unwrap();
    let entering = RawEntering { key: "s:b", ..entering };
    assert!(store.enter(RawEntering { index: "text", ..entering }).await.is_err());
    assert!(store.enter(RawEntering { leaves: Some(("text", "a")), ..entering }).await.is_err());
    assert!(store.enter(RawEntering { index: "text", limit: Some(("s:", 1, true)), ..entering }).await.is_err());
    assert_eq!(bytes(store, "s:a").await.unwrap(), b"new");
    assert_eq!(bytes(store, "s:taken").await.unwrap(), b"theirs");
    assert_eq!((bytes(store, "s:b").await, bytes(store, "s:c").await, bytes(store, "mark").await), (None, None, None));
    assert_eq!(members(store, "i").await, ["a"]);
}

async fn an_entry_takes_the_place_of_another_with_its_key(store: &RawStore) {
    enter(store, "old", TTL, None).await;
    store.index_put("j", "old", TTL).await.unwrap();
    let (_, entering) = new("new");
    let cycled = RawEntering { key: "s:new", over: Some(("s:old", b"new")), leaves: Some(("i", "old")), ..entering };
    assert_eq!(store.enter(cycled).await.unwrap(), done(&[]));
    assert_eq!((members(store, "i").await, bytes(store, "s:old").await), (vec!["new".to_owned()], None));
    // Replaces sessions of another user without being made from them.
    store.put("s:old", b"x", None).await.unwrap();
    store.put("s:moved", b"x", None).await.unwrap();
    let (_, entering) = new("newer");
    let instead = RawEntering {
        key: "s:newer",
        deletes: &["s:old", "s:moved", "s:nothing"],
        leaves: Some(("j", "old")),
        mark: Some(("mark", TTL)),
        ..entering
    };
    assert_eq!(store.enter(instead).await.unwrap(), done(&[]));
    assert_eq!((bytes(store, "s:old").await, bytes(store, "s:moved").await), (None, None));
    assert_eq!((members(store, "i").await.len(), members(store, "j").await.len()), (2, 0));
    assert!(store.load_marked("s:old", "mark").await.unwrap().1);
}

async fn an_entry_above_the_limit_is_refused(store: &RawStore) {
    for (member, expected) in [("a", done(&[])), ("b", done(&[])), ("c", RawEntered::Full)] {
        assert_eq!(enter(store, member, TTL, Some((2, true))).await, expected, "{member}");
    }
    assert_eq!((members(store, "i").await.len(), bytes(store, "s:c").await), (2, None));
    // The limit does not apply to an existing session or to one that replaces another.
    let (_, entering) = new("a");
    let limit = Some(("s:", 2, true));
    let again = RawEntering { key: "s:a", over: Some(("s:a", b"new")), limit, ..entering };
    assert_eq!(store.enter(again).await.unwrap(), done(&[]));
    let (_, entering) = new("c");
    let cycled = RawEntering { key: "s:c", over: Some(("s:b", b"new")), leaves: Some(("i", "b")), limit, ..entering };
    assert_eq!(store.enter(cycled).await.unwrap(), done(&[]));
    // A session that leaves another index makes no room in this one.
    let elsewhere = RawEntering { key: "s:d", member: "d", leaves: Some(("j", "a")), limit, ..entering };
    assert_eq!(store.enter(elsewhere).await.unwrap(), RawEntered::Full);
}

async fn above_the_limit_the_entry_that_ends_first_is_removed(store: &RawStore) {
    for (member, left) in [("late", TTL * 3), ("soon", TTL), ("later", TTL * 4)] {
        enter(store, member, left, None).await;
    }
    // The new session would expire first, but it stays.
    assert_eq!(enter(store, "new", TTL / 2, Some((3, false))).await, done(&["soon"]));
    assert_eq!(members(store, "i").await, ["new", "late", "later"]);
    assert_eq!((bytes(store, "s:soon").await, bytes(store, "s:late").await.unwrap()), (None, b"new".to_vec()));
    assert_eq!(enter(store, "newer", TTL, Some((1, false))).await, done(&["new", "late", "later"]));
    assert_eq!((members(store, "i").await, bytes(store, "s:late").await), (vec!["newer".to_owned()], None));
}

async fn entries_without_a_key_do_not_count(store: &RawStore) {
    enter(store, "a", TTL, None).await;
    enter(store, "b", TTL, None).await;
    store.delete("s:a").await.unwrap();
    assert_eq!(enter(store, "c", TTL, Some((2, false))).await, done(&[]), "no session has to end for an absent one");
    store.delete("s:b").await.unwrap();
    assert_eq!(enter(store, "d", TTL, Some((2, true))).await, done(&[]));
    // An entry that has expired while its key still exists.
    enter(store, "e", SHORT, None).await;
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(enter(store, "f", TTL, Some((3, true))).await, done(&[]));
}

async fn concurrent_entries_stay_within_the_limit(store: &RawStore) {
    for (index, refuse) in [("refusing", true), ("ending", false)] {
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    let (member, limit) = (format!("{index}:{n}"), Some(("s:", 5, refuse)));
                    let (key, entering) = new(&member);
                    store.enter(RawEntering { key: &key, index, limit, ..entering }).await.unwrap()
                })
            })
            .collect();
        let entered: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let done = entered.iter().filter(|entered| matches!(entered, RawEntered::Done(_))).count();
        assert_eq!(done, if refuse { 5 } else { 40 });
        let members = members(store, index).await;
        let standing = join_all((0..40).map(async |n| bytes(store, &format!("s:{index}:{n}")).await)).await;
        assert_eq!((members.len(), standing.into_iter().flatten().count()), (5, 5), "{index}");
    }
}

async fn an_ended_key_leaves_a_mark(store: &RawStore) {
    store.put("k", b"v", None).await.unwrap();
    assert_eq!(store.load_marked("k", "m").await.unwrap(), (Some(b"v".to_vec()), false));
    assert!(store.delete_marked("k", "m", TTL).await.unwrap());
    assert_eq!(store.load_marked("k", "m").await.unwrap(), (None, true));
    assert!(!store.delete_marked("k", "m", TTL).await.unwrap(), "the key was absent");
    store.put("k", b"back", None).await.unwrap();
    assert_eq!(store.load_marked("k", "m").await.unwrap(), (Some(b"back".to_vec()), true));
    assert!(store.delete_marked("k", "m", SHORT).await.unwrap());
    store.put("k", b"back", None).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    assert_eq!(store.load_marked("k", "m").await.unwrap(), (Some(b"back".to_vec()), false));
    let replaced = store.replace("k", b"back", "other", b"v", None, Some(("m", TTL))).await.unwrap();
    assert_eq!((replaced, store.load_marked("k", "m").await.unwrap()), (RawReplaced::Done, (None, true)));
    // A session that was not replaced has not ended.
    let replaced = store.replace("other", b"not this", "k", b"v", None, Some(("n", TTL))).await.unwrap();
    assert_eq!((replaced, store.load_marked("k", "n").await.unwrap()), (RawReplaced::Conflict, (None, false)));
}

async fn keys_are_listed_by_prefix(store: &RawStore) {
    let keys: Vec<String> = (0..1000).map(|n| format!("a*[b]:{n:03}")).collect();
    join_all(keys.iter().map(|key| store.put(key, b"v", None))).await;
    for other in ["a*[b]", "axb:1", "aab:1", "b"] {
        store.put(other, b"v", None).await.unwrap();
    }
    store.put("a*[b]:gone", b"v", Some(SHORT)).await.unwrap();
    store.index_put("a*[b]:index", "m", TTL).await.unwrap();
    store.let_pass(AFTER_SHORT).await;
    let (listed, pages) = store.list("a*[b]:", false).await.unwrap();
    assert_eq!(listed, keys);
    assert!(pages > 5, "{pages} pages");
    assert_eq!(store.list("a*[b]:", true).await.unwrap().0, ["a*[b]:index"]);
    assert_eq!(store.list("", false).await.unwrap().0.len(), 1004);
    assert_eq!(store.list("nothing", false).await.unwrap().0, Vec::<String>::new());
}
