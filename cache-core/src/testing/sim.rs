//! A simulated store: nodes reach one embedded store over links that delay, stall, break and
//! duplicate messages, in virtual time.
//!
//! ```text
//! node ── request ──> its connection ── arrives later ──> the store: one step, atomic
//!      <── reply, push ── in order, later ─────────────┘   tracking readers are notified, once
//! ```
//!
//! Invariants: everything that happens is decided by the seed alone, on a single-threaded runtime
//! with paused time. Each connection has its own random sequence, and so has everything the caller
//! names: leaving out one operation does not change the delays of the others. As on one Redis
//! connection with tracking, replies and pushes arrive in the order in which they were sent, or
//! never. Links are managed by the real supervisor, `store::supervisor`.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "test code: it may panic")]

mod link;
mod node;
mod store;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::Notify;

use self::link::Session;
use crate::cache::Cache;
use crate::clock::{Clock, ServerOffset};
use crate::error::Result;
pub use crate::mutants::{Invariant, without};
use crate::observe::events::Events;
use crate::store::memory::MemoryStore;
use crate::store::outstanding::Outstanding;
use crate::store::pushes::Pushes;
use crate::store::{CellStore as _, Listener, Store as _, Trust};

/// The longest time that L1 may lag behind the store.
pub const MAX_STALENESS: Duration = Duration::from_millis(2000);
/// How long a call waits for its reply.
const RESPONSE_TIMEOUT_MS: u64 = 500;
const CONNECT_TIMEOUT_MS: u64 = 1000;
const BEAT_MS: u64 = 700;
const MAX_STALENESS_MS: u64 = 2000;
/// How long after it resumes a process may not have noticed what its clocks say.
const LATEST_RUN_MS: u64 = 100;
/// Random sequences from this number on belong to the world.
const LINKS: u64 = 1 << 62;
/// The longest delay of a task after its reply has arrived.
const LATE_MS: u64 = 200;

/// Returns the number of runs of this cache that can be joined.
#[must_use]
pub fn flights(cache: &Cache) -> usize {
    cache.0.flights.attached_keys()
}

/// Returns the weight of the entries in L1, and its limit.
#[must_use]
pub fn local_weight(cache: &Cache) -> (u64, u64) {
    cache.0.local.as_ref().map_or((0, 0), |local| local.weight())
}

/// All nodes, their links and the store.
#[derive(Clone)]
pub struct World(Arc<Inner>);

/// One process, seen from outside.
#[derive(Clone)]
pub struct Node {
    world: World,
    index: usize,
}

struct Inner {
    state: Mutex<State>,
    changed: Notify,
    clock: Clock,
    start_ms: u64,
    store: Mutex<Arc<MemoryStore>>,
    tracking: Arc<Tracking>,
}

struct State {
    seed: u64,
    /// The state of each random sequence.
    streams: HashMap<u64, u64>,
    next_event: u64,
    events: BTreeMap<(u64, u64), Event>,
    connections: Vec<Connection>,
    nodes: Vec<Process>,
    /// The connections that have read a key with tracking since its last change.
    tracked: BTreeMap<String, BTreeSet<usize>>,
    /// The connection whose request is being executed, and the keys it has changed and is notified
    /// of.
    running: Option<(usize, Vec<String>)>,
    restarts: u64,
    /// The first violation of an invariant.
    fault: Option<String>,
    trace: Option<Vec<String>>,
}

/// Something that happens at a certain time.
type Event = Box<dyn FnOnce(&World) + Send>;

/// Executes a request at the store. The result hands the reply to the caller.
type Request = Box<dyn FnOnce(&World, &MemoryStore) -> Event + Send>;

#[derive(Default)]
struct Connection {
    node: usize,
    /// Its random sequence.
    stream: u64,
    /// When the last message in each direction arrives: messages do not overtake each other.
    last_in: u64,
    last_out: u64,
    /// Messages sent from now on are lost.
    dead_in: bool,
    dead_out: bool,
    /// The client has given it up.
    closed: bool,
    /// The last renewal failed in part.
    renewal_failed: bool,
    /// When the last answered request was sent, on the node's coarse clock.
    answered: Option<u64>,
    /// Messages in flight to the client, in order.
    inbox: VecDeque<Event>,
    /// Lost messages. They are kept until the client notices the loss: dropping them would notify
    /// the waiting callers.
    limbo: Vec<Box<dyn Any + Send>>,
}

struct Process {
    /// The connection that calls use.
    current: Option<Arc<Session>>,
    /// Whether a gap was reported since the last attempt to connect began.
    knows_gap: bool,
    /// Notified when a call got no reply in time.
    doubt: Arc<Notify>,
    clock: Clock,
    offset: Arc<ServerOffset>,
    /// The number of attempts to connect.
    attempts: u64,
    /// When it last woke up from a sleep during which its monotonic clock was stopped.
    woke_at: Option<u64>,
    epoch: u64,
    dead: bool,
    unreachable_until: u64,
    frozen_until: u64,
    pushes: Arc<Pushes>,
    trust: Arc<Trust>,
    /// Operations that the next connection executes before calls use it.
    outstanding: Arc<Outstanding>,
    /// The previous connection.
    predecessor: Option<usize>,
}

/// The server's tracking table: which connections are notified of which keys.
struct Tracking(Mutex<Weak<Inner>>);

impl Listener for Tracking {
    fn changed(&self, key: &str) {
        let inner = lock(&self.0).upgrade();
        if let Some(inner) = inner {
            World(inner).key_changed(key);
        }
    }

    fn gap(&self) {}
}

impl World {
    /// Makes a world on the current runtime, which must be single-threaded with paused time.
    /// `trace`: whether to record what happens.
    #[must_use]
    pub fn new(seed: u64, trace: bool) -> Self {
        let clock = Clock::of_runtime();
        let store = Arc::new(embedded(&clock));
        let tracking = Arc::new(Tracking(Mutex::default()));
        let state = State {
            // The first step of SplitMix64, so that similar seeds begin far apart.
            seed: mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15)),
            streams: HashMap::new(),
            next_event: 0,
            events: BTreeMap::new(),
            connections: Vec::new(),
            nodes: Vec::new(),
            tracked: BTreeMap::new(),
            running: None,
            restarts: 0,
            fault: None,
            trace: trace.then(Vec::new),
        };
        crate::random::seed(state.seed);
        crate::local::let_go_apart();
        let start_ms = clock.coarse();
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            changed: Notify::new(),
            clock,
            start_ms,
            store: Mutex::new(store),
            tracking,
        });
        *lock(&inner.tracking.0) = Arc::downgrade(&inner);
        let world = Self(inner);
        world.listen_to_store();
        world
    }

    /// Delivers messages and breaks links, each at its time. Never returns.
    pub async fn drive(&self) {
        loop {
            let now = self.now();
            let due = {
                let mut state = self.state();
                match state.events.first_key_value() {
                    Some(((at, _), _)) if *at <= now => state.events.pop_first().map(|(_, event)| Ok(event)),
                    Some(((at, _), _)) => Some(Err(*at)),
                    None => None,
                }
            };
            match due {
                // One at a time: the tasks it has woken run before the next event.
                Some(Ok(event)) => {
                    event(self);
                    tokio::task::yield_now().await;
                }
                Some(Err(at)) => {
                    let pause = self.0.clock.sleep(Duration::from_millis(at - now));
                    tokio::select! {
                        biased;
                        () = self.0.changed.notified() => {}
                        () = pause => {}
                    }
                }
                None => self.0.changed.notified().await,
            }
        }
    }

    /// Starts a new process with a connection.
    #[must_use]
    pub fn node(&self) -> Node {
        let mut state = self.state();
        let index = state.nodes.len();
        let (pushes, trust) = (Arc::default(), Arc::default());
        state.nodes.push(Process {
            current: None,
            knows_gap: false,
            doubt: Arc::default(),
            clock: self.0.clock.of_another_machine(),
            offset: Arc::default(),
            attempts: 0,
            woke_at: None,
            epoch: 0,
            dead: false,
            unreachable_until: 0,
            frozen_until: 0,
            pushes,
            trust,
            outstanding: Arc::new(Outstanding::new(self.0.clock.clone(), Events::new(Vec::new(), &self.0.clock))),
            predecessor: None,
        });
        drop(state);
        self.supervise(index);
        Node { world: self.clone(), index }
    }

    /// Returns the milliseconds since the world began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.clock.coarse() - self.0.start_ms
    }

    /// Waits in virtual time.
    pub async fn pause(&self, ms: u64) {
        self.0.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Returns the next number below `limit` of a random sequence that the seed decides.
    #[must_use]
    pub fn draw_from(&self, stream: u64, limit: u64) -> u64 {
        self.state().draw(stream, limit)
    }

    /// Records a line of the trace, if tracing is on.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(trace) = &mut self.state().trace {
            trace.push(format!("{now:>6} {}", line()));
        }
    }

    /// Records a violation of an invariant.
    fn fault(&self, what: impl FnOnce() -> String) {
        self.state().fault.get_or_insert_with(what);
    }

    /// Returns the first violation of an invariant.
    #[must_use]
    pub fn first_fault(&self) -> Option<String> {
        self.state().fault.clone()
    }

    /// Returns the trace so far.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// Executes a `DEL` at the server, at once.
    pub fn delete_by_hand(&self, key: &str) {
        let store = self.store();
        drop(store.delete(key).now_or_never());
    }

    /// Restarts the server with an empty store; all connections end.
    pub fn restart_store(&self) {
        self.note(|| "the store restarts".to_owned());
        *lock(&self.0.store) = Arc::new(embedded(&self.0.clock));
        self.listen_to_store();
        let open: Vec<usize> = {
            let mut state = self.state();
            state.tracked.clear();
            state.restarts += 1;
            let connections = 0..state.connections.len();
            connections.filter(|connection| !state.connections[*connection].closed).collect()
        };
        for connection in open {
            self.break_both_ways(connection);
            let late = self.draw_for(connection, 300);
            self.after(late, move |world| world.notice(connection));
        }
    }

    /// Returns the number of restarts of the server.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.state().restarts
    }

    /// Returns a number below `limit` of a connection's random sequence.
    fn draw_for(&self, connection: usize, limit: u64) -> u64 {
        self.state().draw_for(connection, limit)
    }

    fn listen_to_store(&self) {
        let tracking: Arc<dyn Listener> = Arc::clone(&self.0.tracking) as Arc<dyn Listener>;
        self.store().listen(Arc::downgrade(&tracking));
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&lock(&self.0.store))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn at(&self, state: &mut State, at: u64, event: Event) {
        let number = state.next_event;
        state.next_event += 1;
        state.events.insert((at, number), event);
        self.0.changed.notify_one();
    }

    fn after(&self, ms: u64, event: impl FnOnce(&World) + Send + 'static) {
        let mut state = self.state();
        self.at(&mut state, self.now() + ms, Box::new(event));
    }

    /// Sends a request. It is executed when it arrives, and answered after that.
    fn send(&self, connection: usize, what: &'static str, request: Request) {
        let mut state = self.state();
        let clock = state.nodes[state.connections[connection].node].clock.clone();
        let (now, sent_at) = (self.now(), clock.coarse());
        let request: Request = Box::new(move |world, store| {
            let reply = request(world, store);
            Box::new(move |world| {
                let answered = &mut world.state().connections[connection].answered;
                *answered = (*answered).max(Some(sent_at));
                reply(world);
            })
        });
        let arrival = (now + state.delay(connection)).max(state.connections[connection].last_out);
        state.connections[connection].last_out = arrival;
        if state.connections[connection].dead_out {
            return state.connections[connection].limbo.push(Box::new(request));
        }
        self.at(&mut state, arrival, Box::new(move |world| world.arrive(connection, what, request)));
    }

    fn arrive(&self, connection: usize, what: &'static str, request: Request) {
        {
            let mut state = self.state();
            if state.connections[connection].dead_out {
                return state.connections[connection].limbo.push(Box::new(request));
            }
            state.running = Some((connection, Vec::new()));
        }
        self.note(|| format!("connection {connection}: {what} is executed"));
        let reply = request(self, &self.store());
        let mut state = self.state();
        let own = state.running.take().map(|(_, keys)| keys).unwrap_or_default();
        // Redis notifies a connection of its own change after the command's reply: before the end
        // of a pipeline, or after it.
        if state.draw_for(connection, 2) == 0 {
            self.push_all(&mut state, connection, own);
            self.deliver(&mut state, connection, reply);
        } else {
            self.deliver(&mut state, connection, reply);
            self.push_all(&mut state, connection, own);
        }
    }

    fn key_changed(&self, key: &str) {
        let mut state = self.state();
        let told = state.tracked.remove(key).unwrap_or_default();
        for connection in told {
            match &mut state.running {
                Some((running, own)) if *running == connection => own.push(key.to_owned()),
                _ => self.push_all(&mut state, connection, vec![key.to_owned()]),
            }
        }
    }

    fn push_all(&self, state: &mut State, connection: usize, keys: Vec<String>) {
        for key in keys {
            // Sometimes twice: another tracked read may have registered the key again.
            for _ in 0..=u64::from(state.draw_for(connection, 8) == 0) {
                let key = key.clone();
                let push = move |world: &World| {
                    world.note(|| format!("connection {connection}: push of {key}"));
                    let pushes = world.state().pushes_of(connection);
                    pushes.changed(&key);
                };
                self.deliver(state, connection, Box::new(push));
            }
        }
    }

    /// Sends a message to the client, after everything sent before.
    fn deliver(&self, state: &mut State, connection: usize, what: Event) {
        let arrival = (self.now() + state.delay(connection)).max(state.connections[connection].last_in);
        state.connections[connection].last_in = arrival;
        state.connections[connection].inbox.push_back(what);
        self.at(state, arrival, Box::new(move |world| world.receive(connection)));
    }

    fn receive(&self, connection: usize) {
        let mut state = self.state();
        if let Some(frozen) = self.frozen(&mut state, connection) {
            drop(state);
            return self.after(frozen, move |world| world.receive(connection));
        }
        let link = &mut state.connections[connection];
        let Some(what) = link.inbox.pop_front() else { return };
        match (link.dead_in, link.closed) {
            (true, true) => {}
            (true, false) => link.limbo.push(Box::new(what)),
            (false, _) => {
                drop(state);
                what(self);
            }
        }
    }

    /// Returns how long the process at this end stays frozen.
    fn frozen(&self, state: &mut State, connection: usize) -> Option<u64> {
        let until = state.nodes[state.connections[connection].node].frozen_until;
        let left = until.checked_sub(self.now()).filter(|left| *left > 0)?;
        Some(left + state.draw_for(connection, 50))
    }

    /// Decides whether one of the renewals in a call fails, and which.
    fn failed_renewal(&self, connection: usize, count: usize) -> Option<usize> {
        let mut state = self.state();
        let may_fail = count > 1 && !state.connections[connection].renewal_failed;
        let fails = may_fail && state.draw_for(connection, 3) == 0;
        state.connections[connection].renewal_failed = fails;
        fails.then(|| state.draw_for(connection, count as u64) as usize)
    }

    fn track(&self, key: &str, connection: usize) {
        self.state().tracked.entry(key.to_owned()).or_default().insert(connection);
    }
}

impl State {
    /// xorshift64*, with one state per stream.
    fn draw(&mut self, stream: u64, limit: u64) -> u64 {
        let seed = self.seed;
        let state =
            self.streams.entry(stream).or_insert_with(|| mix(seed ^ mix(stream.wrapping_mul(0x9E37_79B9_7F4A_7C15))));
        let mut x = *state;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        *state = x;
        (x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit.max(1)
    }

    fn draw_for(&mut self, connection: usize, limit: u64) -> u64 {
        let stream = self.connections[connection].stream;
        self.draw(stream, limit)
    }

    /// Returns how long a message is in flight: short in most cases.
    fn delay(&mut self, connection: usize) -> u64 {
        match self.draw_for(connection, 10) {
            0 => self.draw_for(connection, 200),
            1..4 => self.draw_for(connection, 20),
            _ => self.draw_for(connection, 3),
        }
    }

    fn connection_of(&self, node: usize) -> Option<usize> {
        self.nodes[node].current.as_ref().map(|session| session.connection)
    }

    fn pushes_of(&self, connection: usize) -> Arc<Pushes> {
        Arc::clone(&self.nodes[self.connections[connection].node].pushes)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.index).finish()
    }
}

fn embedded(clock: &Clock) -> MemoryStore {
    MemoryStore::new(clock.clone(), Events::new(Vec::new(), clock), usize::MAX).unswept()
}

/// Makes a request that hands its result to `answer`.
fn request<T: Send + 'static>(
    step: impl FnOnce(&World, &MemoryStore) -> Result<T> + Send + 'static,
    answer: tokio::sync::oneshot::Sender<Result<T>>,
) -> Request {
    Box::new(move |world, store| {
        let result = step(world, store);
        // An error means that its caller has gone.
        Box::new(move |_: &World| drop(answer.send(result)))
    })
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)) | 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
