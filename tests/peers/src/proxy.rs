//! A TCP proxy on loopback that can hold back what the server sends, or everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Requests pass, and replies wait.
    HoldReplies,
    /// Nothing passes. The connections stay open.
    Frozen,
}

/// A running proxy. It ends with its runtime.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    flow: Arc<watch::Sender<Flow>>,
    held: watch::Receiver<u64>,
}

impl Proxy {
    /// Starts a proxy in front of a port of this machine.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let flow = Arc::new(watch::Sender::new(Flow::Open));
        let (held_tx, held) = watch::channel(0);
        let held_tx = Arc::new(held_tx);
        let flows = Arc::clone(&flow);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { continue };
                let _unsupported = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let flow = flows.subscribe();
                tokio::spawn(requests(from_client, to_server, flow.clone()));
                tokio::spawn(replies(from_server, to_client, flow, Arc::clone(&held_tx)));
            }
        });
        Self { address, flow, held }
    }

    /// Returns the URL of Redis behind the proxy.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// From now on, holds back what the server sends.
    pub fn hold_replies(&mut self) {
        self.held.mark_unchanged();
        self.flow.send_replace(Flow::HoldReplies);
    }

    /// Waits until something has been held back since [`hold_replies`](Self::hold_replies).
    pub async fn held(&mut self) {
        self.held.changed().await.expect("the proxy runs");
    }

    /// From now on, lets nothing pass in either direction.
    pub fn freeze(&self) {
        self.flow.send_replace(Flow::Frozen);
    }

    /// Lets everything pass, also what was held back.
    pub fn open(&self) {
        self.flow.send_replace(Flow::Open);
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passes = flow.wait_for(|flow| *flow != Flow::Frozen).await.is_ok();
        if !passes || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    held: Arc<watch::Sender<u64>>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if *flow.borrow() == Flow::HoldReplies {
            held.send_modify(|held| *held += 1);
        }
        let passes = flow.wait_for(|flow| *flow == Flow::Open).await.is_ok();
        if !passes || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
