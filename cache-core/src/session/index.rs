//! Whose sessions there are: an index for each user, which cannot leak.
//!
//! Invariant: a session that a client may know of is in its user's index: it is entered before its id leaves. An entry ends with its
//! session, and the index with its last entry. To end all, sessions are deleted and their entries removed until none is left, so
//! that one which changes its id meanwhile is caught under the new one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use super::Session;
use super::commit::{Sessions, Standing};
use super::config::{Form, SessionMode};
use super::error::{SessionError, SessionErrorKind};
use super::id::hash;
use super::layer::SessionLayer;
use super::meta::Meta;
use super::options::TooMany;
use super::record::Record;
use crate::clock::Timestamp;
use crate::events::SessionEvent;

type Result<T, E = SessionError> = std::result::Result<T, E>;

/// How often ending all sessions of a user looks again for new ones.
const ROUNDS: usize = 10;
/// Of sessions that stay for ever.
const FOR_EVER: Duration = Duration::from_secs(50 * 365 * 86400);

/// The sessions of one user, from [`SessionLayer::of_user`].
#[derive(Clone)]
pub struct UserSessions {
    sessions: Arc<Sessions>,
    user: String,
}

/// One session in a list of somebody's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names the session for [`UserSessions::end`]. Nobody can use the session by it.
    pub handle: String,
    /// When it began, where an absolute timeout has it stored.
    pub created: Option<Timestamp>,
    /// When the user logged in.
    pub since: Option<Timestamp>,
    /// When it ends if it is not used.
    pub ends: Timestamp,
}

impl SessionLayer {
    /// The sessions in which this user is logged in: to list them, and to end them.
    #[must_use]
    pub fn of_user(&self, user: impl Into<String>) -> UserSessions {
        UserSessions { sessions: Arc::clone(&self.0), user: user.into() }
    }
}

impl UserSessions {
    /// All of them, the one that ends first at the head. One read for each, and one for the list.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn list(&self) -> Result<Vec<SessionInfo>> {
        let found = self.sessions.living(&self.user).await?;
        Ok(found
            .into_iter()
            .map(|(member, ends, record)| {
                let meta = Meta::of(&record);
                SessionInfo { handle: hash(member.as_bytes()), created: meta.created, since: meta.since, ends }
            })
            .collect())
    }

    /// Ends one of them, by the handle in the list. `false`: it has ended before.
    ///
    /// # Errors
    /// Faults of the store: then it may live on.
    pub async fn end(&self, handle: &str) -> Result<bool> {
        let members = self.sessions.members(&self.user).await?;
        let found = members.into_iter().map(|(member, _)| member).find(|member| hash(member.as_bytes()) == handle);
        match found {
            None => Ok(false),
            Some(member) => Ok(self.sessions.end_members(&self.user, &[member]).await? > 0),
        }
    }

    /// Ends all of them; how many there were. Also those whose id changes meanwhile.
    ///
    /// # Errors
    /// Faults of the store: then some may live on.
    pub async fn end_all(&self) -> Result<usize> {
        self.sessions.end_all_but(&self.user, None).await
    }
}

impl Session {
    /// This session's handle in the list of its user's sessions; `None`: nothing stands in the store yet. Another one after each login.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn handle(&self) -> Result<Option<String>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(state.standing.as_ref().map(|standing| hash(self.sessions.member(standing).as_bytes())))
    }
}

impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSessions(..)")
    }
}

impl Sessions {
    /// Prefixes and users of any form never meet, and no name of a user stands in a key.
    fn index_key(&self, user: &str) -> String {
        let prefix = &self.config.prefix;
        format!("sidx:{prefix}{}", hash(format!("{prefix}\0{user}").as_bytes()))
    }

    /// What stands behind the prefix in a session's key.
    fn member(&self, standing: &Standing) -> String {
        let key = self.config.key(standing.form, &standing.id);
        key.strip_prefix(self.config.prefix.as_str()).unwrap_or_default().to_owned()
    }

    fn key_of(&self, member: &str) -> String {
        format!("{}{member}", self.config.prefix)
    }

    /// Where a session stands that moved to our own form and is not entered under its new key yet.
    fn moved_key(&self, member: &str) -> Option<String> {
        let may_move = self.config.mode != SessionMode::Express && !member.starts_with("v1:");
        may_move.then(|| self.key_of(&format!("v1:{}", hash(member.as_bytes()))))
    }

    async fn members(&self, user: &str) -> Result<Vec<(String, Timestamp)>> {
        Ok(self.cache.0.store.index_members(&self.index_key(user)).await?)
    }

    /// Those of them that stand.
    async fn living(&self, user: &str) -> Result<Vec<(String, Timestamp, Record)>> {
        let members = self.members(user).await?;
        let keys: Vec<String> = members.iter().map(|(member, _)| self.key_of(member)).collect();
        let found = try_join_all(keys.iter().map(|key| self.cache.0.store.load(key))).await?;
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for (((member, entered), key), found) in members.into_iter().zip(&keys).zip(found) {
            let form = if member.starts_with("v1:") { Form::Native } else { Form::Express };
            let ends = found.as_ref().and_then(|(_, left)| *left).map_or(entered, |left| self.now().plus(left));
            let record = found.and_then(|(bytes, _)| self.read_record(form, key, &bytes));
            match record.filter(|record| Meta::of(record).user.as_deref() == Some(user)) {
                Some(record) => living.push((member, ends, record)),
                None => dead.push(member),
            }
        }
        if !dead.is_empty() {
            self.cache.0.store.index_remove(&self.index_key(user), &dead).await?;
        }
        Ok(living)
    }

    /// Deletes sessions and their entries; how many of them stood.
    async fn end_members(&self, user: &str, members: &[String]) -> Result<usize> {
        let keys: Vec<String> = members.iter().map(|member| self.key_of(member)).collect();
        let deleted = try_join_all(keys.iter().map(|key| self.cache.0.store.delete(key))).await?;
        // After the others: nothing moves from what is deleted.
        let moved: Vec<String> = members.iter().filter_map(|member| self.moved_key(member)).collect();
        let deleted_there = try_join_all(moved.iter().map(|key| self.cache.0.store.delete(key))).await?;
        let ended = deleted.into_iter().chain(deleted_there).filter(|stood| *stood).count();
        self.cache.0.store.index_remove(&self.index_key(user), members).await?;
        for _ in 0..ended {
            self.emit(SessionEvent::Destroyed);
        }
        Ok(ended)
    }

    pub(super) async fn end_all_but(&self, user: &str, this: Option<&Standing>) -> Result<usize> {
        let this = this.map(|standing| self.member(standing));
        let mut ended = 0_usize;
        for _ in 0..ROUNDS {
            let members = self.members(user).await?.into_iter().map(|(member, _)| member);
            let others: Vec<String> = members.filter(|member| Some(member) != this.as_ref()).collect();
            if others.is_empty() {
                return Ok(ended);
            }
            ended = ended.saturating_add(self.end_members(user, &others).await?);
        }
        Err(SessionError::new(SessionErrorKind::Conflict))
    }

    /// Whether one more login is refused. `this`: a session that the login replaces.
    pub(super) async fn refuses(&self, user: &str, this: Option<&Standing>) -> Result<bool> {
        let Some((most, TooMany::Refuse)) = self.config.max_sessions else { return Ok(false) };
        let this = this.map(|standing| self.member(standing));
        let others = self.living(user).await?;
        Ok(others.iter().filter(|(member, ..)| Some(member) != this.as_ref()).count() >= most)
    }

    /// Has a session stay in its user's index for longer than it lives itself, so that it is entered anew now and then only.
    pub(super) fn stamp_index(&self, meta: &mut Meta, record: &Record) {
        if meta.user.is_none() {
            meta.indexed = None;
            return;
        }
        let ttl = self.ttl(record).unwrap_or_default();
        if self.config.disable_ttl || meta.indexed.is_none_or(|until| until < self.now().plus(ttl)) {
            meta.indexed = Some(self.now().plus(self.entered_for(ttl)));
        }
    }

    fn entered_for(&self, ttl: Duration) -> Duration {
        if self.config.disable_ttl {
            return FOR_EVER;
        }
        // A second more for the clocks.
        ttl.mul_f64(1.0 + self.config.touch_after).saturating_add(Duration::from_secs(1))
    }

    /// Of a session whose life was prolonged without a write.
    pub(super) async fn stay_entered(&self, standing: &Standing, ttl: Duration) -> Result<()> {
        let meta = Meta::of(&standing.record);
        let Some(user) = meta.user else { return Ok(()) };
        if meta.indexed.is_none_or(|until| until < self.now().plus(ttl)) {
            let ends = self.now().plus(self.entered_for(ttl));
            self.cache.0.store.index_put(&self.index_key(&user), &self.member(standing), ends, None).await?;
        }
        Ok(())
    }

    /// Enters a session that was just written, and is known to nobody yet if its id is new. `before`: what it was made from.
    pub(super) async fn enter(&self, standing: &Standing, before: Option<&Standing>) -> Result<()> {
        let was = before.and_then(|before| Some((Meta::of(&before.record).user?, self.member(before))));
        let meta = Meta::of(&standing.record);
        let (Some(user), Some(ends)) = (meta.user, meta.indexed) else {
            return self.leave(was).await;
        };
        let (key, member) = (self.index_key(&user), self.member(standing));
        let is_new = was.as_ref().is_none_or(|(_, old)| *old != member);
        if !is_new && before.is_some_and(|before| Meta::of(&before.record).indexed == meta.indexed) {
            return Ok(());
        }
        // Under the id it had before, it may have been ended since. A login begins it anew, and a peer that does not know of the index has
        // perhaps prolonged the session without it.
        let logged_in = before.is_none_or(|before| Meta::of(&before.record).since != meta.since);
        let same_user = was.as_ref().filter(|(owner, _)| *owner == user).map(|(_, old)| old.as_str());
        let moved = before.is_some_and(|before| before.form != standing.form);
        let strict = is_new && !logged_in && !moved && !self.config.shares_with_express();
        let entered = self.cache.0.store.index_put(&key, &member, ends, same_user.filter(|_| strict)).await?;
        if !entered {
            self.cache.0.store.delete(&self.config.key(standing.form, &standing.id)).await?;
            return Err(SessionError::new(SessionErrorKind::Gone));
        }
        if is_new {
            self.leave(was).await?;
            self.keep_most(&user, &member).await?;
        }
        Ok(())
    }

    async fn leave(&self, was: Option<(String, String)>) -> Result<()> {
        if let Some((user, member)) = was {
            self.cache.0.store.index_remove(&self.index_key(&user), &[member]).await?;
        }
        Ok(())
    }

    pub(super) async fn leave_index(&self, standing: &Standing) -> Result<()> {
        let user = Meta::of(&standing.record).user;
        self.leave(user.map(|user| (user, self.member(standing)))).await
    }

    /// Ends what is more than there may be, but not this one.
    async fn keep_most(&self, user: &str, this: &str) -> Result<()> {
        let Some((most, TooMany::EndOldest)) = self.config.max_sessions else { return Ok(()) };
        if self.members(user).await?.len() <= most {
            return Ok(());
        }
        // An entry whose session has gone must not cost another one its life.
        let members = self.living(user).await?;
        let surplus = members.len().saturating_sub(most);
        let others = members.into_iter().map(|(member, ..)| member).filter(|member| member != this);
        let oldest: Vec<String> = others.take(surplus).collect();
        if !oldest.is_empty() {
            self.end_members(user, &oldest).await?;
        }
        Ok(())
    }
}
