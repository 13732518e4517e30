//! Leases and fills. Each operation compares the content and writes under the same lock.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::MemoryStore;
use super::shard::{Access, Value};
use crate::error::Result;
use crate::sabotage::{self, Guard};
use crate::store::{
    Acquired, Claim, Expiry, Fill, Filled, LeaseStore, Over, Slot, THROTTLE_MARK, Token, has_fill_id, is_unawaited,
    lease_key,
};

/// Like [`Store::acquire`](crate::store::Store::acquire); the other functions likewise.
pub(super) fn acquire(
    access: &mut Access<'_>,
    key: &str,
    token: Token,
    lease: Duration,
    over: Over,
) -> Result<Acquired> {
    let slot = access.slot(key);
    match over {
        Over::Nothing if slot != Slot::Absent => return Ok(Acquired::Found(slot)),
        Over::Nothing => access.put(key, Value::Bytes(token.mark().into()), Some(lease)),
        Over::Record(id) => {
            if !access.record_is(key, id) {
                return Ok(Acquired::Found(slot));
            }
            return beside(access, key, token, lease);
        }
    }
    Ok(Acquired::Ours)
}

/// Takes the lease of a refresh. The record is kept for at least as long.
fn beside(access: &mut Access<'_>, key: &str, token: Token, lease: Duration) -> Result<Acquired> {
    let lease_key = lease_key(key);
    let (acquired, token) = match access.bytes(&lease_key)? {
        None => (Acquired::Ours, token),
        Some(held) if Token::of_unstored(&held).is_some() => (Acquired::Unawaited, token.unawaited()),
        Some(held) => {
            let left = access.left(&lease_key);
            return Ok(match &held {
                held if held == THROTTLE_MARK.as_bytes() => Acquired::Throttled(left),
                held if is_unawaited(held) => Acquired::Found(Slot::Unawaited(left)),
                _ => Acquired::Found(Slot::Leased(left)),
            });
        }
    };
    access.put(&lease_key, Value::Bytes(token.hex().into()), Some(lease));
    access.keep(key, lease);
    Ok(acquired)
}

pub(super) fn acquire_in_place(
    access: &mut Access<'_>,
    key: &str,
    token: Token,
    lease: Duration,
    fill_id: u64,
) -> Result<Acquired> {
    if !access.record_is(key, fill_id) {
        return Ok(Acquired::Found(access.slot(key)));
    }
    access.put(key, Value::Bytes(token.mark().into()), Some(lease));
    Ok(Acquired::Ours)
}

pub(super) fn acquire_over_mark(
    access: &mut Access<'_>,
    key: &str,
    token: Token,
    lease: Duration,
    mark: Token,
) -> Result<Acquired> {
    match access.slot(key) {
        Slot::Unstored(found) if found == mark => {
            access.put(key, Value::Bytes(token.unawaited().mark().into()), Some(lease));
            Ok(Acquired::Ours)
        }
        found => Ok(Acquired::Found(found)),
    }
}

pub(super) fn fill(access: &mut Access<'_>, fill: &Fill) -> Result<Filled> {
    let Fill { claim: Claim { key, token, over }, record, expiry, .. } = fill;
    let (token, over) = (*token, *over);
    let unguarded = access.is_unguarded(key, over);
    if !access.holds(key, token, over) && !unguarded {
        return Ok(Filled::Refused);
    }
    access.remove(&lease_key(key));
    if let Over::Record(id) = over
        && !access.record_is(key, id)
        && !unguarded
    {
        return Ok(Filled::Refused);
    }
    access.put(key, Value::Bytes(record.clone()), Some(*expiry));
    Ok(Filled::Tracked)
}

pub(super) fn rewrite_head(
    access: &mut Access<'_>,
    key: &str,
    token: Token,
    fill_id: u64,
    head: Bytes,
    expiry: Expiry,
) -> Result<bool> {
    if !access.holds(key, token, Over::Record(fill_id)) {
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
}

pub(super) fn renew(access: &mut Access<'_>, key: &str, token: Token, over: Over, lease: Duration) -> Result<bool> {
    if !access.holds(key, token, over) {
        return Ok(false);
    }
    Ok(match over {
        Over::Nothing => access.expire(key, Some(lease)),
        Over::Record(id) => {
            if access.record_is(key, id) {
                access.keep(key, lease);
            }
            access.expire(&lease_key(key), Some(lease))
        }
    })
}

pub(super) fn release(
    access: &mut Access<'_>,
    key: &str,
    token: Token,
    over: Over,
    unstored: Option<Duration>,
) -> Result<()> {
    let place = match over {
        Over::Nothing => key.to_owned(),
        Over::Record(_) => lease_key(key),
    };
    let forms = token.forms(over);
    let is_own = |bytes: &Bytes| forms.iter().any(|form| bytes == form.as_bytes());
    if !matches!(access.bytes(&place), Ok(Some(bytes)) if is_own(&bytes)) {
        return Ok(());
    }
    match unstored {
        Some(rest) => access.put(&place, Value::Bytes(token.unstored().into()), Some(rest)),
        None => drop(access.remove(&place)),
    }
    if let Over::Record(_) = over {
        // Callers that wait for the refresh watch the record.
        access.changed.push(key.into());
    }
    Ok(())
}

pub(super) fn throttle(access: &mut Access<'_>, key: &str, token: Token, throttle: Duration) -> Result<bool> {
    let held = access.holds(key, token, Over::Record(0));
    if held {
        access.put(&lease_key(key), Value::Bytes(Bytes::from_static(THROTTLE_MARK.as_bytes())), Some(throttle));
        // Like touching the expiry on Redis: callers that wait for the record check again.
        access.changed.push(key.into());
    }
    Ok(held)
}

impl Access<'_> {
    /// Returns whether this attempt's lease is held: in the value key, or in the lease key.
    fn holds(&mut self, key: &str, token: Token, over: Over) -> bool {
        let (key, mark) = match over {
            Over::Nothing => (key.to_owned(), token.mark()),
            Over::Record(_) => (lease_key(key), token.hex()),
        };
        matches!(self.bytes(&key), Ok(Some(bytes)) if bytes == mark.as_bytes())
    }

    /// Test only: returns whether the guard against the current content is disabled.
    fn is_unguarded(&mut self, key: &str, over: Over) -> bool {
        match (over, self.slot(key)) {
            (Over::Nothing, Slot::Absent) => sabotage::is(Guard::RemovalEndsLease),
            (Over::Nothing, Slot::Bytes(_)) => sabotage::is(Guard::WriteEndsLease),
            (Over::Record(_), _) => sabotage::is(Guard::RefreshReplacesItsRecord),
            (Over::Nothing, _) => false,
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

impl LeaseStore for MemoryStore {
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Over,
    ) -> BoxFuture<'a, Result<Acquired>> {
        self.ready(key, |access| acquire(access, key, token, lease, over))
    }

    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>> {
        self.ready(key, |access| acquire_in_place(access, key, token, lease, fill_id))
    }

    fn acquire_over_mark<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        mark: Token,
    ) -> BoxFuture<'a, Result<Acquired>> {
        self.ready(key, |access| acquire_over_mark(access, key, token, lease, mark))
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        self.ready(&fill.claim.key, |access| self::fill(access, fill))
    }

    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| rewrite_head(access, key, token, fill_id, head, expiry))
    }

    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Over, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| renew(access, key, token, over, lease))
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        unstored: Option<Duration>,
    ) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| release(access, key, token, over, unstored))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| self::throttle(access, key, token, throttle))
    }
}
