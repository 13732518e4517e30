//! The store's address in parts, for programs that have no URL: `host`, `port`, `username`,
//! `password`, `db`, `tls`.
//!
//! Invariant: one setting comes from one place. A part given together with a URL that could contain
//! it is an error. No error and no `Debug` output contains a password.

use super::CacheBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::store::address::Parts;

/// Treats an empty text as not set: config files often contain empty settings.
fn given(text: impl Into<String>) -> Option<String> {
    Some(text.into()).filter(|text| !text.is_empty())
}

impl CacheBuilder {
    /// Sets the host of a Redis server, instead of a URL: a name, an IPv4 address or an IPv6
    /// address. Combine it with `port`, `db` and `tls`.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.parts.host = Some(host.into());
        self
    }

    /// Sets the port of [`host`](Self::host). Default: 6379.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.parts.port = Some(port);
        self
    }

    /// Sets the user name for the login (Redis 6 `AUTH username password`). Needs a password, and
    /// [`host`](Self::host) or a URL without a login. An empty text counts as not set. Default: the
    /// server's `default` user.
    #[must_use]
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.parts.username = given(username);
        self
    }

    /// Sets the password, without any escaping. Use it with [`host`](Self::host), or with a URL
    /// without a password to keep the secret out of the URL. An empty text counts as not set.
    /// Default: none.
    #[must_use]
    #[doc(alias = "pass")]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.parts.password = given(password);
        self
    }

    /// Sets the database number on [`host`](Self::host). Default: 0.
    #[must_use]
    pub fn db(mut self, db: u16) -> Self {
        self.parts.db = Some(db);
        self
    }

    /// Sets whether the connection to [`host`](Self::host) is encrypted, as with `rediss://`
    /// (feature `tls`). Default: `false`.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.parts.tls = Some(tls);
        self
    }

    /// Returns an error for a combination of parts that makes no sense.
    pub(super) fn check_parts(&self) -> Result<()> {
        let Parts { host, port, username, password, db, tls } = &self.parts;
        let of_host =
            [("host", host.is_some()), ("port", port.is_some()), ("db", db.is_some()), ("tls", tls.is_some())];
        let of_login = [("username", username.is_some()), ("password", password.is_some())];
        let first = |parts: &[(&'static str, bool)]| parts.iter().find(|(_, set)| *set).map(|(name, _)| *name);
        let is_memory = self.url.as_deref().is_some_and(|url| super::in_memory(url).is_some());
        let detail = match (&self.url, first(&of_host), first(&of_login)) {
            (Some(_), Some(part), _) => {
                format!("both a URL and `{part}` are set; put `{part}` into the URL, or remove the URL")
            }
            (Some(_), None, Some(part)) if is_memory => format!("`{part}` cannot be used with `memory://`; remove it"),
            (None, Some(part), _) | (None, None, Some(part)) if host.is_none() => {
                format!("`{part}` is set without `host`; add `.host(\"127.0.0.1\")`")
            }
            _ if username.is_some() && password.is_none() => {
                "`username` is set without `password`; add `.password(..)`".to_owned()
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Configuration, "connect").detail(detail))
    }
}
