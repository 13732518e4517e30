//! From the client's values to ours.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::faults;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::Slot;

/// The replies of a pipeline, taken in order.
pub(super) struct Replies {
    step: &'static str,
    values: std::vec::IntoIter<Value>,
}

impl Replies {
    pub(super) fn new(step: &'static str, values: Vec<Value>) -> Self {
        Self { step, values: values.into_iter() }
    }

    /// The next reply as it is: an error reply is a value.
    pub(super) fn raw(&mut self) -> Result<Value> {
        self.values.next().ok_or_else(|| faults::unexpected(self.step))
    }

    /// The next reply; an error reply is an error.
    pub(super) fn value(&mut self) -> Result<Value> {
        checked(self.step, self.raw()?)
    }
}

pub(super) fn checked(step: &'static str, value: Value) -> Result<Value> {
    match value {
        Value::ServerError(error) => Err(faults::of_server(step, &error)),
        value => Ok(value),
    }
}

pub(super) fn bytes(step: &'static str, value: Value) -> Result<Option<Bytes>> {
    match checked(step, value)? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into_bytes().into())),
        _ => Err(faults::unexpected(step)),
    }
}

pub(super) fn integer(step: &'static str, value: Value) -> Result<i64> {
    match checked(step, value)? {
        Value::Int(number) => Ok(number),
        _ => Err(faults::unexpected(step)),
    }
}

pub(super) fn count(step: &'static str, value: Value) -> Result<u64> {
    integer(step, value).map(|number| u64::try_from(number).unwrap_or(0))
}

/// The reply of `SET .. NX`: whether it was set.
pub(super) fn was_set(step: &'static str, value: Value) -> Result<bool> {
    match checked(step, value)? {
        Value::Okay => Ok(true),
        Value::Nil => Ok(false),
        _ => Err(faults::unexpected(step)),
    }
}

/// What a value key holds: `value` is the reply of a GET.
pub(super) fn slot(step: &'static str, value: Value, left: Option<Duration>) -> Result<Slot> {
    match value {
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Slot::WrongType),
        value => bytes(step, value).map(|bytes| Slot::of(bytes, left)),
    }
}

/// The reply of PTTL. `None`: no expiry; `Some(None)` cannot be: an absent key has zero left.
pub(super) fn time_left(step: &'static str, value: Value) -> Result<Option<Duration>> {
    match integer(step, value)? {
        -1 => Ok(None),
        left => Ok(Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))),
    }
}

/// A set or list of texts. What is not UTF-8 was not written by us and is left out.
pub(super) fn texts(step: &'static str, value: Value) -> Result<Vec<String>> {
    let (Value::Array(items) | Value::Set(items)) = checked(step, value)? else {
        return Err(faults::unexpected(step));
    };
    Ok(items.into_iter().filter_map(text).collect())
}

/// The reply of HGETALL.
pub(super) fn fields(step: &'static str, value: Value) -> Result<Vec<(String, Bytes)>> {
    let Value::Map(pairs) = checked(step, value)? else { return Err(faults::unexpected(step)) };
    let mut fields = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if let (Some(name), Some(bytes)) = (text(name), bytes(step, value)?) {
            fields.push((name, bytes));
        }
    }
    Ok(fields)
}

/// The reply of TIME: seconds and microseconds.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let Value::Array(parts) = value else { return None };
    let mut numbers = parts.iter().map(|part| match part {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    });
    let (seconds, micros) = (numbers.next()??, numbers.next()??);
    Some(Timestamp(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
