//! The nouns that the simulation does not need: each operation is refused.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::{SimStore, refused};
use crate::error::Result;
use crate::store::sweep::{Heads, SweepStore, VersionState};
use crate::store::{ChannelStore, HashStore, Message};

impl ChannelStore for SimStore {
    fn publish<'a>(&'a self, _channel: &'a str, _message: Bytes) -> BoxFuture<'a, Result<u64>> {
        refused()
    }

    fn subscribe<'a>(&'a self, _channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        refused()
    }
}

impl HashStore for SimStore {
    fn hash_set<'a>(&'a self, _key: &'a str, _fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        refused()
    }

    fn hash_get<'a>(&'a self, _key: &'a str, _field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        refused()
    }

    fn hash_all<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        refused()
    }

    fn hash_keys<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        refused()
    }

    fn hash_remove<'a>(&'a self, _key: &'a str, _fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        refused()
    }

    fn hash_increment<'a>(&'a self, _key: &'a str, _field: &'a str, _by: i64) -> BoxFuture<'a, Result<i64>> {
        refused()
    }
}

impl SweepStore for SimStore {
    fn heads<'a>(&'a self, _prefix: &'a str, _from: u64) -> BoxFuture<'a, Result<(Heads, u64)>> {
        refused()
    }

    fn current<'a>(&'a self, _versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<VersionState>>> {
        refused()
    }

    fn remove_heads<'a>(&'a self, _heads: &'a Heads) -> BoxFuture<'a, Result<u64>> {
        refused()
    }
}
