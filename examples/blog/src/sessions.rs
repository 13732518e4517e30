//! Sessions of browsers and of programs, in the cache's store.

use std::time::Duration;

use cache_core::Cache;
use cache_core::session::{CookieOptions, Secret, Secure, SessionBuilder, SessionLayer, Transport, UserSessions};

use crate::config::{Config, StartError};

/// How long a session lives after its login, however often it is used.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);
/// How long a session with "remember me" lives after its last use. Without it, a session ends when
/// the browser is closed, or after a day.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// Two layers with one secret and one list of sessions per user. A session is only valid in the
/// layer it was begun with: a token does not work as a cookie, and a cookie does not work as a
/// token.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// Uses a cookie, for the pages.
    pub browsers: SessionLayer,
    /// Uses `Authorization: Bearer`, for the JSON API.
    pub programs: SessionLayer,
}

impl Sessions {
    /// Makes both layers. `database` identifies the database: its sessions are not valid for
    /// another database whose authors have the same ids, whatever else two instances share.
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
            // The default name begins with `__Host-`, which needs a secure cookie.
            layer().native_name("blog-id").cookie(CookieOptions::new().secure(Secure::Never))
        } else {
            layer()
        };
        Ok(Self { browsers: build(browsers)?, programs: build(layer().transports([Transport::Bearer]))? })
    }

    /// Returns all sessions of a user, of both kinds.
    pub(crate) fn of(&self, author: i64) -> UserSessions {
        self.browsers.of_user(author.to_string())
    }
}
