//! The operations on several keys: one pipeline each.
//!
//! Between the commands of a pipeline the server may run those of other clients; each command is atomic by itself, and that is
//! all that is promised. A script that the server has forgotten meanwhile is given again with the one operation that missed it.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::requests::{
    acquired, beside_script, fill_script, in_place_script, or_ours, release_script, renew_script, set_lease,
    track_filled,
};
use super::{RedisStore, faults, reply, version};
use crate::error::Result;
use crate::store::batch::{acquire_one, fill_one};
use crate::store::{Acquired, Claim, FILL_ID_AT, Fill, Filled, Place, ReadMany, Slot, Store as _, Want};

impl RedisStore {
    pub(super) async fn read_all(&self, keys: &[Arc<str>], versions: &[Arc<str>], track: bool) -> Result<ReadMany> {
        const STEP: &str = "read";
        let values: Vec<&str> = keys.iter().map(|key| &**key).collect();
        let (mut found, tracked) = if track || !versions.is_empty() {
            self.versions(STEP, &values, versions, true).await?
        } else {
            let reply = self.link.command(STEP, redis::cmd("MGET").arg(&values)).await?;
            (reply::all_bytes(STEP, reply)?, false)
        };
        let versions = found.split_off(keys.len().min(found.len()));
        // A value of another type is nothing to MGET: taking the lease tells.
        let slots = found.into_iter().map(|value| Slot::of(value, None)).collect();
        Ok((slots, versions.into_iter().map(version).collect(), tracked))
    }

    pub(super) async fn acquire_all(&self, wants: &[Want], lease: Duration) -> Result<Vec<Result<Acquired>>> {
        const STEP: &str = "acquire";
        let mut pipeline = redis::pipe();
        for Want { key, token, place } in wants {
            match *place {
                Place::Empty => pipeline.add_command(set_lease(key, *token, lease)),
                Place::Instead(id) => pipeline.invoke_script(&in_place_script(key, *token, lease, id)),
                Place::Beside(id) => pipeline.invoke_script(&beside_script(key, *token, lease, id)),
            };
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(wants.len());
        for want in wants {
            let answer = replies.raw()?;
            answers.push(match want.place {
                Place::Empty => reply::slot(STEP, answer, None).map(or_ours),
                _ if faults::is_unknown_script(&answer) => acquire_one(self, want, lease).await,
                Place::Instead(_) | Place::Beside(_) => acquired(STEP, answer),
            });
        }
        Ok(answers)
    }

    pub(super) async fn fill_all(&self, fills: &[Fill]) -> Result<Vec<Result<Filled>>> {
        const STEP: &str = "fill";
        let session = self.link.session(STEP)?;
        let mut pipeline = redis::pipe();
        for Fill { claim: Claim { key, token, over }, record, expiry } in fills {
            pipeline.invoke_script(&fill_script(key, *token, *over, record, *expiry));
            if session.tracks() {
                track_filled(&mut pipeline, key);
            }
        }
        let mut replies = self.link.pipeline_on(&session, STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(fills.len());
        for fill in fills {
            let stored = replies.raw()?;
            let stands = match session.tracks() {
                true => (replies.value().is_ok(), Some(replies.raw()?)),
                false => (false, None),
            };
            answers.push(if faults::is_unknown_script(&stored) {
                fill_one(self, fill).await
            } else {
                filled(STEP, fill, stored, stands)
            });
        }
        Ok(answers)
    }

    pub(super) async fn renew_all(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Result<bool>>> {
        const STEP: &str = "renew";
        let mut pipeline = redis::pipe();
        for Claim { key, token, over } in claims {
            pipeline.invoke_script(&renew_script(key, *token, *over, lease));
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(claims.len());
        for Claim { key, token, over } in claims {
            let answer = replies.raw()?;
            answers.push(if faults::is_unknown_script(&answer) {
                self.renew(key, *token, *over, lease).await
            } else {
                reply::integer(STEP, answer).map(|renewed| renewed == 1)
            });
        }
        Ok(answers)
    }

    pub(super) async fn release_all(&self, claims: &[Claim]) -> Result<()> {
        const STEP: &str = "release";
        let mut pipeline = redis::pipe();
        for Claim { key, token, over } in claims {
            pipeline.invoke_script(&release_script(key, *token, *over));
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        for Claim { key, token, over } in claims {
            let answer = replies.raw()?;
            if faults::is_unknown_script(&answer) {
                self.release(key, *token, *over).await?;
            } else {
                reply::checked(STEP, answer)?;
            }
        }
        Ok(())
    }
}

/// What a fill came to: the script's reply, whether the read behind it was tracked, and what that found.
fn filled(step: &'static str, fill: &Fill, stored: Value, (tracked, stands): (bool, Option<Value>)) -> Result<Filled> {
    if reply::integer(step, stored)? != 1 {
        return Ok(Filled::Refused);
    }
    let stands = stands.map(|stands| reply::bytes(step, stands)).transpose()?.flatten();
    // Somebody else may have written in between: then what is tracked is theirs.
    let is_ours = stands.as_deref().is_some_and(|stands| fill.record.get(FILL_ID_AT) == Some(stands));
    Ok(if tracked && is_ours { Filled::Tracked } else { Filled::Stored })
}
