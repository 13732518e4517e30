//! Checks that the user of a connection has every right that the engine needs (D8).
//!
//! Reads are tried on keys of the namespace that do not exist; for all other commands a script asks
//! the server. All are sent in one round trip, and none is a write: they are answered even while
//! the server blocks writes (`CLIENT PAUSE WRITE`, which failovers use). Commands that only some
//! programs use (channels, hashes, `SCAN`) are not tried: their errors name the missing right.
//! `INFO`, `CLIENT INFO`, `CLIENT KILL` and `TOUCH` are not required.
//!
//! Invariant: a connection is not published while a right is missing. With one of them missing, a
//! lease might be taken that cannot be released, and callers would wait for its end.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Script, ServerError, Value};

use super::config::RedisConfig;
use super::{error, on, reply};
use crate::error::{Error, ErrorKind, Result};

/// Asks for the rights. `ARGV`: keys that do not exist. Returns the commands that may not be
/// called: with the first key, or `wait`; and `~` if only another key may not be written. A server
/// that cannot answer is assumed to allow it. Each command has all its arguments: Redis 7.0 looks
/// for the keys of a `SET` behind its last argument.
static ASK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "#!lua flags=no-writes\n\
         local missing, key = {}, ARGV[1] \
         local function may(...) \
           local known, allowed = pcall(redis.acl_check_cmd, ...) \
           return not known or allowed \
         end \
         local function ask(name, ...) \
           local allowed = may(name, ...) \
           if not allowed then missing[#missing + 1] = name end \
           return allowed \
         end \
         ask('exists', key) ask('type', key) ask('pexpiretime', key) ask('pexpire', key, '1') \
         ask('pexpireat', key, '1') ask('persist', key) ask('setrange', key, '0', '') ask('unlink', key) \
         ask('rename', key, key) ask('del', key) ask('sadd', key, '') ask('wait', '0', '1') \
         if ask('set', key, '') and not (may('set', ARGV[2], '') and may('set', ARGV[3], '')) then \
           missing[#missing + 1] = '~' \
         end \
         return missing",
    )
});

/// The commands among them that need the right to write a key.
const WRITES: [&str; 9] = ["pexpire", "pexpireat", "persist", "setrange", "unlink", "rename", "del", "sadd", "set"];

/// Tries the commands and asks for the rights. `answered`: the replies to commands that the caller
/// has tried already, by the rule that allows each.
///
/// # Errors
///
/// [`ErrorKind::Configuration`]: a right is missing, or this is a node of a Cluster. The text names
/// what to add.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    config: &RedisConfig,
    answered: &[(&'static str, &Value)],
) -> Result<()> {
    let tried = Tried::new(config);
    let mut pipeline = redis::pipe();
    for (_, command) in &tried.commands {
        pipeline.add_command(command.clone());
    }
    let mut ask = ASK.prepare_invoke();
    ask.arg(&tried.keys);
    pipeline.load_script(&ASK).invoke_script(&ask);
    let answers = connection
        .send_packed_commands(&pipeline, 0, pipeline.len())
        .await
        .map_err(|error| error::of_connect(&error, config))?;
    if answers.iter().any(is_of_a_cluster) {
        return Err(of_a_cluster());
    }
    let mut missing = BTreeSet::new();
    let rules = tried.commands.iter().map(|(rule, _)| *rule).chain(["+script|load", "+evalsha"]);
    for (rule, answer) in answered.iter().copied().chain(rules.zip(&answers)) {
        match refusal(answer) {
            Some(Refusal::Command) => missing.extend([rule.to_owned()]),
            Some(Refusal::Key) => missing.extend(tried.patterns.iter().cloned()),
            None => {}
        }
    }
    if let Some(script) = answers.last().filter(|answer| matches!(answer, Value::Array(_))) {
        let mut refused: BTreeSet<String> = reply::texts("connect", script.clone())?.into_iter().collect();
        if config.replicas.is_none() {
            refused.remove("wait");
        }
        // A key without rights is refused to every command that is asked for with it.
        let is_key_refused = !missing.is_disjoint(&tried.patterns);
        if refused.remove("~") || WRITES.iter().all(|name| refused.contains(*name)) {
            missing.extend(tried.patterns.iter().cloned());
        }
        refused.retain(|name| !is_key_refused || name == "wait");
        missing.extend(refused.iter().map(|name| format!("+{name}")));
    }
    if missing.is_empty() { Ok(()) } else { Err(lacks(&missing, config)) }
}

/// The commands to try, each with the rule that allows it.
struct Tried {
    commands: Vec<(&'static str, Cmd)>,
    keys: [String; 3],
    /// The patterns of the namespace's keys.
    patterns: BTreeSet<String>,
}

impl Tried {
    fn new(config: &RedisConfig) -> Self {
        let namespace = config.namespace.as_deref().unwrap_or("cache");
        let name = format!("rights-{:032x}", crate::random::u128());
        // A value, a version, a lease: the forms of keys.
        let key = format!("{namespace}:{name}:");
        let keys = [key.clone(), format!("{namespace}@{name}"), format!("{{{key}}}:l")];
        let mut caching = redis::cmd("CLIENT");
        caching.arg("CACHING").arg("YES");
        let mut many = redis::cmd("MGET");
        many.arg(&keys);
        let mut range = on(&key, "GETRANGE");
        range.arg(0).arg(0);
        let commands = vec![
            ("+get", on(&key, "GET")),
            ("+getrange", range),
            ("+mget", many),
            ("+pttl", on(&key, "PTTL")),
            ("+smembers", on(&key, "SMEMBERS")),
            // The last: it applies to the next command only, which has no key.
            ("+client|caching", caching),
        ];
        let patterns = [format!("~{namespace}:*"), format!("~{namespace}@*"), format!("~{{{namespace}:*")];
        let patterns = BTreeSet::from(patterns);
        Self { commands, keys, patterns }
    }
}

/// What the user may not use.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Command,
    Key,
}

fn refusal(answer: &Value) -> Option<Refusal> {
    let Value::ServerError(error) = answer else { return None };
    let text = (error.code() == "NOPERM").then(|| error.details().unwrap_or_default())?;
    // The wording differs between versions of Redis and Valkey; only the refusal of a command names
    // it.
    Some(if text.contains(" run ") { Refusal::Command } else { Refusal::Key })
}

/// Returns whether an operation was refused for a missing right, also within a script.
pub(super) fn is_refusal(error: &ServerError) -> bool {
    is_missing_right(error.code(), error.details())
}

/// Returns the same for an error's code and text.
pub(super) fn is_missing_right(code: &str, text: Option<&str>) -> bool {
    let text = text.unwrap_or_default();
    code == "NOPERM" || text.contains("user executing the script") || text.contains("ACL failure in script")
}

fn is_of_a_cluster(answer: &Value) -> bool {
    let Value::ServerError(error) = answer else { return false };
    matches!(error.code(), "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN")
}

/// Makes the error for a node of a Cluster, which serves some keys and refuses commands with
/// several.
pub(super) fn of_a_cluster() -> Error {
    Error::new(ErrorKind::Configuration, "connect").detail(
        "the server is a node of a Redis Cluster, which is not supported yet: write the URL of a server that is not \
        in one, as `redis://host:6379` (`cluster-enabled no` in its configuration)",
    )
}

fn lacks(missing: &BTreeSet<String>, config: &RedisConfig) -> Error {
    let user = config.user.as_deref().unwrap_or("default");
    let rules: Vec<&str> = missing.iter().map(String::as_str).collect();
    Error::new(ErrorKind::Configuration, "connect").detail(format!(
        "the user `{user}` lacks rights (NOPERM): run `ACL SETUSER {user} {}` on the server; the page `docs::acl` has \
         a line with all of them",
        rules.join(" ")
    ))
}
