//! Who is logged in: sessions in the cache's store, of browsers and of programs.

use std::time::Duration;

use cache_core::Cache;
use cache_core::session::{CookieOptions, Secret, Secure, SessionBuilder, SessionLayer, Transport, UserSessions};

use crate::config::{Config, StartError};

/// A session ends this long after its login, however often it is used.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);
/// With "remember me", this long after its last use. Without, when the browser is closed, or after a day.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// Two layers with one secret and one list of sessions for each user. A session goes by the layer that it was begun with:
/// a token is of no use as a cookie, and a cookie of none as a token.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// By cookie, for the pages.
    pub browsers: SessionLayer,
    /// By `Authorization: Bearer`, for the JSON API.
    pub programs: SessionLayer,
}

impl Sessions {
    /// `database`: which one, so that nobody is let in on another one whose authors have the same
    /// numbers, whatever else two instances share.
    pub(crate) fn open(cache: &Cache, config: &Config, database: i64) -> Result<Self, StartError> {
        let secret = Secret::new(config.session_secret.clone().unwrap_or_else(Secret::generate));
        let layer = || {
            let prefix = format!("sess:{database:08x}:");
            let builder = SessionLayer::builder(cache).prefix(prefix).secret(secret.clone());
            builder.absolute_timeout(LONGEST).record_user_agent(true)
        };
        let build = |layer: SessionBuilder| {
            layer.build().map_err(|error| StartError::Setting(format!("SESSION_SECRET: {error}")))
        };
        let browsers = if config.insecure_cookie {
            // `__Host-`, with which the usual name begins, is for secure cookies.
            layer().native_name("blog-id").cookie(CookieOptions::new().secure(Secure::Never))
        } else {
            layer()
        };
        Ok(Self { browsers: build(browsers)?, programs: build(layer().transports([Transport::Bearer]))? })
    }

    /// All sessions of a user, of both kinds.
    pub(crate) fn of(&self, author: i64) -> UserSessions {
        self.browsers.of_user(author.to_string())
    }
}
