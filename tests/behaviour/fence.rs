//! Writes in a transaction: a value that was loaded before the commit is never served after it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use cache_core::events::Event;
use cache_core::{Cache, cached};
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

/// A table with one row.
#[derive(Default)]
struct Table(AtomicU32);

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, table, gate), cache = cache, tags("rows", "kind:{value}"))]
async fn row(cache: &Cache, table: &Table, gate: &Gate, id: u32) -> Result<u32, Infallible> {
    let _ = (cache, id);
    let row = table.0.load(SeqCst);
    gate.pass().await;
    Ok(row)
}

/// A row of a group that does not change.
#[cached(name = "member", ttl = 60, key = "{id}", skip(cache, table, gate), cache = cache, tags("group:{value.0}"))]
async fn member(cache: &Cache, table: &Table, gate: &Gate, id: u32) -> (u32, u32) {
    let _ = (cache, id);
    let row = table.0.load(SeqCst);
    gate.pass().await;
    (1, row)
}

async fn read(cache: &Cache, table: &Table) -> u32 {
    soon("a read", row(cache, table, &Gate::open(), 7)).await.unwrap()
}

/// What a fence is raised on.
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
                // Every caller gets a value, and nothing is stored.
                for _ in 0..3 {
                    assert_eq!(read(node, &table).await, before, "{on:?}");
                }
                assert_eq!(stored(node).await, None, "{on:?}");
            }
            table.0.fetch_add(1, SeqCst);
            fence.lift().await.unwrap();
            assert_eq!(read(&here, &table).await, before + 1, "{on:?}");
            eventually("it is reported", || async { read(&there, &table).await == before + 1 }).await;
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
                    // A tag of the value is known after the run only, so this caller waits for the
                    // first run, as without a fence.
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

    // R22: while another process computes for its callers, no caller waits for the end of the fence
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

    // R4, R22: the tag is known after the run only, and the run ends after the fence was lifted
    async fn a_reader_from_before_the_commit_stores_nothing_behind_a_dropped_fence(nodes: &Nodes) {
        let (here, there, table, gate) = (nodes.node().await, nodes.node().await, Table::default(), Gate::shut());
        let fence = here.fence().tag("group:1").raise().await.unwrap();
        let commit = async {
            gate.arrival().await;
            table.0.store(1, SeqCst);
            drop(fence);
            eventually("values are stored again", || async {
                member(&there, &table, &Gate::open(), 8).await;
                member::entry(8).on(&there).get().await.unwrap().is_some()
            })
            .await;
            gate.let_through(1);
        };
        let (before, ()) = futures::future::join(member(&there, &table, &gate, 7), commit).await;
        assert_eq!(before, (1, 0), "its caller began before the commit");
        for node in [&here, &there] {
            assert_eq!(member::entry(7).on(node).get().await.unwrap(), None);
        }
        for node in [&here, &there] {
            assert_eq!(member(node, &table, &Gate::open(), 7).await, (1, 1));
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

    // I3: a write that did not happen
    async fn a_withdrawn_fence_leaves_the_entry_from_before_it(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            let before = table.0.load(SeqCst);
            for node in [&here, &there] {
                read(node, &table).await;
            }
            let ttl = row::entry(7).on(&here).ttl().await.unwrap().unwrap();
            let fence = raise(&here, on, before).await;
            for node in [&here, &there] {
                eventually("a push may be under way", || async { stored(node).await.is_none() }).await;
                assert_eq!(read(node, &table).await, before, "{on:?}");
            }
            // A run that starts from now on would return this.
            table.0.fetch_add(1, SeqCst);
            fence.withdraw().await.unwrap();
            assert_eq!(read(&here, &table).await, before, "{on:?}");
            eventually("it is reported", || async { read(&there, &table).await == before }).await;
            for node in [&here, &there] {
                assert_eq!(stored(node).await, Some(before), "{on:?}");
            }
            let left = row::entry(7).on(&here).ttl().await.unwrap().unwrap();
            assert!(left <= ttl && left + Duration::from_secs(30) > ttl, "{on:?}: {left:?} of {ttl:?}");
            row::entry(7).on(&here).invalidate().await.unwrap();
        }
    }

    // I3, R22: an invalidation, set or deletion under a fence remains in effect
    async fn a_change_under_a_fence_wins_over_its_withdrawal(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            for (what, expected) in [("invalidation", None), ("set", Some(9)), ("deletion", None), ("clear", None)] {
                row::entry(7).on(&here).invalidate().await.unwrap();
                let before = read(&here, &table).await;
                let fence = raise(&here, on, before).await;
                let entry = row::entry(7).on(&there);
                match (what, on) {
                    ("invalidation", On::Entry) => entry.invalidate().await.unwrap(),
                    ("invalidation", On::Tag) => there.invalidate_tag("rows").await.unwrap(),
                    ("invalidation", On::TagOfValue) => there.invalidate_tag(format!("kind:{before}")).await.unwrap(),
                    // Under a fence on a tag, no entry with the tag can be stored.
                    ("set", On::Entry) => entry.set(9).await.unwrap(),
                    ("set", _) => continue,
                    ("deletion", _) => nodes.delete_by_hand(entry.key()).await,
                    _ => there.clear().await.unwrap(),
                }
                fence.withdraw().await.unwrap();
                assert_eq!(stored(&there).await, expected, "{what} {on:?}");
                eventually("it is reported", || async { stored(&here).await == expected }).await;
            }
        }
    }

    // R27: two writers of one row at the same time
    async fn a_fence_lasts_until_its_own_end_whatever_happens_to_another(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            // The first and the second fence end in both orders.
            for first_ends_first in [true, false] {
                for happened in [[true, true], [true, false], [false, true], [false, false]] {
                    row::entry(7).on(&here).invalidate().await.unwrap();
                    let before = read(&here, &table).await;
                    let mut fences = [raise(&here, on, before).await, raise(&there, on, before).await];
                    if !first_ends_first {
                        fences.reverse();
                    }
                    for (fence, (happened, is_last)) in fences.into_iter().zip(happened.into_iter().zip([false, true])) {
                        if happened {
                            table.0.fetch_add(1, SeqCst);
                            fence.lift().await.unwrap();
                        } else {
                            fence.withdraw().await.unwrap();
                        }
                        if !is_last {
                            for node in [&here, &there] {
                                assert_eq!(read(node, &table).await, table.0.load(SeqCst), "{on:?}");
                                assert_eq!(stored(node).await, None, "the other writer is at it: {on:?} {happened}");
                            }
                        }
                    }
                    let now = table.0.load(SeqCst);
                    let expected = if happened == [false, false] { Some(before) } else { None };
                    assert_eq!(stored(&here).await, expected, "{on:?} {happened:?}");
                    assert_eq!(read(&here, &table).await, now, "{on:?}");
                    assert_eq!(stored(&here).await, Some(now), "values are stored again: {on:?}");
                }
            }
        }
    }

    // R22, R27: the other writer dies behind its fence, after its commit
    async fn a_lift_leaves_the_protection_of_another_writer_that_dies(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            row::entry(7).on(&here).invalidate().await.unwrap();
            let before = read(&here, &table).await;
            let (dies, lives) = (raise(&here, on, before).await, raise(&there, on, before).await);
            lives.lift().await.unwrap();
            // The value from before the commit of the writer that dies.
            assert_eq!(read(&there, &table).await, before, "{on:?}");
            table.0.fetch_add(1, SeqCst);
            std::mem::forget(dies);
            assert_eq!(read(&there, &table).await, before + 1, "{on:?}");
            let key = match on {
                On::Entry => row::entry(7).on(&here).key().to_owned(),
                On::Tag => "cache@tag:rows".to_owned(),
                On::TagOfValue => format!("cache@tag:kind:{before}"),
            };
            nodes.let_expire(&key, Duration::from_secs(31));
            eventually("its time ends", || async { read(&there, &table).await == before + 1 && stored(&there).await == Some(before + 1) }).await;
        }
    }

    // R27, C1
    async fn an_excess_fence_is_reported_and_ends_by_its_time(nodes: &Nodes) {
        let (cache, table) = (nodes.node().await, Table::default());
        for on in [On::Entry, On::Tag] {
            row::entry(7).on(&cache).invalidate().await.unwrap();
            let before = read(&cache, &table).await;
            let mut events = cache.subscribe();
            let mut fences = Vec::new();
            for _ in 0..17 {
                fences.push(raise(&cache, on, before).await);
            }
            let name = matches!(on, On::Entry).then_some("row");
            event(&mut events, "it is reported", |event| matches!(event, Event::TooManyFences { name: told } if told.as_deref() == name)).await;
            for fence in fences {
                fence.lift().await.unwrap();
            }
            assert_eq!(read(&cache, &table).await, before);
            assert_eq!(stored(&cache).await, None, "{on:?}");
            let key = if matches!(on, On::Entry) { row::entry(7).on(&cache).key().to_owned() } else { "cache@tag:rows".to_owned() };
            nodes.let_expire(&key, Duration::from_secs(31));
            eventually("its time ends", || async { read(&cache, &table).await == before && stored(&cache).await == Some(before) }).await;
        }
    }

    // I3, R22: the process was stopped, and others have continued
    async fn a_fence_whose_time_has_ended_brings_nothing_back(nodes: &Nodes) {
        let (cache, table) = (nodes.node().await, Table::default());
        for on in ALL {
            row::entry(7).on(&cache).invalidate().await.unwrap();
            let before = read(&cache, &table).await;
            let fence = raise(&cache, on, before).await;
            let key = match on {
                On::Entry => row::entry(7).on(&cache).key().to_owned(),
                On::Tag => "cache@tag:rows".to_owned(),
                On::TagOfValue => format!("cache@tag:kind:{before}"),
            };
            nodes.let_expire(&key, Duration::from_secs(31));
            table.0.fetch_add(1, SeqCst);
            eventually("its time ends", || async { read(&cache, &table).await == before + 1 && stored(&cache).await == Some(before + 1) }).await;
            fence.withdraw().await.unwrap();
            assert_eq!(stored(&cache).await, Some(before + 1), "{on:?}");
        }
    }

    // I3, R22: a run that began before the fence, and one that began under it, end after it was
    // withdrawn
    async fn a_slow_reader_harms_nothing_where_a_fence_was_withdrawn(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for on in ALL {
            // Invalidated by the node that reads first, so that it needs no push.
            row::entry(7).on(&there).invalidate().await.unwrap();
            let before = table.0.load(SeqCst);
            let (first, second) = (Gate::shut(), Gate::shut());
            let slow = async {
                let rest = async {
                    first.arrival().await;
                    let fence = raise(&here, on, before).await;
                    // A row that is rolled back.
                    table.0.fetch_add(1, SeqCst);
                    let waits = matches!(on, On::TagOfValue);
                    let under = async { if waits { before + 1 } else { row(&here, &table, &second, 7).await.unwrap() } };
                    let write = async {
                        if !waits {
                            second.arrival().await;
                        }
                        table.0.fetch_sub(1, SeqCst);
                        fence.withdraw().await.unwrap();
                        first.let_through(1);
                        second.let_through(1);
                    };
                    futures::future::join(under, write).await.0
                };
                futures::future::join(row(&there, &table, &first, 7), rest).await
            };
            let (of_first, of_second) = soon("all runs end", slow).await;
            // A reader under the fence may have seen the row that was rolled back. Only its caller
            // gets it.
            assert_eq!((of_first.unwrap(), of_second), (before, before + 1), "{on:?}");
            for node in [&here, &there] {
                assert!([None, Some(before)].contains(&stored(node).await), "{on:?}");
                assert_eq!(read(node, &table).await, before, "{on:?}");
            }
        }
    }

    // I3: also if a tag of the value is known after the run only
    async fn a_value_read_inside_a_transaction_is_not_stored_after_its_rollback(nodes: &Nodes) {
        let (here, there, table, gate) = (nodes.node().await, nodes.node().await, Table::default(), Gate::shut());
        let fence = here.fence().tag("group:1").raise().await.unwrap();
        table.0.store(1, SeqCst);
        let rollback = async {
            gate.arrival().await;
            table.0.store(0, SeqCst);
            fence.withdraw().await.unwrap();
            gate.let_through(1);
        };
        let (inside, ()) = futures::future::join(member(&there, &table, &gate, 7), rollback).await;
        assert_eq!(inside, (1, 1));
        for node in [&here, &there] {
            assert_eq!(member::entry(7).on(node).get().await.unwrap(), None);
        }
        for node in [&here, &there] {
            assert_eq!(member(node, &table, &Gate::open(), 7).await, (1, 0));
        }
    }

    // R22: with `around`, and whatever the commit returns
    async fn a_reader_beside_a_commit_within_around_stores_nothing_from_before_it(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for fails in [false, true] {
            let before = table.0.load(SeqCst);
            for node in [&here, &there] {
                read(node, &table).await;
            }
            // It has nothing of the row in its local tier.
            let reader = nodes.node().await;
            let commit = async {
                // Reads the row from before the commit, and ends after it.
                let gate = Gate::shut();
                let slow = gate.clone();
                let old = Table(AtomicU32::new(before));
                let slow = tokio::spawn(async move { row(&reader, &old, &slow, 7).await });
                soon("the reader", gate.arrival()).await;
                table.0.store(before + 1, SeqCst);
                gate.let_through(1);
                assert_eq!(soon("the reader", slow).await.unwrap(), Ok(before));
                if fails { Err("the connection broke") } else { Ok(before + 1) }
            };
            let written = here.fence().entry(&row::entry(7).on(&here)).around(commit).await;
            assert_eq!(written, if fails { Err("the connection broke") } else { Ok(before + 1) });
            assert_eq!(stored(&here).await, None);
            for node in [&here, &there] {
                eventually("the new row", || async { read(node, &table).await == before + 1 }).await;
            }
        }
    }

    // R22
    async fn one_entry_given_twice_is_fenced_once(nodes: &Nodes) {
        let (cache, table) = (nodes.node().await, Table::default());
        read(&cache, &table).await;
        let entry = row::entry(7).on(&cache);
        let fence = cache.fence().entry(&entry).entry(&entry).tag("rows").tag("rows").raise().await.unwrap();
        table.0.store(1, SeqCst);
        fence.withdraw().await.unwrap();
        assert_eq!(read(&cache, &table).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R22
async fn a_run_from_before_a_fence_whose_holder_died_stores_nothing() {
    for tag in ["rows", "kind:0"] {
        let nodes = Nodes::embedded();
        let cache = nodes.node_with(Cache::builder().jitter(0.0)).await;
        let (table, gate) = (std::sync::Arc::new(Table::default()), Gate::shut());
        let slow = tokio::spawn({
            let (cache, table, gate) = (cache.clone(), table.clone(), gate.clone());
            async move { row(&cache, &table, &gate, 7).await }
        });
        gate.arrival().await;
        // The run's lease outlives the fence.
        let fence = cache.fence().tag(tag).limit(Duration::from_secs(5)).raise().await.unwrap();
        table.0.store(1, SeqCst);
        std::mem::forget(fence);
        let Nodes::Embedded(_, clock) = &nodes else { panic!("it is the embedded store") };
        clock.advance(Duration::from_secs(6));
        gate.let_through(1);
        assert_eq!(soon("the run ends", slow).await.unwrap(), Ok(0), "its caller began before the write");
        assert_eq!(stored(&cache).await, None, "{tag}");
        assert_eq!(read(&cache, &table).await, 1, "{tag}");
    }
}
