//! The structural fingerprint of a value type. So far its interface only: every type has the same one.

use std::fmt;

use serde::de::DeserializeOwned;

/// What a type's stored form looks like, as a number. Displays as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) hash: u64,
    /// Whether every change of the type's fields changes the hash.
    pub(crate) complete: bool,
}

impl Fingerprint {
    /// Of a type.
    #[expect(clippy::extra_unused_type_parameters, reason = "the tracing is still to come")]
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        Self { hash: 0, complete: true }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}

/// The fingerprint in a key: of the type's structure, the function's version and the codec.
pub(crate) fn fingerprint_text(of_type: Fingerprint, version: u64, codec: u8) -> String {
    let mut bytes = [0; 17];
    let parts = of_type.hash.to_le_bytes().into_iter().chain(version.to_le_bytes()).chain([codec]);
    bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes))
}
