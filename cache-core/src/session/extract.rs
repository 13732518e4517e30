//! For axum: the session as an argument of a handler, and its errors as answers.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
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
        self.status().into_response()
    }
}
