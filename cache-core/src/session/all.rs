//! All sessions of a layer: for a person who looks after a system, never for a request.
//!
//! Each of these goes through all keys of the database, a bounded page at a time, as connect-redis' `length`, `ids`, `all` and `clear` do: the
//! store goes on serving others, but the work grows with all that is in it. Ids never leave: a handle, which is the hash of what stands in the
//! key, tells sessions apart and lets nobody in.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use futures::future::try_join_all;

use super::Result;
use super::commit::Sessions;
use super::config::Form;
use super::error::{SessionError, SessionErrorKind};
use super::id::hash;
use super::index::{FOR_EVER, SessionInfo};
use super::layer::SessionLayer;
use crate::cell::Listed;

/// All sessions of a layer, from [`SessionLayer::all`].
///
/// What is listed is what begins with the layer's prefix: another layer whose prefix begins with this one's is part of it. A session that
/// begins or ends meanwhile may be missed or counted.
///
/// A store given by [`SessionBuilder::store`](super::SessionBuilder::store) cannot list its keys: each of these is
/// [`Unsupported`](SessionErrorKind::Unsupported) there.
#[derive(Clone)]
pub struct AllSessions {
    sessions: Arc<Sessions>,
}

impl SessionLayer {
    /// All sessions, whoever's, for administration. Each look goes through the whole database: not for requests.
    #[must_use]
    pub fn all(&self) -> AllSessions {
        AllSessions { sessions: Arc::clone(&self.0) }
    }
}

impl AllSessions {
    /// How many there are: `length` of connect-redis. Nothing of them is read.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn length(&self) -> Result<u64> {
        let mut pages = self.pages();
        let mut length = 0_u64;
        while let Some(keys) = pages.next().await? {
            length = length.saturating_add(keys.len() as u64);
        }
        Ok(length)
    }

    /// Their handles, in no order: in the place of connect-redis' `ids`, which would let its reader in as anybody.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn handles(&self) -> Result<Vec<String>> {
        let mut pages = self.pages();
        let mut handles = Vec::new();
        while let Some(keys) = pages.next().await? {
            handles.extend(keys.iter().map(|key| hash(key.as_bytes())));
        }
        Ok(handles)
    }

    /// What is known of each, without its values, in no order: in the place of connect-redis' `all`. What is no session is left out. One read each.
    ///
    /// # Errors
    /// Faults of the store.
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

    /// Ends all of them, and deletes the lists of users; how many there were. A login that comes meanwhile may stay.
    ///
    /// # Errors
    /// Faults of the store: then some may live on.
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

    /// The keys of all sessions, in each form in which they may stand.
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

/// Keys with one of some prefixes, page by page.
struct Pages<'a> {
    sessions: &'a Sessions,
    /// The last is the one at hand.
    prefixes: Vec<String>,
    kind: Listed,
    next: u64,
    /// The store may list a key twice.
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
