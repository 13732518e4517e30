//! Models of single flight.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::Either;
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use crate::doubles::clock::Clock;
use crate::single_flight::{Caller, Flight, FlightOutcome, Flights, Joined, Leader};
use crate::versions::{Since, Versions};

/// One key, and the shared state of its callers.
#[derive(Clone)]
struct Key {
    flights: Arc<Flights>,
    versions: Arc<Versions>,
    key: Arc<str>,
    /// The number of current runs that can be joined.
    running: Arc<AtomicUsize>,
    /// The data that a run reads.
    row: Arc<AtomicUsize>,
}

impl Key {
    fn new() -> Self {
        let (running, row) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let versions = Arc::new(Versions::new(1 << 20));
        let flights = Flights::new(Clock, Duration::from_secs(2));
        Self { flights, versions, key: "k".into(), running, row }
    }

    fn join(&self) -> Joined {
        let since = || {
            let cell = self.versions.cell("v");
            let at = cell.begin();
            vec![Since { cell, at }]
        };
        self.flights.join(&self.key, TypeId::of::<usize>(), since, &Caller::default())
    }

    /// Calls as the engine does for a function that borrows: lead, or follow until a run lands.
    fn call(&self, dropped: bool) -> Option<usize> {
        loop {
            match self.join() {
                Joined::Lead(leader, _) if dropped => {
                    drop(leader);
                    return None;
                }
                Joined::Lead(leader, _) => {
                    assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "two runs of one key");
                    let row = self.row.load(Ordering::SeqCst);
                    self.running.fetch_sub(1, Ordering::SeqCst);
                    leader.complete(FlightOutcome::Value(Arc::new(row)));
                    return Some(row);
                }
                // A lost wake-up is a deadlock, which the scheduler detects.
                Joined::Follow(flight) => match landed(flight) {
                    FlightOutcome::Abandoned => {}
                    landing => return Some(value(&landing)),
                },
            }
        }
    }

    /// Starts or joins a run of a function that owns its arguments: the run is a task of its own,
    /// which ends when no caller waits for it.
    fn share(&self) -> Flight {
        match self.join() {
            Joined::Follow(flight) => flight,
            Joined::Lead(leader, flight) => {
                let key = self.clone();
                thread::spawn(move || key.run(&leader));
                flight
            }
        }
    }

    fn run(&self, leader: &Leader) {
        let row = self.row.load(Ordering::SeqCst);
        let work = async {
            thread::yield_now();
            FlightOutcome::Value(Arc::new(row))
        };
        let landing = match block_on(futures::future::select(Box::pin(leader.unwanted()), Box::pin(work))) {
            Either::Left(((), _)) => FlightOutcome::Abandoned,
            Either::Right((landing, _)) => landing,
        };
        leader.complete(landing);
    }

    /// Waits for a run. Retries with a new one if a run ends before it is joined.
    fn shared(&self) -> usize {
        loop {
            match landed(self.share()) {
                FlightOutcome::Abandoned => {}
                landing => return value(&landing),
            }
        }
    }

    fn detach(&self) {
        self.flights.detach(&self.key);
    }
}

fn landed(flight: Flight) -> FlightOutcome {
    block_on(async move { flight.outcome(&Caller::default(), "k").await })
}

fn value(landing: &FlightOutcome) -> usize {
    match landing {
        FlightOutcome::Value(value) => *value.downcast_ref().unwrap(),
        _ => panic!("no value landed"),
    }
}

fn spawn<T: Send + 'static>(key: &Key, work: impl FnOnce(&Key) -> T + Send + 'static) -> thread::JoinHandle<T> {
    let key = key.clone();
    thread::spawn(move || work(&key))
}

/// Three callers of one key.
pub fn callers_share_one_run() {
    let key = Key::new();
    let others = [spawn(&key, |key| key.call(false)), spawn(&key, |key| key.call(false))];
    assert_eq!(key.call(false), Some(0));
    others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), Some(0)));
    assert_eq!(key.flights.attached_keys(), 0);
}

/// One of them leads, if it comes first, and is dropped.
pub fn a_follower_leads_where_the_leader_is_dropped() {
    let key = Key::new();
    let others = [spawn(&key, |key| key.call(true).unwrap_or(0)), spawn(&key, |key| key.call(false).unwrap())];
    assert_eq!(key.call(false), Some(0));
    others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), 0));
    assert_eq!(key.flights.attached_keys(), 0);
}

/// Three callers of one key, whose run is a task of its own.
pub fn callers_share_one_task() {
    let key = Key::new();
    let others = [spawn(&key, Key::shared), spawn(&key, Key::shared)];
    assert_eq!(key.shared(), 0);
    others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), 0));
    assert_eq!(key.flights.attached_keys(), 0);
}

/// One of three callers that wait for a task gives up immediately.
pub fn a_task_goes_on_where_one_that_waits_is_dropped() {
    let key = Key::new();
    let impatient = spawn(&key, |key| {
        let flight = key.share();
        let _given_up = flight.outcome(&Caller::default(), "k").now_or_never();
    });
    let patient = spawn(&key, Key::shared);
    assert_eq!(key.shared(), 0);
    assert_eq!(patient.join().unwrap(), 0);
    impatient.join().unwrap();
}

/// A caller after a write and its detachment does not get a value that was read before.
pub fn a_caller_after_a_detachment_joins_no_earlier_run() {
    let key = Key::new();
    let earlier = spawn(&key, read);
    let another = spawn(&key, read);
    key.row.store(1, Ordering::SeqCst);
    key.detach();
    assert_eq!(read(&key), 1);
    earlier.join().unwrap();
    another.join().unwrap();
    assert_eq!(key.flights.attached_keys(), 0);
}

/// The same for a change of a version that the value depends on.
pub fn a_caller_after_a_change_of_a_version_joins_no_earlier_run() {
    let key = Key::new();
    let earlier = spawn(&key, read);
    key.row.store(1, Ordering::SeqCst);
    key.versions.changed("v");
    assert_eq!(read(&key), 1);
    earlier.join().unwrap();
}

/// A detached run ends while the run that replaced it continues.
pub fn a_run_that_ends_detaches_no_other() {
    let key = Key::new();
    let Joined::Lead(first, _) = key.join() else { panic!("no other run begins") };
    key.detach();
    let Joined::Lead(second, _) = key.join() else { panic!("the first is detached") };
    let ends = thread::spawn(move || first.complete(FlightOutcome::Value(Arc::new(1_usize))));
    let joins = spawn(&key, |key| matches!(key.join(), Joined::Follow(_)));
    assert!(joins.join().unwrap(), "the second can be joined until it ends");
    ends.join().unwrap();
    assert!(matches!(key.join(), Joined::Follow(_)), "the first has detached the second");
    second.complete(FlightOutcome::Abandoned);
    assert_eq!(key.flights.attached_keys(), 0);
}

/// Calls while a detached run of the key may continue.
fn read(key: &Key) -> usize {
    loop {
        match key.join() {
            Joined::Lead(leader, _) => {
                let row = key.row.load(Ordering::SeqCst);
                leader.complete(FlightOutcome::Value(Arc::new(row)));
                return row;
            }
            Joined::Follow(flight) => match landed(flight) {
                FlightOutcome::Abandoned => {}
                landing => return value(&landing),
            },
        }
    }
}
