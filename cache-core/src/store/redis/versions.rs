//! Versions: read together with what is stored under them, made where they are missing, and kept from running out while they are in use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::reply::{self, Replies};
use super::trips::{MOST_KEYS, in_turn};
use super::{RedisStore, ms, scripts};
use crate::error::Result;
use crate::store::{VERSION_EXPIRY, VERSION_RENEWED_BELOW, Version};

impl RedisStore {
    /// Any number of versions, in as many trips as they take, tracked where the server tracks.
    pub(super) async fn many_versions(
        &self,
        step: &'static str,
        versions: &[Arc<str>],
        make: bool,
    ) -> Result<(Vec<Option<Version>>, bool)> {
        let mut parts = versions.chunks(MOST_KEYS);
        let read = in_turn(|| {
            let part = parts.next()?;
            Some(async move { self.versions(step, &[], part, make, true).await })
        });
        let (mut found, mut all_tracked) = (Vec::with_capacity(versions.len()), true);
        for part in read.await {
            let (some, tracked) = part?;
            found.extend(some.into_iter().map(version));
            all_tracked &= tracked;
        }
        Ok((found, all_tracked))
    }

    /// MGET of values and versions: the versions are tracked where the server tracks, the values only
    /// with `track`. `make`: behind a SET for each version that may not exist, and one that has little
    /// time left is renewed: two trips more, once a month for each process and version.
    pub(super) async fn versions(
        &self,
        step: &'static str,
        values: &[&str],
        versions: &[Arc<str>],
        make: bool,
        track: bool,
    ) -> Result<(Vec<Option<Bytes>>, bool)> {
        let (found, left, tracked) = self.read_versions_once(step, values, versions, make, track).await?;
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
        self.read_versions_once(step, values, versions, make, track).await.map(|(found, _, tracked)| (found, tracked))
    }

    /// What was found, and how much time versions have left.
    async fn read_versions_once(
        &self,
        step: &'static str,
        values: &[&str],
        versions: &[Arc<str>],
        make: bool,
        track: bool,
    ) -> Result<(Vec<Option<Bytes>>, Vec<Option<Duration>>, bool)> {
        let session = self.link.session(step).await?;
        let mut pipeline = redis::pipe();
        for key in versions.iter().filter(|_| make) {
            let made = Version::random().hex();
            pipeline.cmd("SET").arg(&**key).arg(made).arg("NX").arg("PX").arg(ms(VERSION_EXPIRY));
        }
        // The server remembers all keys of a tracked command: what nobody keeps is read by another one.
        let apart = !track && !values.is_empty();
        if apart {
            pipeline.cmd("MGET").arg(values);
        }
        if session.tracks() {
            pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
        }
        pipeline.cmd("MGET");
        if !apart {
            pipeline.arg(values);
        }
        pipeline.arg(versions.iter().map(|key| &**key).collect::<Vec<_>>());
        for key in versions.iter().filter(|_| make) {
            pipeline.cmd("PTTL").arg(&**key);
        }
        let mut replies = self.link.pipeline_on(&session, step, &pipeline).await?;
        for _ in versions.iter().filter(|_| make) {
            // A server that takes no writes still answers reads: a version that is missing then agrees with nothing.
            let _made = replies.raw()?;
        }
        let mut found = if apart { reply::all_bytes(step, replies.raw()?)? } else { Vec::new() };
        let tracked = session.tracks() && replies.value().is_ok();
        found.extend(reply::all_bytes(step, replies.raw()?)?);
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
