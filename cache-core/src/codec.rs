//! How a value becomes bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// A codec: one way to turn values into bytes and back.
///
/// An own codec takes an id from `128..=255` that no other codec of the program has.
pub trait Codec: Send + Sync + 'static {
    /// Stands in every record; a record of another codec is a miss.
    const ID: u8;
    /// For messages.
    const NAME: &'static str;

    /// Appends the encoded value to `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if the codec has no form for this value.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Reads a value that takes up all of `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) for anything else. It must neither panic nor
    /// allocate more than a small multiple of `bytes`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T>;
}
