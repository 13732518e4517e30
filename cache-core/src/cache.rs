//! The handle.

pub(crate) mod by_hand;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::background::Background;
use crate::builder::CacheBuilder;
use crate::builds::Builds;
use crate::clock::Clock;
use crate::codec::DefaultCodec;
use crate::coherence::Coherence;
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, Events, Stats, bump};
use crate::fence::FenceBuilder;
use crate::function_stats::{FunctionNumber, FunctionStats, Functions};
use crate::function_versions::FunctionVersions;
use crate::history::{History, What};
use crate::key::Key;
use crate::local::{Hit, Local, LocalKeyRef, ParsedKey};
use crate::meter::Meter;
use crate::object::{CacheObject, Objects};
use crate::options::{EntryOptions, LocalTier};
use crate::plain::PlainValues;
use crate::refresh::{Refreshes, Serving, Terms};
use crate::shape::{CacheValue, Erased, Plain, ValueType};
use crate::single_flight::Flights;
use crate::store::{Slot, Store};
use crate::tag::{self, Agreement, Basis};
use crate::versions::Versions;
use crate::why::Why;

/// A cache: a store, and all that makes reading through it right. Cheap to clone; clones are the same cache.
///
/// ```
/// # use cache_core::Cache;
/// # async fn start() -> Result<(), cache_core::Error> {
/// let cache = Cache::connect("redis://127.0.0.1/").await?; // starts even if Redis is down
/// Cache::install(cache).expect("installed once");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cache(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) address: Box<str>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) namespace: Box<str>,
    /// L1; `None`: turned off.
    pub(crate) local: Option<Arc<Local>>,
    /// Listens to the store for as long as this lives.
    pub(crate) _coherence: Arc<Coherence>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) function_versions: FunctionVersions,
    /// When they are to be looked at again.
    pub(crate) versions_due: AtomicU64,
    pub(crate) flights: Arc<Flights>,
    pub(crate) builds: Builds,
    pub(crate) defaults: Defaults,
    pub(crate) limits: Limits,
    pub(crate) background: Arc<Background>,
    pub(crate) refreshes: Arc<Refreshes>,
    pub(crate) history: Arc<History>,
    pub(crate) functions: Functions,
    /// `None`: turned off.
    pub(crate) meter: Option<Meter>,
}

/// What an entry gets where its function says nothing.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub(crate) ttl: Duration,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) jitter: f64,
    pub(crate) early: f64,
    pub(crate) deadline: Option<Duration>,
}

/// The bounds of one cache.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) lease: Duration,
    pub(crate) max_value_bytes: usize,
    pub(crate) max_staleness: Duration,
    pub(crate) refresh_throttle: Duration,
}

static INSTALLED: OnceLock<Cache> = OnceLock::new();

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

    /// Makes this the cache of all `#[cached]` functions that name no other. Once per process, at start-up.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if there is one already: installed before, or made when a cached function was called first.
    pub fn install(cache: Self) -> Result<()> {
        INSTALLED.set(cache).map_err(|_| {
            let detail =
                "a cache is in use already; call `Cache::install` once, before the first call of a cached function";
            Error::new(ErrorKind::Configuration, "install").detail(detail)
        })
    }

    /// The installed cache. If there is none, one in memory is installed, and [`Event::NotInstalled`] says so.
    #[must_use]
    #[inline]
    pub fn global() -> &'static Self {
        INSTALLED.get_or_init(|| {
            let cache = Self::in_memory();
            cache.0.events.emit(Event::NotInstalled);
            cache
        })
    }

    /// Makes every entry of every cached function in this cache's namespace a miss, in every process, build and tier. Runs that are under
    /// way go on for their callers, and what they compute is not served to others. Objects and plain values stay.
    ///
    /// One round trip, however many entries there are. If the call is dropped or fails as unavailable, it may have happened or not.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn clear(&self) -> Result<()> {
        self.0.renew_versions(&[tag::namespace_key(&self.0.namespace).into()]).await
    }

    /// Makes every entry with this tag a miss, in every process, build and tier: of functions with `tags(..)`, and of calls with
    /// [`EntryOptions::tags`]. A tag that no entry has is no error.
    ///
    /// A tag is its text: `author:{author}` of author 7 is `author:7`. One round trip, however many entries there are. Runs
    /// that are under way go on for their callers, and what they compute is not served to others. If the call is dropped or
    /// fails as unavailable, it may have happened or not.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn invalidate_tag(&self, tag: impl AsRef<str>) -> Result<()> {
        self.invalidate_tags([tag]).await
    }

    /// As [`invalidate_tag`](Self::invalidate_tag), for several tags in one round trip.
    ///
    /// # Errors
    /// Faults of the store: then old values may go on being served, until their ttl.
    pub async fn invalidate_tags<T: AsRef<str>>(&self, tags: impl IntoIterator<Item = T>) -> Result<()> {
        let keys = tag::keys_of_tags(&self.0.namespace, tags);
        if keys.is_empty() { Ok(()) } else { self.0.renew_versions(&keys).await }
    }

    /// A write fence, for a transaction: raised before the write, lifted after the commit, so that no reader stores the row from before.
    ///
    /// ```
    /// # use cache_core::{Cache, cached};
    /// # #[cached] async fn user(id: u64) -> u64 { id }
    /// # async fn write() -> Result<(), cache_core::Error> { Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let fence = Cache::global().fence().entry(&user::entry(7)).tag("users").raise().await?;
    /// write().await?; // begin, update, commit
    /// fence.lift().await?;
    /// # Ok::<(), cache_core::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn fence(&self) -> FenceBuilder {
        FenceBuilder::new(self.clone())
    }

    /// The objects of one type, which live in this cache's store.
    #[must_use]
    pub fn objects<T: CacheObject>(&self) -> Objects<T> {
        Objects::new(self.clone())
    }

    /// Values that programs in other languages read and write too.
    #[must_use]
    pub fn plain(&self) -> PlainValues {
        PlainValues::new(self.clone())
    }

    /// What happens in this cache from now on. A subscriber that lags more than 1,024 events behind misses some.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// What this cache has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.events.count().snapshot(self.0.functions.local_hits())
    }

    /// What this cache has done so far for each function, by name: those that were called, also with keys by hand.
    ///
    /// A process counts 512 names one by one, half of which may come from keys by hand; the others are `(other)`.
    ///
    /// ```
    /// # use cache_core::{Cache, cached};
    /// # #[cached(name = "square")] async fn square(n: u64) -> u64 { n * n }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// square(7).await;
    /// square(7).await;
    /// let stats = Cache::global().function_stats();
    /// assert_eq!((&*stats[0].name, stats[0].misses, stats[0].hit_ratio()), ("square", 1, Some(0.5)));
    /// # });
    /// ```
    #[must_use]
    pub fn function_stats(&self) -> Vec<FunctionStats> {
        self.0.functions.snapshot()
    }

    /// Why the entry that [`get_or_compute`](Self::get_or_compute) keeps of values of type `T` under `key` is as it is: what this process keeps
    /// of it, and what happened to it here. No round trip. See [`CachedEntry::why`](crate::CachedEntry::why).
    ///
    /// Of its tags only those of a value that is kept are known here.
    #[must_use]
    pub fn why<T: CacheValue>(&self, key: &Key) -> Why {
        let key =
            self.0.key_by_hand(key, const { ValueType::of::<Plain<T>, std::convert::Infallible, DefaultCodec>() });
        self.0.why(&key.value_key, &key.name, &[], false)
    }

    /// Whether the store can be used right now. In memory: until [`shutdown`](Self::shutdown).
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.store.is_available()
    }

    /// Where the store is, without credentials: `redis://user:***@host:6379/0`, or `memory://`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Closes the connection and ends background work, waiting for it and for runs under way up to five seconds. Cached functions run uncached afterwards.
    pub async fn shutdown(&self) {
        // Work first: what it computed may still be stored, and leases of what was ended are given back.
        self.0.background.shutdown(SHUTDOWN_LIMIT, self.0.store.settle()).await;
        self.0.store.close().await;
        self.0.events.log_all_repeats();
    }
}

/// How long a shutdown waits for background work.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("address", &self.0.address)
            .field("namespace", &self.0.namespace)
            .field("available", &self.is_available())
            .finish_non_exhaustive()
    }
}

/// What [`Inner::at_hand`] comes to.
pub(crate) enum AtHand<T> {
    /// To be returned.
    Value(T),
    /// To be returned, while the record with this fill id is computed anew.
    Due(T, u64),
    /// Left to the pipeline.
    Nothing,
}

impl Inner {
    /// The value, if it is in L1 and may be served without a thought.
    #[inline(always)]
    pub(crate) fn in_local_plain<T>(
        &self,
        key: &LocalKeyRef<'_>,
        function: impl FnOnce() -> FunctionNumber,
        take: impl FnOnce(&Erased) -> Option<T>,
    ) -> Option<T> {
        let hit = self.local.as_ref()?.get_plain(key, take)?;
        self.functions.local_hit(function());
        Some(hit)
    }

    /// The value, if it is in L1.
    pub(crate) fn in_local<T>(
        &self,
        key: &LocalKeyRef<'_>,
        function: impl FnOnce() -> FunctionNumber,
        take: impl FnOnce(&Erased) -> Option<T>,
    ) -> Option<Hit<T>> {
        let hit = self.local.as_ref()?.get(key, take)?;
        self.functions.local_hit(function());
        Some(hit)
    }

    /// The value, if it is at hand: in L1, or in a store that can tell without waiting. Whatever is wrong with it is left to
    /// the pipeline. `options`: the function's, as far as they are known, and whether its future owns what it needs.
    pub(crate) fn at_hand<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        options: Option<(&EntryOptions, bool)>,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> AtHand<T> {
        let local = self.local.is_some().then(|| ParsedKey::parse(key));
        match local.and_then(|local| self.in_local(&local.as_ref(), || FunctionNumber::by_hand(name), &take)) {
            Some(Hit::Fresh(value)) => AtHand::Value(value),
            Some(Hit::Due(value, fill_id)) => self.due(key, value, fill_id),
            None => self.at_hand_in_store(key, name, value, options, tier, take),
        }
    }

    /// The same where L1 has been looked at.
    pub(crate) fn at_hand_in_store<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        options: Option<(&EntryOptions, bool)>,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> AtHand<T> {
        match options {
            Some((options, owned)) if self.store.is_at_hand() => {
                self.in_store(key, name, value, &Terms::new(self, options, owned), tier, take)
            }
            _ => AtHand::Nothing,
        }
    }

    /// One refresh is enough: while it runs, and after it failed, the value is a value like any other.
    pub(crate) fn due<T>(&self, key: &str, value: T, fill_id: u64) -> AtHand<T> {
        if self.refreshes.is_resting(key, fill_id, self.clock.coarse()) {
            return AtHand::Value(value);
        }
        AtHand::Due(value, fill_id)
    }

    fn in_store<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        terms: &Terms,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> AtHand<T> {
        // Before the read, as anywhere else: another thread may write in between.
        let local = self.local.as_ref().filter(|_| tier != LocalTier::Off);
        let mark = local.map(|local| local.begin(key));
        let Some(Slot::Bytes(bytes)) = self.store.read_now(key) else { return AtHand::Nothing };
        let Ok((envelope, payload_at)) = Envelope::open(&bytes, key) else { return AtHand::Nothing };
        // All records of a store in this process are of one build, so they have the tags they need.
        let number = FunctionNumber::by_hand(name);
        let agreement = Basis::untagged(self, name, number).agrees_now(self, &envelope, mark.is_some());
        let Some(Agreement::Yes(under)) = agreement else { return AtHand::Nothing };
        let Some(serving) = Serving::of(&envelope, terms, self.store.now()) else { return AtHand::Nothing };
        let payload = bytes.get(payload_at..).unwrap_or_default();
        let decoded = (value.decode)(envelope.codec, envelope.present, payload);
        let Ok(Some(decoded)) = decoded else { return AtHand::Nothing };
        let Some(taken) = take(&decoded) else { return AtHand::Nothing };
        if let Some((mark, under)) = mark.zip(under) {
            mark.keep(&decoded, (value.weigh)(&decoded, payload.len()), serving.service(tier), under);
        }
        bump(&self.events.count().hits);
        if let Some(counters) = self.functions.of(number) {
            bump(&counters.hits);
        }
        self.history.note(key, What::Hit { fresh_for: serving.fresh() });
        if serving.is_due {
            return self.due(key, taken, envelope.fill_id);
        }
        AtHand::Value(taken)
    }

    /// Tells of a store fault that a call survived.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.events.store_failed(error, self.store.is_available());
    }
}
