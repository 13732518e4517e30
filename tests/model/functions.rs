//! The cached functions of a run, in two builds of one program. The later build has one more field
//! in its rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cache_core::fence::FenceBuilder;
use cache_core::options::Revalidated;
use cache_core::{Cache, EntryOptions, Key, cached};
use serde::{Deserialize, Serialize};

use super::history::{is_absent, is_unstored, owner_of};
use super::simulation::Run;

/// The number of functions. Each has two rows.
pub(super) const FUNCTIONS: usize = 9;

/// Does not wait for other processes.
pub(super) const ALONE: usize = 3;
/// Its entries have the tags `rows` and `row:<row>`.
pub(super) const TAGGED: usize = 4;
/// Its entries have the tag `owner:<owner>`, which depends on the value.
pub(super) const OF_AN_OWNER: usize = 5;
/// Read one by one and in batches. Some rows are absent at some versions.
pub(super) const LISTED: usize = 6;

/// Read by `ask`, which keeps an old value that is still current.
const ASKED: usize = 7;
/// Owns its arguments, and stores only some of its values.
pub(super) const PICKY: usize = 8;

/// The keys of the functions' versions, each of which the store may lose.
pub(super) const VERSION_KEYS: [&str; 17] = [
    "cache@version",
    "cache:here@version",
    "cache:shared@version",
    "cache:hurried@version",
    "cache:alone@version",
    "cache:tagged@version",
    "cache:of_an_owner@version",
    "cache:listed@version",
    "cache:asked@version",
    "cache:picky@version",
    "cache@tag:rows",
    "cache@tag:row:8",
    "cache@tag:row:9",
    "cache@tags:row",
    "cache@tag:owner:0",
    "cache@tag:owner:1",
    "cache@tags:owner",
];

/// The keys of the build registries of the functions.
pub(super) const REGISTRIES: [&str; FUNCTIONS] = [
    "{cache:here@version}:builds",
    "{cache:shared@version}:builds",
    "{cache:hurried@version}:builds",
    "{cache:alone@version}:builds",
    "{cache:tagged@version}:builds",
    "{cache:of_an_owner@version}:builds",
    "{cache:listed@version}:builds",
    "{cache:asked@version}:builds",
    "{cache:picky@version}:builds",
];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failed;

/// Fills L1. Its values are not checked.
#[cached(name = "crowd", ttl = 60, skip(cache), cache = cache)]
pub(super) async fn crowd(cache: &Cache, n: u64) -> u64 {
    let _ = cache;
    n
}

/// The build of the program that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Build {
    Old,
    New,
}

/// Converts between a row's value and its version; `None`: absent.
pub(super) trait Versioned: Sized {
    fn at(version: u64) -> Self;
    fn version(&self) -> Option<u64>;
}

impl<T: Versioned> Versioned for Option<T> {
    fn at(version: u64) -> Self {
        (!is_absent(version)).then(|| T::at(version))
    }

    fn version(&self) -> Option<u64> {
        self.as_ref().and_then(T::version)
    }
}

/// Evaluates an expression with the entry of a row, within a build.
macro_rules! with_entry {
    ($cache:ident, $row:ident, |$entry:ident| $work:expr) => {
        match $row / 2 {
            0 => with_entry!(here($row), $cache, $entry, $work),
            1 => with_entry!(shared($row), $cache, $entry, $work),
            2 => with_entry!(hurried($row), $cache, $entry, $work),
            ALONE => with_entry!(alone($row), $cache, $entry, $work),
            TAGGED => with_entry!(tagged($row), $cache, $entry, $work),
            OF_AN_OWNER => with_entry!(of_an_owner($row), $cache, $entry, $work),
            LISTED => with_entry!(listed($row), $cache, $entry, $work),
            ASKED => with_entry!(asked($row), $cache, $entry, $work),
            _ => with_entry!(picky($row), $cache, $entry, $work),
        }
    };
    ($name:ident($row:ident), $cache:ident, $entry:ident, $work:expr) => {{
        let $entry = $name::entry($row).on($cache);
        $work
    }};
}

macro_rules! build {
    ($build:ident, $name:ident, $($field:ident)?) => {
        pub(super) mod $build {
            use super::*;

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub(crate) struct Row {
                pub(crate) version: u64,
                owner: u64,
                $($field: String,)?
            }

            impl Versioned for Row {
                fn at(version: u64) -> Self {
                    Self { version, owner: owner_of(version), $($field: String::new(),)? }
                }

                fn version(&self) -> Option<u64> {
                    Some(self.version)
                }
            }

            async fn compute(run: &Run, row: usize) -> Result<Row, Failed> {
                run.compute(Build::$name, &[row]).await.map(|versions| Row::at(versions[0]))
            }

            /// Borrows its arguments: one caller runs it for all.
            #[cached(name = "here", ttl = 5, key = "{row}", skip(cache, run), cache = cache)]
            async fn here(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                compute(run, row).await
            }

            /// Owns its arguments: the run is shared by all waiting callers. Old values are served
            /// while the next one is computed.
            #[cached(name = "shared", ttl = 2, key = "{row}", skip(cache, run), cache = &cache, stale_while_revalidate = 4)]
            async fn shared(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                compute(&run, row).await
            }

            /// Old values are served if the function fails or takes long.
            #[cached(name = "hurried", ttl = 2, key = "{row}", skip(cache, run), cache = &cache, stale_if_error = 6, soft_timeout = "100ms")]
            async fn hurried(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                compute(&run, row).await
            }

            /// Does not wait for other processes.
            #[cached(name = "alone", ttl = 5, key = "{row}", skip(cache, run), cache = cache, single_flight = "process")]
            async fn alone(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                compute(run, row).await
            }

            /// Invalidated by the tags of its arguments, also while it is refreshed in the
            /// background.
            #[cached(name = "tagged", ttl = 2, key = "{row}", skip(cache, run), cache = &cache, tags("rows", "row:{row}"), stale_while_revalidate = 4)]
            async fn tagged(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                compute(&run, row).await
            }

            /// Invalidated by a tag of its value.
            #[cached(name = "of_an_owner", ttl = 2, key = "{row}", skip(cache, run), cache = &cache, tags("owner:{value.owner}"), stale_while_revalidate = 2, stale_if_error = 5)]
            async fn of_an_owner(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                compute(&run, row).await
            }

            /// Has the same entries as `all_listed`. Absent rows are stored too.
            #[cached(name = "listed", ttl = 3, negative_ttl = 2, skip(cache, run), cache = cache, stale_if_error = 4)]
            async fn listed(cache: &Cache, run: &Run, row: usize) -> Result<Option<Row>, Failed> {
                let versions = run.compute(Build::$name, &[row]).await?;
                Ok(Versioned::at(versions[0]))
            }

            #[cached(batch, name = "listed", ttl = 3, negative_ttl = 2, skip(cache, run), cache = cache, stale_if_error = 4)]
            async fn all_listed(cache: &Cache, run: &Run, rows: &[usize]) -> Result<BTreeMap<usize, Row>, Failed> {
                list(run, rows).await
            }

            async fn list(run: &Run, rows: &[usize]) -> Result<BTreeMap<usize, Row>, Failed> {
                let versions = run.compute(Build::$name, rows).await?;
                let rows = rows.iter().zip(versions);
                Ok(rows.filter_map(|(row, version)| Some((*row, Option::<Row>::at(version)?))).collect())
            }

            /// Has the entries of `ask`, which keeps an old value that is still current.
            #[allow(dead_code, reason = "its entry and its refresh are used")]
            #[cached(name = "asked", ttl = 2, skip(cache, run), cache = cache)]
            async fn asked(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                compute(run, row).await
            }

            async fn ask(cache: &Cache, run: &Run, row: usize) -> Result<Row, Failed> {
                let options = EntryOptions::new().ttl(Duration::from_secs(2)).stale_if_error(Duration::from_secs(4));
                let revalidate = |old: Option<Row>| async move {
                    let new = compute(run, row).await?;
                    Ok(match old {
                        Some(old) if old == new => {
                            run.state().reached.not_modified += 1;
                            Revalidated::NotModified(old)
                        }
                        _ => Revalidated::New(new),
                    })
                };
                let key = Key::new("asked").part(&row);
                cache.get_or_revalidate(key, &options, revalidate).await.map_err(|failed: Arc<Failed>| (*failed).clone())
            }

            /// Its value is stored at some versions of the row and not at others.
            #[cached(name = "picky", ttl = 2, key = "{row}", skip(cache, run), cache = &cache, cache_if = |row| !is_unstored(row.version))]
            async fn picky(cache: Cache, run: Run, row: usize) -> Result<Row, Failed> {
                compute(&run, row).await
            }

            /// Returns the version of a row; `None` if it is absent.
            pub(crate) async fn call(cache: &Cache, run: &Run, row: usize) -> Result<Option<u64>, Failed> {
                match row / 2 {
                    0 => here(cache, run, row).await,
                    1 => shared(cache.clone(), run.clone(), row).await,
                    2 => hurried(cache.clone(), run.clone(), row).await,
                    ALONE => alone(cache, run, row).await,
                    TAGGED => tagged(cache.clone(), run.clone(), row).await,
                    OF_AN_OWNER => of_an_owner(cache.clone(), run.clone(), row).await,
                    LISTED => return listed(cache, run, row).await.map(|row| row.version()),
                    ASKED => ask(cache, run, row).await,
                    _ => picky(cache.clone(), run.clone(), row).await,
                }
                .map(|row| row.version())
            }

            /// Returns the versions of some rows of [`LISTED`]. `by_hand`: without the attribute.
            pub(crate) async fn call_many(
                cache: &Cache,
                run: &Run,
                rows: &[usize],
                by_hand: bool,
            ) -> Result<Vec<(usize, Option<u64>)>, Failed> {
                let found = if by_hand {
                    let options = EntryOptions::new()
                        .ttl(Duration::from_secs(3))
                        .negative_ttl(Duration::from_secs(2))
                        .stale_if_error(Duration::from_secs(4));
                    let key = |row: &usize| Key::new("listed").part(row);
                    let compute = |rows: Vec<usize>| async move { list(run, &rows).await };
                    let found = cache.get_or_compute_many(rows, key, &options, compute).await;
                    found.map_err(|failed: Arc<Failed>| (*failed).clone())?
                } else {
                    all_listed(cache, run, rows).await?
                };
                Ok(rows.iter().map(|row| (*row, found.get(row).and_then(Versioned::version))).collect())
            }

            pub(crate) async fn refresh(cache: &Cache, run: &Run, row: usize) -> Result<Option<u64>, Failed> {
                match row / 2 {
                    0 => here::refresh(cache, run, row).await,
                    1 => shared::refresh(cache.clone(), run.clone(), row).await,
                    2 => hurried::refresh(cache.clone(), run.clone(), row).await,
                    ALONE => alone::refresh(cache, run, row).await,
                    TAGGED => tagged::refresh(cache.clone(), run.clone(), row).await,
                    OF_AN_OWNER => of_an_owner::refresh(cache.clone(), run.clone(), row).await,
                    LISTED => return listed::refresh(cache, run, row).await.map(|row| row.version()),
                    ASKED => asked::refresh(cache, run, row).await,
                    _ => picky::refresh(cache.clone(), run.clone(), row).await,
                }
                .map(|row| row.version())
            }

            /// Returns the cached value without computing; `None` if there is none.
            pub(crate) async fn peek(cache: &Cache, row: usize) -> cache_core::Result<Option<Option<u64>>> {
                with_entry!(cache, row, |entry| entry.get().await.map(|found| found.map(|row| row.version())))
            }

            pub(crate) async fn set(cache: &Cache, row: usize, version: u64) -> cache_core::Result<()> {
                with_entry!(cache, row, |entry| entry.set(Versioned::at(version)).await)
            }

            pub(crate) async fn invalidate(cache: &Cache, row: usize) -> cache_core::Result<()> {
                with_entry!(cache, row, |entry| entry.invalidate().await)
            }

            pub(crate) fn key(cache: &Cache, row: usize) -> String {
                with_entry!(cache, row, |entry| entry.key().to_owned())
            }

            pub(crate) fn fenced(cache: &Cache, row: usize, fence: FenceBuilder) -> FenceBuilder {
                with_entry!(cache, row, |entry| fence.entry(&entry))
            }

            pub(crate) async fn invalidate_all(cache: &Cache, row: usize) -> cache_core::Result<()> {
                match row / 2 {
                    0 => here::invalidate_all(cache).await,
                    1 => shared::invalidate_all(cache).await,
                    2 => hurried::invalidate_all(cache).await,
                    ALONE => alone::invalidate_all(cache).await,
                    TAGGED => tagged::invalidate_all(cache).await,
                    OF_AN_OWNER => of_an_owner::invalidate_all(cache).await,
                    LISTED => listed::invalidate_all(cache).await,
                    ASKED => asked::invalidate_all(cache).await,
                    _ => picky::invalidate_all(cache).await,
                }
            }
        }
    };
}

build!(old, Old,);
build!(new, New, title);
