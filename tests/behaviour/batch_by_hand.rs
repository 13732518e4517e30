//! Batches without the attribute, with explicit keys.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::{Cache, EntryOptions, Key};
use futures::FutureExt as _;
use support::{Gate, eventually, on_both_stores, soon};

/// The data source behind the cache: records the requested ids.
#[derive(Clone, Default)]
struct Db {
    gate: Gate,
    asked: Arc<Mutex<Vec<Vec<u32>>>>,
}

#[derive(Debug, PartialEq)]
struct Broken;

impl Db {
    fn open() -> Self {
        Self { gate: Gate::open(), ..Self::default() }
    }

    /// There are no ids above 1000, and 666 makes the query fail.
    async fn names<C: FromIterator<(u32, String)>>(&self, ids: Vec<u32>) -> Result<C, Broken> {
        self.asked.lock().unwrap().push(ids.clone());
        self.gate.pass().await;
        if ids.contains(&666) {
            return Err(Broken);
        }
        Ok(ids.into_iter().filter(|id| *id < 1000).map(|id| (id, format!("name {id}"))).collect())
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn key(id: &u32) -> Key {
    Key::new("name").part(id)
}

fn options() -> EntryOptions {
    EntryOptions::new().ttl(Duration::from_secs(60)).negative_ttl(Duration::from_secs(20))
}

type Names = HashMap<u32, String>;

async fn names(cache: &Cache, db: &Db, ids: &[u32]) -> Result<Names, Arc<Broken>> {
    cache.get_or_compute_many(ids, key, &options(), |ids| db.names(ids)).await
}

fn spawn(cache: &Cache, db: &Db, ids: &[u32]) -> tokio::task::JoinHandle<Result<Names, Arc<Broken>>> {
    let (cache, db, ids) = (cache.clone(), db.clone(), ids.to_vec());
    tokio::spawn(async move { names(&cache, &db, &ids).await })
}

fn found(ids: &[u32]) -> Names {
    ids.iter().map(|id| (*id, format!("name {id}"))).collect()
}

on_both_stores! {
    // B1, B4
    async fn missing_ids_are_computed_with_one_call(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        assert_eq!(names(&cache, &db, &[1, 2, 2, 5000]).await.unwrap(), found(&[1, 2]));
        assert_eq!(names(&cache, &db, &[3, 2, 5000, 1]).await.unwrap(), found(&[1, 2, 3]));
        assert_eq!(names(&cache, &db, &[]).await.unwrap(), found(&[]));
        assert_eq!(db.asked(), [vec![1, 2, 5000], vec![3]]);
        // Another process finds them in the store, including the absent one.
        let other = nodes.node().await;
        for _ in 0..3 {
            assert_eq!(names(&other, &db, &[5000, 1, 2, 3]).await.unwrap(), found(&[1, 2, 3]));
        }
        assert!(db.asked().is_empty());
        assert!(other.stats().local_hits >= 4, "and keeps them");
    }

    async fn each_container_is_filled_in_the_order_of_the_ids(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        names(&cache, &db, &[2]).await.unwrap();
        let pairs: Vec<(u32, String)> =
            cache.get_or_compute_many(&[3, 2, 1], key, &options(), |ids| db.names(ids)).await.unwrap();
        assert_eq!(pairs.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 2, 1]);
        let sorted: BTreeMap<u32, String> =
            cache.get_or_compute_many(&[3, 2, 1], key, &options(), |ids| db.names(ids)).await.unwrap();
        assert_eq!(sorted.into_values().collect::<Vec<_>>(), ["name 1", "name 2", "name 3"]);
        assert_eq!(db.asked(), [vec![2], vec![3, 1]]);
    }

    // B5
    async fn entries_are_those_of_calls_of_one_id(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::open());
        names(&cache, &db, &[1, 5000]).await.unwrap();
        let never = || async { Err::<Option<String>, _>(Broken) };
        assert_eq!(cache.get_or_compute_optional(key(&1), &options(), never).await.unwrap().as_deref(), Some("name 1"));
        assert_eq!(cache.get_or_compute_optional(key(&5000), &options(), never).await.unwrap(), None);
        let never = || async { Err::<String, _>(Broken) };
        assert_eq!(cache.get_or_compute(key(&1), &options(), never).await.unwrap(), "name 1");
        let compute = || async { Ok::<_, Infallible>("by itself".to_owned()) };
        cache.get_or_compute(key(&2), &options(), compute).await.unwrap();
        assert_eq!(names(&cache, &db, &[1, 2]).await.unwrap()[&2], "by itself");
        assert_eq!(db.asked(), [vec![1, 5000]]);
    }

    // B2, B3
    async fn calls_that_overlap_share_runs_and_their_error(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::default());
        let first = spawn(&cache, &db, &[1, 2]);
        db.gate.arrival().await;
        let second = spawn(&cache, &db, &[2, 3]);
        db.gate.arrival().await;
        db.gate.let_through(2);
        assert_eq!(soon("the first", first).await.unwrap().unwrap(), found(&[1, 2]));
        assert_eq!(soon("the second", second).await.unwrap().unwrap(), found(&[2, 3]));
        assert_eq!(db.asked(), [vec![1, 2], vec![3]]);

        let first = spawn(&cache, &db, &[7, 666]);
        db.gate.arrival().await;
        let joined = cache.stats().joined;
        let second = spawn(&cache, &db, &[666]);
        eventually("it has joined", || ready(cache.stats().joined > joined)).await;
        db.gate.let_through(1);
        let (first, second) = (soon("the first", first).await.unwrap(), soon("the second", second).await.unwrap());
        assert!(Arc::ptr_eq(&first.unwrap_err(), &second.unwrap_err()), "one run, one error");
        db.gate.let_through(1);
        assert_eq!(names(&cache, &db, &[7]).await.unwrap(), found(&[7]), "nothing of the failed call is stored");
        assert_eq!(db.asked(), [vec![7, 666], vec![7]]);
    }

    // R1
    async fn an_id_deleted_during_the_compute_is_not_stored(nodes: &Nodes) {
        let (cache, db) = (nodes.node_with(Cache::builder().namespace("app")).await, Db::default());
        let run = spawn(&cache, &db, &[1, 2]);
        db.gate.arrival().await;
        cache.clear().await.unwrap();
        db.gate.let_through(1);
        assert_eq!(soon("the run", run).await.unwrap().unwrap(), found(&[1, 2]), "its caller gets them");
        db.gate.let_through(1);
        names(&cache, &db, &[1, 2]).await.unwrap();
        assert_eq!(db.asked(), [vec![1, 2], vec![1, 2]]);
    }
}

/// Returns an embedded cache with a manual clock.
async fn embedded() -> (cache_core::clock::Clock, Cache) {
    let clock = cache_core::clock::Clock::manual();
    (clock.clone(), Cache::builder().clock(clock).jitter(0.0).in_memory())
}

#[tokio::test]
async fn an_old_value_is_computed_anew_before_it_is_served() {
    let ((clock, cache), db) = (embedded().await, Db::open());
    let hour = Duration::from_secs(3600);
    let options = options().stale_while_revalidate(hour).soft_timeout(Duration::from_millis(1)).early(1e9);
    for _ in 0..3 {
        let some: Names = cache.get_or_compute_many(&[1], key, &options, |ids| db.names(ids)).await.unwrap();
        assert_eq!(some, found(&[1]));
    }
    assert_eq!(db.asked(), [vec![1]], "however early it were to be refreshed");
    clock.advance(Duration::from_secs(61));
    let _some: Names = cache.get_or_compute_many(&[1], key, &options, |ids| db.names(ids)).await.unwrap();
    assert_eq!(db.asked(), [vec![1]]);
    assert_eq!((cache.stats().stale, cache.stats().refreshes), (0, 0));
}

#[tokio::test]
// F2
async fn an_old_value_is_the_fallback_with_stale_if_error() {
    let ((clock, cache), db) = (embedded().await, Db::open());
    let options = options().stale_if_error(Duration::from_secs(3600));
    let get = |ids: Vec<u32>| {
        let (cache, db, options) = (&cache, &db, &options);
        async move { cache.get_or_compute_many::<Names, _, _, _, _>(&ids, key, options, |ids| db.names(ids)).await }
    };
    get(vec![1]).await.unwrap();
    clock.advance(Duration::from_secs(61));
    assert_eq!(*get(vec![1, 666]).await.unwrap_err(), Broken, "there is no old value of 666");
    let fail = |_| ready(Err::<Names, _>(Broken));
    clock.advance(Duration::from_secs(61));
    assert_eq!(cache.get_or_compute_many(&[1], key, &options, fail).await.unwrap(), found(&[1]));
    assert!(cache.stats().stale >= 1);
}

#[tokio::test]
// S6
async fn a_panic_reaches_its_caller_and_frees_the_keys() {
    let ((_, cache), db) = (embedded().await, Db::open());
    let (panics, options) = (|_| async { panic!("a bug") }, options());
    let call = cache.get_or_compute_many::<Names, Broken, _, _, _>(&[1], key, &options, panics);
    assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    assert_eq!(names(&cache, &db, &[1]).await.unwrap(), found(&[1]));
}
