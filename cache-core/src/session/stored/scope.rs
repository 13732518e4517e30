//! Checks whether a prefix belongs to one application alone.
//!
//! Keys in the form of Express have no namespace, so only the prefix keeps applications apart. Each
//! application therefore stores its namespace under its prefix, for as long as a deployment takes.
//! An application that finds another namespace there emits an event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::sessions::Sessions;
use crate::error::Result;
use crate::observe::events::SessionEvent;

/// How long the namespace is stored after the last start of its application.
const OWNED_FOR: Duration = Duration::from_secs(7 * 86400);

impl Sessions {
    /// Asks the store in the background. Without a runtime, this does nothing.
    pub(in crate::session) fn look_for_others(self: &Arc<Self>) {
        if self.config.shares_with_express() {
            let sessions = Arc::clone(self);
            self.host.work(async move {
                if let Ok(false) = sessions.is_alone().await {
                    sessions.emit(SessionEvent::SharedPrefix);
                }
            });
        }
    }

    async fn is_alone(&self) -> Result<bool> {
        let key = format!("sown:{}", self.config.prefix);
        let (own, store) = (Bytes::copy_from_slice(self.config.namespace.as_bytes()), &self.cells);
        if store.create(&key, own.clone(), Some(OWNED_FOR)).await? {
            return Ok(true);
        }
        let Some((found, _)) = store.load(&key).await? else { return Ok(true) };
        if found == own {
            store.touch(&key, OWNED_FOR).await?;
        }
        Ok(found == own)
    }
}
