//! The layer between the sockets and the router: limits, so that no client can block the server.
//!
//! `axum::serve` is enough for a service behind a proxy. But it has no timer for headers, so a
//! request whose headers never end keeps its connection open. Therefore the connections are served
//! with `hyper` here.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use hyper::server::conn::http1;
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::timeout::TimeoutLayer;
use tower::{Service as _, ServiceBuilder};

use crate::api;
use crate::form::REQUEST_BYTES_MAX;
use crate::problem::Problem;

/// How long the server waits after an error of its own, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// How much of the server one client, or all together, may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The number of concurrent requests; further ones get a 503 at once. Default: 512.
    pub requests: NonZeroUsize,
    /// How long a request may take, including its body; after that it gets a 503. Default: 20 s.
    pub request: Duration,
    /// How long the headers of a request may take, and how long a connection may be idle; after
    /// that it is closed. Default: 10 s.
    pub headers: Duration,
    /// The largest body in bytes; a larger one gets a 413. Default: 512 KiB.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: const { NonZeroUsize::new(512).unwrap() },
            request: Duration::from_secs(20),
            headers: Duration::from_secs(10),
            body: REQUEST_BYTES_MAX,
        }
    }
}

/// Adds the limits of a request. The first layer here is the outermost.
///
/// The timeout does not cover the wait for a free place, since `tower` waits before it calls. So
/// requests do not wait: if there is no free place, the request is refused.
pub(crate) fn limited(router: Router, limits: &Limits) -> Router {
    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refused))
        .layer(TimeoutLayer::new(limits.request))
        .layer(LoadShedLayer::new())
        // One limit for all routes; `ConcurrencyLimitLayer` would be one for each route.
        .layer(GlobalConcurrencyLimitLayer::new(limits.requests.get()));
    router.layer(layers)
}

async fn refused(uri: Uri, error: BoxError) -> Response {
    let problem = if error.is::<Overloaded>() { Problem::Full } else { Problem::TooSlow };
    // Under load, this happens for every request.
    tracing::debug!(%error, "a request was refused");
    if uri.path().starts_with("/api/") { api::Fault::from(problem).into_response() } else { problem.into_response() }
}

/// Serves connections of the listener until `stop` ends, and then finishes the requests in
/// progress. Dropping the future closes every connection.
///
/// # Errors
/// If the listener has no address.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.local_addr()?;
    // With the address of each client, which is used to count login attempts.
    let mut services = router.into_make_service_with_connect_info::<SocketAddr>();
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // An error of this client's connection.
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => continue,
                        () = &mut stop => break,
                    }
                }
            },
            Some(_ended) = connections.join_next() => continue,
            () = &mut stop => break,
        };
        let Ok(service) = services.call(client).await;
        connections.spawn(connection(stream, TowerToHyperService::new(service), limits.headers, stopped.clone()));
    }
    drop(listener);
    drop(stopping);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Serves one connection. When the server stops, the request in progress is its last.
async fn connection<S, B>(stream: TcpStream, service: S, headers: Duration, mut stopped: watch::Receiver<()>)
where
    S: HyperService<hyper::Request<hyper::body::Incoming>, Response = hyper::Response<B>>,
    S::Error: Into<BoxError>,
    B: hyper::body::Body + 'static,
    B::Error: Into<BoxError>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(headers);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _dropped = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
