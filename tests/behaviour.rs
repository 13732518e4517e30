//! What the library promises, by the ids of the list of behaviours.

mod coherence;
mod environment;
mod freshness;
mod key_names;
mod objects;
mod plain;
mod processes;
mod races;
mod redis_store;
mod round_trips;
mod shapes;
mod single_flight;
mod store_conformance;
mod values;
