//! The one connection that all calls share, and the supervisor that keeps it.
//!
//! ```text
//!            connect, set up            publish
//!   backoff ----------------> session ----------> calls use it, heartbeat watches it
//!      ^                                              |  disconnection push, missed heartbeat
//!      +---- unpublish, wake every waiter, tell of the gap <---+
//! ```
//!
//! Invariants: what depends on pushes (waiters, later the in-process tier) is emptied after a session is unpublished and again
//! before the next one is published. Without a session a call fails at once. No call takes longer than the response timeout,
//! which covers waiting in the client's queue.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, RedisResult, ScriptInvocation, Value,
};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::config::{Address, RedisConfig};
use super::reply::{self, Replies};
use super::tracking;
use super::{faults, scripts};
use crate::clock::{Clock, ServerOffset, Stopwatch, Timestamp, millis};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Event, Events, reason};
use crate::store::Trust;
use crate::store::pushes::Pushes;

/// The first with `SET .. NX GET`, which takes a lease in one trip. Valkey counts on from Redis 7.2.
const OLDEST: (u32, u32) = (7, 0);

/// How often a failure to connect is told that stays the same.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The shared side of the connection.
pub(super) struct Link {
    pub(super) config: RedisConfig,
    client: Client,
    clock: Clock,
    pub(super) events: Events,
    offset: ServerOffset,
    session: RwLock<Option<Arc<Session>>>,
    pub(super) pushes: Arc<Pushes>,
    /// Until when what this connection has read tracked may be served.
    pub(super) trust: Arc<Trust>,
    /// A call had no answer in time: look at the connection now.
    doubt: Notify,
    closed: watch::Sender<bool>,
    told_of_missing_tracking: AtomicBool,
    /// Why connecting failed, as it was told last.
    told_of_failure: Mutex<Option<(Arc<str>, Stopwatch)>>,
}

/// One connection, set up.
pub(super) struct Session {
    connection: MultiplexedConnection,
    tracking: bool,
    lost: Arc<Notify>,
    /// When the last request was sent that was answered before the session was used, on our coarse clock.
    alive_at: u64,
}

impl Link {
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: the address can never work.
    pub(super) fn new(config: RedisConfig, clock: Clock, events: Events) -> Result<Self> {
        let client = client(&config)?;
        Ok(Self {
            config,
            client,
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
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.offset.apply(self.clock.wall())
    }

    pub(super) fn is_up(&self) -> bool {
        self.current().is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Resolves once the store is closed.
    pub(super) async fn until_closed(&self) {
        let mut closed = self.closed.subscribe();
        // An error says that the sender is gone, which `self` holds: it cannot be.
        drop(closed.wait_for(|closed| *closed).await);
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        self.publish(None);
    }

    /// The session to use for a call.
    pub(super) fn session(&self, step: &'static str) -> Result<Arc<Session>> {
        match self.current() {
            Some(session) => Ok(session),
            None if self.is_closed() => Err(faults::closed(step)),
            None => Err(faults::disconnected(step)),
        }
    }

    pub(super) async fn command(&self, step: &'static str, command: &Cmd) -> Result<Value> {
        let mut connection = self.session(step)?.connection.clone();
        self.bounded(step, connection.send_packed_command(command)).await
    }

    pub(super) async fn script(&self, step: &'static str, script: &ScriptInvocation<'_>) -> Result<Value> {
        let mut connection = self.session(step)?.connection.clone();
        self.bounded(step, script.invoke_async(&mut connection)).await
    }

    /// Gives the server all scripts again.
    pub(super) async fn load_scripts(&self, step: &'static str) -> Result<()> {
        let session = self.session(step)?;
        let load = scripts::load_all(&session.connection);
        timeout(self.config.response_timeout, load).await.map_err(|_elapsed| faults::timed_out(step))
    }

    /// All commands in one trip, contiguous on this connection; not atomic. Error replies are values.
    pub(super) async fn pipeline(&self, step: &'static str, pipeline: &Pipeline) -> Result<Replies> {
        let session = self.session(step)?;
        self.pipeline_on(&session, step, pipeline).await
    }

    pub(super) async fn pipeline_on(
        &self,
        session: &Session,
        step: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Replies> {
        let mut connection = session.connection.clone();
        let values = self.bounded(step, connection.send_packed_commands(pipeline, 0, pipeline.len())).await?;
        Ok(Replies::new(step, values))
    }

    /// Cancelled while waiting, a command may still be executed; its reply is dropped by the driver, so nobody else gets it.
    async fn bounded<T>(&self, step: &'static str, call: impl Future<Output = RedisResult<T>>) -> Result<T> {
        match timeout(self.config.response_timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(faults::of(step, &error)),
            Err(_elapsed) => {
                self.doubt.notify_one();
                Err(faults::timed_out(step))
            }
        }
    }

    /// One attempt, bounded by the connect timeout. Cancelled, it leaves a socket that closes by itself.
    pub(super) async fn open(&self) -> Result<Session> {
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
        let attempt = async {
            let mut connection = self.connect(on_push).await?;
            let alive_at = self.clock.coarse();
            let tracking = self.set_up(&mut connection).await?;
            Ok(Session { connection, tracking, lost, alive_at })
        };
        timeout(self.config.connect_timeout, attempt)
            .await
            .unwrap_or_else(|_elapsed| Err(faults::no_connection_in_time(&self.config)))
    }

    /// Tells that connecting failed: when the reason is a new one, and now and then while it stays.
    pub(super) fn failed_to_connect(&self, error: &Error) {
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

    /// Tells that the connection is up.
    pub(super) fn connected(&self) {
        *self.told_of_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.events.emit(Event::Connected);
    }

    /// A bare connection, logged in. Without a time limit of its own.
    pub(super) async fn connect(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), std::fmt::Error> + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection> {
        // Our own limits cover the client's queue as well, which its own do not.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(on_push);
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| faults::of_connect(&error, &self.config))
    }

    /// Returns whether the server tracks our reads.
    async fn set_up(&self, connection: &mut MultiplexedConnection) -> Result<bool> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLIENT").arg("SETNAME").arg(&self.config.client_name);
        // No NOLOOP: with it, an own write would use up the tracking of a key without a push.
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN");
        pipeline.cmd("TIME");
        pipeline.cmd("INFO").arg("server");
        let before = self.clock.wall();
        let replies = connection
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await
            .map_err(|error| faults::of_connect(&error, &self.config))?;
        let mut replies = Replies::new("connect", replies);
        // The name is only for people who look at CLIENT LIST.
        let _name = replies.raw()?;
        let tracking = replies.value();
        if let Err(error) = &tracking
            && !self.told_of_missing_tracking.swap(true, Ordering::Relaxed)
        {
            self.events.emit(Event::TrackingUnavailable { reason: reason(error) });
        }
        self.learn_time(before, &replies.raw()?);
        // Who may not run INFO is taken at their word.
        if let Some(version) = reply::server_version(&replies.raw()?).filter(|version| *version < OLDEST) {
            return Err(faults::too_old(version));
        }
        scripts::load_all(connection).await;
        Ok(tracking.is_ok())
    }

    /// Any reply is a sign of life; a user who may not run TIME goes without the offset.
    async fn heartbeat(&self, session: &Session) -> Result<()> {
        let (sent_at, before) = (self.clock.coarse(), self.clock.wall());
        let mut connection = session.connection.clone();
        let command = redis::cmd("TIME");
        let value = match timeout(self.config.response_timeout, connection.send_packed_command(&command)).await {
            Ok(reply) => reply.map_err(|error| faults::of("heartbeat", &error))?,
            Err(_elapsed) => return Err(faults::timed_out("heartbeat")),
        };
        self.learn_time(before, &value);
        if session.tracking {
            self.trust_from(sent_at);
        }
        Ok(())
    }

    /// The server answered a request that was sent then. Pushes and replies come in order on one connection: every change
    /// that was complete before the request was sent has been handled.
    fn trust_from(&self, sent_at: u64) {
        self.trust.extend(sent_at.saturating_add(millis(self.config.max_staleness)));
    }

    /// The server read its clock somewhere between our two readings: the middle is off by half a round trip at most.
    fn learn_time(&self, before: Timestamp, reply: &Value) {
        if let Some(server) = reply::time(reply) {
            let after = self.clock.wall();
            self.offset.learn(server, before.plus(before.until(after).mul_f64(0.5)));
        }
    }

    pub(super) fn publish(&self, session: Option<Arc<Session>>) {
        let up = session.is_some();
        if up {
            self.pushes.gap();
        }
        {
            let mut current = self.session.write().unwrap_or_else(PoisonError::into_inner);
            match &session {
                Some(session) if session.tracking => self.trust_from(session.alive_at),
                _ => self.trust.revoke(),
            }
            // Closing sets the mark before it comes here: nothing is published after it.
            *current = session.filter(|_| !self.is_closed());
        }
        if !up {
            // After the session is out of reach: whoever registers later cannot read through it any more.
            self.pushes.gap();
        }
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Session {
    pub(super) fn tracks(&self) -> bool {
        self.tracking
    }
}

/// Keeps a session up until the store is closed. `first`: one that is published already.
pub(super) async fn supervise(link: Arc<Link>, first: Option<Arc<Session>>) {
    let _guard = Unpublish(Arc::clone(&link));
    let mut backoff = Backoff::default();
    let mut published = first;
    while !link.is_closed() {
        let session = match published.take() {
            Some(session) => session,
            None => {
                tokio::select! {
                    () = sleep(backoff.next()) => {}
                    () = link.until_closed() => return,
                }
                match link.open().await {
                    Ok(session) => {
                        let session = Arc::new(session);
                        link.publish(Some(Arc::clone(&session)));
                        link.connected();
                        session
                    }
                    Err(error) => {
                        link.failed_to_connect(&error);
                        continue;
                    }
                }
            }
        };
        let ended = watch_over(&link, &session, &mut backoff).await;
        link.publish(None);
        if let Some(error) = ended {
            link.events.emit(Event::Disconnected { reason: reason(&error) });
        }
    }
}

/// A connection that nobody watches is used by nobody: also when the supervisor is dropped at any of its awaits.
struct Unpublish(Arc<Link>);

impl Drop for Unpublish {
    fn drop(&mut self) {
        self.0.publish(None);
    }
}

/// Returns why the session is over; `None`: the store was closed.
async fn watch_over(link: &Link, session: &Session, backoff: &mut Backoff) -> Option<Error> {
    loop {
        tokio::select! {
            () = session.lost.notified() => {
                return Some(Error::new(ErrorKind::Unavailable, "connection").detail("the server closed the connection"));
            }
            () = link.until_closed() => return None,
            () = link.doubt.notified() => {}
            () = sleep(link.config.beat()) => {}
        }
        if let Err(error) = link.heartbeat(session).await {
            return Some(error);
        }
        // Only now: a server that accepts and hangs up at once must not be hammered.
        backoff.reset();
    }
}

/// Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"): processes that lost the server together come back spread out.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);
    /// Even the luckiest draw leaves the server a breath.
    const SHORTEST: Duration = Duration::from_millis(5);

    pub(super) fn next(&mut self) -> Duration {
        let most = Self::FIRST.saturating_mul(1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        most.min(Self::LONGEST).mul_f64(crate::random::fraction()).max(Self::SHORTEST)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

fn client(config: &RedisConfig) -> Result<Client> {
    let configuration = |error: &redis::RedisError| {
        Error::new(ErrorKind::Configuration, "connect").detail(format!("{}: {config}", error.category()))
    };
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(config.db))
        .set_lib_name("cache-core", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &config.user {
        login = login.set_username(user);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password);
    }
    let (address, ca) = match &config.address {
        Address::Tcp { host, port } => (ConnectionAddr::Tcp(host.clone(), *port), None),
        Address::Unix(path) => (ConnectionAddr::Unix(path.clone()), None),
        Address::Tls { host, port, ca } => {
            let (host, port) = (host.clone(), *port);
            (ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }, ca.as_ref())
        }
    };
    let info = address
        .into_connection_info()
        .map_err(|error| configuration(&error))?
        .set_redis_settings(login)
        // Off in this version of the client; with Nagle a small command waits for the last one's acknowledgement.
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    match ca {
        None => {
            #[cfg(feature = "tls")]
            provide_cryptography();
            Client::open(info).map_err(|error| configuration(&error))
        }
        #[cfg(feature = "tls")]
        Some(path) => {
            provide_cryptography();
            let root_cert = std::fs::read(path).map_err(|error| {
                Error::new(ErrorKind::Configuration, "connect")
                    .detail(format!("the certificate file of `tls_ca` cannot be read: {error}"))
            })?;
            Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
                .map_err(|error| configuration(&error))
        }
        #[cfg(not(feature = "tls"))]
        Some(_) => Err(Error::new(ErrorKind::Configuration, "connect").detail("`rediss://` needs the feature `tls`")),
    }
}

/// rustls panics if two providers are compiled in and none is chosen, which any other crate of the program may cause.
#[cfg(feature = "tls")]
fn provide_cryptography() {
    // An error says that the program has chosen already: that choice stands.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

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
