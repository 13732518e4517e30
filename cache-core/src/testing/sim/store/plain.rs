//! Objects of the simulated store. Plain values are refused.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{SimStore, now, refused};
use crate::error::Result;
use crate::store::{Expiry, Loaded, PlainFill, PlainStore, Put, Reply};

impl PlainStore for SimStore {
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.pass("put", move |store| now(store.put(&key, bytes, expiry)))
    }

    // No node of the simulation shares values with other programs.

    fn time_left<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Option<Option<Duration>>>> {
        refused()
    }

    fn put_plain<'a>(&'a self, _key: &'a str, _lease: &'a str, _: Bytes, _: Put) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn remove_plain<'a>(&'a self, _key: &'a str, _lease: &'a str) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn increment<'a>(&'a self, _key: &'a str, _by: i64) -> BoxFuture<'a, Result<i64>> {
        refused()
    }

    fn command(&self, _words: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Reply>> {
        refused()
    }

    fn load_tracked<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        refused()
    }

    fn fill_plain<'a>(&'a self, _fill: PlainFill<'a>) -> BoxFuture<'a, Result<bool>> {
        refused()
    }
}
