//! What happens when the network, the server or the configuration is broken.

mod cache_down;
mod late_writes;
mod outstanding;
mod redis_configuration;
mod redis_down;
mod replicas;
mod rights;
mod set_up;
mod trips;
