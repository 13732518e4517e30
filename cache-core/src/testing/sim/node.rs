//! What a test does to one node of the simulated world.

use std::sync::Arc;
use std::time::Duration;

use super::store::SimStore;
use super::{BEAT_MS, LATEST_RUN_MS, MAX_STALENESS, Node, link};
use crate::builder::CacheBuilder;
use crate::cache::Cache;

impl Node {
    /// Returns the number of the node. Numbers are not reused.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Makes the cache of this process.
    #[must_use]
    pub fn cache(&self, builder: CacheBuilder) -> Cache {
        let store = Arc::new(SimStore::new(self.world.clone(), self.index));
        let clock = self.world.state().nodes[self.index].clock.clone();
        builder.clock(clock).max_staleness(MAX_STALENESS).store(store).in_memory()
    }

    /// Breaks the link, in one direction or both. The client is notified, or has to find out. The
    /// link may not come back for a while. The details are drawn from this sequence, as in the
    /// methods below.
    pub fn cut(&self, stream: u64) {
        let world = &self.world;
        let Some(connection) = world.state().connection_of(self.index) else { return };
        let draw = |limit| world.draw_from(stream, limit);
        let (ways, told, away) = (draw(4), draw(2) == 0, draw(2) == 0);
        let (told_after, away_for) = (draw(1000), draw(6000));
        world.note(|| format!("connection {connection}: cut, ways {ways}"));
        {
            let mut state = world.state();
            state.connections[connection].dead_in |= ways != 1;
            state.connections[connection].dead_out |= ways != 2;
            if away {
                state.nodes[self.index].unreachable_until = world.now() + away_for;
            }
        }
        if told {
            world.after(told_after, move |world| world.notice(connection));
        }
    }

    /// Delays all messages for a while, in one direction or both.
    pub fn stall(&self, stream: u64) {
        let mut state = self.world.state();
        let Some(connection) = state.connection_of(self.index) else { return };
        let (until, ways) = (self.world.now() + state.draw(stream, 3000), state.draw(stream, 3));
        let link = &mut state.connections[connection];
        if ways != 1 {
            link.last_in = link.last_in.max(until);
        }
        if ways != 2 {
            link.last_out = link.last_out.max(until);
        }
        drop(state);
        self.world.note(|| format!("connection {connection}: stalls, ways {ways}"));
    }

    /// Freezes the process for a while (SIGSTOP): nothing arrives, and no timer of its link runs.
    pub fn freeze(&self, ms: u64) {
        self.world.note(|| format!("node {}: frozen for {ms}", self.index));
        let mut state = self.world.state();
        let until = &mut state.nodes[self.index].frozen_until;
        *until = (*until).max(self.world.now() + ms);
    }

    /// Suspends the machine for a while: the process is frozen, and its monotonic clock stops.
    pub fn suspend(&self, ms: u64) {
        self.world.note(|| format!("node {}: asleep for {ms}", self.index));
        self.freeze(ms);
        let mut state = self.world.state();
        let node = &mut state.nodes[self.index];
        node.clock.suspend(Duration::from_millis(ms));
        node.woke_at = node.woke_at.max(Some(self.world.now() + ms));
    }

    /// Returns whether the process, at this time, may have slept without noticing: its next
    /// heartbeat reveals it, unless the link is lost.
    #[must_use]
    pub fn may_not_know_that_it_slept(&self, at: u64) -> bool {
        let woke_at = self.world.state().nodes[self.index].woke_at;
        woke_at.is_some_and(|woke_at| at <= woke_at + BEAT_MS + LATEST_RUN_MS)
    }

    /// Moves the machine's wall clock forward or back.
    pub fn step_clock(&self, by: i64) {
        self.world.note(|| format!("node {}: its wall clock steps by {by}", self.index));
        self.world.state().nodes[self.index].clock.step(by);
    }

    /// Returns the number of operations that wait to be executed in the store.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let outstanding = Arc::clone(&self.world.state().nodes[self.index].outstanding);
        outstanding.len()
    }

    /// Returns whether its link is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.world.state().nodes[self.index].current.is_some()
    }

    /// Returns the number of waiters for a change of a key.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.world.state().nodes[self.index].pushes.count().0
    }

    /// Resolves when the process runs.
    pub async fn thaw(&self) {
        loop {
            let until = self.world.state().nodes[self.index].frozen_until;
            match until.checked_sub(self.world.now()) {
                Some(left) if left > 0 => self.world.pause(left).await,
                _ => return,
            }
        }
    }

    /// Kills the process. What it has sent still arrives.
    pub fn kill(&self) {
        self.world.note(|| format!("node {}: killed", self.index));
        let connection = {
            let mut state = self.world.state();
            state.nodes[self.index].dead = true;
            state.connection_of(self.index)
        };
        // Also for calls that still use the connection.
        connection.into_iter().for_each(|connection| self.world.close(connection));
        link::end(&self.world, self.index);
    }

    /// Returns whether it was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.world.state().nodes[self.index].dead
    }

    /// Returns whether nothing that this process has sent can still be executed late, and no
    /// operation is outstanding.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = self.world.state();
        let node = &state.nodes[self.index];
        !node.dead && node.current.is_some() && node.outstanding.is_empty()
    }

    /// Returns the time by which everything that this process has sent so far has arrived, or never
    /// will.
    #[must_use]
    pub fn arrived_by(&self) -> u64 {
        let state = self.world.state();
        let own = state.connections.iter().filter(|connection| connection.node == self.index);
        own.map(|connection| connection.last_out).max().unwrap_or(0)
    }
}
