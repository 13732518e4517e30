//! Tools for tests of code that caches, and for this library's own integration tests. Feature
//! `testing`.

#[cfg(feature = "sessions")]
mod session_store;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod sim;

#[cfg(feature = "sessions")]
pub use self::session_store::{BrokenPromise, check_session_store};

/// Returns the estimated weight of a value in the local tier, without its key and entry. Not a
/// stable interface; for this library's own tests.
#[doc(hidden)]
#[must_use]
pub fn weight<T: crate::value::CacheValue>(value: &T) -> usize {
    size_of::<T>().saturating_add(crate::value::codec::Coding::weigh(value, size_of::<T>()).unwrap_or(0))
}

/// The stored record, as the engine writes and reads it. Not a stable interface; for fuzzing and
/// abuse tests.
#[doc(hidden)]
pub mod record {
    use std::time::Duration;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::clock::Clock;
    use crate::error::{Error, ErrorKind, Result};
    use crate::key::{Key, write_value_key};
    use crate::value::codec::{Codec, Coding};
    use crate::value::envelope::{Envelope, Unreadable};

    /// Returns the record of a value under a key.
    ///
    /// # Errors
    /// If neither the codec nor MessagePack can encode the value.
    pub fn seal<C: Codec, T: Serialize + DeserializeOwned + 'static>(key: &str, value: &T) -> Result<Vec<u8>> {
        envelope().seal(key, |out| Coding::of::<C>().encode_checked(value, out, |_| {}))
    }

    /// Returns a record with a valid header around any payload: what a bug, or an attacker with
    /// access to Redis, could write.
    ///
    /// # Errors
    /// None in practice.
    pub fn seal_payload(key: &str, codec: u8, payload: &[u8]) -> Result<Vec<u8>> {
        envelope().seal(key, |out| {
            out.extend_from_slice(payload);
            Ok(codec)
        })
    }

    /// Reads a record as a hit does.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] for anything that is not a record of this key, codec and type.
    pub fn open<C: Codec, T: Serialize + DeserializeOwned + 'static>(key: &str, bytes: &[u8]) -> Result<T> {
        let unreadable = |why: Unreadable| Error::new(ErrorKind::Decode, "open").detail(why.reason());
        let (envelope, at) = Envelope::open(bytes, key).map_err(unreadable)?;
        (Coding::of::<C>().decode)(envelope.codec, bytes.get(at..).unwrap_or_default())
    }

    /// Returns the codec id and the payload of a record, or `None` if the bytes are not a record.
    #[must_use]
    pub fn payload<'a>(key: &str, bytes: &'a [u8]) -> Option<(u8, &'a [u8])> {
        let (envelope, at) = Envelope::open(bytes, key).ok()?;
        Some((envelope.codec, bytes.get(at..)?))
    }

    /// Returns the key as it is sent to Redis.
    #[must_use]
    pub fn value_key(namespace: &str, key: &Key, fingerprint: &str) -> String {
        let mut out = String::new();
        write_value_key(&mut out, namespace, key.name(), key.args(), fingerprint);
        out
    }

    fn envelope() -> Envelope {
        let clock = Clock::manual();
        Envelope {
            codec: 0,
            present: true,
            fill_id: 1,
            created: clock.wall(),
            fresh_for: Duration::from_secs(3600),
            stale_for: Duration::ZERO,
            cost: Duration::from_micros(5),
            versions: None,
            tags: Vec::new(),
        }
    }
}
