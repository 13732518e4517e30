//! One request's view of the application: its database handle, the logged-in reader, and the time
//! since it started.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use cache_core::session::{Flash, OptionalSession, Session};

use crate::app::App;
use crate::authors::{Author, author};
use crate::db::Db;
use crate::form::Next;
use crate::problem::Problem;

/// Taken by every handler that renders a page. For a visitor without a cookie, nothing is read from
/// the store.
pub(crate) struct Visit {
    pub(crate) db: Db,
    /// The logged-in reader.
    pub(crate) reader: Option<Arc<Author>>,
    /// `None` while the store is unavailable: pages are then shown as to visitors.
    session: Option<Session>,
    started: Instant,
}

/// The logged-in reader, for handlers that require one. Anyone else is redirected to the login.
pub(crate) struct LoggedIn(pub(crate) Arc<Author>);

impl Visit {
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn session(&self) -> Result<&Session, Problem> {
        self.session.as_ref().ok_or(Problem::NoSessions)
    }

    /// Returns the token for the forms of this page. Nothing is stored for a visitor without a
    /// session: the token is then in its own cookie.
    pub(crate) async fn csrf(&self) -> Result<String, Problem> {
        Ok(self.session()?.csrf_token().await?)
    }

    /// Adds a message for the next page.
    pub(crate) async fn flash(&self, text: impl Into<String>) -> Result<(), Problem> {
        Ok(self.session()?.flash("info", text).await?)
    }

    /// Returns the messages for this page, and removes them.
    pub(crate) async fn take_flashes(&self) -> Result<Vec<Flash>, Problem> {
        match &self.session {
            Some(session) => Ok(session.take_flashes().await?),
            None => Ok(Vec::new()),
        }
    }
}

impl FromRequestParts<App> for Visit {
    type Rejection = Problem;

    #[expect(clippy::disallowed_methods, reason = "the page shows how long it took; no decision depends on it")]
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let started = Instant::now();
        let db = app.db().visit();
        let Ok(OptionalSession(session)) = OptionalSession::from_request_parts(parts, app).await;
        let reader = match &session {
            Some(session) => reader(&db, session).await?,
            None => None,
        };
        Ok(Self { db, reader, session, started })
    }
}

impl FromRequestParts<App> for LoggedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let session = Session::from_request_parts(parts, app).await?;
        // A form that was sent is lost, so only a page is opened again after the login.
        let next = if parts.method == Method::GET { Next::to(parts.uri.path()) } else { Next::default() };
        reader(app.db(), &session).await?.map(Self).ok_or(Problem::LogIn(next))
    }
}

/// Returns the reader of a session. The session holds the author's id; the author is read like
/// everywhere else, mostly from the cache.
pub(crate) async fn reader(db: &Db, session: &Session) -> Result<Option<Arc<Author>>, Problem> {
    match session.user().await?.and_then(|id| id.parse().ok()) {
        Some(id) => Ok(author(db, id).await?),
        None => Ok(None),
    }
}
