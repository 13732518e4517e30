//! bincode 2 in its standard configuration: variable-length integers, little endian.

use ::bincode::config::{Configuration, Limit, LittleEndian, Varint};
use ::bincode::enc::write::Writer;
use ::bincode::error::EncodeError;
use ::bincode::serde::{encode_into_writer, seed_decode_from_slice};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::limits::{BoundedSeed, Limits};
use super::{Codec, decode_error, encode_error, trailing_error};
use crate::error::Result;

/// bincode 2: compact, positional. The default.
///
/// Its crate is no longer maintained; [`Postcard`](super::Postcard) is an equal alternative.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bincode;

/// The maximum size of a Redis string. bincode's limit is a constant, so it cannot depend on the
/// input. [`BoundedSeed`] keeps a forged length from allocating: it has every text and byte string
/// borrowed from the input first.
const LIMIT: usize = 512 * 1024 * 1024;

fn config() -> Configuration<LittleEndian, Varint, Limit<LIMIT>> {
    ::bincode::config::standard().with_limit::<LIMIT>()
}

impl Codec for Bincode {
    const ID: u8 = 1;
    const NAME: &'static str = "bincode";
    const SELF_DESCRIBING: bool = false;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        encode_into_writer(value, Append(out), config()).map_err(encode_error)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        let limits = Limits::of(bytes);
        let (value, read) =
            seed_decode_from_slice(BoundedSeed::new(&limits), bytes, config()).map_err(|_| decode_error(Self::NAME))?;
        if read == bytes.len() { Ok(value) } else { Err(trailing_error()) }
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::result::Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
