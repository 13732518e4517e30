//! What happens when the network, the server or the configuration is broken.

mod cache_down;
mod redis_configuration;
mod redis_down;
mod replicas;
