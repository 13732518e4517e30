//! Builds a [`Cache`] from its settings.

mod address;
#[cfg(feature = "redis")]
mod runtime;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::background::Background;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::coordination::build_registry::Builds;
use crate::coordination::coherence::Coherence;
use crate::coordination::consistency_meter::{Meter, Tiers};
use crate::coordination::keep_warm::{self, Changes, InUse};
use crate::coordination::lease::Leases;
use crate::coordination::refresh::Refreshes;
use crate::coordination::single_flight::Flights;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Local;
use crate::observe::events::{Event, Events, Observer};
use crate::observe::function_stats::Functions;
use crate::observe::history::History;
use crate::options::{Defaults, Limits};
use crate::store::address::Parts;
use crate::store::memory::MemoryStore;
use crate::store::{Listener, Store};
use crate::versions::Versions;
use crate::versions::snapshot::VersionReader;

/// The name of the environment variable that [`Cache::from_env`] reads.
const CACHE_URL: &str = "CACHE_URL";

/// Settings of a cache, made with [`Cache::builder`].
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

    /// Sets the URL of the store:
    ///
    /// | URL | store |
    /// |---|---|
    /// | `redis://[user[:password]@]host[:port][/database]` | Redis over TCP |
    /// | `rediss://..` | Redis over TLS (feature `tls`) |
    /// | `redis+unix:///path?db=0` | Redis over a Unix socket |
    /// | `memory://` | this process |
    ///
    /// The URL may carry options, for example
    /// `?namespace=shop&connect_timeout=1s&response_timeout=500ms&client_name=shop`;
    /// [`docs::url`](crate::docs::url) lists all of them. A setting made with a method of the
    /// builder overrides the same option of the URL.
    /// To give the address in parts instead, see [`host`](Self::host). Default: `memory://`.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the first part of every key, so that several programs can share one Redis.
    /// At most 64 bytes, without `:`, `@`, `{`, `}`, `%`, `~`, white space or control characters.
    /// Default: `cache`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Default ttl for functions that do not set one. Default: one hour.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Default `negative_ttl` for functions that do not set one: how long an absent value (`None`)
    /// is cached. Default: `None` is not cached.
    #[must_use]
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// Default jitter: the largest fraction by which a ttl is randomly shortened. See
    /// [`EntryOptions::jitter`](crate::EntryOptions::jitter). Default: 0.0, no jitter.
    #[must_use]
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// Default early-refresh factor (XFetch beta) for functions that do not set one; see
    /// [`EntryOptions::early`](crate::EntryOptions::early). Zero turns early refreshes off.
    /// Default: 1.0.
    #[must_use]
    pub fn early(mut self, beta: f64) -> Self {
        self.early = beta;
        self
    }

    /// Default deadline of a run for functions that do not set one; `None` means no limit. See
    /// [`DeadlineExceeded`](crate::error::DeadlineExceeded). Default: 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets how long no process retries a failed refresh of the same key. The old value is served
    /// in the meantime. Default: 5 s.
    #[must_use]
    pub fn refresh_throttle(mut self, throttle: Duration) -> Self {
        self.refresh_throttle = throttle;
        self
    }

    /// Sets how many refreshes may run in the background at the same time. A refresh beyond this
    /// limit is skipped with [`Event::RefreshSkipped`](crate::events::Event::RefreshSkipped); a
    /// caller may try again a tenth of a second later. Zero turns background refreshes off.
    /// Default: 64.
    #[must_use]
    pub fn refreshes_in_flight(mut self, most: usize) -> Self {
        self.refreshes_in_flight = most;
        self
    }

    /// Sets how long callers wait for a key after the process that computes it has died. A living
    /// process renews its lease every third of this time. At least 30 ms. Default: 10 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the largest encoded value that is stored, in bytes. A larger value is returned to the
    /// caller but not stored. Default: 16 MiB.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Sets how many bytes the embedded store may hold before it evicts the least recently used
    /// values. Default: 256 MiB.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: usize) -> Self {
        self.memory_limit_bytes = bytes;
        self
    }

    /// Sets how many bytes the local tier may take: decoded values, their keys and their metadata.
    /// The size of a value is estimated, or given by its [`Weigh`](crate::value::Weigh)
    /// implementation.
    /// Zero turns the local tier off. Default: 64 MiB.
    #[must_use]
    pub fn local_limit_bytes(mut self, bytes: usize) -> Self {
        self.local_limit_bytes = bytes;
        self
    }

    /// Sets the longest time that the local tier keeps a value. Default: as long as the value is
    /// fresh.
    #[must_use]
    pub fn local_ttl(mut self, ttl: Duration) -> Self {
        self.local_ttl = ttl;
        self
    }

    /// Sets how far a value of the local tier may lag behind Redis.
    ///
    /// Changes are normally pushed within one round trip. This bound covers the cases in which no
    /// push arrives: a half-open connection, or a process that was suspended. The connection is
    /// checked at least twice in this time, and without a successful check local values are not
    /// served for longer than this.
    ///
    /// At least twice the response timeout. Default: 2 s.
    #[must_use]
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.max_staleness = Some(bound);
        self
    }

    /// Sets the timeout of one attempt to connect. Default: 1 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets the timeout of one store operation. This is the longest time that a stalled Redis
    /// delays a call before the connection counts as lost. Default: 500 ms.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Makes every invalidation wait until this many replicas have acknowledged it: entries (`set`
    /// too), tags, functions, `clear`, and raising and lifting fences. Without it, a failover to a
    /// replica that lacks an invalidation brings the old value back.
    ///
    /// If fewer replicas acknowledge within `timeout`, the call returns an error of kind
    /// [`ErrorKind::NotReplicated`] that says how many did; the invalidation is done on the primary
    /// all the same. Such writes use a connection of their own, since Redis delays every command
    /// behind a `WAIT`. Concurrent callers share one `WAIT`, so a call takes up to twice the
    /// timeout. Reads and computations do not wait.
    ///
    /// The embedded store has no replicas and no failover; there this setting has no effect.
    /// Default: invalidations do not wait. Costs one round trip, and the time the replicas take.
    #[must_use]
    pub fn wait_for_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.wait_for_replicas = Some((replicas, timeout));
        self
    }

    /// Sets the name that `CLIENT LIST` shows. Default: `cache-core`.
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

    /// Sets how many steps of its entries' history this process keeps for
    /// [`CachedEntry::why`](crate::CachedEntry::why), at 64 bytes each. The oldest steps are
    /// overwritten. Keys share the space by their hash, so a busy key may displace the steps of
    /// others. Zero turns the history off. Default: 4,096.
    #[must_use]
    pub fn history(mut self, steps: usize) -> Self {
        self.history = steps;
        self
    }

    /// Sets the share of local hits, from 0.0 to 1.0, that is compared with the store afterwards.
    /// This measures whether the local tier is coherent.
    ///
    /// A value that is served longer than [`max_staleness`](Self::max_staleness) after it was
    /// replaced emits [`Event::StaleBeyondBound`](crate::events::Event::StaleBeyondBound) and is
    /// counted in [`Stats::meter_stale`](crate::events::Stats::meter_stale). Callers do not wait
    /// for the comparison. At most 64 comparisons run at the same time; hits beyond that are not
    /// sampled.
    ///
    /// Default: 0.0, off. Costs one random number per hit, and for each sampled hit one task and
    /// one small read of the record and of each of its versions.
    #[must_use]
    pub fn consistency_meter(mut self, share: f64) -> Self {
        self.meter_share = share;
        self
    }

    /// Calls `observer` at each event, on the task where the event happens. The observer must not
    /// block. Can be called several times to add observers.
    #[must_use]
    pub fn on_event(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Sets the clock, for tests of code that caches.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Uses the store of another cache, embedded or not. In a test, two caches on one store behave
    /// like two processes on one Redis.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn share_store(mut self, with: &Cache) -> Self {
        self.store = Some(Arc::clone(&with.0.store));
        self
    }

    /// Uses a store that a test supplies.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Makes the cache. On Redis, tries to connect once and keeps trying in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for settings that can never work: a wrong URL, user, password,
    /// database or namespace, a missing permission, a URL together with parts of an address, no
    /// tokio runtime with timers and I/O.
    /// [`ErrorKind::Unavailable`] with [`require_store`](Self::require_store) if the store cannot
    /// be reached.
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

    /// Makes the cache with the URL from the environment variable `CACHE_URL`, if it is set and not
    /// empty. Otherwise the same as [`connect`](Self::connect).
    ///
    /// # Errors
    /// The same as [`connect`](Self::connect); the error text names the variable.
    pub async fn connect_from_env(mut self) -> Result<Cache> {
        match std::env::var(CACHE_URL) {
            Ok(url) if !url.trim().is_empty() => self.url = Some(url),
            // An empty value is how a shell unsets a variable for one command.
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
    /// If the namespace or another setting is invalid; never with the defaults. The message says
    /// what is wrong. [`connect`](Self::connect) with the URL `memory://` returns an error instead.
    #[must_use]
    pub fn in_memory(self) -> Cache {
        #[expect(clippy::panic, reason = "documented; only an invalid setting in the program causes it")]
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
            let detail = "`max_staleness` must be at least twice the response timeout: \
                          a check of the connection may take that long";
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
        let detail = "cache-core was built without the feature `redis`, so only `memory://` works; enable the feature";
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
            let detail = "the lease must be at least 30 ms, so that it can be renewed in time";
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
        let (clock, reads_synchronously) = (self.clock.clone(), store.reads_synchronously());
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
        // The embedded store sees each hit itself.
        if !reads_synchronously {
            let weak = Arc::downgrade(&in_use);
            let keep_warm = move || keep_warm::keep_warm(Weak::clone(&weak), clock.clone(), Arc::clone(&changes));
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
    /// Connects to a store. The URL is `redis://`, `rediss://` (feature `tls`) or `redis+unix://`
    /// for Redis, or `memory://`. See [`CacheBuilder::url`] for the options in a URL.
    ///
    /// Succeeds even if Redis is down: functions run uncached until it can be reached. To get an
    /// error instead, see [`CacheBuilder::require_store`]. Takes at most the connect timeout, by
    /// default one second.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for settings that can never work: a wrong URL, user, password
    /// or database, or a missing permission.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder().url(url.as_ref()).connect().await
    }

    /// Makes a cache in this process's memory, with a limit of 256 MiB.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::builder().in_memory()
    }

    /// Makes a cache with the URL from the environment variable `CACHE_URL`. If it is not set or
    /// empty, the cache is in memory.
    ///
    /// # Errors
    /// The same as [`connect`](Self::connect).
    pub async fn from_env() -> Result<Self> {
        Self::builder().connect_from_env().await
    }

    /// Returns a builder for a cache with other settings.
    #[must_use]
    pub fn builder() -> CacheBuilder {
        CacheBuilder::new()
    }
}

/// Returns what follows the scheme of a `memory:` URL, or `None` for another scheme.
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
            format!("the namespace contains {c:?}, which is reserved in keys; write for example `shop.staging`")
        }
    };
    Err(Error::new(ErrorKind::Configuration, "namespace").detail(detail))
}

// The URL and the parts may contain a password.
impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
