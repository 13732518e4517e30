//! The address of a store, in parts instead of a URL.

/// The parts that were set. No `Debug`, since it contains a password.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: Option<u16>,
    pub(crate) tls: Option<bool>,
}
