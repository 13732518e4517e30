//! Read-through on a key that other programs share: `plain().get_or_compute(..)` and
//! `#[cached(plain = "..")]`.

use std::sync::Arc;
use std::time::Duration;

use cache_core::events::Event;
use cache_core::plain::TimeToLive;
use cache_core::{Cache, ErrorKind, cached};
use serde::{Deserialize, Serialize};
use support::{Gate, event, eventually, on_both_stores, soon};
use tokio::task::JoinHandle;

const DAY: Duration = Duration::from_secs(86400);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
}

fn user_named(name: &str) -> User {
    User { name: name.to_owned(), age: 36 }
}

const ADA: &str = r#"{"name":"Ada","age":36}"#;
const BOB: &str = r#"{"name":"Bob","age":36}"#;
const KEY: &str = "user:7";

/// The row is read before the wait, as by a slow query.
async fn load(gate: &Gate, name: &str) -> Result<User, String> {
    let row = user_named(name);
    gate.pass().await;
    if name == "error" { Err(name.to_owned()) } else { Ok(row) }
}

async fn get(cache: &Cache, gate: &Gate, name: &str) -> Result<User, Arc<String>> {
    cache.plain().get_or_compute(KEY, DAY, || load(gate, name)).await
}

/// Starts a call on a task of its own. Its run waits at the gate.
fn start(cache: &Cache, gate: &Gate, name: &'static str) -> JoinHandle<Result<User, Arc<String>>> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move { get(&cache, &gate, name).await })
}

async fn read(cache: &Cache, name: &'static str) -> String {
    soon("a read", get(cache, &Gate::open(), name)).await.unwrap().name
}

async fn stored(cache: &Cache) -> Option<String> {
    cache.plain().text(KEY).get().await.unwrap()
}

#[cached(plain = "user:{id}", ttl = 86400, cache = cache, skip(cache, gate, name))]
async fn user(cache: &Cache, gate: &Gate, id: u64, name: &str) -> Result<User, String> {
    let _ = (cache, id);
    load(gate, name).await
}

#[cached(plain = "nick:{name}", ttl = 60, negative_ttl = 30, cache_if = |nick| nick != "none", cache = cache, skip(cache))]
async fn nick(cache: &Cache, name: &str) -> Option<String> {
    let _ = cache;
    (!name.is_empty()).then(|| name.to_lowercase())
}

on_both_stores! {
    // X1, X2, S1: node-3
    async fn one_run_fills_a_plain_key_with_json_and_no_other_program_reads_its_lease(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let first = start(&here, &gate, "Ada");
        gate.arrival().await;
        let (other, joined) = (Gate::open(), start(&here, &Gate::open(), "Bob"));
        let second = start(&there, &other, "Bob");
        eventually("the second process waits", || async { there.stats().waited >= 1 }).await;
        eventually("a second caller joins", || async { here.stats().joined >= 1 }).await;
        assert_eq!(stored(&here).await, None, "the key is absent while it is computed");
        assert_eq!(here.plain().ttl(KEY).await.unwrap(), TimeToLive::NoKey);
        gate.let_through(1);
        for call in [first, joined, second] {
            assert_eq!(soon("it ends", call).await.unwrap().unwrap(), user_named("Ada"));
        }
        assert_eq!(other.runs(), 0);
        assert_eq!(stored(&there).await.as_deref(), Some(ADA), "byte by byte what another program would write");
        let TimeToLive::Left(left) = here.plain().ttl(KEY).await.unwrap() else { panic!("it ends") };
        assert!(left <= DAY && left > DAY - Duration::from_secs(60), "{left:?}");
        // The lease is removed together with the fill.
        assert_eq!(here.plain().ttl("{user:7}:l").await.unwrap(), TimeToLive::NoKey);
    }

    // R1
    async fn an_own_removal_kills_the_fill_of_a_plain_key_in_flight(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        for by in [&here, &there] {
            let mut events = here.subscribe();
            let slow = start(&here, &gate, "Ada");
            gate.arrival().await;
            by.plain().remove(KEY).await.unwrap();
            gate.let_through(1);
            assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap().name, "Ada", "its caller gets its value");
            event(&mut events, "the fill is refused", |event| matches!(event, Event::FillRefused { .. })).await;
            assert_eq!(stored(&here).await, None);
            assert_eq!(read(&here, "Bob").await, "Bob");
            assert_eq!(read(&there, "Eve").await, "Bob");
            assert!(here.plain().remove(KEY).await.unwrap());
        }
    }

    // R1, T7: a caller after the removal starts a new run, even while the old run continues
    async fn a_call_after_a_removal_does_not_join_the_run_from_before_it(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        let slow = start(&here, &gate, "Ada");
        gate.arrival().await;
        here.plain().remove(KEY).await.unwrap();
        assert_eq!(read(&here, "Bob").await, "Bob");
        gate.let_through(1);
        assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap().name, "Ada");
        assert_eq!(stored(&here).await.as_deref(), Some(BOB));
    }

    // R2
    async fn an_own_set_of_a_plain_key_is_not_overwritten_by_an_older_run(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        for by in [&here, &there] {
            let slow = start(&here, &gate, "Ada");
            gate.arrival().await;
            by.plain().set(KEY, &user_named("Bob"), DAY).await.unwrap();
            assert_eq!(read(&here, "Eve").await, "Bob");
            gate.let_through(1);
            assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap().name, "Ada");
            assert_eq!(stored(&here).await.as_deref(), Some(BOB));
            here.plain().remove(KEY).await.unwrap();
        }
    }

    // R2, T5: another program's SET during the run
    async fn a_foreign_set_during_the_run_is_not_overwritten(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        let slow = start(&here, &gate, "Ada");
        gate.arrival().await;
        nodes.write_by_hand(KEY, BOB).await;
        // A caller that comes now finds the value and waits for no run.
        assert_eq!(read(&here, "Eve").await, "Bob");
        gate.let_through(1);
        assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap().name, "Ada");
        assert_eq!(stored(&here).await.as_deref(), Some(BOB));
    }

    // R1: another program's SET and DEL during the run leave no trace but the push
    async fn a_foreign_set_that_is_removed_again_during_the_run_is_seen_by_its_push(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        nodes.write_by_hand("witness", "1").await;
        let witness = async |value: u32| {
            here.plain().get_or_compute("witness", DAY, || async move { Ok::<_, String>(value) }).await.unwrap()
        };
        assert_eq!((witness(0).await, witness(0).await), (1, 1));
        let slow = start(&here, &gate, "Ada");
        gate.arrival().await;
        nodes.write_by_hand(KEY, BOB).await;
        nodes.delete_by_hand(KEY).await;
        // Pushes arrive in order, so after this one the others have arrived too.
        nodes.write_by_hand("witness", "2").await;
        eventually("the pushes have arrived", || async { witness(0).await == 2 }).await;
        gate.let_through(1);
        assert_eq!(soon("the old run ends", slow).await.unwrap().unwrap().name, "Ada");
        assert_eq!(stored(&here).await, None);
    }

    // T5
    async fn a_foreign_change_of_a_plain_key_drops_what_this_process_keeps(nodes: &Nodes) {
        let here = nodes.node().await;
        assert_eq!(read(&here, "Ada").await, "Ada");
        assert_eq!(read(&here, "Eve").await, "Ada");
        let before = here.stats();
        assert_eq!(read(&here, "Eve").await, "Ada");
        let after = here.stats();
        assert_eq!(after.computes, before.computes);
        nodes.write_by_hand(KEY, BOB).await;
        eventually("the new value", || async { read(&here, "Eve").await == "Bob" }).await;
        nodes.delete_by_hand(KEY).await;
        eventually("it is gone", || async { read(&here, "Eve").await == "Eve" }).await;
        assert_eq!(stored(&here).await.as_deref(), Some(r#"{"name":"Eve","age":36}"#));
    }

    // T1: a value that another program stored for ten seconds is not kept longer
    async fn this_process_keeps_a_plain_value_no_longer_than_the_key_lives(nodes: &Nodes) {
        let here = nodes.node().await;
        here.plain().set(KEY, &user_named("Ada"), Duration::from_secs(10)).await.unwrap();
        assert_eq!(read(&here, "Eve").await, "Ada");
        assert_eq!(read(&here, "Eve").await, "Ada");
        nodes.let_expire(KEY, Duration::from_secs(10));
        eventually("it has ended", || async { read(&here, "Eve").await == "Eve" }).await;
    }

    // V7: a value of another shape belongs to another program
    async fn a_value_of_another_shape_stays_and_the_caller_gets_its_own(nodes: &Nodes) {
        let here = nodes.node().await;
        nodes.write_by_hand(KEY, "[1,2]").await;
        let mut events = here.subscribe();
        assert_eq!(read(&here, "Ada").await, "Ada");
        assert_eq!(read(&here, "Bob").await, "Bob");
        event(&mut events, "it is reported", |event| matches!(event, Event::Undecodable { .. })).await;
        assert_eq!(stored(&here).await.as_deref(), Some("[1,2]"));
        here.plain().remove(KEY).await.unwrap();
        here.plain().hash::<u64>(KEY).set("a", &1).await.unwrap();
        assert_eq!(read(&here, "Ada").await, "Ada");
        assert_eq!(here.plain().hash::<u64>(KEY).get("a").await.unwrap(), Some(1));
    }

    // V1, X7
    async fn an_error_of_a_run_for_a_plain_key_is_shared_and_stores_nothing(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let first = start(&here, &gate, "error");
        gate.arrival().await;
        let joined = start(&here, &gate, "Ada");
        let second = start(&there, &Gate::open(), "Bob");
        eventually("the second waits", || async { there.stats().waited >= 1 && here.stats().joined >= 1 }).await;
        gate.let_through(1);
        let first = soon("the first fails", first).await.unwrap();
        let joined = soon("so does the waiter", joined).await.unwrap();
        assert_eq!((first, joined), (Err(Arc::new("error".to_owned())), Err(Arc::new("error".to_owned()))));
        assert_eq!(soon("the second runs at once", second).await.unwrap().unwrap().name, "Bob");
        assert_eq!(stored(&here).await.as_deref(), Some(BOB));
    }

    // S4, S5, D5: a caller that is dropped gives the lease back
    async fn a_dropped_caller_of_a_plain_key_blocks_no_other(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let dropped = start(&here, &gate, "Ada");
        gate.arrival().await;
        let second = start(&there, &Gate::open(), "Bob");
        eventually("the second waits", || async { there.stats().waited >= 1 }).await;
        dropped.abort();
        assert_eq!(soon("it takes over", second).await.unwrap().unwrap().name, "Bob");
        assert_eq!(read(&here, "Eve").await, "Bob");
    }

    // K4: also keys with a hash tag
    async fn plain_keys_with_a_hash_tag_have_their_lease_beside_them(nodes: &Nodes) {
        let here = nodes.node().await;
        for key in ["{shop}:user:7", "user:{7}", "a b", "user:{}", "{a}:l:b"] {
            let get = async |value: u64| {
                here.plain().get_or_compute(key, DAY, || async move { Ok::<_, String>(value) }).await.unwrap()
            };
            assert_eq!((get(1).await, get(2).await), (1, 1), "{key}");
            assert_eq!(here.plain().text(key).get().await.unwrap().as_deref(), Some("1"), "{key}");
            here.plain().remove(key).await.unwrap();
            assert_eq!(get(3).await, 3, "{key}");
        }
    }

    // node-3: the attribute
    async fn a_cached_function_reads_through_a_plain_key(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::open());
        let entry = user::entry(7).on(&here);
        assert_eq!(entry.key(), KEY);
        assert_eq!(entry.get().await.unwrap(), None);
        assert_eq!(user(&here, &gate, 7, "Ada").await, Ok(user_named("Ada")));
        assert_eq!(user(&there, &gate, 7, "Bob").await, Ok(user_named("Ada")));
        assert_eq!(gate.runs(), 1);
        assert_eq!(stored(&here).await.as_deref(), Some(ADA));
        assert_eq!(entry.get().await.unwrap(), Some(Ok(user_named("Ada"))));
        assert!(matches!(entry.ttl().await.unwrap(), TimeToLive::Left(left) if left <= DAY));
        // The same key without the attribute.
        assert_eq!(read(&here, "Eve").await, "Ada");

        nodes.write_by_hand(KEY, BOB).await;
        eventually("the other program's value", || async {
            user(&here, &gate, 7, "Eve").await == Ok(user_named("Bob"))
        })
        .await;
        assert!(user::entry(7).on(&there).invalidate().await.unwrap());
        eventually("the process was notified", || async { user(&here, &gate, 7, "Eve").await == Ok(user_named("Eve")) }).await;
        assert_eq!(user::refresh(&here, &gate, 7, "Ada").await, Ok(user_named("Ada")));
        assert_eq!(user(&here, &gate, 7, "Eve").await, Ok(user_named("Ada")), "an own refresh is read back at once");
        assert_eq!(stored(&here).await.as_deref(), Some(ADA));
        entry.set(Ok(user_named("Bob"))).await.unwrap();
        assert_eq!(user(&here, &gate, 7, "Eve").await, Ok(user_named("Bob")));
        assert_eq!(user(&here, &gate, 8, "error").await, Err("error".to_owned()));
        assert_eq!(here.plain().ttl("user:8").await.unwrap(), TimeToLive::NoKey);
    }

    // V2, V3, V5: a template's only placeholder is written as other programs write it
    async fn rules_hold_for_plain_keys_and_texts_are_texts(nodes: &Nodes) {
        let here = nodes.node().await;
        let plain = here.plain();
        assert_eq!(nick(&here, "Ada L+x@example.com").await.as_deref(), Some("ada l+x@example.com"));
        let text = plain.text("nick:Ada L+x@example.com").get().await.unwrap();
        assert_eq!(text.as_deref(), Some("ada l+x@example.com"), "bare, under the key as it is");
        plain.text("nick:Bob").set("bobby", None).await.unwrap();
        assert_eq!(nick(&here, "Bob").await.as_deref(), Some("bobby"), "a bare text of another program");
        assert_eq!(nick(&here, "None").await.as_deref(), Some("none"));
        assert_eq!(plain.ttl("nick:None").await.unwrap(), TimeToLive::NoKey, "`cache_if` says no");
        assert_eq!(nick(&here, "").await, None);
        assert_eq!(plain.text("nick:").get().await.unwrap().as_deref(), Some("null"), "for `negative_ttl`");
        assert!(matches!(plain.ttl("nick:").await.unwrap(), TimeToLive::Left(left) if left <= Duration::from_secs(30)));
        assert_eq!(nick::entry("").on(&here).get().await.unwrap(), Some(None));
    }

    // R2: a refresh replaces the value it found, and no value that was set since
    async fn a_refresh_of_a_plain_key_does_not_overwrite_a_set_during_its_run(nodes: &Nodes) {
        let (here, gate) = (nodes.node().await, Gate::shut());
        nodes.write_by_hand(KEY, BOB).await;
        let (cache, held) = (here.clone(), gate.clone());
        let refresh = tokio::spawn(async move { user::refresh(&cache, &held, 7, "Ada").await });
        gate.arrival().await;
        assert_eq!(read(&here, "nobody").await, "Bob", "served meanwhile");
        nodes.write_by_hand(KEY, r#"{"name":"Eve","age":1}"#).await;
        gate.let_through(1);
        assert_eq!(soon("it ends", refresh).await.unwrap(), Ok(user_named("Ada")));
        assert_eq!(stored(&here).await.as_deref(), Some(r#"{"name":"Eve","age":1}"#));
    }
}

#[tokio::test]
// D1, X6
async fn without_a_store_the_function_of_a_plain_key_runs() {
    let cache = Cache::builder().url("redis://127.0.0.1:1/").connect().await.unwrap();
    assert_eq!(read(&cache, "Ada").await, "Ada");
    assert_eq!(user(&cache, &Gate::open(), 7, "Bob").await, Ok(user_named("Bob")));
    let error = user::entry(7).on(&cache).invalidate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
