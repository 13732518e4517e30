//! The requests for leases and fills, shared by single operations and batches, and the meaning of
//! their replies.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Script, ScriptInvocation, Value};

use super::{error, ms, reply, scripts};
use crate::error::Result;
use crate::store::{Acquired, Expiry, FILL_ID_AT, Over, Slot, Token, lease_key};

/// Takes the lease if the value key is absent.
pub(super) fn set_lease(key: &str, token: Token, lease: Duration) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(token.mark()).arg("NX").arg("GET").arg("PX").arg(ms(lease));
    command
}

/// Evaluates the reply of [`set_lease`]: the content of the key, if it was not set.
pub(super) fn or_ours(found: Slot) -> Acquired {
    if found == Slot::Absent { Acquired::Ours } else { Acquired::Found(found) }
}

/// Returns whether the lease in the key is this one: it was taken before, and the answer was lost.
pub(super) fn is_ours(found: &Value, token: Token) -> bool {
    matches!(found, Value::BulkString(found) if *found == token.mark().as_bytes())
}

/// Takes the lease of a refresh, next to a record.
pub(super) fn beside_script(key: &str, token: Token, lease: Duration, fill_id: u64) -> ScriptInvocation<'static> {
    let mut script = refresh(&scripts::ACQUIRE_REFRESH, key);
    script.arg(&fill_id.to_le_bytes()[..]).arg(token.hex()).arg(ms(lease));
    script
}

/// Takes the lease in the place of a record.
pub(super) fn in_place_script(key: &str, token: Token, lease: Duration, fill_id: u64) -> ScriptInvocation<'static> {
    let mut script = scripts::ACQUIRE_IN_PLACE.key(key);
    script.arg(&fill_id.to_le_bytes()[..]).arg(token.mark()).arg(ms(lease));
    script
}

/// Takes the lease in the place of the mark of a compute that stored nothing.
pub(super) fn over_mark_script(key: &str, token: Token, lease: Duration, mark: Token) -> ScriptInvocation<'static> {
    let mut script = scripts::ACQUIRE_OVER_MARK.key(key);
    script.arg(mark.unstored()).arg(token.unawaited().mark()).arg(ms(lease));
    script
}

pub(super) fn fill_script(
    key: &str,
    token: Token,
    over: Over,
    record: &Bytes,
    expiry: Expiry,
) -> ScriptInvocation<'static> {
    match over {
        Over::Nothing => {
            let mut script = scripts::FILL.key(key);
            script.arg(token.mark()).arg(record.as_ref()).arg(ms(expiry));
            script
        }
        Over::Record(id) => {
            let mut script = refresh(&scripts::FILL_REFRESH, key);
            script.arg(token.hex()).arg(record.as_ref()).arg(ms(expiry)).arg(&id.to_le_bytes()[..]);
            script
        }
    }
}

/// A write does not start tracking; a read does, and this one does not transfer the value.
pub(super) fn track_filled(pipeline: &mut Pipeline, key: &str) {
    pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    pipeline.cmd("GETRANGE").arg(key).arg(FILL_ID_AT.start).arg(FILL_ID_AT.end.saturating_sub(1));
}

pub(super) fn renew_script(key: &str, token: Token, over: Over, lease: Duration) -> ScriptInvocation<'static> {
    match over {
        Over::Nothing => {
            let mut script = scripts::RENEW.key(key);
            script.arg(token.mark()).arg(ms(lease));
            script
        }
        Over::Record(id) => {
            let mut script = refresh(&scripts::RENEW_REFRESH, key);
            script.arg(token.hex()).arg(ms(lease)).arg(&id.to_le_bytes()[..]);
            script
        }
    }
}

pub(super) fn release_script(
    key: &str,
    token: Token,
    over: Over,
    unstored: Option<Duration>,
) -> ScriptInvocation<'static> {
    let mut script = match over {
        Over::Nothing => scripts::RELEASE.key(key),
        Over::Record(_) => {
            let mut script = scripts::RELEASE.key(lease_key(key));
            script.key(key);
            script
        }
    };
    token.forms(over).iter().for_each(|form| {
        script.arg(form);
    });
    if let Some(rest) = unstored {
        script.arg(token.unstored()).arg(ms(rest));
    }
    script
}

pub(super) fn refresh(script: &'static Script, key: &str) -> ScriptInvocation<'static> {
    let mut script = script.key(key);
    script.key(lease_key(key));
    script
}

/// Parses the reply of the scripts that take a lease.
pub(super) fn acquired(step: &'static str, value: Value) -> Result<Acquired> {
    let Value::Array(parts) = reply::checked(step, value)? else { return Err(error::unexpected(step)) };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(Value::Int(1)), _) => Ok(Acquired::Ours),
        (Some(Value::Int(0)), Some(found)) => reply::slot(step, found, None).map(Acquired::Found),
        // `return {0, false}`: some versions keep a false at the end of a table as nil, others cut
        // it off.
        (Some(Value::Int(0)), None) => Ok(Acquired::Found(Slot::Absent)),
        (Some(Value::Int(2)), Some(left)) => {
            reply::time_left(step, left).map(|left| Acquired::Found(Slot::Leased(left)))
        }
        (Some(Value::Int(3)), _) => Ok(Acquired::Found(Slot::WrongType)),
        (Some(Value::Int(4)), Some(left)) => reply::time_left(step, left).map(Acquired::Throttled),
        (Some(Value::Int(5)), _) => Ok(Acquired::Unawaited),
        (Some(Value::Int(6)), Some(left)) => {
            reply::time_left(step, left).map(|left| Acquired::Found(Slot::Unawaited(left)))
        }
        _ => Err(error::unexpected(step)),
    }
}
