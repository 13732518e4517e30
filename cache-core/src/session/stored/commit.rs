//! The session as a cell: how operations change it, and what is written together with it.
//!
//! Invariant: that of [`cell`](crate::cell). A write replaces exactly the bytes that it was made
//! from, or creates a key that did not exist. So no concurrent write is lost, and an ended session
//! is never recreated.
//!
//! Writes of one session by several requests of this process go out together in one swap. Handlers
//! do not wait for that; only their commits do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::record::Record;
use super::sessions::{Current, Sessions};
use crate::cell::{self, CellKind, Cells, Draft, Gathered, LimitMet, ObjectForm as _, Plan, Put, SharedKind, Verdict};
use crate::observe::events::SessionEvent;
use crate::session::config::SessionKey;
use crate::session::error::{SessionError, SessionErrorKind, bad_id};
use crate::session::id::SessionId;

/// How many ids are tried for a new session if the generated ones already exist.
const ID_ATTEMPTS: u32 = 3;

/// One change of a session. It is run again for each conflict.
pub(in crate::session) type Operation = Box<dyn FnMut(&mut Record) -> Result<(), SessionError> + Send>;

/// What a write of a session does besides applying operations.
#[derive(Clone)]
pub(in crate::session) struct Write {
    /// The session that this one replaces without taking over its values. It ends when this one is
    /// stored.
    pub(in crate::session) instead: Option<Current>,
    /// Whether the session gets another id and keeps its values.
    pub(in crate::session) rotates: bool,
    /// Whether to continue as a new session with only these operations if the session they are made
    /// from has ended.
    pub(in crate::session) recreate_if_gone: bool,
    /// The id the session gets.
    pub(in crate::session) id: SessionId,
    pub(in crate::session) by_https: bool,
}

/// The result of a write.
#[derive(Clone)]
pub(in crate::session) enum Written {
    /// The session is stored.
    Stored(Box<Current>),
    /// By its values its time has ended: it was removed.
    Over(SessionId),
    /// It had ended before the write.
    Gone,
    /// Its user has the maximum number of sessions. Nothing was written.
    TooMany,
}

impl Sessions {
    /// Applies the operations to a session, writes it, and gives the operations back. `current` is
    /// the session they are made from, or `None` for a new one.
    ///
    /// If this is dropped half-way, the session may have been written or not, as with a store
    /// error.
    pub(in crate::session) async fn write(
        self: &Arc<Self>,
        current: Option<Current>,
        mut operations: Vec<Operation>,
        write: Write,
    ) -> (Vec<Operation>, Result<Written, SessionError>) {
        let Some(current) = current else {
            let written = self.create(&write, &mut operations).await;
            return (operations, written);
        };
        let stays = current.at.id == write.id && self.target_form(&current) == current.at.form;
        let shares = stays && write.instead.is_none() && !write.rotates && !write.recreate_if_gone;
        let (operations, written) = cell::change(self, current, write, operations, shares).await;
        (operations.unwrap_or_default(), written)
    }

    /// Stores a new session.
    async fn create(&self, write: &Write, operations: &mut [Operation]) -> Result<Written, SessionError> {
        let mut record = Record::default();
        record.set_cookie(&self.config.new_cookie(write.by_https, self.now()));
        run(&mut record, operations)?;
        self.stamp(&mut record);
        let instead = write.instead.as_ref();
        let mut id = write.id.clone();
        let Some(ttl) = self.ttl(&record) else {
            if let Some(old) = instead {
                self.remove(old).await?;
            }
            return Ok(Written::Over(id));
        };
        let form = self.config.new_form();
        for _ in 0..ID_ATTEMPTS {
            let at = SessionKey { form, id };
            let key = self.key(self.host.namespace(), &at);
            record.sign(&self.config.keyring, &self.config.context(&key));
            let draft = Draft {
                bytes: self.encode_checked(&key, &record, None)?,
                ttl: self.stored_for(ttl),
                over: None,
                with: self.entry(&record, key.clone(), None, instead).await?,
                deletes: instead.map_or_else(Vec::new, |old| self.keys_of(old)),
                mark: instead.and_then(|old| self.mark_of(&old.key)),
                key,
            };
            match cell::put(self, &draft, &record).await? {
                Put::Done => {
                    // Removed only now: if the write had failed, the old session would be all there
                    // is.
                    if let Some(old) = instead.filter(|_| draft.with.is_none()) {
                        self.remove(old).await?;
                    }
                    return Ok(self.written(at, record, draft));
                }
                Put::Full => return Ok(Written::TooMany),
                // The id exists. Two users must never share a session.
                _ => id = self.config.new_id(Some(&at.id.tag())).ok_or_else(bad_id)?,
            }
        }
        Err(SessionError::new(SessionErrorKind::Id).detail("every generated session id already exists"))
    }

    fn encode_checked(&self, key: &str, record: &Record, before: Option<&Record>) -> Result<Bytes, SessionError> {
        let bytes = self.encode(key, record)?;
        // The limit is that of the JSON, which the native form makes somewhat larger.
        if bytes.len() > self.config.max_bytes {
            self.check_size(record, before)?;
        }
        Ok(bytes.into())
    }

    /// Returns the time to live of a key whose session lives this long.
    fn stored_for(&self, ttl: Duration) -> Option<Duration> {
        (!self.config.disable_ttl).then_some(ttl)
    }

    fn written(&self, at: SessionKey, object: Record, draft: Draft) -> Written {
        let Draft { key, bytes, ttl: left, .. } = draft;
        Written::Stored(Box::new(Current { at, key, bytes, object, left, read_at: self.now() }))
    }

    /// Updates the metadata that every write renews.
    fn stamp(&self, record: &mut Record) {
        // It is missing if an Express peer regenerated the session: the time starts again then.
        if self.config.absolute_timeout.is_some() && record.meta.created.is_none() {
            record.meta.created = Some(self.now());
        }
        self.stamp_index(record);
        let mut cookie = record.cookie();
        cookie.renew(self.now());
        record.set_cookie(&cookie);
    }
}

impl CellKind for Sessions {
    type Form = Self;
    type At = SessionKey;
    type StalenessPolicy = Write;
    type Error = SessionError;

    fn form(&self) -> &Self {
        self
    }

    fn cells(&self) -> &Cells {
        &self.cells
    }

    async fn prepare(
        &self,
        current: &Current,
        mut record: Record,
        write: &Write,
        alone: bool,
    ) -> Result<Plan<Record>, SessionError> {
        self.stamp(&mut record);
        let Some(ttl) = self.ttl(&record) else { return Ok(Plan::Remove) };
        let from = current.key.clone();
        let key = self.config.key(self.target_form(current), &write.id);
        record.sign(&self.config.keyring, &self.config.context(&key));
        let bytes = match self.encode_checked(&key, &record, Some(&current.object)) {
            // When each change is tried alone, it shows which one makes the session too large.
            Err(error) if !alone && error.kind() == SessionErrorKind::TooLarge => return Ok(Plan::Apart),
            bytes => bytes?,
        };
        let draft = Draft {
            bytes,
            ttl: self.stored_for(ttl),
            with: self.entry(&record, key.clone(), Some(current), None).await?,
            deletes: Vec::new(),
            mark: if from == key { None } else { self.mark_of(&from) },
            over: Some((from, current.bytes.clone())),
            key,
        };
        Ok(Plan::Write(Box::new(draft), record))
    }

    async fn look_again(&self, current: &Current, write: &Write, taken: bool) -> Result<Option<Current>, SessionError> {
        if taken && write.rotates {
            return Err(SessionError::new(SessionErrorKind::Id));
        }
        // Another request has converted it already, or it has moved.
        self.load(&current.at.id).await
    }

    async fn limit_met(&self, met: LimitMet<'_, Record>) -> Result<(), SessionError> {
        match met {
            // The store only sees that a key exists. So entries whose key is not a session of this
            // user have to be removed from the list first.
            LimitMet::Full(record) => match &record.meta.user {
                Some(user) => self.living(user).await.map(drop),
                None => Ok(()),
            },
            LimitMet::Ended(keys) => {
                keys.iter().for_each(|_| self.emit(SessionEvent::Destroyed));
                self.mark_ended(keys).await
            }
        }
    }

    fn conflict(&self) {
        self.emit(SessionEvent::Conflict);
    }

    fn too_many_conflicts(&self) -> SessionError {
        SessionError::new(SessionErrorKind::Conflict)
    }
}

impl SharedKind for Sessions {
    type Change = Vec<Operation>;
    type Done = Written;

    fn gathered(&self) -> &Gathered<Self> {
        &self.gathered
    }

    fn apply(&self, record: &mut Record, operations: &mut Vec<Operation>) -> Result<(), SessionError> {
        run(record, operations)
    }

    async fn finish(
        &self,
        verdict: Verdict<Self>,
        write: &Write,
        operations: &mut Vec<Operation>,
    ) -> Result<Written, SessionError> {
        match verdict {
            Verdict::Written { before, object, draft } => {
                let at = SessionKey { form: self.target_form(&before), id: write.id.clone() };
                Ok(self.written(at, object, *draft))
            }
            Verdict::Over(current) => {
                self.remove(&current).await?;
                Ok(Written::Over(write.id.clone()))
            }
            Verdict::Gone if write.recreate_if_gone => self.create(write, operations).await,
            Verdict::Gone => Ok(Written::Gone),
            Verdict::Full => Ok(Written::TooMany),
        }
    }

    fn lost(&self) -> SessionError {
        SessionError::new(SessionErrorKind::Unavailable)
    }
}

/// Applies all operations to a record.
fn run(record: &mut Record, operations: &mut [Operation]) -> Result<(), SessionError> {
    operations.iter_mut().try_for_each(|operation| operation(record))
}
