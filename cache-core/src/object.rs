//! Objects that live in the cache's store: a cart, a draft, a session. `#[derive(CacheObject)]`
//! declares one.
//!
//! Unlike a cached value, an object cannot be computed again. So its key contains no fingerprint,
//! and its codec reads by field name: a build with another struct reads what it can
//! (`#[serde(default)]` fills in missing fields). What it cannot read is an error, never a miss.
//! Store errors are returned too.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, KeyPart, KeyText, KeyWriter};
use crate::store::Swapped;
use crate::value::codec::Codec;
use crate::value::envelope::Envelope;
use crate::value::return_type::CacheValue;

/// How many times [`Objects::update`] tries against conflicting updates.
const UPDATE_ATTEMPTS: u32 = 100;

/// A type whose values are stored as objects. Implement it with `#[derive(CacheObject)]`:
///
/// ```
/// # use cache_core::CacheObject;
/// #[derive(Clone, serde::Serialize, serde::Deserialize, CacheObject)]
/// #[cache_object(name = "cart", ttl = "7d", sliding, id = id)]
/// struct Cart {
///     id: u64,
///     items: Vec<String>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an object of the cache",
    note = "add `#[derive(CacheObject)] #[cache_object(name = \"..\", ttl = \"..\", id = field)]` to `{Self}`"
)]
pub trait CacheObject: CacheValue {
    /// The name in the object's key, like [`Key::name`](crate::Key::name).
    const NAME: &'static str;
    /// How long an object lives without a write. A sliding object: without a use.
    const TTL: Duration;
    /// Whether a load extends the object's life.
    const SLIDING: bool;
    /// The type of the id that tells objects of this type apart.
    type Id: KeyPart;
    /// The codec. It has to read by field name, as MessagePack and JSON do: stored objects outlive
    /// the build that wrote them.
    type Codec: Codec;

    /// Returns this object's id.
    fn id(&self) -> &Self::Id;
}

impl Cache {
    /// The objects of one type, which live in this cache's store.
    #[must_use]
    pub fn objects<T: CacheObject>(&self) -> Objects<T> {
        Objects::new(self.clone())
    }
}

/// The objects of one type in one cache, from [`Cache::objects`].
///
/// Every operation is one round trip; [`update`](Self::update) is two if there is no conflict. If a
/// write is dropped, or fails as [unavailable](ErrorKind::Unavailable), it may have happened or
/// not.
pub struct Objects<T> {
    cache: Cache,
    object: PhantomData<fn() -> T>,
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), object: PhantomData }
    }
}

impl<T: CacheObject> fmt::Debug for Objects<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&T::NAME).finish()
    }
}

impl<T: CacheObject> Objects<T> {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, object: PhantomData }
    }

    /// Returns the object, or `None` if there is none. If at most half of a sliding object's time
    /// is left, the load resets it to the full ttl, which takes one more round trip.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Decode`] if the stored bytes are not an object of this type. They
    /// are left as they are.
    pub async fn load<Q>(&self, id: &Q) -> Result<Option<T>>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        let key = self.key(id);
        let store = &self.cache.0.store;
        let Some((bytes, left)) = store.load(&key).await? else { return Ok(None) };
        let object = Self::open(&key, &bytes)?;
        // Only in the second half, since each extension is a write of which other processes are
        // notified.
        if T::SLIDING && left.is_some_and(|left| left <= T::TTL.mul_f64(0.5)) {
            store.expire(&key, Some(T::TTL)).await?;
        }
        Ok(Some(object))
    }

    /// Stores a new object. Returns `false` if an object with this id exists; that object is not
    /// changed.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for an object that cannot be
    /// stored.
    pub async fn create(&self, object: &T) -> Result<bool> {
        let key = self.key(object.id());
        let bytes = self.seal(&key, object)?;
        self.cache.0.store.create(&key, bytes, Some(T::TTL)).await
    }

    /// Stores an object with its full ttl, and overwrites any object with this id. To change an
    /// object without losing concurrent changes, use [`update`](Self::update).
    ///
    /// # Errors
    /// The same as [`create`](Self::create).
    pub async fn save(&self, object: &T) -> Result<()> {
        let key = self.key(object.id());
        let bytes = self.seal(&key, object)?;
        self.cache.0.store.put(&key, bytes, Some(T::TTL)).await
    }

    /// Changes an object by compare-and-swap. `change` is applied to the current object, and again
    /// after each conflict with another update, so that no update is lost; it may run several
    /// times. Returns the changed object, or `None` if there is no object with this id; none is
    /// created.
    ///
    /// A sliding object gets its full ttl; any other object keeps the time it has left.
    ///
    /// # Errors
    /// The errors of [`load`](Self::load) and [`create`](Self::create); [`ErrorKind::Limit`] after
    /// 100 conflicting attempts; [`ErrorKind::Configuration`] if `change` changes the id.
    pub async fn update<Q>(&self, id: &Q, mut change: impl FnMut(&mut T)) -> Result<Option<T>>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        let key = self.key(id);
        let store = &self.cache.0.store;
        for attempt in 0..UPDATE_ATTEMPTS {
            let Some((bytes, _)) = store.load(&key).await? else { return Ok(None) };
            let mut object = Self::open(&key, &bytes)?;
            change(&mut object);
            if self.key(object.id()) != key {
                let detail = "an update must not change the object's id; create the new object and remove the old one";
                return Err(Error::new(ErrorKind::Configuration, "update").detail(detail));
            }
            let expiry = T::SLIDING.then_some(T::TTL);
            let changed = self.seal(&key, &object)?;
            match store.swap(&key, bytes, changed, expiry).await? {
                Swapped::Done => return Ok(Some(object)),
                Swapped::Gone => return Ok(None),
                Swapped::Conflict(_) => self.back_off(attempt).await,
            }
        }
        let detail = format!("gave up after {UPDATE_ATTEMPTS} conflicting updates of one object");
        Err(Error::new(ErrorKind::Limit, "update").detail(detail))
    }

    /// Resets the object's remaining time to the full ttl. Returns `false` if there is no such
    /// object.
    ///
    /// # Errors
    /// Store errors.
    pub async fn touch<Q>(&self, id: &Q) -> Result<bool>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        self.cache.0.store.expire(&self.key(id), Some(T::TTL)).await
    }

    /// Removes the object. Returns `false` if there was none.
    ///
    /// # Errors
    /// Store errors.
    pub async fn remove<Q>(&self, id: &Q) -> Result<bool>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        self.cache.0.store.delete(&self.key(id)).await
    }

    /// Returns how long the object lives if it is not used again, or `None` if there is none.
    ///
    /// # Errors
    /// Store errors.
    pub async fn ttl<Q>(&self, id: &Q) -> Result<Option<Duration>>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        Ok(self.cache.0.store.load(&self.key(id)).await?.and_then(|(_, left)| left))
    }

    /// Returns the key: `<namespace>:<name>:<id>@object`.
    fn key<Q: KeyPart + ?Sized>(&self, id: &Q) -> String {
        let mut args = KeyText::new();
        KeyWriter::new(&mut args).member(id);
        let mut out = String::new();
        key::write_value_key(
            &mut out,
            &self.cache.0.namespace,
            &key::clean_name(T::NAME.into()),
            args.as_str(),
            "object",
        );
        out
    }

    fn seal(&self, key: &str, object: &T) -> Result<Bytes> {
        let engine = &self.cache.0;
        let envelope = Envelope {
            codec: T::Codec::ID,
            present: true,
            fill_id: crate::random::u64(),
            created: engine.store.now(),
            fresh_for: T::TTL,
            stale_for: Duration::ZERO,
            cost: Duration::ZERO,
            versions: None,
            tags: Vec::new(),
        };
        let record = envelope.seal(key, |out| T::Codec::encode(object, out).map(|()| T::Codec::ID))?;
        let max = engine.limits.max_value_bytes;
        if record.len() > max {
            let detail = format!(
                "the encoded object has {} bytes, the limit is {max}; see `CacheBuilder::max_value_bytes`",
                record.len()
            );
            return Err(Error::new(ErrorKind::Limit, "encode").detail(detail));
        }
        Ok(record.into())
    }

    fn open(key: &str, bytes: &Bytes) -> Result<T> {
        let broken = |reason: &str| Error::new(ErrorKind::Decode, "load").detail(format!("`{}`: {reason}", T::NAME));
        let (envelope, payload_at) = Envelope::open(bytes, key).map_err(|unreadable| broken(unreadable.reason()))?;
        if envelope.codec != T::Codec::ID {
            return Err(broken("the object was stored with another codec; read it with that one, and save it anew"));
        }
        T::Codec::decode(bytes.get(payload_at..).unwrap_or_default()).map_err(|error| {
            broken("the stored fields do not fit the type; give new fields `#[serde(default)]`").source(error)
        })
    }

    /// Waits a short random time that grows with each attempt. Conflicting updates come in bursts;
    /// the pause lets one of them through.
    async fn back_off(&self, attempt: u32) {
        let most = Duration::from_micros(200).saturating_mul(attempt.min(50));
        self.cache.0.clock.sleep(most.mul_f64(crate::random::fraction())).await;
    }
}
