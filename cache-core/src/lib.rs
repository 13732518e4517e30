//! Read-through caching for async Rust services.

mod background;
mod builder;
mod builds;
mod cache;
pub mod clock;
pub mod codec;
mod entry;
mod envelope;
mod error;
pub mod events;
mod fingerprint;
mod freshness;
#[cfg(test)]
mod golden;
mod key;
mod lease;
mod object;
mod options;
mod plain;
mod random;
mod read_through;
mod shape;
mod single_flight;
mod store;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod store_testing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use builder::{CACHE_URL, CacheBuilder};
pub use cache::Cache;
#[cfg(feature = "macros")]
pub use cache_macros::*;
pub use entry::{Bare, CachedEntry, UnboundEntry};
pub use error::{Error, ErrorKind, Result};
pub use key::{Key, KeyPart, KeyWriter, MAX_KEY_LEN};
pub use object::{CacheObject, Objects};
pub use options::{EntryOptions, FlightScope};
pub use plain::{PlainHash, PlainValues};
pub use shape::{CacheValue, ShareError, SharedError};
