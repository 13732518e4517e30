//! Many concurrent requests of one session, from one process and from several.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache_core::Cache;
use cache_core::events::{Event, SessionEvent};
use cache_core::session::{Session, SessionError, SessionLayer};
use futures::future::join_all;
use support::{Gate, Proxy, RedisServer, on_both_stores, soon};
use tokio::task::JoinHandle;

use super::client::{Browser, Page, express, native};
use super::clocks::{clock_at, now};

const REQUESTS: usize = 64;
/// Shorter than every timeout of the store.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often one write loses.
const LOSSES: u64 = 500;

/// Starts a request that has read its session, and changes it when the gate lets it through.
fn request<F, T>(browser: &Browser, layer: &SessionLayer, gate: &Gate, change: F) -> JoinHandle<Page>
where
    F: FnOnce(Session) -> T + Send + 'static,
    T: Future<Output = Result<(), SessionError>> + Send + 'static,
{
    let (browser, layer, gate) = (browser.copy(), layer.clone(), gate.clone());
    tokio::spawn(async move {
        let page = browser.visit(&layer, move |session| async move {
            session.get::<i64>("views").await?;
            gate.pass().await;
            change(session).await.map(|()| 200)
        });
        page.await
    })
}

fn increments(browser: &Browser, layer: &SessionLayer, gate: &Gate) -> Vec<JoinHandle<Page>> {
    let add = async |session: Session| session.increment("views", 1).await.map(drop);
    (0..REQUESTS).map(|_| request(browser, layer, gate, move |session| Box::pin(add(session)))).collect()
}

async fn arrive(gate: &Gate, count: usize) {
    for _ in 0..count {
        soon("one has read", gate.arrival()).await;
    }
}

/// Lets every task that can continue run. On a runtime of one thread, one yield is a turn for each
/// of them. More yields cover tasks that wake others.
async fn what_can_run_has_run() {
    for _ in 0..16 * REQUESTS {
        tokio::task::yield_now().await;
    }
}

fn scripts(server: &RedisServer) -> u64 {
    server.commandstats().get("evalsha").copied().unwrap_or(0)
}

// One thread: everything that can run has run when this task continues.
#[tokio::test(flavor = "current_thread")]
async fn waiting_changes_of_one_session_are_written_in_one_swap() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = Cache::connect(&format!("{}?{}", proxy.url(), support::PATIENT)).await.unwrap();
    for layer in [express(&cache).build().unwrap(), native(&cache).build().unwrap()] {
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&layer, "views", 0).await;
        let requests = increments(&browser, &layer, &gate);
        arrive(&gate, REQUESTS).await;
        let before = scripts(&server);
        proxy.freeze();
        gate.let_through(REQUESTS);
        what_can_run_has_run().await;
        proxy.heal();
        for page in soon("all are answered", join_all(requests)).await {
            assert_eq!(page.unwrap().status, 200);
        }
        // One script for the first requests, and one for all that came during its round trip.
        let sent = scripts(&server) - before;
        assert!((1..=2).contains(&sent), "{sent} scripts");
        assert_eq!(browser.get(&layer, "views").await, Some(64));
    }
}

// One thread: everything that can run has run when this task continues.
#[tokio::test(flavor = "current_thread")]
async fn a_server_that_takes_no_writes_holds_each_request_for_its_deadline_only() {
    // N3
    let server = RedisServer::start();
    // The test advances the clock, and no timeout of the store ends a request before `soon` gives
    // up.
    let (clock, timeouts) = (clock_at(now()), "response_timeout=60s&max_staleness=120s");
    let settings = Cache::builder().url(format!("{}?{timeouts}", server.url())).clock(clock.clone());
    let cache = settings.connect().await.unwrap();
    let layer = native(&cache).deadline(DEADLINE).build().unwrap();
    let (browser, gate, mut events) = (Browser::default(), Gate::shut(), cache.subscribe());
    browser.set(&layer, "views", 0).await;
    let requests = increments(&browser, &layer, &gate);
    arrive(&gate, REQUESTS).await;
    let before = scripts(&server);
    // Like a failover.
    server.cli(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    gate.let_through(REQUESTS);
    what_can_run_has_run().await;
    clock.advance(DEADLINE - Duration::from_millis(1));
    what_can_run_has_run().await;
    assert!(requests.iter().all(|request| !request.is_finished()), "not before it");
    clock.advance(Duration::from_millis(1));
    for page in soon("all are answered", join_all(requests)).await {
        let page = page.unwrap();
        assert_eq!((page.status, page.cookies.len()), (503, 0));
    }
    server.cli(&["CLIENT", "UNPAUSE"]);
    // One script for the first requests, and another if the server does not know it yet. The others
    // were collected in the meantime and not sent, because no request waited for them any more.
    soon("a write is taken again", async { assert_eq!(browser.set(&layer, "other", 1).await.status, 200) }).await;
    let sent = scripts(&server) - before - 1;
    assert!((1..=2).contains(&sent), "{sent} scripts");
    let reason = soon("it gets the reason", async {
        loop {
            if let Event::Session(SessionEvent::Failed { reason }) = events.recv().await.unwrap() {
                return reason;
            }
        }
    });
    assert_eq!(&*reason.await, "the session store is unavailable");
}

on_both_stores! {
    async fn a_failed_change_blocks_no_other(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&layer, "views", 1).await;
        // The value has another type by the time it is written; the closure panics when it is
        // repeated; the session becomes too large together with another change.
        let add = |session: Session| async move { session.increment("note", 1).await.map(drop) };
        let panics = |session: Session| async move {
            let mut runs = 0;
            session.update("other", move |_: Option<i64>| {
                runs += 1;
                assert!(runs < 2, "made again");
                Some(1)
            })
            .await
        };
        let late = [request(&browser, &layer, &gate, add), request(&browser, &layer, &gate, panics)];
        arrive(&gate, 2).await;
        let large = |name: &'static str| move |session: Session| async move { session.insert(name, &"x".repeat(40_000)).await };
        let larger = [request(&browser, &layer, &gate, large("one")), request(&browser, &layer, &gate, large("two"))];
        let counts = increments(&browser, &layer, &gate);
        arrive(&gate, 2 + REQUESTS).await;
        browser.visit(&layer, |session| async move { session.insert("note", "text").await.map(|()| 200) }).await;
        gate.let_through(4 + REQUESTS);
        let [wrong_type, panicked] = late;
        assert_eq!(soon("one of another type", wrong_type).await.unwrap().status, 500);
        assert!(soon("a panic", panicked).await.unwrap_err().is_panic());
        let mut statuses = Vec::new();
        for request in larger {
            statuses.push(soon("a large one", request).await.unwrap().status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 500], "there is room for one of them");
        for page in soon("all are answered", join_all(counts)).await {
            assert_eq!(page.unwrap().status, 200);
        }
        assert_eq!((browser.get(&layer, "views").await, browser.get(&layer, "other").await), (Some(65), None));
    }

    async fn a_request_dropped_by_its_client_cancels_no_other(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&layer, "views", 0).await;
        let requests = increments(&browser, &layer, &gate);
        arrive(&gate, REQUESTS).await;
        gate.let_through(REQUESTS);
        let mut answered = 0;
        for (index, request) in requests.into_iter().enumerate() {
            if index % 2 == 0 {
                request.abort();
            }
            match soon("it ends", request).await {
                Ok(page) => answered += i64::from(page.status == 200),
                Err(error) => assert!(error.is_cancelled()),
            }
        }
        let views = browser.get(&layer, "views").await.unwrap();
        assert!((32..=64).contains(&answered) && (answered..=64).contains(&views), "{answered} of {views}");
    }
}

// One thread for the blocking closure, and others for everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_lost_many_races_succeeds_at_its_next_attempt() {
    // N3
    let server = RedisServer::start();
    let [near, far] = [(); 2].map(|()| Cache::connect(server.patient_url()));
    let (near, far) = (near.await.unwrap(), far.await.unwrap());
    let patience = Duration::from_secs(600);
    let layers = [&near, &far].map(|cache| native(cache).deadline(patience).build().unwrap());
    let [by_near, by_far] = &layers;
    let browser = Browser::default();
    browser.set(by_near, "views", 0).await;
    // The closure runs for the handler first, and again for each try.
    let (tries, mut tried) = tokio::sync::mpsc::unbounded_channel();
    let (go, goes) = std::sync::mpsc::channel();
    let (own, layer) = (browser.copy(), by_far.clone());
    let loser = tokio::spawn(async move {
        let change = move |_: Option<u64>| {
            tries.send(()).unwrap();
            goes.recv_timeout(Duration::from_secs(60)).unwrap();
            Some(7)
        };
        own.visit(&layer, |session| async move { session.update("far", change).await.map(|()| 200) }).await
    });
    let mut next = async |what: &str| soon(what, tried.recv()).await.unwrap();
    next("the handler's own").await;
    go.send(()).unwrap();
    for _ in 0..LOSSES {
        next("a try").await;
        // A complete request between the read and the swap of the other.
        let page = browser.visit(by_near, |session| async move { session.increment("views", 1).await.map(|_| 200) });
        assert_eq!(page.await.status, 200);
        go.send(()).unwrap();
    }
    assert!(!loser.is_finished());
    next("the undisturbed attempt").await;
    go.send(()).unwrap();
    assert_eq!(soon("it gets through", loser).await.unwrap().status, 200);
    assert!(tried.recv().await.is_none(), "with no try more");
    assert_eq!((far.stats().sessions.conflicts, near.stats().sessions.conflicts), (LOSSES, 0));
    let views = browser.get(by_far, "views").await.unwrap();
    assert_eq!((u64::try_from(views).unwrap(), browser.get(by_near, "far").await), (LOSSES, Some(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_processes_that_write_one_session_make_progress() {
    // N3
    let server = RedisServer::start();
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(native(&Cache::connect(&server.patient_url()).await.unwrap()).build().unwrap());
    }
    let browser = Browser::default();
    browser.set(&processes[0], "views", 0).await;
    let clients = (0..32).map(|client| {
        let (browser, layer) = (browser.clone(), processes[client % 4].clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                let page =
                    browser.visit(&layer, |session| async move { session.increment("views", 1).await.map(|_| 200) });
                assert_eq!(page.await.status, 200);
            }
        })
    });
    for client in join_all(clients.collect::<Vec<_>>()).await {
        client.unwrap();
    }
    assert_eq!(browser.get(&processes[3], "views").await, Some(1600));
}

/// What became of the writes of one kind of processes.
struct Share {
    writes: usize,
    /// How many were done when the fast processes had ended.
    done_meanwhile: usize,
    took: Duration,
    longest: Duration,
    conflicts: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, done_meanwhile, took, longest, conflicts } = self;
        write!(f, "{writes} writes in {took:.2?}, {done_meanwhile} of them meanwhile, ")?;
        write!(f, "the longest {longest:.2?}, {conflicts} conflicts")
    }
}

/// Lets each of these clients write so many times. Returns how long each write took.
async fn write_in_turn(
    browser: &Browser,
    clients: impl Iterator<Item = SessionLayer>,
    writes: usize,
    done: &Arc<AtomicUsize>,
) -> Vec<Duration> {
    let clients = clients.map(|layer| {
        let (browser, done) = (browser.copy(), Arc::clone(done));
        tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..writes {
                let began = Instant::now();
                let page =
                    browser.visit(&layer, |session| async move { session.increment("views", 1).await.map(|_| 200) });
                assert_eq!(page.await.status, 200);
                times.push(began.elapsed());
                done.fetch_add(1, Ordering::SeqCst);
            }
            times
        })
    });
    let times = join_all(clients.collect::<Vec<_>>()).await;
    times.into_iter().flat_map(Result::unwrap).collect()
}

/// Measures one session that three processes and a fourth with a slow link write at once.
async fn beside_fast_ones(delay: Duration) -> [Share; 2] {
    // Fewer than the tries that one write has.
    const FAST: (usize, usize) = (6, 100);
    const SLOW: (usize, usize) = (4, 5);
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let mut fast = Vec::new();
    for _ in 0..3 {
        fast.push(Cache::connect(&server.patient_url()).await.unwrap());
    }
    let slow = Cache::connect(&format!("{}?{}", proxy.url(), support::PATIENT)).await.unwrap();
    let layer = |cache: &Cache| native(cache).deadline(Duration::from_secs(600)).build().unwrap();
    let (of_fast, of_slow): (Vec<_>, _) = (fast.iter().map(layer).collect(), layer(&slow));
    let browser = Browser::default();
    browser.set(&of_slow, "views", 0).await;
    proxy.delay(delay);
    let [by_fast, by_slow] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let fast_ones = async {
        let clients = (0..FAST.0).map(|client| of_fast[client % of_fast.len()].clone());
        let times = write_in_turn(&browser, clients, FAST.1, &by_fast).await;
        (times, began.elapsed(), by_slow.load(Ordering::SeqCst))
    };
    let slow_ones = async {
        let times = write_in_turn(&browser, (0..SLOW.0).map(|_| of_slow.clone()), SLOW.1, &by_slow).await;
        (times, began.elapsed())
    };
    let both = soon("all are answered", futures::future::join(fast_ones, slow_ones)).await;
    let ((fast_times, fast_took, done_meanwhile), (slow_times, slow_took)) = both;
    let views = browser.get(&of_slow, "views").await.unwrap();
    assert_eq!(usize::try_from(views).unwrap(), FAST.0 * FAST.1 + SLOW.0 * SLOW.1, "no write is lost");
    let share = |times: Vec<Duration>, took, done_meanwhile, caches: &[Cache]| Share {
        writes: times.len(),
        done_meanwhile,
        took,
        longest: times.into_iter().max().unwrap(),
        conflicts: caches.iter().map(|cache| cache.stats().sessions.conflicts).sum(),
    };
    let all_of_fast = by_fast.load(Ordering::SeqCst);
    [share(fast_times, fast_took, all_of_fast, &fast), share(slow_times, slow_took, done_meanwhile, &[slow])]
}

// A measurement: `--nocapture` shows it. A slow process is not promised any part of the turns while
// fast ones write without a pause, only that each of its writes gets through in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_over_a_slow_link_succeed_beside_fast_ones() {
    // N3
    for delay in [0, 1, 5] {
        let [fast, slow] = beside_fast_ones(Duration::from_millis(delay)).await;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{delay} ms each way: fast: {fast}; slow: {slow}").unwrap();
    }
}
