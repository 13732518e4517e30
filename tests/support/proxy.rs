//! A TCP proxy in front of a server: the network that a test can break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Forwards to `127.0.0.1:port`. Dropping it cuts all connections.
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward {
        delay: Duration,
    },
    /// Connections stay and are made, nothing gets through: a half-open link.
    Frozen,
    /// Connections end, new ones end at once.
    Cut,
}

impl Proxy {
    /// Starts it.
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
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, port, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    /// `redis://` URL of the proxy.
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

    /// Holds each piece back for this long.
    pub fn delay(&self, delay: Duration) {
        self.state.mode.send_replace(Mode::Forward { delay });
    }

    /// Forwards again.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
    }

    /// Bytes that went to the server and to the clients.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.state.to_server.load(Ordering::SeqCst), self.state.to_client.load(Ordering::SeqCst))
    }

    /// How often a client has sent something: its round trips, if it waits for each answer before it sends again, and none is
    /// longer than 64 KiB.
    #[must_use]
    pub fn sendings(&self) -> u64 {
        self.state.sendings.load(Ordering::SeqCst)
    }

    /// Connections that were made.
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

async fn link(client: TcpStream, port: u16, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut mode = state.mode.subscribe();
    tokio::select! {
        () = forward(from_client, to_server, &state, |bytes| {
            state.to_server.fetch_add(bytes, Ordering::SeqCst);
            state.sendings.fetch_add(1, Ordering::SeqCst);
        }) => {}
        () = forward(from_server, to_client, &state, |bytes| {
            state.to_client.fetch_add(bytes, Ordering::SeqCst);
        }) => {}
        // Whatever the result: the link ends.
        _cut = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, count: impl Fn(u64)) {
    let mut mode = state.mode.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(mode) = mode.wait_for(|mode| *mode != Mode::Frozen).await.map(|mode| *mode) else { return };
        if let Mode::Forward { delay } = mode
            && !delay.is_zero()
        {
            sleep(delay).await;
        }
        // Before it goes on, so that whoever has the answer sees it counted.
        count(read as u64);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
