//! One request's view of its session: read at first use, changed by operations, written once at the end.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::commit::{Operation, Sessions, Standing, Write, Written, bad_id, too_large};
use super::config::{Form, Transport, Unset};
use super::cookie::{self, Attributes};
use super::error::{SessionError, SessionErrorKind};
use super::express::{Due, Facts, Stored, due};
use super::id::{SessionId, Signed};
use super::meta::Meta;
use super::record::Record;
use crate::clock::Timestamp;
use crate::events::SessionEvent;

type Result<T, E = SessionError> = std::result::Result<T, E>;

/// What the request itself says. Header values are counted references: copying them is cheap.
pub(super) struct Request {
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) by_https: bool,
}

/// What the answer has to carry.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) cookies: Vec<String>,
    pub(super) token: Option<(HeaderName, String)>,
    /// The session was looked at.
    pub(super) depends: bool,
}

/// Whether the session is to have another id at the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    /// With what is in it.
    Cycle,
    /// Empty.
    Anew,
}

/// What the client showed.
struct Shown {
    id: SessionId,
    signed: Signed,
    by_header: bool,
}

pub(super) struct State {
    sessions: Arc<Sessions>,
    pub(super) request: Request,
    open: bool,
    answered: bool,
    shown: Option<Shown>,
    pub(super) id: Option<SessionId>,
    pub(super) standing: Option<Standing>,
    /// The values at the beginning of the request.
    at_start: Record,
    /// What stands, with the operations applied.
    pub(super) view: Record,
    operations: Vec<Operation>,
    next: Next,
    or_anew: bool,
    id_changed: bool,
    saved: bool,
    cookie_changed: bool,
    touch: bool,
    unset: bool,
    gone: bool,
    over: bool,
    logged_out: bool,
    /// The cookie of a session that was ended, to be forgotten.
    forget: Option<(Form, Attributes)>,
}

impl State {
    pub(super) fn new(sessions: Arc<Sessions>, request: Request) -> Self {
        Self {
            sessions,
            request,
            open: false,
            answered: false,
            shown: None,
            id: None,
            standing: None,
            at_start: Record::default(),
            view: Record::default(),
            operations: Vec::new(),
            next: Next::Stay,
            or_anew: false,
            id_changed: false,
            saved: false,
            cookie_changed: false,
            touch: false,
            unset: false,
            gone: false,
            over: false,
            logged_out: false,
            forget: None,
        }
    }

    /// Reads the session, the first time. Dropped half way, the next use reads it.
    pub(super) async fn open(&mut self) -> Result<()> {
        if self.answered {
            return Err(SessionError::new(SessionErrorKind::Answered));
        }
        if self.open {
            return Ok(());
        }
        for shown in self.shown() {
            let Some(standing) = self.sessions.load(&shown.id).await? else {
                self.sessions.emit(SessionEvent::UnknownId);
                continue;
            };
            if self.sessions.ends(&standing.record).is_some_and(|end| end <= self.sessions.now()) {
                self.sessions.remove(&standing).await?;
                self.sessions.emit(SessionEvent::UnknownId);
                continue;
            }
            // One that was begun by a header was never meant to be sent by a browser of itself, nor the other way round.
            if Meta::of(&standing.record).by_header != shown.by_header {
                self.sessions.emit(SessionEvent::UnknownId);
                continue;
            }
            self.sessions.emit(SessionEvent::Loaded);
            self.take_over(standing);
            self.shown = Some(shown);
            self.open = true;
            return Ok(());
        }
        self.begin()?;
        self.open = true;
        Ok(())
    }

    fn take_over(&mut self, standing: Standing) {
        self.id = Some(standing.id.clone());
        self.at_start = standing.record.clone();
        self.view = standing.record.clone();
        self.standing = Some(standing);
    }

    /// A session that nobody has had before.
    fn begin(&mut self) -> Result<()> {
        let config = &self.sessions.config;
        self.id = Some(config.new_id().ok_or_else(bad_id)?);
        let mut record = Record::default();
        record.set_cookie(&config.new_cookie(self.request.by_https, self.sessions.now()));
        self.at_start = record.clone();
        self.view = record;
        self.standing = None;
        self.operations.clear();
        self.next = Next::Stay;
        self.id_changed = false;
        Ok(())
    }

    /// The ids that the client shows, with a good signature, in the order in which they are tried.
    fn shown(&self) -> Vec<Shown> {
        let config = &self.sessions.config;
        let mut shown: Vec<Shown> = Vec::new();
        let mut verify = |signed: Option<&str>, by_header| match signed.and_then(|signed| config.keyring.verify(signed))
        {
            None => self.sessions.emit(SessionEvent::BadSignature),
            Some((id, _)) if shown.iter().any(|shown| shown.id == id) => {}
            Some((id, signed)) => shown.push(Shown { id, signed, by_header }),
        };
        for transport in &config.transports {
            match transport {
                Transport::Cookie => {
                    for form in config.forms() {
                        let cookies = self.request.values(&http::header::COOKIE).map(HeaderValue::as_bytes);
                        if let Some(value) = cookie::find(cookies, config.cookie_name(*form)) {
                            verify(value.strip_prefix("s:"), false);
                        }
                    }
                }
                Transport::Bearer => {
                    let values =
                        self.request.values(&http::header::AUTHORIZATION).filter_map(|value| value.to_str().ok());
                    if let Some(token) = values.filter_map(bearer).next() {
                        verify(Some(token), true);
                    }
                }
                Transport::Header(name) => {
                    if let Some(value) = self.request.values(name).next() {
                        verify(value.to_str().ok(), true);
                    }
                }
            }
        }
        shown
    }

    /// Whether a new session of this request goes by a header.
    fn by_header(&self) -> bool {
        match &self.shown {
            Some(shown) => shown.by_header,
            None => self.sessions.config.transports.first().is_some_and(|first| *first != Transport::Cookie),
        }
    }

    /// Does it to what this request sees, and later to what stands then.
    pub(super) async fn change(&mut self, mut operation: Operation) -> Result<()> {
        self.open().await?;
        operation(&mut self.view)?;
        let max = self.sessions.config.max_bytes;
        if self.view.size() > max {
            // Exactly, where the estimate says no.
            let size = self.view.write().len();
            if size > max {
                self.see_again()?;
                return Err(too_large(size, max));
            }
        }
        self.operations.push(operation);
        Ok(())
    }

    /// The view, from what stands and the operations.
    fn see_again(&mut self) -> Result<()> {
        self.view = match &self.standing {
            Some(standing) if self.next != Next::Anew => standing.record.clone(),
            _ => {
                let mut record = Record::default();
                record.set_cookie(&self.sessions.config.new_cookie(self.request.by_https, self.sessions.now()));
                record
            }
        };
        let Self { operations, view, .. } = self;
        operations.iter_mut().try_for_each(|operation| operation(view))
    }

    pub(super) async fn change_cookie(&mut self, operation: Operation) -> Result<()> {
        self.change(operation).await?;
        self.cookie_changed = true;
        Ok(())
    }

    pub(super) async fn force_touch(&mut self) -> Result<()> {
        self.open().await?;
        self.touch = true;
        Ok(())
    }

    /// Drops what was not written, and reads again.
    pub(super) async fn reload(&mut self) -> Result<()> {
        self.open().await?;
        let Some(standing) = &self.standing else { return Err(SessionError::new(SessionErrorKind::Gone)) };
        let Some(standing) = self.sessions.load(&standing.id).await? else {
            self.ended_elsewhere();
            return Err(SessionError::new(SessionErrorKind::Gone));
        };
        self.operations.clear();
        self.next = Next::Stay;
        self.cookie_changed = false;
        self.id = Some(standing.id.clone());
        self.view = standing.record.clone();
        self.standing = Some(standing);
        Ok(())
    }

    /// Another id at the next write, with what is in it.
    pub(super) async fn cycle(&mut self) -> Result<()> {
        self.open().await?;
        self.id = Some(self.sessions.config.new_id().ok_or_else(bad_id)?);
        if self.standing.is_some() && self.next == Next::Stay {
            self.next = Next::Cycle;
        }
        Ok(())
    }

    /// As [`cycle`](Self::cycle); if what stood has ended meanwhile, it goes on with what this request put into it.
    pub(super) async fn cycle_or_anew(&mut self) -> Result<()> {
        self.cycle().await?;
        self.or_anew = true;
        Ok(())
    }

    /// An empty session with another id at the next write, which there is in any case; the old one ends with it.
    pub(super) async fn regenerate(&mut self) -> Result<()> {
        self.open().await?;
        self.id = Some(self.sessions.config.new_id().ok_or_else(bad_id)?);
        self.next = Next::Anew;
        self.operations.clear();
        self.see_again()
    }

    /// Ends the session now, and has the browser forget it.
    pub(super) async fn logout(&mut self) -> Result<()> {
        self.destroy().await?;
        self.logged_out = true;
        Ok(())
    }

    /// Ends the session now.
    pub(super) async fn destroy(&mut self) -> Result<()> {
        self.open().await?;
        if let Some(standing) = &self.standing {
            self.sessions.remove(standing).await?;
            self.sessions.emit(SessionEvent::Destroyed);
            let attributes =
                self.sessions.config.attributes(standing.form, &standing.record.cookie(), self.sessions.now());
            self.forget = Some((standing.form, attributes));
        }
        self.begin()?;
        self.over = true;
        Ok(())
    }

    pub(super) async fn unset(&mut self) -> Result<()> {
        match self.sessions.config.unset {
            Unset::Destroy => self.destroy().await?,
            Unset::Keep => self.open().await?,
        }
        self.unset = true;
        Ok(())
    }

    /// Writes now what was changed so far. A new session with nothing in it is not stored.
    pub(super) async fn save(&mut self) -> Result<()> {
        self.open().await?;
        if self.gone {
            return Err(SessionError::new(SessionErrorKind::Gone));
        }
        let empty = self.standing.is_none()
            && !self.sessions.config.save_uninitialized
            && self.view.same_values(&self.at_start);
        if self.next == Next::Stay && (empty || self.operations.is_empty()) {
            return Ok(());
        }
        self.commit().await
    }

    async fn commit(&mut self) -> Result<()> {
        let Some(id) = self.id.clone() else { return Err(bad_id()) };
        if self.is_cookie_blocked() && self.standing.is_none() {
            self.sessions.emit(SessionEvent::CookieNotSent);
            return Err(SessionError::new(SessionErrorKind::NoCookie));
        }
        let fresh = self.standing.is_none() || self.next == Next::Anew;
        if fresh && self.by_header() {
            self.operations.insert(0, Box::new(mark_by_header));
        }
        let write = Write {
            standing: if fresh { None } else { self.standing.clone() },
            operations: &mut self.operations,
            cycle: self.next == Next::Cycle,
            or_anew: self.or_anew,
            id,
            by_https: self.request.by_https,
        };
        match self.sessions.write(write).await? {
            Written::Gone => {
                self.ended_elsewhere();
                return Err(SessionError::new(SessionErrorKind::Gone));
            }
            Written::Over(id) => {
                self.id = Some(id);
                self.standing = None;
            }
            Written::Standing(standing) => {
                // Only now: had the write failed, the old one would be all that there is.
                let before = self.standing.take();
                if let Some(old) = before.as_ref().filter(|_| fresh) {
                    self.sessions.remove(old).await?;
                }
                let before = before.filter(|_| !fresh);
                if let Err(error) = self.sessions.enter(&standing, before.as_ref()).await {
                    if error.kind() == SessionErrorKind::Gone {
                        self.ended_elsewhere();
                    }
                    return Err(error);
                }
                self.sessions.emit(if fresh { SessionEvent::Created } else { SessionEvent::Saved });
                self.id = Some(standing.id.clone());
                self.view = standing.record.clone();
                self.standing = Some(*standing);
            }
        }
        if self.next != Next::Stay {
            self.sessions.emit(SessionEvent::Renewed);
            self.id_changed = true;
        }
        self.next = Next::Stay;
        self.or_anew = false;
        self.operations.clear();
        self.saved = true;
        Ok(())
    }

    fn ended_elsewhere(&mut self) {
        self.sessions.emit(SessionEvent::Gone);
        self.gone = true;
        self.standing = None;
        self.operations.clear();
        self.next = Next::Stay;
    }

    /// Writes what is due, and says what the answer carries.
    ///
    /// # Errors
    /// What was changed could not be stored: the handler's answer must not go out.
    pub(super) async fn finish(&mut self, failed: bool) -> Result<Answer> {
        let config = &self.sessions.config;
        let eager = config.resave || config.rolling || config.save_uninitialized;
        if !self.open && !(eager && !self.answered) {
            self.answered = true;
            return Ok(Answer::default());
        }
        if failed && config.discard_on_server_error {
            self.discard()?;
        }
        self.open().await?;
        let answer = self.settle().await;
        self.answered = true;
        answer
    }

    fn discard(&mut self) -> Result<()> {
        self.operations.clear();
        self.next = Next::Stay;
        self.cookie_changed &= self.saved;
        self.id = self.standing.as_ref().map(|standing| standing.id.clone()).or_else(|| self.id.take());
        self.see_again()
    }

    async fn settle(&mut self) -> Result<Answer> {
        let mut answer = Answer { depends: true, ..Answer::default() };
        let ended = self.over && self.operations.is_empty() && self.next == Next::Stay && !self.saved;
        if self.unset || self.gone || ended {
            self.forget_cookie(&mut answer);
            return Ok(answer);
        }
        let moving = self.standing.as_ref().filter(|standing| self.sessions.target_form(standing) != standing.form);
        let left_form = moving.map(|standing| standing.form);
        let Due { save, touch, cookie } = due(self.facts());
        let save = save
            || self.next != Next::Stay
            || left_form.is_some()
            || (self.standing.is_some() && (self.cookie_changed && !self.operations.is_empty() || self.lacks_stamp()));
        if save {
            if self.standing.is_none() && self.is_cookie_blocked() {
                // It would stand there for nobody.
                self.sessions.emit(SessionEvent::CookieNotSent);
                return Ok(answer);
            }
            match self.commit().await {
                Ok(()) => {}
                // Somebody has ended it: it stays so, and what the client has by now is not touched.
                Err(error) if error.kind() == SessionErrorKind::Gone => return Ok(answer),
                Err(error) => return Err(error),
            }
        } else if (touch || self.touch) && !self.prolong(cookie).await? {
            // A cookie now could take the place of one that another answer has brought.
            return Ok(answer);
        }
        let resign = self.sessions.config.mode == super::SessionMode::Native
            && self.shown.as_ref().is_some_and(|shown| shown.signed == Signed::Old);
        if cookie || self.cookie_changed || left_form.is_some() || resign {
            self.show_to_client(&mut answer);
        }
        if let Some(form) = left_form.filter(|_| !answer.cookies.is_empty()) {
            let attributes = self.sessions.config.attributes(form, &self.view.cookie(), self.sessions.now());
            self.forget = Some((form, attributes));
            self.forget_cookie(&mut answer);
        }
        Ok(answer)
    }

    fn facts(&self) -> Facts {
        let config = &self.sessions.config;
        let known = self.shown.as_ref().map(|shown| &shown.id) == self.id.as_ref() && self.id.is_some();
        let stored = match &self.standing {
            Some(standing) if !config.resave || self.saved => {
                if standing.record.same_values(&self.view) {
                    Stored::Same
                } else {
                    Stored::Other
                }
            }
            _ => Stored::Nothing,
        };
        Facts {
            known_to_client: known,
            id_changed: self.id_changed || self.next != Next::Stay,
            changed: !self.view.same_values(&self.at_start),
            stored,
            expires: self.view.cookie().expires(self.sessions.now()).is_some(),
            save_uninitialized: config.save_uninitialized,
            rolling: config.rolling,
        }
    }

    fn lacks_stamp(&self) -> bool {
        self.sessions.config.absolute_timeout.is_some() && Meta::of(&self.view).created.is_none()
    }

    /// Begins its time to live anew, if a good part of it is over or the client is told so. `false`: it has ended.
    async fn prolong(&mut self, told: bool) -> Result<bool> {
        let config = &self.sessions.config;
        let Some(standing) = self.standing.as_mut().filter(|_| !config.disable_touch && !config.disable_ttl) else {
            return Ok(true);
        };
        let Some(ttl) = self.sessions.ttl(&self.view) else {
            return self.sessions.remove(standing).await.map(|()| true);
        };
        let enough = ttl.mul_f64(1.0 - config.touch_after);
        if !told && !self.touch && standing.left.is_some_and(|left| left > enough) {
            return Ok(true);
        }
        let stands = self.sessions.touch(standing, ttl).await?;
        self.sessions.emit(if stands { SessionEvent::Touched } else { SessionEvent::Gone });
        Ok(stands)
    }

    fn form(&self) -> Form {
        match &self.standing {
            Some(standing) => standing.form,
            None => self.sessions.config.forms().first().copied().unwrap_or(Form::Native),
        }
    }

    fn attributes(&self, now: Timestamp) -> Attributes {
        self.sessions.config.attributes(self.form(), &self.view.cookie(), now)
    }

    /// Whether the client of this request would not get the cookie. Our own form leaves that to the browser.
    fn is_cookie_blocked(&self) -> bool {
        !self.by_header()
            && self.form() == Form::Express
            && !self.request.by_https
            && self.attributes(self.sessions.now()).secure
    }

    fn show_to_client(&self, answer: &mut Answer) {
        let Some(id) = &self.id else { return };
        let config = &self.sessions.config;
        let signed = config.keyring.sign(id);
        if self.by_header() {
            let transport = config.transports.iter().find_map(|transport| match transport {
                Transport::Cookie => None,
                Transport::Bearer => Some(HeaderName::from_static("session-token")),
                Transport::Header(name) => Some(name.clone()),
            });
            answer.token = transport.map(|name| (name, signed));
            return;
        }
        let attributes = self.attributes(self.sessions.now());
        let header = attributes.header(config.cookie_name(self.form()), &format!("s:{signed}"));
        match header.filter(|_| !self.is_cookie_blocked()) {
            Some(header) => answer.cookies.push(header),
            None => self.sessions.emit(SessionEvent::CookieNotSent),
        }
    }

    fn forget_cookie(&mut self, answer: &mut Answer) {
        let config = &self.sessions.config;
        let Some((form, mut attributes)) =
            self.forget.take().filter(|_| (config.removal_cookie || self.logged_out) && !self.by_header())
        else {
            return;
        };
        attributes.expires = Some(Timestamp::from_millis(0));
        attributes.max_age = attributes.max_age.map(|_| 0);
        answer.cookies.extend(attributes.header(config.cookie_name(form), ""));
    }
}

impl Request {
    pub(super) fn new(headers: &HeaderMap, transports: &[Transport], by_https: bool) -> Self {
        let mut kept = Vec::new();
        for transport in transports {
            let name = match transport {
                Transport::Cookie => &http::header::COOKIE,
                Transport::Bearer => &http::header::AUTHORIZATION,
                Transport::Header(name) => name,
            };
            kept.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        Self { headers: kept, by_https }
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.headers.iter().filter(move |(found, _)| found == name).map(|(_, value)| value)
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[expect(clippy::unnecessary_wraps, reason = "an operation, as others that can fail")]
fn mark_by_header(record: &mut Record) -> Result<()> {
    let mut meta = Meta::of(record);
    meta.by_header = true;
    meta.store(record);
    Ok(())
}
