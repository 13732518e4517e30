//! Errors of the Redis store, in the crate's own words.
//!
//! Invariant: of the server's texts only the error's code is passed on. Server messages can quote
//! arguments, which are keys and payloads.

use redis::{ErrorKind as RedisKind, RedisError, ServerError, Value};

use super::config::{Address, Given, RedisConfig};
use crate::error::{Error, ErrorKind};

/// Makes the error of a failed operation.
pub(super) fn of(step: &'static str, error: &RedisError) -> Error {
    if error.is_timeout() {
        return timed_out(step);
    }
    if let Some(code) = error.code() {
        return of_code(step, code);
    }
    let new = |kind, detail: &str| Error::new(kind, step).detail(detail);
    match error.kind() {
        // The system's own message, which contains no argument of a command.
        RedisKind::Io => new(ErrorKind::Unavailable, &format!("the connection broke: {error}")),
        RedisKind::Parse => new(ErrorKind::Unavailable, "the server's reply could not be read; reconnecting"),
        RedisKind::UnexpectedReturnType => unexpected(step),
        _ => new(ErrorKind::Refused, error.category()),
    }
}

/// Makes the error of an error reply.
pub(super) fn of_server(step: &'static str, error: &ServerError) -> Error {
    of_code(step, error.code())
}

/// Returns whether the server does not know a script that was called by its hash.
pub(super) fn is_unknown_script(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// A reply of a type that this command never has.
pub(super) fn unexpected(step: &'static str) -> Error {
    Error::new(ErrorKind::Refused, step).detail("the server's reply has an unexpected type")
}

/// There is no connection at the moment. `why`: why the last attempt failed, or the last connection
/// ended.
pub(super) fn disconnected(step: &'static str, config: &RedisConfig, why: Option<&str>) -> Error {
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    let detail = format!("not connected to {config}{why}; connection attempts continue in the background");
    Error::new(ErrorKind::Unavailable, step).detail(detail).unsent()
}

/// The store was closed.
pub(super) fn closed(step: &'static str) -> Error {
    Error::new(ErrorKind::Closed, step)
}

/// No answer within the response timeout.
pub(super) fn timed_out(step: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, step).detail("no reply in time; the operation may or may not have been executed")
}

/// An attempt to connect took longer than its timeout.
pub(super) fn no_connection_in_time(config: &RedisConfig) -> Error {
    // A plain port takes the TLS handshake for an incomplete command and waits for the rest.
    let hint = if matches!(config.address, Address::Tls { .. }) { "; is this its TLS port?" } else { "" };
    Error::new(ErrorKind::Unavailable, "connect")
        .detail(format!("the server did not answer within {} ms{hint}", config.connect_timeout.as_millis()))
}

/// The server is older than the oldest supported version.
pub(super) fn too_old((major, minor): (u32, u32)) -> Error {
    Error::new(ErrorKind::Configuration, "connect")
        .detail(format!("the server is Redis {major}.{minor}; it must be Redis 7.0, Valkey 7.2 or later"))
}

/// Makes the error of a failed attempt to connect. [`ErrorKind::Configuration`] if only a change
/// can fix it.
pub(super) fn of_connect(error: &RedisError, config: &RedisConfig) -> Error {
    const STEP: &str = "connect";
    let configuration = |detail: String| Error::new(ErrorKind::Configuration, STEP).detail(detail);
    let passing = |detail: String| Error::new(ErrorKind::Unavailable, STEP).detail(detail);
    match (error.code(), error.kind()) {
        (Some("WRONGPASS"), _) => configuration(match config.login_by {
            Given::Url => "the server refuses this user and password (WRONGPASS); write `redis://user:password@host` \
                 with the right ones, `/ ? # @ : %` in them percent-encoded"
                .into(),
            Given::Builder => "the server refuses this user and password (WRONGPASS); give the right ones to \
                `.username(..)` and `.password(..)`, without percent-encoding"
                .into(),
        }),
        (_, RedisKind::AuthenticationFailed) => configuration("the server refuses this user and password".into()),
        (Some("NOAUTH"), _) => configuration(match config.address_by {
            Given::Url => "the server requires a password (NOAUTH); write `redis://:password@host` or \
                 `redis://user:password@host`"
                .into(),
            Given::Builder => {
                "the server requires a password (NOAUTH); add `.password(..)`, and `.username(..)` if it has users"
                    .into()
            }
        }),
        (Some("NOPERM"), _) => {
            configuration("the user may not connect (NOPERM); give it `+@connection` in the server's ACL".into())
        }
        (Some("NOPROTO"), _) | (_, RedisKind::RESP3NotSupported) => configuration(NO_RESP3.into()),
        (Some("ERR"), _) => of_plain_refusal(error, config),
        (Some(code), _) => {
            let error = of_code(STEP, code);
            if error.kind() == ErrorKind::Unavailable { error } else { configuration(described(code)) }
        }
        (None, RedisKind::Io) => of_io(&error.to_string(), config),
        (None, RedisKind::Parse) => configuration(format!(
            "the server is not Redis, or requires TLS; check host and port, or {}",
            with_tls(config)
        )),
        (None, RedisKind::InvalidClientConfig) => configuration(error.to_string()),
        _ => passing(error.category().to_owned()),
    }
}

const NO_RESP3: &str = "the server does not speak RESP3 (it refuses `HELLO 3`): it must be Redis 7.0, Valkey 7.2 or \
    later, without a proxy in between that does not support RESP3; give the address of the server itself";

fn with_tls(config: &RedisConfig) -> &'static str {
    match config.address_by {
        Given::Url => "write `rediss://`",
        Given::Builder => "add `.tls(true)`",
    }
}

/// `ERR` has no finer code: the message is checked, never shown.
fn of_plain_refusal(error: &RedisError, config: &RedisConfig) -> Error {
    let says = |words: &str| error.detail().is_some_and(|detail| detail.contains(words));
    let (kind, detail) = if says("max number of clients") {
        (ErrorKind::Unavailable, "the server has its maximum number of clients")
    } else if says("DB index") || says("SELECT is not allowed") {
        (ErrorKind::Configuration, "the server has no database with this number; see `databases` in its configuration")
    } else if says("no permissions") {
        (ErrorKind::Configuration, "the user may not run SELECT; give it `+select` in the server's ACL")
    } else if says("AUTH") {
        let detail = match config.login_by {
            Given::Url => "the server has no password for this user; leave the password out of the URL",
            Given::Builder => "the server has no password for this user; leave `.password(..)` out",
        };
        (ErrorKind::Configuration, detail)
    } else {
        // Until `HELLO 3` is answered, only the commands checked above are sent.
        (ErrorKind::Configuration, NO_RESP3)
    };
    Error::new(kind, "connect").detail(detail)
}

fn of_io(text: &str, config: &RedisConfig) -> Error {
    let closed = text.contains("broken pipe") || text.contains("reset");
    let by_url = config.address_by == Given::Url;
    let (kind, hint) = if text.contains("invalid peer certificate") {
        let hint = if by_url {
            "; trust its authority with `?tls_ca=/path/ca.pem`, and use the name that the certificate has"
        } else {
            "; trust its authority in the system, or with a URL instead of `.host(..)`: `rediss://host?tls_ca=/path/ca.pem`"
        };
        (ErrorKind::Configuration, hint)
    } else if text.contains("corrupt message") {
        let hint = if by_url {
            "; the server does not speak TLS on this port: write `redis://`, or use the TLS port"
        } else {
            "; the server does not speak TLS on this port: leave `.tls(true)` out, or use the TLS port"
        };
        (ErrorKind::Configuration, hint)
    } else if text.contains("Permission denied") {
        (ErrorKind::Configuration, "; this process has no permission to use the socket")
    } else if closed && matches!(config.address, Address::Tcp { .. }) {
        let hint = if by_url {
            "; the server closed the connection: if this is its TLS port, write `rediss://`"
        } else {
            "; the server closed the connection: if this is its TLS port, add `.tls(true)`"
        };
        (ErrorKind::Unavailable, hint)
    } else {
        (ErrorKind::Unavailable, "")
    };
    Error::new(kind, "connect").detail(format!("{text}{hint}"))
}

fn of_code(step: &'static str, code: &str) -> Error {
    let kind = match code {
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "UNBLOCKED" => ErrorKind::Unavailable,
        _ => ErrorKind::Refused,
    };
    Error::new(kind, step).detail(described(code))
}

fn described(code: &str) -> String {
    let words = match code {
        "WRONGTYPE" => "the key holds a value of another Redis type",
        "READONLY" => "the server is a read-only replica",
        "OOM" => "the server is out of memory and does not evict; see its `maxmemory-policy`",
        "MISCONF" => "the server cannot save to its disk and refuses writes",
        "NOREPLICAS" => "too few replicas are connected for a write",
        "NOPERM" => "the user may not run this command, or not on this key; the page `docs::acl` has the rules",
        "NOAUTH" | "WRONGPASS" => "the server refuses the credentials",
        "LOADING" => "the server is loading its data",
        "BUSY" => "the server is busy with a script",
        "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => "the server is failing over",
        "NOSCRIPT" => "the server forgot a script that was just loaded",
        _ => "the server answered with an error",
    };
    // A code consists of upper-case letters; anything else came from a script or a proxy and may be
    // data.
    if !code.is_empty() && code.len() <= 24 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        format!("{words} ({code})")
    } else {
        words.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_contain_no_text_that_the_server_quotes() {
        for (code, detail) in [("ERR", "value of 'user:7' is wrong"), ("user:7", "x"), ("WRONGTYPE", "user:7")] {
            let error = redis::make_extension_error(code.to_owned(), Some(detail.to_owned()));
            let config = RedisConfig::parse("redis://h").unwrap();
            for error in [of("read", &error), of_connect(&error, &config)] {
                assert!(!format!("{error} {error:?}").contains("user:7"), "{error}");
            }
        }
    }

    #[test]
    fn transient_faults_are_distinguished_from_refusals() {
        for (code, kind) in [
            ("LOADING", ErrorKind::Unavailable),
            ("READONLY", ErrorKind::Refused),
            ("OOM", ErrorKind::Refused),
            ("WRONGTYPE", ErrorKind::Refused),
        ] {
            assert_eq!(of_code("read", code).kind(), kind, "{code}");
        }
    }
}
