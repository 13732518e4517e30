//! Fences of the simulated store.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{SimStore, now};
use crate::error::Result;
use crate::store::{Expiry, FenceStore, Raised, Siblings, Token};

impl FenceStore for SimStore {
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("fence", move |store| {
            now(FenceStore::raise(store, fence, limit, Siblings { keys: &keys, builds: &builds }))
        })
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("lift", move |store| now(FenceStore::lift(store, fence, Siblings { keys: &keys, builds: &builds })))
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        let keys = keys.to_vec();
        self.pass("withdrawal", move |store| now(FenceStore::withdraw(store, fence, &keys)))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        let (kinds, tags) = (kinds.to_vec(), tags.to_vec());
        self.pass("fence of versions", move |store| now(FenceStore::fence_versions(store, fence, limit, &kinds, &tags)))
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        let (versions, tags) = (versions.to_vec(), tags.to_vec());
        self.pass("lift of versions", move |store| now(FenceStore::lift_versions(store, fence, &versions, &tags)))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        let (kinds, tags) = (kinds.to_vec(), tags.to_vec());
        self.pass("withdrawal of versions", move |store| {
            now(FenceStore::withdraw_versions(store, fence, &kinds, &tags))
        })
    }
}
