//! The store's address in parts, where a URL is not at hand: `host`, `port`, `username`, `password`, `db`, `tls`.
//!
//! Invariant: nothing is guessed from two accounts of one thing. A part beside a URL that could say the same is an error, and no error or
//! `Debug` shows a password.

use super::CacheBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::store::address::Parts;

/// A setting from a file is often there and empty.
fn given(text: impl Into<String>) -> Option<String> {
    Some(text.into()).filter(|text| !text.is_empty())
}

impl CacheBuilder {
    /// The host of a Redis, instead of a URL: a name, or an IPv4 or IPv6 address. `port`, `db` and `tls` go with it.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.parts.host = Some(host.into());
        self
    }

    /// The port beside [`host`](Self::host). Default: 6379.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.parts.port = Some(port);
        self
    }

    /// Who logs in, as by Redis 6's `AUTH username password`. It goes with a password, and beside [`host`](Self::host) or a URL that names neither. Default:
    /// the server's `default` user. An empty text is none.
    #[must_use]
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.parts.username = given(username);
        self
    }

    /// The password, as it is: nothing in it is escaped. Beside [`host`](Self::host), or beside a URL that has none, so that the secret need not stand in a
    /// URL. Default: none. An empty text is none.
    #[must_use]
    #[doc(alias = "pass")]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.parts.password = given(password);
        self
    }

    /// The number of the database, beside [`host`](Self::host). Default: 0.
    #[must_use]
    pub fn db(mut self, db: u16) -> Self {
        self.parts.db = Some(db);
        self
    }

    /// Whether the connection to [`host`](Self::host) is encrypted, as with `rediss://` (feature `tls`). Default: false.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.parts.tls = Some(tls);
        self
    }

    /// What cannot be meant.
    pub(super) fn check_parts(&self) -> Result<()> {
        let Parts { host, port, username, password, db, tls } = &self.parts;
        let of_host =
            [("host", host.is_some()), ("port", port.is_some()), ("db", db.is_some()), ("tls", tls.is_some())];
        let of_login = [("username", username.is_some()), ("password", password.is_some())];
        let first = |parts: &[(&'static str, bool)]| parts.iter().find(|(_, set)| *set).map(|(name, _)| *name);
        let is_memory = self.url.as_deref().is_some_and(|url| super::in_memory(url).is_some());
        let detail = match (&self.url, first(&of_host), first(&of_login)) {
            (Some(_), Some(part), _) => format!("both a URL and `{part}`: the URL has a place for it; say one of them"),
            (Some(_), None, Some(part)) if is_memory => format!("`{part}` is of no use to `memory://`"),
            (None, Some(part), _) | (None, None, Some(part)) if host.is_none() => {
                format!("`{part}` without `host`: where is the server? Write `.host(\"127.0.0.1\")` beside it")
            }
            _ if username.is_some() && password.is_none() => "`username` without `password`".to_owned(),
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Configuration, "connect").detail(detail))
    }
}
