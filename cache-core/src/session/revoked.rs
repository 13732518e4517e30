//! What has ended stays so, also beside Express peers that write without a look at what stands.
//!
//! A request there that has read a session before its end writes it back afterwards, and it lives again. So whoever ends a session here leaves a mark
//! of its id behind, for as long as such a request may take. It is read with the session, in one trip; what stands beside its mark was brought
//! back, and is deleted. The mark lies in the slot of its session.

use super::Result;
use super::commit::Sessions;
use super::config::Form;
use crate::cell::Marked;
use crate::events::SessionEvent;
use crate::store::Loaded;

impl Sessions {
    /// The key of the mark of what stands under this key of the form of Express; `None`: it needs
    /// none.
    pub(super) fn mark_of(&self, key: &str) -> Option<Marked> {
        let config = &self.config;
        let marked =
            config.form_of(key) == Form::Express && config.shares_with_express() && !config.revoke_for.is_zero();
        // Of an id with a hash tag of its own: that one counts.
        let mark = || if has_hash_tag(key) { format!("srev:{key}:r") } else { format!("{{{key}}}:r") };
        marked.then(|| Marked { key: mark(), lasts: config.revoke_for })
    }

    /// What stands under a session's key, and has not ended before.
    pub(super) async fn load_living(&self, key: &str) -> Result<Option<Loaded>> {
        let Some(mark) = self.mark_of(key) else { return Ok(self.cells.load(key).await?) };
        match self.cells.load_marked(key, &mark.key).await? {
            (Some(_), true) => {
                // The mark's time begins anew: the request that brought it back is not over, or another one has read it since.
                self.cells.remove(key, Some(&mark)).await?;
                self.emit(SessionEvent::Resurrected);
                Ok(None)
            }
            (loaded, _) => Ok(loaded),
        }
    }

    /// Deletes what stands there for good. `false`: nothing did.
    pub(super) async fn end(&self, key: &str) -> Result<bool> {
        Ok(self.cells.remove(key, self.mark_of(key).as_ref()).await?)
    }

    /// Of sessions that the store has ended by itself.
    pub(super) async fn mark_ended(&self, keys: &[String]) -> Result<()> {
        for key in keys.iter().filter(|key| self.mark_of(key).is_some()) {
            self.end(key).await?;
        }
        Ok(())
    }
}

/// Whether a Cluster takes a part of the key for its slot.
fn has_hash_tag(key: &str) -> bool {
    key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).is_some_and(|(tag, _)| !tag.is_empty())
}
