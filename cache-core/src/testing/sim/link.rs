//! The life of a connection: set up, used, found dead, replaced.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test's world: it may fail loudly")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BEAT_MS, Connection, MAX_STALENESS_MS, RESPONSE_TIMEOUT_MS, World};

impl World {
    /// As the supervisor does it: set up, tell of the gap, trust, publish.
    pub(super) fn connect(&self, node: usize) {
        let mut state = self.state();
        let now = self.now();
        if state.nodes[node].dead || state.nodes[node].current.is_some() {
            return;
        }
        if now < state.nodes[node].unreachable_until {
            drop(state);
            return self.after(50, move |world| world.connect(node));
        }
        let connection = state.connections.len();
        state.connections.push(Connection { node, last_in: now, last_out: now, ..Connection::default() });
        drop(state);
        let publish = move |world: &World| world.publish(node, connection, now);
        self.send(connection, "set-up", Box::new(move |_, _| Box::new(publish)));
        self.after(1000, move |world| {
            if world.state().nodes[node].current != Some(connection) {
                world.close(connection);
                world.connect(node);
            }
        });
    }

    fn publish(&self, node: usize, connection: usize, alive_at: u64) {
        let (pushes, trust) = {
            let state = self.state();
            if state.nodes[node].dead || state.nodes[node].current.is_some() {
                return;
            }
            (Arc::clone(&state.nodes[node].pushes), Arc::clone(&state.nodes[node].trust))
        };
        self.note(|| format!("connection {connection}: used by node {node}"));
        pushes.gap();
        trust.extend(self.0.start_ms + alive_at + MAX_STALENESS_MS);
        {
            let mut state = self.state();
            state.nodes[node].current = Some(connection);
            state.nodes[node].epoch += 1;
        }
        self.after(BEAT_MS, move |world| world.beat(connection));
    }

    fn beat(&self, connection: usize) {
        let frozen = self.frozen(&mut self.state(), connection);
        if let Some(frozen) = frozen {
            return self.after(frozen, move |world| world.beat(connection));
        }
        if self.check(connection) {
            self.after(BEAT_MS, move |world| world.beat(connection));
        }
    }

    /// Asks for a sign of life, and gives the connection up if none comes in time. `false`: it is given up already.
    pub(super) fn check(&self, connection: usize) -> bool {
        let (node, trust) = {
            let state = self.state();
            let node = state.connections[connection].node;
            if state.nodes[node].current != Some(connection) {
                return false;
            }
            (node, Arc::clone(&state.nodes[node].trust))
        };
        let (sent_at, answered) = (self.0.clock.coarse(), Arc::new(AtomicBool::new(false)));
        let seen = Arc::clone(&answered);
        let reply = move |world: &World| {
            seen.store(true, Ordering::SeqCst);
            if world.state().nodes[node].current == Some(connection) {
                trust.extend(sent_at + MAX_STALENESS_MS);
            }
        };
        self.send(connection, "heartbeat", Box::new(move |_, _| Box::new(reply)));
        self.after(RESPONSE_TIMEOUT_MS, move |world| {
            if !answered.load(Ordering::SeqCst) {
                world.notice(connection);
            }
        });
        true
    }

    /// The client learns that the connection is lost: it uses it no more, tells of the gap and connects again.
    pub(super) fn notice(&self, connection: usize) {
        let frozen = self.frozen(&mut self.state(), connection);
        if let Some(frozen) = frozen {
            return self.after(frozen, move |world| world.notice(connection));
        }
        let (node, pushes, trust) = {
            let mut state = self.state();
            let node = state.connections[connection].node;
            if state.nodes[node].current != Some(connection) {
                drop(state);
                return self.close(connection);
            }
            state.nodes[node].current = None;
            (node, Arc::clone(&state.nodes[node].pushes), Arc::clone(&state.nodes[node].trust))
        };
        self.note(|| format!("connection {connection}: given up"));
        trust.revoke();
        pushes.gap();
        self.close(connection);
        let backoff = self.draw(500);
        self.after(backoff, move |world| world.connect(node));
    }

    /// What is under way to the client is lost; whoever waits for it learns so.
    pub(super) fn close(&self, connection: usize) {
        let mut state = self.state();
        let link = &mut state.connections[connection];
        (link.closed, link.dead_in) = (true, true);
        let lost = std::mem::take(&mut link.limbo);
        drop(state);
        drop(lost);
    }

    pub(super) fn break_both_ways(&self, connection: usize) {
        let mut state = self.state();
        (state.connections[connection].dead_in, state.connections[connection].dead_out) = (true, true);
    }
}
