//! Codecs: how a value becomes bytes.
//!
//! Invariant: decoding never panics and never takes much more memory than the input and the type
//! require; `bounded` wraps every binary format. `coding` detects values that a codec cannot read
//! back before they are stored.
//!
//! | codec | id | field names in the bytes | for |
//! |---|---|---|---|
//! | [`Bincode`] | 1 | no | the default |
//! | [`Postcard`] | 2 | no | as fast, smaller, maintained |
//! | [`MsgPack`] | 3 | yes | untagged, flattened and skipped fields, `serde_json::Value` |
//! | [`Json`] | 4 | yes | values that are readable in `redis-cli` |

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "bincode")]
mod bincode;
mod checked;
mod json;
mod limits;
mod lossy;
mod msgpack;
pub(crate) mod plain;
mod postcard;
mod weigh;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
pub use self::json::Json;
pub use self::msgpack::MsgPack;
pub use self::postcard::Postcard;

pub(crate) use self::checked::{Coding, Finding};

/// The codec used unless another one is named: [`Bincode`], or [`Postcard`] without the feature
/// `bincode`.
#[cfg(feature = "bincode")]
pub type DefaultCodec = Bincode;
/// The codec used unless another one is named: `Bincode`, or [`Postcard`] without the feature
/// `bincode`.
#[cfg(not(feature = "bincode"))]
pub type DefaultCodec = Postcard;

/// A codec: converts values to bytes and back.
///
/// A codec of your own needs an id from `128..=255` that no other codec of the program has.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a codec",
    note = "use `Bincode`, `Postcard`, `MsgPack` or `Json` from `cache_core::codec`, or implement `Codec`"
)]
pub trait Codec: Send + Sync + 'static {
    /// The id of the codec, stored in every record. A record of another codec is a miss.
    const ID: u8;
    /// The name for messages.
    const NAME: &'static str;
    /// Whether the bytes contain field names.
    ///
    /// If `false`, a value that leaves out a field (`skip_serializing_if`) is stored as
    /// [`MsgPack`]. If `true`, a value with `Some(None)`, which such formats write like `None`, is
    /// not stored.
    const SELF_DESCRIBING: bool;

    /// Appends the encoded value to `out`. After an error the caller discards what was appended.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if the codec cannot represent this value.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Decodes a value from all of `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the bytes are not exactly one value of this type. It must neither
    /// panic nor allocate more than a small multiple of `bytes`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T>;
}

fn encode_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "encode").source(error)
}

// Without the format's own message: it quotes the invalid bytes, and payloads stay out of errors.
fn decode_error(codec: &'static str) -> Error {
    Error::new(ErrorKind::Decode, "decode").detail(format!("the bytes are not valid {codec} for this type"))
}

fn trailing_error() -> Error {
    Error::new(ErrorKind::Decode, "decode").detail("there are more bytes after the value")
}

#[cfg(test)]
mod tests;
