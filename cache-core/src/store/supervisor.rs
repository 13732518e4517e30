//! Keeps one connection: decides when it is set up, published, trusted, given up and made again.
//!
//! ```text
//!          connect ──> set up ──> work off ──> gap, trust, publish ──> watch <──> ask
//!   rest ────^                                                           │
//!    ^──────────────────── unpublish, revoke, gap <── lost, no answer ───┘
//! ```
//!
//! [`Rules`] decides, without I/O; [`Supervised`] carries out its decisions over a [`Transport`].
//! The Redis store and the simulation differ only in their transport.
//!
//! Invariants: everything that depends on pushes is emptied after a session is unpublished, and
//! again before the next one is published. A read is trusted for `max_staleness` from the *sending*
//! of the last request that was answered. Pushes and replies arrive in order on one connection, so
//! every change that was complete before that request was sent has been handled.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::millis;
use crate::error::{Error, Result};
use crate::mutants::{self, Invariant};

/// What happened to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The connection is open; its set-up is about to be sent.
    Connected,
    /// The set-up was answered. `tracking`: the server tracks reads.
    SetUp { tracking: bool },
    /// The work before the first use is done. `answered`: the server answered one of its requests.
    WorkedOff { answered: bool },
    /// A heartbeat is about to be sent.
    Asking,
    /// The heartbeat was answered.
    Answered,
    /// The monotonic clock stopped for a time, as it does while the machine sleeps.
    ClockJumped,
    /// The attempt to connect failed.
    Failed,
    /// The connection was lost, or a heartbeat was not answered.
    Lost,
    /// The store was closed, or the supervisor has ended.
    Closed,
}

/// An effect to carry out, in order, before anything else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Notify waiters and listeners that anything may have changed.
    Gap,
    /// Trust reads until this time, on the coarse clock.
    Trust(u64),
    /// Trust nothing.
    Revoke,
    /// Let calls use the new session.
    Publish,
    /// No call may use the session any more.
    Unpublish,
}

/// The effects that end the use of a session. The gap comes last: a caller that registers after it
/// can no longer read through that session.
pub(crate) const LOSS: [Effect; 3] = [Effect::Unpublish, Effect::Revoke, Effect::Gap];

/// Makes the decisions. Time is passed in; nothing here waits.
#[derive(Debug)]
pub(crate) struct Rules {
    max_staleness: u64,
    backoff: Backoff,
    tracking: bool,
    /// When the request in progress was sent.
    sent_at: u64,
    /// When the last answered request was sent.
    answered_at: u64,
    /// Whether the clock has not stopped since the first of them was sent. If it has, an answer
    /// proves nothing about the time since.
    is_continuous: bool,
}

impl Rules {
    pub(crate) fn new(max_staleness: Duration) -> Self {
        Self {
            max_staleness: millis(max_staleness),
            backoff: Backoff::default(),
            tracking: false,
            sent_at: 0,
            answered_at: 0,
            is_continuous: false,
        }
    }

    /// Returns the effects of `event`. `now`: the coarse clock, read after the event.
    pub(crate) fn on(&mut self, event: Event, now: u64) -> Vec<Effect> {
        match event {
            Event::Connected | Event::Asking => {
                (self.sent_at, self.is_continuous) = (now, true);
                Vec::new()
            }
            Event::SetUp { tracking } => {
                (self.tracking, self.answered_at, self.sent_at) = (tracking, self.sent_at, now);
                Vec::new()
            }
            Event::WorkedOff { answered } => {
                if answered {
                    self.answered_at = self.sent_at;
                }
                self.publish(now)
            }
            Event::Answered => {
                self.answered_at = self.sent_at;
                // Not before: a server that accepts connections and closes them at once must not be
                // flooded.
                self.backoff.reset();
                let from = if mutants::removed(Invariant::TrustFromSending) { now } else { self.answered_at };
                if self.is_trusted() { vec![self.trust_from(from)] } else { Vec::new() }
            }
            // Notifications that arrived in the meantime are not handled yet.
            Event::ClockJumped => {
                self.is_continuous = false;
                vec![Effect::Revoke, Effect::Gap]
            }
            Event::Failed => Vec::new(),
            Event::Lost | Event::Closed => LOSS
                .into_iter()
                .filter(|each| *each != Effect::Revoke || !mutants::removed(Invariant::LossRevokesTrust))
                .collect(),
        }
    }

    /// Returns how long to wait before the next attempt.
    pub(crate) fn rest(&mut self) -> Duration {
        self.backoff.next()
    }

    fn publish(&self, now: u64) -> Vec<Effect> {
        let from = if mutants::removed(Invariant::TrustFromLastAnswer) { now } else { self.answered_at };
        let trust = if self.is_trusted() { self.trust_from(from) } else { Effect::Revoke };
        if mutants::removed(Invariant::GapBeforePublish) {
            return vec![trust, Effect::Publish, Effect::Gap];
        }
        vec![Effect::Gap, trust, Effect::Publish]
    }

    fn is_trusted(&self) -> bool {
        self.tracking && self.is_continuous
    }

    fn trust_from(&self, sent_at: u64) -> Effect {
        Effect::Trust(sent_at.saturating_add(self.max_staleness))
    }
}

/// Why the wait for the next heartbeat is over.
pub(crate) enum Seen {
    /// The heartbeat is due, or a call had no answer.
    Due,
    /// The connection is lost.
    Lost(Error),
    /// The store was closed.
    Closed,
}

/// A connection's I/O and clock.
pub(crate) trait Transport: Send + Sync + 'static {
    /// One connection.
    type Session: Send + Sync;

    /// Returns the coarse clock.
    fn now(&self) -> u64;

    /// Returns whether that clock has stopped since the last call, as it does while the machine
    /// sleeps.
    fn has_slept(&self) -> bool;

    /// Returns whether no session may be published any more.
    fn is_closed(&self) -> bool;

    /// Waits before the next attempt; ends early once the store is closed.
    fn rest(&self, pause: Duration) -> impl Future<Output = ()> + Send;

    /// Bounds the connection and its set-up by the connect timeout.
    fn in_time<S: Send>(
        &self,
        attempt: impl Future<Output = Result<S>> + Send,
    ) -> impl Future<Output = Result<S>> + Send;

    /// Connects and logs in.
    fn connect(&self) -> impl Future<Output = Result<Self::Session>> + Send;

    /// Makes the connection ready. Returns whether the server tracks its reads.
    fn set_up(&self, session: &mut Self::Session) -> impl Future<Output = Result<bool>> + Send;

    /// Does the work that must be done on a connection before any call uses it. Returns whether the
    /// server was asked and has answered. The default does nothing.
    fn work_off(&self, session: &Arc<Self::Session>) -> impl Future<Output = Result<bool>> + Send {
        let _ = session;
        std::future::ready(Ok(false))
    }

    /// Waits until a heartbeat is due, or the session is over.
    fn watch(&self, session: &Arc<Self::Session>) -> impl Future<Output = Seen> + Send;

    /// Sends a heartbeat and waits for the answer, within the response timeout.
    fn ask(&self, session: &Self::Session) -> impl Future<Output = Result<()>> + Send;

    /// Carries out an effect. `session`: the one to publish.
    fn apply(&self, effect: Effect, session: Option<&Arc<Self::Session>>);

    /// Reports that connecting failed.
    fn failed(&self, error: &Error);

    /// Reports that a session is published.
    fn connected(&self);

    /// Reports that outstanding work could not be done after a heartbeat.
    fn not_worked_off(&self, error: &Error) {
        let _ = error;
    }

    /// Reports that a session was lost.
    fn lost(&self, error: &Error);
}

/// A transport and the rules for its use. Dropped at any await, it unpublishes its session, so that
/// no call uses a connection that is not supervised.
pub(crate) struct Supervised<T: Transport> {
    transport: Arc<T>,
    rules: Rules,
    session: Option<Arc<T::Session>>,
}

impl<T: Transport> Supervised<T> {
    pub(crate) fn new(transport: Arc<T>, max_staleness: Duration) -> Self {
        Self { transport, rules: Rules::new(max_staleness), session: None }
    }

    /// Connects once. Cancelled, it leaves a socket that closes by itself.
    ///
    /// # Errors
    ///
    /// The reason why no session was published.
    pub(crate) async fn open(&mut self) -> Result<()> {
        let transport = Arc::clone(&self.transport);
        let attempt = async {
            let mut session = transport.connect().await?;
            self.look_at_the_clock();
            self.on(Event::Connected);
            let tracking = transport.set_up(&mut session).await?;
            self.on(Event::SetUp { tracking });
            Ok(session)
        };
        let prepared = match transport.in_time(attempt).await {
            // Not bounded as a whole, since the amount of work varies; each step has a limit of its
            // own.
            Ok(session) => {
                let session = Arc::new(session);
                transport.work_off(&session).await.map(|answered| (session, answered))
            }
            Err(error) => Err(error),
        };
        match prepared {
            Ok((session, answered)) => {
                self.session = Some(session);
                self.look_at_the_clock();
                self.on(Event::WorkedOff { answered });
                transport.connected();
                Ok(())
            }
            Err(error) => {
                self.on(Event::Failed);
                Err(error)
            }
        }
    }

    /// Keeps a session up until the store is closed.
    pub(crate) async fn run(&mut self) {
        let transport = Arc::clone(&self.transport);
        while !transport.is_closed() {
            if let Some(session) = self.session.clone() {
                let ended = self.watch_over(&session).await;
                self.session = None;
                self.on(if ended.is_some() { Event::Lost } else { Event::Closed });
                if let Some(error) = ended {
                    transport.lost(&error);
                }
                continue;
            }
            transport.rest(self.rules.rest()).await;
            if transport.is_closed() {
                return;
            }
            if let Err(error) = self.open().await {
                transport.failed(&error);
            }
        }
    }

    /// Returns why the session is over; `None` if the store was closed.
    async fn watch_over(&mut self, session: &Arc<T::Session>) -> Option<Error> {
        let transport = Arc::clone(&self.transport);
        loop {
            match transport.watch(session).await {
                Seen::Due => {}
                Seen::Lost(error) => return Some(error),
                Seen::Closed => return None,
            }
            if let Err(error) = self.beat(session).await {
                return Some(error);
            }
            if let Err(error) = transport.work_off(session).await {
                transport.not_worked_off(&error);
            }
        }
    }

    /// Sends one heartbeat.
    ///
    /// # Errors
    ///
    /// The heartbeat was not answered.
    pub(crate) async fn beat(&mut self, session: &T::Session) -> Result<()> {
        let transport = Arc::clone(&self.transport);
        self.look_at_the_clock();
        self.on(Event::Asking);
        transport.ask(session).await?;
        self.look_at_the_clock();
        self.on(Event::Answered);
        Ok(())
    }

    fn look_at_the_clock(&mut self) {
        if self.transport.has_slept() {
            self.on(Event::ClockJumped);
        }
    }

    fn on(&mut self, event: Event) {
        for effect in self.rules.on(event, self.transport.now()) {
            self.transport.apply(effect, self.session.as_ref());
        }
    }
}

impl<T: Transport> Drop for Supervised<T> {
    fn drop(&mut self) {
        self.on(Event::Closed);
    }
}

/// Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): processes that lost the
/// server at the same time reconnect spread out.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);
    /// The shortest pause, so that even the lowest draw does not flood the server.
    const SHORTEST: Duration = Duration::from_millis(5);

    pub(crate) fn next(&mut self) -> Duration {
        let most = Self::FIRST.saturating_mul(1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        most.min(Self::LONGEST).mul_f64(crate::random::fraction()).max(Self::SHORTEST)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALENESS: Duration = Duration::from_millis(2000);

    /// Makes the rules of a session that was connected at 100 and set up at 130.
    fn set_up(tracking: bool) -> Rules {
        let mut rules = Rules::new(STALENESS);
        assert_eq!(rules.on(Event::Connected, 100), []);
        assert_eq!(rules.on(Event::SetUp { tracking }, 130), []);
        rules
    }

    #[test]
    // R7
    fn a_gap_is_reported_before_a_session_is_published() {
        let effects = set_up(true).on(Event::WorkedOff { answered: false }, 140);
        assert_eq!(effects, [Effect::Gap, Effect::Trust(2100), Effect::Publish]);
    }

    #[test]
    // R7
    fn trust_starts_when_the_last_answered_request_was_sent() {
        let mut rules = set_up(true);
        assert_eq!(rules.on(Event::WorkedOff { answered: true }, 900)[1], Effect::Trust(2130));
        assert_eq!(rules.on(Event::Asking, 1600), []);
        assert_eq!(rules.on(Event::Answered, 1999), [Effect::Trust(3600)]);
    }

    #[test]
    // R7
    fn a_lost_session_is_unpublished_before_its_gap_is_reported_and_no_longer_trusted() {
        for event in [Event::Lost, Event::Closed] {
            let mut rules = set_up(true);
            drop(rules.on(Event::WorkedOff { answered: false }, 140));
            assert_eq!(rules.on(event, 200), [Effect::Unpublish, Effect::Revoke, Effect::Gap]);
        }
    }

    #[test]
    // R7
    fn what_a_server_does_not_track_is_never_trusted() {
        let mut rules = set_up(false);
        assert_eq!(rules.on(Event::WorkedOff { answered: true }, 140), [Effect::Gap, Effect::Revoke, Effect::Publish]);
        assert_eq!(rules.on(Event::Asking, 800), []);
        assert_eq!(rules.on(Event::Answered, 810), []);
    }

    #[test]
    // R7
    fn a_stopped_clock_is_a_gap_and_ends_trust_until_the_next_answer() {
        let mut rules = set_up(true);
        drop(rules.on(Event::WorkedOff { answered: false }, 140));
        assert_eq!(rules.on(Event::ClockJumped, 800), [Effect::Revoke, Effect::Gap]);
        assert_eq!(rules.on(Event::Asking, 801), []);
        assert_eq!(rules.on(Event::Answered, 810), [Effect::Trust(2801)]);
        // The answer came before the clock stopped, or after that.
        assert_eq!(rules.on(Event::Asking, 1600), []);
        assert_eq!(rules.on(Event::ClockJumped, 1610), [Effect::Revoke, Effect::Gap]);
        assert_eq!(rules.on(Event::Answered, 1610), []);
    }

    #[test]
    // R7
    fn a_session_whose_set_up_was_stopped_is_not_trusted_before_its_first_heartbeat() {
        let mut rules = set_up(true);
        assert_eq!(rules.on(Event::ClockJumped, 140), [Effect::Revoke, Effect::Gap]);
        let effects = rules.on(Event::WorkedOff { answered: true }, 140);
        assert_eq!(effects, [Effect::Gap, Effect::Revoke, Effect::Publish]);
    }

    #[test]
    // D1
    fn only_an_answered_heartbeat_ends_the_backoff() {
        let mut rules = set_up(true);
        for _ in 0..12 {
            let _pause = rules.rest();
            drop(rules.on(Event::Connected, 0));
            drop(rules.on(Event::SetUp { tracking: true }, 0));
            drop(rules.on(Event::WorkedOff { answered: true }, 0));
            drop(rules.on(Event::Lost, 0));
        }
        assert_eq!(rules.backoff.failures, 12);
        drop(rules.on(Event::Answered, 0));
        assert_eq!(rules.backoff.failures, 0);
    }

    #[test]
    fn backoff_is_spread_and_bounded() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let wait = backoff.next();
            assert!(wait >= Backoff::SHORTEST && wait <= Backoff::LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= Backoff::FIRST);
    }
}
