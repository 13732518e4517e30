//! What keeps processes, builds and callers from working against each other.

pub(crate) mod build_registry;
pub(crate) mod coherence;
pub(crate) mod consistency_meter;
pub(crate) mod keep_warm;
pub(crate) mod lease;
pub(crate) mod refresh;
pub(crate) mod single_flight;
