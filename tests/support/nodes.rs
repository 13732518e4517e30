//! A store of its own for a test, and any number of caches on it, each as a process of its own would have one.

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
    /// Embedded, on a clock that stands still.
    Embedded(Cache, Clock),
    /// A server of its own.
    Redis(RedisServer),
}

impl Nodes {
    /// A fresh embedded store.
    #[must_use]
    pub fn embedded() -> Self {
        let clock = Clock::manual();
        Self::Embedded(Cache::builder().clock(clock.clone()).in_memory(), clock)
    }

    /// A fresh Redis.
    #[must_use]
    pub fn redis() -> Self {
        Self::Redis(RedisServer::start())
    }

    /// One more cache on the store.
    pub async fn node(&self) -> Cache {
        self.node_in_a_process().await
    }

    /// The same, to be made on the runtime of another. Times are exact: without jitter.
    pub fn node_in_a_process(&self) -> impl Future<Output = Cache> + Send + 'static {
        self.node_with(Cache::builder().jitter(0.0))
    }

    /// One more cache on the store, with settings. On Redis it is patient: a staleness bound below 20 s needs a response timeout
    /// of half of it.
    pub fn node_with(&self, settings: CacheBuilder) -> impl Future<Output = Cache> + Send + 'static {
        let settings = match self {
            Self::Embedded(cache, clock) => settings.clock(clock.clone()).share_store(cache),
            Self::Redis(server) => settings.url(server.patient_url()),
        };
        async move { settings.connect().await.expect("the store is up") }
    }

    /// Removes a key as somebody at a prompt would.
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

    /// Puts bytes under a key as another program would.
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

    /// Lets a key run out of time, as if that much had passed. On Redis it goes within a few milliseconds.
    pub fn let_expire(&self, key: &str, after: Duration) {
        match self {
            Self::Embedded(_, clock) => clock.advance(after),
            Self::Redis(server) => {
                server.cli(&["PEXPIRE", key, "1"]);
            }
        }
    }
}

/// Runs that wait to be let through, and are counted.
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
    /// Shut, with nobody there.
    #[must_use]
    pub fn shut() -> Self {
        Self::default()
    }

    /// Open for any number.
    #[must_use]
    pub fn open() -> Self {
        let gate = Self::default();
        gate.let_through(1_000_000);
        gate
    }

    /// For the run: says that it is there, and waits.
    pub async fn pass(&self) {
        self.0.started.fetch_add(1, Ordering::SeqCst);
        self.0.arrivals.add_permits(1);
        self.0.passes.acquire().await.expect("never closed").forget();
    }

    /// For the test: waits until one more run is there.
    pub async fn arrival(&self) {
        crate::soon("a run arrives at the gate", self.0.arrivals.acquire()).await.expect("never closed").forget();
    }

    /// Lets that many runs through.
    pub fn let_through(&self, runs: usize) {
        self.0.passes.add_permits(runs);
    }

    /// How many runs have come so far.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.started.load(Ordering::SeqCst)
    }
}

/// Waits until a subscriber sees an event that fits.
pub async fn event(
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    what: &str,
    fits: impl Fn(&Event) -> bool,
) -> Event {
    crate::soon(what, async {
        loop {
            match events.recv().await {
                Ok(event) if fits(&event) => return event,
                // Under load a subscriber may miss some; what tests wait for is told again or comes last.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("the cache is gone"),
            }
        }
    })
    .await
}

/// Writes a test for the embedded store and one for Redis.
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
                promise(&$crate::Nodes::embedded()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                promise(&$crate::Nodes::redis()).await;
            }
        }
    )*};
}
