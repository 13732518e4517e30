//! The sessions of one user: lists and ends them.

use std::fmt;
use std::sync::Arc;

use super::id::hash;
use super::stored::index::{Known, SessionInfo};
use super::stored::sessions::Sessions;
use super::web::layer::SessionLayer;
use super::{Result, Session};

/// The sessions of one user, from [`SessionLayer::of_user`].
#[derive(Clone)]
pub struct UserSessions {
    sessions: Arc<Sessions>,
    user: String,
}

impl SessionLayer {
    /// Returns the sessions in which this user is logged in, to list and to end them.
    #[must_use]
    pub fn of_user(&self, user: impl Into<String>) -> UserSessions {
        UserSessions { sessions: Arc::clone(&self.0), user: user.into() }
    }
}

impl UserSessions {
    /// Returns all sessions of the user, the one that ends first at the head. Costs one read for
    /// each session and one for the list.
    ///
    /// # Errors
    /// Store errors.
    pub async fn list(&self) -> Result<Vec<SessionInfo>> {
        self.sessions.tag_key(Known::Perhaps).await?;
        let found = self.sessions.living(&self.user).await?;
        Ok(found.into_iter().map(|living| self.sessions.info(living)).collect())
    }

    /// Ends one session, named by its handle in the list. Returns `false` if it has ended before,
    /// or has had another handle since: after a login or with another id.
    ///
    /// # Errors
    /// Store errors: the session may then still exist.
    pub async fn end(&self, handle: &str) -> Result<bool> {
        self.sessions.tag_key(Known::Perhaps).await?;
        let members = self.sessions.members(&self.user).await?;
        let found = members.into_iter().map(|(member, _)| member).find(|member| hash(member.as_bytes()) == handle);
        match found {
            None => Ok(false),
            Some(member) => Ok(self.sessions.end_members(&self.user, &[member]).await? > 0),
        }
    }

    /// Ends all sessions of the user and returns how many there were. Includes sessions whose id
    /// changes during the call.
    ///
    /// # Errors
    /// Store errors: some sessions may then still exist.
    pub async fn end_all(&self) -> Result<usize> {
        self.sessions.tag_key(Known::Perhaps).await?;
        self.sessions.end_all_but(&self.user, None).await
    }
}

impl Session {
    /// Returns this session's handle in the list of its user's sessions, or `None` if it is not
    /// stored yet. The handle changes with each login.
    ///
    /// # Errors
    /// Store errors.
    pub async fn handle(&self) -> Result<Option<String>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(state.current.as_ref().map(|current| hash(current.key.as_bytes())))
    }
}

impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSessions(..)")
    }
}
