//! The operations on several keys: a pipeline for each [trip](super::trips).
//!
//! Between the commands of a pipeline the server may run those of other clients. Each command is
//! atomic by itself; the pipeline is not. A script that the server has lost in the meantime is
//! loaded again with the operation that missed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::requests::{
    acquired, beside_script, fill_script, in_place_script, or_ours, over_mark_script, release_script, renew_script,
    set_lease, track_filled,
};
use super::trips::{by_bytes, each, in_turn};
use super::versions::version;
use super::{RedisStore, error, leases, reply};
use crate::error::{ErrorKind, Result};
use crate::store::leases::acquire_one;
use crate::store::{Acquired, Claim, FILL_ID_AT, Fill, Filled, LeaseStore as _, Place, ReadMany, Slot, Want};

/// How many versions are read together with values. More of them take round trips of their own,
/// before the values.
const VERSIONS_ALONG: usize = 64;

impl RedisStore {
    pub(super) async fn read_all(&self, keys: &[Arc<str>], versions: &[Arc<str>], track: bool) -> Result<ReadMany> {
        const STEP: &str = "read";
        let along = if versions.len() <= VERSIONS_ALONG { versions } else { &[] };
        // The versions first: a record that was stored under later ones does not agree with them.
        let (mut found, mut all_tracked) = if along.len() < versions.len() {
            self.many_versions(STEP, versions, true).await?
        } else {
            (Vec::new(), true)
        };
        let (mut rest, mut along) = (keys, Some(along).filter(|along| !along.is_empty()));
        let failed = AtomicBool::new(false);
        let trips = in_turn(|| {
            let (some, others) = rest.split_at(self.sizes.fitting(rest.iter().map(|key| &**key)));
            rest = others;
            let versions = along.take().unwrap_or_default();
            // After a failure nothing more is read: the caller gets none of it.
            if failed.load(Ordering::Relaxed) || (some.is_empty() && versions.is_empty()) {
                return None;
            }
            let failed = &failed;
            Some(async move {
                let read = self.read_some(STEP, some, versions, track).await;
                failed.fetch_or(read.is_err(), Ordering::Relaxed);
                read
            })
        });
        let mut slots = Vec::with_capacity(keys.len());
        for read in trips.await {
            let (some, versions, tracked) = read?;
            slots.extend(some);
            found.extend(versions);
            all_tracked &= tracked;
        }
        Ok((slots, found, all_tracked && (track || !versions.is_empty())))
    }

    async fn read_some(
        &self,
        step: &'static str,
        keys: &[Arc<str>],
        versions: &[Arc<str>],
        track: bool,
    ) -> Result<ReadMany> {
        let values: Vec<&str> = keys.iter().map(|key| &**key).collect();
        let (mut found, tracked) = if !versions.is_empty() {
            self.versions(step, &values, versions, true, track).await?
        } else if track {
            self.versions(step, &values, &[], false, true).await?
        } else {
            let reply = self.link.command(step, redis::cmd("MGET").arg(&values)).await?;
            // Nothing was to be tracked.
            (reply::all_bytes(step, reply)?, true)
        };
        let versions = found.split_off(keys.len().min(found.len()));
        for (key, value) in keys.iter().zip(&found) {
            self.sizes.saw(key, value.as_ref().map_or(0, Bytes::len));
        }
        // MGET returns nothing for a value of another type; taking the lease finds it.
        let slots = found.into_iter().map(|value| Slot::of(value, None)).collect();
        Ok((slots, versions.into_iter().map(version).collect(), tracked))
    }

    pub(super) async fn acquire_all(&self, wants: &[Want], lease: Duration) -> Result<Vec<Result<Acquired>>> {
        let mut sent = 0_usize;
        // The reply includes the content that is in the way, so the size of the values counts.
        let next = || {
            let rest = wants.get(sent..)?;
            let range = sent..sent.saturating_add(self.sizes.fitting(rest.iter().map(|want| &*want.key)));
            sent = range.end;
            (!range.is_empty()).then_some(range)
        };
        each(next, |range| self.acquire_some(wants.get(range).unwrap_or_default(), lease)).await
    }

    async fn acquire_some(&self, wants: &[Want], lease: Duration) -> Result<Vec<Result<Acquired>>> {
        const STEP: &str = "acquire";
        let mut pipeline = redis::pipe();
        for Want { key, token, place } in wants {
            match *place {
                Place::Empty => pipeline.add_command(set_lease(key, *token, lease)),
                Place::Instead(id) => pipeline.invoke_script(&in_place_script(key, *token, lease, id)),
                Place::Beside(id) => pipeline.invoke_script(&beside_script(key, *token, lease, id)),
                Place::OverMark(mark) => pipeline.invoke_script(&over_mark_script(key, *token, lease, mark)),
            };
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(wants.len());
        for want in wants {
            let answer = replies.raw()?;
            answers.push(match want.place {
                Place::Empty => reply::slot(STEP, answer, None).map(or_ours),
                _ if error::is_unknown_script(&answer) => acquire_one(self, want, lease).await,
                Place::Instead(_) | Place::Beside(_) | Place::OverMark(_) => acquired(STEP, answer),
            });
        }
        Ok(answers)
    }

    pub(super) async fn fill_all(&self, fills: &[Fill]) -> Result<Vec<Result<Filled>>> {
        let bytes = |Fill { claim, record, .. }: &Fill| claim.key.len().saturating_mul(2).saturating_add(record.len());
        let mut trips = by_bytes(fills, bytes).into_iter();
        each(|| trips.next(), |range| self.fill_some(fills.get(range).unwrap_or_default())).await
    }

    async fn fill_some(&self, fills: &[Fill]) -> Result<Vec<Result<Filled>>> {
        const STEP: &str = "fill";
        let session = self.link.session(STEP).await?;
        let tracks = |fill: &Fill| fill.track && session.tracks();
        let mut pipeline = redis::pipe();
        for fill in fills {
            let Fill { claim: Claim { key, token, over }, record, expiry, .. } = fill;
            self.sizes.saw(key, record.len());
            pipeline.invoke_script(&fill_script(key, *token, *over, record, *expiry));
            if tracks(fill) {
                track_filled(&mut pipeline, key);
            }
        }
        let mut replies = self.link.pipeline_on(&session, STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(fills.len());
        for fill in fills {
            let stored = replies.raw()?;
            let stands = match tracks(fill) {
                true => (replies.value().is_ok(), Some(replies.raw()?)),
                false => (false, None),
            };
            answers.push(if error::is_unknown_script(&stored) {
                self.fill(fill).await
            } else {
                filled(STEP, fill, stored, stands)
            });
        }
        Ok(answers)
    }

    pub(super) async fn renew_all(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Result<bool>>> {
        let mut trips = by_bytes(claims, |claim| claim.key.len()).into_iter();
        each(|| trips.next(), |range| self.renew_some(claims.get(range).unwrap_or_default(), lease)).await
    }

    async fn renew_some(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Result<bool>>> {
        const STEP: &str = "renew";
        let mut pipeline = redis::pipe();
        for Claim { key, token, over } in claims {
            pipeline.invoke_script(&renew_script(key, *token, *over, lease));
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(claims.len());
        for Claim { key, token, over } in claims {
            let answer = replies.raw()?;
            answers.push(if error::is_unknown_script(&answer) {
                self.renew(key, *token, *over, lease).await
            } else {
                reply::integer(STEP, answer).map(|renewed| renewed == 1)
            });
        }
        Ok(answers)
    }

    pub(super) async fn release_all(&self, claims: &[Claim], unstored: Option<Duration>) -> Result<()> {
        let mut trips = by_bytes(claims, |claim| claim.key.len()).into_iter();
        let released =
            each(|| trips.next(), |range| self.release_some(claims.get(range).unwrap_or_default(), unstored)).await?;
        released.into_iter().collect()
    }

    async fn release_some(&self, claims: &[Claim], unstored: Option<Duration>) -> Result<Vec<Result<()>>> {
        const STEP: &str = "release";
        let mut pipeline = redis::pipe();
        for Claim { key, token, over } in claims {
            pipeline.invoke_script(&release_script(key, *token, *over, unstored));
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(claims.len());
        for Claim { key, token, over } in claims {
            let answer = replies.raw()?;
            answers.push(if error::is_unknown_script(&answer) {
                self.release(key, *token, *over, unstored).await
            } else {
                match reply::checked(STEP, answer) {
                    Err(error) if error.kind() == ErrorKind::Refused => leases::remove(self, key, *over).await,
                    done => done.map(drop),
                }
            });
        }
        Ok(answers)
    }
}

/// Evaluates the replies of a fill: the script's reply, whether the read after it was tracked, and
/// what that read found.
pub(super) fn filled(
    step: &'static str,
    fill: &Fill,
    stored: Value,
    (tracked, stands): (bool, Option<Value>),
) -> Result<Filled> {
    if reply::integer(step, stored)? != 1 {
        return Ok(Filled::Refused);
    }
    let stands = stands.map(|stands| reply::bytes(step, stands)).transpose()?.flatten();
    // Another client may have written in between: then its record is the tracked one.
    let is_ours = stands.as_deref().is_some_and(|stands| fill.record.get(FILL_ID_AT) == Some(stands));
    Ok(if tracked && is_ours { Filled::Tracked } else { Filled::Stored })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Over, Token};

    #[test]
    // R6, T4
    fn a_fill_is_tracked_only_if_the_server_says_so_and_its_own_record_still_stands() {
        let record = Bytes::from((0..64).collect::<Vec<u8>>());
        let claim = Claim { key: "k".into(), token: Token::from_bits(1), over: Over::Nothing };
        let fill = Fill { claim, record: record.clone(), expiry: Duration::from_secs(1), track: true };
        let after = |stored: i64, tracked: bool, stands: Option<Value>| {
            filled("fill", &fill, Value::Int(stored), (tracked, stands)).unwrap()
        };
        let ours = || Some(Value::BulkString(record.get(FILL_ID_AT).unwrap().to_vec()));
        assert_eq!(after(1, true, ours()), Filled::Tracked);
        assert_eq!(after(1, false, ours()), Filled::Stored, "`CLIENT CACHING` was refused");
        assert_eq!(after(1, true, Some(Value::BulkString(vec![9; 8]))), Filled::Stored, "somebody else has written");
        assert_eq!(after(1, true, Some(Value::BulkString(Vec::new()))), Filled::Stored, "somebody has removed it");
        assert_eq!(after(1, false, None), Filled::Stored);
        assert_eq!(after(0, true, ours()), Filled::Refused);
    }
}
