//! A store without a cache around it, for tests of the stores themselves.
//!
//! No promise of compatibility: only this project's tests use it.

mod sessions;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::broadcast;

pub use self::sessions::{RawEntered, RawEntering, RawReplaced};
use crate::background::Background;
use crate::clock::Clock;
use crate::error::Result;
use crate::observe::events::{Event, Events};
use crate::store::{
    self, Claim, FILL_ID_AT, Fill, Filled, LeaseTarget, Listener, Rewrite, Store, Token, Version, Want,
};

/// One store with what it needs.
#[derive(Clone)]
pub struct RawStore {
    store: Arc<dyn Store>,
    background: Arc<Background>,
    events: Events,
    clock: Option<Clock>,
}

/// The content of a value key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawSlot {
    /// Nothing.
    Absent,
    /// A lease, with its remaining time if that is known.
    Leased(Option<Duration>),
    /// A lease that other callers do not wait for.
    Unawaited(Option<Duration>),
    /// A compute stored nothing a moment ago.
    Unstored,
    /// A fence.
    Fenced,
    /// Other bytes.
    Bytes(Vec<u8>),
    /// A value of another type.
    WrongType,
}

/// Which record a fill may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawOver {
    /// None.
    Nothing,
    /// The record with this fill id.
    Record(u64),
}

/// Where to put a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawPlace {
    /// In the absent value key.
    Empty,
    /// In the place of the record with this fill id.
    Instead(u64),
    /// In the lease key, next to the record with this fill id.
    Beside(u64),
    /// In the place of the mark that the compute with this token left.
    OverMark(u128),
}

/// Key, token, and what to replace.
#[derive(Debug, Clone, Copy)]
pub struct RawClaim<'a>(pub &'a str, pub u128, pub RawOver);

/// The result of `acquire`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawAcquired {
    /// This attempt holds the lease.
    Ours,
    /// This attempt holds the lease, and other callers do not wait for it: see [`UNAWAITED`].
    Unawaited,
    /// The key has this content instead.
    Found(RawSlot),
    /// The last refresh failed; the next one must wait this long.
    Throttled(Option<Duration>),
}

/// The result of `swap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawSwapped {
    /// Replaced.
    Done,
    /// Other bytes were found.
    Conflict,
    /// The key was absent.
    Gone,
}

/// One item of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawMessage {
    /// A payload.
    Payload(Vec<u8>),
    /// Some messages may have been lost.
    Interrupted,
}

/// Added to a token: other callers do not wait for its lease.
pub const UNAWAITED: u128 = 1 << 127;

fn token(bits: u128) -> Token {
    let token = Token::from_bits(bits & !UNAWAITED);
    if bits & UNAWAITED == 0 { token } else { token.unawaited() }
}

/// Makes bytes that look like a record to a store: the fill id at its place, then the payload.
#[must_use]
pub fn record(fill_id: u64, payload: &str) -> Vec<u8> {
    let mut bytes = vec![b'R'; FILL_ID_AT.start];
    bytes.extend_from_slice(&fill_id.to_le_bytes());
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

impl RawStore {
    /// Connects to a Redis store. To get its events from the start, use
    /// [`redis_watched`](Self::redis_watched).
    ///
    /// # Errors
    ///
    /// As `Cache::connect`.
    #[cfg(feature = "redis")]
    pub async fn redis(url: &str) -> Result<Self> {
        Self::redis_watched(url).await.0
    }

    /// Connects to a Redis store and subscribes to its events before the first attempt to connect.
    #[cfg(feature = "redis")]
    pub async fn redis_watched(url: &str) -> (Result<Self>, broadcast::Receiver<Event>) {
        use crate::store::redis::{RedisConfig, RedisStore};

        let (events, background) = (Events::new(Vec::new(), &Clock::system()), Arc::new(Background::new()));
        let seen = events.subscribe();
        let connect = async {
            let config = RedisConfig::parse(url)?;
            let store = RedisStore::connect(config, false, Clock::system(), events.clone(), background.clone()).await?;
            Ok(Self { store, background, events, clock: None })
        };
        (connect.await, seen)
    }

    /// Makes an embedded store on a manual clock.
    #[must_use]
    pub fn memory() -> Self {
        use crate::store::memory::MemoryStore;

        let clock = Clock::manual();
        let events = Events::new(Vec::new(), &clock);
        let store = Arc::new(MemoryStore::new(clock.clone(), events.clone(), usize::MAX));
        Self { store, background: Arc::new(Background::new()), events, clock: Some(clock) }
    }

    /// Lets time pass for the store's expiries: advances a manual clock, or waits for a server's
    /// clock.
    pub async fn let_pass(&self, time: Duration) {
        match &self.clock {
            Some(clock) => clock.advance(time),
            None => tokio::time::sleep(time).await,
        }
    }

    /// Returns the clock of an embedded store.
    #[must_use]
    pub fn clock(&self) -> Option<&Clock> {
        self.clock.as_ref()
    }

    /// Returns all value keys with this prefix and the first bytes of their records.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn heads(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let (heads, next) = self.store.heads(prefix, from).await?;
            all.extend(heads.into_iter().map(|(key, head)| (key, head.into())));
            from = next;
            if from == 0 {
                return Ok(all);
            }
        }
    }

    /// Removes each key whose record still begins with these bytes.
    ///
    /// # Errors
    /// Failures of the store.
    pub async fn remove_heads(&self, heads: &[(String, Vec<u8>)]) -> Result<u64> {
        let heads = heads.iter().map(|(key, head)| (key.clone(), Bytes::copy_from_slice(head))).collect();
        self.store.remove_heads(&heads).await
    }

    /// Subscribes to events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Returns the server's time in milliseconds.
    #[must_use]
    pub fn now_millis(&self) -> u64 {
        self.store.now().as_millis()
    }

    /// Returns whether the store can be used now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.store.is_available()
    }

    /// Closes the store and ends its background tasks. Returns `true` if that ended in time.
    pub async fn close(&self) -> bool {
        self.store.close().await;
        self.background.shutdown(Duration::from_secs(1), async {}).await
    }
}

/// The operations of the store trait.
impl RawStore {
    pub async fn read(&self, key: &str) -> Result<RawSlot> {
        self.store.read(key).await.map(RawSlot::from)
    }

    pub async fn read_and_watch(&self, key: &str) -> Result<(RawSlot, BoxFuture<'static, ()>)> {
        self.store.read_and_watch(key).await.map(|(slot, wake)| (slot.into(), wake))
    }

    pub async fn acquire(&self, key: &str, token: u128, lease: Duration, over: RawOver) -> Result<RawAcquired> {
        let target = match over {
            RawOver::Nothing => LeaseTarget::Empty,
            RawOver::Record(id) => LeaseTarget::Beside(id),
        };
        self.take(key, Token::from_bits(token), target, lease).await
    }

    pub async fn acquire_in_place(&self, key: &str, token: u128, lease: Duration, fill_id: u64) -> Result<RawAcquired> {
        self.take(key, Token::from_bits(token), LeaseTarget::Instead(fill_id), lease).await
    }

    /// Acquires each as `acquire` does, or for a place by fill id as `acquire_in_place` does.
    pub async fn acquire_many(
        &self,
        wants: &[(&str, u128, RawPlace)],
        lease: Duration,
    ) -> Result<Vec<Result<RawAcquired>>> {
        let want = |(key, token, target): &(&str, u128, RawPlace)| Want {
            key: (*key).into(),
            token: Token::from_bits(*token),
            target: (*target).into(),
        };
        let wants: Vec<Want> = wants.iter().map(want).collect();
        let answers = self.store.acquire_many(&wants, lease).await?;
        Ok(answers.into_iter().map(|answer| answer.map(RawAcquired::from)).collect())
    }

    /// Returns values and versions.
    pub async fn read_many(
        &self,
        keys: &[&str],
        versions: &[&str],
        track: bool,
    ) -> Result<(Vec<RawSlot>, Vec<Option<u128>>)> {
        let shared = |keys: &[&str]| keys.iter().map(|key| Arc::from(*key)).collect::<Vec<Arc<str>>>();
        let (slots, versions, _) = self.store.read_many(&shared(keys), &shared(versions), track).await?;
        let bits = versions.into_iter().map(|version| version.map(Version::bits)).collect();
        Ok((slots.into_iter().map(RawSlot::from).collect(), bits))
    }

    /// Returns whether each was stored.
    pub async fn fill_many(&self, fills: &[(RawClaim<'_>, &[u8])], expiry: Duration) -> Result<Vec<Result<bool>>> {
        let fill = |(claim, record): &(RawClaim<'_>, &[u8])| Fill {
            claim: claim.claim(),
            record: Bytes::copy_from_slice(record),
            expiry,
            track: true,
        };
        let filled = self.store.fill_many(&fills.iter().map(fill).collect::<Vec<_>>()).await?;
        Ok(filled.into_iter().map(|filled| filled.map(|filled| filled != Filled::Refused)).collect())
    }

    /// Returns whether each was renewed.
    pub async fn renew_many(&self, claims: &[RawClaim<'_>], lease: Duration) -> Result<Vec<Result<bool>>> {
        self.store.renew_many(&claims.iter().map(RawClaim::claim).collect::<Vec<_>>(), lease).await
    }

    pub async fn release_many(&self, claims: &[RawClaim<'_>]) -> Result<()> {
        self.store.release_many(&claims.iter().map(RawClaim::claim).collect::<Vec<_>>(), None).await
    }

    /// Releases after a compute that stored nothing.
    pub async fn release_many_unstored(&self, claims: &[RawClaim<'_>], rest: Duration) -> Result<()> {
        self.store.release_many(&claims.iter().map(RawClaim::claim).collect::<Vec<_>>(), Some(rest)).await
    }

    pub async fn fill(&self, key: &str, token: u128, over: RawOver, record: &[u8], expiry: Duration) -> Result<bool> {
        let claim = Claim { key: key.into(), token: self::token(token), over: over.into() };
        let fill = Fill { claim, record: Bytes::copy_from_slice(record), expiry, track: true };
        Ok(self.store.fill(&fill).await? != Filled::Refused)
    }

    pub async fn renew(&self, key: &str, token: u128, over: RawOver, lease: Duration) -> Result<bool> {
        self.store.renew(&RawClaim(key, token, over).claim(), lease).await
    }

    pub async fn release(&self, key: &str, token: u128, over: RawOver) -> Result<()> {
        self.store.release(&RawClaim(key, token, over).claim(), None).await
    }

    /// Releases after a compute that stored nothing.
    pub async fn release_unstored(&self, key: &str, token: u128, over: RawOver, rest: Duration) -> Result<()> {
        self.store.release(&RawClaim(key, token, over).claim(), Some(rest)).await
    }

    pub async fn acquire_over_mark(&self, key: &str, token: u128, lease: Duration, mark: u128) -> Result<RawAcquired> {
        self.take(key, self::token(token), LeaseTarget::OverMark(self::token(mark)), lease).await
    }

    async fn take(&self, key: &str, token: Token, target: LeaseTarget, lease: Duration) -> Result<RawAcquired> {
        self.store.acquire(&Want { key: key.into(), token, target }, lease).await.map(RawAcquired::from)
    }

    pub async fn rewrite_head(
        &self,
        key: &str,
        token: u128,
        fill_id: u64,
        head: &[u8],
        expiry: Duration,
    ) -> Result<bool> {
        let head = Bytes::copy_from_slice(head);
        let token = Token::from_bits(token);
        self.store.rewrite_head(Rewrite { key, token, fill_id, head, expiry }).await
    }

    pub async fn throttle(&self, key: &str, token: u128, throttle: Duration) -> Result<bool> {
        self.store.throttle(key, Token::from_bits(token), throttle).await
    }

    pub async fn discard(&self, key: &str, what: RawSlot) -> Result<()> {
        self.store.discard(key, &what.into()).await
    }

    pub async fn write(
        &self,
        key: &str,
        record: &[u8],
        expiry: Duration,
        siblings: &[&str],
        builds: &str,
    ) -> Result<Vec<String>> {
        let keys = owned(siblings);
        let siblings = store::Siblings { keys: &keys, builds };
        self.store.write(key, Bytes::copy_from_slice(record), expiry, siblings).await
    }

    pub async fn remove(&self, keys: &[&str], builds: &str) -> Result<Vec<String>> {
        self.store.remove(store::Siblings { keys: &owned(keys), builds }).await
    }

    /// Returns the known builds, and whether some key had too many fences.
    pub async fn raise(
        &self,
        keys: &[&str],
        builds: &str,
        fence: u128,
        limit: Duration,
    ) -> Result<(Vec<String>, bool)> {
        let siblings = store::Siblings { keys: &owned(keys), builds };
        let raised = self.store.raise(Token::from_bits(fence), limit, siblings).await?;
        Ok((raised.builds, raised.crowded))
    }

    pub async fn lift(&self, keys: &[&str], builds: &str, fence: u128) -> Result<Vec<String>> {
        self.store.lift(Token::from_bits(fence), store::Siblings { keys: &owned(keys), builds }).await
    }

    pub async fn withdraw(&self, keys: &[&str], fence: u128) -> Result<()> {
        self.store.withdraw(Token::from_bits(fence), &owned(keys)).await
    }

    pub async fn fence_versions(&self, kinds: &[&str], tags: &[&str], fence: u128, limit: Duration) -> Result<bool> {
        self.store.fence_versions(Token::from_bits(fence), limit, &shared(kinds), &shared(tags)).await
    }

    pub async fn lift_versions(&self, versions: &[&str], tags: &[&str], fence: u128) -> Result<()> {
        self.store.lift_versions(Token::from_bits(fence), &shared(versions), &shared(tags)).await
    }

    pub async fn withdraw_versions(&self, kinds: &[&str], tags: &[&str], fence: u128) -> Result<()> {
        self.store.withdraw_versions(Token::from_bits(fence), &shared(kinds), &shared(tags)).await
    }

    /// Returns the function's version afterwards.
    pub async fn register_build(
        &self,
        builds: &str,
        version: &str,
        fingerprint: &str,
        expiry: Duration,
    ) -> Result<Option<u128>> {
        let version = self.store.register_build(builds, version, fingerprint, expiry).await?;
        Ok(version.map(Version::bits))
    }

    /// Returns the versions, and whether their changes are notified.
    pub async fn versions(&self, keys: &[&str], make: bool) -> Result<(Vec<Option<u128>>, bool)> {
        let (found, tracked) = self.store.read_versions(&shared(keys), make).await?;
        Ok((found.into_iter().map(|version| version.map(Version::bits)).collect(), tracked))
    }

    pub async fn read_versioned(&self, key: &str, versions: &[&str]) -> Result<(RawSlot, Vec<Option<u128>>)> {
        let (slot, found, _tracked) = self.store.read_versioned(key, &shared(versions)).await?;
        Ok((slot.into(), found.into_iter().map(|version| version.map(Version::bits)).collect()))
    }

    pub async fn renew_versions(&self, keys: &[&str]) -> Result<()> {
        self.store.renew_versions(&shared(keys)).await
    }

    /// Records the changes that the store notifies from now on: keys, and `None` for a gap.
    pub fn told(&self) -> Told {
        let told = Arc::new(Log::default());
        let listener: std::sync::Weak<dyn Listener> = Arc::downgrade(&(Arc::clone(&told) as Arc<dyn Listener>));
        self.store.listen(listener);
        Told(told)
    }

    pub async fn load(&self, key: &str) -> Result<Option<(Vec<u8>, Option<Duration>)>> {
        Ok(self.store.load(key).await?.map(|(bytes, left)| (bytes.into(), left)))
    }

    pub async fn put(&self, key: &str, bytes: &[u8], expiry: Option<Duration>) -> Result<()> {
        self.store.put(key, Bytes::copy_from_slice(bytes), expiry).await
    }

    pub async fn create(&self, key: &str, bytes: &[u8], expiry: Option<Duration>) -> Result<bool> {
        self.store.create(key, Bytes::copy_from_slice(bytes), expiry).await
    }

    pub async fn swap(&self, key: &str, expected: &[u8], bytes: &[u8], expiry: Option<Duration>) -> Result<RawSwapped> {
        let (expected, bytes) = (Bytes::copy_from_slice(expected), Bytes::copy_from_slice(bytes));
        Ok(match self.store.swap(key, expected, bytes, expiry).await? {
            store::Swapped::Done => RawSwapped::Done,
            store::Swapped::Conflict(_) => RawSwapped::Conflict,
            store::Swapped::Gone => RawSwapped::Gone,
        })
    }

    /// Returns the bytes that a swap found if it met a conflict.
    pub async fn swap_conflict(&self, key: &str, expected: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let (expected, bytes) = (Bytes::copy_from_slice(expected), Bytes::copy_from_slice(bytes));
        Ok(match self.store.swap(key, expected, bytes, None).await? {
            store::Swapped::Conflict(found) => Some(found.into()),
            _ => None,
        })
    }

    pub async fn expire(&self, key: &str, expiry: Option<Duration>) -> Result<bool> {
        self.store.expire(key, expiry).await
    }

    pub async fn delete(&self, key: &str) -> Result<bool> {
        self.store.delete(key).await
    }

    pub async fn hash_set(&self, key: &str, fields: &[(&str, &[u8])]) -> Result<()> {
        let fields = fields.iter().map(|(name, bytes)| ((*name).to_owned(), Bytes::copy_from_slice(bytes)));
        self.store.hash_set(key, fields.collect()).await
    }

    pub async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.store.hash_get(key, field).await?.map(Vec::from))
    }

    /// Returns the fields sorted by name.
    pub async fn hash_all(&self, key: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let fields = self.store.hash_all(key).await?;
        let mut fields: Vec<_> = fields.into_iter().map(|(name, bytes)| (name, Vec::from(bytes))).collect();
        fields.sort();
        Ok(fields)
    }

    /// Returns the names sorted.
    pub async fn hash_keys(&self, key: &str) -> Result<Vec<String>> {
        let mut names = self.store.hash_keys(key).await?;
        names.sort();
        Ok(names)
    }

    pub async fn hash_remove(&self, key: &str, fields: &[&str]) -> Result<u64> {
        self.store.hash_remove(key, &owned(fields)).await
    }

    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<u64> {
        self.store.publish(channel, Bytes::copy_from_slice(message)).await
    }

    pub async fn subscribe(&self, channel: &str) -> Result<BoxStream<'static, RawMessage>> {
        let messages = self.store.subscribe(channel).await?;
        Ok(messages
            .map(|message| match message {
                store::Message::Payload(bytes) => RawMessage::Payload(bytes.into()),
                store::Message::Interrupted => RawMessage::Interrupted,
            })
            .boxed())
    }
}

/// The changes that a store has notified since [`RawStore::told`].
#[derive(Debug)]
pub struct Told(Arc<Log>);

#[derive(Debug, Default)]
struct Log(Mutex<Vec<Option<String>>>);

impl Listener for Log {
    fn changed(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Some(key.to_owned()));
    }
    fn gap(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(None);
    }
}

impl Told {
    /// Returns whether a change of this key was notified.
    #[must_use]
    pub fn of(&self, key: &str) -> bool {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().any(|told| told == key)
    }
}

fn shared(keys: &[&str]) -> Vec<Arc<str>> {
    keys.iter().map(|key| Arc::from(*key)).collect()
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

impl fmt::Debug for RawStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawStore")
    }
}

impl From<store::Acquired> for RawAcquired {
    fn from(acquired: store::Acquired) -> Self {
        match acquired {
            store::Acquired::Ours => Self::Ours,
            store::Acquired::Unawaited => Self::Unawaited,
            store::Acquired::Found(slot) => Self::Found(slot.into()),
            store::Acquired::Throttled(left) => Self::Throttled(left),
        }
    }
}

impl From<RawPlace> for LeaseTarget {
    fn from(target: RawPlace) -> Self {
        match target {
            RawPlace::Empty => Self::Empty,
            RawPlace::Instead(id) => Self::Instead(id),
            RawPlace::Beside(id) => Self::Beside(id),
            RawPlace::OverMark(mark) => Self::OverMark(token(mark)),
        }
    }
}

impl RawClaim<'_> {
    fn claim(&self) -> Claim {
        let Self(key, token, over) = *self;
        Claim { key: key.into(), token: self::token(token), over: over.into() }
    }
}

impl From<store::Slot> for RawSlot {
    fn from(slot: store::Slot) -> Self {
        match slot {
            store::Slot::Absent => Self::Absent,
            store::Slot::Leased(left) => Self::Leased(left),
            store::Slot::Unawaited(left) => Self::Unawaited(left),
            store::Slot::Unstored(_) => Self::Unstored,
            store::Slot::Bytes(bytes) => Self::Bytes(bytes.into()),
            store::Slot::Fenced => Self::Fenced,
            store::Slot::WrongType => Self::WrongType,
        }
    }
}

impl From<RawSlot> for store::Slot {
    fn from(slot: RawSlot) -> Self {
        match slot {
            RawSlot::Absent => Self::Absent,
            RawSlot::Leased(left) => Self::Leased(left),
            RawSlot::Unawaited(left) => Self::Unawaited(left),
            RawSlot::Unstored => Self::Unstored(Token::from_bits(0)),
            RawSlot::Bytes(bytes) => Self::Bytes(bytes.into()),
            RawSlot::Fenced => Self::Fenced,
            RawSlot::WrongType => Self::WrongType,
        }
    }
}

impl From<RawOver> for store::Replaces {
    fn from(over: RawOver) -> Self {
        match over {
            RawOver::Nothing => Self::Nothing,
            RawOver::Record(id) => Self::Stale(id),
        }
    }
}
