//! A node's link: the real supervisor over a simulated transport, and what must hold for it at any
//! time.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "test code: it may panic")]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, oneshot};

use super::{
    BEAT_MS, CONNECT_TIMEOUT_MS, Connection, LINKS, MAX_STALENESS, MAX_STALENESS_MS, RESPONSE_TIMEOUT_MS, World,
};
use crate::clock::SleepWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Operation;
use crate::store::memory::MemoryStore;
use crate::store::supervisor::{Effect, LOSS, Seen, Supervised, Transport};

/// One connection, kept as long as it is used.
pub(super) struct Session {
    world: World,
    pub(super) connection: usize,
    lost: Notify,
}

/// The environment of one node's supervisor.
struct Link {
    world: World,
    node: usize,
    sleep: SleepWatch,
}

impl Link {
    fn new(world: &World, node: usize) -> Self {
        let sleep = SleepWatch::new(&world.state().nodes[node].clock);
        Self { world: world.clone(), node, sleep }
    }
}

impl World {
    /// Supervises a node's connection until the node is killed.
    pub(super) fn supervise(&self, node: usize) {
        let link = Arc::new(Link::new(self, node));
        #[expect(clippy::disallowed_methods, reason = "the simulated processes are tasks of this runtime")]
        drop(tokio::spawn(async move { Supervised::new(link, MAX_STALENESS).run().await }));
    }

    /// Notifies the client that the connection is lost.
    pub(super) fn notice(&self, connection: usize) {
        let frozen = self.frozen(&mut self.state(), connection);
        if let Some(frozen) = frozen {
            return self.after(frozen, move |world| world.notice(connection));
        }
        let (session, pushes) = {
            let state = self.state();
            let node = &state.nodes[state.connections[connection].node];
            let session = node.current.clone().filter(|session| session.connection == connection);
            (session, Arc::clone(&node.pushes))
        };
        match session {
            Some(session) => {
                pushes.gap();
                session.lost.notify_one();
            }
            None => self.close(connection),
        }
    }

    /// Makes the server close the node's previous connection: requests in flight on it are never
    /// executed.
    fn end_predecessor(&self, node: usize) {
        let mut state = self.state();
        if let Some(predecessor) = state.nodes[node].predecessor {
            state.connections[predecessor].dead_out = true;
        }
    }

    /// Executes an operation on the current connection, or on the next one before calls use it.
    pub(super) fn later(&self, node: usize, operation: Operation) {
        let (current, outstanding) = {
            let state = self.state();
            (state.connection_of(node), Arc::clone(&state.nodes[node].outstanding))
        };
        outstanding.add(operation);
        if let Some(connection) = current {
            let settle = move |world: &World, store: &MemoryStore| -> super::Event {
                world.settle_on(connection, store);
                Box::new(|_: &World| {})
            };
            self.send(connection, "what is outstanding", Box::new(settle));
        }
    }

    /// Skips this if the node has given up the connection: requests sent on it do not cover
    /// operations added since, and its replies are not read.
    fn settle_on(&self, connection: usize, store: &MemoryStore) {
        let node = self.state().connections[connection].node;
        if self.state().connection_of(node) == Some(connection) {
            self.settle(node, store);
        }
    }

    fn settle(&self, node: usize, store: &MemoryStore) {
        let outstanding = Arc::clone(&self.state().nodes[node].outstanding);
        // The embedded store answers at once.
        drop(outstanding.settle(store).now_or_never());
    }

    /// Drops everything in flight to the client; whoever waits for it learns of the loss.
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

    /// Waits for `work`, at most for this long. A frozen process notices the timeout when it runs
    /// again, and also gets a reply that has arrived by then.
    pub(super) async fn bounded<T>(&self, node: usize, ms: u64, work: impl Future<Output = T>) -> Option<T> {
        let end = async {
            self.pause(ms).await;
            self.until_it_runs(node).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = end => None,
        }
    }

    /// Resolves when the process at this node runs.
    async fn until_it_runs(&self, node: usize) {
        loop {
            let left = {
                let mut state = self.state();
                let left = state.nodes[node].frozen_until.checked_sub(self.now()).filter(|left| *left > 0);
                let stream = LINKS | (node as u64) << 32;
                left.map(|left| left + state.draw(stream, 50))
            };
            match left {
                Some(left) => self.pause(left).await,
                None => return,
            }
        }
    }
}

impl Link {
    /// Sends a request for the server's time and waits for the reply.
    async fn round_trip(
        &self,
        connection: usize,
        what: &'static str,
        executed: impl FnOnce(&World, &MemoryStore) + Send + 'static,
    ) -> Result<()> {
        let (clock, offset) = {
            let state = self.world.state();
            let node = &state.nodes[self.node];
            (node.clock.clone(), Arc::clone(&node.offset))
        };
        let before = clock.boot();
        let (answer, answered) = oneshot::channel();
        let request = move |world: &World, store: &MemoryStore| -> super::Event {
            executed(world, store);
            let time = world.0.clock.wall();
            // An error means that the caller no longer waits.
            Box::new(move |_: &World| answer.send(time).unwrap_or_default())
        };
        self.world.send(connection, what, Box::new(request));
        let time = answered.await.map_err(|_lost| unavailable(what))?;
        offset.learn_between(time, before, clock.boot());
        Ok(())
    }

    /// Checks what must hold when an effect is carried out.
    fn check(&self, effect: Effect, session: Option<&Arc<Session>>) {
        let world = &self.world;
        let state = world.state();
        let node = &state.nodes[self.node];
        let now = world.now();
        let broken = match effect {
            Effect::Trust(until) => {
                let answered = session.and_then(|session| state.connections[session.connection].answered);
                let end = answered.map_or(0, |sent_at| sent_at + MAX_STALENESS_MS);
                (until > end).then(|| format!("trusts its link for {} ms too long", until - end))
            }
            Effect::Publish => (!node.knows_gap).then(|| "uses a link before its gap was reported".to_owned()),
            Effect::Gap => (node.current.is_none() && node.trust.holds(node.clock.coarse()))
                .then(|| "trusts a link that it has lost".to_owned()),
            Effect::Revoke | Effect::Unpublish => None,
        };
        let index = self.node;
        drop(state);
        if let Some(what) = broken {
            world.fault(|| format!("node {index} {what}, at {now}"));
        }
    }
}

impl Transport for Link {
    type Session = Session;

    fn now(&self) -> u64 {
        self.world.state().nodes[self.node].clock.coarse()
    }

    fn has_slept(&self) -> bool {
        let clock = self.world.state().nodes[self.node].clock.clone();
        self.sleep.has_slept(&clock)
    }

    fn is_closed(&self) -> bool {
        self.world.state().nodes[self.node].dead
    }

    async fn rest(&self, pause: Duration) {
        self.world.0.clock.sleep(pause).await;
        self.world.until_it_runs(self.node).await;
    }

    async fn in_time<S: Send>(&self, attempt: impl Future<Output = Result<S>> + Send) -> Result<S> {
        let attempt = self.world.bounded(self.node, CONNECT_TIMEOUT_MS, attempt);
        attempt.await.unwrap_or_else(|| Err(unavailable("connect")))
    }

    async fn connect(&self) -> Result<Session> {
        let now = self.world.now();
        let connection = {
            let mut state = self.world.state();
            let node = &mut state.nodes[self.node];
            (node.knows_gap, node.attempts) = (false, node.attempts + 1);
            let stream = LINKS | (self.node as u64) << 32 | node.attempts;
            if now < state.nodes[self.node].unreachable_until {
                return Err(unavailable("connect"));
            }
            state.connections.push(Connection {
                node: self.node,
                stream,
                last_in: now,
                last_out: now,
                ..Connection::default()
            });
            state.connections.len() - 1
        };
        let session = Session { world: self.world.clone(), connection, lost: Notify::new() };
        self.round_trip(connection, "login", |_, _| {}).await?;
        Ok(session)
    }

    async fn set_up(&self, session: &mut Session) -> Result<bool> {
        let node = self.node;
        let set_up = move |world: &World, store: &MemoryStore| {
            world.end_predecessor(node);
            world.settle(node, store);
        };
        self.round_trip(session.connection, "set-up", set_up).await?;
        Ok(true)
    }

    async fn watch(&self, session: &Arc<Session>) -> Seen {
        let doubt = Arc::clone(&self.world.state().nodes[self.node].doubt);
        let seen = tokio::select! {
            biased;
            () = session.lost.notified() => Seen::Lost(unavailable("connection")),
            () = doubt.notified() => Seen::Due,
            () = self.world.pause(BEAT_MS) => Seen::Due,
        };
        self.world.until_it_runs(self.node).await;
        if self.is_closed() { Seen::Closed } else { seen }
    }

    async fn ask(&self, session: &Session) -> Result<()> {
        // Includes what was added after the connection was set up, and before calls used it.
        let connection = session.connection;
        let settle = move |world: &World, store: &MemoryStore| world.settle_on(connection, store);
        let heartbeat = self.round_trip(connection, "heartbeat", settle);
        let answered = self.world.bounded(self.node, RESPONSE_TIMEOUT_MS, heartbeat).await;
        answered.unwrap_or_else(|| Err(unavailable("heartbeat")))
    }

    fn apply(&self, effect: Effect, session: Option<&Arc<Session>>) {
        let (pushes, trust) = {
            let mut state = self.world.state();
            let node = &mut state.nodes[self.node];
            node.knows_gap |= effect == Effect::Gap;
            (Arc::clone(&node.pushes), Arc::clone(&node.trust))
        };
        self.check(effect, session);
        match effect {
            Effect::Gap => pushes.gap(),
            Effect::Trust(until) => trust.extend(until),
            Effect::Revoke => trust.revoke(),
            Effect::Publish => {
                let mut state = self.world.state();
                let node = &mut state.nodes[self.node];
                node.current = session.filter(|_| !node.dead).cloned();
                node.predecessor = session.map(|session| session.connection);
                node.epoch += 1;
            }
            Effect::Unpublish => {
                let session = self.world.state().nodes[self.node].current.take();
                // Dropped outside the lock: the last reference closes the connection.
                drop(session);
            }
        }
    }

    fn failed(&self, error: &Error) {
        self.world.note(|| format!("node {}: cannot connect ({:?})", self.node, error.kind()));
    }

    fn connected(&self) {
        self.world.note(|| format!("node {}: uses a new connection", self.node));
    }

    fn lost(&self, _error: &Error) {
        self.world.note(|| format!("node {}: gives its connection up", self.node));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.world.close(self.connection);
    }
}

/// Cleans up after a killed process: it no longer reads anything.
pub(super) fn end(world: &World, node: usize) {
    let link = Link::new(world, node);
    LOSS.into_iter().for_each(|effect| link.apply(effect, None));
    world.state().nodes[node].doubt.notify_one();
}

fn unavailable(step: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, step)
}
