//! All sessions of a layer, for administration; never for a request.
//!
//! Each method scans all keys of the database in pages of bounded size, as `length`, `ids`, `all`
//! and `clear` of connect-redis do. The store keeps serving others, but the work grows with the
//! number of keys in it. Ids are never returned: a handle, which is the hash of the session's key,
//! identifies a session but gives no access to it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use futures::future::try_join_all;

use super::Result;
use super::config::Form;
use super::error::{SessionError, SessionErrorKind};
use super::id::hash;
use super::stored::index::{FOR_EVER, SessionInfo};
use super::stored::sessions::Sessions;
use super::web::layer::SessionLayer;
use crate::cell::Listed;

/// All sessions of a layer, from [`SessionLayer::all`].
///
/// A session belongs to the layer if its key begins with the layer's prefix. So another layer whose
/// prefix begins with this one's is included. A session that begins or ends during the scan may be
/// missed or included.
///
/// A store set with [`SessionBuilder::store`](super::SessionBuilder::store) cannot list its keys:
/// every method then returns [`Unsupported`](SessionErrorKind::Unsupported).
#[derive(Clone)]
pub struct AllSessions {
    sessions: Arc<Sessions>,
}

impl SessionLayer {
    /// Returns a handle to all sessions of all users, for administration. Each of its methods scans
    /// the whole database: do not use it in requests.
    #[must_use]
    pub fn all(&self) -> AllSessions {
        AllSessions { sessions: Arc::clone(&self.0) }
    }
}

impl AllSessions {
    /// Returns the number of sessions, like `length` of connect-redis. The sessions themselves are
    /// not read.
    ///
    /// # Errors
    /// Store errors.
    pub async fn length(&self) -> Result<u64> {
        let mut pages = self.pages();
        let mut length = 0_u64;
        while let Some(keys) = pages.next().await? {
            length = length.saturating_add(keys.len() as u64);
        }
        Ok(length)
    }

    /// Returns the handles of all sessions, in no particular order. This replaces `ids` of
    /// connect-redis, which would give its reader access to every session.
    ///
    /// # Errors
    /// Store errors.
    pub async fn handles(&self) -> Result<Vec<String>> {
        let mut pages = self.pages();
        let mut handles = Vec::new();
        while let Some(keys) = pages.next().await? {
            handles.extend(keys.iter().map(|key| hash(key.as_bytes())));
        }
        Ok(handles)
    }

    /// Returns what is known of each session, without its values, in no particular order. This
    /// replaces `all` of connect-redis. Keys that hold no session are skipped. Costs one read per
    /// session.
    ///
    /// # Errors
    /// Store errors.
    pub async fn list(&self) -> Result<Vec<SessionInfo>> {
        let for_ever = self.sessions.now().plus(FOR_EVER);
        let mut pages = self.pages();
        let mut list = Vec::new();
        while let Some(keys) = pages.next().await? {
            let found = try_join_all(keys.iter().map(|key| self.sessions.look(key, for_ever))).await?;
            list.extend(found.into_iter().flatten().map(|living| self.sessions.info(living)));
        }
        Ok(list)
    }

    /// Ends all sessions, deletes the lists of users, and returns how many sessions were ended. A
    /// login during the call may survive.
    ///
    /// # Errors
    /// Store errors: some sessions may then still exist.
    pub async fn clear(&self) -> Result<u64> {
        let mut pages = self.pages();
        let mut ended = 0_u64;
        while let Some(keys) = pages.next().await? {
            ended = ended.saturating_add(self.sessions.delete_members(&keys).await? as u64);
        }
        let mut pages = self.pages_of(vec![self.sessions.index_prefix()], Listed::Index);
        while let Some(keys) = pages.next().await? {
            try_join_all(keys.iter().map(|key| self.sessions.cells.remove(key, None))).await?;
        }
        Ok(ended)
    }

    /// Returns the keys of all sessions, in each form in which they may be stored.
    fn pages(&self) -> Pages<'_> {
        let config = &self.sessions.config;
        let prefix = |form: &Form| match form {
            Form::Express => config.prefix.clone(),
            Form::Native => format!("{}v1:", config.own_prefix()),
        };
        self.pages_of(config.forms(self.sessions.now()).iter().map(prefix).collect(), Listed::Bytes)
    }

    fn pages_of(&self, prefixes: Vec<String>, kind: Listed) -> Pages<'_> {
        Pages { sessions: &self.sessions, prefixes, kind, next: 0, seen: HashSet::new() }
    }
}

/// Keys that begin with one of several prefixes, page by page.
struct Pages<'a> {
    sessions: &'a Sessions,
    /// The last one is the current prefix.
    prefixes: Vec<String>,
    kind: Listed,
    next: u64,
    /// The keys returned so far. The store may list a key twice.
    seen: HashSet<String>,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Vec<String>>> {
        let Some(prefix) = self.prefixes.last() else { return Ok(None) };
        if !self.sessions.cells.lists() {
            let detail = "a store given by `SessionBuilder::store` cannot list its keys";
            return Err(SessionError::new(SessionErrorKind::Unsupported).detail(detail));
        }
        let (keys, next) = self.sessions.cells.list(prefix, self.kind, self.next).await?;
        self.next = next;
        if next == 0 {
            self.prefixes.pop();
        }
        Ok(Some(keys.into_iter().filter(|key| self.seen.insert(key.clone())).collect()))
    }
}

impl fmt::Debug for AllSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AllSessions(..)")
    }
}
