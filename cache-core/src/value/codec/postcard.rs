//! postcard 1: the wire format is documented and frozen.

use ::postcard::Deserializer;
use ::postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed};

use super::limits::{BoundedSeed, Limits};
use super::{Codec, decode_error, encode_error, trailing_error};
use crate::error::Result;

/// postcard 1: compact, positional, with a documented wire format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl Codec for Postcard {
    const ID: u8 = 2;
    const NAME: &'static str = "postcard";
    const SELF_DESCRIBING: bool = false;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        ::postcard::serialize_with_flavor(value, Append(out)).map_err(encode_error)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        let limits = Limits::of(bytes);
        let mut decoder = Deserializer::from_bytes(bytes);
        let value = BoundedSeed::new(&limits).deserialize(&mut decoder).map_err(|_| decode_error(Self::NAME))?;
        let rest = decoder.finalize().map_err(|_| decode_error(Self::NAME))?;
        if rest.is_empty() { Ok(value) } else { Err(trailing_error()) }
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> ::postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> ::postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> ::postcard::Result<()> {
        Ok(())
    }
}
