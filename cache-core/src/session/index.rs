//! The index of a user's sessions, which cannot leak.
//!
//! Invariant: every session with a logged-in user is in that user's index. A session and its entry
//! are written in one step of the store, and so is a session with a new id and the new entry. An
//! entry ends with its session, and the index with its last entry. To end all sessions, sessions
//! are deleted and their entries removed until none is left; so a session whose id changes in the
//! meantime is found under its new id.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;

use super::commit::bad_id;
use super::config::{Form, SessionMode};
use super::error::{SessionError, SessionErrorKind};
use super::id::{SessionId, hash, user_tag};
use super::layer::SessionLayer;
use super::meta::Meta;
use super::options::TooMany;
use super::record::Record;
use super::sessions::{Sessions, Standing};
use super::{Result, Session};
use crate::cell::{Entry, ObjectForm as _, OverLimit};
use crate::clock::{Timestamp, millis};
use crate::events::SessionEvent;
use crate::sabotage::{self, Guard};

/// How many times to retry if another process creates the key at the same time.
const KEY_ATTEMPTS: usize = 3;
/// How many times ending all sessions of a user looks for new ones.
const ROUNDS: usize = 10;
/// Used for sessions that never expire.
pub(super) const FOR_EVER: Duration = Duration::from_secs(50 * 365 * 86400);

/// The sessions of one user, from [`SessionLayer::of_user`].
#[derive(Clone)]
pub struct UserSessions {
    sessions: Arc<Sessions>,
    user: String,
}

/// One session in a list of sessions. `Debug` shows neither user nor device.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Identifies the session for [`UserSessions::end`]. It gives no access to the session.
    pub handle: String,
    /// The user who is logged in.
    pub user: Option<String>,
    /// The device of the login: see
    /// [`SessionBuilder::record_user_agent`](super::SessionBuilder::record_user_agent) and
    /// [`Session::set_device`]. A client can claim any device.
    pub device: Option<String>,
    /// When the session began. Known only with an absolute timeout, which stores it.
    pub created: Option<Timestamp>,
    /// When the user logged in.
    pub since: Option<Timestamp>,
    /// When it was last written or extended: less than
    /// [`touch_after`](super::SessionBuilder::touch_after) of its time before its last use. `None`
    /// if this cannot be derived from its end: the session has no end, or its end is that of the
    /// absolute timeout.
    pub seen: Option<Timestamp>,
    /// When it ends if it is not used again.
    pub ends: Timestamp,
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
        Ok(state.standing.as_ref().map(|standing| hash(standing.key.as_bytes())))
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, created, since, seen, ends, .. } = self;
        let mut out = f.debug_struct("SessionInfo");
        out.field("handle", handle).field("created", created).field("since", since);
        out.field("seen", seen).field("ends", ends).finish_non_exhaustive()
    }
}

impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSessions(..)")
    }
}

impl Sessions {
    /// Returns the key of a user's index. Keys of different namespaces, prefixes and users never
    /// collide, and no key contains the name of a user.
    async fn index_key(&self, user: &str) -> Result<String> {
        let tag = user_tag(&self.tag_key(Known::Enough).await?, user);
        let hash = hash(format!("{}\0{user}", self.config.prefix).as_bytes());
        Ok(format!("{}{{{tag}}}{hash}", self.index_prefix()))
    }

    pub(super) fn index_prefix(&self) -> String {
        format!("{}:sidx:{}", self.config.namespace, self.config.prefix)
    }

    /// Returns the key from which the tags of users are made. It is created once per prefix by the
    /// first process that needs it, and stays the same for all processes. It is not derived from a
    /// rotating secret, because all sessions of a user are stored under one tag.
    async fn tag_key(&self, known: Known) -> Result<Bytes> {
        let lock = || self.tag_key.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lock().clone();
        if let (Some(key), Known::Enough) = (&before, known) {
            return Ok(key.clone());
        }
        let (at, store) = (format!("{}:skey:{}", self.config.namespace, self.config.prefix), &self.cells);
        for _ in 0..KEY_ATTEMPTS {
            if let Some((found, _)) = store.load(&at).await? {
                *lock() = Some(found.clone());
                return Ok(found);
            }
            // A lost key is restored as it was.
            let key = before.clone().unwrap_or_else(|| {
                let halves = [crate::random::u128(), crate::random::u128()].map(u128::to_ne_bytes);
                halves.concat().into()
            });
            if store.create(&at, key.clone(), Some(FOR_EVER)).await? {
                *lock() = Some(key.clone());
                return Ok(key);
            }
        }
        Err(SessionError::new(SessionErrorKind::Conflict))
    }

    /// Makes a new id for a session of this user, or of no user. `known`: whether a cached tag key
    /// may be used.
    pub(super) async fn new_id(&self, user: Option<&str>, known: Known) -> Result<SessionId> {
        let tag = match user {
            None => None,
            Some(user) => Some(user_tag(&self.tag_key(known).await?, user)),
        };
        self.config.new_id(tag.as_deref()).ok_or_else(bad_id)
    }

    /// Returns the key of a session that was converted to the native form after its entry was read.
    fn moved_key(&self, member: &str) -> Option<String> {
        let may_move = self.config.mode != SessionMode::Express && self.config.form_of(member) == Form::Express;
        let id = member.strip_prefix(self.config.prefix.as_str()).filter(|_| may_move).and_then(SessionId::parse)?;
        Some(self.config.key(Form::Native, &id))
    }

    async fn members(&self, user: &str) -> Result<Vec<(String, Timestamp)>> {
        Ok(self.cells.members(&self.index_key(user).await?).await?)
    }

    /// Returns the user's sessions that exist. Entries without a session are removed.
    pub(super) async fn living(&self, user: &str) -> Result<Vec<Living>> {
        let members = self.members(user).await?;
        let found = try_join_all(members.iter().map(|(member, entered)| self.look(member, *entered))).await?;
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for ((member, _), found) in members.into_iter().zip(found) {
            match found.filter(|living| Meta::of(&living.record).user.as_deref() == Some(user)) {
                Some(found) => living.push(found),
                None => dead.push(member),
            }
        }
        if !dead.is_empty() {
            self.cells.leave(&self.index_key(user).await?, &dead).await?;
        }
        Ok(living)
    }

    /// Loads the session under a member's key. `otherwise`: its end if its key has none.
    pub(super) async fn look(&self, member: &str, otherwise: Timestamp) -> Result<Option<Living>> {
        let Some((bytes, left)) = self.load_living(member).await? else { return Ok(None) };
        let record = self.decode(member, &bytes)?;
        let ends = left.map_or(otherwise, |left| self.now().plus(left));
        Ok(record.map(|record| Living { member: member.to_owned(), ends, left, record }))
    }

    pub(super) fn info(&self, living: Living) -> SessionInfo {
        let Living { member, ends, left, record } = living;
        let meta = Meta::of(&record);
        let seen = self.seen(&record, ends).filter(|_| left.is_some());
        let handle = hash(member.as_bytes());
        SessionInfo {
            handle,
            user: meta.user,
            device: meta.device,
            created: meta.created,
            since: meta.since,
            seen,
            ends,
        }
    }

    /// Returns when the session was last written or extended. Each of these resets its time, so the
    /// last one was that long before its end.
    fn seen(&self, record: &Record, ends: Timestamp) -> Option<Timestamp> {
        let ttl = self.idle_ttl(record)?;
        let cut = self.ends(record).is_some_and(|end| end <= ends.plus(ROUNDING));
        (!cut).then(|| Timestamp::from_millis(ends.as_millis().saturating_sub(millis(ttl))))
    }

    /// Deletes sessions and their entries, and returns how many sessions existed.
    async fn end_members(&self, user: &str, members: &[String]) -> Result<usize> {
        let ended = self.delete_members(members).await?;
        self.cells.leave(&self.index_key(user).await?, members).await?;
        Ok(ended)
    }

    /// Deletes sessions and returns how many existed.
    pub(super) async fn delete_members(&self, members: &[String]) -> Result<usize> {
        let deleted = try_join_all(members.iter().map(|member| self.end(member))).await?;
        // After the others: a deleted session cannot move.
        let moved: Vec<String> = members.iter().filter_map(|member| self.moved_key(member)).collect();
        let deleted_there = try_join_all(moved.iter().map(|key| self.cells.remove(key, None))).await?;
        let ended = deleted.into_iter().chain(deleted_there).filter(|stood| *stood).count();
        for _ in 0..ended {
            self.emit(SessionEvent::Destroyed);
        }
        Ok(ended)
    }

    pub(super) async fn end_all_but(&self, user: &str, this: Option<&Standing>) -> Result<usize> {
        let this = this.map(|standing| standing.key.clone());
        let (mut ended, mut before) = (0_usize, Vec::new());
        for _ in 0..ROUNDS {
            let members = self.members(user).await?.into_iter().map(|(member, _)| member);
            let others: Vec<String> = members.filter(|member| Some(member) != this.as_ref()).collect();
            if others.is_empty() {
                return Ok(ended);
            }
            let now = self.end_members(user, &others).await?;
            if sabotage::is(Guard::EndingLooksAgain) {
                return Ok(ended.saturating_add(now));
            }
            // Twice the same entries without a session: they belong to logins in progress or given
            // up.
            if now == 0 && others == before {
                return Ok(ended);
            }
            ended = ended.saturating_add(now);
            before = others;
        }
        Err(SessionError::new(SessionErrorKind::Conflict))
    }

    /// Keeps a session in its user's index for longer than the session itself lives, so that its
    /// entry is renewed only now and then.
    pub(super) fn stamp_index(&self, meta: &mut Meta, record: &Record) {
        if meta.user.is_none() {
            meta.indexed = None;
            return;
        }
        let ttl = self.ttl(record).unwrap_or_default();
        if self.config.disable_ttl || !self.is_entered(meta, ttl) {
            meta.indexed = Some(self.now().plus(self.entered_for(ttl)));
        }
    }

    fn entered_for(&self, ttl: Duration) -> Duration {
        if self.config.disable_ttl {
            return FOR_EVER;
        }
        // One more second for differences between clocks.
        ttl.mul_f64(1.0 + self.config.touch_after).saturating_add(Duration::from_secs(1))
    }

    /// Renews the entry of a session whose life is about to be extended without a write. Done
    /// before the extension: an entry without its session is cleaned up later, but a session
    /// without its entry would be missed.
    pub(super) async fn stay_entered(&self, standing: &Standing, ttl: Duration) -> Result<()> {
        let meta = Meta::of(&standing.object);
        let Some(user) = &meta.user else { return Ok(()) };
        if !self.is_entered(&meta, ttl) {
            let lasts = self.entered_for(ttl);
            self.cells.enter(&self.index_key(user).await?, &standing.key, lasts).await?;
        }
        Ok(())
    }

    /// Returns whether the entry outlasts a session that lives this long. An end later than any
    /// entry can have was written with a wrong clock and does not count.
    fn is_entered(&self, meta: &Meta, ttl: Duration) -> bool {
        let (least, most) = (self.now().plus(ttl), self.now().plus(self.entered_for(ttl)).plus(ROUNDING));
        meta.indexed.is_some_and(|until| least <= until && until <= most)
    }

    /// Returns the index change for a write of this record under this member, or `None` if there is
    /// none. `before`: the session it is made from. `instead`: a session that it replaces.
    pub(super) async fn entry(
        &self,
        record: &Record,
        member: String,
        before: Option<&Standing>,
        instead: Option<&Standing>,
    ) -> Result<Option<Entry>> {
        let meta = Meta::of(record);
        let (Some(user), Some(until)) = (meta.user, meta.indexed) else { return Ok(None) };
        let lasts = self.now().until(until);
        let is_new = before.is_none_or(|before| before.key != member);
        let was = before.map(|before| Meta::of(&before.object));
        if !is_new && was.as_ref().is_some_and(|was| was.user.as_ref() == Some(&user) && was.indexed == meta.indexed) {
            return Ok(None);
        }
        let logged_in = was.is_none_or(|was| was.since != meta.since);
        let limit = match self.config.max_sessions {
            Some((most, TooMany::Refuse)) if logged_in => Some((most, OverLimit::Refuse)),
            Some((most, TooMany::EndOldest)) if is_new => Some((most, OverLimit::EndFirst)),
            _ => None,
        };
        let leaving = before.filter(|_| is_new).or(instead);
        let leaves = match leaving.and_then(|old| Some((old, Meta::of(&old.object).user?))) {
            None => None,
            Some((old, user)) => Some((self.index_key(&user).await?, old.key.clone())),
        };
        Ok(Some(Entry { index: self.index_key(&user).await?, member, lasts, leaves, limit }))
    }

    pub(super) async fn leave_index(&self, standing: &Standing) -> Result<()> {
        if let Some(user) = Meta::of(&standing.object).user {
            self.cells.leave(&self.index_key(&user).await?, &[standing.key.clone()]).await?;
        }
        Ok(())
    }
}

/// A session that exists.
pub(super) struct Living {
    pub(super) member: String,
    pub(super) ends: Timestamp,
    pub(super) left: Option<Duration>,
    pub(super) record: Record,
}

/// Times in the store and in a record may differ by this much and still mean the same.
const ROUNDING: Duration = Duration::from_secs(1);

/// Whether a cached tag key may be used.
#[derive(Clone, Copy)]
pub(super) enum Known {
    Enough,
    /// The store is asked first: it may have lost the key, or another process may have created one
    /// at the same time.
    Perhaps,
}
