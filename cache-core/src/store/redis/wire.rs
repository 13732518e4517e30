//! One connection to the server: the socket, the client's driver on it, and a counter of progress.
//!
//! ```text
//! client's driver ──> Watched ──> TCP | TLS | Unix socket
//!                        └─ moves: rises with each piece that arrives,
//!                           and with each piece that a full socket accepts
//! ```
//!
//! Invariant: a call waits for its answer as long as bytes move, since answers come in the order of
//! requests: a small request behind a large reply is not given up while that arrives. A call
//! without progress for one response timeout has failed, and so has one that takes [`LONGEST`] of
//! them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, select_ok};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::config::{Address, RedisConfig};
use super::error;
use crate::background::Background;
use crate::error::{Error, ErrorKind, Result};

/// How many response timeouts an answer may take, however steadily bytes arrive.
pub(super) const LONGEST: u32 = 20;
/// How often within a response timeout progress is checked. A stall is found late by up to one of
/// these intervals.
const LOOKS: u32 = 4;

/// Makes connections.
pub(super) struct Dialer {
    address: Address,
    login: RedisConnectionInfo,
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsConnector>,
}

impl Dialer {
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: the address can never work.
    pub(super) fn new(config: &RedisConfig) -> Result<Self> {
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
        let address = config.address.clone();
        #[cfg(feature = "tls")]
        let tls = match &address {
            Address::Tls { ca, .. } => Some(tls::connector(ca.as_deref())?),
            Address::Tcp { .. } | Address::Unix(_) => None,
        };
        #[cfg(not(feature = "tls"))]
        if matches!(address, Address::Tls { .. }) {
            return Err(unusable("`rediss://` needs the feature `tls`"));
        }
        #[cfg(not(unix))]
        if matches!(address, Address::Unix(_)) {
            return Err(unusable("this platform has no Unix sockets"));
        }
        Ok(Self {
            address,
            login,
            #[cfg(feature = "tls")]
            tls,
        })
    }

    /// Opens a connection and logs in. Has no time limit of its own. Cancelled, it leaves a socket
    /// that closes by itself.
    pub(super) async fn dial(
        &self,
        config: &RedisConfig,
        background: &Background,
        on_push: impl Fn(PushInfo) -> Result<(), std::fmt::Error> + Send + Sync + 'static,
    ) -> Result<Wire> {
        let failed = |error: RedisError| error::of_connect(&error, config);
        let socket = self.socket().await.map_err(|error| failed(error.into()))?;
        let moves = Arc::new(AtomicU64::new(0));
        let watched = Watched { socket, moves: Arc::clone(&moves), is_full: false };
        // Our own limits include the client's queue, which the client's limits do not.
        let settings = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(on_push);
        let made = MultiplexedConnection::new_with_config(&self.login, watched, settings).await;
        let (connection, driver) = made.map_err(failed)?;
        let (alive, gone) = oneshot::channel();
        let drive = async move {
            tokio::select! {
                () = driver => {}
                // The last user of the connection is gone: the rest is not needed.
                _dropped = gone => {}
            }
        };
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let mark = Abandoned { mark: Arc::clone(&is_abandoned), is_over: false };
        if !background.service(Driven { mark, driver: Box::pin(drive) }) {
            return Err(error::closed("connect"));
        }
        Ok(Wire { connection, moves, is_abandoned, _alive: Arc::new(alive) })
    }

    async fn socket(&self) -> io::Result<Box<dyn Socket>> {
        match &self.address {
            Address::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await?)),
            #[cfg(feature = "tls")]
            Address::Tls { host, port, .. } => {
                let name = rustls::pki_types::ServerName::try_from(host.clone())
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let Some(tls) = &self.tls else { return Err(io::ErrorKind::Unsupported.into()) };
                Ok(Box::new(tls.connect(name, tcp(host, *port).await?).await?))
            }
            #[cfg(unix)]
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            #[allow(unreachable_patterns, reason = "with all features on Unix there are no others")]
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Connects to the address of the name that answers first.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
    }
    let (stream, _others) =
        select_ok(addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)))).await?;
    // With Nagle's algorithm a small command waits for the acknowledgement of the last one.
    stream.set_nodelay(true)?;
    // An abandoned connection is reset: what this machine has not sent yet is never sent (R26).
    redis::io::tcp::socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

fn unusable(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, "connect").detail(detail)
}

#[cfg(feature = "tls")]
mod tls {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::crypto::{CryptoProvider, ring};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    use super::unusable;
    use crate::error::Result;

    /// Trusts the authorities of this file, or else those of the system.
    pub(super) fn connector(ca: Option<&Path>) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let refused = |error: &dyn std::fmt::Display| {
                    unusable(format!("the certificate file of `tls_ca` cannot be read: {error}"))
                };
                let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))?;
                for certificate in certificates {
                    roots.add(certificate.map_err(|error| refused(&error))?).map_err(|error| refused(&error))?;
                }
                if roots.is_empty() {
                    return Err(unusable("the certificate file of `tls_ca` contains no certificate"));
                }
            }
            // If there are none, the handshake fails: nothing is trusted then.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        // A provider that the program has installed is used.
        let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(format!("TLS cannot be set up: {error}")))?;
        Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }
}

/// A connection, shared by all its clones. The driver ends with the last of them.
#[derive(Clone)]
pub(super) struct Wire {
    connection: MultiplexedConnection,
    moves: Arc<AtomicU64>,
    is_abandoned: Arc<AtomicBool>,
    _alive: Arc<oneshot::Sender<Infallible>>,
}

/// The client's driver. The mark is set before the driver is dropped, so a caller that sees the
/// lost connection also sees the mark.
struct Driven {
    mark: Abandoned,
    driver: BoxFuture<'static, ()>,
}

impl Future for Driven {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.driver.as_mut().poll(cx);
        self.mark.is_over |= over.is_ready();
        over
    }
}

/// Marks that a driver was dropped before its end: its runtime has ended, or is about to.
struct Abandoned {
    mark: Arc<AtomicBool>,
    is_over: bool,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if !self.is_over {
            self.mark.store(true, Ordering::Release);
        }
    }
}

/// No answer came, and no byte of one.
#[derive(Debug)]
pub(super) struct Stalled;

impl Wire {
    /// Returns whether the runtime that drove it has ended.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    /// Returns the client's own handle. Calls through it have no time limit except that of
    /// [`within`](Self::within).
    pub(super) fn client(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Waits for a call on this connection while bytes move, and for [`LONGEST`] response timeouts
    /// at most.
    pub(super) async fn within<T>(
        &self,
        response: Duration,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<RedisResult<T>, Stalled> {
        while_moving(&self.moves, response, call).await
    }
}

async fn while_moving<T>(moves: &AtomicU64, response: Duration, call: impl Future<Output = T>) -> Result<T, Stalled> {
    let mut call = std::pin::pin!(call);
    let pause = response.checked_div(LOOKS).unwrap_or(response);
    let (mut still, mut seen) = (0_u32, moves.load(Ordering::Relaxed));
    for _ in 0..LONGEST.saturating_mul(LOOKS) {
        if let Ok(done) = timeout(pause, call.as_mut()).await {
            return Ok(done);
        }
        let now = moves.load(Ordering::Relaxed);
        still = if now == seen { still.saturating_add(1) } else { 0 };
        seen = now;
        if still >= LOOKS {
            break;
        }
    }
    Err(Stalled)
}

/// What the client needs of a socket.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A socket that counts when bytes move.
struct Watched {
    socket: Box<dyn Socket>,
    moves: Arc<AtomicU64>,
    /// The system's buffer was full: if it accepts more, the other side has taken some.
    is_full: bool,
}

impl Watched {
    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.moved();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        match &written {
            Poll::Pending => self.is_full = true,
            // A buffer with room accepts bytes even if the other side does not read any more.
            Poll::Ready(_) if self.is_full => {
                self.is_full = false;
                self.moved();
            }
            Poll::Ready(_) => {}
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the runtime's clock is paused")]
mod tests {
    use std::future::{pending, poll_fn};

    use tokio::time::{Instant, sleep};

    use super::*;

    const RESPONSE: Duration = Duration::from_millis(400);

    /// Returns how long a call that never ends is waited for while a byte arrives `times` times,
    /// once per `every`.
    async fn waited(every: Duration, times: u32) -> Duration {
        let (moves, began) = (AtomicU64::new(0), Instant::now());
        let bytes = async {
            for _ in 0..times {
                sleep(every).await;
                moves.fetch_add(1, Ordering::Relaxed);
            }
            pending::<()>().await;
        };
        tokio::select! {
            ended = while_moving(&moves, RESPONSE, pending::<()>()) => assert!(ended.is_err()),
            () = bytes => {}
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    // C3, D2
    async fn the_timeout_is_extended_while_bytes_arrive_up_to_twenty_times() {
        let (nothing, some, dribble) = (waited(RESPONSE, 0), waited(RESPONSE / 2, 10), waited(RESPONSE / 2, 1000));
        assert_eq!(nothing.await, RESPONSE);
        let after_the_last = some.await - RESPONSE * 5;
        assert!(after_the_last >= RESPONSE && after_the_last <= RESPONSE * 5 / 4, "{after_the_last:?}");
        assert_eq!(dribble.await, RESPONSE * LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_answered_is_over_at_once() {
        let (moves, began) = (AtomicU64::new(0), Instant::now());
        let call = async {
            sleep(RESPONSE / 8).await;
            7
        };
        assert_eq!(while_moving(&moves, RESPONSE, call).await.unwrap(), 7);
        assert_eq!(began.elapsed(), RESPONSE / 8);
    }

    #[cfg(unix)]
    #[tokio::test]
    // C3
    async fn only_received_bytes_and_bytes_that_a_full_socket_takes_count() {
        let (near, far) = UnixStream::pair().unwrap();
        let moves = Arc::new(AtomicU64::new(0));
        let mut watched = Watched { socket: Box::new(near), moves: Arc::clone(&moves), is_full: false };
        let count = || moves.load(Ordering::Relaxed);
        let (piece, mut into) = (vec![1; 4096], vec![0; 1 << 20]);
        let mut write = async |wait: bool| {
            poll_fn(|cx| match Pin::new(&mut watched).poll_write(cx, &piece) {
                Poll::Pending if !wait => Poll::Ready(false),
                written => written.map(|written| written.is_ok()),
            })
            .await
        };
        assert!(write(false).await);
        while write(false).await {}
        assert_eq!(count(), 0, "the other side may be gone");
        far.readable().await.unwrap();
        assert!(far.try_read(&mut into).unwrap() > 0);
        assert!(write(true).await);
        assert_eq!(count(), 1);
        while far.try_read(&mut into).is_ok() {}
        far.writable().await.unwrap();
        assert_eq!(far.try_write(&[3; 4]).unwrap(), 4);
        let mut read = async || {
            let mut buffer = ReadBuf::new(&mut into);
            poll_fn(|cx| Pin::new(&mut watched).poll_read(cx, &mut buffer)).await.unwrap();
            buffer.filled().len()
        };
        assert_eq!((read().await, count()), (4, 2));
        drop(far);
        assert_eq!((read().await, count()), (0, 2));
    }
}
