//! JSON, for records that people read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, decode_error, encode_error};
use crate::error::Result;

/// JSON: slower and larger, readable in `redis-cli`.
///
/// `Some(None)` is read back as `None`. Infinities cannot be read back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    const ID: u8 = 4;
    const NAME: &'static str = "JSON";
    const SELF_DESCRIBING: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(out, value).map_err(encode_error)
    }

    // serde_json bounds depth itself, reports no lengths before it has read the elements, and
    // requires the end of the input.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|_| decode_error(Self::NAME))
    }
}
