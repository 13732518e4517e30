//! The operations on several leases: a pipeline for each [trip](crate::store::redis::trips).
//!
//! Between the commands of a pipeline the server may run those of other clients. Each command is
//! atomic by itself; the pipeline is not. A script that the server has lost in the meantime is
//! loaded again with the operation that missed it.

use std::time::Duration;

use super::{
    acquire_script, acquired, fill_script, filled, or_ours, release_script, renew_script, set_lease, track_filled,
};
use crate::error::{ErrorKind, Result};
use crate::store::redis::trips::{by_bytes, each};
use crate::store::redis::{RedisStore, error, reply};
use crate::store::{Acquired, Claim, Fill, Filled, LeaseStore as _, LeaseTarget, Want};

impl RedisStore {
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
        for want in wants {
            match acquire_script(want, lease) {
                Some(script) => pipeline.invoke_script(&script),
                None => pipeline.add_command(set_lease(want, lease)),
            };
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(wants.len());
        for want in wants {
            let answer = replies.raw()?;
            answers.push(match want.target {
                LeaseTarget::Empty => reply::slot(STEP, answer, None).map(or_ours),
                _ if error::is_unknown_script(&answer) => self.acquire(want, lease).await,
                LeaseTarget::Instead(_) | LeaseTarget::Beside(_) | LeaseTarget::OverMark(_) => acquired(STEP, answer),
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
            let key = &fill.claim.key;
            self.sizes.saw(key, fill.record.len());
            pipeline.invoke_script(&fill_script(fill));
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
        for claim in claims {
            pipeline.invoke_script(&renew_script(claim, lease));
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(claims.len());
        for claim in claims {
            let answer = replies.raw()?;
            answers.push(if error::is_unknown_script(&answer) {
                self.renew(claim, lease).await
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
        for claim in claims {
            pipeline.invoke_script(&release_script(claim, unstored));
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut answers = Vec::with_capacity(claims.len());
        for claim in claims {
            let answer = replies.raw()?;
            answers.push(if error::is_unknown_script(&answer) {
                self.release(claim, unstored).await
            } else {
                match reply::checked(STEP, answer) {
                    Err(error) if error.kind() == ErrorKind::Refused => self.remove_lease(STEP, claim).await,
                    done => done.map(drop),
                }
            });
        }
        Ok(answers)
    }
}
