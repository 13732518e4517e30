//! A browser in front of a session layer, without a network.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};

use cache_core::Cache;
use cache_core::clock::Timestamp;
use cache_core::session::{Session, SessionBuilder, SessionError, SessionLayer, SessionMode};
use http::{Request, Response};
use serde_json::value::RawValue;
use support::RedisServer;
use tower::{Layer, ServiceExt as _};

pub(super) const SECRET: &str = "a secret of thirty-two bytes....";

/// Returns a builder for a layer in the format of Express.
pub(super) fn express(cache: &Cache) -> SessionBuilder {
    SessionLayer::builder(cache).mode(SessionMode::Express).secret(SECRET)
}

/// A browser that keeps and sends cookies.
#[derive(Clone, Default)]
pub(super) struct Browser {
    jar: Arc<Mutex<BTreeMap<String, String>>>,
    headers: Vec<(String, String)>,
    path: Option<String>,
}

/// The response to a request.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) cookies: Vec<String>,
    pub(super) headers: http::HeaderMap,
}

impl Browser {
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn at(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        self.jar.lock().unwrap().get(name).cloned()
    }

    /// Returns another browser with the current cookies of this one.
    pub(super) fn copy(&self) -> Self {
        let jar = self.jar.lock().unwrap().clone();
        Self { jar: Arc::new(Mutex::new(jar)), ..self.clone() }
    }

    /// Sends one request, which the handler answers.
    pub(super) async fn visit<F, T>(&self, layer: &SessionLayer, handler: F) -> Page
    where
        F: FnOnce(Session) -> T + Send + 'static,
        T: Future<Output = Result<u16, SessionError>> + Send + 'static,
    {
        let handler = Arc::new(Mutex::new(Some(handler)));
        let service = layer.layer(tower::service_fn(move |request: Request<()>| {
            let handler = handler.lock().unwrap().take().expect("one request");
            async move {
                let session = request.extensions().get::<Session>().expect("a session").clone();
                let status = handler(session).await.unwrap_or_else(|error| error.status().as_u16());
                let response = Response::builder().status(status).header("set-cookie", "theme=dark; Path=/");
                Ok::<_, Infallible>(response.body("body".to_owned()).expect("a response"))
            }
        }));
        let mut request = Request::builder().uri(self.path.as_deref().unwrap_or("/"));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let cookies: Vec<_> = self.jar.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let response = service.oneshot(request.body(()).expect("a request")).await.expect("infallible");
        let mut cookies = Vec::new();
        for cookie in response.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().expect("text").to_owned();
            let (name, value) = cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
            if name == "theme" {
                continue;
            }
            let mut jar = self.jar.lock().unwrap();
            if cookie.contains("01 Jan 1970") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
            drop(jar);
            cookies.push(cookie);
        }
        Page { status: response.status().as_u16(), cookies, headers: response.headers().clone() }
    }

    /// Sends a request whose handler sets one value.
    pub(super) async fn set(&self, layer: &SessionLayer, name: &'static str, value: i64) -> Page {
        self.visit(layer, move |session| async move { session.insert(name, &value).await.map(|()| 200) }).await
    }

    /// Sends a request whose handler reads one value.
    pub(super) async fn get(&self, layer: &SessionLayer, name: &'static str) -> Option<i64> {
        let found = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&found);
        let page = self
            .visit(layer, move |session| async move {
                *slot.lock().unwrap() = session.get(name).await?;
                Ok(200)
            })
            .await;
        assert_eq!(page.status, 200);
        *found.lock().unwrap()
    }

    /// Returns the id in the cookie.
    pub(super) fn id(&self, name: &str) -> Option<String> {
        let value = self.cookie(name)?;
        let rest = value.strip_prefix("s%3A").expect("signed");
        Some(rest.rsplit_once('.').expect("with a signature").0.to_owned())
    }

    /// Returns the stored session.
    pub(super) async fn stored(&self, cache: &Cache) -> Option<String> {
        let key = format!("sess:{}", self.id("connect.sid")?);
        stored(cache, &key).await
    }
}

pub(super) async fn stored(cache: &Cache, key: &str) -> Option<String> {
    let raw: Option<Box<RawValue>> = cache.plain().get(key).await.expect("JSON");
    raw.map(|raw| raw.get().to_owned())
}

/// Returns the keys of all sessions, in both formats.
pub(super) fn session_keys(server: &RedisServer) -> Vec<String> {
    let keys = ["sess:*", "cache:sess:*"].map(|pattern| server.cli(&["KEYS", pattern]));
    keys.iter().flat_map(|keys| keys.lines()).filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

/// Returns a builder for a layer in our own format, during a migration from Express.
pub(super) fn moving(cache: &Cache) -> SessionBuilder {
    let now = if cache.address().starts_with("redis") {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_millis()).unwrap()
    } else {
        // The start time of manual clocks.
        1_767_225_600_000
    };
    native(cache).take_over_until(Timestamp::from_millis(now + 86_400_000 * 30))
}

/// Returns a builder for a layer in our own format.
pub(super) fn native(cache: &Cache) -> SessionBuilder {
    SessionLayer::builder(cache).secret(SECRET)
}
