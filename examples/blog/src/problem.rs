//! What goes wrong in a request, as the page its reader gets.
//!
//! Invariant: internals go to the log and never into the page.

use std::time::Duration;

use axum::extract::rejection::{FormRejection, PathRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use cache_core::session::{SessionError, SessionErrorKind};

use crate::form::Next;
use crate::pages;

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The request makes no sense; the text says why.
    BadRequest(String),
    /// Only somebody who is logged in can do that. Where to go on afterwards.
    LogIn(Next),
    /// Not with this form, or not by this reader; the text says why.
    Forbidden(&'static str),
    /// There is no such thing.
    NotFound(&'static str),
    /// The address is right and the method is not.
    MethodNotAllowed,
    /// More was sent than is taken.
    TooLarge,
    /// Somebody has tried to log in too often. How long it goes on.
    TooManyAttempts(Duration),
    /// The store of the sessions cannot be reached, so nobody is known.
    NoSessions,
    /// The database has no connection left.
    Busy,
    /// There are as many requests as may be.
    Full,
    /// It took longer than a request may.
    TooSlow,
    /// Ours. Logged when it happened.
    Internal,
}

impl Problem {
    /// When it is worth another try; `None`: nobody knows.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyAttempts(left) => Some(*left),
            Self::Full => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// As a header: whole seconds, never too early.
pub(crate) fn retry_after(left: Duration) -> [(HeaderName, HeaderValue); 1] {
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    [(header::RETRY_AFTER, HeaderValue::from(seconds))]
}

/// For people.
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
                "Nobody can log in or write just now",
                "Reading works as ever. Please try again in a moment.".to_owned(),
            ),
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, "That did not make sense", text),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, "Not found", format!("There is no such {what} here.")),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not like this",
                "This address exists, but it cannot be used in this way.".to_owned(),
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
                "That is our fault, not yours. It has been written down; please try again.".to_owned(),
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
        Self::BadRequest("The form did not arrive as one.".to_owned())
    }
}
