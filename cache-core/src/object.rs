//! Objects that live in the cache's store: a cart, a draft, a session. `#[derive(CacheObject)]`
//! declares one.
//!
//! Unlike a cached value, an object cannot be computed again. So its key contains no fingerprint,
//! and its codec reads by field name: a build with another struct reads what it can
//! (`#[serde(default)]` fills in missing fields). What it cannot read is an error, never a miss.
//! Store errors are returned too.

mod derived;
mod host;
mod of_form;

use std::borrow::Borrow;
use std::fmt;
use std::time::Duration;

#[cfg(feature = "macros")]
pub use cache_macros::CacheObject;

use self::derived::Derived;
pub(crate) use self::host::CellHost;
use self::of_form::ObjectKeys;
pub use self::of_form::{ObjectType, ObjectsOf};
use crate::cache::Cache;
pub use crate::cell::ObjectForm;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::key::KeyPart;
use crate::value::codec::Codec;
use crate::value::return_type::CacheValue;

/// A type whose values are stored as objects. Implement it with `#[derive(CacheObject)]`:
///
/// ```
/// # use cache_core::object::CacheObject;
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
        let host = CellHost::from(self);
        Objects(ObjectsOf::new(host.clone(), Derived::new(host)))
    }
}

/// The objects of one type in one cache, from [`Cache::objects`].
///
/// Every operation is one round trip; [`update`](Self::update) is two, and one more for each
/// conflict. If a write is dropped, or fails as [unavailable](ErrorKind::Unavailable), it may have
/// happened or not.
pub struct Objects<T>(ObjectsOf<Derived<T>>);

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: CacheObject> fmt::Debug for Objects<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&T::NAME).finish()
    }
}

impl<T: CacheObject> Objects<T> {
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
        self.0.load_at(self.place(id)).await
    }

    /// Stores a new object. Returns `false` if an object with this id exists; that object is not
    /// changed.
    ///
    /// # Errors
    /// Store errors; [`ErrorKind::Encode`] and [`ErrorKind::Limit`] for an object that cannot be
    /// stored.
    pub async fn create(&self, object: &T) -> Result<bool> {
        self.0.create(object).await
    }

    /// Stores an object with its full ttl, and overwrites any object with this id. To change an
    /// object without losing concurrent changes, use [`update`](Self::update).
    ///
    /// # Errors
    /// The same as [`create`](Self::create).
    pub async fn save(&self, object: &T) -> Result<()> {
        self.0.overwrite(self.place(object.id()), object).await
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
    /// 1000 conflicting attempts; [`ErrorKind::Configuration`] if `change` changes the id.
    pub async fn update<Q>(&self, id: &Q, change: impl FnMut(&mut T)) -> Result<Option<T>>
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        self.0.update_at(self.place(id), change).await
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
        self.0.touch_at(self.place(id)).await
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
        self.0.remove_at(self.place(id)).await
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
        self.0.ttl_at(self.place(id)).await
    }

    fn place<Q>(&self, id: &Q) -> ObjectKeys
    where
        T::Id: Borrow<Q>,
        Q: KeyPart + ?Sized,
    {
        ObjectKeys { key: Derived::<T>::key_of(self.0.namespace(), id), list: None }
    }
}
