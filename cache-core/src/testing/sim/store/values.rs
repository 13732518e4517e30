//! Value keys of the simulated store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{SimStore, now};
use crate::error::Result;
use crate::store::memory::MemoryStore;
use crate::store::{Expiry, ReadMany, Siblings, Slot, ValueStore, Versioned, Wake};
use crate::testing::sim::World;

/// How long a waiter sleeps if too many are waiting already.
const POLL: Duration = Duration::from_millis(100);

impl ValueStore for SimStore {
    fn read_now(&self, _key: &str) -> Option<Slot> {
        None
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>> {
        let key = key.to_owned();
        self.pass("read", move |store| now(store.read(&key)))
    }

    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>> {
        let key = key.to_owned();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let slot = now(store.read(&key))?;
            world.track(&key, connection);
            Ok((slot, true))
        };
        self.call("tracked read", run).boxed()
    }

    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>> {
        let (key, versions) = (key.to_owned(), versions.to_vec());
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (slot, found, _) = now(store.read_versioned(&key, &versions))?;
            world.track(&key, connection);
            versions.iter().for_each(|version| world.track(version, connection));
            Ok((slot, found, true))
        };
        self.call("versioned read", run).boxed()
    }

    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>> {
        async move {
            let pushes = Arc::clone(&self.world.state().nodes[self.node].pushes);
            let waiter = pushes.register(key);
            let (slot, _) = self.read_tracked(key).await?;
            let wake = match waiter {
                Some(waiter) => waiter.boxed(),
                None => tokio::time::sleep(POLL).boxed(),
            };
            Ok((slot, wake))
        }
        .boxed()
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        let (keys, versions) = (keys.to_vec(), versions.to_vec());
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (slots, found, _) = now(store.read_many(&keys, &versions, track))?;
            let tracked = keys.iter().filter(|_| track).chain(&versions);
            tracked.for_each(|key| world.track(key, connection));
            Ok((slots, found, true))
        };
        self.call("read of many", run).boxed()
    }

    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>> {
        let (key, what) = (key.to_owned(), what.clone());
        self.pass("discard", move |store| now(store.discard(&key, &what)))
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        let (key, keys, builds) = (key.to_owned(), siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("write", move |store| {
            now(store.write(&key, record, expiry, Siblings { keys: &keys, builds: &builds }))
        })
    }

    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("remove", move |store| now(store.remove(Siblings { keys: &keys, builds: &builds })))
    }
}
