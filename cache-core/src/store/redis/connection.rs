//! The one connection that all calls share, and its supervisor's transport.
//!
//! [`supervisor`](crate::store::supervisor) decides when it is made, used and given up; this module
//! does the I/O.
//!
//! Invariants: without a session a call fails at once. A call fails once no byte has arrived for
//! one response timeout, including the time in the client's queue: see [`wire`](super::wire).

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisResult, ScriptInvocation, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::config::RedisConfig;
use super::reply::{self, Replies};
use super::takeover::Takeover;
use super::tracking;
use super::wire::{Dialer, Stalled, Wire};
use super::{RedisStore, error, rights, scripts};
use crate::background::Background;
use crate::clock::{Clock, ServerOffset, SleepWatch, Stopwatch, Timestamp, millis};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::events::{Event, Events, reason};
use crate::store::Trust;
use crate::store::outstanding::Outstanding;
use crate::store::pushes::Pushes;
use crate::store::supervisor::{Effect, LOSS, Seen, Transport};

/// The oldest supported version, the first with `SET .. NX GET`, which takes a lease in one round
/// trip. Valkey's version numbers go on from Redis 7.2.
const OLDEST: (u32, u32) = (7, 0);

/// How often a failure to connect is reported while its reason stays the same.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The shared side of the connection.
pub(super) struct Link {
    pub(super) config: RedisConfig,
    dialer: Dialer,
    /// Runs the connections' drivers. Not owned: its tasks own this.
    background: Weak<Background>,
    clock: Clock,
    pub(super) events: Events,
    offset: ServerOffset,
    sleep: SleepWatch,
    session: RwLock<Option<Arc<Session>>>,
    pub(super) pushes: Arc<Pushes>,
    /// Until when tracked reads of this connection may be served.
    pub(super) trust: Arc<Trust>,
    /// Notified when a call had no answer in time: check the connection now.
    doubt: Notify,
    closed: watch::Sender<bool>,
    told_of_missing_tracking: AtomicBool,
    told_of_missing_kill: AtomicBool,
    told_of_missing_info: AtomicBool,
    /// Moves the connection when its runtime ends.
    pub(super) takeover: Takeover,
    /// An operation was refused for a right that the set-up had found: the heartbeat checks again.
    are_rights_doubted: AtomicBool,
    /// When the rights may be checked again, on the coarse clock. A program may be refused all the
    /// time for keys that are not ours.
    rights_due: AtomicU64,
    /// What the next connection must do before calls use it.
    pub(super) outstanding: Outstanding,
    /// The store that runs the outstanding operations.
    pub(super) store: OnceLock<Weak<RedisStore>>,
    /// The connection that was used last.
    predecessor: Mutex<Option<Identity>>,
    /// Why there is no connection.
    fault: Mutex<Option<Arc<str>>>,
    /// Why connecting failed, as last reported.
    told_of_failure: Mutex<Option<(Arc<str>, Stopwatch)>>,
}

tokio::task_local! {
    /// The connection that operations of this task use although it is not published yet.
    static SETTING_UP: Arc<Session>;
}

/// The identity of a connection at its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    id: u64,
    /// A restarted server counts from one: the id alone may belong to another connection.
    address: Box<str>,
    server_run: Option<Box<str>>,
}

/// One connection, set up.
pub(super) struct Session {
    wire: Wire,
    identity: Option<Identity>,
    tracking: bool,
    lost: Arc<Notify>,
}

impl Link {
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: the address can never work.
    pub(super) fn new(config: RedisConfig, clock: Clock, events: Events, background: &Arc<Background>) -> Result<Self> {
        let dialer = Dialer::new(&config)?;
        Ok(Self {
            outstanding: Outstanding::new(clock.clone(), events.clone()),
            store: OnceLock::new(),
            predecessor: Mutex::default(),
            told_of_missing_kill: AtomicBool::new(false),
            told_of_missing_info: AtomicBool::new(false),
            takeover: Takeover::default(),
            are_rights_doubted: AtomicBool::new(false),
            rights_due: AtomicU64::new(0),
            config,
            dialer,
            background: Arc::downgrade(background),
            sleep: SleepWatch::new(&clock),
            clock,
            events,
            offset: ServerOffset::default(),
            session: RwLock::new(None),
            pushes: Arc::default(),
            trust: Arc::default(),
            doubt: Notify::new(),
            closed: watch::Sender::new(false),
            told_of_missing_tracking: AtomicBool::new(false),
            told_of_failure: Mutex::new(None),
            fault: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.offset.now(&self.clock)
    }

    /// Returns the milliseconds of the coarse clock.
    pub(super) fn coarse(&self) -> u64 {
        self.clock.coarse()
    }

    pub(super) fn is_up(&self) -> bool {
        self.current().is_some()
    }

    /// Resolves once the store is closed.
    pub(super) async fn until_closed(&self) {
        let mut closed = self.closed.subscribe();
        // An error would mean that the sender is gone, but `self` holds it.
        drop(closed.wait_for(|closed| *closed).await);
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        LOSS.into_iter().for_each(|effect| self.apply(effect, None));
    }

    /// Returns the session to use for a call. Immediate, except after the runtime of the connection
    /// has ended: those calls wait for the first attempt to connect on a live runtime.
    pub(super) async fn session(&self, step: &'static str) -> Result<Arc<Session>> {
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        if self.is_closed() {
            return Err(error::closed(step));
        }
        if let Some(background) = self.background.upgrade() {
            let limit = self.config.connect_timeout.saturating_mul(2);
            self.takeover.take_over(&background, || self.is_abandoned(), limit).await;
        }
        self.usable().ok_or_else(|| self.disconnected(step))
    }

    pub(super) fn usable(&self) -> Option<Arc<Session>> {
        self.current().filter(|session| !session.wire.is_abandoned())
    }

    fn is_abandoned(&self) -> bool {
        self.current().is_some_and(|session| session.wire.is_abandoned())
    }

    /// Returns how often the connection was taken over.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeover.takeovers()
    }

    /// Returns whether an operation failed because the runtime of the connection has ended since
    /// the operation began at this count of take-overs.
    pub(super) fn was_lost_with_its_runtime(&self, error: &Error, takeovers: u64) -> bool {
        let is_of_the_link = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed) && !self.is_closed();
        is_of_the_link && (self.takeover.takeovers() != takeovers || self.takeover.is_changing() || self.is_abandoned())
    }

    /// Records that an operation was refused for a missing right.
    fn doubt_rights(&self) {
        if self.clock.coarse() >= self.rights_due.load(Ordering::Relaxed) {
            self.are_rights_doubted.store(true, Ordering::Release);
            self.doubt.notify_one();
        }
    }

    /// Checks again whether the user has the rights that the set-up has found.
    async fn check_rights(&self, session: &Session) -> Result<()> {
        if !self.are_rights_doubted.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let due = self.clock.coarse().saturating_add(millis(self.config.heartbeat));
        self.rights_due.store(due, Ordering::Relaxed);
        let mut connection = session.wire.client();
        let check = rights::check(&mut connection, &self.config, &[]);
        // Without an answer the heartbeat that follows decides.
        timeout(self.config.response_timeout, check).await.unwrap_or(Ok(()))
    }

    /// Makes the error of a call that finds no connection.
    pub(super) fn disconnected(&self, step: &'static str) -> Error {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        error::disconnected(step, &self.config, fault.as_deref())
    }

    /// Makes the result of `watch` for a connection that is over.
    fn ended(&self, error: Error) -> Seen {
        self.note_fault(&error);
        Seen::Lost(error)
    }

    /// Stores why there is no connection, for the errors of calls.
    fn note_fault(&self, error: &Error) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.why().into());
    }

    pub(super) async fn command(&self, step: &'static str, command: &Cmd) -> Result<Value> {
        let session = self.session(step).await?;
        self.command_on(&session, step, command).await
    }

    pub(super) async fn command_on(&self, session: &Session, step: &'static str, command: &Cmd) -> Result<Value> {
        let mut connection = session.wire.client();
        self.bounded(step, session, connection.send_packed_command(command)).await
    }

    pub(super) async fn script(&self, step: &'static str, script: &ScriptInvocation<'_>) -> Result<Value> {
        let session = self.session(step).await?;
        let mut connection = session.wire.client();
        self.bounded(step, &session, script.invoke_async(&mut connection)).await
    }

    /// Loads all scripts into the server again.
    pub(super) async fn load_scripts(&self, step: &'static str) -> Result<()> {
        let session = self.session(step).await?;
        let connection = session.wire.client();
        let load = scripts::load_all(&connection);
        timeout(self.config.response_timeout, load).await.map_err(|_elapsed| error::timed_out(step))
    }

    /// Sends all commands in one round trip, contiguous on this connection; not atomic. Error
    /// replies are values.
    pub(super) async fn pipeline(&self, step: &'static str, pipeline: &Pipeline) -> Result<Replies> {
        let session = self.session(step).await?;
        self.pipeline_on(&session, step, pipeline).await
    }

    pub(super) async fn pipeline_on(
        &self,
        session: &Session,
        step: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Replies> {
        let mut connection = session.wire.client();
        let values = self.bounded(step, session, connection.send_packed_commands(pipeline, 0, pipeline.len())).await?;
        if values.iter().any(|value| matches!(value, Value::ServerError(error) if rights::is_refusal(error))) {
            self.doubt_rights();
        }
        Ok(Replies::new(step, values))
    }

    /// Bounds a call by the response timeout. Cancelled while waiting, a command may still be
    /// executed; the driver drops its reply, so no other call gets it.
    async fn bounded<T>(
        &self,
        step: &'static str,
        session: &Session,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T> {
        match session.wire.within(self.config.response_timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if error.code().is_some_and(|code| rights::is_missing_right(code, error.detail())) {
                    self.doubt_rights();
                }
                Err(error::of(step, &error))
            }
            Err(Stalled) => {
                self.doubt.notify_one();
                Err(error::timed_out(step))
            }
        }
    }

    /// Opens a bare connection and logs in. Has no time limit of its own.
    pub(super) async fn log_in(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), std::fmt::Error> + Send + Sync + 'static,
    ) -> Result<Wire> {
        let Some(background) = self.background.upgrade() else { return Err(error::closed("connect")) };
        self.dialer.dial(&self.config, &background, on_push).await
    }

    /// Returns the identity of this connection, if the server may be asked.
    pub(super) async fn identify(&self, connection: &mut MultiplexedConnection) -> Option<Identity> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLIENT").arg("INFO");
        pipeline.cmd("INFO").arg("server");
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await.ok()?;
        let mut replies = Replies::new("connect", replies);
        self.identity(replies.value(), &replies.raw().ok()?)
    }

    fn identity(&self, client: Result<Value>, server: &Value) -> Option<Identity> {
        let client = client.map_err(|error| self.kill_unavailable(&error)).ok()?;
        let (id, address) = reply::client(&client)?;
        Some(Identity { id, address, server_run: reply::server_run(server) })
    }

    /// Ends an abandoned connection at its server: commands that it has sent and that were not
    /// executed never will be (R26).
    pub(super) async fn kill(&self, connection: &mut MultiplexedConnection, old: &Identity, new: Option<&Identity>) {
        let has_restarted = new.is_some_and(|new| new.server_run != old.server_run);
        if has_restarted {
            return;
        }
        let mut command = redis::cmd("CLIENT");
        command.arg("KILL").arg("ID").arg(old.id).arg("ADDR").arg(&*old.address);
        // A failure of the connection shows at its next use.
        if let Ok(reply) = connection.send_packed_command(&command).await
            && let Err(error) = reply::checked("connect", reply)
        {
            self.kill_unavailable(&error);
        }
    }

    fn kill_unavailable(&self, error: &Error) {
        if !self.told_of_missing_kill.swap(true, Ordering::Relaxed) {
            self.events.emit(Event::KillUnavailable { reason: reason(error) });
        }
    }

    fn predecessor(&self) -> Option<Identity> {
        self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs the outstanding operations on this connection, even if it is not published yet.
    async fn settle(&self, session: &Arc<Session>) -> Result<()> {
        match self.store.get().and_then(Weak::upgrade) {
            Some(store) => SETTING_UP.scope(Arc::clone(session), self.outstanding.settle(&*store)).await,
            None => Ok(()),
        }
    }

    /// Learns the server's time. `before`: what our boot clock showed before the request was sent.
    fn learn_time(&self, before: u64, reply: &Value) {
        if let Some(server) = reply::time(reply) {
            self.offset.learn_between(server, before, self.clock.boot());
        }
    }

    fn current(&self) -> Option<Arc<Session>> {
        if let Ok(session) = SETTING_UP.try_with(Arc::clone) {
            return Some(session);
        }
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Session {
    pub(super) fn tracks(&self) -> bool {
        self.tracking
    }
}

impl Transport for Link {
    type Session = Session;

    fn now(&self) -> u64 {
        self.clock.coarse()
    }

    fn has_slept(&self) -> bool {
        self.sleep.has_slept(&self.clock)
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.until_closed() => {}
        }
    }

    async fn in_time<S: Send>(&self, attempt: impl Future<Output = Result<S>> + Send) -> Result<S> {
        let bounded = timeout(self.config.connect_timeout, attempt);
        bounded.await.unwrap_or_else(|_elapsed| Err(error::no_connection_in_time(&self.config)))
    }

    async fn connect(&self) -> Result<Session> {
        let lost = Arc::new(Notify::new());
        let (pushes, told) = (Arc::clone(&self.pushes), Arc::clone(&lost));
        let on_push = move |push: PushInfo| -> Result<(), std::fmt::Error> {
            match push.kind {
                PushKind::Invalidate => tracking::invalidated(&pushes, &push.data),
                PushKind::Disconnection => {
                    pushes.gap();
                    told.notify_one();
                }
                _ => {}
            }
            Ok(())
        };
        Ok(Session { wire: self.log_in(on_push).await?, identity: None, tracking: false, lost })
    }

    async fn set_up(&self, session: &mut Session) -> Result<bool> {
        let mut connection = session.wire.client();
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLIENT").arg("SETNAME").arg(&self.config.client_name);
        // No NOLOOP: with it, an own write would use up the tracking of a key without a push.
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN");
        pipeline.cmd("TIME");
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("CLIENT").arg("INFO");
        let before = self.clock.boot();
        let replies = connection
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await
            .map_err(|error| error::of_connect(&error, &self.config))?;
        let mut replies = Replies::new("connect", replies);
        // The name is only for people who look at CLIENT LIST.
        let _name = replies.raw()?;
        let tracked = replies.raw()?;
        let tracking = reply::checked("connect", tracked.clone());
        if let Err(error) = &tracking
            && !matches!(&tracked, Value::ServerError(error) if rights::is_refusal(error))
            && !self.told_of_missing_tracking.swap(true, Ordering::Relaxed)
        {
            self.events.emit(Event::TrackingUnavailable { reason: reason(error) });
        }
        let time = replies.raw()?;
        self.learn_time(before, &time);
        // Without the right to run INFO the server's version is not checked.
        let server = replies.raw()?;
        if let Some(version) = reply::server_version(&server).filter(|version| *version < OLDEST) {
            return Err(error::too_old(version));
        }
        if reply::is_of_a_cluster(&server) {
            return Err(rights::of_a_cluster());
        }
        if matches!(&server, Value::ServerError(error) if rights::is_refusal(error))
            && !self.told_of_missing_info.swap(true, Ordering::Relaxed)
        {
            self.events.emit(Event::InfoUnavailable);
        }
        let answered = [("+client|tracking", &tracked), ("+time", &time)];
        rights::check(&mut connection, &self.config, &answered).await?;
        let identity = self.identity(replies.value(), &server);
        if let Some(old) = self.predecessor() {
            self.kill(&mut connection, &old, identity.as_ref()).await;
        }
        scripts::load_all(&connection).await;
        session.identity = identity;
        session.tracking = tracking.is_ok();
        Ok(session.tracking)
    }

    /// On failure the next connection does the work. Trust depends on the set-up and the
    /// heartbeats.
    async fn work_off(&self, session: &Arc<Session>) -> Result<bool> {
        self.settle(session).await.map(|()| false)
    }

    async fn watch(&self, session: &Arc<Session>) -> Seen {
        loop {
            tokio::select! {
                () = session.lost.notified() => {
                    let detail = "the server closed the connection";
                    return self.ended(Error::new(ErrorKind::Unavailable, "connection").detail(detail));
                }
                () = self.until_closed() => return Seen::Closed,
                () = self.doubt.notified() => return match self.check_rights(session).await {
                    Ok(()) => Seen::Due,
                    Err(error) => {
                        let seen = self.ended(error);
                        // As far as the remaining rights allow it, and after the last call has
                        // begun.
                        LOSS.into_iter().for_each(|effect| self.apply(effect, None));
                        drop(self.settle(session).await);
                        seen
                    }
                },
                // If that fails, the heartbeat decides whether the connection is to blame; the next
                // connection does the rest.
                () = self.outstanding.added() => if self.settle(session).await.is_err() { return Seen::Due },
                () = sleep(self.config.beat()) => return Seen::Due,
            }
        }
    }

    /// Any reply is a sign of life.
    async fn ask(&self, session: &Session) -> Result<()> {
        self.events.log_repeats();
        let before = self.clock.boot();
        let mut connection = session.wire.client();
        let command = redis::cmd("TIME");
        let asked = connection.send_packed_command(&command);
        let value = match session.wire.within(self.config.response_timeout, asked).await {
            Ok(reply) => reply.map_err(|error| error::of("heartbeat", &error)),
            Err(Stalled) => Err(error::timed_out("heartbeat")),
        };
        let value = value.inspect_err(|error| self.note_fault(error))?;
        self.learn_time(before, &value);
        Ok(())
    }

    fn apply(&self, effect: Effect, session: Option<&Arc<Session>>) {
        let publish = |session: Option<Arc<Session>>| {
            let mut current = self.session.write().unwrap_or_else(PoisonError::into_inner);
            // Closing sets the flag before it comes here, so nothing is published after it.
            *current = session.filter(|_| !self.is_closed());
        };
        match effect {
            Effect::Gap => self.pushes.gap(),
            Effect::Trust(until) => self.trust.extend(until),
            Effect::Revoke => self.trust.revoke(),
            Effect::Publish => {
                *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) =
                    session.and_then(|session| session.identity.clone());
                publish(session.cloned());
            }
            Effect::Unpublish => publish(None),
        }
    }

    /// Reports when the reason changes, and from time to time while it stays the same.
    fn failed(&self, error: &Error) {
        self.note_fault(error);
        let reason = reason(error);
        let mut told = self.told_of_failure.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.as_ref().is_some_and(|(known, since)| *known == reason && since.elapsed() < TELL_AGAIN);
        if known {
            return;
        }
        *told = Some((Arc::clone(&reason), self.clock.start()));
        drop(told);
        self.events.emit(Event::ConnectFailed { kind: error.kind(), reason });
    }

    fn connected(&self) {
        *self.told_of_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.events.emit(Event::Connected);
    }

    fn not_worked_off(&self, error: &Error) {
        self.events.store_failed(error, true);
    }

    fn lost(&self, error: &Error) {
        self.events.emit(Event::Disconnected { reason: reason(error) });
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers")]
mod tests;
