//! Versions: read together with the values under them, made if they are missing, and renewed while
//! they are in use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::invalidation::run_all;
use super::reply::{self, Replies};
use super::trips::{MOST_KEYS, in_turn};
use super::{RedisStore, ms, scripts};
use crate::error::Result;
use crate::store::{Expiry, VERSION_EXPIRY, VERSION_RENEWED_BELOW, Version, VersionStore};

impl VersionStore for RedisStore {
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        self.retried(move || self.many_versions("versions", versions, make))
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "invalidate";
        self.retried(move || async move { run_all(self, STEP, versions, Vec::new(), None).await.map(drop) })
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        const STEP: &str = "register";
        self.retried(move || async move {
            let mut script = scripts::REGISTER_BUILD.key(builds);
            script.key(version).arg(fingerprint).arg(ms(expiry));
            script.arg(Version::random().hex()).arg(ms(VERSION_EXPIRY));
            Ok(version_of(reply::bytes(STEP, self.run(STEP, &script).await?)?))
        })
    }
}

impl RedisStore {
    /// Reads any number of versions in as many round trips as they need, tracked if the server
    /// tracks.
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
            found.extend(some.into_iter().map(version_of));
            all_tracked &= tracked;
        }
        Ok((found, all_tracked))
    }

    /// Reads values and versions with MGET. The versions are tracked if the server tracks, the
    /// values only with `track`.
    ///
    /// `make`: sends a SET in front for each version that may not exist, and renews a version with
    /// little time left, which takes two more round trips, once a month for each process and
    /// version.
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
                let version = version_of(found.clone())?;
                (left? < VERSION_RENEWED_BELOW).then_some((key, version))
            });
        let aging: Vec<(&Arc<str>, Version)> = aging.collect();
        if aging.is_empty() {
            return Ok((found, tracked));
        }
        let mut pipeline = redis::pipe();
        for (key, version) in aging {
            let mut script = scripts::RENEW.key(&**key);
            // Compared: a fence that was raised in the meantime keeps its limit.
            script.arg(version.hex()).arg(ms(VERSION_EXPIRY));
            pipeline.invoke_script(&script);
        }
        // The replies are ignored: a server that refuses writes still answers reads, and the next
        // reader tries again.
        let _replies: Replies = self.link.pipeline(step, &pipeline).await?;
        // The server notifies the renewal as a change, so earlier reads are invalid.
        self.read_versions_once(step, values, versions, make, track).await.map(|(found, _, tracked)| (found, tracked))
    }

    /// Returns what was found, and how much time each version has left.
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
        // The server remembers all keys of a tracked command, so values that are not kept are read
        // by another one.
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
            // A server that refuses writes still answers reads: a missing version then agrees with
            // no entry.
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

/// Returns the version from the content of its key, if it is one.
pub(super) fn version_of(bytes: Option<Bytes>) -> Option<Version> {
    bytes.and_then(|bytes| Version::of(&bytes))
}
