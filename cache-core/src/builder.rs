//! Making a cache.

mod address;
#[cfg(feature = "redis")]
mod runtime;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::background::Background;
use crate::builds::Builds;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::coherence::Coherence;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, Events, Observer};
use crate::function_stats::Functions;
use crate::history::History;
use crate::lease::Leases;
use crate::local::Local;
use crate::meter::{Meter, Tiers};
use crate::options::{Defaults, Limits};
use crate::refresh::Refreshes;
use crate::single_flight::Flights;
use crate::store::address::Parts;
use crate::store::memory::MemoryStore;
use crate::store::{Listener, Store};
use crate::tag::VersionReader;
use crate::touch::{self, Changes, InUse};
use crate::versions::Versions;

/// The environment variable of [`Cache::from_env`].
pub const CACHE_URL: &str = "CACHE_URL";

/// Settings of a cache, from [`Cache::builder`].
#[derive(Clone)]
pub struct CacheBuilder {
    url: Option<String>,
    parts: Parts,
    namespace: Option<String>,
    ttl: Duration,
    negative_ttl: Option<Duration>,
    jitter: f64,
    early: f64,
    deadline: Option<Duration>,
    refresh_throttle: Duration,
    refreshes_in_flight: usize,
    lease: Duration,
    max_value_bytes: usize,
    memory_limit_bytes: usize,
    local_limit_bytes: usize,
    local_ttl: Duration,
    max_staleness: Option<Duration>,
    connect_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
    wait_for_replicas: Option<(u32, Duration)>,
    client_name: Option<String>,
    is_required: bool,
    history: usize,
    meter_share: f64,
    observers: Vec<Arc<Observer>>,
    clock: Clock,
    store: Option<Arc<dyn Store>>,
}

impl CacheBuilder {
    pub(crate) fn new() -> Self {
        Self {
            url: None,
            parts: Parts::default(),
            namespace: None,
            ttl: Duration::from_secs(3600),
            negative_ttl: None,
            jitter: 0.0,
            early: 1.0,
            deadline: Some(Duration::from_secs(30)),
            refresh_throttle: Duration::from_secs(5),
            refreshes_in_flight: 64,
            lease: Duration::from_secs(10),
            max_value_bytes: 16 << 20,
            memory_limit_bytes: 256 << 20,
            local_limit_bytes: 64 << 20,
            local_ttl: Duration::MAX,
            max_staleness: None,
            connect_timeout: None,
            response_timeout: None,
            wait_for_replicas: None,
            client_name: None,
            is_required: false,
            history: 4096,
            meter_share: 0.0,
            observers: Vec::new(),
            clock: Clock::system(),
            store: None,
        }
    }

    /// Where the store is:
    ///
    /// | URL | store |
    /// |---|---|
    /// | `redis://[user[:password]@]host[:port][/database]` | Redis by TCP |
    /// | `rediss://..` | Redis by TLS (feature `tls`) |
    /// | `redis+unix:///path?db=0` | Redis by Unix socket |
    /// | `memory://` | this process |
    ///
    /// Options: `?namespace=shop&connect_timeout=1s&response_timeout=500ms&client_name=shop`, and more: see [`docs::url`](crate::docs::url). What is set by the builder's methods wins.
    /// In parts instead: [`host`](Self::host) and what goes with it. Default: `memory://`.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// The first part of every key, so that programs can share a Redis. No `:`, `@`, braces or white space. Default: `cache`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The ttl of functions that name none. Default: one hour.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long functions that say nothing of it keep an absent value (`None`). Default: it is not stored.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// Default jitter: the largest fraction by which a ttl is randomly shortened. See
    /// [`EntryOptions::jitter`](crate::EntryOptions::jitter). Default: zero, every ttl stands as it is written.
    #[must_use]
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// How early values are refreshed that are asked for, where their function says nothing of it; see
    /// [`EntryOptions::early`](crate::EntryOptions::early). Zero turns it off. Default: 1.0.
    #[must_use]
    pub fn early(mut self, beta: f64) -> Self {
        self.early = beta;
        self
    }

    /// How long a run may take, where its function says nothing of it; `None`: as long as it likes. See
    /// [`DeadlineExceeded`](crate::DeadlineExceeded). Default: 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// How long after a failed refresh no process tries the next one for that key, while the old value is served. Default: 5 s.
    #[must_use]
    pub fn refresh_throttle(mut self, throttle: Duration) -> Self {
        self.refresh_throttle = throttle;
        self
    }

    /// How many refreshes may run in the background at the same time. One more is skipped, with
    /// [`Event::RefreshSkipped`](crate::events::Event::RefreshSkipped); a caller tries again a tenth of a second later. Zero turns them off. Default: 64.
    #[must_use]
    pub fn refreshes_in_flight(mut self, most: usize) -> Self {
        self.refreshes_in_flight = most;
        self
    }

    /// How long a key is waited for when the process that computes it has died. While it lives, it renews its lease at a third of this
    /// time. Default: 10 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The largest value that is stored, encoded, in bytes. A larger one is returned, and not stored. Default: 16 MiB.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// How much an embedded store may hold before it gives up what was used least recently, in bytes. Default: 256 MiB.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: usize) -> Self {
        self.memory_limit_bytes = bytes;
        self
    }

    /// How much memory the tier in this process may take, in bytes: decoded values, their keys and
    /// what they go by. What a value holds is estimated, or told by its [`Weigh`](crate::Weigh).
    /// Zero turns it off. Default: 64 MiB.
    #[must_use]
    pub fn local_limit_bytes(mut self, bytes: usize) -> Self {
        self.local_limit_bytes = bytes;
        self
    }

    /// How long the tier in this process keeps a value at most. Default: as long as it is fresh.
    #[must_use]
    pub fn local_ttl(mut self, ttl: Duration) -> Self {
        self.local_ttl = ttl;
        self
    }

    /// How old a value of the tier in this process may be against Redis at most.
    ///
    /// Changes are pushed within a round trip. This bounds the case in which nothing is pushed: a link that is half open, a process
    /// that was stopped. The link is checked at least twice in this time, and what was read is not served longer without such a check.
    /// It has to be longer than twice the response timeout. Default: 2 s.
    #[must_use]
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.max_staleness = Some(bound);
        self
    }

    /// For one attempt to connect. Default: 1 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// For one operation of the store; the longest that a stalled Redis delays a call, before it counts as disconnected. Default: 500 ms.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Invalidations return only once that many replicas have acknowledged them: of entries (`set` too), tags, functions and everything, and the raising
    /// and lifting of fences. Without it a failover to a replica that lacks an invalidation brings the old value back.
    ///
    /// Where fewer have within `timeout`, the call returns an error of the kind [`ErrorKind::NotReplicated`] that says how many: it is done on the
    /// primary all the same. Such writes have a connection of their own, since Redis holds up all that is sent behind a `WAIT`; callers at the
    /// same time share one `WAIT`, so a call takes up to twice the timeout. Reads and runs of functions wait for nothing.
    ///
    /// The embedded store has no replicas and no failover: there it changes nothing. Default: they do not wait. Costs a round trip, and what the
    /// replicas take.
    #[must_use]
    pub fn wait_for_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.wait_for_replicas = Some((replicas, timeout));
        self
    }

    /// What `CLIENT LIST` shows. Default: `cache-core`.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Makes [`connect`](Self::connect) fail with [`ErrorKind::Unavailable`] if the store cannot be
    /// reached at the start. For programs that should exit instead of running uncached.
    ///
    /// This does not apply to a connection that is lost later: functions then run uncached until it
    /// is back. The embedded store (`memory://`) can always be reached. Default: the program starts
    /// and emits [`Event::ConnectFailed`](crate::events::Event::ConnectFailed).
    #[must_use]
    pub fn require_store(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// How many steps this process keeps of what happened to its entries, for [`CachedEntry::why`](crate::CachedEntry::why); 64 bytes each. The oldest
    /// go; keys share the room by their hash, so one that is busy may push out the steps of others. Zero turns it off. Default: 4,096.
    #[must_use]
    pub fn history(mut self, steps: usize) -> Self {
        self.history = steps;
        self
    }

    /// Which share of the hits in this process is compared with the store afterwards, from 0.0 to 1.0: a watch on coherence itself.
    ///
    /// A value that is served longer than [`max_staleness`](Self::max_staleness) after it was replaced is
    /// [`Event::StaleBeyondBound`](crate::events::Event::StaleBeyondBound), and counted in [`Stats::meter_stale`](crate::events::Stats::meter_stale). Callers
    /// wait for none of it. At most 64 comparisons run at the same time; hits beyond that are not sampled.
    ///
    /// Default: 0.0, off. Costs a random number for each hit, and for each that is sampled a task and one small read for the record and each of its versions.
    #[must_use]
    pub fn consistency_meter(mut self, share: f64) -> Self {
        self.meter_share = share;
        self
    }

    /// Calls `observer` at each event, on the task where it happens; it must not block. May be called several times.
    #[must_use]
    pub fn on_event(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// The clock, for tests of code that caches.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store of another cache, embedded or not: for a test, two caches on one store are two processes on one Redis.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn share_store(mut self, with: &Cache) -> Self {
        self.store = Some(Arc::clone(&with.0.store));
        self
    }

    /// A store of a test's own.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Makes the cache; on Redis, tries to connect once and goes on trying in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for what can never work: a wrong URL, user, password, database, namespace, a
    /// missing right, a URL and parts of an address, no tokio runtime with timers and I/O.
    /// [`ErrorKind::Unavailable`] with [`require_store`](Self::require_store), if the store cannot be reached.
    pub async fn connect(self) -> Result<Cache> {
        self.check_parts()?;
        match self.url.clone() {
            None if self.parts.host.is_some() => Box::pin(self.connect_redis(None)).await,
            None => self.memory_url(""),
            Some(url) => match in_memory(&url) {
                Some(rest) => self.memory_url(rest),
                None => Box::pin(self.connect_redis(Some(&url))).await,
            },
        }
    }

    /// As [`connect`](Self::connect), with the URL of the environment variable `CACHE_URL` if there is one.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); the text names the variable.
    pub async fn connect_from_env(mut self) -> Result<Cache> {
        match std::env::var(CACHE_URL) {
            Ok(url) if !url.trim().is_empty() => self.url = Some(url),
            // Empty is how a shell unsets it for one command.
            Ok(_) | Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Error::new(ErrorKind::Configuration, "connect").detail("CACHE_URL is not UTF-8"));
            }
        }
        self.connect().await.map_err(|error| error.of(CACHE_URL))
    }

    /// Makes a cache in this process's memory.
    ///
    /// # Panics
    /// Never for the default namespace; for a namespace that is not allowed, with what is wrong with it. [`connect`](Self::connect)
    /// with the URL `memory://` returns an error instead.
    #[must_use]
    pub fn in_memory(self) -> Cache {
        #[expect(clippy::panic, reason = "documented, and only a constant in the program's text leads to it")]
        self.build_in_memory().unwrap_or_else(|error| panic!("{error}"))
    }

    fn memory_url(mut self, rest: &str) -> Result<Cache> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        match rest.split_once('?').map_or((rest, ""), |(path, query)| (path, query)) {
            ("", "") => {}
            ("", query) if query.strip_prefix("namespace=").is_some_and(|name| !name.contains('&')) => {
                if self.namespace.is_none() {
                    self.namespace = query.strip_prefix("namespace=").map(str::to_owned);
                }
            }
            _ => {
                let detail = "write `memory://` or `memory://?namespace=name`: the embedded store has no other options";
                return Err(Error::new(ErrorKind::Configuration, "connect").detail(detail));
            }
        }
        self.build_in_memory()
    }

    fn build_in_memory(self) -> Result<Cache> {
        let events = Events::new(self.observers.clone(), &self.clock);
        let store: Arc<dyn Store> = match &self.store {
            Some(store) => Arc::clone(store),
            None => Arc::new(MemoryStore::new(self.clock.clone(), events.clone(), self.memory_limit_bytes)),
        };
        let namespace = self.namespace.clone();
        let max_staleness = self.max_staleness.unwrap_or(Duration::from_secs(2));
        self.build(store, "memory://".into(), events, Arc::default(), namespace, max_staleness)
    }

    #[cfg(feature = "redis")]
    async fn connect_redis(self, url: Option<&str>) -> Result<Cache> {
        use crate::store::redis::{RedisConfig, RedisStore, Replicas};

        let mut config = match url {
            Some(url) => RedisConfig::parse(url)?,
            None => RedisConfig::of_host(&self.parts)?,
        };
        config.log_in(&self.parts)?;
        if let Some(timeout) = self.connect_timeout {
            config.connect_timeout = timeout;
        }
        if let Some(timeout) = self.response_timeout {
            config.response_timeout = timeout;
        }
        if let Some(bound) = self.max_staleness {
            config.max_staleness = bound;
        }
        if config.max_staleness < config.response_timeout.saturating_mul(2) {
            let detail =
                "`max_staleness` has to be at least twice the response timeout, which a check of the link may take";
            return Err(Error::new(ErrorKind::Configuration, "connect").detail(detail));
        }
        if let Some((count, timeout)) = self.wait_for_replicas {
            config.replicas = Replicas::new(count, timeout)?;
        }
        let max_staleness = config.max_staleness;
        if let Some(name) = &self.client_name {
            config.client_name.clone_from(name);
        }
        let namespace = self.namespace.clone().or_else(|| config.namespace.clone());
        check_namespace(namespace.as_deref())?;
        config.namespace.clone_from(&namespace);
        let (address, ignored) = (config.to_string().into(), std::mem::take(&mut config.ignored));
        let events = Events::new(self.observers.clone(), &self.clock);
        for option in ignored {
            events.emit(Event::UrlOptionIgnored { option });
        }
        let background = Arc::new(Background::new());
        let (clock, is_required) = (self.clock.clone(), self.is_required);
        let connecting = RedisStore::connect(config, is_required, clock, events.clone(), Arc::clone(&background));
        let store = runtime::checked(connecting).await?;
        self.build(store, address, events, background, namespace, max_staleness)
    }

    #[cfg(not(feature = "redis"))]
    async fn connect_redis(self, _url: Option<&str>) -> Result<Cache> {
        let detail = "this program was built without the feature `redis` of cache-core; only `memory://` works";
        Err(Error::new(ErrorKind::Configuration, "connect").detail(detail))
    }

    fn build(
        self,
        store: Arc<dyn Store>,
        address: Box<str>,
        events: Events,
        background: Arc<Background>,
        namespace: Option<String>,
        max_staleness: Duration,
    ) -> Result<Cache> {
        check_namespace(namespace.as_deref())?;
        if self.lease < Duration::from_millis(30) {
            let detail = "a lease is at least 30 ms, so that it can be renewed in time";
            return Err(Error::new(ErrorKind::Configuration, "connect").detail(detail));
        }
        let local = Local::new(self.local_limit_bytes, self.local_ttl, store.trust(), self.clock.clone()).map(Arc::new);
        let versions = Arc::new(Versions::new(self.local_limit_bytes));
        let flights = Flights::new(self.clock.clone(), max_staleness);
        let history = Arc::new(History::new(self.history, self.clock.clone()));
        let changes = Arc::<Changes>::default();
        let coherence = Arc::new(Coherence {
            local: local.clone(),
            versions: Arc::clone(&versions),
            flights: Arc::clone(&flights),
            history: Arc::clone(&history),
            background: Arc::clone(&background),
            giving_back: Arc::default(),
            changes: Arc::clone(&changes),
        });
        let listener: Weak<dyn Listener> = Arc::downgrade(&(Arc::clone(&coherence) as Arc<dyn Listener>));
        store.listen(listener);
        let (clock, is_at_hand) = (self.clock.clone(), store.is_at_hand());
        let namespace: Box<str> = namespace.unwrap_or_else(|| "cache".to_owned()).into();
        let limits = Limits {
            lease: self.lease,
            max_value_bytes: self.max_value_bytes,
            max_staleness,
            refresh_throttle: self.refresh_throttle,
        };
        let parts = || (Arc::clone(&store), self.clock.clone(), Arc::clone(&history), events.clone());
        let versions = {
            let (store, clock, history, events) = parts();
            VersionReader::new(store, &namespace, versions, clock, history, events)
        };
        let builds = {
            let (store, clock, history, events) = parts();
            Builds::new(store, &namespace, Arc::clone(&versions), clock, history, events)
        };
        let leases = {
            let (store, clock, history, events) = parts();
            Leases::new(store, clock, history, events, &limits)
        };
        let meter = {
            let (store, clock, _, events) = parts();
            Meter::new(
                self.meter_share,
                Arc::clone(&background),
                Tiers { store, local: local.clone(), events, clock, max_staleness },
            )
        };
        let in_use = Arc::new(InUse {
            store: Arc::clone(&store),
            local: local.clone(),
            versions: Arc::clone(&versions.cells),
            events: events.clone(),
        });
        // A store in this process sees each hit.
        if !is_at_hand {
            let weak = Arc::downgrade(&in_use);
            let keep_warm = move || touch::keep_warm(Weak::clone(&weak), clock.clone(), Arc::clone(&changes));
            let first = keep_warm();
            let _needs_a_runtime = background.lasting(first, move || Box::pin(keep_warm()));
        }
        let engine = Engine {
            local,
            _coherence: coherence,
            store,
            address,
            events,
            namespace,
            versions,
            clock: self.clock,
            flights,
            builds,
            leases,
            defaults: Defaults {
                ttl: self.ttl,
                negative_ttl: self.negative_ttl,
                jitter: self.jitter,
                early: self.early,
                deadline: self.deadline,
            },
            limits,
            refreshes: Refreshes::new(self.refreshes_in_flight),
            history,
            functions: Functions::new(),
            meter,
            background,
            _in_use: in_use,
        };
        Ok(Cache(Arc::new(engine)))
    }
}

impl Cache {
    /// A cache on Redis: `redis://`, `rediss://` (feature `tls`), `redis+unix://`; or `memory://`. See [`CacheBuilder::url`] for what a URL can say.
    ///
    /// Starts even if Redis is down: functions run uncached until it is there. To be told instead, see
    /// [`CacheBuilder::require_store`]. Takes at most the connect timeout, one second by default.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for what can never work: a wrong URL, user, password or database, a missing right.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder().url(url.as_ref()).connect().await
    }

    /// A cache in this process's memory, bounded to 256 MiB.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder().in_memory()
    }

    /// By the environment variable `CACHE_URL`; without it, in memory.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn from_env() -> Result<Self> {
        Self::builder().connect_from_env().await
    }

    /// A cache with settings.
    #[must_use]
    pub fn builder() -> CacheBuilder {
        CacheBuilder::new()
    }
}

/// What follows the scheme of a URL that asks for a store in this process.
fn in_memory(url: &str) -> Option<&str> {
    let (scheme, rest) = url.trim().split_once(':')?;
    scheme.eq_ignore_ascii_case("memory").then_some(rest)
}

fn check_namespace(namespace: Option<&str>) -> Result<()> {
    let Some(namespace) = namespace else { return Ok(()) };
    let bad = namespace
        .chars()
        .find(|c| c.is_control() || c.is_whitespace() || matches!(c, ':' | '@' | '{' | '}' | '%' | '~'));
    let detail = match bad {
        None if namespace.is_empty() => "the namespace is empty; leave it out for the default, `cache`".to_owned(),
        None if namespace.len() > 64 => "the namespace is longer than 64 bytes".to_owned(),
        None => return Ok(()),
        Some(c) => {
            format!("the namespace contains {c:?}, which keys use for themselves; write for example `shop.staging`")
        }
    };
    Err(Error::new(ErrorKind::Configuration, "namespace").detail(detail))
}

// The URL and the parts may hold a password.
impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
