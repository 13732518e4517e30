//! A client of the cache of one node: reads, and writes of every kind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_core::session::SessionLayer;
use cache_core::testing::sim::{MAX_STALENESS, Node, local_weight};
use cache_core::{Cache, Result};

use super::counters;
use super::functions::{Build, Failed, LISTED, OF_AN_OWNER, PICKY, REGISTRIES, TAGGED, VERSION_KEYS, crowd, new, old};
use super::history::{Invalidation, Read, Rule, is_unstored, owner_of};
use super::simulation::{Op, Run, Subject, duration};

/// The longest call: the longest run of the function and what may precede it.
const LONGEST_CALL: Duration = Duration::from_secs(60);
/// The operation that writes behind a fence.
const A_FENCE: u64 = 16;
/// How long a fence lasts if its holder has died.
const FENCE_LIMIT: Duration = Duration::from_secs(4);
/// The longest time for which a background request of a dropped lock or fence is in transit.
const SENT_IN_BACKGROUND_MS: u64 = 1000;
/// The most waiters and outstanding operations of a process with so few clients.
const MOST_WAITERS: usize = 16;
const MOST_OUTSTANDING: usize = 100;

/// The scope of an invalidation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Entry,
    /// By the tag of one row, or of all rows of the function.
    RowTag,
    RowsTag,
    /// By the tag of the row's current owner.
    Owner(u64),
    Function,
    Everything,
}

/// One client.
pub(super) struct Client {
    pub(super) run: Run,
    pub(super) cache: Cache,
    pub(super) node: Node,
    build: Build,
    who: usize,
    /// The random stream of the current operation.
    stream: AtomicU64,
    sessions: SessionLayer,
}

/// Evaluates an expression with the functions of the client's build.
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
    pub(super) fn new(run: Run, cache: Cache, node: Node, build: Build, who: usize) -> Self {
        let sessions = counters::sessions(&cache);
        Self { run, cache, node, build, who, stream: AtomicU64::new(0), sessions }
    }

    pub(super) async fn go_on(self) {
        for n in 0.. {
            let op = Op { who: self.who, n };
            self.stream.store(op.stream(), Ordering::Relaxed);
            self.run.world().pause(self.draw(300)).await;
            self.node.thaw().await;
            let subjects = self.run.subjects();
            let (subject, kind) = (subjects[self.draw(subjects.len() as u64) as usize], self.draw(23));
            let kind = if self.run.is_about_fences() && self.draw(2) == 0 { A_FENCE } else { kind };
            if !self.run.performs(op) {
                continue;
            }
            let began = self.run.world().now();
            match tokio::time::timeout(LONGEST_CALL, Box::pin(self.operate(subject, kind))).await {
                Ok(Holder::Lives) => {}
                Ok(Holder::Died) => return,
                Err(_elapsed) => {
                    let what = format!("operation {op} on {subject:?}, node {}, begun at {began}", self.node.index());
                    self.run.violates(Rule::Hangs, format!("{what}, does not end"));
                }
            }
            self.check_bounds();
        }
    }

    /// C1, C5: checked after every operation.
    fn check_bounds(&self) {
        let (weight, most) = local_weight(&self.cache);
        let (waiters, outstanding) = (self.node.waiters(), self.node.outstanding());
        if weight > most || waiters > MOST_WAITERS || outstanding > MOST_OUTSTANDING {
            let what =
                format!("L1 weighs {weight} of {most}, {waiters} wait, {outstanding} operations are outstanding");
            self.run.violates(Rule::Bounds, format!("node {}: {what}", self.node.index()));
        }
    }

    async fn operate(&self, subject: Subject, kind: u64) -> Holder {
        if self.run.is_narrow() && self.draw(2) == 0 {
            self.run.state().reached.crowded += 1;
            crowd(&self.cache, self.draw(40)).await;
        }
        let row = match subject {
            Subject::Row(row) => row,
            Subject::Cell => {
                self.use_cell().await;
                return Holder::Lives;
            }
            Subject::Counters => {
                self.count().await;
                return Holder::Lives;
            }
            Subject::Account => {
                self.use_account().await;
                return Holder::Lives;
            }
        };
        let may_be_set = row % 2 == 1;
        match kind {
            12 => self.read_for_a_while(row).await,
            13 => self.peek(row).await,
            _ if self.run.is_calm() => self.read(row).await,
            0..12 => self.read(row).await,
            14 => self.refresh(row).await,
            15 if may_be_set => self.set(row).await,
            A_FENCE if may_be_set => return self.write_behind_a_fence(row).await,
            15..=16 => self.delete_by_hand(row),
            17 => drop(self.run.state().history.commit(row)),
            18 => self.evict(row),
            _ => self.invalidate(row).await,
        }
        Holder::Lives
    }

    /// Returns a random number below `limit` from the stream of the current operation.
    pub(super) fn draw(&self, limit: u64) -> u64 {
        self.run.world().draw_from(self.stream.load(Ordering::Relaxed), limit)
    }

    pub(super) fn sessions(&self) -> &SessionLayer {
        &self.sessions
    }

    async fn call(&self, row: usize) -> Result<Option<u64>, Failed> {
        in_its_build!(self, |build| build::call(&self.cache, &self.run, row).await)
    }

    pub(super) async fn read(&self, row: usize) {
        let began = self.begin();
        let rows = [row, row ^ 1];
        if row / 2 == LISTED && self.draw(2) == 0 {
            let by_hand = self.draw(2) == 0;
            let found = in_its_build!(self, |build| build::call_many(&self.cache, &self.run, &rows, by_hand).await);
            for (row, version) in found.unwrap_or_default() {
                self.run.state().reached.batches += 1;
                self.check(row, version, began, "read, of a batch,");
            }
        } else if let Ok(version) = self.call(row).await {
            self.check(row, version, began, "read");
            if row / 2 == PICKY && self.run.is_calm() {
                self.run.check_did_not_queue(self.build, row, began.0);
            }
        }
    }

    /// Reads as a caller that gives up after a while.
    async fn read_for_a_while(&self, row: usize) {
        let patience = Duration::from_millis(self.draw(500));
        drop(tokio::time::timeout(patience, self.call(row)).await);
    }

    async fn peek(&self, row: usize) {
        let began = self.begin();
        let found = in_its_build!(self, |build| build::peek(&self.cache, row).await);
        if let Ok(Some(version)) = found {
            self.check(row, version, began, "peek");
            // V5: the other row is also set explicitly, which stores any value.
            if row == 2 * PICKY && version.is_some_and(is_unstored) {
                let what = format!("version {version:?} of row {row} is found, and was not to be stored");
                self.run.violates(Rule::Unstored, what);
            }
        }
    }

    async fn refresh(&self, row: usize) {
        let began = self.begin();
        let refreshed = in_its_build!(self, |build| build::refresh(&self.cache, &self.run, row).await);
        if let Ok(version) = refreshed {
            self.check(row, version, began, "refresh");
        }
    }

    /// Invalidates, usually after a change of the row.
    async fn invalidate(&self, row: usize) {
        let (scope, changes) = (self.draw_scope(row), self.draw(4) > 0);
        let rows: Vec<usize> = self.run.rows().into_iter().filter(|other| self.is_of(scope, row, *other)).collect();
        let Some(lock) = Lock::take(self, &rows, Beside::Nobody) else { return };
        if changes {
            self.run.state().history.commit(row);
        }
        let versions: Vec<u64> = rows.iter().map(|row| self.run.state().history.version(*row)).collect();
        self.note(|| format!("invalidate {scope:?} of row {row}: rows {rows:?} at versions {versions:?}"));
        let done = match scope {
            Scope::Entry => in_its_build!(self, |build| build::invalidate(&self.cache, row).await),
            Scope::RowTag => self.cache.invalidate_tag(format!("row:{row}")).await,
            Scope::RowsTag => self.cache.invalidate_tag("rows").await,
            Scope::Owner(owner) => self.cache.invalidate_tag(format!("owner:{owner}")).await,
            Scope::Function => in_its_build!(self, |build| build::invalidate_all(&self.cache, row).await),
            Scope::Everything => self.cache.clear().await,
        };
        lock.free();
        let owner = if let Scope::Owner(owner) = scope { Some(owner) } else { None };
        for (row, version) in rows.into_iter().zip(versions) {
            let _number = self.completed(row, version, owner, &done);
        }
        if done.is_ok() && scope != Scope::Entry {
            self.run.state().reached.wide_invalidations += 1;
        }
    }

    fn draw_scope(&self, row: usize) -> Scope {
        match (self.draw(8), row / 2) {
            (0, _) => Scope::Everything,
            (1, _) => Scope::Function,
            (2..=3, TAGGED) => Scope::RowsTag,
            (4..=5, TAGGED) => Scope::RowTag,
            // The owner before the change, from whom the row is taken.
            (2..=5, OF_AN_OWNER) => Scope::Owner(owner_of(self.run.state().history.version(row))),
            _ => Scope::Entry,
        }
    }

    /// Returns whether an invalidation for `row` also covers `other`.
    fn is_of(&self, scope: Scope, row: usize, other: usize) -> bool {
        match scope {
            Scope::Entry | Scope::RowTag => other == row,
            Scope::RowsTag | Scope::Owner(_) | Scope::Function => other / 2 == row / 2,
            Scope::Everything => true,
        }
    }

    async fn set(&self, row: usize) {
        let Some(lock) = Lock::take(self, &[row], Beside::Nobody) else { return };
        let version = self.run.state().history.commit(row);
        self.note(|| format!("set row {row} to version {version}"));
        let done = in_its_build!(self, |build| build::set(&self.cache, row, version).await);
        if done.is_ok() {
            lock.free();
        }
        let _number = self.completed(row, version, None, &done);
    }

    /// Writes in a transaction behind a fence. No value from before the commit is stored while the
    /// fence is up, and none is served once it is lifted. Sometimes the process dies in between.
    /// Others may have their own fences on the same row. The end of one fence does not affect the
    /// others (R27).
    async fn write_behind_a_fence(&self, row: usize) -> Holder {
        let world = self.run.world();
        let Some(lock) = Lock::take(self, &[row], Beside::Fences) else { return Holder::Lives };
        let (before, restarts, began) = (self.run.state().history.version(row), world.restarts(), world.now());
        let until = began + FENCE_LIMIT.as_millis() as u64;
        let tag = match row / 2 {
            TAGGED => Some(format!("row:{row}")),
            // The owner from whom the row is taken.
            OF_AN_OWNER => Some(format!("owner:{}", owner_of(before))),
            _ => None,
        };
        let tag = tag.filter(|_| self.draw(2) == 0);
        let (by_tag, owner) = (tag.is_some(), (tag.is_some() && row / 2 == OF_AN_OWNER).then(|| owner_of(before)));
        self.note(|| format!("raise a fence on row {row} at version {before}, by tag: {tag:?}"));
        let fence = self.cache.fence().limit(FENCE_LIMIT);
        let fence = match tag {
            Some(tag) => fence.tag(tag),
            None => in_its_build!(self, |build| build::fenced(&self.cache, row, fence)),
        };
        let raised = fence.raise().await;
        let number = self.completed(row, before, owner, &raised);
        let (Ok(fence), Some(number)) = (raised, number) else { return Holder::Lives };
        if self.run.state().fenced[row] > 1 {
            self.run.state().reached.overlapping_fences += 1;
        }
        world.pause(duration(|limit| self.draw(limit)).min(1000)).await;
        if self.draw(5) == 0 {
            // The transaction was rolled back.
            self.run.state().history.withdrawn(number);
            let withdrawn = fence.withdraw().await;
            self.note(|| format!("withdraw the fence on row {row}: {}", withdrawn.is_ok()));
            if withdrawn.is_ok() {
                lock.free();
                self.run.state().reached.withdrawn += 1;
            }
            return Holder::Lives;
        }
        let version = self.run.state().history.commit(row);
        self.note(|| format!("commit row {row} at version {version} behind its fence"));
        // A fence on an entry does not cover a build that stores for the first time.
        let is_evicted = self.run.state().evicted_at[row].is_some_and(|at| at >= began);
        let reaches_all = by_tag || !self.run.has_two_builds();
        let stands = world.restarts() == restarts && world.now() < until && reaches_all && !is_evicted;
        if stands {
            let commit = Invalidation { row, version, owner, at: world.now(), node: None };
            self.run.state().history.completed(commit);
        }
        if self.draw(3) == 0 {
            self.run.state().reached.dead_holders += u64::from(stands);
            self.node.kill();
            return Holder::Died;
        }
        let lifted = fence.lift().await;
        if lifted.is_ok() {
            lock.free();
            self.run.state().reached.fences += 1;
        }
        let _number = self.completed(row, version, owner, &lifted);
        Holder::Lives
    }

    fn delete_by_hand(&self, row: usize) {
        let world = self.run.world();
        // Keys of every build, as `redis-cli` would delete them by a pattern.
        let keys = [old::key(&self.cache, row), new::key(&self.cache, row)];
        let version = self.run.state().history.commit(row);
        self.note(|| format!("DEL of row {row} at version {version}"));
        keys.iter().for_each(|key| world.delete_by_hand(key));
        let done = Invalidation { row, version, owner: None, at: world.now(), node: None };
        self.run.state().history.completed(done);
    }

    /// Evicts something from the store: a version, the registry of a function's builds, or an entry
    /// with its fence.
    fn evict(&self, row: usize) {
        let world = self.run.world();
        let now = world.now();
        match self.draw(8) {
            0..2 => {
                let mut state = self.run.state();
                state.evicted_at[row] = Some(now);
                state.reached.evicted_fences += u64::from(state.fenced[row] > 0);
                drop(state);
                self.note(|| format!("row {row} is evicted"));
                [old::key(&self.cache, row), new::key(&self.cache, row)]
                    .iter()
                    .for_each(|key| world.delete_by_hand(key));
            }
            2..4 if super::LOST_REGISTRIES => {
                let registry = REGISTRIES[row / 2];
                self.run.state().reached.evicted_registries += 1;
                self.note(|| format!("{registry} is evicted"));
                world.delete_by_hand(registry);
            }
            _ => self.lose_a_version(),
        }
    }

    fn lose_a_version(&self) {
        let world = self.run.world();
        let key = VERSION_KEYS[self.draw(VERSION_KEYS.len() as u64) as usize];
        let now = world.now();
        // A fence on a tag is stored in the tag's version and is lost with it.
        let is_on = |row: &usize| match row / 2 {
            OF_AN_OWNER => key.starts_with("cache@tag:owner:"),
            _ => key == format!("cache@tag:row:{row}"),
        };
        let mut state = self.run.state();
        state.reached.evicted_versions += 1;
        for row in self.run.rows().into_iter().filter(is_on) {
            state.evicted_at[row] = Some(now);
            state.reached.evicted_fences += u64::from(state.fenced[row] > 0);
        }
        drop(state);
        self.note(|| format!("{key} is evicted"));
        world.delete_by_hand(key);
    }

    fn begin(&self) -> (u64, usize) {
        (self.run.world().now(), self.run.state().history.known())
    }

    /// Records the invalidation if it succeeded. Returns its number in the history.
    fn completed<T>(&self, row: usize, version: u64, owner: Option<u64>, done: &Result<T>) -> Option<usize> {
        let at = self.run.world().now();
        self.note(|| format!("row {row} at version {version}: {}", if done.is_ok() { "done" } else { "failed" }));
        let mut state = self.run.state();
        if done.is_ok() {
            state.reached.invalidations += 1;
            let done = Invalidation { row, version, owner, at, node: Some(self.node.index()) };
            Some(state.history.completed(done))
        } else {
            state.reached.failed_invalidations += 1;
            None
        }
    }

    fn check(&self, row: usize, version: Option<u64>, (began, known): (u64, usize), what: &str) {
        self.note(|| format!("{what} of row {row}, begun at {began}: version {version:?}"));
        let read = Read { row, version, node: self.node.index(), began, known };
        let mut state = self.run.state();
        state.reached.absent += u64::from(version.is_none());
        let violation = state.history.check(&read, self.staleness(began));
        drop(state);
        if let Some(violation) = violation {
            self.run.violates(violation.rule, violation.what);
        }
    }

    /// Returns how old a value may be that is read here from `began` on. After the machine has
    /// slept, only the next heartbeat detects it.
    pub(super) fn staleness(&self, began: u64) -> u64 {
        if self.node.may_not_know_that_it_slept(began) { u64::MAX / 2 } else { MAX_STALENESS.as_millis() as u64 }
    }

    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let op = self.stream.load(Ordering::Relaxed) & u64::from(u32::MAX);
        self.run.world().note(|| format!("node {}, {}.{op}: {}", self.node.index(), self.who, line()));
    }
}

/// The fate of the process that held a fence.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Lives,
    Died,
}

/// The other writers that may write a row at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// Others that hold fences of their own.
    Fences,
}

/// Locks rows while a value is set or a fence is up, as a transaction would. The lock ends when the
/// call has returned. If the call failed, the lock ends when its node has settled it, or when no
/// message of a dead node can arrive. Holders of fences do not lock each other out.
struct Lock<'a> {
    client: &'a Client,
    rows: Vec<usize>,
    beside: Beside,
}

impl<'a> Lock<'a> {
    /// Returns `None` if another client writes one of the rows. Rows that are never set are not
    /// locked.
    fn take(client: &'a Client, rows: &[usize], beside: Beside) -> Option<Self> {
        let now = client.run.world().now();
        let mut state = client.run.state();
        let rows: Vec<usize> = rows.iter().copied().filter(|row| row % 2 == 1).collect();
        // The follow-up of a failed write is done, so nothing of that write can arrive (R26).
        let is_settled = |row: &usize| {
            let unsettled = &state.unsettled[*row];
            !unsettled.is_empty() && unsettled.iter().all(Node::is_settled)
        };
        let is_locked = |row: &usize| state.locked_until[*row] > now && !is_settled(row);
        let is_fenced = |row: &usize| beside == Beside::Nobody && state.fenced[*row] > 0;
        if rows.iter().any(|row| is_locked(row) || is_fenced(row)) {
            return None;
        }
        for row in &rows {
            match beside {
                Beside::Nobody => {
                    state.locked_until[*row] = u64::MAX;
                    state.unsettled[*row].clear();
                }
                Beside::Fences => state.fenced[*row] += 1,
            }
        }
        drop(state);
        Some(Self { client, rows, beside })
    }

    fn free(mut self) {
        let mut state = self.client.run.state();
        for row in std::mem::take(&mut self.rows) {
            match self.beside {
                Beside::Nobody => state.locked_until[row] = 0,
                Beside::Fences => state.fenced[row] -= 1,
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let arrived = self.client.node.arrived_by().max(self.client.run.world().now() + SENT_IN_BACKGROUND_MS) + 1;
        let mut state = self.client.run.state();
        for row in &self.rows {
            let until = &mut state.locked_until[*row];
            *until = if self.beside == Beside::Fences { arrived.max(*until) } else { arrived };
            state.unsettled[*row].push(self.client.node.clone());
            if self.beside == Beside::Fences {
                state.fenced[*row] -= 1;
            }
        }
    }
}
