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
use super::id::hash;
use super::index::{FOR_EVER, SessionInfo};
use super::layer::SessionLayer;
use crate::store::Kind;

/// All sessions of a layer, from [`SessionLayer::all`].
///
/// What is listed is what begins with the layer's prefix: another layer whose prefix begins with this one's is part of it. A session that
/// begins or ends meanwhile may be missed or counted.
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
        let mut pages = self.pages(self.prefix(), Kind::Bytes);
        let mut length = 0_u64;
        while let Some(members) = pages.next().await? {
            length = length.saturating_add(members.len() as u64);
        }
        Ok(length)
    }

    /// Their handles, in no order: in the place of connect-redis' `ids`, which would let its reader in as anybody.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn handles(&self) -> Result<Vec<String>> {
        let mut pages = self.pages(self.prefix(), Kind::Bytes);
        let mut handles = Vec::new();
        while let Some(members) = pages.next().await? {
            handles.extend(members.iter().map(|member| hash(member.as_bytes())));
        }
        Ok(handles)
    }

    /// What is known of each, without its values, in no order: in the place of connect-redis' `all`. What is no session is left out. One read each.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn list(&self) -> Result<Vec<SessionInfo>> {
        let for_ever = self.sessions.now().plus(FOR_EVER);
        let mut pages = self.pages(self.prefix(), Kind::Bytes);
        let mut list = Vec::new();
        while let Some(members) = pages.next().await? {
            let found = try_join_all(members.iter().map(|member| self.sessions.look(member, for_ever))).await?;
            list.extend(found.into_iter().flatten().map(|living| self.sessions.info(living)));
        }
        Ok(list)
    }

    /// Ends all of them, and deletes the lists of users; how many there were. A login that comes meanwhile may stay.
    ///
    /// # Errors
    /// Faults of the store: then some may live on.
    pub async fn clear(&self) -> Result<u64> {
        let mut pages = self.pages(self.prefix(), Kind::Bytes);
        let mut ended = 0_u64;
        while let Some(members) = pages.next().await? {
            ended = ended.saturating_add(self.sessions.delete_members(&members).await? as u64);
        }
        let indexes = self.sessions.index_prefix();
        let mut pages = self.pages(&indexes, Kind::Index);
        while let Some(users) = pages.next().await? {
            let keys: Vec<String> = users.iter().map(|user| format!("{indexes}{user}")).collect();
            try_join_all(keys.iter().map(|key| self.sessions.cache.0.store.delete(key))).await?;
        }
        Ok(ended)
    }

    fn prefix(&self) -> &str {
        &self.sessions.config.prefix
    }

    fn pages<'a>(&'a self, prefix: &'a str, kind: Kind) -> Pages<'a> {
        Pages { sessions: &self.sessions, prefix, kind, next: Some(0), seen: HashSet::new() }
    }
}

/// Keys with a prefix, without it, page by page.
struct Pages<'a> {
    sessions: &'a Sessions,
    prefix: &'a str,
    kind: Kind,
    next: Option<u64>,
    /// The store may list a key twice.
    seen: HashSet<String>,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Vec<String>>> {
        let Some(from) = self.next else { return Ok(None) };
        let (keys, next) = self.sessions.cache.0.store.list(self.prefix, self.kind, from).await?;
        self.next = (next != 0).then_some(next);
        let members = keys.iter().filter_map(|key| key.strip_prefix(self.prefix)).map(str::to_owned);
        Ok(Some(members.filter(|member| self.seen.insert(member.clone())).collect()))
    }
}

impl fmt::Debug for AllSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AllSessions(..)")
    }
}
