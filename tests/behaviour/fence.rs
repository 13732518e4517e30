//! Writes in a transaction: what a reader loads before the commit is never served after it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use cache_core::{Cache, cached};
use support::{Gate, eventually, on_both_stores, soon};

/// A table with one row.
#[derive(Default)]
struct Table(AtomicU32);

#[cached(name = "row", ttl = 60, key = "{id}", cache = cache, tags("rows", "kind:{value}"))]
async fn row(cache: &Cache, table: &Table, gate: &Gate, id: u32) -> Result<u32, Infallible> {
    let _ = (cache, id);
    let row = table.0.load(SeqCst);
    gate.pass().await;
    Ok(row)
}

async fn read(cache: &Cache, table: &Table) -> u32 {
    soon("a read", row(cache, table, &Gate::open(), 7)).await.unwrap()
}

/// What a fence can stand on.
#[derive(Debug, Clone, Copy)]
enum On {
    Entry,
    Tag,
    TagOfValue,
}

const ALL: [On; 3] = [On::Entry, On::Tag, On::TagOfValue];

async fn raise(cache: &Cache, on: On, row_now: u32) -> cache_core::Fence {
    let fence = cache.fence();
    let fence = match on {
        On::Entry => fence.entry(&row::entry(7).on(cache)),
        On::Tag => fence.tag("rows"),
        On::TagOfValue => fence.tag(format!("kind:{row_now}")),
    };
    fence.raise().await.unwrap()
}

async fn stored(cache: &Cache) -> Option<u32> {
    row::entry(7).on(cache).get().await.unwrap()
}

on_both_stores! {
    // R22, I4: invalidate, a reader loads the row from before the commit, commit
    async fn a_row_loaded_before_the_commit_is_not_served_after_it(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            let before = table.0.load(SeqCst);
            for node in [&here, &there] {
                read(node, &table).await;
            }
            let fence = raise(&here, on, before).await;
            for node in [&here, &there] {
                eventually("a push may be under way", || async { stored(node).await.is_none() }).await;
                // Everybody gets a value, and nothing is stored.
                for _ in 0..3 {
                    assert_eq!(read(node, &table).await, before, "{on:?}");
                }
                assert_eq!(stored(node).await, None, "{on:?}");
            }
            table.0.fetch_add(1, SeqCst);
            fence.lift().await.unwrap();
            assert_eq!(read(&here, &table).await, before + 1, "{on:?}");
            eventually("it is told", || async { read(&there, &table).await == before + 1 }).await;
            assert_eq!(stored(&there).await, Some(before + 1), "{on:?}");
        }
    }

    // R22: a run that began before the fence, and one that began under it, end after it was lifted
    async fn a_slow_reader_from_before_the_commit_stores_nothing(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            let before = table.0.load(SeqCst);
            row::entry(7).on(&here).invalidate().await.unwrap();
            let (first, second) = (Gate::shut(), Gate::shut());
            let slow = async {
                let under = async {
                    first.arrival().await;
                    let fence = raise(&here, on, before).await;
                    // A tag by the value is known after the run: such a caller waits for the first, as it would without a fence.
                    let waits = matches!(on, On::TagOfValue);
                    let under = async { if waits { before } else { row(&here, &table, &second, 7).await.unwrap() } };
                    let write = async {
                        if !waits {
                            second.arrival().await;
                        }
                        table.0.fetch_add(1, SeqCst);
                        fence.lift().await.unwrap();
                        first.let_through(1);
                        second.let_through(1);
                    };
                    futures::future::join(under, write).await.0
                };
                futures::future::join(row(&there, &table, &first, 7), under).await
            };
            let (of_first, of_second) = soon("all runs end", slow).await;
            assert_eq!((of_first.unwrap(), of_second), (before, before));
            for node in [&here, &there] {
                assert_ne!(stored(node).await, Some(before), "{on:?}");
            }
            assert_eq!(read(&here, &table).await, before + 1, "{on:?}");
        }
    }

    // R22: while another process computes for its callers, nobody waits for the end of the fence
    async fn callers_under_a_fence_do_not_wait_for_it(nodes: &Nodes) {
        let (here, there, table, gate) = (nodes.node().await, nodes.node().await, Table::default(), Gate::shut());
        let waiting = async {
            gate.arrival().await;
            let second = async { read(&there, &table).await };
            let raised = async {
                eventually("the second waits for the first", || async { there.stats().waited > 0 }).await;
                raise(&here, On::Entry, 0).await
            };
            let (value, fence) = futures::future::join(second, raised).await;
            gate.let_through(1);
            drop(fence);
            value
        };
        let (first, second) = futures::future::join(row(&here, &table, &gate, 7), waiting).await;
        assert_eq!((first.unwrap(), second), (0, 0));
    }

    // R22
    async fn a_dropped_fence_is_lifted_in_the_background(nodes: &Nodes) {
        let (cache, table) = (nodes.node().await, Table::default());
        for on in ALL {
            drop(raise(&cache, on, 0).await);
            eventually("values are stored again", || async { read(&cache, &table).await == 0 && stored(&cache).await == Some(0) }).await;
        }
    }

    // R22: its holder has died after the commit
    async fn a_fence_ends_with_its_time_and_leaves_nothing_from_before(nodes: &Nodes) {
        let (cache, table) = (nodes.node().await, Table::default());
        for on in ALL {
            table.0.store(0, SeqCst);
            row::entry(7).on(&cache).invalidate().await.unwrap();
            read(&cache, &table).await;
            let fence = raise(&cache, on, 0).await;
            assert_eq!(read(&cache, &table).await, 0);
            table.0.store(1, SeqCst);
            std::mem::forget(fence);
            let key = match on {
                On::Entry => row::entry(7).on(&cache).key().to_owned(),
                On::Tag => "cache@tag:rows".to_owned(),
                On::TagOfValue => "cache@tag:kind:0".to_owned(),
            };
            nodes.let_expire(&key, Duration::from_secs(31));
            eventually("its time ends", || async { read(&cache, &table).await == 1 && stored(&cache).await == Some(1) }).await;
        }
    }
}
