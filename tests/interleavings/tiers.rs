//! Models of the local tier and of the versions that its entries are checked against.

use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use crate::clock::Clock;
use crate::local::{Hit, Local, ParsedKey, Service};
use crate::store::{Trust, Version};
use crate::versions::{Dependencies, Versions, shared};

const KEY: &str = "k";

/// A process and the store it reads.
#[derive(Clone)]
struct Node {
    local: Arc<Local>,
    versions: Arc<Versions>,
    /// The content of the store.
    row: Arc<AtomicUsize>,
    version: Arc<AtomicUsize>,
}

impl Node {
    fn new() -> Self {
        let local = Local::new(1 << 16, Duration::from_secs(60), Arc::new(Trust), Clock).unwrap();
        let (row, version) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        Self { local: Arc::new(local), versions: Arc::new(Versions::new(1 << 16)), row, version }
    }

    /// Fills the tier with a tracked read.
    fn read(&self, under: Dependencies) {
        let mark = self.local.begin(&KEY.into());
        let row = self.row.load(Ordering::SeqCst);
        let service = Service {
            fresh: Duration::from_secs(60),
            calm: Duration::ZERO,
            stale: Duration::ZERO,
            longest: Duration::MAX,
            ahead_ms: 0.0,
            fill_id: row as u64,
        };
        let value: crate::value::Erased = Arc::new(row);
        mark.keep(&value, 8, service, under);
    }

    /// Loads the stored version. Returns the dependencies for L1 if the version is known.
    fn learn(&self) -> Option<Dependencies> {
        let cell = self.versions.cell("v");
        let pending = cell.begin();
        let version = Version(self.version.load(Ordering::SeqCst) as u64);
        cell.learn(pending, version);
        cell.depend(version).map(|dependency| shared(None, vec![dependency]))
    }

    fn served(&self) -> Option<usize> {
        match self.local.get(&ParsedKey::parse(KEY).as_ref(), |value| value.downcast_ref().copied())? {
            Hit::Fresh(row) | Hit::Due(row, _) => Some(row),
        }
    }
}

fn spawn(node: &Node, work: impl FnOnce(&Node) + Send + 'static) -> thread::JoinHandle<()> {
    let node = node.clone();
    thread::spawn(move || work(&node))
}

fn changes_beside_two_reads(change: fn(&Local)) {
    let node = Node::new();
    let reads = [
        spawn(&node, |node| node.read(Dependencies::default())),
        spawn(&node, |node| {
            node.read(Dependencies::default());
            // Any value is allowed, but it must have been stored.
            node.served();
        }),
    ];
    node.row.store(1, Ordering::SeqCst);
    change(&node.local);
    assert_ne!(node.served(), Some(0), "served after the change was reported");
    reads.into_iter().for_each(|read| read.join().unwrap());
    assert_ne!(node.served(), Some(0), "kept after the change was reported");
    assert_eq!(node.local.marked_keys(), 0);
}

/// A change of the key is pushed during two reads of it.
pub fn no_fill_survives_a_change_of_its_key() {
    changes_beside_two_reads(|local| {
        local.drop_key(KEY);
    });
}

/// The link is lost during two reads.
pub fn no_fill_survives_a_gap() {
    changes_beside_two_reads(Local::clear);
}

/// A read that is given up leaves nothing behind, whatever runs concurrently.
pub fn pending_fills_end_with_their_reads() {
    let node = Node::new();
    let given_up = spawn(&node, |node| drop(node.local.begin(&KEY.into())));
    let read = spawn(&node, |node| node.read(Dependencies::default()));
    node.row.store(1, Ordering::SeqCst);
    node.local.drop_key(KEY);
    given_up.join().unwrap();
    read.join().unwrap();
    assert_ne!(node.served(), Some(0));
    assert_eq!(node.local.marked_keys(), 0);
}

/// A version changes while two threads learn it.
pub fn no_dependency_holds_after_its_version_has_changed() {
    let node = Node::new();
    let before = node.learn().unwrap();
    let learned = |node: &Node| {
        let under = node.learn();
        // It was read before the change, or after it.
        drop(under);
    };
    let others = [spawn(&node, learned), spawn(&node, learned)];
    node.version.store(1, Ordering::SeqCst);
    node.versions.changed("v");
    assert!(!before.hold(), "right after it was reported");
    others.into_iter().for_each(|other| other.join().unwrap());
    assert!(!before.hold(), "for good");
}

/// A value is filled under a version that changes in the meantime.
pub fn no_value_is_served_under_a_version_that_has_changed() {
    let node = Node::new();
    let fill = |node: &Node| {
        if let Some(under) = node.learn() {
            node.read(under);
        }
    };
    let others = [spawn(&node, fill), spawn(&node, fill)];
    // An invalidation by tag, and its push. The key itself does not change.
    node.row.store(1, Ordering::SeqCst);
    node.version.store(1, Ordering::SeqCst);
    node.versions.changed("v");
    assert_ne!(node.served(), Some(0), "right after it was reported");
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_ne!(node.served(), Some(0), "for good");
    assert_eq!(node.local.marked_keys(), 0);
}

/// Values are filled under a version during the loss of the link, in which the version changes
/// without a push.
pub fn no_value_is_kept_under_a_version_from_before_a_gap() {
    let node = Node::new();
    let fill = |node: &Node| {
        if let Some(under) = node.learn() {
            node.read(under);
        }
    };
    let others = [spawn(&node, fill), spawn(&node, fill)];
    node.row.store(1, Ordering::SeqCst);
    node.version.store(1, Ordering::SeqCst);
    // In the same order as `Coherence`.
    node.versions.clear();
    thread::yield_now();
    node.local.clear();
    assert_ne!(node.served(), Some(0), "right after the gap");
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_ne!(node.served(), Some(0), "for good");
    assert_eq!(node.local.marked_keys(), 0);
}
