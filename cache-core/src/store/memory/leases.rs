//! Leases and fills. Each operation compares the content and writes under the same lock.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::MemoryStore;
use super::shard::{Access, Value};
use crate::error::Result;
use crate::mutants::{self, Invariant};
use crate::store::{
    Acquired, Claim, Fill, Filled, LeaseStore, LeaseTarget, Replaces, Rewrite, Slot, THROTTLE_MARK, Token, Want,
    has_fill_id, is_unawaited, lease_key,
};

impl LeaseStore for MemoryStore {
    fn acquire<'a>(&'a self, want: &'a Want, lease: Duration) -> BoxFuture<'a, Result<Acquired>> {
        let Want { key, token, target } = want;
        self.ready(key, |access| match (*target, access.slot(key)) {
            (LeaseTarget::Empty, Slot::Absent) => Ok(access.take(key, *token, lease)),
            (LeaseTarget::OverMark(mark), Slot::Unstored(found)) if found == mark => {
                Ok(access.take(key, token.unawaited(), lease))
            }
            (LeaseTarget::Instead(id), _) if access.record_is(key, id) => Ok(access.take(key, *token, lease)),
            (LeaseTarget::Beside(id), _) if access.record_is(key, id) => access.take_beside(key, *token, lease),
            (_, found) => Ok(Acquired::Found(found)),
        })
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        let Fill { claim: Claim { key, token, over }, record, expiry, .. } = fill;
        self.ready(key, |access| {
            let unguarded = access.is_unguarded(key, *over);
            if !access.holds(key, *token, *over) && !unguarded {
                return Ok(Filled::Refused);
            }
            access.remove(&lease_key(key));
            if let Replaces::Stale(id) = *over
                && !access.record_is(key, id)
                && !unguarded
            {
                return Ok(Filled::Refused);
            }
            access.put(key, Value::Bytes(record.clone()), Some(*expiry));
            Ok(Filled::Tracked)
        })
    }

    fn rewrite_head<'a>(&'a self, rewrite: Rewrite<'a>) -> BoxFuture<'a, Result<bool>> {
        let Rewrite { key, token, fill_id, head, expiry } = rewrite;
        self.ready(key, |access| {
            if !access.holds(key, token, Replaces::Stale(fill_id)) {
                return Ok(false);
            }
            access.remove(&lease_key(key));
            if !access.record_is(key, fill_id) {
                return Ok(false);
            }
            let Some(record) = access.bytes(key)? else { return Ok(false) };
            let payload = record.get(head.len()..).unwrap_or_default();
            access.put(key, Value::Bytes([&head, payload].concat().into()), Some(expiry));
            Ok(true)
        })
    }

    fn renew<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        let Claim { key, token, over } = claim;
        self.ready(key, |access| {
            if !access.holds(key, *token, *over) {
                return Ok(false);
            }
            if let Replaces::Stale(id) = *over
                && access.record_is(key, id)
            {
                access.keep(key, lease);
            }
            Ok(access.expire(&claim.lease_key(), Some(lease)))
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim, unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        let Claim { key, token, over } = claim;
        self.ready(key, |access| {
            let target = claim.lease_key();
            let forms = token.forms(*over);
            let is_own = |bytes: &Bytes| forms.iter().any(|form| bytes == form.as_bytes());
            if !matches!(access.bytes(&target), Ok(Some(bytes)) if is_own(&bytes)) {
                return Ok(());
            }
            match unstored {
                Some(rest) => access.put(&target, Value::Bytes(token.unstored().into()), Some(rest)),
                None => drop(access.remove(&target)),
            }
            if let Replaces::Stale(_) = over {
                // Callers that wait for the refresh watch the record.
                access.changed.push((&**key).into());
            }
            Ok(())
        })
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| {
            let held = access.holds(key, token, Replaces::Stale(0));
            if held {
                access.put(&lease_key(key), Value::Bytes(Bytes::from_static(THROTTLE_MARK.as_bytes())), Some(throttle));
                // Like touching the expiry on Redis: callers that wait for the record check again.
                access.changed.push(key.into());
            }
            Ok(held)
        })
    }
}

impl Access<'_> {
    /// Writes a lease into the value key.
    fn take(&mut self, key: &str, token: Token, lease: Duration) -> Acquired {
        self.put(key, Value::Bytes(token.mark().into()), Some(lease));
        Acquired::Ours
    }

    /// Takes the lease of a refresh. The record is kept for at least as long.
    fn take_beside(&mut self, key: &str, token: Token, lease: Duration) -> Result<Acquired> {
        let lease_key = lease_key(key);
        let (acquired, token) = match self.bytes(&lease_key)? {
            None => (Acquired::Ours, token),
            Some(held) if Token::of_unstored(&held).is_some() => (Acquired::Unawaited, token.unawaited()),
            Some(held) => {
                let left = self.left(&lease_key);
                return Ok(match &held {
                    held if held == THROTTLE_MARK.as_bytes() => Acquired::Throttled(left),
                    held if is_unawaited(held) => Acquired::Found(Slot::Unawaited(left)),
                    _ => Acquired::Found(Slot::Leased(left)),
                });
            }
        };
        self.put(&lease_key, Value::Bytes(token.hex().into()), Some(lease));
        self.keep(key, lease);
        Ok(acquired)
    }

    /// Returns whether this attempt's lease is held: in the value key, or in the lease key.
    fn holds(&mut self, key: &str, token: Token, over: Replaces) -> bool {
        let (key, mark) = match over {
            Replaces::Nothing => (key.to_owned(), token.mark()),
            Replaces::Stale(_) => (lease_key(key), token.hex()),
        };
        matches!(self.bytes(&key), Ok(Some(bytes)) if bytes == mark.as_bytes())
    }

    /// Test only: returns whether the guard against the current content is disabled.
    fn is_unguarded(&mut self, key: &str, over: Replaces) -> bool {
        match (over, self.slot(key)) {
            (Replaces::Nothing, Slot::Absent) => mutants::removed(Invariant::RemovalEndsLease),
            (Replaces::Nothing, Slot::Bytes(_)) => mutants::removed(Invariant::WriteEndsLease),
            (Replaces::Stale(_), _) => mutants::removed(Invariant::RefreshReplacesItsRecord),
            (Replaces::Nothing, _) => false,
        }
    }

    /// Keeps the record of a refresh for at least as long as its lease (R28). It sets twice that
    /// time, so that only every other renewal changes the record: each change is notified to all
    /// processes with the record in L1.
    fn keep(&mut self, key: &str, lease: Duration) {
        if self.left(key).is_some_and(|left| left < lease) {
            self.expire(key, Some(lease.saturating_mul(2)));
        }
    }

    fn record_is(&mut self, key: &str, fill_id: u64) -> bool {
        matches!(self.bytes(key), Ok(Some(record)) if has_fill_id(&record, fill_id))
    }
}
