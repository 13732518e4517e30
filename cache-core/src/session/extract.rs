//! For axum: the session as an argument of a handler, and its errors as answers.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use super::{OptionalSession, Session, SessionError, SessionErrorKind};

/// The session of this request. Nothing is read for that: the first use does.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            let detail = "add `.layer(SessionLayer::builder(&cache)..build()?)` to the router, outside of the cookie's path there is none";
            SessionError::new(SessionErrorKind::NoLayer).detail(detail)
        })
    }
}

/// The session of this request, read at once; `None` if the store is away, or the request came
/// through no layer.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Infallible> {
        let OptionalSession(session) = OptionalSession::from_request_parts(parts, state).await?;
        Ok(session)
    }
}

/// The session of this request, read at once; none if the store is away.
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
        // Texts of errors name values, and never show one. Faults of the store are events, which
        // are told once.
        #[cfg(feature = "tracing")]
        if self.status() == http::StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a session's error became the answer");
        }
        self.status().into_response()
    }
}
