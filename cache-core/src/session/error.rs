//! Errors of sessions.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// An error of a session. As an axum response it becomes [its status](Self::status) with an empty
/// body; the text goes to the log only.
#[derive(Clone)]
pub struct SessionError {
    kind: SessionErrorKind,
    detail: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kind of a session error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionErrorKind {
    /// The store cannot be reached, or did not answer in time. A write that failed like this may
    /// have happened or not.
    Unavailable,
    /// The store answered with a refusal: read-only, out of memory.
    Refused,
    /// The session has ended in the meantime, by a logout elsewhere or by its timeout. It is not
    /// recreated.
    Gone,
    /// The name cannot be used for a value.
    ReservedName,
    /// The value cannot be stored, or is not of the requested type.
    Value,
    /// The session is larger than [`SessionBuilder::max_bytes`](super::SessionBuilder::max_bytes).
    TooLarge,
    /// Too many other requests changed the session at the same time.
    Conflict,
    /// The response is already being sent, so nothing can be changed.
    Answered,
    /// The user has the maximum number of sessions.
    TooManySessions,
    /// The client would not get its cookie, so nothing was stored: the cookie is `Secure`, and the
    /// request came over plain HTTP.
    NoCookie,
    /// No usable id could be made.
    Id,
    /// The store set with [`SessionBuilder::store`](super::SessionBuilder::store) does not support
    /// the operation.
    Unsupported,
    /// The request has not passed through a [`SessionLayer`](super::SessionLayer), or is outside
    /// the cookie's path.
    NoLayer,
}

impl SessionError {
    pub(super) fn new(kind: SessionErrorKind) -> Self {
        Self { kind, detail: None, source: None }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> SessionErrorKind {
        self.kind
    }

    /// Returns the status that a response should have: 503 if a retry may work, 409 for a login
    /// over the limit, otherwise 500.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self.kind {
            SessionErrorKind::Unavailable | SessionErrorKind::Refused | SessionErrorKind::Conflict => {
                http::StatusCode::SERVICE_UNAVAILABLE
            }
            SessionErrorKind::TooManySessions => http::StatusCode::CONFLICT,
            _ => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Closed => SessionErrorKind::Unavailable,
            ErrorKind::Limit => SessionErrorKind::TooLarge,
            ErrorKind::Encode | ErrorKind::Decode => SessionErrorKind::Value,
            _ => SessionErrorKind::Refused,
        };
        Self::new(kind).source(error)
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what();
        match &self.detail {
            Some(detail) => write!(f, "{what}: {detail}"),
            None => f.write_str(what),
        }
    }
}

/// An error of a session that became the response, for the layer to report.
#[derive(Debug, Clone)]
pub(super) struct FailedAnswer(pub(super) Arc<str>);

impl SessionError {
    /// Returns a description that contains nothing of the session.
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            SessionErrorKind::Unavailable => "the session store is unavailable",
            SessionErrorKind::Refused => "the session store refused the operation",
            SessionErrorKind::Gone => "the session has ended",
            SessionErrorKind::ReservedName => "the name is reserved",
            SessionErrorKind::Value => "the value cannot be stored or read",
            SessionErrorKind::TooLarge => "the session is too large",
            SessionErrorKind::Conflict => "too many other requests changed the session at the same time",
            SessionErrorKind::Answered => "the response is already being sent, so the session can no longer be changed",
            SessionErrorKind::TooManySessions => "the user already has the maximum number of sessions",
            SessionErrorKind::NoCookie => "the request used plain HTTP, and the session cookie is for HTTPS only",
            SessionErrorKind::Unsupported => "the session store does not support this operation",
            SessionErrorKind::Id => "no usable session id could be generated",
            SessionErrorKind::NoLayer => "the request did not pass through a session layer",
        }
    }
}

impl fmt::Debug for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionError")
            .field("kind", &self.kind)
            .field("detail", &self.detail)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for SessionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Returns the error for an id that cannot be used.
pub(super) fn bad_id() -> SessionError {
    SessionError::new(SessionErrorKind::Id)
        .detail("`generate_id` returned an id that is empty, longer than 256 bytes or contains white space")
}
