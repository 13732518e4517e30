//! Read-through caching for async Rust services.

mod background;
pub mod clock;
pub mod codec;
mod error;
pub mod events;
mod key;
mod random;
mod store;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod store_testing;

pub use error::{Error, ErrorKind, Result};
pub use key::{Key, KeyPart, KeyWriter, MAX_KEY_LEN};
