//! Objects that live in the cache's store: a cart, a draft, a session. `#[derive(CacheObject)]` declares one.
//!
//! Unlike a cached value an object cannot be computed again. So its key holds no fingerprint and its codec reads by field
//! name: a build with another struct reads what it can (`#[serde(default)]` fills in), and what it cannot read is an error,
//! never a miss. Faults of the store are errors too.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Cache;
use crate::codec::Codec;
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{self, KeyPart, KeyText, KeyWriter};
use crate::shape::CacheValue;
use crate::store::Swapped;

/// How often [`Objects::update`] tries against conflicting updates.
const UPDATE_ATTEMPTS: u32 = 100;

/// A type whose values are objects of the cache. By `#[derive(CacheObject)]`:
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
    /// The key's name; as [`Key::name`](crate::Key::name).
    const NAME: &'static str;
    /// How long an object lives without a write; sliding ones, without a use.
    const TTL: Duration;
    /// Whether a load prolongs the object's life.
    const SLIDING: bool;
    /// What tells one from another.
    type Id: KeyPart;
    /// Reads by field name, as MessagePack and JSON do: stored objects outlive the build that wrote them.
    type Codec: Codec;

    /// This object's id.
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
/// Every operation is one round trip, [`update`](Self::update) two where nobody interferes. Dropped or failed as
/// [unavailable](ErrorKind::Unavailable), a write may have happened or not.
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

    /// The object, if there is one. A sliding one whose time is half over gets all of it again, which is one more trip.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Decode`] if what is stored is no object of this type: it is left as it is.
    pub async fn load<Q>(&self, id: &Q) -> Result<Option<T>>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        let key = self.key(id);
        let store = &self.cache.0.store;
        let Some((bytes, left)) = store.load(&key).await? else { return Ok(None) };
        let object = Self::open(&key, &bytes)?;
        // Rarely, since each prolongation is a write that other processes are told of.
        if T::SLIDING && left.is_some_and(|left| left <= T::TTL.mul_f64(0.5)) {
            store.expire(&key, Some(T::TTL)).await?;
        }
        Ok(Some(object))
    }

    /// Stores a new object. `false`: there is one with this id, which stays as it is.
    ///
    /// # Errors
    /// Faults of the store; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for an object that cannot be stored.
    pub async fn create(&self, object: &T) -> Result<bool> {
        let key = self.key(object.id());
        let bytes = self.seal(&key, object)?;
        self.cache.0.store.create(&key, bytes, Some(T::TTL)).await
    }

    /// Stores an object whatever stands there, with its full time to live. For changes see [`update`](Self::update), which loses none.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn save(&self, object: &T) -> Result<()> {
        let key = self.key(object.id());
        let bytes = self.seal(&key, object)?;
        self.cache.0.store.put(&key, bytes, Some(T::TTL)).await
    }

    /// Changes an object by compare-and-swap: `change` is applied to what stands there, again if somebody else was
    /// faster, so that no update is lost. It may run several times. `None`: there is no such object; none is made.
    ///
    /// A sliding object gets its full time to live, another keeps the time it has left.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`create`](Self::create); [`ErrorKind::Limit`] after 100 attempts against others;
    /// [`ErrorKind::Configuration`] if `change` changes the id.
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

    /// Gives the object its full time to live. `false`: there is none.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn touch<Q>(&self, id: &Q) -> Result<bool>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        self.cache.0.store.expire(&self.key(id), Some(T::TTL)).await
    }

    /// Removes the object. `false`: there was none.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn remove<Q>(&self, id: &Q) -> Result<bool>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        self.cache.0.store.delete(&self.key(id)).await
    }

    /// How long the object will live if nobody uses it; `None`: there is none.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn ttl<Q>(&self, id: &Q) -> Result<Option<Duration>>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        Ok(self.cache.0.store.load(&self.key(id)).await?.and_then(|(_, left)| left))
    }

    /// `<namespace>:<name>:<id>@object`
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

    /// Conflicting updates come in bursts: a short random pause, longer each time, lets one of them through.
    async fn back_off(&self, attempt: u32) {
        let most = Duration::from_micros(200).saturating_mul(attempt.min(50));
        self.cache.0.clock.sleep(most.mul_f64(crate::random::fraction())).await;
    }
}
