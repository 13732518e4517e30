//! Tests with a broken network, server or configuration.

mod cache_down;
mod late_writes;
mod outstanding;
mod redis_configuration;
mod redis_down;
mod replicas;
mod rights;
mod set_up;
mod trips;
mod untracked;
