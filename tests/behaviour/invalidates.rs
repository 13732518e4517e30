//! `#[invalidates(..)]`: the entries that a write changes are invalidated when it has happened, and
//! only then.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use cache_core::events::Event;
use cache_core::value::CacheValue;
use cache_core::{Cache, KeyPart, cached, invalidates};
use futures::FutureExt as _;
use support::{Gate, Proxy, RedisServer, event, eventually, on_both_stores, soon};

/// A table with one row, and the number of its reads.
#[derive(Default)]
struct Table {
    row: AtomicU32,
    reads: AtomicU32,
}

impl Table {
    fn read(&self) -> u32 {
        self.reads.fetch_add(1, SeqCst);
        self.row.load(SeqCst)
    }
}

/// The error of a write that did not happen.
#[derive(Debug, PartialEq, Eq)]
struct RolledBack;

type Written<T = ()> = Result<T, RolledBack>;

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, table), cache = cache, tags("rows", "row:{id}"))]
async fn row(cache: &Cache, table: &Table, id: u32) -> u32 {
    let _ = (cache, id);
    table.read()
}

/// How far a write gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Commit,
    RollBack,
    Panic,
}

/// Changes the row, waits, and commits or does not.
async fn change(table: &Table, gate: &Gate, outcome: Outcome) -> Written {
    gate.pass().await;
    match outcome {
        Outcome::Commit => {
            table.row.fetch_add(1, SeqCst);
            Ok(())
        }
        Outcome::RollBack => Err(RolledBack),
        Outcome::Panic => panic!("while writing"),
    }
}

#[invalidates(row(id), cache = cache)]
async fn by_entry(cache: &Cache, table: &Table, gate: &Gate, id: u32, outcome: Outcome) -> Written {
    change(table, gate, outcome).await
}

#[invalidates(tag = "row:{id}", cache = cache)]
async fn by_tag(cache: &Cache, table: &Table, gate: &Gate, id: u32, outcome: Outcome) -> Written {
    change(table, gate, outcome).await
}

#[invalidates(all(row), cache = cache)]
async fn by_function(cache: &Cache, table: &Table, gate: &Gate, id: u32, outcome: Outcome) -> Written {
    let _ = id;
    change(table, gate, outcome).await
}

#[invalidates(row(id), row(id + 1), tags("rows", "row:{id}"), all(row), cache = cache, limit = std::time::Duration::from_secs(9))]
async fn by_all(cache: &Cache, table: &Table, gate: &Gate, id: u32, outcome: Outcome) -> Written {
    change(table, gate, outcome).await
}

/// How a write names what it changes.
#[derive(Debug, Clone, Copy)]
enum By {
    Entry,
    Tag,
    Function,
    All,
}

const EVERY_WAY: [By; 4] = [By::Entry, By::Tag, By::Function, By::All];
const FENCED: [By; 3] = [By::Entry, By::Tag, By::All];

async fn write(by: By, cache: &Cache, table: &Table, gate: &Gate, outcome: Outcome) -> Written {
    match by {
        By::Entry => by_entry(cache, table, gate, 7, outcome).await,
        By::Tag => by_tag(cache, table, gate, 7, outcome).await,
        By::Function => by_function(cache, table, gate, 7, outcome).await,
        By::All => by_all(cache, table, gate, 7, outcome).await,
    }
}

async fn stored(cache: &Cache) -> Option<u32> {
    row::entry(7).on(cache).get().await.unwrap()
}

on_both_stores! {
    // I3: success
    async fn a_successful_write_invalidates_what_it_names(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for by in EVERY_WAY {
            let before = row(&here, &table, 7).await;
            row(&there, &table, 7).await;
            write(by, &here, &table, &Gate::open(), Outcome::Commit).await.unwrap();
            assert_eq!(row(&here, &table, 7).await, before + 1, "{by:?}");
            eventually("it is reported", || async { row(&there, &table, 7).await == before + 1 }).await;
            assert_eq!(stored(&there).await, Some(before + 1), "{by:?}");
        }
    }

    // I3: failure
    async fn a_failed_write_causes_no_compute(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for by in EVERY_WAY {
            let before = row(&here, &table, 7).await;
            row(&there, &table, 7).await;
            let reads = table.reads.load(SeqCst);
            for _ in 0..2 {
                assert_eq!(write(by, &here, &table, &Gate::open(), Outcome::RollBack).await, Err(RolledBack));
            }
            assert_eq!(row(&here, &table, 7).await, before);
            assert_eq!(row(&there, &table, 7).await, before);
            assert_eq!(table.reads.load(SeqCst), reads, "{by:?}");
        }
    }

    // I3: a panic, and a caller that is dropped
    async fn a_write_of_unknown_outcome_invalidates_and_lifts_its_fence(nodes: &Nodes) {
        let (cache, table) = (nodes.node().await, Arc::new(Table::default()));
        for by in EVERY_WAY {
            for panics in [true, false] {
                let before = row(&cache, &table, 7).await;
                let gate = Gate::shut();
                if panics {
                    gate.let_through(1);
                    let written = std::panic::AssertUnwindSafe(write(by, &cache, &table, &gate, Outcome::Panic));
                    assert!(written.catch_unwind().await.is_err());
                } else {
                    let write = write(by, &cache, &table, &gate, Outcome::Commit);
                    let arrived = gate.arrival();
                    tokio::select! {
                        _ = write => unreachable!("the gate is shut"),
                        () = arrived => {}
                    }
                }
                // The write may have happened.
                table.row.fetch_add(1, SeqCst);
                eventually("the entry from before has ended, and values are stored again", || async {
                    row(&cache, &table, 7).await == before + 1 && stored(&cache).await == Some(before + 1)
                })
                .await;
            }
        }
    }

    // I4, R22: invalidate, a reader loads the row from before the commit, commit
    async fn a_row_loaded_while_the_write_is_open_is_not_served_after_it(nodes: &Nodes) {
        let (here, there, table) = (nodes.node().await, nodes.node().await, Table::default());
        for by in FENCED {
            let before = row(&here, &table, 7).await;
            row(&there, &table, 7).await;
            let gate = Gate::shut();
            let reading = async {
                gate.arrival().await;
                for node in [&here, &there] {
                    eventually("a push may be under way", || async { stored(node).await.is_none() }).await;
                    assert_eq!(row(node, &table, 7).await, before, "{by:?}");
                    assert_eq!(stored(node).await, None, "{by:?}");
                }
                gate.let_through(1);
            };
            let write = write(by, &here, &table, &gate, Outcome::Commit);
            let (written, ()) = soon("the write ends", futures::future::join(write, reading)).await;
            written.unwrap();
            assert_eq!(row(&here, &table, 7).await, before + 1, "{by:?}");
            eventually("it is reported", || async { row(&there, &table, 7).await == before + 1 }).await;
        }
    }

    // I3: an `Err` that may come after the commit
    async fn with_always_an_error_invalidates_what_the_write_names(nodes: &Nodes) {
        #[invalidates(row(id), cache = cache, always)]
        async fn write(cache: &Cache, table: &Table, id: u32) -> Result<(), &'static str> {
            table.row.fetch_add(1, SeqCst);
            Err("the mail was not sent")
        }
        let (cache, table) = (nodes.node().await, Table::default());
        assert_eq!(row(&cache, &table, 7).await, 0);
        write(&cache, &table, 7).await.unwrap_err();
        assert_eq!(row(&cache, &table, 7).await, 1);
    }

    // I3: a return type that is not a `Result` always means success
    async fn a_return_value_other_than_a_result_is_success(nodes: &Nodes) {
        #[invalidates(row(id), cache = cache)]
        async fn nothing(cache: &Cache, table: &Table, id: u32) {
            table.row.fetch_add(1, SeqCst);
            if id > 0 {
                return;
            }
            unreachable!("a return is the body's");
        }
        #[invalidates(row(id), cache = cache)]
        async fn none(cache: &Cache, table: &Table, id: u32) -> Option<u32> {
            table.row.fetch_add(1, SeqCst);
            let () = (id == 0).then_some(())?;
            Some(1)
        }
        #[invalidates(row(id), cache = cache)]
        async fn unnamed(cache: &Cache, table: &Table, id: u32) -> impl Fn() -> u32 + use<> {
            table.row.fetch_add(1, SeqCst);
            move || id
        }
        let (cache, table) = (nodes.node().await, Table::default());
        row(&cache, &table, 7).await;
        nothing(&cache, &table, 7).await;
        assert_eq!(row(&cache, &table, 7).await, 1);
        assert_eq!(none(&cache, &table, 7).await, None);
        assert_eq!(row(&cache, &table, 7).await, 2);
        assert_eq!((unnamed(&cache, &table, 7).await)(), 7);
        assert_eq!(row(&cache, &table, 7).await, 3);
    }
}

#[derive(Clone, Copy, KeyPart)]
struct PostId(u32);

/// Posts of one tenant.
struct Posts {
    cache: Cache,
    tenant: u32,
    text: AtomicU32,
}

impl Posts {
    #[cached(key = "{self.tenant}:{post}", cache = &self.cache, tags("tenant:{self.tenant}"))]
    async fn post(&self, post: PostId) -> u32 {
        let _ = post;
        self.text.load(SeqCst)
    }

    #[cached(method, cache = cache, key = "{id}", skip(cache, title))]
    async fn title(cache: &Cache, id: u32, title: &str) -> String {
        let _ = (cache, id);
        title.to_owned()
    }

    #[invalidates(self.post(post))]
    async fn edit(&self, post: PostId, text: u32) -> Written<PostId> {
        self.text.store(text, SeqCst);
        Ok(post)
    }

    #[invalidates(tag = "tenant:{self.tenant}", cache = &self.cache)]
    async fn edit_by_tag(&self, text: u32) -> Written {
        self.text.store(text, SeqCst);
        Ok(())
    }

    #[invalidates(all(Self::post, Posts::title), cache = &self.cache)]
    async fn edit_all(&mut self, text: u32) -> Written {
        *self.text.get_mut() = text;
        Ok(())
    }

    #[invalidates(Self::title(post.0), cache = cache)]
    async fn retitle(cache: &Cache, post: PostId) -> Written {
        let _ = post;
        Ok(())
    }
}

/// A trait with a method that writes.
trait Editor {
    fn set(&self, post: PostId, text: u32) -> impl Future<Output = Written> + Send;
}

impl Editor for Posts {
    #[invalidates(Posts::post(self, post))]
    async fn set(&self, post: PostId, text: u32) -> Written {
        self.text.store(text, SeqCst);
        Ok(())
    }
}

mod elsewhere {
    use super::*;

    #[cached(name = "name", key = "{name}", skip(cache, as_it_is), cache = cache)]
    pub(super) async fn name<T: CacheValue>(cache: &Cache, name: &str, as_it_is: T) -> Vec<T> {
        let _ = (cache, name);
        vec![as_it_is]
    }

    #[cached(name = "owned", key = "{name}", skip(cache, number), cache = cache, companion = OwnedNames)]
    pub(super) async fn owned(cache: &Cache, name: String, number: &AtomicU32) -> u32 {
        let _ = (cache, name);
        number.load(SeqCst)
    }
}

on_both_stores! {
    // I3
    async fn methods_name_methods(nodes: &Nodes) {
        let cache = nodes.node().await;
        let mut posts = Posts { cache: cache.clone(), tenant: 3, text: AtomicU32::new(0) };
        let id = PostId(7);
        assert_eq!(posts.post(id).await, 0);
        assert_eq!(posts.edit(id, 1).await.map(|id| id.0), Ok(7));
        assert_eq!(posts.post(id).await, 1);
        posts.edit_by_tag(2).await.unwrap();
        assert_eq!(posts.post(id).await, 2);
        posts.edit_all(3).await.unwrap();
        assert_eq!(posts.post(id).await, 3);
        posts.set(id, 4).await.unwrap();
        assert_eq!(posts.post(id).await, 4);
        assert_eq!(Posts::title(&cache, 7, "one").await, "one");
        assert_eq!(Posts::title(&cache, 7, "two").await, "one");
        Posts::retitle(&cache, id).await.unwrap();
        assert_eq!(Posts::title(&cache, 7, "two").await, "two");
        posts.edit_all(5).await.unwrap();
        assert_eq!(Posts::title(&cache, 7, "three").await, "three");
    }

    // I3
    async fn the_body_keeps_its_arguments(nodes: &Nodes) {
        #[invalidates(elsewhere::OwnedNames(name), tag = "name:{name}", cache = &cache)]
        async fn owned(cache: Cache, name: String, number: &AtomicU32) -> Written<String> {
            number.fetch_add(1, SeqCst);
            drop(cache);
            Ok(name)
        }
        #[invalidates(elsewhere::OwnedNames(name.clone().into_owned()), cache = cache)]
        async fn pattern<'a>(cache: &Cache, (name, number): (Cow<'a, str>, &'a AtomicU32)) -> Written<Cow<'a, str>> {
            number.fetch_add(1, SeqCst);
            Ok(name)
        }
        #[invalidates(elsewhere::OwnedNames(names[0].clone()), cache = cache)]
        async fn changed<N>(cache: &Cache, names: &mut Vec<String>, number: N, mut by: u32) -> Written<u32>
        where
            N: AsRef<AtomicU32> + Send,
        {
            by += 1;
            names.clear();
            Ok(number.as_ref().fetch_add(by, SeqCst))
        }
        #[invalidates(elsewhere::name::<u32>(name), cache = cache)]
        async fn reference<'a>(cache: &Cache, name: &'a str) -> Result<&'a str, Infallible> {
            Ok(name)
        }
        let (cache, number) = (nodes.node().await, Arc::new(AtomicU32::new(0)));
        let read = || elsewhere::owned(&cache, "ann".to_owned(), &number);
        assert_eq!(read().await, 0);
        assert_eq!(owned(cache.clone(), "ann".to_owned(), &number).await.as_deref(), Ok("ann"));
        assert_eq!(read().await, 1);
        assert_eq!(pattern(&cache, ("ann".into(), &number)).await.as_deref(), Ok("ann"));
        assert_eq!(read().await, 2);
        assert_eq!(changed(&cache, &mut vec!["ann".to_owned()], Arc::clone(&number), 1).await, Ok(2));
        assert_eq!(read().await, 4);
        assert_eq!(elsewhere::name(&cache, "ann", 1_u32).await, [1]);
        assert_eq!(elsewhere::name(&cache, "ann", 2_u32).await, [1]);
        assert_eq!(elsewhere::name(&cache, "ann", 1_u8).await, [1]);
        assert_eq!(reference(&cache, "ann").await, Ok("ann"));
        assert_eq!(elsewhere::name(&cache, "ann", 2_u32).await, [2]);
        assert_eq!(elsewhere::name(&cache, "ann", 2_u8).await, [1], "another instance of the function");
    }

    // I3: values owned by the body are dropped before the fence ends
    async fn a_transaction_is_rolled_back_before_its_fence_ends(nodes: &Nodes) {
        /// Restores the row when it is dropped.
        struct Transaction<'a>(&'a Table);
        impl Drop for Transaction<'_> {
            fn drop(&mut self) {
                self.0.row.store(0, SeqCst);
            }
        }
        #[invalidates(row(id), cache = cache)]
        async fn write(cache: &Cache, transaction: Transaction<'_>, id: u32) -> Written {
            transaction.0.row.store(1, SeqCst);
            // A reader sees the uncommitted row.
            assert_eq!(row(cache, transaction.0, id).await, 1);
            Err(RolledBack)
        }
        let (cache, table) = (nodes.node().await, Table::default());
        for _ in 0..2 {
            write(&cache, Transaction(&table), 7).await.unwrap_err();
            assert_eq!(row(&cache, &table, 7).await, 0);
        }
    }
}

#[tokio::test]
// I3: the store is down
async fn a_write_runs_even_if_nothing_can_be_invalidated() {
    let server = RedisServer::start();
    let cache = Cache::builder().url(format!("{}?response_timeout=200ms", server.url())).connect().await.unwrap();
    let table = Table::default();
    assert_eq!(row(&cache, &table, 7).await, 0);
    server.kill();
    for by in EVERY_WAY {
        let before = table.row.load(SeqCst);
        soon("it does not hang", write(by, &cache, &table, &Gate::open(), Outcome::Commit)).await.unwrap();
        assert_eq!(
            soon("nor that", write(by, &cache, &table, &Gate::open(), Outcome::RollBack)).await,
            Err(RolledBack)
        );
        assert_eq!(row(&cache, &table, 7).await, before + 1, "{by:?}");
    }
    assert!(cache.stats().store_failures > 0);
}

#[tokio::test]
// I3: the store did not answer when the fence was raised, but answers after the commit
async fn a_write_whose_fence_could_not_be_raised_invalidates_all_the_same() {
    let server = RedisServer::start();
    let network = Proxy::start(server.port()).await;
    let url = format!("{}?response_timeout=200ms&heartbeat=100ms", network.url());
    let (cache, other) = (Cache::connect(&url).await.unwrap(), Cache::connect(&server.url()).await.unwrap());
    let table = Table::default();
    for by in EVERY_WAY {
        let before = row(&other, &table, 7).await;
        let mut events = cache.subscribe();
        network.freeze();
        let gate = Gate::shut();
        let mending = async {
            gate.arrival().await;
            network.heal();
            eventually("the link is back", || async { cache.is_available() }).await;
            gate.let_through(1);
        };
        let (written, ()) = futures::future::join(write(by, &cache, &table, &gate, Outcome::Commit), mending).await;
        written.unwrap();
        if !matches!(by, By::Function) {
            event(&mut events, "the failure is reported", |event| matches!(event, Event::StoreFailed { .. })).await;
        }
        eventually("the entry from before has ended", || async { row(&other, &table, 7).await == before + 1 }).await;
    }
}
