//! Flash messages, and tokens against cross-site request forgery.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq as _;

use super::cookie::{self, Attributes};
use super::meta::Meta;
use super::state::State;
use super::{Result, Secret, Session, SessionMode, SessionValues};
use crate::clock::Timestamp;

/// As in connect-flash: lists of texts by kind.
const FLASH: &str = "flash";
pub(super) const CSRF: &str = "csrfToken";

/// A message for the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flash {
    /// The kind, such as `info` or `error`.
    pub kind: String,
    /// The text to show.
    pub text: String,
}

impl Session {
    /// Adds a message for the next page that shows messages. They are shared with Express
    /// applications that use connect-flash.
    ///
    /// # Errors
    /// The same as [`insert`](Self::insert).
    pub async fn flash(&self, kind: impl Into<String>, text: impl Into<String>) -> Result<()> {
        let (kind, text) = (kind.into(), text.into());
        self.update(FLASH, move |messages: Option<BTreeMap<String, Vec<String>>>| {
            let mut messages = messages.unwrap_or_default();
            messages.entry(kind.clone()).or_default().push(text.clone());
            Some(messages)
        })
        .await
    }

    /// Removes all messages and returns them, sorted by kind. Each message is returned to exactly
    /// one request; see [`pop`](Self::pop).
    ///
    /// # Errors
    /// The same as [`pop`](Self::pop).
    pub async fn take_flashes(&self) -> Result<Vec<Flash>> {
        let messages: BTreeMap<String, Vec<String>> = self.pop(FLASH).await?.unwrap_or_default();
        let by_kind =
            messages.into_iter().flat_map(|(kind, texts)| texts.into_iter().map(move |text| (kind.clone(), text)));
        Ok(by_kind.map(|(kind, text)| Flash { kind, text }).collect())
    }

    /// Returns a token for the forms of this session that pages of other sites cannot know. It is
    /// made and stored at its first use, and replaced after a login.
    ///
    /// In mode [`Native`](super::SessionMode::Native) this does not create a session for a visitor
    /// without one: nothing is stored, and the token is signed and sent in a cookie of its own,
    /// named like the session's cookie with `-form` appended (signed double submit). It is valid
    /// until the visitor has a session.
    ///
    /// # Errors
    /// The same as [`save`](Self::save), at the first use.
    pub async fn csrf_token(&self) -> Result<String> {
        if let Some(token) = self.get(CSRF).await? {
            return Ok(token);
        }
        if let Some(token) = self.state.lock().await.form_token() {
            return Ok(token);
        }
        let made = Secret::generate();
        self.update(CSRF, move |token: Option<String>| Some(token.unwrap_or_else(|| made.clone()))).await?;
        // Saved at once: a concurrent request must get the same token.
        self.save().await?;
        Ok(self.get(CSRF).await?.unwrap_or_default())
    }

    /// Returns whether a form was sent by a page of this session. Always `true` for a session that
    /// uses a header, which pages of other sites cannot send.
    ///
    /// # Errors
    /// Store errors.
    pub async fn verify_csrf(&self, token: &str) -> Result<bool> {
        let mut state = self.state.lock().await;
        state.open().await?;
        let good = match SessionValues(&state.view).get::<String>(CSRF)? {
            Some(stored) => Some(stored),
            None => state.shown_form_token(),
        };
        let good = good.unwrap_or_default();
        let by_header = Meta::of(&state.view).by_header;
        Ok(by_header || (!good.is_empty() && bool::from(good.as_bytes().ct_eq(token.as_bytes()))))
    }
}

/// Tokens of visitors without a stored session.
impl State {
    /// Returns a token for a visitor without a session. `None` if there is a session to store one
    /// in, or if an Express peer would look for it there.
    fn form_token(&mut self) -> Option<String> {
        if !self.is_nobodys() {
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
    fn shown_form_token(&self) -> Option<String> {
        if self.is_nobodys() { self.form_token_of_client() } else { None }
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
        cookie::find(&mut cookies, &self.form_cookie_name()).filter(|_| self.standing.is_some())?;
        let mut attributes = self.sessions.config.own_attributes(None, self.sessions.now());
        attributes.expires = Some(Timestamp::from_millis(0));
        attributes.max_age = Some(0);
        attributes.header(&self.form_cookie_name(), "")
    }

    fn form_cookie_name(&self) -> String {
        format!("{}-form", self.sessions.config.native_name)
    }

    fn is_nobodys(&self) -> bool {
        self.sessions.config.mode == SessionMode::Native && self.is_untouched() && !self.by_header()
    }
}

/// Signatures of ids cannot be mistaken for this: an id contains no control character.
fn form_message(random: &str) -> String {
    format!("form\0{random}")
}
