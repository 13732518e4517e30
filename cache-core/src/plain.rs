//! Values that programs in other languages read and write too: JSON without a header, hashes, messages.
//!
//! Keys and channels are used exactly as given, without namespace: the other programs chose them. Nothing is computed,
//! faults of the store are errors, and a value of another form is an error that changes nothing.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Message;

/// Values shared with other programs, from [`Cache::plain`]. Every operation is one round trip.
///
/// ```
/// # async fn example(cache: &cache_core::Cache) -> Result<(), cache_core::Error> {
/// let plain = cache.plain();
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

impl PlainValues {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// The JSON value under `key`; `None`: there is none.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Refused`] for a key that holds no string; [`ErrorKind::Decode`] for text that is not JSON of this type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.cache.0.store.load(key).await? {
            None => Ok(None),
            Some((bytes, _)) => from_json("get", &bytes).map(Some),
        }
    }

    /// Stores a JSON value, for `ttl` if one is given, else until it is removed.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] for a value that has no JSON form (a map with keys that are not text);
    /// [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let ttl = checked(ttl.into())?;
        self.cache.0.store.put(key, to_json("set", value)?, ttl).await
    }

    /// Sets how long a key of any form lives from now on. `false`: there is none.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Configuration`] for a ttl of zero.
    pub async fn expire(&self, key: &str, ttl: impl Into<Option<Duration>>) -> Result<bool> {
        let ttl = checked(ttl.into())?;
        self.cache.0.store.expire(key, ttl).await
    }

    /// Removes a key of any form. `false`: there was none.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn remove(&self, key: &str) -> Result<bool> {
        self.cache.0.store.delete(key).await
    }

    /// The hash under `key`, whose fields hold values of type `T`.
    #[must_use]
    pub fn hash<T>(&self, key: impl Into<String>) -> PlainHash<T> {
        PlainHash { cache: self.cache.clone(), key: key.into(), field: PhantomData }
    }

    /// Sends a message as JSON to whoever has subscribed, in any program; the number the server handed it to. Nobody
    /// gets it later: messages are not stored.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] for a message that has no JSON form.
    pub async fn publish<T: Serialize + ?Sized>(&self, channel: &str, message: &T) -> Result<u64> {
        self.cache.0.store.publish(channel, to_json("publish", message)?).await
    }

    /// The messages sent to a channel from now on, until the stream is dropped or the cache shut down.
    ///
    /// An item is an error where a message is not JSON of this type ([`ErrorKind::Decode`]), or where messages may have been
    /// missed since the connection was lost or this reader was slow ([`ErrorKind::Unavailable`]); the stream goes on after it.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn subscribe<T: DeserializeOwned + 'static>(
        &self,
        channel: &str,
    ) -> Result<impl Stream<Item = Result<T>> + Send + Unpin + 'static + use<T>> {
        let messages = self.cache.0.store.subscribe(channel).await?;
        Ok(messages.map(|message| match message {
            Message::Payload(bytes) => from_json("subscribe", &bytes),
            Message::Interrupted => {
                let detail = "messages may have been missed here; the subscription goes on";
                Err(Error::new(ErrorKind::Unavailable, "subscribe").detail(detail))
            }
        }))
    }
}

/// A hash shared with other programs, from [`PlainValues::hash`].
///
/// A field that is text stands there bare, as other programs and `redis-cli` write it (`HSET user:7 name Ada`); all else is
/// JSON (`views 3`, `tags ["a"]`). Reading tries text first, so a field type that takes both, such as `serde_json::Value`, is always text.
pub struct PlainHash<T> {
    cache: Cache,
    key: String,
    field: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for PlainHash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainHash")
    }
}

impl<T: Serialize + DeserializeOwned> PlainHash<T> {
    /// Sets a field.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Refused`] for a key that holds no hash; [`ErrorKind::Encode`] for a value that has no JSON form.
    pub async fn set(&self, field: &str, value: &T) -> Result<()> {
        self.cache.0.store.hash_set(&self.key, vec![(field.to_owned(), to_field(value)?)]).await
    }

    /// Sets several fields at once.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_all<'a>(&self, fields: impl IntoIterator<Item = (&'a str, &'a T)>) -> Result<()>
    where
        T: 'a,
    {
        let fields = fields.into_iter().map(|(field, value)| Ok((field.to_owned(), to_field(value)?)));
        let fields: Vec<_> = fields.collect::<Result<_>>()?;
        // Redis refuses a command without fields, and there is nothing to do.
        if fields.is_empty() { Ok(()) } else { self.cache.0.store.hash_set(&self.key, fields).await }
    }

    /// A field; `None`: there is no such field, or no such hash.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Refused`] for a key that holds no hash; [`ErrorKind::Decode`] for a field that is no value of this type.
    pub async fn get(&self, field: &str) -> Result<Option<T>> {
        match self.cache.0.store.hash_get(&self.key, field).await? {
            None => Ok(None),
            Some(bytes) => from_field(&bytes).map(Some),
        }
    }

    /// All fields with their values, in no particular order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn all(&self) -> Result<Vec<(String, T)>> {
        let fields = self.cache.0.store.hash_all(&self.key).await?;
        fields.into_iter().map(|(field, bytes)| Ok((field, from_field(&bytes)?))).collect()
    }

    /// The names of all fields, in no particular order.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Refused`] for a key that holds no hash.
    pub async fn keys(&self) -> Result<Vec<String>> {
        self.cache.0.store.hash_keys(&self.key).await
    }

    /// Removes fields; how many there were.
    ///
    /// # Errors
    /// As [`keys`](Self::keys).
    pub async fn remove<'a>(&self, fields: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        if fields.is_empty() { Ok(0) } else { self.cache.0.store.hash_remove(&self.key, &fields).await }
    }
}

fn checked(ttl: Option<Duration>) -> Result<Option<Duration>> {
    if ttl.is_some_and(|ttl| ttl < Duration::from_millis(1)) {
        let detail = "a ttl is at least one millisecond; use `remove` to remove a key, `None` for no expiry";
        return Err(Error::new(ErrorKind::Configuration, "plain").detail(detail));
    }
    Ok(ttl)
}

fn to_json<T: Serialize + ?Sized>(step: &'static str, value: &T) -> Result<Bytes> {
    // The source is left out of decode errors, as it may quote the payload; an encode error names types only.
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::new(ErrorKind::Encode, step).source(error))
}

fn from_json<T: DeserializeOwned>(step: &'static str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| not_json(step, &error))
}

fn not_json(step: &'static str, error: &serde_json::Error) -> Error {
    let what = match error.classify() {
        serde_json::error::Category::Data => "JSON of another shape than this type",
        _ => "not JSON",
    };
    let detail = format!("{what} (line {}, column {})", error.line(), error.column());
    Error::new(ErrorKind::Decode, step).detail(detail)
}

fn to_field<T: Serialize>(value: &T) -> Result<Bytes> {
    let json = to_json("hash", value)?;
    match serde_json::from_slice::<String>(&json) {
        Ok(text) => Ok(text.into()),
        Err(_not_text) => Ok(json),
    }
}

fn from_field<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let as_text = std::str::from_utf8(bytes).ok().and_then(|text| {
        let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            serde::de::IntoDeserializer::into_deserializer(text);
        T::deserialize(text).ok()
    });
    as_text.map_or_else(|| from_json("hash", bytes), Ok)
}
