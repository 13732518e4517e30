//! Read-through caching for async Rust services.
//!
//! [`#[cached]`](macro@cached) on an async function stores its return value under a key made from
//! its arguments: in Redis, or in the process if there is no Redis. Concurrent callers of one key
//! share one run, across all processes. An invalidation also ends the run in progress. An error of
//! the cache never becomes the caller's error.
//!
//! ```
//! use cache_core::cached;
//!
//! #[cached(ttl = "1h")]
//! async fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), cache_core::Error> {
//!     assert_eq!(square(12).await, 144); // runs the function
//!     assert_eq!(square(12).await, 144); // does not
//!     square::entry(12).invalidate().await
//! }
//! ```
//!
//! | for | see |
//! |---|---|
//! | making a cache | [`Cache::connect`], [`Cache::from_env`], [`Cache::in_memory`] |
//! | its settings | [`CacheBuilder`] |
//! | the entries of a function | [`CachedEntry`], [`entry`] |
//! | caching without the attribute | [`Cache::get_or_compute`], [`Cache::get_or_compute_many`] |
//! | its keys and options | [`Key`], [`EntryOptions`], [`options`] |
//! | arguments and values | [`KeyPart`], [`value`], [`codec`] |
//! | objects that cannot be computed again | [`object`] |
//! | values shared with programs in other languages | [`plain`] |
//! | observability | [`events`], [`Cache::stats`], [`Cache::function_stats`], [`why`] |
//! | a page for each feature, with its limits | [`docs`] |
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `macros` | yes | the attribute and the derives |
//! | `redis` | yes | `redis://` and `redis+unix://` |
//! | `bincode` | yes | the default codec; without it the default is postcard |
//! | `tracing` | yes | logs events |
//! | `tls` | no | `rediss://` |
//! | `uuid`, `chrono`, `time`, `jiff` | no | [`KeyPart`] for the types of these crates |
//! | `sqlx` | no | [`ShareError`](value::ShareError) for `sqlx::Error`: waiters get the same variant |
//! | `sessions` | no | [`session`]: web sessions as a tower layer |
//! | `axum` | no | extractors for sessions |
//! | `testing` | no | a manual clock, and caches that share a store, for tests |

#![cfg_attr(not(feature = "redis"), allow(dead_code, reason = "needed only by a store outside this process"))]

mod background;
mod builder;
mod cache;
mod call;
mod cell;
pub mod clock;
mod coordination;
mod engine;
pub mod entry;
pub mod error;
pub mod fence;
#[cfg(test)]
mod golden;
pub mod key;
mod local;
mod mutants;
pub mod object;
mod observe;
pub mod options;
pub mod plain;
mod random;
mod recent;
#[cfg(feature = "sessions")]
pub mod session;
#[cfg_attr(not(any(feature = "sessions", feature = "testing")), allow(dead_code, reason = "needed only by sessions"))]
mod store;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod store_testing;
pub mod sweep;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod value;
mod versions;
pub mod why;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use builder::CacheBuilder;
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
/// posts_by(&db, 7).await?;                       // cached
/// posts_by::entry(7).invalidate().await?;        // typed by the arguments in the key
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
#[cfg(feature = "macros")]
pub use cache_macros::cached;
#[cfg(feature = "macros")]
pub use cache_macros::{KeyPart, invalidates};
pub use entry::CachedEntry;
pub use error::{Error, ErrorKind, Result};
pub use fence::Fence;
pub use key::{Key, KeyPart};
pub use options::EntryOptions;
pub use value::codec;

/// Events and counters, for logs, metrics and tests.
///
/// Events carry names of functions and kinds of failures; never keys, payloads or credentials.
pub mod events {
    pub use crate::observe::events::{Event, Observer, StaleCause, Stats, Table};
    #[cfg(feature = "sessions")]
    pub use crate::observe::events::{SessionEvent, SessionStats};
    pub use crate::observe::function_stats::FunctionStats;
}

#[doc = include_str!("../docs/README.md")]
#[cfg(any(doc, doctest))]
pub mod docs {
    #[doc = include_str!("../docs/options.md")]
    pub mod options {}
    #[doc = include_str!("../docs/keys.md")]
    pub mod keys {}
    #[doc = include_str!("../docs/single-flight.md")]
    pub mod single_flight {}
    #[doc = include_str!("../docs/local.md")]
    pub mod local {}
    #[doc = include_str!("../docs/freshness.md")]
    pub mod freshness {}
    #[doc = include_str!("../docs/values-and-ttl.md")]
    pub mod values_and_ttl {}
    #[doc = include_str!("../docs/codecs.md")]
    pub mod codecs {}
    #[doc = include_str!("../docs/batch.md")]
    pub mod batch {}
    #[doc = include_str!("../docs/entries.md")]
    pub mod entries {}
    #[doc = include_str!("../docs/tags.md")]
    pub mod tags {}
    #[doc = include_str!("../docs/fence.md")]
    pub mod fence {}
    #[doc = include_str!("../docs/objects.md")]
    pub mod objects {}
    #[doc = include_str!("../docs/plain.md")]
    pub mod plain {}
    #[cfg(feature = "axum")]
    #[doc = include_str!("../docs/sessions.md")]
    pub mod sessions {}
    #[cfg(feature = "sessions")]
    #[doc = include_str!("../docs/sessions-express.md")]
    pub mod sessions_express {}
    #[doc = include_str!("../docs/failure.md")]
    pub mod failure {}
    #[doc = include_str!("../docs/events.md")]
    pub mod events {}
    #[doc = include_str!("../docs/why.md")]
    pub mod why {}
    #[doc = include_str!("../docs/url.md")]
    pub mod url {}
    #[doc = include_str!("../docs/acl.md")]
    pub mod acl {}
    #[doc = include_str!("../docs/production.md")]
    pub mod production {}
    #[doc = include_str!("../docs/testing.md")]
    pub mod testing {}
    #[doc = include_str!("../docs/blog.md")]
    pub mod blog {}
    #[doc = include_str!("../docs/comparison.md")]
    pub mod comparison {}
    #[doc = include_str!("../docs/peers.md")]
    pub mod peers {}
    #[cfg(feature = "axum")]
    #[doc = include_str!("../docs/migration.md")]
    pub mod migration {}
    #[doc = include_str!("../docs/promises.md")]
    pub mod promises {}
    #[doc = include_str!("../docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("../docs/design.md")]
    pub mod design {}
    #[cfg(doctest)]
    #[doc = include_str!("../../README.md")]
    pub mod readme {}
}
