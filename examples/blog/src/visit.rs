//! One request's view of the application: its database handle and how long it has been going on.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::db::Db;

/// Taken by every handler that makes a page.
pub(crate) struct Visit {
    pub(crate) db: Db,
    started: Instant,
}

impl Visit {
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl FromRequestParts<App> for Visit {
    type Rejection = Infallible;

    #[expect(clippy::disallowed_methods, reason = "the page says how long it took; no decision depends on it")]
    async fn from_request_parts(_parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self { db: app.db().visit(), started: Instant::now() })
    }
}
