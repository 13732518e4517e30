//! Values that programs in other languages also read and write: texts, JSON without a header,
//! hashes, messages.
//!
//! Keys and channels are used exactly as given, without the namespace, because the other programs
//! chose them. Store errors are returned, and so is a value in another form; it is not changed.

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
use crate::cache::get_or_compute::completed;
use crate::call::plan::Plan;
use crate::call::read_through::read_or_run_plain;
use crate::entry::Forget;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{EntryOptions, LocalTier};
use crate::store::{Message, Store, plain_lease_key};
use crate::value::Erased;
use crate::value::codec::{Json, plain as form};
use crate::value::return_type::{CacheValue, Form as _, Plain, ValueType};
use crate::value::rules::Rules;

/// Values shared with other programs, from [`Cache::plain`]. Every operation is one round trip.
///
/// A text is stored as it is, any other value as JSON. This applies to keys, fields of hashes and
/// messages. To read a text, both bare text and the text of a JSON string are accepted; to read
/// another type, the content has to be JSON of that type.
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
    /// Returns access to values that programs in other languages also read and write.
    #[must_use]
    pub fn plain(&self) -> PlainValues {
        PlainValues::new(self.clone())
    }
}

impl PlainValues {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// Returns the value under `key`, or `None` if the key does not exist. A type that takes text
    /// is also read from bare text.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`] for a key that does not hold a string;
    /// [`ErrorKind::Decode`] for bytes that are not a value of this type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.store().load(key).await? {
            None => Ok(None),
            Some((bytes, _)) => form::decode("get", &bytes).map(Some),
        }
    }

    /// Stores a value: a text as it is, anything else as JSON. `options` is a ttl, `None` for no
    /// expiry, or [`SetOptions`]. Returns `false` if the condition in the options was not met;
    /// nothing was changed then.
    ///
    /// Ends a run of [`get_or_compute`](Self::get_or_compute) for this key: the value it computes
    /// is not stored.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`] for a value without a JSON form (a map whose keys are
    /// not text); [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        options: impl Into<SetOptions>,
    ) -> Result<bool> {
        self.put(key, form::encode("set", value)?, options.into()).await
    }

    /// Returns a handle to the text under a key, or the messages of a channel, exactly as they are,
    /// without JSON.
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

    /// Returns a handle like [`text`](Self::text), for bytes.
    #[must_use]
    pub fn bytes(&self, name: impl Into<String>) -> PlainExact<Vec<u8>> {
        PlainExact::new(self.clone(), name.into())
    }

    /// Sets how long a key of any type lives from now on. Returns `false` if the key does not
    /// exist.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn expire(&self, key: &str, ttl: impl Into<Option<Duration>>) -> Result<bool> {
        let ttl = checked(ttl.into())?;
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().expire(key, ttl).await
    }

    /// Returns how long a key of any type still lives.
    ///
    /// # Errors
    /// Store errors.
    pub async fn ttl(&self, key: &str) -> Result<TimeToLive> {
        Ok(match self.store().time_left(key).await? {
            None => TimeToLive::NoKey,
            Some(None) => TimeToLive::NoExpiry,
            Some(Some(left)) => TimeToLive::Left(left),
        })
    }

    /// Adds to the whole number under `key` and returns the sum. A key that does not exist counts
    /// as zero. Concurrent increments are never lost. The expiry of the key does not change; a key
    /// that this creates has none.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`] if the key does not hold a whole number, or the sum
    /// exceeds 64 bits.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64> {
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().increment(key, by).await
    }

    /// Removes a key of any type. Returns `false` if it did not exist.
    ///
    /// Ends a run of [`get_or_compute`](Self::get_or_compute) for this key: the value it computes
    /// is not stored.
    ///
    /// # Errors
    /// Store errors.
    pub async fn remove(&self, key: &str) -> Result<bool> {
        let _before_and_after = Forget::new(&self.cache.0, key);
        self.store().remove_plain(key, &plain_lease_key(key)).await
    }

    /// Returns the hash under `key`, whose fields hold values of type `T`.
    #[must_use]
    pub fn hash<T>(&self, key: impl Into<String>) -> PlainHash<T> {
        PlainHash::new(self.cache.clone(), key.into())
    }

    /// Sends a message to all current subscribers, in any program: a text as it is, anything else
    /// as JSON. Returns the number of subscribers that the server sent it to. Messages are not
    /// stored, so later subscribers do not get it.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`] for a message without a JSON form.
    pub async fn publish<T: Serialize + ?Sized>(&self, channel: &str, message: &T) -> Result<u64> {
        self.store().publish(channel, form::encode("publish", message)?).await
    }

    /// Returns the messages sent to a channel from now on, until the stream is dropped or the cache
    /// is shut down. `subscribe::<String>` yields texts; other types are read from JSON. For exact
    /// texts see [`text`](Self::text).
    ///
    /// An item is an error if a message is not a value of this type ([`ErrorKind::Decode`]), or if
    /// messages may have been missed because the connection was lost or this reader was slow
    /// ([`ErrorKind::Unavailable`]). The stream continues after it.
    ///
    /// # Errors
    /// Store errors.
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

    /// Returns the value under `key`. If there is none, computes it with `compute` and stores it
    /// for `ttl` for later callers in this program or any other. The value is stored under exactly
    /// this key, in the form of [`set`](Self::set), without a header.
    ///
    /// Callers share one run, in this process and across all processes that read this key through
    /// this library. The lease of the run is a separate key in the same slot, so other programs
    /// never read a lease. [`set`](Self::set) and [`remove`](Self::remove) end the run: the value
    /// it computes goes to its callers and is not stored. A `SET` by any other program has the same
    /// effect, because the run does not overwrite the value that it finds. The local tier keeps the
    /// value until its ttl ends or the server pushes a change.
    ///
    /// Without a header there are no stale windows, no early refresh, no tags, no fences and no
    /// fingerprint: all builds and programs read one value. If the stored bytes are not a value of
    /// type `T`, they are left as they are and `compute` runs for its caller. A ttl of zero stores
    /// nothing. A store error is an [event](Cache::subscribe), and `compute` runs.
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
    /// Those of `compute`, shared by all callers that waited for the run.
    ///
    /// # Panics
    /// If `compute` panics, or if it requests the same key: it would wait for itself forever.
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
        completed::<Plain<T>, E>(call.await, &name)
    }

    /// Prepares any other Redis command, to be sent on the connection of the cache. `name` is one
    /// word, in any case; add its arguments with [`arg`](PlainCommand::arg).
    ///
    /// Commands that block, transactions, subscriptions and commands that change the connection are
    /// refused. What a command reads is not kept in the local tier. What it changes reaches the
    /// local tier through the server's push, shortly after the reply.
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
    let detail = "messages may have been missed; the subscription continues";
    Error::new(ErrorKind::Unavailable, "subscribe").detail(detail)
}
