//! Cells of the simulated store.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{SimStore, now};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::cells::Limit;
use crate::store::{CellStore, Entered, Entering, Expiry, Kind, Loaded, Replaced, Replacing, Swapped, Tombstone};

impl CellStore for SimStore {
    fn now(&self) -> Timestamp {
        let state = self.world.state();
        let node = &state.nodes[self.node];
        node.offset.now(&node.clock)
    }

    fn reads_synchronously(&self) -> bool {
        false
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        let key = key.to_owned();
        self.pass("load", move |store| now(store.load(&key)))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("create", move |store| now(store.create(&key, bytes, expiry)))
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>> {
        let key = key.to_owned();
        self.pass("swap", move |store| now(store.swap(&key, old, new, expiry)))
    }

    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("expire", move |store| now(store.expire(&key, expiry)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("delete", move |store| now(store.delete(&key)))
    }

    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        let (key, mark) = (key.to_owned(), mark.to_owned());
        self.pass("load of a session", move |store| now(store.load_marked(&key, &mark)))
    }

    fn delete_marked<'a>(&'a self, key: &'a str, mark: Tombstone<'a>) -> BoxFuture<'a, Result<bool>> {
        let (key, mark, lasts) = (key.to_owned(), mark.key.to_owned(), mark.lasts);
        self.pass("end of a session", move |store| now(store.delete_marked(&key, Tombstone { key: &mark, lasts })))
    }

    fn replace<'a>(&'a self, replacing: Replacing<'a>) -> BoxFuture<'a, Result<Replaced>> {
        let Replacing { old, expected, key, bytes, expiry, mark } = replacing;
        let (old, expected, key, bytes) = (old.to_owned(), expected.clone(), key.to_owned(), bytes.clone());
        let mark = mark.map(|mark| (mark.key.to_owned(), mark.lasts));
        self.pass("replacement of a session", move |store| {
            let mark = mark.as_ref().map(|(key, lasts)| Tombstone { key, lasts: *lasts });
            let (old, expected, key, bytes) = (&old, &expected, &key, &bytes);
            now(store.replace(Replacing { old, expected, key, bytes, expiry, mark }))
        })
    }

    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>> {
        let Entering { key, bytes, expiry, over, deletes, index, member, lasts, leaves, limit, mark } = entering;
        let (key, bytes, index, member) = (key.to_owned(), bytes.clone(), index.to_owned(), member.to_owned());
        let over = over.map(|(from, expected)| (from.to_owned(), expected.clone()));
        let leaves = leaves.map(|(index, member)| (index.to_owned(), member.to_owned()));
        let mark = mark.map(|mark| (mark.key.to_owned(), mark.lasts));
        let limit = limit.map(|limit| (limit.prefix.to_owned(), limit.most, limit.then));
        let deletes = deletes.to_vec();
        self.pass("login", move |store| {
            let entering = Entering {
                key: &key,
                bytes: &bytes,
                expiry,
                over: over.as_ref().map(|(from, expected)| (from.as_str(), expected)),
                deletes: &deletes,
                index: &index,
                member: &member,
                lasts,
                leaves: leaves.as_ref().map(|(index, member)| (index.as_str(), member.as_str())),
                limit: limit.as_ref().map(|(prefix, most, then)| Limit { prefix, most: *most, then: *then }),
                mark: mark.as_ref().map(|(key, lasts)| Tombstone { key, lasts: *lasts }),
            };
            now(store.enter(entering))
        })
    }

    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        let key = key.to_owned();
        self.pass("members", move |store| now(store.index_members(&key)))
    }

    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>> {
        let (key, member) = (key.to_owned(), member.to_owned());
        self.pass("member", move |store| now(store.index_put(&key, &member, lasts)))
    }

    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        let (key, members) = (key.to_owned(), members.to_vec());
        self.pass("end of members", move |store| now(store.index_remove(&key, &members)))
    }

    fn list<'a>(&'a self, prefix: &'a str, kind: Kind, from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>> {
        let prefix = prefix.to_owned();
        self.pass("list", move |store| now(store.list(&prefix, kind, from)))
    }
}
