//! Behind a shared cache, a real nginx: no client gets a response that was made for another.

use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderName, header};
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::get;
use cache_core::Cache;
use cache_core::session::{OptionalSession, Session, SessionError, SessionLayer, SessionMode, Transport};
use support::http::Response;
use support::{Nginx, Proxy, RedisServer, http};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(serde::Deserialize)]
struct Login {
    name: String,
}

async fn login(session: Session, Query(login): Query<Login>) -> Result<&'static str, SessionError> {
    session.login(login.name).await.map(|()| "in")
}

async fn who(session: Session) -> Result<String, SessionError> {
    Ok(session.user().await?.unwrap_or_else(|| "nobody".to_owned()))
}

/// Sets how long the response may be cached, and another header on which it depends, with `cookie`
/// in its name.
async fn kept_for_a_minute(session: Session) -> Result<impl IntoResponse, SessionError> {
    let headers = AppendHeaders([(header::CACHE_CONTROL, "max-age=60"), (header::VARY, "X-Cookie-Consent")]);
    Ok((headers, who(session).await?))
}

async fn count(session: Session) -> Result<impl IntoResponse, SessionError> {
    let count = session.increment("count", 1).await?;
    Ok(([(header::CACHE_CONTROL, "public, max-age=60")], count.to_string()))
}

async fn without_the_store(OptionalSession(session): OptionalSession) -> Result<String, SessionError> {
    match session {
        Some(session) => who(session).await,
        None => Ok("nobody knows".to_owned()),
    }
}

/// A server with this layer, and nginx in front of it.
struct Site {
    nginx: Nginx,
    transport: Transport,
    server: JoinHandle<()>,
}

impl Site {
    async fn start(cache: &Cache, mode: SessionMode, transport: Transport) -> Self {
        Self::start_with(cache, mode, transport, true).await
    }

    async fn start_with(cache: &Cache, mode: SessionMode, transport: Transport, cache_headers: bool) -> Self {
        let layer = SessionLayer::builder(cache)
            .mode(mode)
            .secret("a secret of thirty-two bytes....")
            .transports([transport.clone()])
            .cache_headers(cache_headers)
            .build()
            .unwrap();
        let router = Router::new()
            .route("/login", get(login))
            .route("/who", get(who))
            .route("/minute", get(kept_for_a_minute))
            .route("/count", get(count))
            .route("/optional", get(without_the_store))
            .route("/all", get(|| async { "the same for all" }))
            .layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nginx = Nginx::cache_in_front_of(listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { nginx, transport, server }
    }

    async fn get(&self, path: &str, client: Option<&(String, String)>) -> Response {
        let headers: Vec<(&str, &str)> = client.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        http::get(self.nginx.port(), path, &headers).await
    }

    /// Logs in. Returns the header that this client sends from then on.
    async fn log_in(&self, name: &str) -> (String, String) {
        let response = self.get(&format!("/login?name={name}"), None).await;
        assert_eq!(response.body, "in");
        shown(&response, &self.transport)
    }
}

fn shown(response: &Response, transport: &Transport) -> (String, String) {
    match transport {
        Transport::Bearer => ("authorization".into(), format!("Bearer {}", response.header("session-token").unwrap())),
        Transport::Header(name) => (name.to_string(), response.header(name.as_str()).unwrap().to_owned()),
        _ => {
            let cookie = response.header("set-cookie").unwrap();
            ("cookie".into(), cookie.split(';').next().unwrap().to_owned())
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn transports() -> [Transport; 3] {
    [Transport::Cookie, Transport::Bearer, Transport::Header(HeaderName::from_static("x-session"))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_cache_serves_no_session_response_to_another_user() {
    // N1
    for mode in [SessionMode::Native, SessionMode::Express] {
        for transport in transports() {
            let site = Site::start(&Cache::in_memory(), mode, transport.clone()).await;
            // It does cache a response that allows it.
            assert_eq!(site.get("/all", None).await.header("x-cache"), Some("MISS"));
            assert_eq!(site.get("/all", None).await.header("x-cache"), Some("HIT"));
            let (ada, bob) = (site.log_in("ada").await, site.log_in("bob").await);
            for path in ["/who", "/minute", "/optional"] {
                for (client, name) in [(Some(&ada), "ada"), (Some(&bob), "bob"), (None, "nobody"), (Some(&ada), "ada")]
                {
                    let response = site.get(path, client).await;
                    assert_eq!(response.body, name, "{mode:?}, {transport:?}, {path}: {response:?}");
                }
            }
            // A new session is given to one visitor only, even though the handler sets `public`.
            let first = site.get("/count", None).await;
            let second = site.get("/count", None).await;
            assert_ne!(shown(&first, &transport), shown(&second, &transport), "{mode:?}, {transport:?}");
            assert_eq!((first.body.as_str(), second.body.as_str()), ("1", "1"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_headers_it_gives_one_users_answer_to_another() {
    for transport in transports() {
        let site = Site::start_with(&Cache::in_memory(), SessionMode::Native, transport, false).await;
        let (ada, bob) = (site.log_in("ada").await, site.log_in("bob").await);
        let answers = [site.get("/who", Some(&ada)).await, site.get("/who", Some(&bob)).await];
        assert_eq!(answers.map(|answer| answer.body), ["ada", "ada"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_cache_keeps_no_response_from_a_store_outage() {
    // N1
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let settings = Cache::builder().response_timeout(Duration::from_millis(500));
    let cache = settings.url(proxy.url()).connect().await.unwrap();
    for transport in transports() {
        let site = Site::start(&cache, SessionMode::Native, transport.clone()).await;
        let ada = site.log_in("ada").await;
        proxy.cut();
        // A request that is on its way may still be answered.
        support::eventually("the store is away", || async { !cache.is_available() }).await;
        let response = site.get("/optional", Some(&ada)).await;
        assert_eq!(response.body, "nobody knows");
        assert_eq!(site.get("/who", Some(&ada)).await.status, 503);
        proxy.heal();
        support::eventually("the store is back", || async { cache.is_available() }).await;
        support::eventually("it is asked again", || async { site.get("/optional", Some(&ada)).await.body == "ada" })
            .await;
    }
}
