//! Values that programs in other languages read and write too: texts, JSON without a header,
//! hashes, messages.
//!
//! Keys and channels are used exactly as given, without namespace: the other programs chose them.
//! Faults of the store are errors, and a value of another form is an error that changes nothing.

mod command;
mod entry;
mod exact;
mod hash;
mod options;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::command::{PlainCommand, Reply};
pub use self::entry::{PlainEntry, UnboundPlainEntry};
pub use self::exact::{ExactContent, PlainExact};
pub use self::hash::PlainHash;
use self::options::checked;
pub use self::options::{SetOptions, TimeToLive};
use crate::cache::Cache;
use crate::cache::by_hand::landed;
use crate::call::plan::Plan;
use crate::call::read_through::read_or_run_plain;
use crate::codec::{Json, plain as form};
use crate::entry::Forget;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{EntryOptions, LocalTier};
use crate::shape::{CacheValue, Form as _, Plain, Rules, ValueType};
use crate::store::{Message, Store, plain_lease_key};
use crate::value::Erased;

/// Values shared with other programs, from [`Cache::plain`]. Every operation is one round trip.
///
/// A text is stored as it is, any other value as JSON: keys, fields of hashes and messages alike.
/// What is read as a text is the bare text, or the text of a JSON string; what is read as another
/// type is JSON of that type.
///
/// ```
/// # async fn example(cache: &cache_core::Cache) -> Result<(), cache_core::Error> {
/// let plain = cache.plain();
/// plain.set("color", "red", None).await?; // SET color red
/// plain.set("settings", &["dark", "wide"], None).await?; // SET settings ["dark","wide"]
/// let settings: Option<Vec<String>> = plain.get("settings").await?;
/// let users = plain.hash::<String>("user:7");
/// users.set("name", &"Ada".to_owned()).await?; // HSET user:7 name Ada
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PlainValues {
    cache: Cache,
}

impl Cache {
    /// Values that programs in other languages read and write too.
    #[must_use]
    pub fn plain(&self) -> PlainValues {
        PlainValues::new(self.clone())
    }
}

impl PlainValues {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// Returns the value under `key`; `None`: the key does not exist. A type that takes text is
    /// also read from bare text.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Refused`] for a key that holds no string;
    /// [`ErrorKind::Decode`] for bytes that are no value of this type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.store().load(key).await? {
            None => Ok(None),
            Some((bytes, _)) => form::decode("get", &bytes).map(Some),
        }
    }

    /// Stores a value: a text as it is, anything else as JSON. `options`: a ttl, `None` for no
    /// expiry, or [`SetOptions`]. `false`: the condition of the options was not met, and nothing
    /// was changed.
    ///
    /// Ends a run of [`get_or_compute`](Self::get_or_compute) for this key: what that computes is
    /// not stored.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] for a value that has no JSON form (a map with
    /// keys that are not text); [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        options: impl Into<SetOptions>,
    ) -> Result<bool> {
        self.put(key, form::encode("set", value)?, options.into()).await
    }

    /// The text under a key, or the messages of a channel, exactly as they are: no JSON in between.
    ///
    /// ```
    /// # async fn example(cache: &cache_core::Cache) -> Result<(), cache_core::Error> {
    /// let color = cache.plain().text("color");
    /// color.set("red", None).await?; // SET color red
    /// assert_eq!(color.get().await?.as_deref(), Some("red"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn text(&self, name: impl Into<String>) -> PlainExact<String> {
        PlainExact::new(self.clone(), name.into())
    }

    /// As [`text`](Self::text), for bytes.
    #[must_use]
    pub fn bytes(&self, name: impl Into<String>) -> PlainExact<Vec<u8>> {
        PlainExact::new(self.clone(), name.into())
    }

    /// Sets how long a key of any type lives from now on. `false`: the key does not exist.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn expire(&self, key: &str, ttl: impl Into<Option<Duration>>) -> Result<bool> {
        let ttl = checked(ttl.into())?;
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().expire(key, ttl).await
    }

    /// Returns how long a key of any type still lives.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn ttl(&self, key: &str) -> Result<TimeToLive> {
        Ok(match self.store().time_left(key).await? {
            None => TimeToLive::NoKey,
            Some(None) => TimeToLive::NoExpiry,
            Some(Some(left)) => TimeToLive::Left(left),
        })
    }

    /// Adds to a key that holds a whole number, or does not exist, which counts as zero; returns
    /// the sum. Exact, whoever else adds at the same time. The key's expiry stays as it is; a key
    /// that this makes has none.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Refused`] for what is no whole number, and a sum beyond 64
    /// bits.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64> {
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().increment(key, by).await
    }

    /// Removes a key of any type. `false`: it did not exist.
    ///
    /// Ends a run of [`get_or_compute`](Self::get_or_compute) for this key: what that computes is
    /// not stored.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn remove(&self, key: &str) -> Result<bool> {
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().remove_plain(key, &plain_lease_key(key)).await
    }

    /// Returns the hash under `key`, whose fields hold values of type `T`.
    #[must_use]
    pub fn hash<T>(&self, key: impl Into<String>) -> PlainHash<T> {
        PlainHash::new(self.cache.clone(), key.into())
    }

    /// Sends a message to whoever has subscribed, in any program: a text as it is, anything else as
    /// JSON. Returns how many subscribers the server handed it to. Nobody gets it later: messages
    /// are not stored.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] for a message that has no JSON form.
    pub async fn publish<T: Serialize + ?Sized>(&self, channel: &str, message: &T) -> Result<u64> {
        self.store().publish(channel, form::encode("publish", message)?).await
    }

    /// Returns the messages sent to a channel from now on, until the stream is dropped or the cache
    /// shut down. `subscribe::<String>` gets texts, other types are read from JSON; for exact texts
    /// see [`text`](Self::text).
    ///
    /// An item is an error where a message is no value of this type ([`ErrorKind::Decode`]), or
    /// where messages may have been missed since the connection was lost or this reader was slow
    /// ([`ErrorKind::Unavailable`]); the stream goes on after it.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn subscribe<T: DeserializeOwned + 'static>(
        &self,
        channel: &str,
    ) -> Result<impl Stream<Item = Result<T>> + Send + Unpin + 'static + use<T>> {
        let messages = self.store().subscribe(channel).await?;
        Ok(messages.map(|message| match message {
            Message::Payload(bytes) => form::decode("subscribe", &bytes),
            Message::Interrupted => Err(interrupted()),
        }))
    }

    /// Returns the value under `key`; if there is none, what `compute` returns, stored for `ttl`
    /// for the next caller, in this program or any other: exactly this key, the form of
    /// [`set`](Self::set), no header.
    ///
    /// Callers share one run, in this process and over all that read this key through this library;
    /// the lease of the run is a key of its own in the same slot, so no other program reads one.
    /// [`set`](Self::set) and [`remove`](Self::remove) end the run: what it computes goes to its
    /// callers and is not stored. So does a `SET` by anybody, since the value that it left is not
    /// overwritten. This process keeps the value until its time ends or the server tells of a
    /// change.
    ///
    /// Without a header there are no stale windows, no early refresh, no tags, no fences, and no
    /// fingerprint: all builds and programs read one value. What is no value of type `T` stays as
    /// it is, and `compute` runs for its caller. A ttl of zero stores nothing. A fault of the store
    /// is an [event](Cache::subscribe), and `compute` runs.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # async fn load(id: u64) -> Result<Vec<String>, std::io::Error> { Ok(Vec::new()) }
    /// # async fn example(cache: &cache_core::Cache) -> Result<(), std::sync::Arc<std::io::Error>> {
    /// // Node: JSON.parse(await client.get('my_data')), else load it and SET my_data [..] EX 86400
    /// let day = Duration::from_secs(86400);
    /// let data = cache.plain().get_or_compute("my_data", day, || load(7)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of `compute`, shared by all who waited for that run.
    ///
    /// # Panics
    /// If `compute` panics, or asks for the same key: it would wait for itself for ever.
    pub async fn get_or_compute<T, E, C, F>(&self, key: &str, ttl: Duration, compute: C) -> Result<T, Arc<E>>
    where
        T: CacheValue,
        E: Send + Sync + 'static,
        C: FnOnce() -> F,
        F: Future<Output = Result<T, E>> + Send,
    {
        let engine = &self.cache.0;
        let value = const { ValueType::of::<Plain<T>, E, Json>() };
        let name = Arc::from("plain");
        let rules = Arc::new(Rules::of(EntryOptions::new().ttl(ttl)));
        let plan = Plan::plain(key, &name, value, rules, LocalTier::Cache);
        if let Some(value) = crate::call::plain::in_local(engine, &plan, Plain::<T>::restore) {
            return Ok(value);
        }
        let function = compute().map_ok(Plain::<T>::erase).map_err(|error| Arc::new(error) as Erased).boxed();
        let call = read_or_run_plain(engine, plan, function);
        landed::<Plain<T>, E>(call.await, &name)
    }

    /// Makes any other command, sent on the connection of the cache. `name` is one word, in any
    /// case; its arguments follow with [`arg`](PlainCommand::arg).
    ///
    /// Commands that block, transactions, subscriptions and whatever changes the connection are
    /// refused. What a command reads is not kept in this process; what it changes reaches this
    /// process by the server's push, a moment after the answer.
    ///
    /// ```
    /// # async fn example(cache: &cache_core::Cache) -> Result<(), cache_core::Error> {
    /// let plain = cache.plain();
    /// plain.command("LPUSH").arg("jobs").arg("mail:7").send().await?;
    /// let jobs = plain.command("LLEN").arg("jobs").send().await?.integer();
    /// # Ok(()) }
    /// ```
    pub fn command(&self, name: &str) -> PlainCommand {
        PlainCommand::new(self.cache.clone(), name)
    }

    async fn put(&self, key: &str, bytes: Bytes, options: SetOptions) -> Result<bool> {
        let put = options.put()?;
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().put_plain(key, &plain_lease_key(key), bytes, put).await
    }

    fn store(&self) -> &dyn Store {
        &*self.cache.0.store
    }
}

fn interrupted() -> Error {
    let detail = "messages may have been missed here; the subscription goes on";
    Error::new(ErrorKind::Unavailable, "subscribe").detail(detail)
}
