//! Login and logout.

use std::time::Duration;

use super::state::CSRF;
use crate::session::error::{SessionError, SessionErrorKind};
use crate::session::stored::record::Record;
use crate::session::{Result, Session};

/// The longest user name that is stored.
const MAX_USER_BYTES: usize = 256;

impl Session {
    /// Logs a user in. The session gets another id, keeps the values of an anonymous visitor, and
    /// is added to the user's list. The old id becomes invalid when the response is sent. If
    /// another user was logged in, nothing of that session is kept.
    ///
    /// The login is stored with the response. If
    /// [`max_sessions`](crate::session::SessionBuilder::max_sessions) refuses logins, it is stored
    /// at once. A refused login changes nothing.
    ///
    /// Call it again whenever the user has proved their identity, for example before a payment:
    /// this resets [`auth_age`](Self::auth_age).
    ///
    /// # Errors
    /// [`SessionErrorKind::TooManySessions`] if
    /// [`max_sessions`](crate::session::SessionBuilder::max_sessions) refuses the login;
    /// [`Value`](SessionErrorKind::Value) for an empty user name, or one over 256 bytes.
    pub async fn login(&self, user: impl Into<String>) -> Result<()> {
        let user: String = user.into();
        if user.is_empty() || user.len() > MAX_USER_BYTES {
            let detail = "the user name must have 1 to 256 bytes";
            return Err(SessionError::new(SessionErrorKind::Value).detail(detail));
        }
        let mut state = self.state.lock().await;
        let (now, name, device) = (self.sessions.now(), user.clone(), state.request.user_agent.clone());
        let records = self.sessions.config.user_agent;
        let login = move |record: &mut Record| {
            record.meta.user = Some(name.clone());
            record.meta.since = Some(now);
            if records {
                record.meta.device.clone_from(&device);
            }
            // An older token may belong to another user.
            record.remove(CSRF);
            Ok(())
        };
        state.login(&user, Box::new(login)).await
    }

    /// Ends the session at once, whatever the handler responds, and makes the browser delete its
    /// cookie. Values set afterwards begin a new session.
    ///
    /// # Errors
    /// Store errors: the session may then still exist.
    pub async fn logout(&self) -> Result<()> {
        self.state.lock().await.logout().await
    }

    /// Returns the logged-in user.
    ///
    /// # Errors
    /// Store errors.
    pub async fn user(&self) -> Result<Option<String>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(state.view.meta.user.clone())
    }

    /// Returns the time since the user proved their identity, or `None` if no user is logged in.
    ///
    /// # Errors
    /// Store errors.
    pub async fn auth_age(&self) -> Result<Option<Duration>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(state.view.meta.since.map(|since| since.until(self.sessions.now())))
    }

    /// Ends all other sessions of the logged-in user and returns how many there were.
    ///
    /// # Errors
    /// Store errors: some sessions may then still exist.
    pub async fn end_others(&self) -> Result<usize> {
        let mut state = self.state.lock().await;
        state.open().await?;
        match &state.view.meta.user {
            None => Ok(0),
            Some(user) => self.sessions.end_all_but(user, state.current.as_ref()).await,
        }
    }
}
