//! One run: clients on several nodes read and invalidate a few rows while links and nodes fail.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cache_core::Cache;
use cache_core::testing::sim::{Guard, Node, World, without};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::client::{Build, Client};
use super::functions::{FUNCTIONS, Failed};
use super::history::{History, Violation};

/// Each function has a row that is only invalidated and one that is also set.
const ROWS: usize = 2 * FUNCTIONS;
const NODES: usize = 3;
const CLIENTS: usize = 2;
/// How long clients and failures go on, in milliseconds.
const RUN_MS: u64 = 20_000;

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
    /// By tag, of a function, of everything.
    pub(super) wide_invalidations: u64,
    pub(super) fences: u64,
    /// Writers that died behind their fences, after the commit.
    pub(super) dead_holders: u64,
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
        self.wide_invalidations += other.wide_invalidations;
        self.fences += other.fences;
        self.dead_holders += other.dead_holders;
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
        let writes =
            [self.invalidations, self.failed_invalidations, self.wide_invalidations, self.fences, self.dead_holders];
        counts.into_iter().chain(writes).all(|count| count > 20)
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
    let (rows, two_builds) = (draw_rows(&world), world.draw(2) == 0);
    let run = Run(Arc::new(Shared { world: world.clone(), state: Mutex::new(State::new()), rows, two_builds }));
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
        if process.node.is_dead() {
            process.kill(&run);
            *process = Process::start(&run);
        }
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
            for row in run.rows() {
                process.client(&run).read(*row).await;
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
pub(super) struct Run(Arc<Shared>);

struct Shared {
    world: World,
    state: Mutex<State>,
    rows: Vec<usize>,
    two_builds: bool,
}

pub(super) struct State {
    pub(super) history: History,
    /// Until when a row is locked by the writer that sets its value.
    pub(super) locked_until: Vec<u64>,
    pub(super) violation: Option<Violation>,
    pub(super) reached: Reached,
}

impl State {
    fn new() -> Self {
        Self { history: History::new(ROWS), locked_until: vec![0; ROWS], violation: None, reached: Reached::default() }
    }
}

impl Run {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    pub(super) fn world(&self) -> &World {
        &self.0.world
    }

    /// What its clients read and write.
    pub(super) fn rows(&self) -> &[usize] {
        &self.0.rows
    }

    /// Whether nodes of the old and of the new build run side by side.
    pub(super) fn has_two_builds(&self) -> bool {
        self.0.two_builds
    }

    /// The function's body: reads the row at its start or later, and takes a while.
    pub(super) async fn compute(&self, row: usize) -> Result<u64, Failed> {
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

    pub(super) fn duration(&self) -> u64 {
        let world = &self.0.world;
        match world.draw(10) {
            0 => world.draw(8000),
            1..4 => world.draw(1000),
            _ => world.draw(40),
        }
    }
}

/// One process with its clients.
struct Process {
    node: Node,
    cache: Cache,
    build: Build,
    clients: JoinSet<()>,
}

impl Process {
    fn start(run: &Run) -> Self {
        let node = run.0.world.node();
        let cache = node.cache(Cache::builder().lease(Duration::from_secs(3)).local_limit_bytes(1 << 16));
        let build = if run.has_two_builds() && run.0.world.draw(2) == 0 { Build::New } else { Build::Old };
        let mut process = Self { node, cache, build, clients: JoinSet::new() };
        for _ in 0..CLIENTS {
            let client = process.client(run);
            process.clients.spawn(client.go_on());
        }
        process
    }

    fn client(&self, run: &Run) -> Client {
        Client { run: run.clone(), cache: self.cache.clone(), node: self.node.clone(), build: self.build }
    }

    fn kill(&mut self, run: &Run) {
        self.node.kill();
        self.clients.abort_all();
        run.state().reached.add_stats(&self.cache);
    }
}
