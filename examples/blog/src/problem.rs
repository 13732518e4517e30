//! Errors of a request, as the page that the reader gets.
//!
//! Invariant: internal details go to the log and never into the page.

use std::time::Duration;

use axum::extract::rejection::{FormRejection, PathRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use cache_core::session::{SessionError, SessionErrorKind};

use crate::form::Next;
use crate::pages;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The request is invalid; the text says why.
    BadRequest(String),
    /// The action needs a login. Contains where to continue afterwards.
    LogIn(Next),
    /// The form or the reader has no permission; the text says why.
    Forbidden(&'static str),
    /// The page or object does not exist.
    NotFound(&'static str),
    /// The address exists, but not with this method.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// Too many attempts to log in. Contains how long the block lasts.
    TooManyAttempts(Duration),
    /// The store of the sessions cannot be reached, so no reader is known.
    NoSessions,
    /// The database has no free connection.
    Busy,
    /// The limit of concurrent requests is reached.
    Full,
    /// The request took longer than allowed.
    TooSlow,
    /// An internal error. Logged when it happened.
    Internal,
}

impl Problem {
    /// Returns when a retry makes sense, or `None` if unknown.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyAttempts(left) => Some(*left),
            Self::Full => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// Returns the header, in whole seconds, rounded up.
pub(crate) fn retry_after(left: Duration) -> [(HeaderName, HeaderValue); 1] {
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    [(header::RETRY_AFTER, HeaderValue::from(seconds))]
}

/// Formats the time for people.
fn minutes(left: Duration) -> String {
    match left.as_secs().div_ceil(60) {
        0 | 1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after().map(retry_after);
        let (status, title, text) = match self {
            Self::LogIn(next) => return Redirect::to(&next.after("/login")).into_response(),
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, "Not allowed", text.to_owned()),
            Self::NoSessions => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Logging in and writing are not possible at the moment",
                "Reading still works. Please try again in a moment.".to_owned(),
            ),
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, "The request is not valid", text),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, "Not found", format!("This {what} does not exist.")),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not possible at this address",
                "This address exists, but not for this kind of request.".to_owned(),
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "Too large",
                "That was more text than this blog takes. Go back and shorten it.".to_owned(),
            ),
            Self::TooManyAttempts(left) => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many attempts",
                format!("There were too many attempts to log in. Please try again in {}.", minutes(left)),
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too busy",
                "There are too many visitors just now. Please try again in a moment.".to_owned(),
            ),
            Self::TooSlow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "That took too long",
                "It may have been done, or not. Please look before you try again.".to_owned(),
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too busy",
                "The database has too much to do. Please try again in a moment.".to_owned(),
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong",
                "This is an error of the blog. It has been logged; please try again.".to_owned(),
            ),
        };
        (retry_after, pages::problem(status, title, &text)).into_response()
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "a query failed");
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            _ => Self::Internal,
        }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        if error.kind() == SessionErrorKind::Gone {
            return Self::LogIn(Next::default());
        }
        tracing::warn!(%error, "a session cannot be used");
        if error.status() == StatusCode::SERVICE_UNAVAILABLE { Self::NoSessions } else { Self::Internal }
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Self::BadRequest("The address contains something that cannot be read.".to_owned())
    }
}

impl From<QueryRejection> for Problem {
    fn from(_: QueryRejection) -> Self {
        Self::BadRequest("The part of the address after the question mark cannot be read.".to_owned())
    }
}

impl From<FormRejection> for Problem {
    fn from(rejection: FormRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::TooLarge;
        }
        Self::BadRequest("The form could not be read.".to_owned())
    }
}
