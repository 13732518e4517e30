//! Logging in and out.

use std::time::Duration;

use super::error::{SessionError, SessionErrorKind};
use super::messages::CSRF;
use super::meta::Meta;
use super::record::Record;
use super::{Result, Session};

/// Longer names of users are not stored.
const MAX_USER_BYTES: usize = 256;

impl Session {
    /// Logs a user in: the session gets another id, keeps what an anonymous visitor had in it, and is entered in the user's list. The old id is
    /// dead when the answer leaves. Of another user's session nothing is kept.
    ///
    /// It is stored with the answer; where [`max_sessions`](super::SessionBuilder::max_sessions) refuses logins, at once. A login that was
    /// refused changes nothing.
    ///
    /// Call it again whenever the user has shown who they are, as before a payment: [`auth_age`](Self::auth_age) begins anew.
    ///
    /// # Errors
    /// [`SessionErrorKind::TooManySessions`] where [`max_sessions`](super::SessionBuilder::max_sessions) says so;
    /// [`Value`](SessionErrorKind::Value) for a user without a name, or with one over 256 bytes.
    pub async fn login(&self, user: impl Into<String>) -> Result<()> {
        let user: String = user.into();
        if user.is_empty() || user.len() > MAX_USER_BYTES {
            let detail = "the user has a name of 1 to 256 bytes";
            return Err(SessionError::new(SessionErrorKind::Value).detail(detail));
        }
        let mut state = self.state.lock().await;
        let (now, name, device) = (self.sessions.now(), user.clone(), state.request.user_agent.clone());
        let records = self.sessions.config.user_agent;
        let login = move |record: &mut Record| {
            let mut meta = Meta::of(record);
            meta.user = Some(name.clone());
            meta.since = Some(now);
            if records {
                meta.device.clone_from(&device);
            }
            meta.store(record);
            // A token from before was perhaps somebody else's.
            record.remove(CSRF);
            Ok(())
        };
        state.login(&user, Box::new(login)).await
    }

    /// Ends the session, at once and whatever the handler answers, and has the browser forget its cookie. What is set after it begins a
    /// new one.
    ///
    /// # Errors
    /// Faults of the store: then it may live on.
    pub async fn logout(&self) -> Result<()> {
        self.state.lock().await.logout().await
    }

    /// Who is logged in.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn user(&self) -> Result<Option<String>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(Meta::of(&state.view).user)
    }

    /// How long ago the user has shown who they are; `None`: nobody is logged in.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn auth_age(&self) -> Result<Option<Duration>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(Meta::of(&state.view).since.map(|since| since.until(self.sessions.now())))
    }

    /// Ends all other sessions of the user who is logged in; how many there were.
    ///
    /// # Errors
    /// Faults of the store: then some may live on.
    pub async fn end_others(&self) -> Result<usize> {
        let mut state = self.state.lock().await;
        state.open().await?;
        match Meta::of(&state.view).user {
            None => Ok(0),
            Some(user) => self.sessions.end_all_but(&user, state.standing.as_ref()).await,
        }
    }
}
