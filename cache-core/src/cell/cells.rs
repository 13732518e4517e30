//! The store operations of cells, and one attempt to write a cell.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::store::cells::{Limit, OverLimit};
use crate::store::{CellStore, Entered, Entering, Kind as Listed, Loaded, Replaced, Replacing, Swapped, Tombstone};

/// What to write in one step.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) key: String,
    pub(crate) bytes: Bytes,
    /// `None`: without expiry, or keeping the current expiry.
    pub(crate) ttl: Option<Duration>,
    /// The key and the bytes that the change was made from. If this is another key, it is deleted
    /// in the same step. `None`: the cell is new.
    pub(crate) over: Option<(String, Bytes)>,
    /// An entry in an index in the same slot.
    pub(crate) with: Option<Entry>,
    /// Keys deleted in the same step. Used only together with an entry.
    pub(crate) deletes: Vec<String>,
    /// A mark for a key that ends in this step.
    pub(crate) mark: Option<Marked>,
}

/// A key that exists for this long to record that another key has ended.
pub(crate) struct Marked {
    pub(crate) key: String,
    pub(crate) lasts: Duration,
}

/// A member of an index.
pub(crate) struct Entry {
    pub(crate) index: String,
    pub(crate) member: String,
    pub(crate) lasts: Duration,
    /// Index and member of an entry that is removed in the same step.
    pub(crate) leaves: Option<(String, String)>,
    /// The largest number of members that may be in the index.
    pub(crate) limit: Option<(usize, OverLimit)>,
}

/// The result of one attempt.
pub(crate) enum Put {
    Done,
    /// These bytes are stored instead of the expected ones.
    Conflict(Bytes),
    /// Something else is stored, or nothing: a look is needed.
    Look,
    /// The key that was to be created exists.
    Taken,
    /// The index is full.
    Full,
}

/// A store of cells, and what waiting for it needs.
pub(crate) struct Cells {
    store: Arc<dyn CellStore>,
    clock: Clock,
    background: Arc<Background>,
}

impl Cells {
    pub(crate) fn new(store: Arc<dyn CellStore>, clock: Clock, background: Arc<Background>) -> Self {
        Self { store, clock, background }
    }

    /// Returns the store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Loads the bytes under a key and their remaining time.
    pub(crate) async fn load(&self, key: &str) -> Result<Option<Loaded>> {
        self.store.load(key).await
    }

    /// Like [`load`](Self::load), and also whether the mark exists, in one round trip.
    pub(crate) async fn load_marked(&self, key: &str, mark: &str) -> Result<(Option<Loaded>, bool)> {
        self.store.load_marked(key, mark).await
    }

    /// Creates a key. Returns `false` if it exists.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes, ttl: Option<Duration>) -> Result<bool> {
        self.store.create(key, bytes, ttl).await
    }

    /// Sets the remaining time of a key. Returns `false` if it does not exist.
    pub(crate) async fn touch(&self, key: &str, ttl: Duration) -> Result<bool> {
        self.store.expire(key, Some(ttl)).await
    }

    /// Writes the mark and then removes the key. Returns `false` if the key did not exist.
    pub(crate) async fn remove(&self, key: &str, mark: Option<&Marked>) -> Result<bool> {
        match mark {
            Some(mark) => self.store.delete_marked(key, mark.lend()).await,
            None => self.store.delete(key).await,
        }
    }

    /// Returns the members of an index with the time when each ends, the earliest first.
    pub(crate) async fn members(&self, index: &str) -> Result<Vec<(String, Timestamp)>> {
        self.store.index_members(index).await
    }

    /// Adds a member, or extends its life, for this long.
    pub(crate) async fn enter(&self, index: &str, member: &str, lasts: Duration) -> Result<()> {
        self.store.index_put(index, member, lasts).await
    }

    pub(crate) async fn leave(&self, index: &str, members: &[String]) -> Result<()> {
        self.store.index_remove(index, members).await.map(drop)
    }

    /// Returns whether [`list`](Self::list) is supported.
    pub(crate) fn lists(&self) -> bool {
        self.store.lists()
    }

    /// Returns some keys that begin with `prefix`, and the cursor for the next call. Begin with
    /// zero; a returned zero means the end.
    pub(crate) async fn list(&self, prefix: &str, what: Listed, from: u64) -> Result<(Vec<String>, u64)> {
        self.store.list(prefix, what, from).await
    }

    /// Waits for a step for at most the time in `left`, and subtracts the time it took. Returns
    /// `None` if the time ran out; the step is then dropped. A store in this process has no limit.
    pub(crate) async fn within<T>(&self, left: &mut Duration, step: impl Future<Output = T> + Send) -> Option<T> {
        if self.store.reads_synchronously() {
            return Some(step.await);
        }
        let watch = self.clock.start();
        let result = tokio::select! {
            biased;
            done = step => Some(done),
            () = watch.reaches(*left) => None,
        };
        *left = left.saturating_sub(watch.elapsed());
        result
    }

    /// Runs the work in its own task, so that it continues if the caller goes away. Without a
    /// runtime it runs inline.
    pub(super) async fn apart(&self, work: BoxFuture<'static, ()>) {
        if let Err(work) = self.background.run(work) {
            work.await;
        }
    }

    /// Makes one attempt to write. Also returns the keys that were ended to make room.
    pub(super) async fn attempt(&self, draft: &Draft) -> Result<(Put, Vec<String>)> {
        let Draft { key, bytes, ttl, over, with, deletes, mark } = draft;
        let store = &self.store;
        let mark = mark.as_ref().map(Marked::lend);
        let Some(entry) = with else {
            let put = match over {
                Some((from, expected)) if from == key => {
                    match store.swap(key, expected.clone(), bytes.clone(), *ttl).await? {
                        Swapped::Done => Put::Done,
                        Swapped::Conflict(found) => Put::Conflict(found),
                        Swapped::Gone => Put::Look,
                    }
                }
                Some((from, expected)) => {
                    let replacing = Replacing { old: from, expected, key, bytes, expiry: *ttl, mark };
                    match store.replace(replacing).await? {
                        Replaced::Done => Put::Done,
                        Replaced::Taken => Put::Taken,
                        Replaced::Conflict | Replaced::Gone => Put::Look,
                    }
                }
                None if store.create(key, bytes.clone(), *ttl).await? => Put::Done,
                None => Put::Taken,
            };
            return Ok((put, Vec::new()));
        };
        let entering = Entering {
            key,
            bytes,
            expiry: *ttl,
            over: over.as_ref().map(|(from, expected)| (from.as_str(), expected)),
            deletes,
            index: &entry.index,
            member: &entry.member,
            lasts: entry.lasts,
            leaves: entry.leaves.as_ref().map(|(index, member)| (index.as_str(), member.as_str())),
            // Members are keys, so there is no prefix.
            limit: entry.limit.map(|(most, then)| Limit { prefix: "", most, then }),
            mark,
        };
        let stays = over.as_ref().is_some_and(|(from, _)| from == key);
        Ok(match store.enter(entering).await? {
            Entered::Done(ended) => (Put::Done, ended),
            Entered::Conflict(found) if stays => (Put::Conflict(found), Vec::new()),
            Entered::Conflict(_) | Entered::Gone => (Put::Look, Vec::new()),
            Entered::Taken => (Put::Taken, Vec::new()),
            Entered::Full => (Put::Full, Vec::new()),
        })
    }
}

impl Marked {
    fn lend(&self) -> Tombstone<'_> {
        Tombstone { key: &self.key, lasts: self.lasts }
    }
}
