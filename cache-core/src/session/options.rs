//! The values that settings choose from.

use std::time::Duration;

use http::HeaderName;

#[cfg(doc)]
use super::SessionBuilder;
use crate::clock::Timestamp;

/// When the cookie has the attribute `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Secure {
    /// Always. In the modes of Express nothing is stored for a client on plain HTTP, which would
    /// not get the cookie.
    Always,
    /// Never.
    Never,
    /// If the session was begun over HTTPS. [`SessionBuilder::proxy`] and [`SessionBuilder::https`]
    /// determine how that is detected.
    Auto,
}

/// To which requests from other sites a browser adds the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// To no request.
    Strict,
    /// To navigations.
    Lax,
    /// To all requests; needs `Secure`.
    None,
    /// `None` if the session was begun over HTTPS, otherwise `Lax`.
    Auto,
}

/// Which cookies a browser keeps longest when it has too many.
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
    /// The stored session stays as it is.
    #[default]
    Keep,
    /// The stored session is deleted.
    Destroy,
}

/// How the client sends its id. A session keeps the transport with which it was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A signed cookie.
    Cookie,
    /// `Authorization: Bearer <token>`. The response header `Session-Token` carries a new token.
    Bearer,
    /// A header with this name, in requests and responses.
    Header(HeaderName),
}

/// What happens at a login of a user who has the maximum number of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooMany {
    /// The session that would end first is ended, in the step that stores the new one.
    EndOldest,
    /// The login fails with
    /// [`SessionErrorKind::TooManySessions`](super::SessionErrorKind::TooManySessions). To be able
    /// to report this, [`login`](super::Session::login) then writes at once, together with all
    /// earlier changes of the request.
    Refuse,
}

/// The attributes of the cookie.
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
    /// Returns the defaults of each mode.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long browser and store keep a session after its last use. In Express this is
    /// `cookie.maxAge`, in milliseconds. Default: until the browser is closed, and in the store for
    /// [`SessionBuilder::ttl`].
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Sets [`max_age`](Self::max_age) to the time left until `expires` when the session begins.
    /// Default: none.
    #[must_use]
    pub fn expires(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Sets whether the browser sends the cookie over HTTPS only. Default: `Always`; in the modes
    /// of Express `Never`.
    #[must_use]
    pub fn secure(mut self, secure: Secure) -> Self {
        self.secure = Some(secure);
        self
    }

    /// Sets whether scripts cannot read the cookie. Default: `true`.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = Some(http_only);
        self
    }

    /// Sets the domain whose hosts get the cookie. Not allowed if the cookie's name begins with
    /// `__Host-`. Default: this host only.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets the path below which the browser sends the cookie. Requests to other paths have no
    /// session. Default: `/`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Sets to which requests from other sites the browser adds the cookie. Default: `Lax`; in the
    /// modes of Express the attribute is left out, which browsers treat much the same.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// Sets `Partitioned`: a separate cookie jar for each site that embeds this one. Needs
    /// `Secure`. Default: `false`.
    #[must_use]
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.partitioned = partitioned;
        self
    }

    /// Sets which cookies the browser keeps longest. Default: left out.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }
}

/// Returns whether a text can be a domain or a path without ending its attribute.
pub(super) fn is_attribute_text(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b';')
}

/// Returns whether this can be the name of a cookie: a token of RFC 9110.
pub(super) fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens() {
        assert!(is_cookie_name("connect.sid") && is_cookie_name("__Host-id"));
        assert!(
            !is_cookie_name("")
                && !is_cookie_name("a b")
                && !is_cookie_name("a=b")
                && !is_cookie_name("a;b")
                && !is_cookie_name("é")
        );
    }
}
