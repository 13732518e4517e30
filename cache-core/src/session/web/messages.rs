//! Flash messages, and tokens against cross-site request forgery.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq as _;

use super::state::CSRF;
use crate::session::{Result, Secret, Session, SessionValues};

/// As in connect-flash: lists of texts by kind.
const FLASH: &str = "flash";

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
    /// In mode [`Native`](crate::session::SessionMode::Native) this does not create a session for a
    /// visitor without one: nothing is stored, and the token is signed and sent in a cookie of its
    /// own, named like the session's cookie with `-form` appended (signed double submit). It is
    /// valid until the visitor has a session.
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
        let by_header = state.view.meta.by_header;
        Ok(by_header || (!good.is_empty() && bool::from(good.as_bytes().ct_eq(token.as_bytes()))))
    }
}
