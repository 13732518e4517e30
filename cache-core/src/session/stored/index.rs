//! The index of a user's sessions, which cannot leak.
//!
//! Invariant: every session with a logged-in user is in that user's index. A session and its entry
//! are written in one step of the store, and so is a session with a new id and the new entry. An
//! entry ends with its session, and the index with its last entry. To end all sessions, sessions
//! are deleted and their entries removed until none is left; so a session whose id changes in the
//! meantime is found under its new id.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;

use super::record::Record;
use super::sessions::{Current, Sessions};
use crate::cell::ObjectForm as _;
use crate::clock::{Timestamp, millis};
use crate::mutants::{self, Invariant};
use crate::observe::events::SessionEvent;
use crate::session::Result;
use crate::session::config::{Form, SessionMode};
use crate::session::error::{SessionError, SessionErrorKind, bad_id};
use crate::session::id::{SessionId, hash, user_tag};

/// How many times to retry if another process creates the key at the same time.
const KEY_ATTEMPTS: usize = 3;
/// How many times ending all sessions of a user looks for new ones.
const ROUNDS: usize = 10;
/// Used for sessions that never expire.
pub(in crate::session) const FOR_EVER: Duration = Duration::from_secs(50 * 365 * 86400);

/// One session in a list of sessions. `Debug` shows neither user nor device.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Identifies the session for [`UserSessions::end`](crate::session::UserSessions::end). It
    /// gives no access to the session.
    pub handle: String,
    /// The user who is logged in.
    pub user: Option<String>,
    /// The device of the login: see
    /// [`record_user_agent`](crate::session::SessionBuilder::record_user_agent) and
    /// [`set_device`](crate::session::Session::set_device). A client can claim any device.
    pub device: Option<String>,
    /// When the session began. Known only with an absolute timeout, which stores it.
    pub created: Option<Timestamp>,
    /// When the user logged in.
    pub since: Option<Timestamp>,
    /// When it was last written or extended: less than
    /// [`touch_after`](crate::session::SessionBuilder::touch_after) of its time before its last
    /// use. `None` if this cannot be derived from its end: the session has no end, or its end is
    /// that of the absolute timeout.
    pub seen: Option<Timestamp>,
    /// When it ends if it is not used again.
    pub ends: Timestamp,
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, created, since, seen, ends, .. } = self;
        let mut out = f.debug_struct("SessionInfo");
        out.field("handle", handle).field("created", created).field("since", since);
        out.field("seen", seen).field("ends", ends).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Returns the key of a user's index. Keys of different namespaces, prefixes and users never
    /// collide, and no key contains the name of a user.
    pub(in crate::session) async fn index_key(&self, user: &str) -> Result<String> {
        let tag = user_tag(&self.tag_key(Known::Enough).await?, user);
        let hash = hash(format!("{}\0{user}", self.config.prefix).as_bytes());
        Ok(format!("{}{{{tag}}}{hash}", self.index_prefix()))
    }

    pub(in crate::session) fn index_prefix(&self) -> String {
        format!("{}:sidx:{}", self.config.namespace, self.config.prefix)
    }

    /// Returns the key from which the tags of users are made. It is created once per prefix by the
    /// first process that needs it, and stays the same for all processes. It is not derived from a
    /// rotating secret, because all sessions of a user are stored under one tag.
    pub(in crate::session) async fn tag_key(&self, known: Known) -> Result<Bytes> {
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
    pub(in crate::session) async fn new_id(&self, user: Option<&str>, known: Known) -> Result<SessionId> {
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

    pub(in crate::session) async fn members(&self, user: &str) -> Result<Vec<(String, Timestamp)>> {
        Ok(self.cells.members(&self.index_key(user).await?).await?)
    }

    /// Returns the user's sessions that exist. Entries without a session are removed.
    pub(in crate::session) async fn living(&self, user: &str) -> Result<Vec<Living>> {
        let members = self.members(user).await?;
        let found = try_join_all(members.iter().map(|(member, entered)| self.look(member, *entered))).await?;
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for ((member, _), found) in members.into_iter().zip(found) {
            match found.filter(|living| living.record.meta.user.as_deref() == Some(user)) {
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
    pub(in crate::session) async fn look(&self, member: &str, otherwise: Timestamp) -> Result<Option<Living>> {
        let Some((bytes, left)) = self.load_living(member).await? else { return Ok(None) };
        let record = self.decode(member, &bytes)?;
        let ends = left.map_or(otherwise, |left| self.now().plus(left));
        Ok(record.map(|record| Living { member: member.to_owned(), ends, left, record }))
    }

    pub(in crate::session) fn info(&self, living: Living) -> SessionInfo {
        let Living { member, ends, left, record } = living;
        let meta = record.meta.clone();
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
    pub(in crate::session) async fn end_members(&self, user: &str, members: &[String]) -> Result<usize> {
        let ended = self.delete_members(members).await?;
        self.cells.leave(&self.index_key(user).await?, members).await?;
        Ok(ended)
    }

    /// Deletes sessions and returns how many existed.
    pub(in crate::session) async fn delete_members(&self, members: &[String]) -> Result<usize> {
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

    pub(in crate::session) async fn end_all_but(&self, user: &str, this: Option<&Current>) -> Result<usize> {
        let this = this.map(|current| current.key.clone());
        let (mut ended, mut before) = (0_usize, Vec::new());
        for _ in 0..ROUNDS {
            let members = self.members(user).await?.into_iter().map(|(member, _)| member);
            let others: Vec<String> = members.filter(|member| Some(member) != this.as_ref()).collect();
            if others.is_empty() {
                return Ok(ended);
            }
            let now = self.end_members(user, &others).await?;
            if mutants::removed(Invariant::EndingLooksAgain) {
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
}

/// A session that exists.
pub(in crate::session) struct Living {
    pub(in crate::session) member: String,
    pub(in crate::session) ends: Timestamp,
    pub(in crate::session) left: Option<Duration>,
    pub(in crate::session) record: Record,
}

/// Times in the store and in a record may differ by this much and still mean the same.
pub(in crate::session) const ROUNDING: Duration = Duration::from_secs(1);

/// Whether a cached tag key may be used.
#[derive(Clone, Copy)]
pub(in crate::session) enum Known {
    Enough,
    /// The store is asked first: it may have lost the key, or another process may have created one
    /// at the same time.
    Perhaps,
}
