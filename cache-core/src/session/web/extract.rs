//! Support for axum: the session as an argument of a handler, and errors as responses.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::session::error::FailedAnswer;
use crate::session::{OptionalSession, Session, SessionError, SessionErrorKind};

/// Extracts the session of this request. Nothing is read from the store until its first use.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            let detail = "add `.layer(SessionLayer::builder(&cache)..build()?)` to the router; outside of the \
                cookie's path there are no sessions";
            SessionError::new(SessionErrorKind::NoLayer).detail(detail)
        })
    }
}

/// Extracts the session of this request and reads it at once. `None` if the store is unavailable,
/// or the request did not pass through a layer.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Infallible> {
        let OptionalSession(session) = OptionalSession::from_request_parts(parts, state).await?;
        Ok(session)
    }
}

/// Extracts the session of this request and reads it at once. Contains `None` if the store is
/// unavailable, or the request did not pass through a layer.
impl<S: Send + Sync> FromRequestParts<S> for OptionalSession {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(match parts.extensions.get::<Session>() {
            Some(session) => Self(session.is_available().await.then(|| session.clone())),
            None => Self(None),
        })
    }
}

impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = status.into_response();
        // Error texts contain names of values, but never the values.
        if self.kind() == SessionErrorKind::NoLayer {
            log_once(&self);
        } else if status == http::StatusCode::INTERNAL_SERVER_ERROR {
            // The layer makes it an event. Store errors are events already.
            response.extensions_mut().insert(FailedAnswer(self.to_string().into()));
        }
        response
    }
}

/// Logs that there is no layer, which could make it an event, once in a process.
fn log_once(_error: &SessionError) {
    #[cfg(feature = "tracing")]
    {
        static LOGGED: std::sync::Once = std::sync::Once::new();
        LOGGED.call_once(|| {
            tracing::error!(target: crate::observe::events::TARGET, error = %_error, "a session error became the response")
        });
    }
}
