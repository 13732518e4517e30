//! The entry of a session in its user's index, which is written together with the session.

use std::time::Duration;

use super::index::{FOR_EVER, ROUNDING};
use super::meta::Meta;
use super::record::Record;
use super::sessions::{Current, Sessions};
use crate::cell::{Entry, OverLimit};
use crate::session::Result;
use crate::session::options::TooMany;

impl Sessions {
    /// Keeps a session in its user's index for longer than the session itself lives, so that its
    /// entry is renewed only now and then.
    pub(in crate::session) fn stamp_index(&self, record: &mut Record) {
        if record.meta.user.is_none() {
            record.meta.indexed = None;
            return;
        }
        let ttl = self.ttl(record).unwrap_or_default();
        if self.config.disable_ttl || !self.is_entered(&record.meta, ttl) {
            record.meta.indexed = Some(self.now().plus(self.entered_for(ttl)));
        }
    }

    fn entered_for(&self, ttl: Duration) -> Duration {
        if self.config.disable_ttl {
            return FOR_EVER;
        }
        // One more second for differences between clocks.
        ttl.mul_f64(1.0 + self.config.touch_after).saturating_add(Duration::from_secs(1))
    }

    /// Renews the entry of a session whose life is about to be extended without a write. Done
    /// before the extension: an entry without its session is cleaned up later, but a session
    /// without its entry would be missed.
    pub(in crate::session) async fn stay_entered(&self, current: &Current, ttl: Duration) -> Result<()> {
        let meta = &current.object.meta;
        let Some(user) = &meta.user else { return Ok(()) };
        if !self.is_entered(meta, ttl) {
            let lasts = self.entered_for(ttl);
            self.cells.enter(&self.index_key(user).await?, &current.key, lasts).await?;
        }
        Ok(())
    }

    /// Returns whether the entry outlasts a session that lives this long. An end later than any
    /// entry can have was written with a wrong clock and does not count.
    fn is_entered(&self, meta: &Meta, ttl: Duration) -> bool {
        let (least, most) = (self.now().plus(ttl), self.now().plus(self.entered_for(ttl)).plus(ROUNDING));
        meta.indexed.is_some_and(|until| least <= until && until <= most)
    }

    /// Returns the index change for a write of this record under this member, or `None` if there is
    /// none. `before`: the session it is made from. `instead`: a session that it replaces.
    pub(in crate::session) async fn entry(
        &self,
        record: &Record,
        member: String,
        before: Option<&Current>,
        instead: Option<&Current>,
    ) -> Result<Option<Entry>> {
        let meta = &record.meta;
        let (Some(user), Some(until)) = (&meta.user, meta.indexed) else { return Ok(None) };
        let lasts = self.now().until(until);
        let is_new = before.is_none_or(|before| before.key != member);
        let was = before.map(|before| &before.object.meta);
        if !is_new && was.is_some_and(|was| was.user.as_ref() == Some(user) && was.indexed == meta.indexed) {
            return Ok(None);
        }
        let logged_in = was.is_none_or(|was| was.since != meta.since);
        let limit = match self.config.max_sessions {
            Some((most, TooMany::Refuse)) if logged_in => Some((most, OverLimit::Refuse)),
            Some((most, TooMany::EndOldest)) if is_new => Some((most, OverLimit::EndFirst)),
            _ => None,
        };
        let leaving = before.filter(|_| is_new).or(instead);
        let leaves = match leaving.and_then(|old| Some((old, old.object.meta.user.as_ref()?))) {
            None => None,
            Some((old, user)) => Some((self.index_key(user).await?, old.key.clone())),
        };
        Ok(Some(Entry { index: self.index_key(user).await?, member, lasts, leaves, limit }))
    }

    pub(in crate::session) async fn leave_index(&self, current: &Current) -> Result<()> {
        if let Some(user) = &current.object.meta.user {
            self.cells.leave(&self.index_key(user).await?, std::slice::from_ref(&current.key)).await?;
        }
        Ok(())
    }
}
