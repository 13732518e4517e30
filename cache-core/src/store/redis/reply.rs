//! Converts the client's values to ours.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::error;
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

    /// Returns the next reply unchanged: an error reply is a value.
    pub(super) fn raw(&mut self) -> Result<Value> {
        self.values.next().ok_or_else(|| error::unexpected(self.step))
    }

    /// Returns whether one of the remaining replies is an error reply.
    pub(super) fn any_refused(&self) -> bool {
        self.values.as_slice().iter().any(|value| matches!(value, Value::ServerError(_)))
    }

    /// Returns the next reply; an error reply is an error.
    pub(super) fn value(&mut self) -> Result<Value> {
        checked(self.step, self.raw()?)
    }
}

pub(super) fn checked(step: &'static str, value: Value) -> Result<Value> {
    match value {
        Value::ServerError(error) => Err(error::of_server(step, &error)),
        value => Ok(value),
    }
}

pub(super) fn bytes(step: &'static str, value: Value) -> Result<Option<Bytes>> {
    match checked(step, value)? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into_bytes().into())),
        _ => Err(error::unexpected(step)),
    }
}

/// Parses the reply of MGET.
pub(super) fn all_bytes(step: &'static str, value: Value) -> Result<Vec<Option<Bytes>>> {
    let Value::Array(items) = checked(step, value)? else { return Err(error::unexpected(step)) };
    items.into_iter().map(|item| bytes(step, item)).collect()
}

pub(super) fn integer(step: &'static str, value: Value) -> Result<i64> {
    match checked(step, value)? {
        Value::Int(number) => Ok(number),
        _ => Err(error::unexpected(step)),
    }
}

pub(super) fn count(step: &'static str, value: Value) -> Result<u64> {
    integer(step, value).map(|number| u64::try_from(number).unwrap_or(0))
}

/// Parses members and scores, which alternate.
pub(super) fn scored(step: &'static str, value: Value) -> Result<Vec<(String, Timestamp)>> {
    let mut texts = texts(step, value)?.into_iter();
    let mut members = Vec::new();
    while let (Some(member), Some(score)) = (texts.next(), texts.next()) {
        let score: f64 = score.parse().map_err(|_| error::unexpected(step))?;
        // A score below zero becomes the epoch's first moment.
        members.push((member, Timestamp::from_millis(score as u64)));
    }
    Ok(members)
}

/// Parses the reply of SCAN: keys, and the next cursor.
pub(super) fn page(step: &'static str, value: Value) -> Result<(Vec<String>, u64)> {
    let Value::Array(parts) = checked(step, value)? else { return Err(error::unexpected(step)) };
    let mut parts = parts.into_iter();
    let (Some(next), Some(keys)) = (parts.next().and_then(text), parts.next()) else {
        return Err(error::unexpected(step));
    };
    let next = next.parse().map_err(|_| error::unexpected(step))?;
    Ok((texts(step, keys)?, next))
}

/// Parses the reply of `SET .. NX`: whether the key was set.
pub(super) fn was_set(step: &'static str, value: Value) -> Result<bool> {
    match checked(step, value)? {
        Value::Okay => Ok(true),
        Value::Nil => Ok(false),
        _ => Err(error::unexpected(step)),
    }
}

/// Returns the content of a value key from the reply of a GET.
pub(super) fn slot(step: &'static str, value: Value, left: Option<Duration>) -> Result<Slot> {
    match value {
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Slot::WrongType),
        value => bytes(step, value).map(|bytes| Slot::of(bytes, left)),
    }
}

/// Parses the reply of PTTL. `None`: no expiry. An absent key has zero left.
pub(super) fn time_left(step: &'static str, value: Value) -> Result<Option<Duration>> {
    match integer(step, value)? {
        -1 => Ok(None),
        left => Ok(Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))),
    }
}

/// Parses a set or list of texts. Texts that are not UTF-8 were not written by us and are left out.
pub(super) fn texts(step: &'static str, value: Value) -> Result<Vec<String>> {
    let (Value::Array(items) | Value::Set(items)) = checked(step, value)? else {
        return Err(error::unexpected(step));
    };
    Ok(items.into_iter().filter_map(text).collect())
}

/// Parses the reply of HGETALL.
pub(super) fn fields(step: &'static str, value: Value) -> Result<Vec<(String, Bytes)>> {
    let Value::Map(pairs) = checked(step, value)? else { return Err(error::unexpected(step)) };
    let mut fields = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if let (Some(name), Some(bytes)) = (text(name), bytes(step, value)?) {
            fields.push((name, bytes));
        }
    }
    Ok(fields)
}

/// Parses the reply of TIME: seconds and microseconds.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let Value::Array(parts) = value else { return None };
    let mut numbers = parts.iter().map(|part| match part {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    });
    let (seconds, micros) = (numbers.next()??, numbers.next()??);
    Some(Timestamp(seconds.saturating_mul(1000).saturating_add(micros / 1000)))
}

/// Returns a field of the reply of `INFO`.
fn info<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    long_text(value)?.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
}

/// Returns the number of evicted keys from the reply of `INFO stats`.
pub(super) fn evicted_keys(value: &Value) -> Option<u64> {
    info(value, "evicted_keys")?.trim_end().parse().ok()
}

/// Returns major and minor version from the reply of `INFO server`.
pub(super) fn server_version(value: &Value) -> Option<(u32, u32)> {
    let version = info(value, "redis_version")?;
    let mut numbers = version.trim_end().split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Returns whether the server is a node of a Cluster, from the reply of `INFO server`.
pub(super) fn is_of_a_cluster(value: &Value) -> bool {
    ["redis_mode", "server_mode"].into_iter().any(|field| info(value, field).map(str::trim_end) == Some("cluster"))
}

/// Returns the server's run id from the reply of `INFO server`; it changes with each start.
pub(super) fn server_run(value: &Value) -> Option<Box<str>> {
    let run = long_text(value)?.lines().find_map(|line| line.strip_prefix("run_id:"))?;
    Some(run.trim_end().into())
}

/// Returns the connection's id and address from the reply of `CLIENT INFO`, as the server sees
/// them.
pub(super) fn client(value: &Value) -> Option<(u64, Box<str>)> {
    let mut fields = long_text(value)?.split_ascii_whitespace();
    let mut field = |name: &str| fields.find_map(|field| field.strip_prefix(name));
    // In this order since Redis 2.8.
    let (id, address) = (field("id=")?, field("addr=")?);
    Some((id.parse().ok()?, address.into()))
}

fn long_text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let told = |text: &str| server_version(&Value::BulkString(text.as_bytes().to_vec()));
        assert_eq!(told("# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n"), Some((6, 2)));
        assert_eq!(told("redis_version:7.2.4\r\nserver_name:valkey\r\n"), Some((7, 2)));
        assert_eq!(told("redis_version:255.255.255"), Some((255, 255)));
        assert_eq!(told("redis_version:unstable"), None);
        assert_eq!(told(""), None);
        assert_eq!(server_version(&Value::Nil), None);
    }

    #[test]
    fn a_connection_is_identified_by_its_id_and_address() {
        let told = |text: &str| client(&Value::BulkString(text.as_bytes().to_vec()));
        assert_eq!(
            told("id=7 addr=127.0.0.1:4000 laddr=127.0.0.1:6379 fd=8 name= db=0"),
            Some((7, "127.0.0.1:4000".into()))
        );
        assert_eq!(told("id=x addr=a"), None);
        assert_eq!(told("name=id=7"), None);
        let run = |text: &str| server_run(&Value::BulkString(text.as_bytes().to_vec()));
        assert_eq!(run("# Server\r\nrun_id:abc\r\ntcp_port:1\r\n"), Some("abc".into()));
        assert_eq!(run("tcp_port:1"), None);
    }

    #[test]
    fn evictions_are_read() {
        let told = |text: &str| evicted_keys(&Value::BulkString(text.as_bytes().to_vec()));
        assert_eq!(told("# Stats\r\nexpired_keys:3\r\nevicted_keys:17\r\nevicted_clients:0\r\n"), Some(17));
        assert_eq!((told("evicted_keys:many"), told(""), evicted_keys(&Value::Nil)), (None, None, None));
    }

    #[test]
    fn times_are_read() {
        let part = |digits: &str| Value::BulkString(digits.as_bytes().to_vec());
        let told = Value::Array(vec![part("1700000000"), part("123456")]);
        assert_eq!(time(&told), Some(Timestamp(1_700_000_000_123)));
        assert_eq!(time(&Value::Array(vec![part("17")])), None);
        assert_eq!(time(&Value::Array(vec![part("-1"), part("x")])), None);
        assert_eq!(time(&Value::Nil), None);
    }
}
