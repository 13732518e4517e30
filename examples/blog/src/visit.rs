//! One request's view of the application: its database handle, who is logged in, and how long it has been going on.

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

/// Taken by every handler that makes a page. Nothing is read from the store for a visitor without a cookie.
pub(crate) struct Visit {
    pub(crate) db: Db,
    /// Who is logged in.
    pub(crate) reader: Option<Arc<Author>>,
    /// None while the store is away: pages are shown as to strangers.
    session: Option<Session>,
    started: Instant,
}

/// Who is logged in, for handlers that need somebody. Anybody else is sent to log in.
pub(crate) struct LoggedIn(pub(crate) Arc<Author>);

impl Visit {
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn session(&self) -> Result<&Session, Problem> {
        self.session.as_ref().ok_or(Problem::NoSessions)
    }

    /// For the forms of this page. Makes a session for a visitor who has none.
    pub(crate) async fn csrf(&self) -> Result<String, Problem> {
        Ok(self.session()?.csrf_token().await?)
    }

    /// Leaves a message for the next page.
    pub(crate) async fn flash(&self, text: impl Into<String>) -> Result<(), Problem> {
        Ok(self.session()?.flash("info", text).await?)
    }

    /// The messages for this page, which no other will show.
    pub(crate) async fn take_flashes(&self) -> Result<Vec<Flash>, Problem> {
        match &self.session {
            Some(session) => Ok(session.take_flashes().await?),
            None => Ok(Vec::new()),
        }
    }
}

impl FromRequestParts<App> for Visit {
    type Rejection = Problem;

    #[expect(clippy::disallowed_methods, reason = "the page says how long it took; no decision depends on it")]
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
        // What was sent is lost, so only a page is gone back to.
        let next = if parts.method == Method::GET { Next::to(parts.uri.path()) } else { Next::default() };
        reader(app.db(), &session).await?.map(Self).ok_or(Problem::LogIn(next))
    }
}

/// Sessions say who by the author's id. The author is read as everywhere, and mostly from the cache.
pub(crate) async fn reader(db: &Db, session: &Session) -> Result<Option<Arc<Author>>, Problem> {
    match session.user().await?.and_then(|id| id.parse().ok()) {
        Some(id) => Ok(author(db, id).await?),
        None => Ok(None),
    }
}
