//! Values: how they are typed, encoded, fingerprinted and wrapped in a record, and how long they
//! are fresh.

#[doc(hidden)]
pub mod codec;
pub(crate) mod envelope;
mod erased;
pub(crate) mod fingerprint;
pub(crate) mod freshness;
pub(crate) mod return_type;
pub(crate) mod rules;

#[cfg(feature = "macros")]
pub use cache_macros::{NotCacheable, ShareError};

pub(crate) use self::erased::{Erased, drop_caught};
pub use self::return_type::{BatchContainer, CacheValue, NotCacheable, Partial, ShareError, SharedError, Weigh};
