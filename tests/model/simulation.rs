//! One run: clients on several nodes read and invalidate a few rows while links and nodes fail.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cache_core::testing::sim::{Guard, MAX_STALENESS, Node, World, without};
use cache_core::{Cache, cached};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::history::{History, Violation};

/// Rows by how they are cached: four functions, each with an id that is only invalidated and one that is also set.
const ROWS: usize = 8;
const NODES: usize = 3;
const CLIENTS: usize = 2;
/// How long clients and failures go on, in milliseconds.
const RUN_MS: u64 = 20_000;
/// No call takes longer than the longest run of the function and what may come before it.
const LONGEST_READ: Duration = Duration::from_secs(60);

/// What a run came to.
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) trace: Vec<String>,
    pub(super) reached: Reached,
}

/// How often what the rule is about has happened.
#[derive(Debug, Default, Clone)]
pub(super) struct Reached {
    pub(super) local_hits: u64,
    pub(super) hits: u64,
    pub(super) refused_fills: u64,
    pub(super) joined: u64,
    pub(super) waited: u64,
    pub(super) renewals: u64,
    pub(super) refreshes: u64,
    pub(super) store_failures: u64,
    pub(super) invalidations: u64,
    pub(super) failed_invalidations: u64,
}

impl Reached {
    pub(super) fn add(&mut self, other: &Self) {
        self.local_hits += other.local_hits;
        self.hits += other.hits;
        self.refused_fills += other.refused_fills;
        self.joined += other.joined;
        self.waited += other.waited;
        self.renewals += other.renewals;
        self.refreshes += other.refreshes;
        self.store_failures += other.store_failures;
        self.invalidations += other.invalidations;
        self.failed_invalidations += other.failed_invalidations;
    }

    fn add_stats(&mut self, cache: &Cache) {
        let stats = cache.stats();
        self.local_hits += stats.local_hits;
        self.hits += stats.hits;
        self.refused_fills += stats.refused_fills;
        self.joined += stats.joined;
        self.waited += stats.waited;
        self.renewals += stats.renewals;
        self.refreshes += stats.refreshes;
        self.store_failures += stats.store_failures;
    }

    pub(super) fn is_everything(&self) -> bool {
        let Self { local_hits, hits, refused_fills, joined, waited, renewals, refreshes, .. } = *self;
        let counts = [local_hits, hits, refused_fills, joined, waited, renewals, refreshes, self.store_failures];
        counts.into_iter().chain([self.invalidations, self.failed_invalidations]).all(|count| count > 50)
    }
}

/// Runs a seed, on this thread.
pub(super) fn simulate(seed: u64, guard: Option<Guard>, trace: bool) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    without(guard, || {
        let outcome = runtime.block_on(run(seed, trace));
        // What is left over ends while the guard is still removed.
        drop(runtime);
        outcome
    })
}

async fn run(seed: u64, trace: bool) -> Outcome {
    let world = World::new(seed, trace);
    let run = Run(Arc::new(Shared { world: world.clone(), state: Mutex::new(State::new()), rows: draw_rows(&world) }));
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.drive().await }
    });
    let mut processes: Vec<Process> = (0..NODES).map(|_| Process::start(&run)).collect();
    let faults = Faults::draw(&world);
    while world.now() < RUN_MS && run.state().violation.is_none() {
        world.pause(200 + world.draw(2000)).await;
        let which = world.draw(NODES as u64) as usize;
        let process = &mut processes[which];
        match world.draw(8) {
            0..=2 if faults.cuts => process.node.cut(),
            3..=4 if faults.stalls => process.node.stall(),
            5 if faults.freezes => process.node.freeze(),
            6 if faults.deaths => {
                process.kill(&run);
                *process = Process::start(&run);
            }
            7 if faults.restarts && world.draw(3) == 0 => world.restart_store(),
            _ => {}
        }
    }
    for process in &mut processes {
        process.clients.abort_all();
    }
    // Whatever has happened: every node answers.
    if run.state().violation.is_none() {
        for process in &processes {
            for row in &run.0.rows {
                let client = Client { run: run.clone(), cache: process.cache.clone(), node: process.node.clone() };
                client.read(*row).await;
            }
        }
    }
    driver.abort();
    for process in &processes {
        run.state().reached.add_stats(&process.cache);
    }
    let mut state = run.state();
    Outcome { violation: state.violation.take(), trace: world.trace(), reached: state.reached.clone() }
}

/// Two rows: few, so that what happens meets.
fn draw_rows(world: &World) -> Vec<usize> {
    let first = world.draw(ROWS as u64) as usize;
    let other = world.draw(ROWS as u64) as usize;
    if first == other { vec![first] } else { vec![first, other] }
}

/// Which failures there are in this run.
struct Faults {
    cuts: bool,
    stalls: bool,
    freezes: bool,
    deaths: bool,
    restarts: bool,
}

impl Faults {
    fn draw(world: &World) -> Self {
        let draw = || world.draw(2) == 0;
        Self { cuts: draw(), stalls: draw(), freezes: draw(), deaths: draw(), restarts: draw() }
    }
}

/// What all clients of a run share.
#[derive(Clone)]
struct Run(Arc<Shared>);

struct Shared {
    world: World,
    state: Mutex<State>,
    rows: Vec<usize>,
}

struct State {
    history: History,
    /// Until when a row is locked by the writer that sets its value.
    locked_until: Vec<u64>,
    violation: Option<Violation>,
    reached: Reached,
}

impl State {
    fn new() -> Self {
        Self { history: History::new(ROWS), locked_until: vec![0; ROWS], violation: None, reached: Reached::default() }
    }
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The function's body: reads the row at its start or later, and takes a while.
    async fn compute(&self, row: usize) -> Result<u64, Failed> {
        let world = &self.0.world;
        let (before, after) = (if world.draw(2) == 0 { 0 } else { self.duration() }, self.duration());
        if before > 0 {
            world.pause(before).await;
        }
        let version = self.state().history.version(row);
        world.note(|| format!("compute of row {row} reads version {version}, takes {after}"));
        world.pause(after).await;
        if world.draw(12) == 0 { Err(Failed) } else { Ok(version) }
    }

    fn duration(&self) -> u64 {
        let world = &self.0.world;
        match world.draw(10) {
            0 => world.draw(8000),
            1..4 => world.draw(1000),
            _ => world.draw(40),
        }
    }
}

#[derive(Debug, Clone)]
struct Failed;

/// Borrows: run by its caller, for all.
#[cached(name = "here", ttl = 5, key = "{row}", cache = cache)]
async fn here(cache: &Cache, run: &Run, row: usize) -> Result<u64, Failed> {
    run.compute(row).await
}

/// Owns: driven by whoever waits. Old values are served while the next one is computed.
#[cached(name = "shared", ttl = 2, key = "{row}", cache = &cache, stale_while_revalidate = 4)]
async fn shared(cache: Cache, run: Run, row: usize) -> Result<u64, Failed> {
    run.compute(row).await
}

/// Old values are served where the function fails or takes long.
#[cached(name = "hurried", ttl = 2, key = "{row}", cache = &cache, stale_if_error = 6, soft_timeout = "100ms")]
async fn hurried(cache: Cache, run: Run, row: usize) -> Result<u64, Failed> {
    run.compute(row).await
}

/// Does not wait for other processes.
#[cached(name = "alone", ttl = 5, key = "{row}", cache = cache, flight = "process")]
async fn alone(cache: &Cache, run: &Run, row: usize) -> Result<u64, Failed> {
    run.compute(row).await
}

/// The entry of a row, whichever function it belongs to.
macro_rules! on_entry {
    ($row:ident, $cache:ident, |$entry:ident| $work:expr) => {
        match $row / 2 {
            0 => {
                let $entry = here::entry($row).on($cache);
                $work
            }
            1 => {
                let $entry = shared::entry($row).on($cache);
                $work
            }
            2 => {
                let $entry = hurried::entry($row).on($cache);
                $work
            }
            _ => {
                let $entry = alone::entry($row).on($cache);
                $work
            }
        }
    };
}

/// One process with its clients.
struct Process {
    node: Node,
    cache: Cache,
    clients: JoinSet<()>,
}

impl Process {
    fn start(run: &Run) -> Self {
        let node = run.0.world.node();
        let cache = node.cache(Cache::builder().lease(Duration::from_secs(3)).local_limit_bytes(1 << 16));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = Client { run: run.clone(), cache: cache.clone(), node: node.clone() };
            clients.spawn(client.go_on());
        }
        Self { node, cache, clients }
    }

    fn kill(&mut self, run: &Run) {
        self.node.kill();
        self.clients.abort_all();
        run.state().reached.add_stats(&self.cache);
    }
}

/// Somebody who uses the cache of one node.
struct Client {
    run: Run,
    cache: Cache,
    node: Node,
}

impl Client {
    async fn go_on(self) {
        let world = self.run.0.world.clone();
        loop {
            world.pause(world.draw(300)).await;
            self.node.thaw().await;
            let rows = &self.run.0.rows;
            let row = rows[world.draw(rows.len() as u64) as usize];
            let may_be_set = row % 2 == 1;
            match world.draw(20) {
                0..12 => self.read(row).await,
                12 => self.read_for_a_while(row).await,
                13 => self.peek(row).await,
                14 => self.refresh(row).await,
                15 if may_be_set => self.set(row).await,
                16 if !may_be_set => self.delete_by_hand(row),
                // Here: invalidations by tag, and the loss of a tag's version.
                17 => drop(self.run.state().history.commit(row)),
                _ => self.invalidate(row).await,
            }
        }
    }

    async fn call(&self, row: usize) -> Result<u64, Failed> {
        match row / 2 {
            0 => here(&self.cache, &self.run, row).await,
            1 => shared(self.cache.clone(), self.run.clone(), row).await,
            2 => hurried(self.cache.clone(), self.run.clone(), row).await,
            _ => alone(&self.cache, &self.run, row).await,
        }
    }

    async fn read(&self, row: usize) {
        let (began, known) = self.begin();
        match tokio::time::timeout(LONGEST_READ, self.call(row)).await {
            Ok(Ok(version)) => self.check(row, version, began, known, "read"),
            Ok(Err(Failed)) => {}
            Err(_elapsed) => {
                let what = format!("a read of row {row} on node {} that began at {began} hangs", self.node.index());
                self.run.state().violation.get_or_insert(Violation { what });
            }
        }
    }

    /// A caller that gives up.
    async fn read_for_a_while(&self, row: usize) {
        let patience = Duration::from_millis(self.run.0.world.draw(500));
        drop(tokio::time::timeout(patience, self.call(row)).await);
    }

    async fn peek(&self, row: usize) {
        let (began, known) = self.begin();
        let cache = &self.cache;
        let found = on_entry!(row, cache, |entry| entry.get().await);
        if let Ok(Some(version)) = found {
            self.check(row, version, began, known, "peek");
        }
    }

    async fn refresh(&self, row: usize) {
        let (began, known) = self.begin();
        let refreshed = match row / 2 {
            0 => here::refresh(&self.cache, &self.run, row).await,
            1 => shared::refresh(self.cache.clone(), self.run.clone(), row).await,
            2 => hurried::refresh(self.cache.clone(), self.run.clone(), row).await,
            _ => alone::refresh(&self.cache, &self.run, row).await,
        };
        if let Ok(version) = refreshed {
            self.check(row, version, began, known, "refresh");
        }
    }

    /// Half of the time after a change of the row.
    async fn invalidate(&self, row: usize) {
        let version = {
            let world = &self.run.0.world;
            let changes = world.draw(4) > 0;
            let mut state = self.run.state();
            if state.locked_until[row] > world.now() {
                return;
            }
            if changes { state.history.commit(row) } else { state.history.version(row) }
        };
        self.note(|| format!("invalidate row {row} at version {version}"));
        let cache = &self.cache;
        // A set that is under way would store what the invalidation is about: writers take turns.
        let lock = Lock::take(self, row);
        let done = on_entry!(row, cache, |entry| entry.invalidate().await);
        lock.free();
        self.completed(row, version, done.is_ok());
    }

    async fn set(&self, row: usize) {
        let lock = Lock::take(self, row);
        if !lock.is_ours {
            return;
        }
        let version = self.run.state().history.commit(row);
        self.note(|| format!("set row {row} to version {version}"));
        let cache = &self.cache;
        let done = on_entry!(row, cache, |entry| entry.set(version).await);
        if done.is_ok() {
            lock.free();
        }
        self.completed(row, version, done.is_ok());
    }

    fn delete_by_hand(&self, row: usize) {
        let cache = &self.cache;
        let entry_key = on_entry!(row, cache, |entry| entry.key().to_owned());
        let version = self.run.state().history.commit(row);
        self.note(|| format!("DEL of row {row} at version {version}"));
        let world = &self.run.0.world;
        world.delete_by_hand(&entry_key);
        self.run.state().history.completed(row, version, world.now(), None);
    }

    fn begin(&self) -> (u64, usize) {
        (self.run.0.world.now(), self.run.state().history.known())
    }

    fn completed(&self, row: usize, version: u64, is_ok: bool) {
        let now = self.run.0.world.now();
        self.note(|| format!("row {row} at version {version}: {}", if is_ok { "done" } else { "failed" }));
        let mut state = self.run.state();
        if is_ok {
            state.reached.invalidations += 1;
            state.history.completed(row, version, now, Some(self.node.index()));
        } else {
            state.reached.failed_invalidations += 1;
        }
    }

    fn check(&self, row: usize, version: u64, began: u64, known: usize, what: &str) {
        self.note(|| format!("{what} of row {row}, begun at {began}: version {version}"));
        let max_staleness = MAX_STALENESS.as_millis() as u64;
        let mut state = self.run.state();
        let violation = state.history.check(row, version, began, known, self.node.index(), max_staleness);
        if let Some(violation) = violation {
            state.violation.get_or_insert(violation);
        }
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.run.0.world.note(|| format!("node {}: {}", self.node.index(), line()));
    }
}

/// A row is locked while its value is set, as by a transaction: until the set has returned, or, where it failed, until what it
/// sent can no longer arrive. A set that arrives late stores an old value rightly: it was asked to.
struct Lock<'a> {
    client: &'a Client,
    row: usize,
    is_ours: bool,
}

impl<'a> Lock<'a> {
    /// Of a row that is never set, nothing is locked.
    fn take(client: &'a Client, row: usize) -> Self {
        let now = client.run.0.world.now();
        let mut state = client.run.state();
        let is_ours = row % 2 == 1 && state.locked_until[row] <= now;
        if is_ours {
            state.locked_until[row] = u64::MAX;
        }
        drop(state);
        Self { client, row, is_ours }
    }

    fn free(mut self) {
        if std::mem::take(&mut self.is_ours) {
            self.client.run.state().locked_until[self.row] = 0;
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if self.is_ours {
            let until = self.client.node.arrived_by() + 1;
            self.client.run.state().locked_until[self.row] = until;
        }
    }
}
