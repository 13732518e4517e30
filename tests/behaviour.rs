//! What the library promises, by the ids of the list of behaviours.

mod coherence;
mod fence;
mod invalidation;
mod objects;
mod plain;
mod races;
mod redis_store;
mod shapes;
mod single_flight;
mod store_conformance;
mod store_versions;
mod tags;
mod values;
