//! One request's view of its session: read at first use, changed by operations, written once at the
//! end.

mod client;
mod finish;
mod form_token;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(in crate::session) use self::form_token::CSRF;
use super::cookie::Attributes;
use super::response::{PresentedId, Request};
use crate::observe::events::SessionEvent;
use crate::session::config::Form;
use crate::session::error::{SessionError, SessionErrorKind, bad_id};
use crate::session::id::SessionId;
use crate::session::options::{TooMany, Unset};
use crate::session::stored::commit::{Operation, Write, Written};
use crate::session::stored::index::Known;
use crate::session::stored::record::{Record, raw};
use crate::session::stored::sessions::{Current, Sessions};

type Result<T, E = SessionError> = std::result::Result<T, E>;

/// Whether the session gets another id at the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdChange {
    Keep,
    /// Another id, with the current values.
    Rotate,
    /// Another id, without values.
    Regenerate,
}

pub(in crate::session) struct State {
    pub(in crate::session) sessions: Arc<Sessions>,
    pub(in crate::session) request: Request,
    open: bool,
    /// The session was requested: the response may depend on it, even if there was none.
    looked: bool,
    answered: bool,
    pub(in crate::session) presented: Option<PresentedId>,
    pub(in crate::session) id: Option<SessionId>,
    pub(in crate::session) current: Option<Current>,
    /// The values at the beginning of the request.
    at_start: Record,
    /// The stored session with the operations applied.
    pub(in crate::session) view: Record,
    operations: Vec<Operation>,
    id_change: IdChange,
    recreate_if_gone: bool,
    id_changed: bool,
    saved: bool,
    cookie_changed: bool,
    touch: bool,
    unset: bool,
    gone: bool,
    over: bool,
    pub(in crate::session) logged_out: bool,
    /// The cookie of an ended session, which the client is to delete.
    pub(in crate::session) forget: Option<(Form, Attributes)>,
    /// A write of operations was begun, and its result is unknown.
    lost: bool,
    /// The time that the store may still take in total for this request.
    left: Duration,
    /// A token for forms that the client has not received yet.
    pub(in crate::session) form_cookie: Option<String>,
}

impl State {
    pub(in crate::session) fn new(sessions: Arc<Sessions>, request: Request) -> Self {
        let deadline = sessions.deadline();
        Self {
            sessions,
            request,
            open: false,
            looked: false,
            answered: false,
            presented: None,
            id: None,
            current: None,
            at_start: Record::default(),
            view: Record::default(),
            operations: Vec::new(),
            id_change: IdChange::Keep,
            recreate_if_gone: false,
            id_changed: false,
            saved: false,
            cookie_changed: false,
            touch: false,
            unset: false,
            gone: false,
            over: false,
            logged_out: false,
            forget: None,
            lost: false,
            left: deadline,
            form_cookie: None,
        }
    }

    /// Waits for a step of the store, at most until the deadline of this request.
    async fn within<T>(&mut self, step: impl Future<Output = T> + Send) -> Result<T> {
        let result = self.sessions.cells.within(&mut self.left, step).await;
        let late = || {
            SessionError::new(SessionErrorKind::Unavailable)
                .detail("the deadline of the request has passed; see `SessionBuilder::deadline`")
        };
        result.ok_or_else(late)
    }

    /// Reads the session at the first call. If it is dropped half-way, the next call reads it.
    pub(in crate::session) async fn open(&mut self) -> Result<()> {
        if self.answered {
            return Err(SessionError::new(SessionErrorKind::Answered));
        }
        self.looked = true;
        if self.lost {
            return Err(SessionError::new(SessionErrorKind::Unavailable).detail("an earlier change may have been lost"));
        }
        if self.open {
            return Ok(());
        }
        for presented in self.presented_ids() {
            let sessions = Arc::clone(&self.sessions);
            let Some(current) = self.within(sessions.load(&presented.id)).await?? else {
                self.sessions.emit(SessionEvent::UnknownId);
                continue;
            };
            if self.sessions.ends(&current.object).is_some_and(|end| end <= self.sessions.now()) {
                self.within(sessions.remove(&current)).await??;
                self.sessions.emit(SessionEvent::UnknownId);
                continue;
            }
            // A session begun with a header must not be sent as a cookie, nor the other way round.
            if current.object.meta.by_header != presented.by_header {
                self.sessions.emit(SessionEvent::UnknownId);
                continue;
            }
            self.sessions.emit(SessionEvent::Loaded);
            self.take_over(current);
            self.presented = Some(presented);
            self.open = true;
            return Ok(());
        }
        self.begin()?;
        self.open = true;
        Ok(())
    }

    fn take_over(&mut self, current: Current) {
        self.id = Some(current.at.id.clone());
        self.at_start = current.object.clone();
        self.view = current.object.clone();
        self.current = Some(current);
    }

    /// Begins a session with a new id.
    fn begin(&mut self) -> Result<()> {
        let config = &self.sessions.config;
        self.id = Some(config.new_id(None).ok_or_else(bad_id)?);
        let mut record = Record::default();
        record.set_cookie(&config.new_cookie(self.request.by_https, self.sessions.now()));
        self.at_start = record.clone();
        self.view = record;
        self.current = None;
        self.operations.clear();
        self.id_change = IdChange::Keep;
        self.recreate_if_gone = false;
        self.id_changed = false;
        Ok(())
    }

    /// Applies an operation to this request's view, and queues it for the write.
    pub(in crate::session) async fn change(&mut self, mut operation: Operation) -> Result<()> {
        self.open().await?;
        operation(&mut self.view)?;
        if self.view.size() > self.sessions.config.max_bytes {
            let before =
                self.current.as_ref().filter(|_| self.id_change != IdChange::Regenerate).map(|current| &current.object);
            if let Err(error) = self.sessions.check_size(&self.view, before) {
                self.see_again()?;
                return Err(error);
            }
        }
        self.operations.push(operation);
        Ok(())
    }

    /// Returns whether nothing is stored for this client, and nothing will be.
    pub(in crate::session) fn is_untouched(&self) -> bool {
        self.current.is_none() && self.id_change == IdChange::Keep && self.operations.is_empty()
    }

    /// Rebuilds the view from the stored session and the operations.
    fn see_again(&mut self) -> Result<()> {
        self.view = match &self.current {
            Some(current) if self.id_change != IdChange::Regenerate => current.object.clone(),
            _ => {
                let mut record = Record::default();
                record.set_cookie(&self.sessions.config.new_cookie(self.request.by_https, self.sessions.now()));
                record
            }
        };
        let Self { operations, view, .. } = self;
        operations.iter_mut().try_for_each(|operation| operation(view))
    }

    pub(in crate::session) async fn change_cookie(&mut self, operation: Operation) -> Result<()> {
        self.change(operation).await?;
        self.cookie_changed = true;
        Ok(())
    }

    pub(in crate::session) async fn force_touch(&mut self) -> Result<()> {
        self.open().await?;
        self.touch = true;
        Ok(())
    }

    /// Drops all unwritten changes and reads the session again.
    pub(in crate::session) async fn reload(&mut self) -> Result<()> {
        self.open().await?;
        let Some(id) = self.current.as_ref().map(|current| current.at.id.clone()) else {
            return Err(SessionError::new(SessionErrorKind::Gone));
        };
        let sessions = Arc::clone(&self.sessions);
        let Some(current) = self.within(sessions.load(&id)).await?? else {
            self.ended_elsewhere();
            return Err(SessionError::new(SessionErrorKind::Gone));
        };
        self.operations.clear();
        self.id_change = IdChange::Keep;
        self.recreate_if_gone = false;
        self.cookie_changed = false;
        self.id = Some(current.at.id.clone());
        self.view = current.object.clone();
        self.current = Some(current);
        Ok(())
    }

    /// Changes the id at the next write and keeps the values.
    pub(in crate::session) async fn rotate_id(&mut self) -> Result<()> {
        self.open().await?;
        let user = self.view.meta.user.clone();
        let sessions = Arc::clone(&self.sessions);
        self.id = Some(self.within(sessions.new_id(user.as_deref(), Known::Enough)).await??);
        if self.current.is_some() && self.id_change == IdChange::Keep {
            self.id_change = IdChange::Rotate;
        }
        Ok(())
    }

    /// Changes the id and applies `login` at the next write. If the login may be refused, this
    /// writes at once; a refusal restores the previous state.
    pub(in crate::session) async fn login(&mut self, user: &str, login: Operation) -> Result<()> {
        self.open().await?;
        let sessions = Arc::clone(&self.sessions);
        let new_id = self.within(sessions.new_id(Some(user), Known::Perhaps)).await??;
        let (id, id_change, recreate_if_gone) = (self.id.clone(), self.id_change, self.recreate_if_gone);
        let mut earlier = Vec::new();
        if self.view.meta.user.as_ref().is_some_and(|other| other != user) {
            earlier = std::mem::take(&mut self.operations);
            if let Err(error) = self.regenerate().await {
                self.operations = earlier;
                return Err(error);
            }
        } else {
            self.rotate_or_recreate().await?;
        }
        self.id = Some(new_id);
        let count = self.operations.len();
        self.change(login).await?;
        if !matches!(self.sessions.config.max_sessions, Some((_, TooMany::Refuse))) {
            return Ok(());
        }
        let committed = self.commit().await;
        if committed.as_ref().is_err_and(|error| error.kind() == SessionErrorKind::TooManySessions) {
            self.operations.truncate(count);
            self.operations.append(&mut earlier);
            (self.id, self.id_change, self.recreate_if_gone) = (id, id_change, recreate_if_gone);
            self.see_again()?;
        }
        committed
    }

    /// Like [`rotate_id`](Self::rotate_id), but if the stored session has ended in the meantime,
    /// continues as a new one with the changes of this request.
    pub(in crate::session) async fn rotate_or_recreate(&mut self) -> Result<()> {
        self.rotate_id().await?;
        self.recreate_if_gone = true;
        Ok(())
    }

    /// Begins an empty session with another id, which is always written. The old session ends with
    /// that write.
    pub(in crate::session) async fn regenerate(&mut self) -> Result<()> {
        self.open().await?;
        self.id = Some(self.sessions.config.new_id(None).ok_or_else(bad_id)?);
        self.id_change = IdChange::Regenerate;
        self.operations.clear();
        self.see_again()
    }

    /// Ends the session now and makes the browser delete its cookie.
    pub(in crate::session) async fn logout(&mut self) -> Result<()> {
        self.destroy().await?;
        self.logged_out = true;
        Ok(())
    }

    /// Ends the session now.
    pub(in crate::session) async fn destroy(&mut self) -> Result<()> {
        self.open().await?;
        if let Some(current) = self.current.clone() {
            let sessions = Arc::clone(&self.sessions);
            self.within(sessions.remove(&current)).await??;
            self.sessions.emit(SessionEvent::Destroyed);
            let attributes =
                self.sessions.config.attributes(current.at.form, &current.object.cookie(), self.sessions.now());
            self.forget = Some((current.at.form, attributes));
        }
        self.begin()?;
        self.over = true;
        // These belong to the ended session.
        self.saved = false;
        self.cookie_changed = false;
        self.touch = false;
        Ok(())
    }

    pub(in crate::session) async fn unset(&mut self) -> Result<()> {
        match self.sessions.config.unset {
            Unset::Destroy => self.destroy().await?,
            Unset::Keep => self.open().await?,
        }
        self.unset = true;
        Ok(())
    }

    /// Writes the changes made so far. A new session without values is not stored.
    pub(in crate::session) async fn save(&mut self) -> Result<()> {
        self.open().await?;
        if self.gone {
            return Err(SessionError::new(SessionErrorKind::Gone));
        }
        let empty =
            self.current.is_none() && !self.sessions.config.save_uninitialized && self.view.same_values(&self.at_start);
        if self.id_change == IdChange::Keep && (empty || self.operations.is_empty()) {
            return Ok(());
        }
        self.commit().await
    }

    async fn commit(&mut self) -> Result<()> {
        let Some(id) = self.id.clone() else { return Err(bad_id()) };
        if self.is_cookie_blocked() && self.current.is_none() {
            self.sessions.emit(SessionEvent::CookieNotSent);
            return Err(SessionError::new(SessionErrorKind::NoCookie));
        }
        let fresh = self.current.is_none() || self.id_change == IdChange::Regenerate;
        // Also for a session that is recreated because the stored one has ended.
        let marked = (fresh || self.recreate_if_gone) && self.by_header();
        if marked {
            self.operations.insert(0, Box::new(mark_by_header));
        }
        let token = if self.current.is_none() { self.form_token_of_client() } else { None };
        let ours = usize::from(marked).saturating_add(usize::from(token.is_some()));
        if let Some(token) = token {
            self.operations.insert(0, Box::new(move |record| keep_form_token(record, &token)));
        }
        let current = self.current.clone().filter(|_| !fresh);
        let write = Write {
            instead: self.current.clone().filter(|_| fresh),
            rotates: self.id_change == IdChange::Rotate,
            recreate_if_gone: self.recreate_if_gone,
            id,
            by_https: self.request.by_https,
        };
        let (sessions, operations) = (Arc::clone(&self.sessions), std::mem::take(&mut self.operations));
        // Until the result is known.
        self.lost = true;
        let (operations, written) = self.within(sessions.write(current, operations, write)).await?;
        self.lost = false;
        self.operations = operations;
        match written? {
            Written::Gone => {
                self.ended_elsewhere();
                return Err(SessionError::new(SessionErrorKind::Gone));
            }
            Written::TooMany => {
                self.operations.drain(..ours);
                return Err(SessionError::new(SessionErrorKind::TooManySessions));
            }
            Written::Over(id) => {
                self.id = Some(id);
                self.current = None;
            }
            Written::Stored(current) => {
                self.sessions.emit(if fresh { SessionEvent::Created } else { SessionEvent::Saved });
                self.id = Some(current.at.id.clone());
                self.view = current.object.clone();
                self.current = Some(*current);
            }
        }
        if self.id_change != IdChange::Keep {
            self.sessions.emit(SessionEvent::Renewed);
            self.id_changed = true;
        }
        self.id_change = IdChange::Keep;
        self.recreate_if_gone = false;
        self.operations.clear();
        self.saved = true;
        Ok(())
    }

    fn ended_elsewhere(&mut self) {
        self.sessions.emit(SessionEvent::Gone);
        self.gone = true;
        self.current = None;
        self.operations.clear();
        self.id_change = IdChange::Keep;
        self.recreate_if_gone = false;
    }
}

/// Keeps the token of the visitor's forms. Applied before all other operations: a login removes it.
fn keep_form_token(record: &mut Record, token: &str) -> Result<()> {
    if record.raw(CSRF).is_none() {
        let token = raw(token).map_err(|error| SessionError::new(SessionErrorKind::Value).source(error))?;
        record.set(CSRF, token);
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "an operation, like others that can fail")]
fn mark_by_header(record: &mut Record) -> Result<()> {
    record.meta.by_header = true;
    Ok(())
}
