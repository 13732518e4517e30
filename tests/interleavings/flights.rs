//! Models of single flight.

use std::any::TypeId;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use crate::single_flight::{Flights, Joined, Landing};

/// One key, and what its callers see.
#[derive(Clone)]
struct Key {
    flights: Arc<Flights>,
    key: Arc<str>,
    /// Runs under way that can be joined.
    running: Arc<AtomicUsize>,
    /// What a run reads.
    row: Arc<AtomicUsize>,
}

impl Key {
    fn new() -> Self {
        let (running, row) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        Self { flights: Flights::new(), key: "k".into(), running, row }
    }

    fn join(&self) -> Joined {
        self.flights.join(&self.key, TypeId::of::<usize>())
    }

    /// A call as the engine makes it for a function that borrows: lead, or follow until something lands.
    fn call(&self, dropped: bool) -> Option<usize> {
        loop {
            match self.join() {
                Joined::Lead(lead) if dropped => {
                    drop(lead);
                    return None;
                }
                Joined::Lead(lead) => {
                    assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "two runs of one key");
                    let row = self.row.load(Ordering::SeqCst);
                    self.running.fetch_sub(1, Ordering::SeqCst);
                    lead.land(Landing::Value(Arc::new(row)));
                    return Some(row);
                }
                // A lost wake-up is a deadlock, which the scheduler finds.
                Joined::Follow(flight) => match block_on(flight) {
                    Landing::Abandoned => {}
                    landing => return Some(value(&landing)),
                },
            }
        }
    }

    /// The same for a function that owns: whoever waits drives it.
    fn share(&self, run: impl Future<Output = Landing> + Send + 'static) -> BoxFuture<'static, Landing> {
        let (flight, _is_new) = self.flights.share(&self.key, TypeId::of::<usize>(), || run.boxed());
        flight.boxed()
    }

    /// A run that reads the row and waits a little.
    fn run(&self) -> impl Future<Output = Landing> + Send + 'static {
        let row = Arc::clone(&self.row);
        async move {
            let row = row.load(Ordering::SeqCst);
            yield_once().await;
            Landing::Value(Arc::new(row))
        }
    }

    fn detach(&self) {
        self.flights.detach(&self.key);
    }
}

fn value(landing: &Landing) -> usize {
    match landing {
        Landing::Value(value) => *value.downcast_ref().unwrap(),
        _ => panic!("no value landed"),
    }
}

/// Pending once, and woken at once.
fn yield_once() -> impl Future<Output = ()> + Send {
    let mut is_second = false;
    futures::future::poll_fn(move |context: &mut Context<'_>| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
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

/// Three callers of one key, for a run that any of them may drive.
pub fn callers_drive_one_run() {
    let key = Key::new();
    let call = |key: &Key| {
        let (run, running) = (key.run(), Arc::clone(&key.running));
        let counted = async move {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two runs of one key");
            let landing = run.await;
            running.fetch_sub(1, Ordering::SeqCst);
            landing
        };
        value(&block_on(key.share(counted)))
    };
    let others = [spawn(&key, call), spawn(&key, call)];
    assert_eq!(call(&key), 0);
    others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), 0));
    assert_eq!(key.flights.attached_keys(), 0);
}

/// Of three that drive a run, one gives up after its first poll.
pub fn a_driven_run_goes_on_where_one_that_waits_is_dropped() {
    let key = Key::new();
    let impatient = spawn(&key, |key| drop(key.share(key.run()).now_or_never()));
    let patient = spawn(&key, |key| value(&block_on(key.share(key.run()))));
    assert_eq!(value(&block_on(key.share(key.run()))), 0);
    assert_eq!(patient.join().unwrap(), 0);
    impatient.join().unwrap();
    assert_eq!(key.flights.attached_keys(), 0);
}

/// A caller that comes after a write and its detachment does not get what was read before.
pub fn who_comes_after_a_detachment_joins_no_earlier_run() {
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

/// The same for runs that are driven by those who wait.
pub fn who_comes_after_a_detachment_drives_no_earlier_run() {
    let key = Key::new();
    let share = |key: &Key| value(&block_on(key.share(key.run())));
    let earlier = spawn(&key, share);
    key.row.store(1, Ordering::SeqCst);
    key.detach();
    assert_eq!(share(&key), 1);
    earlier.join().unwrap();
    assert_eq!(key.flights.attached_keys(), 0);
}

/// A call beside which another run of the key may go on that was detached.
fn read(key: &Key) -> usize {
    loop {
        match key.join() {
            Joined::Lead(lead) => {
                let row = key.row.load(Ordering::SeqCst);
                lead.land(Landing::Value(Arc::new(row)));
                return row;
            }
            Joined::Follow(flight) => match block_on(flight) {
                Landing::Abandoned => {}
                landing => return value(&landing),
            },
        }
    }
}
