//! The end of a request: what is written, and what the client is told.

use std::sync::Arc;

use super::super::response::Answer;
use super::{IdChange, Result, State};
use crate::observe::events::SessionEvent;
use crate::session::SessionMode;
use crate::session::config::Form;
use crate::session::error::SessionErrorKind;
use crate::session::express::{Due, Facts, Stored, due};
use crate::session::id::Signed;
use crate::session::stored::sessions::Prolonged;

impl State {
    /// Writes what is due, and returns what the response has to carry.
    ///
    /// # Errors
    /// The changes could not be stored, so the handler's response must not be sent.
    pub(in crate::session) async fn finish(&mut self, failed: bool) -> Result<Answer> {
        let config = &self.sessions.config;
        let eager = config.resave || config.rolling || config.save_uninitialized;
        if !self.open && (!eager || self.answered) {
            self.answered = true;
            return Ok(Answer { vary: self.looked, ..Answer::default() });
        }
        if failed && config.discard_on_server_error {
            self.discard()?;
        }
        self.open().await?;
        let answer = self.settle().await;
        self.answered = true;
        answer.map(|mut answer| {
            // A session that was begun in the meantime stores the token itself.
            answer.cookies.extend(self.form_cookie_header().filter(|_| self.current.is_none()));
            if !answer.cookies.is_empty() {
                answer.cookies.extend(self.forget_form_cookie());
            }
            answer
        })
    }

    fn discard(&mut self) -> Result<()> {
        self.operations.clear();
        self.lost = false;
        self.id_change = IdChange::Keep;
        self.recreate_if_gone = false;
        self.cookie_changed &= self.saved;
        self.id = self.current.as_ref().map(|current| current.at.id.clone()).or_else(|| self.id.take());
        self.see_again()
    }

    async fn settle(&mut self) -> Result<Answer> {
        let mut answer = Answer { vary: true, ..Answer::default() };
        let ended = self.over && self.operations.is_empty() && self.id_change == IdChange::Keep && !self.saved;
        if self.unset || self.gone || ended {
            self.forget_cookie(&mut answer);
            return Ok(answer);
        }
        let moving = self.current.as_ref().filter(|current| self.sessions.target_form(current) != current.at.form);
        let moves = moving.is_some();
        // Also if another request has converted it, whose response may not have arrived.
        let old_cookie = self.presented.as_ref().and_then(|presented| presented.cookie);
        let old_cookie =
            old_cookie.filter(|form| self.sessions.config.mode == SessionMode::Native && *form != Form::Native);
        let left_form = moving.map(|current| current.at.form).or(old_cookie).filter(|_| self.current.is_some());
        let facts = self.facts();
        let (has_end, mut renewed) = (facts.expires, false);
        let Due { save, touch, cookie } = due(facts);
        let save = save
            || self.id_change != IdChange::Keep
            || moves
            || (self.current.is_some() && (self.cookie_changed && !self.operations.is_empty() || self.lacks_stamp()));
        if save {
            if self.current.is_none() && self.is_cookie_blocked() {
                // No cookie will be sent, so the session would be unreachable.
                self.sessions.emit(SessionEvent::CookieNotSent);
                return Ok(answer);
            }
            match self.commit().await {
                Ok(()) => {}
                // It was ended elsewhere. It stays ended, and the cookie that the client has now is
                // not changed.
                Err(error) if error.kind() == SessionErrorKind::Gone => return Ok(answer),
                Err(error) => return Err(error),
            }
        } else if touch || self.touch {
            match self.prolong(cookie).await? {
                Prolonged::No => {}
                Prolonged::Yes => renewed = self.sessions.config.renew_cookie && has_end,
                // A cookie sent now could replace one that another response has set.
                Prolonged::Ended => return Ok(answer),
            }
        }
        let resign = self.sessions.config.mode == SessionMode::Native
            && self.presented.as_ref().is_some_and(|presented| presented.signed == Signed::Old);
        if cookie || renewed || self.cookie_changed || left_form.is_some() || resign {
            self.show_to_client(&mut answer);
        }
        if let Some(form) = left_form.filter(|_| !answer.cookies.is_empty()) {
            let attributes = self.sessions.config.attributes(form, &self.view.cookie(), self.sessions.now());
            self.forget = Some((form, attributes));
        }
        // A new cookie of the same name replaces the old one, so only other names are removed.
        let form = self.form();
        if self.forget.as_ref().is_some_and(|(forgotten, _)| *forgotten != form || answer.cookies.is_empty()) {
            self.forget_cookie(&mut answer);
        }
        Ok(answer)
    }

    fn facts(&self) -> Facts {
        let config = &self.sessions.config;
        let known = self.presented.as_ref().map(|presented| &presented.id) == self.id.as_ref() && self.id.is_some();
        let stored = match &self.current {
            Some(current) if !config.resave || self.saved => {
                if current.object.same_values(&self.view) {
                    Stored::Same
                } else {
                    Stored::Other
                }
            }
            _ => Stored::Nothing,
        };
        Facts {
            known_to_client: known,
            id_changed: self.id_changed || self.id_change != IdChange::Keep,
            changed: !self.view.same_values(&self.at_start),
            stored,
            expires: self.view.cookie().expires(self.sessions.now()).is_some(),
            save_uninitialized: config.save_uninitialized,
            rolling: config.rolling,
        }
    }

    fn lacks_stamp(&self) -> bool {
        // Or it was signed with a secret that is being rotated out.
        self.view.signed_long_ago || self.sessions.config.absolute_timeout.is_some() && self.view.meta.created.is_none()
    }

    /// Extends the session's time if enough of it has passed, or if the client gets the cookie
    /// (`told`).
    async fn prolong(&mut self, told: bool) -> Result<Prolonged> {
        let sessions = Arc::clone(&self.sessions);
        let config = &sessions.config;
        let Some(mut current) = self.current.clone().filter(|_| !config.disable_touch && !config.disable_ttl) else {
            return Ok(Prolonged::No);
        };
        let Some(ttl) = sessions.ttl(&self.view) else {
            return self.within(sessions.remove(&current)).await?.map(|()| Prolonged::No);
        };
        let enough = ttl.mul_f64(1.0 - config.touch_after);
        if !told && !self.touch && current.left.is_some_and(|left| left > enough) {
            return Ok(Prolonged::No);
        }
        let stands = self.within(sessions.touch(&mut current, ttl)).await??;
        self.current = Some(current);
        self.sessions.emit(if stands { SessionEvent::Touched } else { SessionEvent::Gone });
        Ok(if stands { Prolonged::Yes } else { Prolonged::Ended })
    }
}
