//! What the web adds: the layer, the session of one request, and what clients send and get.

pub(super) mod attributes;
pub(super) mod cookie;
pub(super) mod devices;
#[cfg(feature = "axum")]
pub(super) mod extract;
pub(super) mod layer;
pub(super) mod login;
pub(super) mod messages;
pub(super) mod response;
pub(super) mod state;
