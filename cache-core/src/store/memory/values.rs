//! Value keys: reads, waiting for a change, and explicit writes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};

use super::MemoryStore;
use super::shard::Value;
use crate::error::Result;
use crate::observe::events::Table;
use crate::store::{Expiry, Siblings, Slot, ValueStore, Versioned, Wake, aside_key, lease_key};

/// How long a waiter sleeps if too many wait already.
const POLL: Duration = Duration::from_millis(100);

impl ValueStore for MemoryStore {
    fn read_now(&self, key: &str) -> Option<Slot> {
        self.with(key, |access| Ok(access.slot(key))).ok()
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>> {
        self.ready(key, |access| Ok(access.slot(key)))
    }

    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>> {
        // Listeners are notified of every change here.
        self.ready(key, |access| Ok((access.slot(key), true)))
    }

    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>> {
        let read = || Ok((self.versions(versions, true)?, self.with(key, |access| Ok(access.slot(key)))?));
        Box::pin(future::ready(read().map(|(versions, slot)| (slot, versions, true))))
    }

    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>> {
        let waiter = self.pushes.register(key);
        let read = self.with(key, |access| {
            let slot = access.slot(key);
            Ok((slot, access.left(key)))
        });
        Box::pin(future::ready(read.map(|(slot, left)| {
            // Expiry has no effect until a caller reads the key, so the waiter has its own timer.
            let ended = left.map(|left| self.clock.sleep(left));
            let events = self.events.clone();
            let wake = async move {
                match (waiter, ended) {
                    (Some(waiter), Some(ended)) => drop(future::select(waiter, pin!(ended)).await),
                    (Some(waiter), None) => waiter.await,
                    // Too many wait already: this one polls.
                    (None, _) => {
                        events.table_full(Table::Waiters);
                        tokio::time::sleep(POLL).await;
                    }
                }
            };
            (slot, wake.boxed())
        })))
    }

    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| {
            if access.slot(key) == *what {
                access.remove(key);
            }
            Ok(())
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        let written = self.with(key, |access| {
            access.put(key, Value::Bytes(record), Some(expiry));
            access.remove(&lease_key(key));
            Ok(())
        });
        match written {
            // If the own key is among the siblings, it holds the new record.
            Ok(()) => self.unlink(siblings, Some(key)),
            Err(error) => Box::pin(future::ready(Err(error))),
        }
    }

    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        self.unlink(siblings, None)
    }
}

impl MemoryStore {
    /// Unlinks all siblings except `but`, with their leases and the records put aside. Returns the
    /// known builds.
    fn unlink<'a>(&self, siblings: Siblings<'a>, but: Option<&str>) -> BoxFuture<'a, Result<Vec<String>>> {
        for key in siblings.keys.iter().filter(|key| Some(key.as_str()) != but) {
            let removed = self.with(key, |access| {
                access.remove(key);
                access.remove(&lease_key(key));
                access.remove(&aside_key(key));
                Ok(())
            });
            if let Err(error) = removed {
                return Box::pin(future::ready(Err(error)));
            }
        }
        Box::pin(future::ready(self.builds(siblings.builds)))
    }
}
