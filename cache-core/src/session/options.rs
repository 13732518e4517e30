//! What settings choose from.

use std::time::Duration;

use http::HeaderName;

#[cfg(doc)]
use super::SessionBuilder;
use crate::clock::Timestamp;

/// When a cookie says `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Secure {
    /// Always. In the modes of Express nothing is stored for a client of plain HTTP, which would not get the cookie.
    Always,
    /// Never.
    Never,
    /// If the session was begun by HTTPS: [`SessionBuilder::proxy`] and [`SessionBuilder::https`] say how that is known.
    Auto,
}

/// To which requests of other sites a browser adds the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// To none.
    Strict,
    /// To navigations.
    Lax,
    /// To all; needs `Secure`.
    None,
    /// `None` if the session was begun by HTTPS, else `Lax`.
    Auto,
}

/// Which cookies a browser that has too many keeps longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Priority {
    /// `Priority=Low`
    Low,
    /// `Priority=Medium`
    Medium,
    /// `Priority=High`
    High,
}

/// What [`Session::unset`](super::Session::unset) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unset {
    /// What is stored stays as it is.
    #[default]
    Keep,
    /// It is deleted.
    Destroy,
}

/// How the client shows its id. A session goes by the one that it was begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A signed cookie.
    Cookie,
    /// `Authorization: Bearer <token>`. The answer's header `Session-Token` carries a new one.
    Bearer,
    /// A header of this name, in requests and answers.
    Header(HeaderName),
}

/// What happens at a login of somebody who has as many sessions as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooMany {
    /// The session that would end first is ended, in the step that stores the new one.
    EndOldest,
    /// The login fails with [`SessionErrorKind::TooManySessions`](super::SessionErrorKind::TooManySessions). So that it can say so,
    /// [`login`](super::Session::login) then writes at once, with all that was changed before.
    Refuse,
}

/// The cookie's attributes.
#[derive(Debug, Clone, Default)]
pub struct CookieOptions {
    pub(super) max_age: Option<Duration>,
    pub(super) expires: Option<Timestamp>,
    pub(super) secure: Option<Secure>,
    pub(super) http_only: Option<bool>,
    pub(super) domain: Option<String>,
    pub(super) path: Option<String>,
    pub(super) same_site: Option<SameSite>,
    pub(super) partitioned: bool,
    pub(super) priority: Option<Priority>,
}

impl CookieOptions {
    /// As each mode has them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long browser and store keep a session after its last use. Express's `cookie.maxAge`, which counts milliseconds. Default: until
    /// the browser is closed, and in the store for [`SessionBuilder::ttl`].
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// As [`max_age`](Self::max_age), until a time: what is left of it when the session begins. Default: none.
    #[must_use]
    pub fn expires(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Whether the browser sends it by HTTPS only. Default: `Always`; in the modes of Express `Never`.
    #[must_use]
    pub fn secure(mut self, secure: Secure) -> Self {
        self.secure = Some(secure);
        self
    }

    /// Whether scripts cannot read it. Default: true.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = Some(http_only);
        self
    }

    /// The domain whose hosts get it. Not with a name that begins with `__Host-`. Default: this host alone.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Below which path the browser sends it. Requests elsewhere have no session. Default: `/`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Default: `Lax`; in the modes of Express it is left out, which browsers take for much the same.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// `Partitioned`: a jar of its own for each site that embeds this one. Needs `Secure`. Default: false.
    #[must_use]
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.partitioned = partitioned;
        self
    }

    /// Default: left out.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }
}
