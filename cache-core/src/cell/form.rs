//! How the objects of one type are stored: under which keys, and as which bytes.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::value::envelope::Envelope;

/// The key form and the codec of one type of stored objects.
///
/// `#[derive(CacheObject)]` declares one in the cache's own form. Sessions have one for the text of
/// Express and one for the native form. Implement it yourself for objects that need other keys or
/// other bytes, for example because another program reads them; see [`ObjectType`] for the rest.
///
/// Both directions are pure: they wait for nothing and are called again after each conflict.
///
/// [`ObjectType`]: crate::object::ObjectType
pub trait ObjectForm: Send + Sync + 'static {
    /// The type of the objects in memory. It is cloned once for each attempt to write.
    type Object: Clone + Send + Sync + 'static;
    /// What tells objects of this type apart.
    type Id: ?Sized;

    /// Returns the key of an object. `namespace` is that of the cache.
    ///
    /// Different ids need different keys, and no other type may use them: begin with the namespace
    /// and a name of this type. The key must not change from build to build.
    fn key(&self, namespace: &str, id: &Self::Id) -> String;

    /// Returns the bytes to store under this key.
    ///
    /// # Errors
    /// The object cannot be stored. The write fails with this error; nothing is written.
    fn encode(&self, key: &str, object: &Self::Object) -> Result<Vec<u8>>;

    /// Returns the object that these bytes contain, or `None` if they count as no object.
    ///
    /// # Errors
    /// The bytes are something else. The operation fails with this error, and the bytes stay as
    /// they are. [`Error::unreadable`] makes such an error.
    fn decode(&self, key: &str, bytes: &[u8]) -> Result<Option<Self::Object>>;
}

/// For key forms and codecs of your own.
impl Error {
    /// Makes an error of the kind [`ErrorKind::Decode`]. `reason` is fixed text, so it cannot
    /// contain stored data.
    #[must_use]
    pub fn unreadable(reason: &'static str) -> Self {
        Self::new(ErrorKind::Decode, "decode").detail(reason)
    }

    /// Makes an error of the kind [`ErrorKind::Encode`]. `reason` is fixed text, so it cannot
    /// contain the object.
    #[must_use]
    pub fn unwritable(reason: &'static str) -> Self {
        Self::new(ErrorKind::Encode, "encode").detail(reason)
    }
}

/// Encodes a record of the cache that depends on no versions: the native form of objects and
/// sessions. `write` appends the payload and returns its codec.
pub(crate) fn seal_record(
    key: &str,
    now: Timestamp,
    ttl: Duration,
    write: impl FnOnce(&mut Vec<u8>) -> Result<u8>,
) -> Result<Vec<u8>> {
    let envelope = Envelope {
        // The codec that `write` returns is stored.
        codec: 0,
        present: true,
        fill_id: crate::random::u64(),
        created: now,
        fresh_for: ttl,
        stale_for: Duration::ZERO,
        cost: Duration::ZERO,
        versions: None,
        tags: Vec::new(),
    };
    envelope.seal(key, write)
}

/// Returns the codec and the payload of a record of the cache, or the reason why it is none.
pub(crate) fn open_record<'a>(key: &str, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), &'static str> {
    let (envelope, payload_at) = Envelope::open(bytes, key).map_err(|unreadable| unreadable.reason())?;
    Ok((envelope.codec, bytes.get(payload_at..).unwrap_or_default()))
}
