//! Hashes shared with other programs.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::error::Result;
use crate::value::codec::plain as form;

/// A hash shared with other programs, from [`PlainValues::hash`](super::PlainValues::hash).
///
/// Fields follow the rule of plain values: a text field is stored bare, as other programs and
/// `redis-cli` write it (`HSET user:7 name Ada`). Anything else is stored as JSON (`views 3`,
/// `tags ["a"]`).
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

impl<T> PlainHash<T> {
    pub(super) fn new(cache: Cache, key: String) -> Self {
        Self { cache, key, field: PhantomData }
    }

    /// Adds to a field that holds a whole number and returns the sum. A field that does not exist
    /// counts as zero. Concurrent increments are never lost.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`](crate::ErrorKind::Refused) for a field that is not a
    /// whole number, a sum beyond 64 bits, and a key that does not hold a hash.
    pub async fn increment(&self, field: &str, by: i64) -> Result<i64> {
        self.cache.0.store.hash_increment(&self.key, field, by).await
    }
}

impl<T: Serialize + DeserializeOwned> PlainHash<T> {
    /// Sets a field.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`](crate::ErrorKind::Refused) for a key that does not hold
    /// a hash; [`ErrorKind::Encode`](crate::ErrorKind::Encode) for a value without a JSON form.
    pub async fn set(&self, field: &str, value: &T) -> Result<()> {
        self.cache.0.store.hash_set(&self.key, vec![(field.to_owned(), form::encode("hash", value)?)]).await
    }

    /// Sets several fields at once.
    ///
    /// # Errors
    /// The same as [`set`](Self::set).
    pub async fn set_all<'a>(&self, fields: impl IntoIterator<Item = (&'a str, &'a T)>) -> Result<()>
    where
        T: 'a,
    {
        let fields = fields.into_iter().map(|(field, value)| Ok((field.to_owned(), form::encode("hash", value)?)));
        let fields: Vec<_> = fields.collect::<Result<_>>()?;
        // Redis refuses a command without fields.
        if fields.is_empty() { Ok(()) } else { self.cache.0.store.hash_set(&self.key, fields).await }
    }

    /// Returns a field, or `None` if the field or the hash does not exist.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`](crate::ErrorKind::Refused) for a key that does not hold
    /// a hash; [`ErrorKind::Decode`](crate::ErrorKind::Decode) for a field that is not a value of
    /// this type.
    pub async fn get(&self, field: &str) -> Result<Option<T>> {
        match self.cache.0.store.hash_get(&self.key, field).await? {
            None => Ok(None),
            Some(bytes) => form::decode("hash", &bytes).map(Some),
        }
    }

    /// Returns all fields with their values, in no particular order.
    ///
    /// # Errors
    /// The same as [`get`](Self::get).
    pub async fn all(&self) -> Result<Vec<(String, T)>> {
        let fields = self.cache.0.store.hash_all(&self.key).await?;
        fields.into_iter().map(|(field, bytes)| Ok((field, form::decode("hash", &bytes)?))).collect()
    }

    /// Returns the names of all fields, in no particular order.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Refused`](crate::ErrorKind::Refused) for a key that does not hold
    /// a hash.
    pub async fn keys(&self) -> Result<Vec<String>> {
        self.cache.0.store.hash_keys(&self.key).await
    }

    /// Removes fields and returns how many existed.
    ///
    /// # Errors
    /// The same as [`keys`](Self::keys).
    pub async fn remove<'a>(&self, fields: impl IntoIterator<Item = &'a str>) -> Result<u64> {
        let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        if fields.is_empty() { Ok(0) } else { self.cache.0.store.hash_remove(&self.key, &fields).await }
    }
}
