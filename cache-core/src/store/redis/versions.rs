//! Versions: read together with what is stored under them, made where they are missing, and kept from running out while they are in use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::reply::{self, Replies};
use super::{RedisStore, ms, scripts};
use crate::error::Result;
use crate::store::{VERSION_EXPIRY, VERSION_RENEWED_BELOW, Version};

impl RedisStore {
    /// MGET of values and versions, tracked where the server tracks. `make`: behind a SET for each version that may not exist, and one that
    /// has little time left is renewed: two trips more, once a month for each process and version.
    pub(super) async fn versions(
        &self,
        step: &'static str,
        values: &[&str],
        versions: &[Arc<str>],
        make: bool,
    ) -> Result<(Vec<Option<Bytes>>, bool)> {
        let (found, left, tracked) = self.read_versions_once(step, values, versions, make).await?;
        let aging =
            versions.iter().zip(found.iter().skip(values.len())).zip(left).filter_map(|((key, found), left)| {
                let version = version(found.clone())?;
                (left? < VERSION_RENEWED_BELOW).then_some((key, version))
            });
        let aging: Vec<(&Arc<str>, Version)> = aging.collect();
        if aging.is_empty() {
            return Ok((found, tracked));
        }
        let mut pipeline = redis::pipe();
        for (key, version) in aging {
            let mut script = scripts::RENEW.key(&**key);
            // Compared: a fence that was raised meanwhile keeps its limit.
            script.arg(version.hex()).arg(ms(VERSION_EXPIRY));
            pipeline.invoke_script(&script);
        }
        // Whatever the replies: a server that takes no writes still answers reads, and who reads next tries again.
        let _replies: Replies = self.link.pipeline(step, &pipeline).await?;
        // The server tells of the renewal as of a change, so what was read before it is worth nothing.
        self.read_versions_once(step, values, versions, make).await.map(|(found, _, tracked)| (found, tracked))
    }

    /// What was found, and how much time versions have left.
    async fn read_versions_once(
        &self,
        step: &'static str,
        values: &[&str],
        versions: &[Arc<str>],
        make: bool,
    ) -> Result<(Vec<Option<Bytes>>, Vec<Option<Duration>>, bool)> {
        let session = self.link.session(step)?;
        let mut pipeline = redis::pipe();
        for key in versions.iter().filter(|_| make) {
            let made = Version::random().hex();
            pipeline.cmd("SET").arg(&**key).arg(made).arg("NX").arg("PX").arg(ms(VERSION_EXPIRY));
        }
        if session.tracks() {
            pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
        }
        pipeline.cmd("MGET").arg(values).arg(versions.iter().map(|key| &**key).collect::<Vec<_>>());
        for key in versions.iter().filter(|_| make) {
            pipeline.cmd("PTTL").arg(&**key);
        }
        let mut replies = self.link.pipeline_on(&session, step, &pipeline).await?;
        for _ in versions.iter().filter(|_| make) {
            // A server that takes no writes still answers reads: a version that is missing then agrees with nothing.
            let _made = replies.raw()?;
        }
        let tracked = session.tracks() && replies.value().is_ok();
        let found = reply::all_bytes(step, replies.raw()?)?;
        let mut left = Vec::new();
        for _ in versions.iter().filter(|_| make) {
            left.push(reply::time_left(step, replies.raw()?)?);
        }
        Ok((found, left, tracked))
    }
}

/// What stands under the key of a version, if it is one.
pub(super) fn version(bytes: Option<Bytes>) -> Option<Version> {
    bytes.and_then(|bytes| Version::of(&bytes))
}
