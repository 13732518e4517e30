//! Fences: they keep a key or a tag without a valid record while writes are in progress.

use std::sync::Arc;

use futures::future::BoxFuture;

#[cfg(feature = "redis")]
pub(crate) use self::layout::FENCES_MAX;
pub(crate) use self::set::{Before, Fences};
use super::Expiry;
use super::token::Token;
use super::values::Siblings;
use crate::error::Result;

pub(super) mod layout;
mod set;

/// The result of [`FenceStore::raise`].
#[derive(Debug)]
pub(crate) struct Raised {
    /// The known builds.
    pub(crate) builds: Vec<String>,
    /// One of the keys had too many fences to track this one separately: that key is fenced until
    /// the last of them would expire.
    pub(crate) crowded: bool,
}

/// Returns the key of the record that a fence has put aside. It is in the slot of the value key.
pub(crate) fn aside_key(key: &str) -> String {
    format!("{{{key}}}:f")
}

/// The operations on fences.
pub(crate) trait FenceStore: Send + Sync + 'static {
    /// Adds this fence to each of the siblings' keys, in one atomic step per key, and ends their
    /// leases. Fences that are already there stay. A record that is there is put aside, for no
    /// longer than each of the fences lasts.
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>>;

    /// Removes this fence from each of the siblings' keys, and unlinks the record put aside, the
    /// leases, and any content except other fences. Returns the known builds.
    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Removes this fence from each of these keys. If it was the last one, and none was lifted or
    /// expired before, the record put aside is restored with its old expiry.
    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>>;

    /// Gives each of these kinds a new version, then adds this fence to each of these tags, in this
    /// order, in one round trip. Fences that are already there stay. `true`: as
    /// [`Raised::crowded`].
    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>>;

    /// Replaces each of these versions, then removes this fence from each of these tags, in this
    /// order, in one round trip. A tag without other fences is then at none of the versions that it
    /// had.
    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>>;

    /// Gives each of these kinds a new version, then removes this fence from each of these tags, in
    /// this order, in one round trip. If it was the last one, and none was lifted or expired
    /// before, the tag gets back the version it had before all of them.
    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>>;
}
