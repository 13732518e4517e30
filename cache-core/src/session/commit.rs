//! The session as a cell: its key and form, how operations change it, and what is written together
//! with it.
//!
//! Invariant: that of [`cell`](crate::cell). A write replaces exactly the bytes that it was made
//! from, or creates a key that did not exist. So no concurrent write is lost, and an ended session
//! is never recreated.
//!
//! Writes of one session by several requests of this process go out together in one swap. Handlers
//! do not wait for that; only their commits do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::config::{Config, Form, Ttl};
use super::error::{SessionError, SessionErrorKind};
use super::express;
use super::id::SessionId;
use super::meta::Meta;
use super::record::{Found, Record};
use super::values::SessionValues;
use crate::cache::Cache;
use crate::cell::{self, CellKind, CellStore, Cells, Draft, Next, Put};
use crate::clock::Timestamp;
use crate::observe::events::{Event, SessionEvent};
use crate::store::Store;
use crate::value::codec::{Codec as _, Json};
use crate::value::envelope::Envelope;

/// How many ids are tried for a new session if the generated ones already exist.
const ID_ATTEMPTS: u32 = 3;

/// The upper bound of the default deadline: no client waits longer for a page.
const LONGEST_DEADLINE: Duration = Duration::from_secs(30);

/// An upper bound for lifetimes. It is long enough in practice, and sums with it cannot overflow.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 86400);

/// One change of a session. It is run again for each conflict.
pub(super) type Operation = Box<dyn FnMut(&mut Record) -> Result<(), SessionError> + Send>;

/// A session as it is stored.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) form: Form,
    pub(super) id: SessionId,
    /// Exactly the bytes that were read. A swap compares them.
    pub(super) bytes: Bytes,
    pub(super) record: Record,
    pub(super) left: Option<Duration>,
    /// The time at which it had `left` remaining.
    pub(super) at: Timestamp,
}

/// The state that all requests of one layer share.
pub(super) struct Sessions {
    pub(super) cache: Cache,
    /// Where sessions are stored: in the cache's store, or in a store of the application's own.
    pub(super) cells: Cells<Self>,
    pub(super) is_own: bool,
    pub(super) config: Config,
    /// The key from which the tags of users are made, as found in the store.
    pub(super) tag_key: Mutex<Option<Bytes>>,
}

/// One write of a session.
pub(super) struct Write {
    /// The session that this one replaces without taking over its values. It ends when this one is
    /// stored.
    pub(super) instead: Option<Standing>,
    pub(super) operations: Vec<Operation>,
    /// Whether the session gets another id and keeps its values.
    pub(super) cycle: bool,
    /// Whether to continue as a new session with only these operations if the session they are made
    /// from has ended.
    pub(super) or_anew: bool,
    /// The id the session gets.
    pub(super) id: SessionId,
    pub(super) by_https: bool,
}

/// The result of extending a session.
pub(super) enum Prolonged {
    /// Too little of its time has passed.
    No,
    Yes,
    /// The session has ended.
    Ended,
}

/// The result of a write.
#[derive(Clone)]
pub(super) enum Written {
    /// The session is stored.
    Standing(Box<Standing>),
    /// By its values its time has ended: it was removed.
    Over(SessionId),
    /// It had ended before the write.
    Gone,
    /// Its user has the maximum number of sessions. Nothing was written.
    TooMany,
}

impl Sessions {
    pub(super) fn new(cache: Cache, own: Option<Arc<dyn CellStore>>, config: Config) -> Self {
        let is_own = own.is_some();
        let store = own.unwrap_or_else(|| Arc::<dyn Store>::clone(&cache.0.store));
        let cells = Cells::new(store, cache.0.clock.clone(), Arc::clone(&cache.0.background));
        Self { cache, cells, is_own, config, tag_key: Mutex::default() }
    }

    pub(super) fn emit(&self, event: SessionEvent) {
        self.cache.0.events.emit(Event::Session(event));
    }

    /// Returns how long one request waits for the store in total.
    pub(super) fn deadline(&self) -> Duration {
        self.config.deadline.unwrap_or_else(|| self.cache.0.limits.max_staleness.min(LONGEST_DEADLINE))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.cells.now()
    }

    /// Loads the session with this id, in any form.
    pub(super) async fn load(&self, id: &SessionId) -> Result<Option<Standing>, SessionError> {
        let forms = self.config.forms(self.now());
        for form in forms {
            if let Some(standing) = self.load_form(*form, id).await? {
                return Ok(Some(standing));
            }
        }
        match forms {
            // Another request may have moved it between the two loads. Sessions never move back.
            [Form::Native, Form::Express] => self.load_form(Form::Native, id).await,
            _ => Ok(None),
        }
    }

    async fn load_form(&self, form: Form, id: &SessionId) -> Result<Option<Standing>, SessionError> {
        let key = self.config.key(form, id);
        let (bytes, left) = match self.load_living(&key).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            // A value of another Redis type is left as it is.
            Err(error) if error.kind() == SessionErrorKind::Refused => {
                self.emit(SessionEvent::Unreadable { reason: "the store refuses to read it" });
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(self.read_form(form, id, &key, bytes, left))
    }

    fn read_form(
        &self,
        form: Form,
        id: &SessionId,
        key: &str,
        bytes: Bytes,
        left: Option<Duration>,
    ) -> Option<Standing> {
        let record = self.read_record(form, key, &bytes)?;
        Some(Standing { form, id: id.clone(), bytes, record, left, at: self.now() })
    }

    pub(super) fn read_record(&self, form: Form, key: &str, bytes: &[u8]) -> Option<Record> {
        let found = match form {
            Form::Express => Record::read(bytes),
            Form::Native => match Envelope::open(bytes, key) {
                Ok((envelope, at)) if envelope.codec == Json::ID => Record::read(bytes.get(at..).unwrap_or_default()),
                Ok(_) => Found::Unreadable("a record of another codec"),
                Err(unreadable) => Found::Unreadable(unreadable.reason()),
            },
        };
        match found {
            Found::Record(mut record) => {
                record.claim(&self.config.keyring, || self.config.context(key));
                Some(record)
            }
            Found::Nothing => None,
            Found::Unreadable(reason) => {
                self.emit(SessionEvent::Unreadable { reason });
                None
            }
        }
    }

    /// Checks that a record may be stored. A record that an Express peer has made too large may
    /// keep its size, but not grow.
    pub(super) fn check_size(&self, record: &Record, before: Option<&Record>) -> Result<(), SessionError> {
        self.check_bytes(record.write().len(), record, before)
    }

    fn check_bytes(&self, bytes: usize, record: &Record, before: Option<&Record>) -> Result<(), SessionError> {
        let grows = || before.is_none_or(|before| record.size_of_values() > before.size_of_values());
        if bytes > self.config.max_bytes && grows() {
            return Err(too_large(bytes, self.config.max_bytes));
        }
        Ok(())
    }

    fn seal(&self, new: Sealing<'_>) -> Result<Bytes, SessionError> {
        let Sealing { form, key, record, before, ttl } = new;
        let json = record.write();
        self.check_bytes(json.len(), record, before)?;
        Ok(match form {
            Form::Express => json.into(),
            Form::Native => {
                let envelope = Envelope {
                    codec: Json::ID,
                    present: true,
                    fill_id: crate::random::u64(),
                    created: self.now(),
                    fresh_for: ttl,
                    stale_for: Duration::ZERO,
                    cost: Duration::ZERO,
                    versions: None,
                    tags: Vec::new(),
                };
                let sealed = envelope.seal(key, |out| {
                    out.extend_from_slice(&json);
                    Ok(Json::ID)
                });
                sealed?.into()
            }
        })
    }

    /// Returns how long the store has to keep the session from now on, or `None` if its time has
    /// ended.
    pub(super) fn ttl(&self, record: &Record) -> Option<Duration> {
        let ttl = self.idle_ttl(record)?;
        match self.ends(record) {
            None => Some(ttl),
            Some(end) => Some(ttl.min(self.now().until(end))).filter(|ttl| !ttl.is_zero()),
        }
    }

    /// Returns the idle timeout, or `None` if the session's time has ended.
    pub(super) fn idle_ttl(&self, record: &Record) -> Option<Duration> {
        let ttl = match &self.config.ttl {
            Ttl::Of(ttl) => Some(ttl(&SessionValues(record))).filter(|ttl| !ttl.is_zero()),
            Ttl::Fixed(ttl) => express::ttl(record.cookie().max_age(), *ttl),
        }?;
        Some(ttl.min(LONGEST_TTL))
    }

    /// Returns when the absolute timeout ends the session.
    pub(super) fn ends(&self, record: &Record) -> Option<Timestamp> {
        let timeout = self.config.absolute_timeout?;
        Some(Meta::of(record).created.unwrap_or_else(|| self.now()).plus(timeout))
    }

    /// Applies the operations to a session, writes it, and gives the operations back. `standing` is
    /// the session they are made from, or `None` for a new one.
    ///
    /// If this is dropped half-way, the session may have been written or not, as with a store
    /// error.
    pub(super) async fn write(
        self: &Arc<Self>,
        standing: Option<Standing>,
        mut write: Write,
    ) -> (Vec<Operation>, Result<Written, SessionError>) {
        let Some(standing) = standing else {
            let written = self.create(&mut write).await;
            return (write.operations, written);
        };
        let (write, written) = cell::change(self, standing, write).await;
        (write.map(|write| write.operations).unwrap_or_default(), written)
    }

    /// Stores a new session.
    async fn create(&self, write: &mut Write) -> Result<Written, SessionError> {
        let mut record = Record::default();
        record.set_cookie(&self.config.new_cookie(write.by_https, self.now()));
        self.make(&mut record, &mut write.operations)?;
        let instead = write.instead.as_ref();
        let Some(ttl) = self.ttl(&record) else {
            if let Some(old) = instead {
                self.remove(old).await?;
            }
            return Ok(Written::Over(write.id.clone()));
        };
        let expiry = (!self.config.disable_ttl).then_some(ttl);
        let form = self.config.new_form();
        for _ in 0..ID_ATTEMPTS {
            let key = self.config.key(form, &write.id);
            record.sign(&self.config.keyring, &self.config.context(&key));
            let draft = Draft {
                bytes: self.seal(Sealing { form, key: &key, record: &record, before: None, ttl })?,
                ttl: expiry,
                over: None,
                with: self.entry(&record, key.clone(), None, instead).await?,
                deletes: instead.map_or_else(Vec::new, |old| self.keys_of(old)),
                mark: instead.and_then(|old| self.mark_of(&self.config.key(old.form, &old.id))),
                key,
            };
            match cell::put(self, &draft, &record).await? {
                Put::Done => {
                    // Removed only now: if the write had failed, the old session would be all there
                    // is.
                    if let Some(old) = instead.filter(|_| draft.with.is_none()) {
                        self.remove(old).await?;
                    }
                    return Ok(self.written(form, write.id.clone(), record, draft));
                }
                Put::Full => return Ok(Written::TooMany),
                // The id exists. Two users must never share a session.
                _ => write.id = self.config.new_id(Some(&write.id.tag())).ok_or_else(bad_id)?,
            }
        }
        Err(SessionError::new(SessionErrorKind::Id).detail("each one that was made is somebody's already"))
    }

    fn written(&self, form: Form, id: SessionId, record: Record, draft: Draft) -> Written {
        let Draft { bytes, ttl: left, .. } = draft;
        Written::Standing(Box::new(Standing { form, id, bytes, record, left, at: self.now() }))
    }

    fn make(&self, record: &mut Record, operations: &mut [Operation]) -> Result<(), SessionError> {
        run(record, operations)?;
        self.stamp(record);
        Ok(())
    }

    /// Updates the metadata that every write renews.
    fn stamp(&self, record: &mut Record) {
        let mut meta = Meta::of(record);
        let before = meta.clone();
        // It is missing if an Express peer regenerated the session: the time starts again then.
        if self.config.absolute_timeout.is_some() && meta.created.is_none() {
            meta.created = Some(self.now());
        }
        self.stamp_index(&mut meta, record);
        if meta != before {
            meta.store(record);
        }
        let mut cookie = record.cookie();
        cookie.renew(self.now());
        record.set_cookie(&cookie);
    }

    pub(super) async fn remove(&self, standing: &Standing) -> Result<(), SessionError> {
        let mut keys = self.keys_of(standing).into_iter();
        if let Some(key) = keys.next() {
            self.end(&key).await?;
        }
        for key in keys {
            self.cells.remove(&key, None).await?;
        }
        self.leave_index(standing).await
    }

    /// Returns the key of a session, followed by the key it may have moved to in the meantime. A
    /// deleted session cannot move, and sessions never move back.
    fn keys_of(&self, standing: &Standing) -> Vec<String> {
        let may_move = standing.form == Form::Express && self.config.mode != super::SessionMode::Express;
        let forms = [Some(standing.form), may_move.then_some(Form::Native)];
        forms.into_iter().flatten().map(|form| self.config.key(form, &standing.id)).collect()
    }

    /// Resets the session's remaining time. Returns `false` if it has ended.
    pub(super) async fn touch(&self, standing: &mut Standing, ttl: Duration) -> Result<bool, SessionError> {
        self.stay_entered(standing, ttl).await?;
        let stands = self.cells.touch(&self.config.key(standing.form, &standing.id), ttl).await?;
        if stands {
            standing.left = Some(ttl);
            standing.at = self.now();
        } else {
            self.leave_index(standing).await?;
        }
        Ok(stands)
    }

    /// Returns the form to write. A session keeps its form, except in mode `Native`, which converts
    /// it.
    pub(super) fn target_form(&self, standing: &Standing) -> Form {
        if self.config.mode == super::SessionMode::Native { Form::Native } else { standing.form }
    }
}

impl CellKind for Sessions {
    type Standing = Standing;
    type Value = Record;
    type Change = Write;
    type Done = Written;
    type Error = SessionError;

    fn cells(&self) -> &Cells<Self> {
        &self.cells
    }

    fn place(&self, standing: &Standing) -> (String, Bytes) {
        (self.config.key(standing.form, &standing.id), standing.bytes.clone())
    }

    fn read(&self, standing: &Standing, bytes: Bytes) -> Option<Standing> {
        let key = self.config.key(standing.form, &standing.id);
        self.read_form(standing.form, &standing.id, &key, bytes, standing.left)
    }

    fn value(&self, standing: &Standing) -> Record {
        standing.record.clone()
    }

    fn is_plain(&self, standing: &Standing, write: &Write) -> bool {
        let stays = standing.id == write.id && self.target_form(standing) == standing.form;
        stays && write.instead.is_none() && !write.cycle && !write.or_anew
    }

    fn apply(&self, record: &mut Record, write: &mut Write) -> Result<(), SessionError> {
        run(record, &mut write.operations)
    }

    async fn before(
        &self,
        standing: &Standing,
        mut record: Record,
        write: &mut Write,
        alone: bool,
    ) -> Result<Next<Record>, SessionError> {
        self.stamp(&mut record);
        let Some(ttl) = self.ttl(&record) else { return Ok(Next::Over) };
        let (from, form) = (self.config.key(standing.form, &standing.id), self.target_form(standing));
        let key = self.config.key(form, &write.id);
        record.sign(&self.config.keyring, &self.config.context(&key));
        let before = Some(&standing.record);
        let bytes = match self.seal(Sealing { form, key: &key, record: &record, before, ttl }) {
            // When each change is tried alone, it shows which one makes the session too large.
            Err(error) if !alone && error.kind() == SessionErrorKind::TooLarge => return Ok(Next::Apart),
            bytes => bytes?,
        };
        let draft = Draft {
            bytes,
            ttl: (!self.config.disable_ttl).then_some(ttl),
            with: self.entry(&record, key.clone(), Some(standing), None).await?,
            deletes: Vec::new(),
            mark: if from == key { None } else { self.mark_of(&from) },
            over: Some((from, standing.bytes.clone())),
            key,
        };
        Ok(Next::Write(Box::new(draft), record))
    }

    async fn over(&self, standing: &Standing, write: &mut Write) -> Result<Written, SessionError> {
        self.remove(standing).await?;
        Ok(Written::Over(write.id.clone()))
    }

    async fn look_again(
        &self,
        standing: &Standing,
        write: &mut Write,
        taken: bool,
    ) -> Result<Option<Standing>, SessionError> {
        if taken && write.cycle {
            return Err(SessionError::new(SessionErrorKind::Id));
        }
        // Another request has converted it already, or it has moved.
        self.load(&standing.id).await
    }

    async fn gone(&self, write: &mut Write) -> Result<Written, SessionError> {
        if write.or_anew { self.create(write).await } else { Ok(Written::Gone) }
    }

    async fn make_room(&self, record: &Record) -> Result<(), SessionError> {
        // The store only sees that a key exists. So entries whose key is not a session of this user
        // have to be removed from the list first.
        match Meta::of(record).user {
            Some(user) => self.living(&user).await.map(drop),
            None => Ok(()),
        }
    }

    fn full(&self) -> Written {
        Written::TooMany
    }

    async fn ended(&self, keys: &[String]) -> Result<(), SessionError> {
        keys.iter().for_each(|_| self.emit(SessionEvent::Destroyed));
        self.mark_ended(keys).await
    }

    fn after(&self, standing: &Standing, write: &Write, record: Record, draft: Draft) -> Written {
        self.written(self.target_form(standing), write.id.clone(), record, draft)
    }

    fn conflict(&self) {
        self.emit(SessionEvent::Conflict);
    }

    fn too_many_conflicts(&self) -> SessionError {
        SessionError::new(SessionErrorKind::Conflict)
    }

    fn lost(&self) -> SessionError {
        SessionError::new(SessionErrorKind::Unavailable)
    }
}

/// A record to be encoded in a form.
struct Sealing<'a> {
    form: Form,
    key: &'a str,
    record: &'a Record,
    /// The record it is made from.
    before: Option<&'a Record>,
    ttl: Duration,
}

/// Applies all operations to a record.
fn run(record: &mut Record, operations: &mut [Operation]) -> Result<(), SessionError> {
    operations.iter_mut().try_for_each(|operation| operation(record))
}

pub(super) fn bad_id() -> SessionError {
    SessionError::new(SessionErrorKind::Id)
        .detail("`generate_id` gave an empty one, one over 256 bytes or one with white space")
}

pub(super) fn too_large(bytes: usize, max: usize) -> SessionError {
    SessionError::new(SessionErrorKind::TooLarge)
        .detail(format!("{bytes} bytes, the limit is {max}; see `SessionBuilder::max_bytes`"))
}
