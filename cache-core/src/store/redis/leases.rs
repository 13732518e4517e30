//! Leases and fills. Each is compared on the server with the current content.

use std::time::Duration;

use futures::future::BoxFuture;
use redis::{Cmd, Pipeline, Script, ScriptInvocation, Value};

use super::{RedisStore, error, ms, on, reply, scripts};
use crate::error::{ErrorKind, Result};
use crate::store::{
    Acquired, Claim, FILL_ID_AT, Fill, Filled, LeaseStore, LeaseTarget, Replaces, Rewrite, Slot, Token, Want, lease_key,
};

mod batch;

impl LeaseStore for RedisStore {
    fn acquire<'a>(&'a self, want: &'a Want, lease: Duration) -> BoxFuture<'a, Result<Acquired>> {
        const STEP: &str = "acquire";
        match acquire_script(want, lease) {
            // Not retried: a lease that was taken twice would look like another caller's.
            Some(script) => Box::pin(async move { acquired(STEP, self.run(STEP, &script).await?) }),
            None => self.retried(move || async move {
                let found = self.link.command(STEP, &set_lease(want, lease)).await?;
                if is_ours(&found, want.token) {
                    return Ok(Acquired::Ours);
                }
                reply::slot(STEP, found, None).map(or_ours)
            }),
        }
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        const STEP: &str = "fill";
        self.retried(move || async move {
            let key = &fill.claim.key;
            self.sizes.saw(key, fill.record.len());
            let script = fill_script(fill);
            let session = self.link.session(STEP).await?;
            let tracks = fill.track && session.tracks();
            let mut pipeline = redis::pipe();
            pipeline.invoke_script(&script);
            if tracks {
                track_filled(&mut pipeline, key);
            }
            let mut replies = self.link.pipeline_on(&session, STEP, &pipeline).await?;
            let stored = replies.raw()?;
            if error::is_unknown_script(&stored) {
                let stored = reply::integer(STEP, self.run(STEP, &script).await?)?;
                return Ok(if stored == 1 { Filled::Stored } else { Filled::Refused });
            }
            let stands = if tracks { (replies.value().is_ok(), Some(replies.raw()?)) } else { (false, None) };
            filled(STEP, fill, stored, stands)
        })
    }

    fn rewrite_head<'a>(&'a self, rewrite: Rewrite<'a>) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "rewrite";
        Box::pin(async move {
            let Rewrite { key, token, fill_id, head, expiry } = rewrite;
            let mut script = refresh(&scripts::REWRITE_HEAD, key);
            script.arg(token.hex()).arg(head.as_ref()).arg(ms(expiry)).arg(&fill_id.to_le_bytes()[..]);
            Ok(reply::integer(STEP, self.run(STEP, &script).await?)? == 1)
        })
    }

    fn renew<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "renew";
        self.retried(move || async move {
            Ok(reply::integer(STEP, self.run(STEP, &renew_script(claim, lease)).await?)? == 1)
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim, unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "release";
        self.retried(move || async move {
            match self.run(STEP, &release_script(claim, unstored)).await {
                Err(error) if error.kind() == ErrorKind::Refused => self.remove_lease(STEP, claim).await,
                done => done.map(drop),
            }
        })
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "throttle";
        Box::pin(async move {
            let mut script = refresh(&scripts::THROTTLE, key);
            script.arg(token.hex()).arg(ms(throttle));
            Ok(reply::integer(STEP, self.run(STEP, &script).await?)? == 1)
        })
    }

    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        self.retried(move || self.acquire_all(wants, lease))
    }

    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        self.retried(move || self.fill_all(fills))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        self.retried(move || self.renew_all(claims, lease))
    }

    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        self.retried(move || self.release_all(claims, unstored))
    }
}

impl RedisStore {
    /// Ends a lease without a comparison, if the server refuses the script that compares, for
    /// example because a right was lost. If the lease belongs to another caller by now, the effect
    /// is an invalidation.
    async fn remove_lease(&self, step: &'static str, claim: &Claim) -> Result<()> {
        reply::checked(step, self.link.command(step, &on(&claim.lease_key(), "UNLINK")).await?).map(drop)
    }
}

/// Takes the lease if the value key is absent.
fn set_lease(want: &Want, lease: Duration) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(&*want.key).arg(want.token.mark()).arg("NX").arg("GET").arg("PX").arg(ms(lease));
    command
}

/// Evaluates the reply of [`set_lease`]: the content of the key, if it was not set.
fn or_ours(found: Slot) -> Acquired {
    if found == Slot::Absent { Acquired::Ours } else { Acquired::Found(found) }
}

/// Returns whether the lease in the key is this one: it was taken before, and the answer was lost.
fn is_ours(found: &Value, token: Token) -> bool {
    matches!(found, Value::BulkString(found) if *found == token.mark().as_bytes())
}

/// Takes the lease in the place or next to what the key holds. `None`: if the key is absent, see
/// [`set_lease`].
fn acquire_script(want: &Want, lease: Duration) -> Option<ScriptInvocation<'static>> {
    let Want { key, token, target } = want;
    let mut script;
    match target {
        LeaseTarget::Empty => return None,
        LeaseTarget::Instead(fill_id) => {
            script = scripts::ACQUIRE_IN_PLACE.key(&**key);
            script.arg(&fill_id.to_le_bytes()[..]).arg(token.mark());
        }
        LeaseTarget::Beside(fill_id) => {
            script = refresh(&scripts::ACQUIRE_REFRESH, key);
            script.arg(&fill_id.to_le_bytes()[..]).arg(token.hex());
        }
        LeaseTarget::OverMark(mark) => {
            script = scripts::ACQUIRE_OVER_MARK.key(&**key);
            script.arg(mark.unstored()).arg(token.unawaited().mark());
        }
    }
    script.arg(ms(lease));
    Some(script)
}

/// Parses the reply of the scripts that take a lease.
fn acquired(step: &'static str, value: Value) -> Result<Acquired> {
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

fn fill_script(fill: &Fill) -> ScriptInvocation<'static> {
    let Fill { claim: Claim { key, token, over }, record, expiry, .. } = fill;
    match over {
        Replaces::Nothing => {
            let mut script = scripts::FILL.key(&**key);
            script.arg(token.mark()).arg(record.as_ref()).arg(ms(*expiry));
            script
        }
        Replaces::Stale(id) => {
            let mut script = refresh(&scripts::FILL_REFRESH, key);
            script.arg(token.hex()).arg(record.as_ref()).arg(ms(*expiry)).arg(&id.to_le_bytes()[..]);
            script
        }
    }
}

/// A write does not start tracking; a read does, and this one does not transfer the value.
fn track_filled(pipeline: &mut Pipeline, key: &str) {
    pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    pipeline.cmd("GETRANGE").arg(key).arg(FILL_ID_AT.start).arg(FILL_ID_AT.end.saturating_sub(1));
}

/// Evaluates the replies of a fill: the script's reply, whether the read after it was tracked, and
/// what that read found.
fn filled(step: &'static str, fill: &Fill, stored: Value, (tracked, stands): (bool, Option<Value>)) -> Result<Filled> {
    if reply::integer(step, stored)? != 1 {
        return Ok(Filled::Refused);
    }
    let stands = stands.map(|stands| reply::bytes(step, stands)).transpose()?.flatten();
    // Another client may have written in between: then its record is the tracked one.
    let is_ours = stands.as_deref().is_some_and(|stands| fill.record.get(FILL_ID_AT) == Some(stands));
    Ok(if tracked && is_ours { Filled::Tracked } else { Filled::Stored })
}

fn renew_script(claim: &Claim, lease: Duration) -> ScriptInvocation<'static> {
    let Claim { key, token, over } = claim;
    match over {
        Replaces::Nothing => {
            let mut script = scripts::RENEW.key(&**key);
            script.arg(token.mark()).arg(ms(lease));
            script
        }
        Replaces::Stale(id) => {
            let mut script = refresh(&scripts::RENEW_REFRESH, key);
            script.arg(token.hex()).arg(ms(lease)).arg(&id.to_le_bytes()[..]);
            script
        }
    }
}

fn release_script(claim: &Claim, unstored: Option<Duration>) -> ScriptInvocation<'static> {
    let Claim { key, token, over } = claim;
    let mut script = scripts::RELEASE.key(&*claim.lease_key());
    if let Replaces::Stale(_) = over {
        script.key(&**key);
    }
    token.forms(*over).iter().for_each(|form| {
        script.arg(form);
    });
    if let Some(rest) = unstored {
        script.arg(token.unstored()).arg(ms(rest));
    }
    script
}

/// Starts a call of a script on a record and the lease of its refresh.
fn refresh(script: &'static Script, key: &str) -> ScriptInvocation<'static> {
    let mut script = script.key(key);
    script.key(lease_key(key));
    script
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    // R6, T4
    fn a_fill_is_tracked_only_if_the_server_says_so_and_its_own_record_still_stands() {
        let record = Bytes::from((0..64).collect::<Vec<u8>>());
        let claim = Claim { key: "k".into(), token: Token::from_bits(1), over: Replaces::Nothing };
        let fill = Fill { claim, record: record.clone(), expiry: Duration::from_secs(1), track: true };
        let after = |stored: i64, tracked: bool, stands: Option<Value>| {
            filled("fill", &fill, Value::Int(stored), (tracked, stands)).unwrap()
        };
        let ours = || Some(Value::BulkString(record.get(FILL_ID_AT).unwrap().to_vec()));
        assert_eq!(after(1, true, ours()), Filled::Tracked);
        assert_eq!(after(1, false, ours()), Filled::Stored, "`CLIENT CACHING` was refused");
        assert_eq!(after(1, true, Some(Value::BulkString(vec![9; 8]))), Filled::Stored, "another client has written");
        assert_eq!(
            after(1, true, Some(Value::BulkString(Vec::new()))),
            Filled::Stored,
            "another client has removed it"
        );
        assert_eq!(after(1, false, None), Filled::Stored);
        assert_eq!(after(0, true, ours()), Filled::Refused);
    }
}
