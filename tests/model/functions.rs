//! The cached functions of a run, in two builds of one program: the later one has a field more in its rows.

use cache_core::{Cache, CachedEntry, cached};
use serde::{Deserialize, Serialize};

use super::history::owner_of;
use super::simulation::Run;

/// How many functions there are.
pub(super) const FUNCTIONS: usize = 6;

/// Its entries have the tags `rows` and `row:<row>`.
pub(super) const TAGGED: usize = 4;
/// Its entries have the tag `owner:<owner>`, which only the value tells.
pub(super) const OF_AN_OWNER: usize = 5;

/// Where their versions stand, each of which the store may lose.
pub(super) const VERSION_KEYS: [&str; 14] = [
    "cache@version",
    "cache:here@version",
    "cache:shared@version",
    "cache:hurried@version",
    "cache:alone@version",
    "cache:tagged@version",
    "cache:of_an_owner@version",
    "cache@tag:rows",
    "cache@tag:row:8",
    "cache@tag:row:9",
    "cache@tags:row",
    "cache@tag:owner:0",
    "cache@tag:owner:1",
    "cache@tags:owner",
];

#[derive(Debug, Clone)]
pub(super) struct Failed;

macro_rules! build {
    ($build:ident, $($field:ident)?) => {
        pub(super) mod $build {
            use super::*;

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub(crate) struct Row {
                pub(crate) version: u64,
                owner: u64,
                $($field: String,)?
            }

            impl Row {
                pub(crate) fn at(version: u64) -> Self {
                    Self { version, owner: owner_of(version), $($field: String::new(),)? }
                }
            }

            /// Borrows: run by its caller, for all.
            #[cached(name = "here", ttl = 5, key = "{row}", cache = cache)]
            async fn here(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                run.compute(row).await.map(Row::at)
            }

            /// Owns: driven by whoever waits. Old values are served while the next one is computed.
            #[cached(name = "shared", ttl = 2, key = "{row}", cache = &cache, stale_while_revalidate = 4)]
            async fn shared(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                run.compute(row).await.map(Row::at)
            }

            /// Old values are served where the function fails or takes long.
            #[cached(name = "hurried", ttl = 2, key = "{row}", cache = &cache, stale_if_error = 6, soft_timeout = "100ms")]
            async fn hurried(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                run.compute(row).await.map(Row::at)
            }

            /// Does not wait for other processes.
            #[cached(name = "alone", ttl = 5, key = "{row}", cache = cache, flight = "process")]
            async fn alone(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                run.compute(row).await.map(Row::at)
            }

            /// Found again by the tags of its arguments, also while it is refreshed in the background.
            #[cached(name = "tagged", ttl = 2, key = "{row}", cache = &cache, tags("rows", "row:{row}"), stale_while_revalidate = 4)]
            async fn tagged(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                run.compute(row).await.map(Row::at)
            }

            /// Found again by a tag of its value.
            #[cached(name = "of_an_owner", ttl = 2, key = "{row}", cache = &cache, tags("owner:{value.owner}"), stale_while_revalidate = 2, stale_if_error = 5)]
            async fn of_an_owner(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                run.compute(row).await.map(Row::at)
            }

            pub(crate) async fn call(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                match row / 2 {
                    0 => here(cache, run, row).await,
                    1 => shared(cache.clone(), run.clone(), row).await,
                    2 => hurried(cache.clone(), run.clone(), row).await,
                    3 => alone(cache, run, row).await,
                    TAGGED => tagged(cache.clone(), run.clone(), row).await,
                    _ => of_an_owner(cache.clone(), run.clone(), row).await,
                }
            }

            pub(crate) async fn refresh(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                match row / 2 {
                    0 => here::refresh(cache, run, row).await,
                    1 => shared::refresh(cache.clone(), run.clone(), row).await,
                    2 => hurried::refresh(cache.clone(), run.clone(), row).await,
                    3 => alone::refresh(cache, run, row).await,
                    TAGGED => tagged::refresh(cache.clone(), run.clone(), row).await,
                    _ => of_an_owner::refresh(cache.clone(), run.clone(), row).await,
                }
            }

            pub(crate) fn entry(cache: &Cache, row: usize) -> CachedEntry<Result<Row, Failed>> {
                match row / 2 {
                    0 => here::entry(row).on(cache),
                    1 => shared::entry(row).on(cache),
                    2 => hurried::entry(row).on(cache),
                    3 => alone::entry(row).on(cache),
                    TAGGED => tagged::entry(row).on(cache),
                    _ => of_an_owner::entry(row).on(cache),
                }
            }

            pub(crate) async fn invalidate_all(cache: &Cache, row: usize) -> cache_core::Result<()> {
                match row / 2 {
                    0 => here::invalidate_all(cache).await,
                    1 => shared::invalidate_all(cache).await,
                    2 => hurried::invalidate_all(cache).await,
                    3 => alone::invalidate_all(cache).await,
                    TAGGED => tagged::invalidate_all(cache).await,
                    _ => of_an_owner::invalidate_all(cache).await,
                }
            }
        }
    };
}

build!(old,);
build!(new, title);
