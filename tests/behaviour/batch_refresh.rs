//! `f::refresh(&ids)` of a batch: recomputes the ids whatever is stored, and stores them as a fill
//! would.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::{Cache, cached};
use support::{Gate, Nodes, eventually, on_both_stores, soon};

/// Rows with a text that changes.
#[derive(Clone)]
struct Db {
    gate: Gate,
    text: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<Vec<u32>>>>,
}

type Rows = Result<HashMap<u32, String>, String>;

impl Db {
    fn new(gate: Gate, text: &str) -> Self {
        Self { gate, text: Arc::new(Mutex::new(text.to_owned())), asked: Arc::default() }
    }

    fn becomes(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The rows are read before the wait, as by a slow query.
    async fn rows(&self, ids: &[u32]) -> Rows {
        self.asked.lock().unwrap().push(ids.to_vec());
        let text = self.text.lock().unwrap().clone();
        self.gate.pass().await;
        if text == "error" { Err(text) } else { Ok(ids.iter().map(|id| (*id, text.clone())).collect()) }
    }
}

#[cached(batch, name = "row", ttl = 60, skip(cache, db), cache = cache, stale_if_error = "1h", tags("rows", "row:{ids}"))]
async fn rows(cache: &Cache, db: &Db, ids: &[u32]) -> Rows {
    let _ = cache;
    db.rows(ids).await
}

/// A method that owns its list of ids.
#[derive(Clone)]
struct Repo(Cache, Db);

impl Repo {
    #[cached(batch, name = "row", ttl = 60, skip(self), cache = &self.0)]
    async fn rows(&self, ids: Vec<u32>) -> Rows {
        self.1.rows(&ids).await
    }
}

fn of(pairs: &[(u32, &str)]) -> Rows {
    Ok(pairs.iter().map(|(id, text)| (*id, (*text).to_owned())).collect())
}

fn start(cache: &Cache, db: &Db, ids: &[u32]) -> tokio::task::JoinHandle<Rows> {
    let (cache, db, ids) = (cache.clone(), db.clone(), ids.to_vec());
    tokio::spawn(async move { rows::refresh(&cache, &db, &ids).await })
}

on_both_stores! {
    async fn a_refresh_computes_each_id_anew_and_stores_it(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::new(Gate::open(), "v1"));
        rows(&cache, &db, &[1, 2]).await.unwrap();
        rows(&cache, &db, &[1, 2]).await.unwrap();
        db.becomes("v2");
        assert_eq!(rows::refresh(&cache, &db, &[2, 3, 2]).await, of(&[(2, "v2"), (3, "v2")]));
        assert_eq!(rows::refresh(&cache, &db, &[]).await, of(&[]));
        assert_eq!(db.asked(), [vec![1, 2], vec![2, 3]]);
        for node in [&cache, &nodes.node().await] {
            assert_eq!(rows(node, &db, &[1, 2, 3]).await, of(&[(1, "v1"), (2, "v2"), (3, "v2")]));
        }
        db.becomes("v3");
        let repo = Repo(cache.clone(), db.clone());
        assert_eq!(repo.rows_refresh(vec![1]).await, of(&[(1, "v3")]));
        assert_eq!(repo.rows(vec![1, 4]).await, of(&[(1, "v3"), (4, "v3")]));
        assert_eq!(db.asked(), [vec![1], vec![4]]);
    }

    // R1, R2, R4
    async fn what_is_invalidated_or_set_during_a_refresh_is_not_stored_by_it(nodes: &Nodes) {
        let (here, there, db) = (nodes.node().await, nodes.node().await, Db::new(Gate::shut(), "v1"));
        db.gate.let_through(1);
        rows(&here, &db, &[1, 2, 3, 4]).await.unwrap();
        db.gate.arrival().await;
        let refresh = start(&here, &db, &[1, 2, 3, 4]);
        db.gate.arrival().await;
        rows::entry(1).on(&there).invalidate().await.unwrap();
        rows::entry(2).on(&there).set(Some("set".to_owned())).await.unwrap();
        there.invalidate_tag("row:3").await.unwrap();
        db.gate.let_through(1);
        let all = soon("the refresh", refresh).await.unwrap();
        assert_eq!(all, of(&[(1, "v1"), (2, "v1"), (3, "v1"), (4, "v1")]), "its caller gets them");
        db.asked();
        db.becomes("v2");
        db.gate.let_through(10);
        // A separate node, because a push may take a moment to drop entries on another node.
        let other = nodes.node().await;
        let all = rows(&other, &db, &[1, 2, 3, 4]).await;
        assert_eq!(all, of(&[(1, "v2"), (2, "set"), (3, "v2"), (4, "v1")]));
        assert_eq!(db.asked(), [vec![1, 3]]);
    }

    async fn a_refresh_that_fails_returns_its_error_and_leaves_what_is_stored(nodes: &Nodes) {
        let (cache, db) = (nodes.node().await, Db::new(Gate::open(), "v1"));
        rows(&cache, &db, &[1, 2]).await.unwrap();
        db.becomes("error");
        assert_eq!(rows::refresh(&cache, &db, &[1, 2]).await, Err("error".to_owned()), "no old value instead");
        let other = nodes.node().await;
        assert_eq!(rows(&other, &db, &[1, 2]).await, of(&[(1, "v1"), (2, "v1")]));
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(61));
            assert!(rows::refresh(&cache, &db, &[1, 2]).await.is_err(), "an expired one is not served either");
            assert_eq!(rows(&cache, &db, &[1]).await, of(&[(1, "v1")]), "which a call falls back on");
        }
        db.becomes("v2");
        assert_eq!(rows::refresh(&other, &db, &[1]).await, of(&[(1, "v2")]), "and holds up no other");
    }

    // A joined run might have read its data before the refresh was requested.
    async fn a_refresh_joins_no_run_and_waits_for_that_of_another_process(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let (old, new) = (Db::new(Gate::shut(), "old"), Db::new(Gate::open(), "new"));
        let before = {
            let (there, old) = (there.clone(), old.clone());
            tokio::spawn(async move { rows(&there, &old, &[1]).await })
        };
        old.gate.arrival().await;
        for node in [&here, &there] {
            let waited = node.stats().waited;
            let refresh = start(node, &new, &[1, 2]);
            eventually("it waits", || async { node.stats().waited > waited }).await;
            assert!(new.asked().iter().all(|ids| *ids == [2]), "what is free goes ahead");
            if std::ptr::eq(node, &there) {
                old.gate.let_through(1);
                assert_eq!(soon("it ends", refresh).await.unwrap(), of(&[(1, "new"), (2, "new")]));
            } else {
                refresh.abort();
            }
        }
        assert_eq!(soon("the one before", before).await.unwrap(), of(&[(1, "old")]));
        assert_eq!(rows(&nodes.node().await, &new, &[1]).await, of(&[(1, "new")]));
    }
}
