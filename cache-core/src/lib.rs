//! Read-through caching for async Rust services.

pub mod clock;
pub mod codec;
mod envelope;
mod error;
pub mod events;
mod fingerprint;
mod freshness;
#[cfg(test)]
mod golden;
mod key;
mod random;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::{Error, ErrorKind, Result};
pub use key::{Key, KeyPart, KeyWriter, MAX_KEY_LEN};
