//! What happens when the network, the server or the configuration is broken.

mod redis_configuration;
mod redis_down;
