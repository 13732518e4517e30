//! Somebody who uses the cache of one node: reads, and writes of every kind.

use std::time::Duration;

use cache_core::testing::sim::{MAX_STALENESS, Node};
use cache_core::{Cache, Result};

use super::functions::{Failed, OF_AN_OWNER, TAGGED, VERSION_KEYS, new, old};
use super::history::{Invalidation, Read, Violation, owner_of};
use super::simulation::Run;

/// No call takes longer than the longest run of the function and what may come before it.
const LONGEST_READ: Duration = Duration::from_secs(60);
/// How long a fence stands whose holder has died.
const FENCE_LIMIT: Duration = Duration::from_secs(4);
/// What a dropped lock or fence does in the background is sent, and is under way no longer than this.
const SENT_IN_BACKGROUND_MS: u64 = 1000;

/// Which build of the program a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    Old,
    New,
}

/// What an invalidation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Entry,
    /// By the tag of one row, or of all rows of the function.
    RowTag,
    RowsTag,
    /// By the tag of whoever has the row now.
    Owner(u64),
    Function,
    Everything,
}

/// One client.
pub(super) struct Client {
    pub(super) run: Run,
    pub(super) cache: Cache,
    pub(super) node: Node,
    pub(super) build: Build,
}

/// Names the functions of the client's build.
macro_rules! in_its_build {
    ($client:ident, |$build:ident| $work:expr) => {
        match $client.build {
            Build::Old => {
                use old as $build;
                $work
            }
            Build::New => {
                use new as $build;
                $work
            }
        }
    };
}

impl Client {
    pub(super) async fn go_on(self) {
        let world = self.run.world().clone();
        loop {
            world.pause(world.draw(300)).await;
            self.node.thaw().await;
            let rows = self.run.rows();
            let row = rows[world.draw(rows.len() as u64) as usize];
            let may_be_set = row % 2 == 1;
            match world.draw(23) {
                0..12 => self.read(row).await,
                12 => self.read_for_a_while(row).await,
                13 => self.peek(row).await,
                14 => self.refresh(row).await,
                15 if may_be_set => self.set(row).await,
                16 if may_be_set => {
                    if self.write_behind_a_fence(row).await == Holder::Died {
                        return;
                    }
                }
                15..=16 => self.delete_by_hand(row),
                17 => drop(self.run.state().history.commit(row)),
                18 => self.lose_a_version(),
                _ => self.invalidate(row).await,
            }
        }
    }

    async fn call(&self, row: usize) -> Result<u64, Failed> {
        in_its_build!(self, |build| build::call(&self.cache, &self.run, row).await.map(|row| row.version))
    }

    pub(super) async fn read(&self, row: usize) {
        let began = self.begin();
        match tokio::time::timeout(LONGEST_READ, self.call(row)).await {
            Ok(Ok(version)) => self.check(row, version, began, "read"),
            Ok(Err(Failed)) => {}
            Err(_elapsed) => {
                let what = format!("a read of row {row} on node {} that began at {} hangs", self.node.index(), began.0);
                self.run.state().violation.get_or_insert(Violation { what });
            }
        }
    }

    /// A caller that gives up.
    async fn read_for_a_while(&self, row: usize) {
        let patience = Duration::from_millis(self.run.world().draw(500));
        drop(tokio::time::timeout(patience, self.call(row)).await);
    }

    async fn peek(&self, row: usize) {
        let began = self.begin();
        let found = in_its_build!(self, |build| {
            build::entry(&self.cache, row).get().await.map(|row| row.map(|row| row.version))
        });
        if let Ok(Some(version)) = found {
            self.check(row, version, began, "peek");
        }
    }

    async fn refresh(&self, row: usize) {
        let began = self.begin();
        let refreshed =
            in_its_build!(self, |build| build::refresh(&self.cache, &self.run, row).await.map(|row| row.version));
        if let Ok(version) = refreshed {
            self.check(row, version, began, "refresh");
        }
    }

    /// Mostly after a change of the row.
    async fn invalidate(&self, row: usize) {
        let world = self.run.world();
        let (scope, changes) = (self.draw_scope(row), world.draw(4) > 0);
        let rows: Vec<usize> = self.run.rows().iter().copied().filter(|other| self.is_of(scope, row, *other)).collect();
        let Some(lock) = Lock::take(self, &rows) else { return };
        if changes {
            self.run.state().history.commit(row);
        }
        let versions: Vec<u64> = rows.iter().map(|row| self.run.state().history.version(*row)).collect();
        self.note(|| format!("invalidate {scope:?} of row {row}: rows {rows:?} at versions {versions:?}"));
        let done = match scope {
            Scope::Entry => in_its_build!(self, |build| build::entry(&self.cache, row).invalidate().await),
            Scope::RowTag => self.cache.invalidate_tag(format!("row:{row}")).await,
            Scope::RowsTag => self.cache.invalidate_tag("rows").await,
            Scope::Owner(owner) => self.cache.invalidate_tag(format!("owner:{owner}")).await,
            Scope::Function => in_its_build!(self, |build| build::invalidate_all(&self.cache, row).await),
            Scope::Everything => self.cache.clear().await,
        };
        lock.free();
        let owner = if let Scope::Owner(owner) = scope { Some(owner) } else { None };
        for (row, version) in rows.into_iter().zip(versions) {
            self.completed(row, version, owner, &done);
        }
        if done.is_ok() && scope != Scope::Entry {
            self.run.state().reached.wide_invalidations += 1;
        }
    }

    fn draw_scope(&self, row: usize) -> Scope {
        let world = self.run.world();
        match (world.draw(8), row / 2) {
            (0, _) => Scope::Everything,
            (1, _) => Scope::Function,
            (2..=3, TAGGED) => Scope::RowsTag,
            (4..=5, TAGGED) => Scope::RowTag,
            // Before the change: of whoever the row is taken from.
            (2..=5, OF_AN_OWNER) => Scope::Owner(owner_of(self.run.state().history.version(row))),
            _ => Scope::Entry,
        }
    }

    /// Whether an invalidation for the sake of `row` is one of `other` too.
    fn is_of(&self, scope: Scope, row: usize, other: usize) -> bool {
        match scope {
            Scope::Entry | Scope::RowTag => other == row,
            Scope::RowsTag | Scope::Owner(_) | Scope::Function => other / 2 == row / 2,
            Scope::Everything => true,
        }
    }

    async fn set(&self, row: usize) {
        let Some(lock) = Lock::take(self, &[row]) else { return };
        let version = self.run.state().history.commit(row);
        self.note(|| format!("set row {row} to version {version}"));
        let done = in_its_build!(self, |build| build::entry(&self.cache, row).set(build::Row::at(version)).await);
        if done.is_ok() {
            lock.free();
        }
        self.completed(row, version, None, &done);
    }

    /// A transaction: nothing from before its commit is stored while the fence stands, and nothing from before it is served once
    /// the fence is lifted. Now and then its process dies between the two.
    async fn write_behind_a_fence(&self, row: usize) -> Holder {
        let world = self.run.world();
        let Some(lock) = Lock::take(self, &[row]) else { return Holder::Lives };
        let (before, restarts, until) =
            (self.run.state().history.version(row), world.restarts(), world.now() + FENCE_LIMIT.as_millis() as u64);
        let by_tag = row / 2 == TAGGED && world.draw(2) == 0;
        self.note(|| format!("raise a fence on row {row} at version {before}, by tag: {by_tag}"));
        let fence = self.cache.fence().limit(FENCE_LIMIT);
        let fence = if by_tag {
            fence.tag(format!("row:{row}"))
        } else {
            in_its_build!(self, |build| fence.entry(&build::entry(&self.cache, row)))
        };
        let raised = fence.raise().await;
        self.completed(row, before, None, &raised);
        let Ok(fence) = raised else { return Holder::Lives };
        world.pause(self.run.duration().min(1000)).await;
        let version = self.run.state().history.commit(row);
        self.note(|| format!("commit row {row} at version {version} behind its fence"));
        // A fence on an entry does not stand where a build stores for the first time.
        let stands = world.restarts() == restarts && world.now() < until && (by_tag || !self.run.has_two_builds());
        if stands {
            let commit = Invalidation { row, version, owner: None, at: world.now(), node: None };
            self.run.state().history.completed(commit);
        }
        if world.draw(3) == 0 {
            self.run.state().reached.dead_holders += u64::from(stands);
            self.node.kill();
            return Holder::Died;
        }
        let lifted = fence.lift().await;
        if lifted.is_ok() {
            lock.free();
            self.run.state().reached.fences += 1;
        }
        self.completed(row, version, None, &lifted);
        Holder::Lives
    }

    fn delete_by_hand(&self, row: usize) {
        let world = self.run.world();
        // Of every build, as `redis-cli` would by a pattern.
        let keys = [old::entry(&self.cache, row).key().to_owned(), new::entry(&self.cache, row).key().to_owned()];
        let version = self.run.state().history.commit(row);
        self.note(|| format!("DEL of row {row} at version {version}"));
        keys.iter().for_each(|key| world.delete_by_hand(key));
        let done = Invalidation { row, version, owner: None, at: world.now(), node: None };
        self.run.state().history.completed(done);
    }

    /// The store gives a version up to make room.
    fn lose_a_version(&self) {
        let world = self.run.world();
        let key = VERSION_KEYS[world.draw(VERSION_KEYS.len() as u64) as usize];
        let now = world.now();
        // A fence on a tag stands there, and is lost with it.
        let is_fenced =
            |row: &usize| key == format!("cache@tag:row:{row}") && self.run.state().locked_until[*row] > now;
        if self.run.rows().iter().any(is_fenced) {
            return;
        }
        self.note(|| format!("{key} is evicted"));
        world.delete_by_hand(key);
    }

    fn begin(&self) -> (u64, usize) {
        (self.run.world().now(), self.run.state().history.known())
    }

    fn completed<T>(&self, row: usize, version: u64, owner: Option<u64>, done: &Result<T>) {
        let at = self.run.world().now();
        self.note(|| format!("row {row} at version {version}: {}", if done.is_ok() { "done" } else { "failed" }));
        let mut state = self.run.state();
        if done.is_ok() {
            state.reached.invalidations += 1;
            state.history.completed(Invalidation { row, version, owner, at, node: Some(self.node.index()) });
        } else {
            state.reached.failed_invalidations += 1;
        }
    }

    fn check(&self, row: usize, version: u64, (began, known): (u64, usize), what: &str) {
        self.note(|| format!("{what} of row {row}, begun at {began}: version {version}"));
        let read = Read { row, version, node: self.node.index(), began, known };
        let mut state = self.run.state();
        if let Some(violation) = state.history.check(&read, MAX_STALENESS.as_millis() as u64) {
            state.violation.get_or_insert(violation);
        }
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.run.world().note(|| format!("node {}: {}", self.node.index(), line()));
    }
}

/// What became of the process that held a fence.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Lives,
    Died,
}

/// Rows are locked while a value is set or a fence stands, as by a transaction: until that has returned, or, where it failed, until what
/// it sent can no longer arrive. A set that arrives late stores an old value rightly: it was asked to.
struct Lock<'a> {
    client: &'a Client,
    rows: Vec<usize>,
}

impl<'a> Lock<'a> {
    /// `None`: somebody else writes one of them. Of rows that are never set, nothing is locked.
    fn take(client: &'a Client, rows: &[usize]) -> Option<Self> {
        let now = client.run.world().now();
        let mut state = client.run.state();
        let rows: Vec<usize> = rows.iter().copied().filter(|row| row % 2 == 1).collect();
        if rows.iter().any(|row| state.locked_until[*row] > now) {
            return None;
        }
        rows.iter().for_each(|row| state.locked_until[*row] = u64::MAX);
        Some(Self { client, rows })
    }

    fn free(mut self) {
        let mut state = self.client.run.state();
        for row in std::mem::take(&mut self.rows) {
            state.locked_until[row] = 0;
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let arrived = self.client.node.arrived_by().max(self.client.run.world().now() + SENT_IN_BACKGROUND_MS) + 1;
        for row in &self.rows {
            self.client.run.state().locked_until[*row] = arrived;
        }
    }
}
