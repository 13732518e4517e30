//! D9: a cache works from any living runtime, also after the one that made its connection has
//! ended.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cache_core::{Cache, cached};
use support::{PATIENT, RedisServer, soon};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const RUN: &str = "CACHE_CORE_TEST_RUNTIMES";

/// The tests of the page `testing`. They run in processes of their own, because each of these
/// processes installs a cache.
mod shop {
    use std::sync::Mutex;

    use cache_core::{Cache, cached};
    use tokio::sync::OnceCell;

    /// The ids for which the function has run.
    static RUNS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

    #[cached(ttl = 60, tags("prices", "price:{id}"))]
    async fn price(id: u64) -> u64 {
        RUNS.lock().unwrap().push(id);
        id * 100
    }

    fn runs(id: u64) -> usize {
        RUNS.lock().unwrap().iter().filter(|run| **run == id).count()
    }

    /// Installs the cache of the process, in whichever test runs first.
    async fn cache() -> &'static Cache {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let install = || async {
            Cache::install(Cache::from_env().await.unwrap()).unwrap();
        };
        INSTALLED.get_or_init(install).await;
        Cache::global()
    }

    pub(super) async fn a_value_is_computed_once(id: u64) {
        cache().await;
        assert_eq!((price(id).await, price(id).await), (id * 100, id * 100));
        assert_eq!(runs(id), 1);
    }

    pub(super) async fn what_is_invalidated_is_computed_again(id: u64) {
        cache().await;
        assert_eq!(price(id).await, id * 100);
        price::entry(id).invalidate().await.unwrap();
        assert_eq!(price(id).await, id * 100);
        assert_eq!(runs(id), 2);
    }

    pub(super) async fn a_tag_ends_its_entries(id: u64) {
        let cache = cache().await;
        assert_eq!(price(id).await, id * 100);
        cache.invalidate_tag(format!("price:{id}")).await.unwrap();
        assert_eq!(price(id).await, id * 100);
        assert_eq!(runs(id), 2);
    }

    pub(super) async fn callers_share_a_run(id: u64) {
        cache().await;
        assert_eq!(tokio::join!(price(id), price(id), price(id)), (id * 100, id * 100, id * 100));
        assert_eq!(runs(id), 1);
    }
}

type Test = std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn test(number: u64) -> Test {
    match number % 4 {
        0 => Box::pin(shop::a_value_is_computed_once(number)),
        1 => Box::pin(shop::what_is_invalidated_is_computed_again(number)),
        2 => Box::pin(shop::a_tag_ends_its_entries(number)),
        _ => Box::pin(shop::callers_share_a_run(number)),
    }
}

fn is_asked_for(what: &str) -> bool {
    std::env::var(RUN).is_ok_and(|asked| asked == what)
}

macro_rules! tests {
    ($($name:ident $number:literal)*) => {$(
        #[tokio::test]
        async fn $name() {
            if is_asked_for("tests") {
                test($number).await;
            }
        }
    )*};
}

tests! {
    shares_an_installed_cache_1 1
    shares_an_installed_cache_2 2
    shares_an_installed_cache_3 3
    shares_an_installed_cache_4 4
    shares_an_installed_cache_5 5
    shares_an_installed_cache_6 6
    shares_an_installed_cache_7 7
    shares_an_installed_cache_8 8
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Like the test harness: each test has a runtime of its own, which ends with the test.
#[test]
fn in_the_order_asked_for() {
    let Ok(order) = std::env::var(RUN) else { return };
    for number in order.split(',').filter_map(|number| number.parse().ok()) {
        runtime().block_on(test(number));
    }
}

/// Runs this binary with a filter and the order in a variable.
fn run(asked: &str, filter: &[&str]) {
    let server = RedisServer::start();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(filter).env(RUN, asked).env("CACHE_URL", format!("{}?{PATIENT}", server.url()));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{asked} {filter:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
}

// D9
#[test]
fn tests_that_share_an_installed_cache_pass_in_any_order() {
    for order in ["1,2,3,4,5,6,7,8", "8,7,6,5,4,3,2,1", "4,8,1,5,2,6,3,7", "3,1,7,2,8,5,4,6"] {
        run(order, &["--exact", "behaviour::runtimes::in_the_order_asked_for"]);
    }
}

// D9
#[test]
fn tests_that_share_an_installed_cache_pass_one_by_one_and_all_at_once() {
    for threads in ["1", "2", "8", "8", "8"] {
        run("tests", &["behaviour::runtimes::shares_an_installed_cache", "--test-threads", threads]);
    }
}

#[cached(ttl = 60, skip(cache, gate), cache = cache)]
async fn gated(cache: &Cache, gate: Option<Arc<Notify>>, id: u64) -> u64 {
    let _ = cache;
    if let Some(gate) = gate {
        gate.notify_one();
        std::future::pending::<()>().await;
    }
    id * 2
}

// D9, R11: the lease of a run whose runtime has ended is given back with the next call from another
// runtime.
#[test]
fn a_compute_that_ends_with_its_runtime_leaves_no_waiters() {
    let server = RedisServer::start();
    // A wait for a lease would exceed the test's timeout.
    let connect = || {
        Cache::builder()
            .url(format!("{}?{PATIENT}", server.url()))
            .lease(Duration::from_secs(600))
            .deadline(None)
            .require_store()
            .connect()
    };
    let (first, second) = (runtime(), runtime());
    let cache = first.block_on(connect()).unwrap();
    first.block_on(async {
        let (gate, under_way) = (Arc::new(Notify::new()), cache.clone());
        let opened = Arc::clone(&gate);
        let _ends_with_the_runtime = tokio::spawn(async move { gated(&under_way, Some(opened), 1).await });
        gate.notified().await;
    });
    drop(first);
    second.block_on(async {
        assert_eq!(soon("the key is not held", gated(&cache, None, 1)).await, 2);
        assert!(cache.is_available());
        // Another process.
        let other = connect().await.unwrap();
        assert_eq!(soon("it is stored", gated(&other, None, 1)).await, 2);
        assert_eq!(other.stats().computes, 0);
        assert_eq!(cache.stats().connects, 2);
    });
}

// D9: also while Redis is down.
#[test]
fn a_cache_whose_runtime_has_ended_comes_back_with_its_server() {
    let server = RedisServer::start();
    let (first, second) = (runtime(), runtime());
    let cache = first.block_on(Cache::connect(server.url())).unwrap();
    server.kill();
    drop(first);
    second.block_on(async {
        assert_eq!(gated(&cache, None, 1).await, 2);
        server.restart();
        support::eventually("it connects", || async { cache.is_available() }).await;
        assert_eq!((gated(&cache, None, 2).await, gated(&cache, None, 2).await), (4, 4));
        assert_eq!(cache.stats().hits + cache.stats().local_hits, 1);
    });
}
