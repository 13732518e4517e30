//! A simulated process and its clients.

use std::time::Duration;

use cache_core::Cache;
use cache_core::testing::sim::Node;
use tokio::task::JoinSet;

use super::super::client::Client;
use super::super::functions::Build;
use super::{CLIENTS, PLAN, Run, STEP_MS};

/// One process with its clients.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) cache: Cache,
    pub(super) build: Build,
    pub(super) clients: JoinSet<()>,
}

impl Process {
    pub(super) fn start(run: &Run) -> Self {
        let (world, plan) = (&run.shared.world, &run.shared.plan);
        let node = world.node();
        let draw = |limit| world.draw_from(PLAN | (1 << 32) | node.index() as u64, limit);
        if !plan.calm {
            // Clocks differ between machines.
            node.step_clock(draw(2 * STEP_MS) as i64 - STEP_MS as i64);
        }
        let room = if plan.narrow { 3000 } else { 1 << 16 };
        let cache = node.cache(Cache::builder().lease(Duration::from_secs(3)).local_limit_bytes(room));
        let build = if plan.two_builds && draw(2) == 0 { Build::New } else { Build::Old };
        let mut process = Self { node, cache, build, clients: JoinSet::new() };
        for client in 0..CLIENTS {
            let client = process.client(run, 1 + process.node.index() * CLIENTS + client);
            process.clients.spawn(client.go_on());
        }
        process
    }

    pub(super) fn client(&self, run: &Run, who: usize) -> Client {
        Client::new(run.at(self.node.index()), self.cache.clone(), self.node.clone(), self.build, who)
    }

    pub(super) fn kill(&mut self, run: &Run) {
        self.node.kill();
        self.clients.abort_all();
        run.state().reached.add_stats(&self.cache);
    }
}
