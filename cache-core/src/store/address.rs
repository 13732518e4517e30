//! Where a store is, in parts instead of a URL.

/// What was said of it. No `Debug`: a password is among it.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: Option<u16>,
    pub(crate) tls: Option<bool>,
}
