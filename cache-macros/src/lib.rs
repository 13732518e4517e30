//! The attribute and the derives of `cache-core`; use them through that crate.
