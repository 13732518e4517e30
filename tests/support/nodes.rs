//! A separate store for each test, and any number of caches on it, as if each were in its own
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::events::Event;
use cache_core::{Cache, CacheBuilder};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

use crate::RedisServer;

/// The embedded store or a real Redis.
pub enum Nodes {
    /// The embedded store, on a manual clock.
    Embedded(Cache, Clock),
    /// A separate Redis server.
    Redis(RedisServer),
}

impl Nodes {
    /// Returns a fresh embedded store.
    #[must_use]
    pub fn embedded() -> Self {
        let clock = Clock::manual();
        Self::Embedded(Cache::builder().clock(clock.clone()).in_memory(), clock)
    }

    /// Returns a fresh Redis.
    #[must_use]
    pub fn redis() -> Self {
        Self::Redis(RedisServer::start())
    }

    /// Returns one more cache on the store.
    pub async fn node(&self) -> Cache {
        self.node_in_a_process().await
    }

    /// Like [`node`](Self::node), to be created on the runtime of another process. Times are exact:
    /// no jitter.
    pub fn node_in_a_process(&self) -> impl Future<Output = Cache> + Send + 'static {
        self.node_with(Cache::builder().jitter(0.0))
    }

    /// Returns one more cache on the store, with settings. On Redis it has long timeouts: a
    /// staleness bound below 20 s needs a response timeout of half of it.
    pub fn node_with(&self, settings: CacheBuilder) -> impl Future<Output = Cache> + Send + 'static {
        let settings = match self {
            Self::Embedded(cache, clock) => settings.clock(clock.clone()).share_store(cache),
            Self::Redis(server) => settings.url(server.patient_url()),
        };
        async move { settings.connect().await.expect("the store is up") }
    }

    /// Removes a key as a person at a `redis-cli` prompt would.
    pub async fn delete_by_hand(&self, key: &str) {
        match self {
            Self::Embedded(cache, _) => {
                cache.plain().remove(key).await.expect("the embedded store takes it");
            }
            Self::Redis(server) => {
                server.cli(&["DEL", key]);
            }
        }
    }

    /// Writes bytes to a key as another program would.
    pub async fn write_by_hand(&self, key: &str, text: &str) {
        match self {
            Self::Embedded(cache, _) => {
                let text = serde_json::from_str::<Box<serde_json::value::RawValue>>(text).expect("JSON");
                cache.plain().set(key, &text, None).await.expect("the embedded store takes it");
            }
            Self::Redis(server) => {
                server.cli(&["SET", key, text]);
            }
        }
    }

    /// Lets a key expire as if this much time had passed. On Redis it expires within a few
    /// milliseconds.
    pub fn let_expire(&self, key: &str, after: Duration) {
        match self {
            Self::Embedded(_, clock) => clock.advance(after),
            Self::Redis(server) => {
                server.cli(&["PEXPIRE", key, "1"]);
            }
        }
    }
}

/// Blocks runs until the test lets them through, and counts them.
#[derive(Clone, Default)]
pub struct Gate(Arc<Inner>);

struct Inner {
    started: AtomicUsize,
    arrivals: Semaphore,
    passes: Semaphore,
}

impl Default for Inner {
    fn default() -> Self {
        Self { started: AtomicUsize::new(0), arrivals: Semaphore::new(0), passes: Semaphore::new(0) }
    }
}

impl Gate {
    /// Returns a closed gate without arrivals.
    #[must_use]
    pub fn shut() -> Self {
        Self::default()
    }

    /// Returns a gate that is open for any number of runs.
    #[must_use]
    pub fn open() -> Self {
        let gate = Self::default();
        gate.let_through(1_000_000);
        gate
    }

    /// Called by the run: reports its arrival and waits.
    ///
    /// # Panics
    ///
    /// After a minute, so that a run too many fails its test instead of hanging it.
    pub async fn pass(&self) {
        self.0.started.fetch_add(1, Ordering::SeqCst);
        self.0.arrivals.add_permits(1);
        let pass = tokio::time::timeout(Duration::from_secs(60), self.0.passes.acquire());
        pass.await.expect("the test lets the run through").expect("never closed").forget();
    }

    /// Called by the test: waits until one more run has arrived.
    pub async fn arrival(&self) {
        crate::soon("a run arrives at the gate", self.0.arrivals.acquire()).await.expect("never closed").forget();
    }

    /// Lets this many runs through.
    pub fn let_through(&self, runs: usize) {
        self.0.passes.add_permits(runs);
    }

    /// Returns how many runs have arrived so far.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.started.load(Ordering::SeqCst)
    }
}

/// Waits until a subscriber receives a matching event.
pub async fn event(
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    what: &str,
    fits: impl Fn(&Event) -> bool,
) -> Event {
    crate::soon(what, async {
        loop {
            match events.recv().await {
                Ok(event) if fits(&event) => return event,
                // Under load a subscriber may miss events. The events that tests wait for are
                // repeated or come last.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("the cache is gone"),
            }
        }
    })
    .await
}

/// Defines a test twice: for the embedded store and for Redis.
#[macro_export]
macro_rules! on_both_stores {
    ($($(#[$attribute:meta])* async fn $name:ident($nodes:ident: &Nodes) $body:block)*) => {$(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports, reason = "not every promise needs all of it")]
            use super::*;

            async fn promise($nodes: &$crate::Nodes) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                $crate::ends(promise(&$crate::Nodes::embedded())).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                $crate::ends(promise(&$crate::Nodes::redis())).await;
            }
        }
    )*};
}
