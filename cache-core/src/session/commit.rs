//! How a session is written: the operations of a request, applied to what stands, by compare-and-swap.
//!
//! Invariant: a write replaces exactly the bytes that it was made from, or makes a key that was not there. So nobody's write is lost, and
//! a session that has ended is never made anew.
//!
//! ```text
//! swap(what I read, operations applied to it) ─ done
//!                      │ conflict: read again, apply again        gone: over, unless it moved to the other form
//! ```
//!
//! Writers of one session in one process take turns, and each leaves for the next one what it wrote: so they do not fail
//! against each other. Handlers never wait for that, only their commits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::config::{Config, Form, Ttl};
use super::error::{SessionError, SessionErrorKind};
use super::express;
use super::id::SessionId;
use super::index::Entry;
use super::meta::Meta;
use super::record::{Found, Record};
use super::turns::{Last, Turns};
use super::values::SessionValues;
use crate::cache::Cache;
use crate::clock::Timestamp;
use crate::codec::{Codec as _, Json};
use crate::envelope::Envelope;
use crate::events::{Event, SessionEvent};
use crate::store::{Entered, Entering, Replaced, Swapped};

/// How often a commit tries against conflicting ones.
const ATTEMPTS: u32 = 100;
/// How often an id is made anew that is already somebody's.
const ID_ATTEMPTS: u32 = 3;

/// A longer life is as good as this one, and sums with it stay far from every bound.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 86400);

/// One change of a session; run again for each conflict.
pub(super) type Operation = Box<dyn FnMut(&mut Record) -> Result<(), SessionError> + Send>;

/// A session as it stands in the store.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) form: Form,
    pub(super) id: SessionId,
    /// Exactly what was read: what a swap compares.
    pub(super) bytes: Bytes,
    pub(super) record: Record,
    pub(super) left: Option<Duration>,
}

/// What all requests of one layer share.
pub(super) struct Sessions {
    pub(super) cache: Cache,
    pub(super) config: Config,
    turns: Arc<Turns>,
}

/// How a new state of a session comes to stand.
pub(super) struct Write<'a> {
    /// What it is made from; `None`: from nothing.
    pub(super) standing: Option<Standing>,
    /// What it takes the place of, with nothing of that in it: it ends as this one is stored.
    pub(super) instead: Option<Standing>,
    pub(super) operations: &'a mut [Operation],
    /// Under another id from now on, with what was in it.
    pub(super) cycle: bool,
    /// Goes on as a new session with nothing but the operations if what it is made from has ended.
    pub(super) or_anew: bool,
    /// The id it is to have.
    pub(super) id: SessionId,
    pub(super) by_https: bool,
}

/// What one attempt came to.
enum Put {
    Done,
    /// This stands instead of what it was made from.
    Conflict(Bytes),
    /// Something else stands, or nothing.
    Look,
    /// Something stands where it was to be.
    Taken,
    /// It would be one too many.
    Full,
}

/// What a write came to.
pub(super) enum Written {
    /// It stands.
    Standing(Box<Standing>),
    /// Its time is over by what is in it: it stands no more.
    Over(SessionId),
    /// It had ended before.
    Gone,
    /// Its user has as many sessions as may be. Nothing was written.
    TooMany,
}

impl Sessions {
    pub(super) fn new(cache: Cache, config: Config) -> Self {
        Self { cache, config, turns: Arc::default() }
    }

    pub(super) fn emit(&self, event: SessionEvent) {
        self.cache.0.events.emit(Event::Session(event));
    }

    pub(super) fn now(&self) -> Timestamp {
        self.cache.0.store.now()
    }

    /// The session with this id, in whichever form.
    pub(super) async fn load(&self, id: &SessionId) -> Result<Option<Standing>, SessionError> {
        for form in self.config.forms() {
            if let Some(standing) = self.load_form(*form, id).await? {
                return Ok(Some(standing));
            }
        }
        Ok(None)
    }

    async fn load_form(&self, form: Form, id: &SessionId) -> Result<Option<Standing>, SessionError> {
        let key = self.config.key(form, id);
        let (bytes, left) = match self.load_living(form, &self.member_of(form, id), &key).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            // A value of another type: left as it is.
            Err(error) if error.kind() == SessionErrorKind::Refused => {
                self.emit(SessionEvent::Unreadable { reason: "the store refuses to read it" });
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(self.read(form, id, &key, bytes, left))
    }

    fn read(&self, form: Form, id: &SessionId, key: &str, bytes: Bytes, left: Option<Duration>) -> Option<Standing> {
        let record = self.read_record(form, key, &bytes)?;
        Some(Standing { form, id: id.clone(), bytes, record, left })
    }

    pub(super) fn read_record(&self, form: Form, key: &str, bytes: &[u8]) -> Option<Record> {
        let found = match form {
            Form::Express => Record::read(bytes),
            Form::Native => match Envelope::open(bytes, key) {
                Ok((envelope, at)) if envelope.codec == Json::ID => Record::read(bytes.get(at..).unwrap_or_default()),
                Ok(_) => Found::Unreadable("a record of another codec"),
                Err(reason) => Found::Unreadable(reason),
            },
        };
        match found {
            Found::Record(record) => Some(record),
            Found::Nothing => None,
            Found::Unreadable(reason) => {
                self.emit(SessionEvent::Unreadable { reason });
                None
            }
        }
    }

    fn seal(&self, form: Form, key: &str, record: &Record, ttl: Duration) -> Result<Bytes, SessionError> {
        let json = record.write();
        if json.len() > self.config.max_bytes {
            return Err(too_large(json.len(), self.config.max_bytes));
        }
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

    /// How long the store is to keep it from now on; `None`: it is over.
    pub(super) fn ttl(&self, record: &Record) -> Option<Duration> {
        let ttl = self.idle_ttl(record)?;
        match self.ends(record) {
            None => Some(ttl),
            Some(end) => Some(ttl.min(self.now().until(end))).filter(|ttl| !ttl.is_zero()),
        }
    }

    /// How long it may be left alone; `None`: it is over.
    pub(super) fn idle_ttl(&self, record: &Record) -> Option<Duration> {
        let ttl = match &self.config.ttl {
            Ttl::Of(ttl) => Some(ttl(&SessionValues(record))).filter(|ttl| !ttl.is_zero()),
            Ttl::Fixed(ttl) => express::ttl(record.cookie().max_age(), *ttl),
        }?;
        Some(ttl.min(LONGEST_TTL))
    }

    /// When its absolute timeout ends it.
    pub(super) fn ends(&self, record: &Record) -> Option<Timestamp> {
        let timeout = self.config.absolute_timeout?;
        Some(Meta::of(record).created.unwrap_or_else(|| self.now()).plus(timeout))
    }

    /// Writes what the operations make of a session.
    ///
    /// Dropped half way, it may have been written or not, as with a fault of the store.
    pub(super) async fn write(&self, write: Write<'_>) -> Result<Written, SessionError> {
        // Held while others of this session in this process wait; dropped with this future.
        let turn = write.standing.as_ref().map(|standing| self.turns.of(&self.config.key(standing.form, &standing.id)));
        match turn {
            None => self.write_in_turn(write, &mut None).await,
            Some(turn) => {
                let mut last = turn.last.lock().await;
                self.write_in_turn(write, &mut last).await
            }
        }
    }

    /// `last`: what the one before wrote.
    async fn write_in_turn(&self, mut write: Write<'_>, last: &mut Last) -> Result<Written, SessionError> {
        if let (Some(standing), Some((key, bytes))) = (&mut write.standing, last.as_ref())
            && standing.bytes != *bytes
            && self.config.key(standing.form, &standing.id) == *key
            && let Some(newer) = self.read(standing.form, &standing.id, key, bytes.clone(), standing.left)
        {
            *standing = newer;
        }
        for _ in 0..ATTEMPTS {
            let Some(standing) = &write.standing else { return self.create(write).await };
            let form = self.target_form(standing);
            let from = self.config.key(standing.form, &standing.id);
            let key = self.config.key(form, &write.id);
            let mut record = standing.record.clone();
            self.apply(&mut record, write.operations)?;
            let Some(ttl) = self.ttl(&record) else {
                self.remove(standing).await?;
                return Ok(Written::Over(write.id));
            };
            let bytes = self.seal(form, &key, &record, ttl)?;
            let expiry = (!self.config.disable_ttl).then_some(ttl);
            let entry = self.entry(&record, self.member_of(form, &write.id), Some(standing), None);
            let new = New { key: &key, bytes: &bytes, expiry };
            let (id, put) = (standing.id.clone(), self.put(Some(standing), None, new, entry).await?);
            match put {
                Put::Done => {
                    *last = Some((key, bytes.clone()));
                    let standing = Standing { form, id: write.id, bytes, record, left: expiry };
                    return Ok(Written::Standing(Box::new(standing)));
                }
                Put::Full => return Ok(Written::TooMany),
                Put::Taken if write.cycle => return Err(SessionError::new(SessionErrorKind::Id)),
                // Made anew from what stands: no pause, or a process that makes one would never get its turn.
                Put::Conflict(found) => {
                    let standing = self.read(standing.form, &id, &from, found, standing.left);
                    write.standing = standing;
                }
                // Another request has taken it over already, or it has moved.
                Put::Look | Put::Taken => write.standing = self.load(&id).await?,
            }
            self.emit(SessionEvent::Conflict);
            if write.standing.is_none() && !write.or_anew {
                return Ok(Written::Gone);
            }
        }
        Err(SessionError::new(SessionErrorKind::Conflict))
    }

    /// One attempt to write what is made from `before`, or takes the place of `instead`, together with what it changes in indexes.
    async fn put(
        &self,
        before: Option<&Standing>,
        instead: Option<&Standing>,
        new: New<'_>,
        entry: Option<Entry>,
    ) -> Result<Put, SessionError> {
        let New { key, bytes, expiry } = new;
        let store = &self.cache.0.store;
        let from = before.map(|before| self.config.key(before.form, &before.id));
        let ends = before.filter(|_| from.as_deref() != Some(key)).or(instead);
        let mark = ends.and_then(|old| self.mark_of(old.form, &self.member_of(old.form, &old.id)));
        let mark = self.mark(&mark);
        let Some(entry) = entry else {
            return Ok(match (before, &from) {
                (Some(before), Some(from)) if from == key => {
                    swapped(store.swap(key, before.bytes.clone(), bytes.clone(), expiry).await?)
                }
                (Some(before), Some(from)) => {
                    match store.replace(from, before.bytes.clone(), key, bytes.clone(), expiry, mark).await? {
                        Replaced::Done => Put::Done,
                        Replaced::Taken => Put::Taken,
                        Replaced::Conflict | Replaced::Gone => Put::Look,
                    }
                }
                _ if !store.create(key, bytes.clone(), expiry).await? => Put::Taken,
                _ => {
                    // Only now: had the write failed, the old one would be all that there is.
                    if let Some(old) = instead {
                        self.remove(old).await?;
                    }
                    Put::Done
                }
            });
        };
        let deletes = instead.map_or_else(Vec::new, |old| self.keys_of(old));
        let entering = Entering {
            key,
            bytes,
            expiry,
            over: before.zip(from.as_deref()).map(|(before, from)| (from, &before.bytes)),
            deletes: &deletes,
            index: &entry.index,
            member: &entry.member,
            ends: entry.ends,
            leaves: entry.leaves.as_ref().map(|(index, member)| (index.as_str(), member.as_str())),
            limit: entry.limit(self),
            mark,
        };
        self.enter(entering, &entry.user).await
    }

    async fn enter(&self, entering: Entering<'_>, user: &str) -> Result<Put, SessionError> {
        let store = &self.cache.0.store;
        let mut entered = store.enter(entering).await?;
        if entered == Entered::Full {
            // The store only sees that something stands there: what is no session of this user has to go from the list first.
            self.living(user).await?;
            entered = store.enter(entering).await?;
        }
        Ok(match entered {
            Entered::Done(ended) => {
                ended.iter().for_each(|_| self.emit(SessionEvent::Destroyed));
                self.mark_ended(&ended).await?;
                Put::Done
            }
            Entered::Conflict(_) if entering.over.is_none_or(|(from, _)| from != entering.key) => Put::Look,
            Entered::Conflict(found) => Put::Conflict(found),
            Entered::Gone => Put::Look,
            Entered::Taken => Put::Taken,
            Entered::Full => Put::Full,
        })
    }

    /// Stores a session that was not there.
    async fn create(&self, mut write: Write<'_>) -> Result<Written, SessionError> {
        let mut record = Record::default();
        record.set_cookie(&self.config.new_cookie(write.by_https, self.now()));
        self.apply(&mut record, write.operations)?;
        let instead = write.instead.as_ref();
        let Some(ttl) = self.ttl(&record) else {
            if let Some(old) = instead {
                self.remove(old).await?;
            }
            return Ok(Written::Over(write.id));
        };
        let expiry = (!self.config.disable_ttl).then_some(ttl);
        let form = self.config.forms().first().copied().unwrap_or(Form::Native);
        for _ in 0..ID_ATTEMPTS {
            let key = self.config.key(form, &write.id);
            let bytes = self.seal(form, &key, &record, ttl)?;
            let entry = self.entry(&record, self.member_of(form, &write.id), None, instead);
            match self.put(None, instead, New { key: &key, bytes: &bytes, expiry }, entry).await? {
                Put::Done => {
                    return Ok(Written::Standing(Box::new(Standing {
                        form,
                        id: write.id,
                        bytes,
                        record,
                        left: expiry,
                    })));
                }
                Put::Full => return Ok(Written::TooMany),
                // Somebody's: two users must never share one.
                _ => write.id = self.config.new_id().ok_or_else(bad_id)?,
            }
        }
        Err(SessionError::new(SessionErrorKind::Id).detail("each one that was made is somebody's already"))
    }

    fn apply(&self, record: &mut Record, operations: &mut [Operation]) -> Result<(), SessionError> {
        operations.iter_mut().try_for_each(|operation| operation(record))?;
        let mut meta = Meta::of(record);
        let before = meta.clone();
        // Lost where an Express peer regenerated the session: it begins again there.
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
        Ok(())
    }

    pub(super) async fn remove(&self, standing: &Standing) -> Result<(), SessionError> {
        let member = self.member_of(standing.form, &standing.id);
        let mut keys = self.keys_of(standing).into_iter();
        if let Some(key) = keys.next() {
            self.end(standing.form, &member, &key).await?;
        }
        for key in keys {
            self.cache.0.store.delete(&key).await?;
        }
        self.leave_index(standing).await
    }

    /// Where a session stands, and behind that where it may have moved meanwhile: nothing moves from what is deleted, and nothing moves back.
    fn keys_of(&self, standing: &Standing) -> Vec<String> {
        let may_move = standing.form == Form::Express && self.config.mode != super::SessionMode::Express;
        let forms = [Some(standing.form), may_move.then_some(Form::Native)];
        forms.into_iter().flatten().map(|form| self.config.key(form, &standing.id)).collect()
    }

    /// Begins its time to live anew. `false`: it has ended.
    pub(super) async fn touch(&self, standing: &mut Standing, ttl: Duration) -> Result<bool, SessionError> {
        self.stay_entered(standing, ttl).await?;
        let stands = self.cache.0.store.expire(&self.config.key(standing.form, &standing.id), Some(ttl)).await?;
        if stands {
            standing.left = Some(ttl);
        } else {
            self.leave_index(standing).await?;
        }
        Ok(stands)
    }

    /// A session stays in the form it stands in, until only ours is left.
    pub(super) fn target_form(&self, standing: &Standing) -> Form {
        if self.config.mode == super::SessionMode::Native { Form::Native } else { standing.form }
    }
}

/// What is to stand.
struct New<'a> {
    key: &'a str,
    bytes: &'a Bytes,
    expiry: Option<Duration>,
}

fn swapped(swapped: Swapped) -> Put {
    match swapped {
        Swapped::Done => Put::Done,
        Swapped::Conflict(found) => Put::Conflict(found),
        Swapped::Gone => Put::Look,
    }
}

pub(super) fn bad_id() -> SessionError {
    SessionError::new(SessionErrorKind::Id)
        .detail("`generate_id` gave an empty one, one over 256 bytes or one with white space")
}

pub(super) fn too_large(bytes: usize, max: usize) -> SessionError {
    SessionError::new(SessionErrorKind::TooLarge)
        .detail(format!("{bytes} bytes, the limit is {max}; see `SessionBuilder::max_bytes`"))
}
