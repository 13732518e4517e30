//! Versions of the simulated store.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{SimStore, now};
use crate::error::Result;
use crate::store::memory::MemoryStore;
use crate::store::{Expiry, Version, VersionStore};
use crate::testing::sim::World;

impl VersionStore for SimStore {
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        async move {
            let (first, rest) = self.apart(versions);
            let (mut found, _) = self.read_some(first, make).await?;
            if !rest.is_empty() {
                found.extend(self.read_some(rest, make).await?.0);
            }
            Ok((found, true))
        }
        .boxed()
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        async move {
            let (first, rest) = self.apart(versions);
            for versions in [first, rest].into_iter().filter(|versions| !versions.is_empty()) {
                let versions = versions.to_vec();
                self.pass("renewal of versions", move |store| now(store.renew_versions(&versions))).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        let (builds, version, fingerprint) = (builds.to_owned(), version.to_owned(), fingerprint.to_owned());
        self.pass("register", move |store| now(store.register_build(&builds, &version, &fingerprint, expiry)))
    }
}

impl SimStore {
    /// Sometimes splits several versions into two round trips, the second after the reply to the
    /// first. They then have an order, but were not read at the same moment.
    fn apart<'a>(&self, versions: &'a [Arc<str>]) -> (&'a [Arc<str>], &'a [Arc<str>]) {
        let connection = self.world.state().connection_of(self.node);
        let draw = |limit| connection.map_or(1, |connection| self.world.draw_for(connection, limit));
        let all = versions.len() as u64;
        let first = if all > 1 && draw(3) == 0 { 1 + draw(all - 1) } else { all };
        versions.split_at(first as usize)
    }

    async fn read_some(&self, versions: &[Arc<str>], make: bool) -> Result<(Vec<Option<Version>>, bool)> {
        let versions = versions.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (found, _) = now(store.read_versions(&versions, make))?;
            versions.iter().for_each(|version| world.track(version, connection));
            Ok((found, true))
        };
        self.call("read of versions", run).await
    }
}
