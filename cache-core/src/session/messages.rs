//! Messages that are shown once, and tokens against forged requests.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq as _;

use super::cookie::{self, Attributes};
use super::meta::Meta;
use super::state::State;
use super::{Result, Secret, Session, SessionMode, SessionValues};
use crate::clock::Timestamp;

/// As connect-flash has it: lists of texts by kind.
const FLASH: &str = "flash";
pub(super) const CSRF: &str = "csrfToken";

/// A message for the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flash {
    /// Such as `info` or `error`.
    pub kind: String,
    /// What is shown.
    pub text: String,
}

impl Session {
    /// Leaves a message for the next page that shows them. Express applications with connect-flash share them.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn flash(&self, kind: impl Into<String>, text: impl Into<String>) -> Result<()> {
        let (kind, text) = (kind.into(), text.into());
        self.update(FLASH, move |messages: Option<BTreeMap<String, Vec<String>>>| {
            let mut messages = messages.unwrap_or_default();
            messages.entry(kind.clone()).or_default().push(text.clone());
            Some(messages)
        })
        .await
    }

    /// Takes all messages, by kind. Each is given to exactly one request; see [`pop`](Self::pop).
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub async fn take_flashes(&self) -> Result<Vec<Flash>> {
        let messages: BTreeMap<String, Vec<String>> = self.pop(FLASH).await?.unwrap_or_default();
        let by_kind =
            messages.into_iter().flat_map(|(kind, texts)| texts.into_iter().map(move |text| (kind.clone(), text)));
        Ok(by_kind.map(|(kind, text)| Flash { kind, text }).collect())
    }

    /// A token for the forms of this session, which a page of another site cannot know. Made and stored at its first use, and anew by a
    /// login.
    ///
    /// In mode [`Native`](super::SessionMode::Native) a visitor without a session gets none by
    /// that: nothing is stored, and the token is signed and stands in a cookie of its own, named as
    /// the session's with `-form` behind it (a signed double submit). It is good until the visitor
    /// has a session.
    ///
    /// # Errors
    /// As [`save`](Self::save), the first time.
    pub async fn csrf_token(&self) -> Result<String> {
        if let Some(token) = self.get(CSRF).await? {
            return Ok(token);
        }
        if let Some(token) = self.state.lock().await.form_token() {
            return Ok(token);
        }
        let made = Secret::generate();
        self.update(CSRF, move |token: Option<String>| Some(token.unwrap_or_else(|| made.clone()))).await?;
        // At once: another request at the same time must come to the same one.
        self.save().await?;
        Ok(self.get(CSRF).await?.unwrap_or_default())
    }

    /// Whether a form was sent by a page of this session. Always for a session that goes by a header: no other site's page can send that.
    ///
    /// # Errors
    /// Faults of the store.
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

/// Tokens of visitors for whom nothing is stored.
impl State {
    /// `None`: there is a session to keep one in, or what an Express peer would look for.
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

    /// The one in the cookie, if we have signed it and it is still good.
    fn shown_form_token(&self) -> Option<String> {
        if self.is_nobodys() { self.form_token_of_client() } else { None }
    }

    /// Also for a session that is begun: forms that are open stay good.
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

    /// As a header of the answer.
    pub(super) fn form_cookie_header(&self) -> Option<String> {
        let attributes: Attributes = self.sessions.config.own_attributes(None, self.sessions.now());
        attributes.header(&self.form_cookie_name(), self.form_cookie.as_deref()?)
    }

    /// The header that has a client forget its token: whoever has a session has none of them.
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

/// No id has a control character, so no signature of one is one of this.
fn form_message(random: &str) -> String {
    format!("form\0{random}")
}
