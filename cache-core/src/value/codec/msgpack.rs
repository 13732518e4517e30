//! MessagePack with structs as maps, so that fields are found by name.

use rmp_serde::decode::{Deserializer, Error as DecodeError};
use rmp_serde::encode::Serializer;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::limits::{BoundedSeed, Limits};
use super::{Codec, decode_error, encode_error, trailing_error};
use crate::error::Result;

/// MessagePack with field names: every serde feature works. `Some(None)` is read back as `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MsgPack;

impl Codec for MsgPack {
    const ID: u8 = 3;
    const NAME: &'static str = "MessagePack";
    const SELF_DESCRIBING: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        value.serialize(&mut Serializer::new(out).with_struct_map()).map_err(encode_error)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        let limits = Limits::of(bytes);
        let mut decoder = Deserializer::from_read_ref(bytes);
        let value = BoundedSeed::new(&limits).deserialize(&mut decoder).map_err(|_| decode_error(Self::NAME))?;
        // The decoder does not report its position. At the end of the input there is no further
        // marker to read, and only this error says so. One level is enough: any further value is
        // too much.
        decoder.set_max_depth(1);
        match IgnoredAny::deserialize(&mut decoder) {
            Err(DecodeError::InvalidMarkerRead(_)) => Ok(value),
            _ => Err(trailing_error()),
        }
    }
}
