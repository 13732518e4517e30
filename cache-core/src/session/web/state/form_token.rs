//! Tokens for forms: of a session, and of visitors without a stored session.

use super::super::cookie::{self, Attributes};
use super::State;
use crate::clock::Timestamp;
use crate::session::{Secret, SessionMode};

/// The name of the value with the token of a session.
pub(in crate::session) const CSRF: &str = "csrfToken";

/// Tokens of visitors without a stored session.
impl State {
    /// Returns a token for a visitor without a session. `None` if there is a session to store one
    /// in, or if an Express peer would look for it there.
    pub(in crate::session) fn form_token(&mut self) -> Option<String> {
        if !self.has_no_session() {
            return None;
        }
        let token = match self.shown_form_token() {
            Some(token) => token,
            None => {
                let random = Secret::generate();
                let mac = self.sessions.config.keyring.mac(form_message(&random).as_bytes());
                format!("{random}.{mac}")
            }
        };
        self.form_cookie = (self.shown_form_token().as_ref() != Some(&token)).then(|| token.clone());
        Some(token)
    }

    /// Returns the token from the cookie, if this server signed it and it is still valid.
    pub(in crate::session) fn shown_form_token(&self) -> Option<String> {
        if self.has_no_session() { self.form_token_of_client() } else { None }
    }

    /// Also used for a session that is being created, so that open forms stay valid.
    pub(super) fn form_token_of_client(&self) -> Option<String> {
        if self.sessions.config.mode != SessionMode::Native || self.by_header() {
            return None;
        }
        if let Some(made) = &self.form_cookie {
            return Some(made.clone());
        }
        let cookies = self.request.values(&http::header::COOKIE).map(http::HeaderValue::as_bytes);
        let token = cookie::find(cookies, &self.form_cookie_name())?;
        let (random, mac) = token.split_once('.')?;
        self.sessions.config.keyring.check(form_message(random).as_bytes(), mac)?;
        Some(token)
    }

    /// Returns the header that sets the token's cookie.
    pub(super) fn form_cookie_header(&self) -> Option<String> {
        let attributes: Attributes = self.sessions.config.own_attributes(None, self.sessions.now());
        attributes.header(&self.form_cookie_name(), self.form_cookie.as_deref()?)
    }

    /// Returns the header that makes a client delete its token cookie: a client with a session does
    /// not need one.
    pub(super) fn forget_form_cookie(&self) -> Option<String> {
        let mut cookies = self.request.values(&http::header::COOKIE).map(http::HeaderValue::as_bytes);
        cookie::find(&mut cookies, &self.form_cookie_name()).filter(|_| self.current.is_some())?;
        let mut attributes = self.sessions.config.own_attributes(None, self.sessions.now());
        attributes.expires = Some(Timestamp::from_millis(0));
        attributes.max_age = Some(0);
        attributes.header(&self.form_cookie_name(), "")
    }

    fn form_cookie_name(&self) -> String {
        format!("{}-form", self.sessions.config.native_name)
    }

    fn has_no_session(&self) -> bool {
        self.sessions.config.mode == SessionMode::Native && self.is_untouched() && !self.by_header()
    }
}

/// Signatures of ids cannot be mistaken for this: an id contains no control character.
fn form_message(random: &str) -> String {
    format!("form\0{random}")
}
