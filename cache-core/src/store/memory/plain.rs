//! Plain values, which other programs would share if they could reach this process.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, BoxFuture};

use super::MemoryStore;
use super::shard::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Expiry, Loaded, PlainFill, PlainStore, Put, Replaces, Reply, When};

impl PlainStore for MemoryStore {
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| {
            access.put(key, Value::Bytes(bytes), expiry);
            Ok(())
        })
    }

    fn time_left<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Option<Duration>>>> {
        self.ready(key, |access| Ok(access.get(key).is_some().then(|| access.left(key))))
    }

    fn put_plain<'a>(&'a self, key: &'a str, lease: &'a str, bytes: Bytes, put: Put) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| {
            let stands = access.get(key).is_some();
            access.remove(lease);
            if matches!((put.when, stands), (When::Absent, true) | (When::Present, false)) {
                return Ok(false);
            }
            let expiry = if put.keep_expiry { access.left(key) } else { put.expiry };
            access.put(key, Value::Bytes(bytes), expiry);
            Ok(true)
        })
    }

    fn remove_plain<'a>(&'a self, key: &'a str, lease: &'a str) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| {
            access.remove(lease);
            Ok(access.remove(key))
        })
    }

    fn increment<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64>> {
        self.ready(key, |access| {
            let sum = sum(access.bytes(key)?.as_deref(), by)?;
            let left = access.left(key);
            access.put(key, Value::Bytes(sum.to_string().into()), left);
            Ok(sum)
        })
    }

    fn command(&self, _words: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Reply>> {
        let detail = "the embedded store has no commands; connect the cache to a Redis server";
        Box::pin(future::ready(Err(Error::new(ErrorKind::Refused, "command").detail(detail))))
    }

    fn load_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        // Listeners are notified of every change here.
        self.ready(key, |access| Ok((access.bytes(key)?.map(|bytes| (bytes, access.left(key))), true)))
    }

    fn fill_plain<'a>(&'a self, fill: PlainFill<'a>) -> BoxFuture<'a, Result<bool>> {
        let PlainFill { key, lease, token, over, bytes, expiry } = fill;
        self.ready(key, |access| {
            let forms = token.forms(Replaces::Nothing);
            let is_ours = access.bytes(lease)?.is_some_and(|found| forms.iter().any(|form| *found == *form.as_bytes()));
            if !is_ours {
                return Ok(false);
            }
            access.remove(lease);
            if !matches!(access.bytes(key), Ok(found) if found == over) {
                return Ok(false);
            }
            access.put(key, Value::Bytes(bytes), Some(expiry));
            Ok(true)
        })
    }
}

/// Adds like Redis: only to digits in the form that it would write itself.
pub(super) fn sum(found: Option<&[u8]>, by: i64) -> Result<i64> {
    let number = match found {
        None => Some(0),
        Some(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|digits| digits.parse::<i64>().ok().filter(|number| number.to_string() == digits)),
    };
    let sum = number.and_then(|number| number.checked_add(by));
    sum.ok_or_else(|| {
        Error::new(ErrorKind::Refused, "increment").detail("the stored value or the sum is not a 64-bit integer")
    })
}
