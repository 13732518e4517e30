//! Values: how they are typed, encoded, fingerprinted and wrapped in a record, and how long they
//! are fresh.

pub mod codec;
pub(crate) mod envelope;
mod erased;
pub(crate) mod fingerprint;
pub(crate) mod freshness;
pub(crate) mod return_type;
pub(crate) mod rules;

pub(crate) use self::erased::{Erased, drop_caught};
