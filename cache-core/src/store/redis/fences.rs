//! Write fences. What they do to a key is in [`scripts::fences`].

use std::sync::Arc;

use futures::future::BoxFuture;

use super::invalidation::run_all;
use super::{RedisStore, ms, scripts};
use crate::error::Result;
use crate::store::{Expiry, FenceStore, Raised, Siblings, Token, VERSION_EXPIRY, Version, aside_key, lease_key};

impl FenceStore for RedisStore {
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        self.retried(move || async move {
            let script = |key: &String| {
                let mut script = scripts::fences::RAISE.key(key);
                script.key(lease_key(key)).key(aside_key(key)).arg(fence.hex()).arg(ms(limit));
                script
            };
            let scripts = siblings.keys.iter().map(script).collect();
            let (answers, builds) = run_all(self, "fence", &[], scripts, Some(siblings.builds)).await?;
            Ok(Raised { builds, crowded: answers.contains(&1) })
        })
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        self.retried(move || async move {
            let script = |key: &String| {
                let mut script = scripts::fences::LIFT.key(key);
                script.key(lease_key(key)).key(aside_key(key)).arg(fence.hex());
                script
            };
            let scripts = siblings.keys.iter().map(script).collect();
            run_all(self, "lift", &[], scripts, Some(siblings.builds)).await.map(|(_, builds)| builds)
        })
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let script = |key: &String| {
                let mut script = scripts::fences::WITHDRAW.key(key);
                script.key(aside_key(key)).arg(fence.hex());
                script
            };
            run_all(self, "withdraw", &[], keys.iter().map(script).collect(), None).await.map(drop)
        })
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        self.retried(move || async move {
            let script = |key: &Arc<str>| {
                let mut script = scripts::fences::FENCE_VERSION.key(&**key);
                script.arg(fence.hex()).arg(ms(limit));
                script
            };
            let (answers, _) = run_all(self, "fence", kinds, tags.iter().map(script).collect(), None).await?;
            Ok(answers.contains(&1))
        })
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        self.retried(move || async move {
            let script = |key: &Arc<str>| {
                let mut script = scripts::fences::LIFT_VERSION.key(&**key);
                script.arg(fence.hex()).arg(Version::random().hex()).arg(ms(VERSION_EXPIRY));
                script
            };
            run_all(self, "lift", versions, tags.iter().map(script).collect(), None).await.map(drop)
        })
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let script = |key: &Arc<str>| {
                let mut script = scripts::fences::WITHDRAW_VERSION.key(&**key);
                script.arg(fence.hex()).arg(ms(VERSION_EXPIRY));
                script
            };
            run_all(self, "withdraw", kinds, tags.iter().map(script).collect(), None).await.map(drop)
        })
    }
}
