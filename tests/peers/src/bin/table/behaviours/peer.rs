//! What every peer can do: read through, invalidate and set one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::BoxFuture;
use tokio::sync::watch;

/// The value of a read, or the text of an error.
pub type Answer = Result<u64, String>;

/// A row of a database and the function that reads it.
#[derive(Debug)]
pub struct Source {
    row: AtomicU64,
    fails: AtomicBool,
    computes: watch::Sender<usize>,
    is_open: watch::Sender<bool>,
}

impl Source {
    /// Makes a row with this value. Computes end at once.
    pub fn with_row(value: u64) -> Arc<Self> {
        let row = AtomicU64::new(value);
        let (computes, is_open) = (watch::Sender::new(0), watch::Sender::new(true));
        Arc::new(Self { row, fails: AtomicBool::new(false), computes, is_open })
    }

    /// Makes a row with the value 1. Computes read it and then wait for
    /// [`release`](Self::release).
    pub fn shut() -> Arc<Self> {
        let source = Self::with_row(1);
        source.is_open.send_replace(false);
        source
    }

    /// Changes the row.
    pub fn write(&self, value: u64) {
        self.row.store(value, Ordering::SeqCst);
    }

    /// Makes every compute fail.
    pub fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }

    /// The cached function: reads the row, waits, and returns what it has read.
    pub async fn compute(&self) -> Answer {
        let row = self.row.load(Ordering::SeqCst);
        self.computes.send_modify(|computes| *computes += 1);
        let mut is_open = self.is_open.subscribe();
        is_open.wait_for(|is_open| *is_open).await.map_err(|closed| closed.to_string())?;
        if self.fails.load(Ordering::SeqCst) { Err("the database is down".into()) } else { Ok(row) }
    }

    /// Waits until a compute has read the row.
    pub async fn arrival(&self) {
        let mut computes = self.computes.subscribe();
        computes.wait_for(|computes| *computes > 0).await.expect("the source lives");
    }

    /// Lets the computes end.
    pub fn release(&self) {
        self.is_open.send_replace(true);
    }

    /// Returns how many computes have begun.
    pub fn computes(&self) -> usize {
        *self.computes.borrow()
    }
}

/// A cache of a crate, as one process has it.
pub trait Peer: Send + Sync {
    /// Reads through the cache.
    fn read(&self, source: Arc<Source>, id: u64) -> BoxFuture<'_, Answer>;
    /// Removes the entry.
    fn invalidate(&self, id: u64) -> BoxFuture<'_, Result<(), String>>;
    /// Stores a value.
    fn set(&self, id: u64, value: u64) -> BoxFuture<'_, Result<(), String>>;
}
