//! What the library promises, by the ids of the list of behaviours.

mod redis_store;
mod store_conformance;
