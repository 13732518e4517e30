//! Batch functions: functions of many ids, of which only the missing ones are computed.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::events::Event;
use cache_core::value::Partial;
use cache_core::{Cache, EntryOptions, Key, cached};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

/// The data source behind the cache: answers once the gate is open, and records the requested ids.
#[derive(Clone, Default)]
struct Db {
    gate: Gate,
    asked: Arc<Mutex<Vec<Vec<u32>>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Broken(u32);

type Users = Result<HashMap<u32, String>, Broken>;

impl Db {
    fn shut() -> Self {
        Self { gate: Gate::shut(), ..Self::default() }
    }

    fn open() -> Self {
        Self { gate: Gate::open(), ..Self::default() }
    }

    /// There are no users above 1000, and 666 makes the whole query fail.
    async fn users(&self, ids: &[u32]) -> Users {
        self.asked.lock().unwrap().push(ids.to_vec());
        self.gate.pass().await;
        if ids.contains(&666) {
            return Err(Broken(666));
        }
        assert!(!ids.contains(&13), "13 is never requested");
        Ok(ids.iter().filter(|id| **id < 1000).map(|id| (*id, format!("user {id}"))).collect())
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[cached(batch, name = "user", ttl = 60, negative_ttl = 20, skip(cache, db), cache = cache)]
async fn users(cache: &Cache, db: &Db, ids: &[u32]) -> Users {
    let _ = cache;
    db.users(ids).await
}

/// The same entries, one id at a time.
#[cached(name = "user", ttl = 60, negative_ttl = 20, skip(cache, db), cache = cache)]
async fn user(cache: &Cache, db: &Db, id: u32) -> Result<Option<String>, Broken> {
    let _ = cache;
    Ok(db.users(&[id]).await?.remove(&id))
}

/// An absent user is an error here. The function owns its arguments, so its run is shared in
/// another way.
#[cached(name = "user", ttl = 60, skip(cache, db), cache = &cache)]
async fn known_user(cache: Cache, db: Db, id: u32) -> Result<String, Broken> {
    let _ = &cache;
    db.users(&[id]).await?.remove(&id).ok_or(Broken(id))
}

/// Owns its arguments, and has the same form of value as the batch.
#[cached(name = "user", ttl = 60, negative_ttl = 20, skip(cache, db), cache = &cache)]
async fn owned_user(cache: Cache, db: Db, id: u32) -> Result<Option<String>, Broken> {
    let _ = &cache;
    Ok(db.users(&[id]).await?.remove(&id))
}

/// Without `negative_ttl`.
#[cached(batch, name = "present", ttl = 60, skip(cache, db), cache = cache)]
async fn present(cache: &Cache, db: &Db, ids: Vec<u32>) -> BTreeMap<u32, String> {
    let _ = cache;
    db.users(&ids).await.unwrap().into_iter().collect()
}

/// Has no error type, so a deadline cannot be reported to its callers.
#[cached(batch, name = "mute", ttl = 60, skip(cache, gate, answer), cache = cache)]
async fn mute(cache: &Cache, gate: &Gate, answer: u32, ids: &[u32]) -> HashMap<u32, u32> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, answer)).collect()
}

/// Odd ids fail individually.
#[cached(batch, name = "even", ttl = 60, negative_ttl = 20, skip(cache, db), cache = cache)]
async fn even(cache: &Cache, db: &Db, ids: &[u32]) -> Result<Partial<Vec<(u32, String)>, Broken>, Broken> {
    let _ = cache;
    let (odd, even): (Vec<u32>, Vec<u32>) = ids.iter().copied().partition(|id| id % 2 == 1);
    let found = db.users(&even).await?.into_iter().collect();
    Ok(Partial { found, failed: odd.into_iter().map(|id| (id, Broken(id))).collect() })
}

/// Every id fails individually. What is stored was set by hand.
#[cached(batch, name = "failing", ttl = "40ms", stale_if_error = "1h", local = false, skip(cache, db), cache = cache)]
async fn failing(cache: &Cache, db: &Db, ids: &[u32]) -> Result<Partial<Vec<(u32, String)>, Broken>, Broken> {
    let _ = cache;
    db.users(ids).await?;
    Ok(Partial { found: Vec::new(), failed: ids.iter().map(|id| (*id, Broken(*id))).collect() })
}

fn found(ids: &[u32]) -> HashMap<u32, String> {
    ids.iter().map(|id| (*id, format!("user {id}"))).collect()
}

/// Starts a batch in a task of its own.
fn spawn(cache: &Cache, db: &Db, ids: &[u32]) -> tokio::task::JoinHandle<Users> {
    let (cache, db, ids) = (cache.clone(), db.clone(), ids.to_vec());
    tokio::spawn(async move { users(&cache, &db, &ids).await })
}

async fn joined(cache: &Cache, ids: u64) {
    eventually("the callers have joined", || async { cache.stats().joined >= ids }).await;
}

on_both_stores! {
    // B1
    async fn a_batch_calls_its_function_once_with_the_missing_ids_only(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        assert_eq!(users(&cache, &db, &[1, 2, 3]).await, Ok(found(&[1, 2, 3])));
        assert_eq!(users(&cache, &db, &[4, 2, 5, 3, 4, 5]).await, Ok(found(&[2, 3, 4, 5])));
        assert_eq!(users(&cache, &db, &[5, 1]).await, Ok(found(&[1, 5])));
        assert_eq!(users(&cache, &db, &[]).await, Ok(found(&[])));
        assert_eq!(db.asked(), [vec![1, 2, 3], vec![4, 5]]);
        let own = cache.function_stats().into_iter().find(|own| &*own.name == "user").unwrap();
        assert_eq!((own.computes, own.misses, own.fills), (2, 5, 5), "ids, but one run a call");
        // Another process finds them in the store.
        let other = nodes.node().await;
        assert_eq!(users(&other, &db, &[1, 2, 3, 4, 5, 6]).await, Ok(found(&[1, 2, 3, 4, 5, 6])));
        assert_eq!(db.asked(), [vec![6]]);
        assert_eq!(users(&other, &db, &[1, 2, 3, 4, 5, 6]).await, Ok(found(&[1, 2, 3, 4, 5, 6])));
        // The push for an own fill may drop an entry, which is then read once more.
        assert!(other.stats().local_hits >= 5, "what was read is kept in the process");
    }

    // B1
    async fn a_batch_beyond_one_trip_calls_its_function_once(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        let ids: Vec<u32> = (0..2_500).map(|id| if id == 13 || id == 666 { 0 } else { id }).collect();
        assert_eq!(users(&cache, &db, &ids).await.unwrap().len(), 998);
        assert_eq!(db.asked().len(), 1);
        let other = nodes.node().await;
        assert_eq!(users(&other, &db, &ids).await.unwrap().len(), 998);
        assert_eq!(db.asked().len(), 0);
    }

    // B2
    async fn overlapping_batches_share_runs(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let first = spawn(&cache, &db, &[1, 2, 3]);
        db.gate.arrival().await;
        let second = spawn(&cache, &db, &[2, 3, 4]);
        db.gate.arrival().await;
        joined(&cache, 2).await;
        db.gate.let_through(2);
        assert_eq!(soon("the first", first).await.unwrap(), Ok(found(&[1, 2, 3])));
        assert_eq!(soon("the second", second).await.unwrap(), Ok(found(&[2, 3, 4])));
        assert_eq!(db.asked(), [vec![1, 2, 3], vec![4]]);
    }

    // B2, B5
    async fn a_batch_and_calls_of_single_ids_share_runs(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let (own_cache, own_db) = (cache.clone(), db.clone());
        let single = tokio::spawn(async move { user(&own_cache, &own_db, 1).await });
        db.gate.arrival().await;
        let batch = spawn(&cache, &db, &[1, 2]);
        db.gate.arrival().await;
        let late = tokio::spawn(owned_user(cache.clone(), db.clone(), 2));
        joined(&cache, 2).await;
        db.gate.let_through(2);
        assert_eq!(soon("the call", single).await.unwrap(), Ok(Some("user 1".to_owned())));
        assert_eq!(soon("the batch", batch).await.unwrap(), Ok(found(&[1, 2])));
        assert_eq!(soon("the late call", late).await.unwrap(), Ok(Some("user 2".to_owned())));
        assert_eq!(db.asked(), [vec![1], vec![2]]);
    }

    // B2: the single function has another form, so the two share the lease only.
    async fn a_batch_and_a_call_of_another_form_compute_once(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let batch = spawn(&cache, &db, &[1, 2]);
        db.gate.arrival().await;
        let call = tokio::spawn(known_user(cache.clone(), db.clone(), 1));
        eventually("the call waits", || async { cache.stats().waited >= 1 }).await;
        db.gate.let_through(1);
        assert_eq!(soon("the batch", batch).await.unwrap(), Ok(found(&[1, 2])));
        assert_eq!(soon("the call", call).await.unwrap(), Ok("user 1".to_owned()));
        assert_eq!(db.asked(), [vec![1, 2]]);
    }

    // B2
    async fn batches_of_two_processes_compute_each_id_once(nodes: &Nodes) {
        let (one, other, db) = (nodes.node().await, nodes.node().await, Db::shut());
        let first = spawn(&one, &db, &[1, 2, 3]);
        db.gate.arrival().await;
        let second = spawn(&other, &db, &[2, 3, 4]);
        db.gate.arrival().await;
        eventually("it waits for both", || async { other.stats().waited >= 2 }).await;
        db.gate.let_through(2);
        assert_eq!(soon("the first", first).await.unwrap(), Ok(found(&[1, 2, 3])));
        assert_eq!(soon("the second", second).await.unwrap(), Ok(found(&[2, 3, 4])));
        assert_eq!(db.asked(), [vec![1, 2, 3], vec![4]]);
    }

    // B2
    async fn crossing_batches_all_end(nodes: &Nodes) {
        let (one, other) = (nodes.node().await, nodes.node().await);
        for round in 0..20_u32 {
            let db = Db::open();
            let base = round * 10 + 20;
            let ids = |order: &[u32]| order.iter().map(|id| base + id).collect::<Vec<_>>();
            let orders: [&[u32]; 6] = [&[1, 2], &[2, 1], &[1, 2, 3], &[3, 4, 1], &[4, 3, 2, 1], &[2, 4]];
            let calls: Vec<_> = orders
                .iter()
                .enumerate()
                .map(|(at, order)| (ids(order), spawn(if at % 2 == 0 { &one } else { &other }, &db, &ids(order))))
                .collect();
            for (ids, call) in calls {
                assert_eq!(soon("a crossing batch", call).await.unwrap(), Ok(found(&ids)));
            }
            let mut asked = db.asked().concat();
            asked.sort_unstable();
            assert_eq!(asked, ids(&[1, 2, 3, 4]), "each once");
        }
    }

    // B2: each batch leads an id that the other follows.
    async fn batches_that_follow_each_other_complete_their_own_ids_first(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let calls = [spawn(&cache, &db, &[1]), spawn(&cache, &db, &[2])];
        db.gate.arrival().await;
        db.gate.arrival().await;
        let crossing = [spawn(&cache, &db, &[1, 3, 4]), spawn(&cache, &db, &[2, 5, 6])];
        db.gate.arrival().await;
        db.gate.arrival().await;
        let across = [spawn(&cache, &db, &[3, 5, 7]), spawn(&cache, &db, &[5, 3, 7, 1])];
        db.gate.arrival().await;
        joined(&cache, 8).await;
        db.gate.let_through(5);
        for (call, ids) in calls.into_iter().chain(crossing).chain(across).zip([
            &[1][..], &[2], &[1, 3, 4], &[2, 5, 6], &[3, 5, 7], &[5, 3, 7, 1],
        ]) {
            assert_eq!(soon("a batch", call).await.unwrap(), Ok(found(ids)));
        }
        assert_eq!(db.gate.runs(), 5);
    }

    // B3
    async fn a_failed_id_is_not_stored_and_the_others_are(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        for _ in 0..2 {
            let Partial { found, failed } = even(&cache, &db, &[2, 3, 4, 5, 2000]).await.unwrap();
            assert_eq!(found, [(2, "user 2".to_owned()), (4, "user 4".to_owned())]);
            assert_eq!(failed, [(3, Broken(3)), (5, Broken(5))]);
        }
        assert_eq!(db.asked(), [vec![2, 4, 2000], vec![]], "the odd ones are asked for again");
        assert_eq!(even::entry(3).on(&cache).get().await.unwrap(), None);
        assert_eq!(even::entry(4).on(&cache).get().await.unwrap(), Some(Some("user 4".to_owned())));
        assert_eq!(even::entry(2000).on(&cache).get().await.unwrap(), Some(None));
        // The leases are given back, so no caller waits for their expiry.
        assert_eq!(nodes.node().await.stats().waited, 0);
        let other = nodes.node().await;
        soon("the next process", even(&other, &db, &[3, 5])).await.unwrap();
        assert_eq!(other.stats().waited, 0);
        // A failure of the whole call is reported as such.
        assert_eq!(even(&cache, &db, &[2, 666]).await.map(drop), Err(Broken(666)));
    }

    // B3
    async fn a_failure_reaches_all_that_wait_and_stores_nothing(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let first = spawn(&cache, &db, &[1, 666]);
        db.gate.arrival().await;
        let second = spawn(&cache, &db, &[1, 2]);
        db.gate.arrival().await;
        let single = tokio::spawn(owned_user(cache.clone(), db.clone(), 1));
        joined(&cache, 2).await;
        db.gate.let_through(2);
        assert_eq!(soon("the first", first).await.unwrap(), Err(Broken(666)));
        assert_eq!(soon("the second", second).await.unwrap(), Err(Broken(666)));
        assert_eq!(soon("the call", single).await.unwrap(), Err(Broken(666)));
        db.gate.let_through(100);
        db.asked();
        assert_eq!(soon("again", users(&cache, &db, &[1, 2])).await, Ok(found(&[1, 2])));
        assert_eq!(db.asked(), [[1]], "what did not fail was stored, what failed was not");
        assert_eq!(cache.stats().waited, 0, "the leases were given back");
    }

    // B4
    async fn an_absent_id_is_stored_only_with_a_negative_ttl_and_for_that_time(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        for _ in 0..2 {
            assert_eq!(users(&cache, &db, &[1, 1001]).await, Ok(found(&[1])));
        }
        assert_eq!(db.asked(), [[1, 1001]]);
        let left = users::entry(1001).on(&cache).ttl().await.unwrap().unwrap();
        assert!(left <= Duration::from_secs(20) && left > Duration::from_secs(15), "{left:?}");
        for _ in 0..2 {
            assert_eq!(present(&cache, &db, vec![1, 1001]).await.len(), 1);
        }
        assert_eq!(db.asked(), [vec![1, 1001], vec![1001]]);
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(20));
            users(&cache, &db, &[1, 1001]).await.unwrap();
            assert_eq!(db.asked(), [[1001]]);
        }
    }

    // B5
    async fn entries_are_shared_with_the_functions_of_one_id(nodes: &Nodes) {
        let (cache, other, db) = (nodes.node().await, nodes.node().await, Db::open());
        users(&cache, &db, &[1, 1001]).await.unwrap();
        for cache in [&cache, &other] {
            assert_eq!(user(cache, &db, 1).await, Ok(Some("user 1".to_owned())));
            assert_eq!(user(cache, &db, 1001).await, Ok(None));
            assert_eq!(known_user(cache.clone(), db.clone(), 1).await, Ok("user 1".to_owned()));
        }
        assert_eq!(db.asked(), [[1, 1001]]);
        user(&cache, &db, 2).await.unwrap();
        user(&cache, &db, 1002).await.unwrap();
        known_user(cache.clone(), db.clone(), 3).await.unwrap();
        db.asked();
        for cache in [&cache, &other] {
            assert_eq!(users(cache, &db, &[1, 2, 3, 1001, 1002]).await, Ok(found(&[1, 2, 3])));
        }
        assert_eq!(db.asked(), [[0_u32; 0]; 0]);
        assert_eq!(users::entry(7).key(), user::entry(7).key());
        // For a function without `Option`, an absent id is a miss.
        assert_eq!(known_user(cache.clone(), db.clone(), 1002).await, Err(Broken(1002)));
        assert_eq!(db.asked(), [[1002]]);
    }

    // B5
    async fn an_invalidation_of_either_reaches_both(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        users(&cache, &db, &[1, 2]).await.unwrap();
        user::entry(1).on(&cache).invalidate().await.unwrap();
        db.asked();
        users(&cache, &db, &[1, 2]).await.unwrap();
        assert_eq!(db.asked(), [[1]]);
        users::entry(2).on(&cache).set(Some("renamed".to_owned())).await.unwrap();
        assert_eq!(user(&cache, &db, 2).await, Ok(Some("renamed".to_owned())));
        users::invalidate_all(&cache).await.unwrap();
        assert_eq!(users(&cache, &db, &[1, 2]).await, Ok(found(&[1, 2])));
        assert_eq!(db.asked(), [[1, 2]], "records of before are replaced in their places");
        assert_eq!(users(&cache, &db, &[1, 2]).await, Ok(found(&[1, 2])));
        assert_eq!(db.asked().len(), 0);
    }

    // R17
    async fn an_old_value_that_is_invalidated_during_the_run_is_not_fallen_back_on(nodes: &Nodes) {
        let (here, there, db) = (nodes.node().await, nodes.node().await, Db::shut());
        for id in 1..=3 {
            failing::entry(id).on(&here).set(Some("old".to_owned())).await.unwrap();
        }
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_millis(40));
        }
        for id in 1..=3 {
            eventually("it is past its ttl", || async { failing::entry(id).on(&here).ttl().await.unwrap().is_none() }).await;
        }
        let run = async {
            db.gate.arrival().await;
            failing::entry(1).on(&there).invalidate().await.unwrap();
            failing::entry(2).on(&there).set(Some("new".to_owned())).await.unwrap();
            db.gate.let_through(1);
        };
        let (returned, ()) = soon("it ends", futures::future::join(failing(&here, &db, &[1, 2, 3]), run)).await;
        let Partial { found, mut failed } = returned.unwrap();
        failed.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!((found, failed), (vec![(3, "old".to_owned())], vec![(1, Broken(1)), (2, Broken(2))]));
    }

    // B2, R1
    async fn an_id_that_is_invalidated_during_the_run_is_not_stored(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let batch = spawn(&cache, &db, &[1, 2]);
        db.gate.arrival().await;
        users::entry(1).on(&cache).invalidate().await.unwrap();
        db.gate.let_through(1);
        assert_eq!(soon("the batch", batch).await.unwrap(), Ok(found(&[1, 2])));
        assert_eq!(users::entry(1).on(&cache).get().await.unwrap(), None);
        assert_eq!(users::entry(2).on(&cache).get().await.unwrap(), Some(Some("user 2".to_owned())));
    }

    // B2, D5
    async fn a_dropped_batch_gives_its_leases_back_and_its_followers_go_on(nodes: &Nodes) {
        let (cache, other, db) = (nodes.node().await, nodes.node().await, Db::shut());
        let dropped = spawn(&cache, &db, &[1, 2, 3]);
        db.gate.arrival().await;
        let batch = spawn(&cache, &db, &[2, 3, 4]);
        db.gate.arrival().await;
        let single = tokio::spawn(owned_user(cache.clone(), db.clone(), 1));
        joined(&cache, 3).await;
        let elsewhere = spawn(&other, &db, &[3]);
        eventually("it waits", || async { other.stats().waited >= 1 }).await;
        dropped.abort();
        db.gate.let_through(100);
        assert_eq!(soon("the batch", batch).await.unwrap(), Ok(found(&[2, 3, 4])));
        assert_eq!(soon("the call", single).await.unwrap(), Ok(Some("user 1".to_owned())));
        assert_eq!(soon("the other process", elsewhere).await.unwrap(), Ok(found(&[3])));
    }

    // B2, S6
    async fn a_panic_reaches_all_that_wait_and_frees_the_ids(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::shut());
        let first = spawn(&cache, &db, &[1, 13]);
        db.gate.arrival().await;
        let second = spawn(&cache, &db, &[1]);
        joined(&cache, 1).await;
        db.gate.let_through(100);
        assert!(soon("the first", first).await.unwrap_err().is_panic());
        assert!(soon("the second", second).await.unwrap_err().is_panic());
        assert_eq!(soon("the next", users(&cache, &db, &[1])).await, Ok(found(&[1])));
        assert_eq!(cache.stats().waited, 0, "the leases were given back");
    }

    // R23: the ids become free even if the deadline cannot be reported.
    async fn a_batch_without_a_deadline_error_goes_on_without_its_ids(nodes: &Nodes) {
        let settings = Cache::builder().jitter(0.0).deadline(Duration::from_millis(200));
        let (here, there) = (nodes.node_with(settings).await, nodes.node().await);
        let (mut events, gate) = (here.subscribe(), Gate::shut());
        let call = |gate: &Gate, answer| {
            let (cache, gate) = (here.clone(), gate.clone());
            tokio::spawn(async move { mute(&cache, &gate, answer, &[1, 2]).await })
        };
        let hangs = call(&gate, 1);
        gate.arrival().await;
        let follows = call(&Gate::open(), 2);
        joined(&here, 2).await;
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_millis(200));
        }
        event(&mut events, "it is reported", |event| matches!(event, Event::DeadlinePassed { .. })).await;
        let of_all = |answer| HashMap::from([(1, answer), (2, answer)]);
        assert_eq!(soon("the waiter runs again", follows).await.unwrap(), of_all(2));
        assert_eq!(soon("and so may others", mute(&there, &Gate::open(), 3, &[1, 2])).await, of_all(2));
        assert!(!hangs.is_finished());
        gate.let_through(1);
        assert_eq!(soon("its own caller gets its values", hangs).await.unwrap(), of_all(1));
        assert_eq!(soon("which are not stored", mute(&there, &Gate::open(), 4, &[1, 2])).await, of_all(2));
    }

    // S7
    async fn a_batch_that_asks_for_its_own_id_panics(nodes: &Nodes) {
        #[cached(batch, name = "recursive", ttl = 60, skip(cache), cache = cache)]
        async fn recursive(cache: &Cache, ids: &[u32]) -> HashMap<u32, u32> {
            boxed(cache, ids).await
        }
        fn boxed<'a>(cache: &'a Cache, ids: &'a [u32]) -> BoxFuture<'a, HashMap<u32, u32>> {
            recursive(cache, ids).boxed()
        }
        let cache = nodes.node().await;
        let call = std::panic::AssertUnwindSafe(recursive(&cache, &[1, 2])).catch_unwind();
        assert!(soon("it does not hang", call).await.is_err());
    }
}

#[tokio::test]
// B5
async fn other_arguments_are_parts_of_the_key_in_their_order() {
    #[cached(batch, name = "tenant_user", skip(cache), cache = cache)]
    async fn of_tenant(cache: &Cache, tenant: &str, ids: &[u32], lang: &str) -> HashMap<u32, String> {
        let _ = cache;
        ids.iter().map(|id| (*id, format!("{tenant} {id} {lang}"))).collect()
    }
    #[cached(name = "tenant_user", skip(cache), cache = cache)]
    async fn one(cache: &Cache, tenant: &str, id: u32, lang: &str) -> Option<String> {
        let _ = (cache, tenant, id, lang);
        unreachable!("it is stored")
    }
    let cache = Cache::in_memory();
    of_tenant(&cache, "a", &[1, 2], "en").await;
    assert_eq!(one(&cache, "a", 2, "en").await.as_deref(), Some("a 2 en"));
    assert_eq!(of_tenant::entry("a", 1, "en").key(), one::entry("a", 1, "en").key());
}

#[tokio::test]
// B5
async fn options_are_those_of_the_single_function() {
    #[derive(Clone)]
    struct Repo(Arc<Mutex<Vec<Vec<u32>>>>);
    impl Repo {
        #[cached(batch(ids), name = "named", key = "n:{ids}", skip(self, cache, fresh), tags("names", "name:{ids}", "len:{value.0}"), ttl = |value| Duration::from_secs(u64::from(value.0)),
            cache_if = |value| value.1 != "temporary", bypass = fresh, codec = "json", version = 2, local = false, cache = cache)]
        async fn names(&self, cache: &Cache, ids: Vec<u32>, fresh: bool) -> Vec<(u32, (u32, String))> {
            let _ = cache;
            self.0.lock().unwrap().push(ids.clone());
            let name = |id: &u32| if *id == 9 { "temporary".to_owned() } else { format!("name {id}") };
            ids.iter().map(|id| (*id, (id * 10, name(id)))).collect()
        }
    }
    let (cache, repo) = (Cache::builder().jitter(0.0).in_memory(), Repo(Arc::default()));
    let asked = || std::mem::take(&mut *repo.0.lock().unwrap());
    let names = |ids: &[u32]| {
        repo.names(&cache, ids.to_vec(), false).map(|names| names.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    };
    assert_eq!(names(&[3, 1, 9, 3]).await, [3, 1, 9], "in the order of the ids");
    assert_eq!(names(&[9, 1, 3]).await, [9, 1, 3]);
    assert_eq!(asked(), [vec![3, 1, 9], vec![9]]);
    let left = Repo::names_entry(3).on(&cache).ttl().await.unwrap().unwrap();
    assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(25), "{left:?}");
    cache.invalidate_tag("name:3").await.unwrap();
    names(&[1, 3]).await;
    cache.invalidate_tag("len:10").await.unwrap();
    names(&[1, 3]).await;
    cache.invalidate_tag("names").await.unwrap();
    names(&[1, 3]).await;
    assert_eq!(asked(), [vec![3], vec![1], vec![1, 3]]);
    repo.names(&cache, vec![1], true).await;
    assert_eq!(asked(), [[1]]);
    assert!(Repo::names_entry(1).on(&cache).key().contains(":n:1@"));
}

#[tokio::test]
// B3, F2, F7
async fn an_old_value_is_served_if_the_batch_fails() {
    #[cached(batch, name = "stale", ttl = 10, stale_if_error = 100, deadline = "5s", skip(cache, db), cache = cache)]
    async fn stale(cache: &Cache, db: &Db, ids: &[u32]) -> Result<HashMap<u32, String>, std::io::Error> {
        let _ = cache;
        db.users(ids).await.map_err(|_| std::io::Error::other("broken"))
    }
    let nodes = Nodes::embedded();
    let (cache, db) = (nodes.node().await, Db::shut());
    db.gate.let_through(1);
    stale(&cache, &db, &[1, 2]).await.unwrap();
    let Nodes::Embedded(_, clock) = &nodes else { unreachable!() };
    clock.advance(Duration::from_secs(11));
    db.gate.let_through(1);
    assert!(stale(&cache, &db, &[1, 666]).await.is_err(), "there is no old value of 666");
    assert_eq!(stale(&cache, &db, &[1]).await.unwrap(), found(&[1]), "not refreshed for a time");
    assert_eq!(db.asked(), [vec![1, 2], vec![1, 666]]);
    // The deadline passes.
    let call = tokio::spawn({
        let (cache, db) = (cache.clone(), db.clone());
        async move { stale(&cache, &db, &[2]).await.unwrap() }
    });
    db.gate.arrival().await;
    db.gate.arrival().await;
    db.gate.arrival().await;
    clock.advance(Duration::from_secs(5));
    assert_eq!(soon("the old value", call).await.unwrap(), found(&[2]));
    // An invalidated value is not served.
    clock.advance(Duration::from_secs(30));
    stale::invalidate_all(&cache).await.unwrap();
    db.gate.let_through(1);
    assert!(stale(&cache, &db, &[1, 666]).await.is_err());
    assert_eq!(stale::entry(1).on(&cache).get().await.unwrap(), None);
}

#[tokio::test]
// D1
async fn without_a_store_the_function_runs() {
    let server = support::RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    let db = Db::open();
    server.kill();
    assert_eq!(soon("a value", users(&cache, &db, &[1, 2])).await, Ok(found(&[1, 2])));
    assert_eq!(soon("an absent one", users(&cache, &db, &[1001])).await, Ok(found(&[])));
}

#[tokio::test]
async fn a_run_without_an_error_type_is_shared_by_hand_too() {
    #[cached(batch, name = "by_hand", cache = cache, skip(cache))]
    async fn numbers(cache: &Cache, ids: &[u32]) -> HashMap<u32, u32> {
        let _ = cache;
        ids.iter().map(|id| (*id, id * 2)).collect()
    }
    let cache = Cache::in_memory();
    numbers(&cache, &[1, 2]).await;
    let compute = || async { unreachable!("it is stored") };
    let two: Result<Option<u32>, Arc<Infallible>> =
        cache.get_or_compute_optional(Key::new("by_hand").part(&2), &EntryOptions::new(), compute).await;
    assert_eq!(two, Ok(Some(4)));
}
