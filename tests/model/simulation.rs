//! One run: clients on several nodes read and write a few things while links, clocks and nodes
//! fail.

mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use cache_core::Cache;
use cache_core::testing::sim::{Invariant, MAX_STALENESS, Node, World, flights, without};
use tokio::runtime::{Builder, Handle};

use self::process::Process;
use super::account::{self, Account};
use super::counters::{self, Counters};
use super::functions::{ALONE, Build, FUNCTIONS, Failed, PICKY};
use super::history::{History, Rule, Violation};

/// Each function has one row that is only invalidated and one that is also set.
const ROWS: usize = 2 * FUNCTIONS;
const NODES: usize = 3;
const CLIENTS: usize = 2;
/// How long clients and failures continue, in milliseconds.
const RUN_MS: u64 = 15_000;
/// The most time for everything to end afterwards: the longest run of a function, a lease, and
/// messages in transit.
const REST_MS: u64 = 30_000;

/// If nothing fails, all links are up by this time.
const ALL_CONNECTED_MS: u64 = 1000;

/// Each run, operation and failure has its own random sequence, so leaving one out does not change
/// the others.
const PLAN: u64 = 1 << 60;
const RUNS: u64 = 2 << 60;

/// The input of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) without: Option<Invariant>,
    pub(super) trace: bool,
    /// Only these operations happen; `None`: all.
    pub(super) only: Option<BTreeSet<Op>>,
    /// If set, only this is read and written.
    pub(super) aim: Option<Aim>,
}

/// The part that a run concentrates on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Rows of this function.
    Function(usize),
    /// The value that several clients write at once.
    Cell,
    /// The sessions of a user.
    Account,
    /// A row that several writers fence at the same time.
    Fences,
}

/// An operation of a client, or a failure: the `n`-th of `who`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Op {
    /// Zero: failures.
    pub(super) who: usize,
    pub(super) n: usize,
}

impl Op {
    pub(super) fn stream(self) -> u64 {
        ((self.who as u64) << 32) | self.n as u64
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.who, self.n)
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once('.').and_then(|(who, n)| Some((who.parse().ok()?, n.parse().ok()?)));
        parts.map(|(who, n)| Self { who, n }).ok_or_else(|| format!("`{text}` is no operation, such as 3.17"))
    }
}

/// The outcome of a run.
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) trace: Vec<String>,
    pub(super) reached: Reached,
    /// The operations that happened, in order.
    pub(super) ops: Vec<Op>,
}

macro_rules! reached {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// How often the events that the rules cover have happened.
        #[derive(Debug, Default, Clone)]
        pub(super) struct Reached {
            $($(#[$attribute])* pub(super) $name: u64,)*
        }

        impl Reached {
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            pub(super) fn is_everything(&self) -> bool {
                [$(self.$name),*].into_iter().all(|count| count > 10)
            }
        }
    };
}

reached! {
    local_hits,
    hits,
    refused_fills,
    joined,
    waited,
    renewals,
    refreshes,
    store_failures,
    /// Calls that take room in a small L1.
    crowded,
    renewed,
    invalidations,
    failed_invalidations,
    /// By tag, of a function, of everything.
    wide_invalidations,
    fences,
    /// Raised while another fence is up on the row.
    overlapping_fences,
    withdrawn,
    evicted_registries,
    evicted_versions,
    /// Evicted together with the entry or the version that they stood in place of.
    evicted_fences,
    /// Writers that died behind their fences, after the commit.
    dead_holders,
    batches,
    absent,
    not_modified,
    cell_reads,
    /// Acknowledged.
    cell_writes,
    /// Writes of the cell that have failed and could still arrive, until their node followed them
    /// up.
    late_writes,
    updates,
    session_increments,
    logins,
    changes_of_id,
    /// All sessions of a user at once.
    endings,
    /// Sessions that were looked up in the list of their user.
    listings,
    /// Runs of a function whose value is not stored, in runs without failures.
    unstored_runs,
    suspensions,
    clock_steps,
    /// In runs without failures and writes.
    calm_runs,
}

impl Reached {
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
        self.renewed += stats.renewed;
    }
}

/// Runs a seed on this thread.
pub(super) fn simulate(setup: &Setup) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    without(setup.without, || {
        let outcome = runtime.block_on(run(setup));
        // Leftover tasks end while the guard is still removed.
        drop(runtime);
        outcome
    })
}

async fn run(setup: &Setup) -> Outcome {
    let world = World::new(setup.seed, setup.trace);
    let plan = Plan::draw(&world, setup.aim);
    let shared = Shared { world: world.clone(), state: Mutex::new(State::new()), plan, only: setup.only.clone() };
    let run = Run { shared: Arc::new(shared), node: None };
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.drive().await }
    });
    let mut processes: Vec<Process> = (0..NODES).map(|_| Process::start(&run)).collect();
    for n in 0.. {
        if world.now() >= RUN_MS || run.violation().is_some() {
            break;
        }
        fail(&run, &mut processes, Op { who: 0, n }).await;
    }
    for process in &mut processes {
        process.clients.abort_all();
    }
    // Whatever has happened, every node answers, and no acknowledged change is lost.
    if run.violation().is_none() {
        for process in &processes {
            for row in run.rows() {
                process.client(&run, 0).read(row).await;
            }
        }
        counters::check(&processes[0].client(&run, 0)).await;
        account::check(&processes[0].client(&run, 0)).await;
    }
    for process in &mut processes {
        run.state().reached.add_stats(&process.cache);
    }
    if run.violation().is_none() {
        end(&run, processes).await;
    }
    driver.abort();
    let violation = run.violation();
    let state = run.state();
    Outcome { violation, trace: world.trace(), reached: state.reached.clone(), ops: state.ops.clone() }
}

/// Causes a failure after a while, or none.
async fn fail(run: &Run, processes: &mut [Process], op: Op) {
    let world = run.world();
    let draw = |limit| world.draw_from(op.stream(), limit);
    world.pause(200 + draw(2000)).await;
    let process = &mut processes[draw(NODES as u64) as usize];
    if process.node.is_dead() {
        process.kill(run);
        *process = Process::start(run);
    }
    let (kind, faults) = (draw(11), &run.shared.plan.faults);
    let happens = match kind {
        0..=2 => faults.cuts,
        3..=4 => faults.stalls,
        5 => faults.freezes,
        6 => faults.deaths,
        7 => faults.restarts && draw(3) == 0,
        8 => faults.suspends,
        9 => faults.steps,
        _ => false,
    };
    if !happens || !run.performs(op) {
        return;
    }
    match kind {
        0..=2 => process.node.cut(op.stream()),
        3..=4 => process.node.stall(op.stream()),
        5 => process.node.freeze(draw(6000)),
        6 => {
            process.kill(run);
            *process = Process::start(run);
        }
        7 => {
            world.restart_store();
            run.state().history.forget_writes();
        }
        8 => {
            // Long enough to be noticed.
            process.node.suspend(200 + draw(5800));
            run.state().reached.suspensions += 1;
        }
        _ => {
            process.node.step_clock(draw(2 * STEP_MS) as i64 - STEP_MS as i64);
            run.state().reached.clock_steps += 1;
        }
    }
}

/// The largest step of a wall clock.
const STEP_MS: u64 = 900_000;

/// Ends all processes. Checks that no task is left and no waiter waits for a notification that will
/// not come.
async fn end(run: &Run, processes: Vec<Process>) {
    let world = run.world();
    world.pause(REST_MS).await;
    for process in &processes {
        let waiters = process.node.waiters();
        if waiters > 0 {
            let what = format!("node {}: {waiters} waiters are left, but no caller waits", process.node.index());
            run.violates(Rule::Ends, what);
        }
        let (flights, outstanding) = (flights(&process.cache), process.node.outstanding());
        if flights > 0 {
            let what = format!("node {}: {flights} runs can be joined, but none is in progress", process.node.index());
            run.violates(Rule::Ends, what);
        }
        if outstanding > 0 && process.node.is_connected() {
            let what = format!("node {}: {outstanding} operations wait, but the store answers", process.node.index());
            run.violates(Rule::Ends, what);
        }
    }
    for mut process in processes {
        process.node.kill();
        while process.clients.join_next().await.is_some() {}
    }
    world.pause(REST_MS).await;
    // The driver of the world is one task.
    let tasks = Handle::current().metrics().num_alive_tasks();
    if tasks > 1 {
        run.violates(Rule::Ends, format!("{} tasks are left of processes that have ended", tasks - 1));
    }
}

/// What a run concentrates on, and what can happen in it.
struct Plan {
    subjects: Vec<Subject>,
    two_builds: bool,
    /// Nothing fails and nothing is written.
    calm: bool,
    /// L1 has room for a few entries, and more are requested.
    narrow: bool,
    /// Writers stand behind fences half of the time.
    fences: bool,
    faults: Faults,
}

/// What a client reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Row(usize),
    /// Written by several clients at once.
    Cell,
    /// An object and a session in which all clients count.
    Counters,
    /// The sessions of a user.
    Account,
}

/// The kinds of failures in a run.
struct Faults {
    cuts: bool,
    stalls: bool,
    freezes: bool,
    deaths: bool,
    restarts: bool,
    suspends: bool,
    steps: bool,
}

impl Plan {
    /// Draws the plan of a run. It has two subjects only, so that operations meet.
    fn draw(world: &World, aim: Option<Aim>) -> Self {
        let draw = |limit| world.draw_from(PLAN, limit);
        let subject = || match aim {
            Some(Aim::Function(function)) => Subject::Row(2 * function + draw(2) as usize),
            Some(Aim::Cell) => Subject::Cell,
            Some(Aim::Account) => Subject::Account,
            // The row of the first function that is also set.
            Some(Aim::Fences) => Subject::Row(1),
            None => Subject::Row(draw(ROWS as u64) as usize),
        };
        let first = subject();
        let other = match draw(10) {
            0 if aim.is_none() => Subject::Cell,
            1 if aim.is_none() => Subject::Counters,
            2 if aim.is_none() => Subject::Account,
            _ => subject(),
        };
        let subjects = if first == other { vec![first] } else { vec![first, other] };
        let (two_builds, calm, narrow) = (draw(2) == 0, draw(10) == 0, draw(4) == 0);
        let fault = || draw(2) == 0 && !calm;
        let faults = Faults {
            cuts: fault(),
            stalls: fault(),
            freezes: fault(),
            deaths: fault(),
            restarts: fault(),
            suspends: fault(),
            steps: fault(),
        };
        Self { subjects, two_builds, calm, narrow, fences: aim == Some(Aim::Fences), faults }
    }
}

/// The state shared by all clients of a run.
#[derive(Clone)]
pub(super) struct Run {
    shared: Arc<Shared>,
    /// The process in which it is used; `None`: outside of all processes.
    node: Option<usize>,
}

struct Shared {
    world: World,
    state: Mutex<State>,
    plan: Plan,
    only: Option<BTreeSet<Op>>,
}

pub(super) struct State {
    pub(super) history: History,
    /// Until when a row is locked by the writer that sets its value.
    pub(super) locked_until: Vec<u64>,
    /// The number of fences on a row.
    pub(super) fenced: Vec<usize>,
    /// The nodes whose writes of the row failed.
    pub(super) unsettled: Vec<Vec<Node>>,
    /// When an entry was last evicted, with any fence stored in its place.
    pub(super) evicted_at: Vec<Option<u64>>,
    /// The nodes whose writes of the cell failed and whose follow-up may be in progress.
    pub(super) failed_writers: Vec<Node>,
    pub(super) counters: Counters,
    pub(super) account: Account,
    /// The start times of a row's current runs, and the number of all its runs.
    running: BTreeMap<Key, Vec<u64>>,
    runs: Vec<u64>,
    /// Ended runs of rows whose values are not stored, if nothing fails.
    unstored: Vec<Ran>,
    violation: Option<Violation>,
    pub(super) reached: Reached,
    ops: Vec<Op>,
}

impl State {
    fn new() -> Self {
        Self {
            history: History::new(ROWS),
            locked_until: vec![0; ROWS],
            fenced: vec![0; ROWS],
            unsettled: vec![Vec::new(); ROWS],
            evicted_at: vec![None; ROWS],
            failed_writers: Vec::new(),
            counters: Counters::default(),
            account: Account::default(),
            unstored: Vec::new(),
            running: BTreeMap::new(),
            runs: vec![0; ROWS],
            violation: None,
            reached: Reached::default(),
            ops: Vec::new(),
        }
    }
}

/// A unit that has one run at a time: a row in a build. If a process does not wait for another's
/// run, a row in a build and a process.
type Key = (Build, usize, Option<usize>);

/// A run that has ended.
struct Ran {
    key: Key,
    began: u64,
    ended: u64,
}

impl Run {
    /// Returns a handle for use in this process.
    pub(super) fn at(&self, node: usize) -> Self {
        Self { shared: Arc::clone(&self.shared), node: Some(node) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Returns the first broken rule: of the clients, or of the links.
    pub(super) fn violation(&self) -> Option<Violation> {
        let violation = self.state().violation.clone();
        violation.or_else(|| self.shared.world.first_fault().map(|what| Violation { rule: Rule::Link, what }))
    }

    pub(super) fn violates(&self, rule: Rule, what: String) {
        self.state().violation.get_or_insert(Violation { rule, what });
    }

    pub(super) fn world(&self) -> &World {
        &self.shared.world
    }

    pub(super) fn subjects(&self) -> &[Subject] {
        &self.shared.plan.subjects
    }

    /// Returns the rows that its clients read and write.
    pub(super) fn rows(&self) -> Vec<usize> {
        let row = |subject: &Subject| if let Subject::Row(row) = subject { Some(*row) } else { None };
        self.subjects().iter().filter_map(row).collect()
    }

    /// Returns whether nodes of the old and of the new build run concurrently.
    pub(super) fn has_two_builds(&self) -> bool {
        self.shared.plan.two_builds
    }

    /// Returns whether writers stand behind fences half of the time.
    pub(super) fn is_about_fences(&self) -> bool {
        self.shared.plan.fences
    }

    /// Returns whether L1 has room for a few entries only.
    pub(super) fn is_narrow(&self) -> bool {
        self.shared.plan.narrow
    }

    /// Returns whether nothing fails and nothing is written.
    pub(super) fn is_calm(&self) -> bool {
        self.shared.plan.calm
    }

    /// Returns whether this operation is part of the run, and records it.
    pub(super) fn performs(&self, op: Op) -> bool {
        let performs = self.shared.only.as_ref().is_none_or(|only| only.contains(&op));
        if performs {
            self.state().ops.push(op);
        }
        performs
    }

    /// X7: since `began`, a caller of a row whose value is not stored has waited for at most one
    /// other process whose run began after that: the one that took the lease in between. A process
    /// that calls again while an answer is slow counts as one process.
    pub(super) fn check_did_not_queue(&self, build: Build, row: usize, began: u64) {
        if began < ALL_CONNECTED_MS {
            return;
        }
        let queued = {
            let state = self.state();
            let of_row = || state.unstored.iter().filter(|ran| (ran.key.0, ran.key.1) == (build, row));
            let own = of_row().filter(|ran| ran.key.2 == self.node && ran.ended >= began).map(|ran| ran.began).min();
            let Some(own) = own else { return };
            let others = of_row().filter(|ran| ran.key.2 != self.node && ran.began >= began && ran.ended <= own);
            others.map(|ran| ran.key.2).collect::<BTreeSet<_>>().len()
        };
        if queued > 1 {
            let what = format!("a call of row {row} that began at {began} waited for {queued} other processes");
            self.violates(Rule::Queues, what);
        }
    }

    /// The function's body: reads the rows at its start or later, and takes a while.
    pub(super) async fn compute(&self, build: Build, rows: &[usize]) -> Result<Vec<u64>, Failed> {
        let _running = Running::start(self, build, rows);
        let stream = {
            let runs = &mut self.state().runs[rows[0]];
            *runs += 1;
            RUNS | ((rows[0] as u64) << 32) | *runs
        };
        let world = &self.shared.world;
        let draw = |limit| world.draw_from(stream, limit);
        let (before, after) = (if draw(2) == 0 { 0 } else { duration(draw) }, duration(draw));
        if before > 0 {
            world.pause(before).await;
        }
        let versions: Vec<u64> = rows.iter().map(|row| self.state().history.version(*row)).collect();
        world.note(|| format!("compute of rows {rows:?} reads versions {versions:?}, takes {after}"));
        world.pause(after).await;
        if draw(12) == 0 && !self.is_calm() { Err(Failed) } else { Ok(versions) }
    }
}

/// Returns how long a run of a function or a transaction takes.
pub(super) fn duration(draw: impl Fn(u64) -> u64) -> u64 {
    match draw(10) {
        0 => draw(8000),
        1..4 => draw(1000),
        _ => draw(40),
    }
}

/// A run of the function for some rows. It ends when dropped.
struct Running {
    run: Run,
    keys: Vec<Key>,
    began: u64,
}

impl Running {
    fn start(run: &Run, build: Build, rows: &[usize]) -> Self {
        // Before its link is up, a process runs alone.
        let began = run.world().now();
        let counts = began > ALL_CONNECTED_MS;
        // Rows of `ALONE`, and of `PICKY`, which stores only some values, have a run in each
        // process.
        let process = |row: usize| run.node.filter(|_| matches!(row / 2, ALONE | PICKY));
        let keys: Vec<_> = rows.iter().filter(|_| counts).map(|row| (build, *row, process(*row))).collect();
        let mut state = run.state();
        let mut twice = None;
        for key in &keys {
            let running = state.running.entry(*key).or_default();
            // A run without a lease is joined for at most this long.
            let joinable = |other: &u64| key.2.is_none() || began - other < MAX_STALENESS.as_millis() as u64;
            twice = twice.or(running.iter().any(joinable).then_some(key.1));
            running.push(began);
        }
        if run.is_calm() {
            state.reached.calm_runs += 1;
        }
        drop(state);
        if let Some(row) = twice
            && run.is_calm()
            && super::ONE_RUN_A_KEY
        {
            let now = run.world().now();
            run.violates(Rule::OneRun, format!("two runs of row {row} at {now}, but nothing failed"));
        }
        Self { run: run.clone(), keys, began }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (ended, is_calm) = (self.run.world().now(), self.run.is_calm());
        let mut state = self.run.state();
        for key in &self.keys {
            let running = state.running.entry(*key).or_default();
            if let Some(at) = running.iter().position(|began| *began == self.began) {
                running.swap_remove(at);
            }
            if is_calm && key.1 / 2 == PICKY {
                state.reached.unstored_runs += 1;
                state.unstored.push(Ran { key: *key, began: self.began, ended });
            }
        }
    }
}
