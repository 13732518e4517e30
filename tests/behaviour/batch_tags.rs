//! Batches and tags: a row is not served once its tag is invalidated or fenced.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use cache_core::{Cache, cached};
use support::{Gate, Nodes, eventually, on_both_stores, soon};

/// Rows that all have this number. With 0, the query fails.
#[derive(Clone, Default)]
struct Db(Gate, Arc<AtomicU32>);

impl Db {
    fn open(number: u32) -> Self {
        Self(Gate::open(), Arc::new(number.into()))
    }
}

type Rows = Result<HashMap<u32, (u32, u32)>, String>;

/// The group of a row is its number divided by ten.
#[cached(batch, name = "row", ttl = 2, skip(cache, db), cache = cache, stale_if_error = "1h", tags("rows", "group:{value.0}"))]
async fn rows(cache: &Cache, db: &Db, ids: &[u32]) -> Rows {
    let _ = cache;
    let number = db.1.load(SeqCst);
    db.0.pass().await;
    if number == 0 {
        Err("no answer".to_owned())
    } else {
        Ok(ids.iter().map(|id| (*id, (number / 10, number))).collect())
    }
}

async fn read(cache: &Cache, db: &Db) -> Option<u32> {
    let rows = soon("a batch", rows(cache, db, &[1, 2])).await.ok()?;
    assert_eq!(rows[&1], rows[&2]);
    Some(rows[&1].1)
}

// R17
#[tokio::test]
async fn old_rows_whose_tag_was_invalidated_meanwhile_are_not_fallen_back_on() {
    let nodes = Nodes::embedded();
    let Nodes::Embedded(_, clock) = &nodes else { unreachable!() };
    let (here, there) = (nodes.node().await, nodes.node().await);
    for tag in [None, Some("rows"), Some("group:1")] {
        assert_eq!(read(&here, &Db::open(11)).await, Some(11));
        clock.advance(Duration::from_secs(3));
        let broken = Db(Gate::shut(), Arc::default());
        let run = async {
            broken.0.arrival().await;
            if let Some(tag) = tag {
                there.invalidate_tag(tag).await.unwrap();
            }
            broken.0.let_through(1);
        };
        let (found, ()) = tokio::join!(read(&here, &broken), run);
        assert_eq!(found, if tag.is_none() { Some(11) } else { None }, "{tag:?}");
        // A later caller does not get it either.
        assert_eq!(read(&there, &Db::open(0)).await, if tag.is_none() { Some(11) } else { None }, "{tag:?}");
        there.invalidate_tag("rows").await.unwrap();
    }
}

on_both_stores! {
    // R22
    async fn rows_under_a_fence_on_their_tag_are_not_served(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for tag in ["rows", "group:1"] {
            assert_eq!(read(&here, &Db::open(11)).await, Some(11));
            let fence = there.fence().tag(tag).raise().await.unwrap();
            eventually("it is reported", || async { read(&here, &Db::open(12)).await == Some(12) }).await;
            for node in [&here, &there, &nodes.node().await] {
                assert_eq!(read(node, &Db::open(13)).await, Some(13), "{tag}");
                assert_eq!(read(node, &Db::open(14)).await, Some(14), "not stored: {tag}");
            }
            fence.lift().await.unwrap();
            assert_eq!(read(&there, &Db::open(15)).await, Some(15), "{tag}");
            there.invalidate_tag("rows").await.unwrap();
            eventually("it is reported", || async { read(&here, &Db::open(11)).await == Some(11) }).await;
        }
    }
}
