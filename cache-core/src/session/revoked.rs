//! What has ended stays so, also beside Express peers that write without a look at what stands.
//!
//! A request there that has read a session before its end writes it back afterwards, and it lives again. So whoever ends a session here leaves a mark
//! of its id behind, for as long as such a request may take. It is read with the session, in one trip; what stands beside its mark was brought
//! back, and is deleted. The mark's key is the hash of the id, since who can read it must not have the id.

use super::Result;
use super::commit::Sessions;
use super::config::Form;
use super::id::hash;
use super::index::form_of;
use crate::events::SessionEvent;
use crate::store::{Loaded, Mark};

impl Sessions {
    /// The key of the mark of what stands under this member of the form of Express; `None`: it needs none.
    pub(super) fn mark_of(&self, form: Form, member: &str) -> Option<String> {
        let config = &self.config;
        let marked = form == Form::Express && config.shares_with_express() && !config.revoke_for.is_zero();
        marked.then(|| format!("srev:{}{}", config.prefix, hash(format!("{}\0{member}", config.prefix).as_bytes())))
    }

    pub(super) fn mark<'a>(&self, key: &'a Option<String>) -> Option<Mark<'a>> {
        key.as_deref().map(|key| Mark { key, lasts: self.config.revoke_for })
    }

    /// What stands under a session's key, and has not ended before.
    pub(super) async fn load_living(&self, form: Form, member: &str, key: &str) -> Result<Option<Loaded>> {
        let store = &self.cache.0.store;
        let Some(mark) = self.mark_of(form, member) else { return Ok(store.load(key).await?) };
        match store.load_marked(key, &mark).await? {
            (Some(_), true) => {
                // The mark's time begins anew: the request that brought it back is not over, or another one has read it since.
                store.delete_marked(key, Mark { key: &mark, lasts: self.config.revoke_for }).await?;
                self.emit(SessionEvent::Resurrected);
                Ok(None)
            }
            (loaded, _) => Ok(loaded),
        }
    }

    /// Deletes what stands there for good. `false`: nothing did.
    pub(super) async fn end(&self, form: Form, member: &str, key: &str) -> Result<bool> {
        let mark = self.mark_of(form, member);
        Ok(match self.mark(&mark) {
            Some(mark) => self.cache.0.store.delete_marked(key, mark).await?,
            None => self.cache.0.store.delete(key).await?,
        })
    }

    /// Of members whose sessions the store has ended by itself.
    pub(super) async fn mark_ended(&self, members: &[String]) -> Result<()> {
        for member in members {
            if self.mark_of(form_of(member), member).is_some() {
                self.end(form_of(member), member, &format!("{}{member}", self.config.prefix)).await?;
            }
        }
        Ok(())
    }
}
