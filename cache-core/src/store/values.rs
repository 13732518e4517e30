//! Value keys: what they hold, reads of it with or without its versions, and explicit writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::slot::{Slot, has_fill_id};
use super::versions::{DAY, Version, VersionStore};
use super::{Expiry, Reading};
use crate::error::Result;

/// The longest lifetime of a record, whatever its ttl. The registry of builds outlives it.
pub(crate) const RECORD_EXPIRY_MAX: Duration = DAY.saturating_mul(365);

/// The content of a value key, its versions in the order of their keys, and whether the listeners
/// are notified of the next change of each.
pub(crate) type Versioned = (Slot, Vec<Option<Version>>, bool);

/// The content of each key, the versions in the order of their keys, and whether changes of all of
/// it are notified.
pub(crate) type ReadMany = (Vec<Slot>, Vec<Option<Version>>, bool);

/// Resolves when the watched key may have changed, or when the store has lost track of it.
pub(crate) type Wake = BoxFuture<'static, ()>;

/// What an explicit write or removal changes in addition to its own key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Siblings<'a> {
    /// Value keys of the same entry in other builds. They and their lease keys are unlinked.
    pub keys: &'a [String],
    /// The function's registry of builds, read in the same round trip.
    pub builds: &'a str,
}

/// The operations on value keys.
pub(crate) trait ValueStore: VersionStore {
    /// Returns the slot if it can be read without waiting. Redis always returns `None`. The
    /// listeners are notified of its next change.
    fn read_now(&self, key: &str) -> Option<Slot>;

    /// Reads the key: one plain read, one round trip.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>>;

    /// Starts [`read_tracked`](Self::read_tracked) if `track`, else [`read`](Self::read). The
    /// request is sent at once. Made for hits, which should not need to allocate for it.
    fn begin_read<'a>(&'a self, key: &'a str, track: bool) -> Reading<'a> {
        Reading::Boxed(if track {
            self.read_tracked(key)
        } else {
            Box::pin(async move { self.read(key).await.map(|slot| (slot, false)) })
        })
    }

    /// Returns whether the record under the key has this fill id, without reading all of it. Does
    /// not track the key.
    fn holds<'a>(&'a self, key: &'a str, fill_id: u64) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let slot = self.read(key).await?;
            Ok(matches!(slot, Slot::Bytes(bytes) if has_fill_id(&bytes, fill_id)))
        })
    }

    /// Reads the key and tracks it: the listeners are notified of its next change. `false`: they
    /// may not be, so the value must not be kept.
    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>>;

    /// Like [`read_tracked`](Self::read_tracked), and also reads the versions under these keys in
    /// the same round trip. A missing version is made first, and one with little time left is
    /// renewed. `None`: it could not be made, or it is fenced; then no entry agrees with it.
    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>>;

    /// Reads the key and watches it. The wake-up resolves at the first change after the read, or
    /// when the store loses track (a lost connection), never too late. The watch is registered
    /// before the read is sent.
    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>>;

    /// Like [`read_versioned`](Self::read_versioned) for several values, in one round trip.
    ///
    /// `track`: changes of the values are to be notified; those of the versions are in any case.
    /// The `bool` says whether everything that was to be tracked is. A value of another type may
    /// look absent.
    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        Box::pin(read_each(self, keys, versions, track))
    }

    /// Marks these keys as used, so that the store does not evict them as cold. Changes nothing
    /// else.
    fn touch<'a>(&'a self, keys: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        let _in_use = keys;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Removes the content of the key if it still is exactly this. For bytes that are not a record.
    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>>;

    /// Writes unconditionally, ends every lease on the key, unlinks the siblings and returns the
    /// known builds.
    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Unlinks the siblings (which include the key itself) with their leases and the records put
    /// aside for fences. Returns the known builds.
    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>>;
}

/// Reads one key after the other, for stores without round trips to save.
async fn read_each<S: ValueStore + ?Sized>(
    store: &S,
    keys: &[Arc<str>],
    versions: &[Arc<str>],
    track: bool,
) -> Result<ReadMany> {
    // The versions first: values stored afterwards under older versions do not agree with them.
    let (found, mut tracked) =
        if versions.is_empty() { (Vec::new(), true) } else { store.read_versions(versions, true).await? };
    let mut slots = Vec::with_capacity(keys.len());
    for key in keys {
        if track {
            let (slot, told) = store.read_tracked(key).await?;
            tracked &= told;
            slots.push(slot);
        } else {
            slots.push(store.read(key).await?);
        }
    }
    Ok((slots, found, tracked))
}
