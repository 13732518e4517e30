//! A value that several clients write concurrently, by explicit sets only. It is never computed.

use cache_core::testing::sim::Node;
use cache_core::{Cache, cached};

use super::client::Client;
use super::functions::Failed;
use super::history::CellRead;

#[cached(name = "cell", ttl = 60, skip(cache), cache = cache)]
async fn cell(cache: &Cache) -> Result<u64, Failed> {
    let _ = cache;
    Err(Failed)
}

impl Client {
    pub(super) async fn use_cell(&self) {
        self.settle_failed_writes();
        match self.draw(4) {
            0 if !self.run.is_calm() => self.write_cell().await,
            1 => {
                let began = self.run.world().now();
                if let Ok(Some(value)) = cell::entry().on(&self.cache).get().await {
                    self.check_cell(value, began);
                }
            }
            _ => {
                let began = self.run.world().now();
                if let Ok(value) = cell(&self.cache).await {
                    self.check_cell(value, began);
                }
            }
        }
    }

    /// R26: marks failed writes as settled on nodes whose follow-up work is done.
    fn settle_failed_writes(&self) {
        let (now, failed) = (self.run.world().now(), std::mem::take(&mut self.run.state().failed_writers));
        let (settled, others): (Vec<Node>, Vec<Node>) = failed.into_iter().partition(Node::is_settled);
        let mut state = self.run.state();
        state.failed_writers.extend(others);
        for node in settled {
            state.reached.late_writes += state.history.settled(node.index(), now);
        }
    }

    async fn write_cell(&self) {
        let world = self.run.world();
        let value = self.run.state().history.begin_write(world.now());
        self.note(|| format!("write {value} into the cell"));
        let done = cell::entry().on(&self.cache).set(value).await;
        self.note(|| format!("write {value} into the cell: {}", if done.is_ok() { "done" } else { "failed" }));
        let mut state = self.run.state();
        state.history.end_write(value, world.now(), self.node.index(), done.is_ok());
        state.reached.cell_writes += u64::from(done.is_ok());
        drop(state);
        if done.is_err() {
            self.run.state().failed_writers.push(self.node.clone());
        }
    }

    fn check_cell(&self, value: u64, began: u64) {
        self.note(|| format!("read of the cell, begun at {began}: {value}"));
        let read = CellRead { value, node: self.node.index(), began };
        let mut state = self.run.state();
        state.reached.cell_reads += 1;
        let violation = state.history.check_cell(&read, self.staleness(began));
        drop(state);
        if let Some(violation) = violation {
            self.run.violates(violation.rule, violation.what);
        }
    }
}
