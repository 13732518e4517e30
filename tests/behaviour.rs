//! What the library promises, by the ids of the list of behaviours.

mod freshness;
mod objects;
mod plain;
mod races;
mod redis_store;
mod shapes;
mod single_flight;
mod store_conformance;
mod values;
