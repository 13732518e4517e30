//! Keeps ended sessions ended, even if Express peers write without comparing.
//!
//! A request of an Express peer that has read a session before its end writes it back afterwards,
//! which would recreate it. So when a session is ended here, a mark of its id is left for as long
//! as such a request may take. The mark is read together with the session in one round trip. A
//! session found with its mark was written back, and is deleted. The mark is in the same slot as
//! its session.

use super::sessions::Sessions;
use crate::cell::{Loaded, Marked};
use crate::observe::events::SessionEvent;
use crate::session::Result;
use crate::session::config::Form;

impl Sessions {
    /// Returns the mark for a key in the form of Express, or `None` if the key needs none.
    pub(in crate::session) fn mark_of(&self, key: &str) -> Option<Marked> {
        let config = &self.config;
        let marked =
            config.form_of(key) == Form::Express && config.shares_with_express() && !config.revoke_for.is_zero();
        // If the id contains a hash tag of its own, that one decides the slot.
        let mark = || if has_hash_tag(key) { format!("srev:{key}:r") } else { format!("{{{key}}}:r") };
        marked.then(|| Marked { key: mark(), lasts: config.revoke_for })
    }

    /// Loads a session, unless it has been ended before.
    pub(in crate::session) async fn load_living(&self, key: &str) -> Result<Option<Loaded>> {
        let Some(mark) = self.mark_of(key) else { return Ok(self.cells.load(key).await?) };
        match self.cells.load_marked(key, &mark.key).await? {
            (Some(_), true) => {
                // Restarts the mark's time: the request that wrote it back may still run, or
                // another one may have read it since.
                self.cells.remove(key, Some(&mark)).await?;
                self.emit(SessionEvent::Resurrected);
                Ok(None)
            }
            (loaded, _) => Ok(loaded),
        }
    }

    /// Deletes a session permanently. Returns `false` if there was none.
    pub(in crate::session) async fn end(&self, key: &str) -> Result<bool> {
        Ok(self.cells.remove(key, self.mark_of(key).as_ref()).await?)
    }

    /// Marks sessions that the store has ended by itself.
    pub(in crate::session) async fn mark_ended(&self, keys: &[String]) -> Result<()> {
        for key in keys.iter().filter(|key| self.mark_of(key).is_some()) {
            self.end(key).await?;
        }
        Ok(())
    }
}

/// Returns whether a part of the key decides its Cluster slot.
fn has_hash_tag(key: &str) -> bool {
    key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).is_some_and(|(tag, _)| !tag.is_empty())
}
