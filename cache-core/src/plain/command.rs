//! Sends any other command on the connection that the whole cache shares.
//!
//! Invariant: a command that would block that connection or change its state is never sent.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Reply as Stored;
use crate::value::codec::plain as form;

/// A Redis command, from [`PlainValues::command`](super::PlainValues::command).
#[must_use = "a command does nothing until it is sent"]
pub struct PlainCommand {
    cache: Cache,
    words: Vec<Vec<u8>>,
}

/// The reply to a command.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// No such key or member.
    Nil,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Text or bytes, including `OK`.
    Bytes(Vec<u8>),
    /// Several replies: a list or a set.
    Array(Vec<Self>),
    /// Pairs, as `HGETALL` returns.
    Map(Vec<(Self, Self)>),
}

// Arguments and replies are payloads, so `Debug` does not show them.
impl fmt::Debug for PlainCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainCommand").field("arguments", &self.words.len().saturating_sub(1)).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("Nil"),
            Self::Integer(_) => f.write_str("Integer(..)"),
            Self::Double(_) => f.write_str("Double(..)"),
            Self::Boolean(_) => f.write_str("Boolean(..)"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Array(items) => f.debug_tuple("Array").field(items).finish(),
            Self::Map(pairs) => f.debug_tuple("Map").field(pairs).finish(),
        }
    }
}

impl PlainCommand {
    pub(super) fn new(cache: Cache, name: &str) -> Self {
        Self { cache, words: vec![name.to_ascii_uppercase().into_bytes()] }
    }

    /// Adds an argument, text or bytes. Write a number as text: `.arg(7.to_string())`.
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.words.push(argument.as_ref().to_vec());
        self
    }

    /// Adds several arguments.
    pub fn args<A: AsRef<[u8]>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_vec()));
        self
    }

    /// Sends the command and returns the server's reply.
    ///
    /// One round trip. If the call is dropped or fails as unavailable, the command may have been
    /// executed or not.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a command that would block the shared connection or change
    /// its state; nothing is sent. [`ErrorKind::Refused`] if the server replies with an error (the
    /// code is included), and for any command on the embedded store, which takes none. Store
    /// errors.
    pub async fn send(self) -> Result<Reply> {
        if let Some(detail) = refusal(&self.words) {
            return Err(Error::new(ErrorKind::Configuration, "command").detail(detail));
        }
        self.cache.0.store.command(self.words).await.map(Reply::from)
    }
}

impl Reply {
    /// Decodes a text reply by the rule of plain values: JSON, or bare text if the type takes text.
    /// For a number, a list or pairs, match on the variants.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the reply is not text, or not a value of this type.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        match self {
            Self::Bytes(bytes) => form::decode("command", bytes),
            _ => Err(Error::new(ErrorKind::Decode, "command").detail("the reply is not text; match on its variants")),
        }
    }

    /// Returns the text, if this is a text reply in UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Self::Bytes(bytes) = self { std::str::from_utf8(bytes).ok() } else { None }
    }

    /// Returns the number, if this is a whole number.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// Returns the items, if this is a list or a set.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }
}

impl From<Stored> for Reply {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Nil => Self::Nil,
            Stored::Integer(number) => Self::Integer(number),
            Stored::Double(number) => Self::Double(number),
            Stored::Boolean(is_so) => Self::Boolean(is_so),
            Stored::Bytes(bytes) => Self::Bytes(bytes),
            Stored::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Stored::Map(pairs) => Self::Map(pairs.into_iter().map(|(name, item)| (name.into(), item.into())).collect()),
        }
    }
}

/// Commands that wait on the server. They would delay every other caller.
const BLOCKING: &[&str] =
    &["BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT", "WAITAOF"];

/// Commands that begin, end or configure a transaction. On this connection the transaction would
/// contain the commands of other callers.
const TRANSACTIONS: &[&str] = &["MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"];

/// Commands for subscriptions.
const MESSAGES: &[&str] = &["SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"];

/// Commands that change the state of the connection.
const STATE: &[&str] = &[
    "AUTH",
    "HELLO",
    "SELECT",
    "RESET",
    "QUIT",
    "ASKING",
    "READONLY",
    "READWRITE",
    "MONITOR",
    "SYNC",
    "PSYNC",
    "REPLCONF",
];

/// Commands that stop or disturb the server.
const SERVER: &[&str] = &["SHUTDOWN", "DEBUG", "FAILOVER"];

/// The subcommands of `CLIENT` that only read.
const CLIENT: &[&str] = &["ID", "INFO", "LIST", "GETNAME", "GETREDIR", "TRACKINGINFO", "HELP"];

/// Returns why a command is refused, or `None` if it may be sent.
fn refusal(words: &[Vec<u8>]) -> Option<String> {
    let word = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word).to_ascii_uppercase());
    let name = word(0).unwrap_or_default();
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some(
            "a command is one word; its arguments follow with `.arg(..)`: `command(\"CONFIG\").arg(\"GET\")`".into(),
        );
    }
    let is = |list: &[&str]| list.contains(&&*name);
    let waits = matches!(&*name, "XREAD" | "XREADGROUP")
        && words
            .iter()
            .skip(1)
            .take_while(|word| !word.eq_ignore_ascii_case(b"STREAMS"))
            .any(|word| word.eq_ignore_ascii_case(b"BLOCK"));
    if waits || is(BLOCKING) {
        return Some(format!(
            "`{name}` would block the connection that the whole cache shares; use a form that does not block, or your \
            own connection"
        ));
    }
    if is(TRANSACTIONS) {
        return Some(format!(
            "`{name}` starts a transaction on the connection that the whole cache shares; use a script: \
            `command(\"EVAL\")`"
        ));
    }
    if is(MESSAGES) {
        return Some(format!("`{name}` needs its own connection; use `plain().subscribe(..)`"));
    }
    let changes_client = name == "CLIENT" && word(1).is_none_or(|what| !CLIENT.contains(&&*what));
    if changes_client || is(STATE) {
        return Some(format!(
            "`{name}` changes the connection that the whole cache shares; set user, database and the like in the URL or \
             with `Cache::builder()`"
        ));
    }
    is(SERVER).then(|| format!("`{name}` stops the server for all clients; send it with `redis-cli`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(command: &str) -> Option<String> {
        let words: Vec<Vec<u8>> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        refusal(&words)
    }

    #[test]
    fn commands_that_block_or_change_the_shared_connection_are_refused_with_the_fix() {
        for (command, part) in [
            ("BLPOP a 0", "does not block"),
            ("blpop a 0", "does not block"),
            ("XREAD COUNT 1 BLOCK 0 STREAMS s $", "does not block"),
            ("WAIT 1 0", "does not block"),
            ("MULTI", "EVAL"),
            ("WATCH a", "EVAL"),
            ("SUBSCRIBE news", "plain().subscribe"),
            ("SELECT 1", "in the URL"),
            ("CLIENT", "in the URL"),
            ("CLIENT TRACKING off", "in the URL"),
            ("client reply off", "in the URL"),
            ("MONITOR", "in the URL"),
            ("SHUTDOWN", "redis-cli"),
            ("", "one word"),
        ] {
            let detail = refused(command).unwrap_or_default();
            assert!(detail.contains(part), "{command}: {detail}");
        }
        let spaced = refusal(&[b"CONFIG GET".to_vec()]).unwrap();
        assert!(spaced.contains(".arg(\"GET\")"), "{spaced}");
        for command in ["GET a", "LPUSH a b", "XREAD STREAMS BLOCK 0", "CLIENT ID", "EVAL x 0", "CONFIG GET a"] {
            assert_eq!(refused(command), None, "{command}");
        }
    }

    #[test]
    fn debug_shows_no_payload() {
        let reply = Reply::Map(vec![(Reply::Bytes(b"secret".to_vec()), Reply::Array(vec![Reply::Integer(4711)]))]);
        let text = format!("{reply:?}");
        assert!(!text.contains("secret") && !text.contains("4711"), "{text}");
    }
}
