//! Messages that are shown once, and tokens against forged requests.

use std::collections::BTreeMap;

use subtle::ConstantTimeEq as _;

use super::meta::Meta;
use super::{Result, Secret, Session};

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
    /// # Errors
    /// As [`save`](Self::save), the first time.
    pub async fn csrf_token(&self) -> Result<String> {
        if let Some(token) = self.get(CSRF).await? {
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
        let (by_header, stored) =
            self.read(|values| (Meta::of(values.0).by_header, values.get::<String>(CSRF))).await?;
        let stored = stored?.unwrap_or_default();
        Ok(by_header || (!stored.is_empty() && bool::from(stored.as_bytes().ct_eq(token.as_bytes()))))
    }
}
