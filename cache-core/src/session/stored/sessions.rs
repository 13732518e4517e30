//! The sessions of one layer: how they are loaded, extended and removed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::record::Record;
use crate::cell::{self, CellStore, Cells, Gathered, ObjectForm as _};
use crate::clock::Timestamp;
use crate::object::CellHost;
use crate::observe::events::SessionEvent;
use crate::session::config::{Config, Form, SessionKey, Ttl};
use crate::session::error::{SessionError, SessionErrorKind};
use crate::session::express;
use crate::session::id::SessionId;
use crate::session::values::SessionValues;

/// The upper bound of the default deadline: no client waits longer for a page.
const LONGEST_DEADLINE: Duration = Duration::from_secs(30);

/// An upper bound for lifetimes. It is long enough in practice, and sums with it cannot overflow.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 86400);

/// A session as it is stored.
pub(in crate::session) type Current = cell::Stored<Sessions>;

/// The state that all requests of one layer share.
pub(in crate::session) struct Sessions {
    pub(in crate::session) host: CellHost,
    /// Where sessions are stored: in the cache's store, or in a store of the application's own.
    pub(in crate::session) cells: Cells,
    pub(in crate::session) gathered: Gathered<Self>,
    pub(in crate::session) is_own: bool,
    pub(in crate::session) config: Config,
    /// The key from which the tags of users are made, as found in the store.
    pub(in crate::session) tag_key: Mutex<Option<Bytes>>,
}

/// The result of extending a session.
pub(in crate::session) enum Prolonged {
    /// Too little of its time has passed.
    No,
    Yes,
    /// The session has ended.
    Ended,
}

impl Sessions {
    pub(in crate::session) fn new(host: CellHost, own: Option<Arc<dyn CellStore>>, config: Config) -> Self {
        let is_own = own.is_some();
        let cells = own.map_or_else(|| host.cells(), |own| host.cells_in(own));
        Self { host, cells, gathered: Gathered::default(), is_own, config, tag_key: Mutex::default() }
    }

    pub(in crate::session) fn emit(&self, event: SessionEvent) {
        self.host.emit(event);
    }

    /// Returns how long one request waits for the store in total.
    pub(in crate::session) fn deadline(&self) -> Duration {
        self.config.deadline.unwrap_or_else(|| self.host.max_staleness().min(LONGEST_DEADLINE))
    }

    pub(in crate::session) fn now(&self) -> Timestamp {
        self.cells.now()
    }

    /// Loads the session with this id, in any form.
    pub(in crate::session) async fn load(&self, id: &SessionId) -> Result<Option<Current>, SessionError> {
        let forms = self.config.forms(self.now());
        for form in forms {
            if let Some(current) = self.load_form(*form, id).await? {
                return Ok(Some(current));
            }
        }
        match forms {
            // Another request may have moved it between the two loads. Sessions never move back.
            [Form::Native, Form::Express] => self.load_form(Form::Native, id).await,
            _ => Ok(None),
        }
    }

    async fn load_form(&self, form: Form, id: &SessionId) -> Result<Option<Current>, SessionError> {
        let at = SessionKey { form, id: id.clone() };
        let key = self.key(self.host.namespace(), &at);
        let found = match self.load_living(&key).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            // A value of another Redis type is left as it is.
            Err(error) if error.kind() == SessionErrorKind::Refused => {
                self.emit(SessionEvent::Unreadable { reason: "the store refused to read it" });
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        cell::open(self, at, key, found)
    }

    /// Checks that a record may be stored. A record that an Express peer has made too large may
    /// keep its size, but not grow.
    pub(in crate::session) fn check_size(&self, record: &Record, before: Option<&Record>) -> Result<(), SessionError> {
        let grows = || before.is_none_or(|before| record.size_of_values() > before.size_of_values());
        let (bytes, max) = (record.write().len(), self.config.max_bytes);
        if bytes > max && grows() {
            let detail = format!("{bytes} bytes, the limit is {max}; see `SessionBuilder::max_bytes`");
            return Err(SessionError::new(SessionErrorKind::TooLarge).detail(detail));
        }
        Ok(())
    }

    /// Returns how long the store has to keep the session from now on, or `None` if its time has
    /// ended.
    pub(in crate::session) fn ttl(&self, record: &Record) -> Option<Duration> {
        let ttl = self.idle_ttl(record)?;
        match self.ends(record) {
            None => Some(ttl),
            Some(end) => Some(ttl.min(self.now().until(end))).filter(|ttl| !ttl.is_zero()),
        }
    }

    /// Returns the idle timeout, or `None` if the session's time has ended.
    pub(in crate::session) fn idle_ttl(&self, record: &Record) -> Option<Duration> {
        let ttl = match &self.config.ttl {
            Ttl::Of(ttl) => Some(ttl(&SessionValues(record))).filter(|ttl| !ttl.is_zero()),
            Ttl::Fixed(ttl) => express::ttl(record.cookie().max_age(), *ttl),
        }?;
        Some(ttl.min(LONGEST_TTL))
    }

    /// Returns when the absolute timeout ends the session.
    pub(in crate::session) fn ends(&self, record: &Record) -> Option<Timestamp> {
        let timeout = self.config.absolute_timeout?;
        Some(record.meta.created.unwrap_or_else(|| self.now()).plus(timeout))
    }

    pub(in crate::session) async fn remove(&self, current: &Current) -> Result<(), SessionError> {
        let mut keys = self.keys_of(current).into_iter();
        if let Some(key) = keys.next() {
            self.end(&key).await?;
        }
        for key in keys {
            self.cells.remove(&key, None).await?;
        }
        self.leave_index(current).await
    }

    /// Returns the key of a session, followed by the key it may have moved to in the meantime. A
    /// deleted session cannot move, and sessions never move back.
    pub(in crate::session) fn keys_of(&self, current: &Current) -> Vec<String> {
        let may_move = current.at.form == Form::Express && self.config.mode != crate::session::SessionMode::Express;
        let forms = [Some(current.at.form), may_move.then_some(Form::Native)];
        forms.into_iter().flatten().map(|form| self.config.key(form, &current.at.id)).collect()
    }

    /// Resets the session's remaining time. Returns `false` if it has ended.
    pub(in crate::session) async fn touch(&self, current: &mut Current, ttl: Duration) -> Result<bool, SessionError> {
        self.stay_entered(current, ttl).await?;
        let stands = self.cells.touch(&current.key, ttl).await?;
        if stands {
            current.left = Some(ttl);
            current.read_at = self.now();
        } else {
            self.leave_index(current).await?;
        }
        Ok(stands)
    }

    /// Returns the form to write. A session keeps its form, except in mode `Native`, which converts
    /// it.
    pub(in crate::session) fn target_form(&self, current: &Current) -> Form {
        if self.config.mode == crate::session::SessionMode::Native { Form::Native } else { current.at.form }
    }
}
