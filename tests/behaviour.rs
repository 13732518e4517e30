//! What the library promises, by the ids of the list of behaviours.

mod coherence;
mod environment;
mod fence;
mod freshness;
mod function_stats;
mod invalidates;
mod invalidation;
mod key_names;
mod meter;
mod objects;
mod plain;
mod processes;
mod races;
mod read_batch;
mod redis_store;
mod round_trips;
mod sessions;
mod shapes;
mod single_flight;
mod store_conformance;
mod store_fences;
mod store_sessions;
mod store_versions;
mod tags;
mod values;
mod why;
