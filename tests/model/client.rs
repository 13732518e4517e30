//! Somebody who uses the cache of one node: reads, and writes of every kind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_core::session::SessionLayer;
use cache_core::testing::sim::{MAX_STALENESS, Node, local_weight};
use cache_core::{Cache, Result};

use super::counters;
use super::functions::{Build, Failed, LISTED, OF_AN_OWNER, PICKY, REGISTRIES, TAGGED, VERSION_KEYS, crowd, new, old};
use super::history::{Invalidation, Read, Rule, is_unstored, owner_of};
use super::simulation::{Op, Run, Subject, duration};

/// No call takes longer than the longest run of the function and what may come before it.
const LONGEST_CALL: Duration = Duration::from_secs(60);
/// How long a fence stands whose holder has died.
const FENCE_LIMIT: Duration = Duration::from_secs(4);
/// What a dropped lock or fence does in the background is sent, and is under way no longer than this.
const SENT_IN_BACKGROUND_MS: u64 = 1000;
/// A process with so few clients has no more waiters than these, nor more operations outstanding.
const MOST_WAITERS: usize = 16;
const MOST_OUTSTANDING: usize = 100;

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
    build: Build,
    who: usize,
    /// What is drawn for the operation under way.
    stream: AtomicU64,
    sessions: SessionLayer,
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

    /// C1, C5: after any operation.
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
            16 if may_be_set => return self.write_behind_a_fence(row).await,
            15..=16 => self.delete_by_hand(row),
            17 => drop(self.run.state().history.commit(row)),
            18 => self.evict(row),
            _ => self.invalidate(row).await,
        }
        Holder::Lives
    }

    /// A number below `limit`, of the operation under way.
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

    /// A caller that gives up.
    async fn read_for_a_while(&self, row: usize) {
        let patience = Duration::from_millis(self.draw(500));
        drop(tokio::time::timeout(patience, self.call(row)).await);
    }

    async fn peek(&self, row: usize) {
        let began = self.begin();
        let found = in_its_build!(self, |build| build::peek(&self.cache, row).await);
        if let Ok(Some(version)) = found {
            self.check(row, version, began, "peek");
            // V5: the other row is also set, which stores what it is given.
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

    /// Mostly after a change of the row.
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
        let Some(lock) = Lock::take(self, &[row], Beside::Nobody) else { return };
        let version = self.run.state().history.commit(row);
        self.note(|| format!("set row {row} to version {version}"));
        let done = in_its_build!(self, |build| build::set(&self.cache, row, version).await);
        if done.is_ok() {
            lock.free();
        }
        let _number = self.completed(row, version, None, &done);
    }

    /// A transaction: nothing from before its commit is stored while the fence stands, and nothing from before it is served once
    /// the fence is lifted. Now and then its process dies between the two. Others may stand behind
    /// fences of their own on the same
    /// row: the end of one says nothing of another's (R27).
    async fn write_behind_a_fence(&self, row: usize) -> Holder {
        let world = self.run.world();
        let Some(lock) = Lock::take(self, &[row], Beside::Fences) else { return Holder::Lives };
        let (before, restarts, began) = (self.run.state().history.version(row), world.restarts(), world.now());
        let until = began + FENCE_LIMIT.as_millis() as u64;
        let tag = match row / 2 {
            TAGGED => Some(format!("row:{row}")),
            // Of whoever the row is taken from.
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
            // It was rolled back.
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
        // A fence on an entry does not stand where a build stores for the first time.
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
        // Of every build, as `redis-cli` would by a pattern.
        let keys = [old::key(&self.cache, row), new::key(&self.cache, row)];
        let version = self.run.state().history.commit(row);
        self.note(|| format!("DEL of row {row} at version {version}"));
        keys.iter().for_each(|key| world.delete_by_hand(key));
        let done = Invalidation { row, version, owner: None, at: world.now(), node: None };
        self.run.state().history.completed(done);
    }

    /// The store gives something up to make room: a version, the registry of a function's builds,
    /// or an entry with its fence.
    fn evict(&self, row: usize) {
        let world = self.run.world();
        let now = world.now();
        match self.draw(8) {
            0..2 => {
                self.run.state().evicted_at[row] = Some(now);
                self.note(|| format!("row {row} is evicted"));
                [old::key(&self.cache, row), new::key(&self.cache, row)]
                    .iter()
                    .for_each(|key| world.delete_by_hand(key));
            }
            2..4 if super::LOST_REGISTRIES => {
                let registry = REGISTRIES[row / 2];
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
        // A fence on a tag stands there, and is lost with it.
        let is_on = |row: &usize| match row / 2 {
            OF_AN_OWNER => key.starts_with("cache@tag:owner:"),
            _ => key == format!("cache@tag:row:{row}"),
        };
        let fenced = self.run.rows().into_iter().filter(is_on);
        fenced.for_each(|row| self.run.state().evicted_at[row] = Some(now));
        self.note(|| format!("{key} is evicted"));
        world.delete_by_hand(key);
    }

    fn begin(&self) -> (u64, usize) {
        (self.run.world().now(), self.run.state().history.known())
    }

    /// Its number in the history, if it was done.
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

    /// How old a value may be that is read here from `began` on. After the machine has slept, its
    /// next heartbeat tells.
    pub(super) fn staleness(&self, began: u64) -> u64 {
        if self.node.may_not_know_that_it_slept(began) { u64::MAX / 2 } else { MAX_STALENESS.as_millis() as u64 }
    }

    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let op = self.stream.load(Ordering::Relaxed) & u64::from(u32::MAX);
        self.run.world().note(|| format!("node {}, {}.{op}: {}", self.node.index(), self.who, line()));
    }
}

/// What became of the process that held a fence.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Lives,
    Died,
}

/// Beside whom a writer may write a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// Others who stand behind fences of their own.
    Fences,
}

/// Rows are locked while a value is set or a fence stands, as by a transaction: until that has returned, or, where it failed, until its
/// node has settled it, or what a dead node sent can no longer arrive. Those who stand behind
/// fences do not lock each other out.
struct Lock<'a> {
    client: &'a Client,
    rows: Vec<usize>,
    beside: Beside,
}

impl<'a> Lock<'a> {
    /// `None`: somebody else writes one of them. Of rows that are never set, nothing is locked.
    fn take(client: &'a Client, rows: &[usize], beside: Beside) -> Option<Self> {
        let now = client.run.world().now();
        let mut state = client.run.state();
        let rows: Vec<usize> = rows.iter().copied().filter(|row| row % 2 == 1).collect();
        // What a write that failed was followed by is done: nothing of it arrives any more (R26).
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
