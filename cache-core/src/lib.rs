//! Read-through caching for async Rust services.

mod background;
mod builder;
mod builds;
mod cache;
pub mod clock;
pub mod codec;
mod coherence;
mod entry;
mod envelope;
mod error;
pub mod events;
mod fingerprint;
mod freshness;
#[cfg(test)]
mod golden;
mod key;
mod lease;
mod local;
mod object;
mod options;
mod plain;
mod random;
mod read_through;
mod refresh;
mod shape;
mod single_flight;
mod store;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod store_testing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use builder::{CACHE_URL, CacheBuilder};
pub use cache::Cache;
/// ```
/// # use std::{io, sync::Arc};
/// use cache_core::{Cache, cached};
///
/// # struct Db;
/// # impl Db { async fn posts(&self, _author: i64) -> Result<Vec<String>, io::Error> { Ok(vec![]) } }
/// #[cached(ttl = "1d", skip(db))]
/// async fn posts_by(db: &Db, author: i64) -> Result<Arc<Vec<String>>, io::Error> {
///     Ok(Arc::new(db.posts(author).await?))
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let db = Db;
/// posts_by(&db, 7).await?;                       // runs
/// posts_by(&db, 7).await?;                       // is served
/// posts_by::entry(7).invalidate().await?;        // typed by the arguments in the key
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
#[cfg(feature = "macros")]
pub use cache_macros::cached;
#[cfg(feature = "macros")]
pub use cache_macros::{CacheObject, KeyPart};
pub use entry::{Bare, CachedEntry, UnboundEntry};
pub use error::{DeadlineExceeded, Error, ErrorKind, Result};
pub use key::{Key, KeyPart, KeyWriter, MAX_KEY_LEN};
pub use object::{CacheObject, Objects};
pub use options::{Deadline, EntryOptions, FlightScope, LocalTier, RefreshBy};
pub use plain::{PlainHash, PlainValues};
pub use shape::{CacheValue, ShareError, SharedError};
