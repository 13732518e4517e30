//! A TCP proxy in front of a server, which simulates a broken network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// A proxy to `127.0.0.1:port`. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    to_server: AtomicU64,
    to_client: AtomicU64,
    sendings: AtomicU64,
    accepted: AtomicU64,
    /// The number of sends before the one that is lost. Negative: none is lost.
    before_loss: AtomicI64,
    /// The numbers of the connections that are blocked.
    held: watch::Sender<Vec<u64>>,
    loses_answer: AtomicBool,
    is_silent: AtomicBool,
    refuses_tracking: AtomicBool,
    /// The number of the next connection, and the number of open ones.
    next: AtomicU64,
    open: AtomicU64,
    /// Connections with a lower number are blocked.
    stuck_below: watch::Sender<u64>,
}

/// The part of a round trip that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The server receives nothing, and the connection ends.
    Request,
    /// The server executes the request, the reply is lost, and the connection ends.
    Answer,
    /// The server executes the request, the reply is lost, and the connection stays open but
    /// delivers nothing more.
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward {
        delay: Duration,
    },
    /// Connections stay open and new ones are accepted, but nothing gets through: a half-open link.
    Frozen,
    /// Requests get through, replies wait.
    Holding,
    /// Replies get through, requests wait.
    Withholding,
    /// All connections end. New ones end immediately.
    Cut,
}

impl Mode {
    fn lets_through(self, is_answer: bool) -> bool {
        match self {
            // A request that is sent after the cut must not get through before its link ends.
            Self::Frozen | Self::Cut => false,
            Self::Holding => !is_answer,
            Self::Withholding => is_answer,
            Self::Forward { .. } => true,
        }
    }
}

impl Proxy {
    /// Starts the proxy.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Forward { delay: Duration::ZERO }),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            sendings: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            before_loss: AtomicI64::new(-1),
            held: watch::Sender::new(Vec::new()),
            loses_answer: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            refuses_tracking: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: AtomicU64::new(0),
            stuck_below: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, port, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    /// Returns the `redis://` URL of the proxy.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Ends all connections and every new one, until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.state.mode.send_replace(Mode::Cut);
    }

    /// Lets nothing through, until [`heal`](Self::heal).
    pub fn freeze(&self) {
        self.state.mode.send_replace(Mode::Frozen);
    }

    /// Lets nothing through on the current connections, until [`let_go`](Self::let_go). New ones
    /// work.
    pub fn hold_fast(&self) {
        self.state.stuck_below.send_replace(self.state.next.load(Ordering::SeqCst));
    }

    /// Delivers what [`hold_fast`](Self::hold_fast) held back.
    pub fn let_go(&self) {
        self.state.stuck_below.send_replace(0);
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Holds back all replies until [`heal`](Self::heal), which delivers them at once, in order.
    pub fn hold_answers(&self) {
        self.state.mode.send_replace(Mode::Holding);
    }

    /// Holds back all requests until [`heal`](Self::heal), and delivers the replies that waited.
    pub fn hold_requests(&self) {
        self.state.mode.send_replace(Mode::Withholding);
    }

    /// Blocks exactly these connections, including future ones, and unblocks all others. They are
    /// counted from 0 in the order in which they are made.
    pub fn hold(&self, connections: &[u64]) {
        self.state.held.send_replace(connections.to_vec());
    }

    /// Makes the server one that does not know how to track reads, for connections from now on.
    pub fn refuse_tracking(&self) {
        self.state.refuses_tracking.store(true, Ordering::SeqCst);
    }

    /// Delays each piece by this time.
    pub fn delay(&self, delay: Duration) {
        self.state.mode.send_replace(Mode::Forward { delay });
    }

    /// Forwards normally again.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
    }

    /// Loses one round trip: the one that follows this many others.
    pub fn lose(&self, after: u32, loss: Loss) {
        self.state.loses_answer.store(loss != Loss::Request, Ordering::SeqCst);
        self.state.is_silent.store(loss == Loss::Silence, Ordering::SeqCst);
        self.state.before_loss.store(i64::from(after), Ordering::SeqCst);
    }

    /// Returns whether that round trip was lost. If it was not, none will be.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.state.before_loss.swap(-1, Ordering::SeqCst) < 0
    }

    /// Returns the number of bytes to the server and to the clients.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.state.to_server.load(Ordering::SeqCst), self.state.to_client.load(Ordering::SeqCst))
    }

    /// Returns how often a client has sent something. This is the number of its round trips if it
    /// waits for each reply before it sends again and no request is longer than 64 KiB.
    #[must_use]
    pub fn sendings(&self) -> u64 {
        self.state.sendings.load(Ordering::SeqCst)
    }

    /// Returns the number of connections made so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, port: u16, state: Arc<State>) {
    let mut links = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while links.try_join_next().is_some() {}
        if *state.mode.borrow() == Mode::Cut {
            continue;
        }
        state.accepted.fetch_add(1, Ordering::SeqCst);
        links.spawn(link(client, port, Arc::clone(&state)));
    }
}

/// Counts a connection as open until dropped.
struct Open<'a>(&'a State);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn link(client: TcpStream, port: u16, state: Arc<State>) {
    let number = state.next.fetch_add(1, Ordering::SeqCst);
    state.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(&state);
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut mode = state.mode.subscribe();
    let mute = AtomicBool::new(false);
    tokio::select! {
        () = forward(from_client, to_server, &state, (number, false), |bytes| {
            state.to_server.fetch_add(bytes, Ordering::SeqCst);
            state.sendings.fetch_add(1, Ordering::SeqCst);
            if state.before_loss.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left >= 0).then(|| left.saturating_sub(1))) != Ok(0) {
                return true;
            }
            mute.store(true, Ordering::SeqCst);
            state.loses_answer.load(Ordering::SeqCst)
        }) => {}
        () = forward(from_server, to_client, &state, (number, true), |bytes| {
            state.to_client.fetch_add(bytes, Ordering::SeqCst);
            !mute.load(Ordering::SeqCst)
        }) => {}
        // The link ends, whatever the result.
        _cut = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Forwards pieces until `goes_on` returns `false`.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    (number, is_answer): (u64, bool),
    goes_on: impl Fn(u64) -> bool,
) {
    let (mut mode, mut stuck) = (state.mode.subscribe(), state.stuck_below.subscribe());
    let mut held = state.held.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(mode) = mode.wait_for(|mode| mode.lets_through(is_answer)).await.map(|mode| *mode) else { return };
        // An error means that the proxy is gone.
        if stuck.wait_for(|below| number >= *below).await.is_err()
            || held.wait_for(|held| !held.contains(&number)).await.is_err()
        {
            return;
        }
        if let Mode::Forward { delay } = mode
            && !delay.is_zero()
        {
            sleep(delay).await;
        }
        // Counted before it is forwarded, so the count includes every reply that a client has.
        if !goes_on(read as u64) {
            if state.is_silent.load(Ordering::SeqCst) {
                continue;
            }
            return;
        }
        if !is_answer && state.refuses_tracking.load(Ordering::SeqCst) {
            misspell(&mut buffer[..read]);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Replaces the word by one that no server knows.
fn misspell(request: &mut [u8]) {
    let (word, unknown) = (b"TRACKING", b"TRACKINX");
    let mut rest = request;
    while let Some(at) = rest.windows(word.len()).position(|bytes| bytes == word) {
        let (found, after) = rest.split_at_mut(at).1.split_at_mut(word.len());
        found.copy_from_slice(unknown);
        rest = after;
    }
}
