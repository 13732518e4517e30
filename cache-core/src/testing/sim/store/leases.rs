//! Leases of the simulated store.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{SimStore, now, unavailable};
use crate::error::Result;
use crate::store::memory::MemoryStore;
use crate::store::{Acquired, Claim, Fill, Filled, LeaseStore, Rewrite, Token, Want};
use crate::testing::sim::World;

impl LeaseStore for SimStore {
    fn acquire<'a>(&'a self, want: &'a Want, lease: Duration) -> BoxFuture<'a, Result<Acquired>> {
        let want = want.clone();
        self.pass("acquire", move |store| now(store.acquire(&want, lease)))
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        let fill = fill.clone();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let filled = now(store.fill(&fill))?;
            // Sometimes the read that registers the key is refused, or finds that another node has
            // written.
            if filled == Filled::Tracked && (!fill.track || world.draw_for(connection, 8) == 0) {
                return Ok(Filled::Stored);
            }
            if filled == Filled::Tracked {
                world.track(&fill.claim.key, connection);
            }
            Ok(filled)
        };
        self.call("fill", run).boxed()
    }

    fn rewrite_head<'a>(&'a self, rewrite: Rewrite<'a>) -> BoxFuture<'a, Result<bool>> {
        let Rewrite { key, token, fill_id, head, expiry } = rewrite;
        let key = key.to_owned();
        let rewrite =
            move |store: &MemoryStore| now(store.rewrite_head(Rewrite { key: &key, token, fill_id, head, expiry }));
        self.pass("rewrite", rewrite)
    }

    fn renew<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        let claim = claim.clone();
        self.pass("renew", move |store| now(store.renew(&claim, lease)))
    }

    fn release<'a>(&'a self, claim: &'a Claim, unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        let claim = claim.clone();
        self.pass("release", move |store| now(store.release(&claim, unstored)))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("throttle", move |store| now(store.throttle(&key, token, throttle)))
    }

    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        let wants = wants.to_vec();
        self.pass("acquire many", move |store| now(store.acquire_many(&wants, lease)))
    }

    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        let fills = fills.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let filled = now(store.fill_many(&fills))?;
            for (fill, filled) in fills.iter().zip(&filled) {
                if matches!(filled, Ok(Filled::Tracked)) {
                    world.track(&fill.claim.key, connection);
                }
            }
            Ok(filled)
        };
        self.call("fill many", run).boxed()
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        let claims = claims.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            // One of several renewals may fail, but not two times in a row.
            let failed = world.failed_renewal(connection, claims.len());
            let stood: Vec<Claim> = claims
                .iter()
                .enumerate()
                .filter(|(at, _)| Some(*at) != failed)
                .map(|(_, claim)| claim.clone())
                .collect();
            let mut renewed = now(store.renew_many(&stood, lease))?;
            if let Some(failed) = failed {
                renewed.insert(failed, Err(unavailable("renew many")));
            }
            Ok(renewed)
        };
        self.call("renew many", run).boxed()
    }

    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        let claims = claims.to_vec();
        self.pass("release many", move |store| now(store.release_many(&claims, unstored)))
    }
}
