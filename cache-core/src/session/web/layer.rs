//! The tower layer: gives each request its session, and writes it before the response is sent.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CACHE_CONTROL, HeaderValue, SET_COOKIE, VARY};
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::response::{self, Answer};
use super::state::State;
use crate::cell::CellStore;
use crate::object::CellHost;
use crate::observe::events::SessionEvent;
use crate::session::config::Config;
use crate::session::error::FailedAnswer;
use crate::session::options::Transport;
use crate::session::stored::sessions::Sessions;
use crate::session::{Session, SessionError};

/// Adds sessions to all requests that pass through it. Cheap to clone; clones are the same layer.
///
/// A request whose handler does not access its session costs no read and no write. The response is
/// sent after the store has acknowledged the changes. If the store does not, the client gets a 503
/// (or 500) with an empty body and no cookie instead.
#[derive(Clone)]
pub struct SessionLayer(pub(in crate::session) Arc<Sessions>);

impl SessionLayer {
    pub(in crate::session) fn new(host: CellHost, own: Option<Arc<dyn CellStore>>, config: Config) -> Self {
        let sessions = Sessions::new(host, own, config);
        for bytes in sessions.config.keyring.short() {
            sessions.emit(SessionEvent::ShortSecret { bytes });
        }
        let sessions = Arc::new(sessions);
        sessions.look_for_others();
        Self(sessions)
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionLayer").field(&self.0.config).finish()
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { sessions: Arc::clone(&self.0), inner }
    }
}

/// The service that [`SessionLayer`] wraps around another.
#[derive(Clone)]
pub struct SessionService<S> {
    sessions: Arc<Sessions>,
    inner: S,
}

impl<S> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionService").field(&self.sessions.config).finish()
    }
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: Default + Send,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // Calls the instance that was polled ready, and keeps the clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let config = &self.sessions.config;
        // An outer layer has added a session already, or the browser sends no cookie to this path.
        if request.extensions().get::<Session>().is_some() || !is_below(path(&request), config.path()) {
            return Box::pin(inner.call(request));
        }
        let by_https = is_https(config, &request);
        let facts = response::Request::new(request.headers(), config, by_https);
        let session = Session::new(Arc::clone(&self.sessions), State::new(Arc::clone(&self.sessions), facts));
        request.extensions_mut().insert(session.clone());
        let sessions = Arc::clone(&self.sessions);
        let answer = inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let failed = response.status().is_server_error();
            if let Some(FailedAnswer(reason)) = response.extensions_mut().remove() {
                sessions.emit(SessionEvent::Failed { reason });
            }
            match session.finish(failed).await {
                Ok(answer) => add_headers(&sessions.config, response.headers_mut(), answer),
                Err(error) => {
                    sessions.failed(&error);
                    response = Response::new(R::default());
                    *response.status_mut() = error.status();
                    add_headers(&sessions.config, response.headers_mut(), Answer { vary: true, ..Answer::default() });
                }
            }
            Ok(response)
        })
    }
}

impl Sessions {
    fn failed(&self, error: &SessionError) {
        let fault = std::error::Error::source(error).and_then(|source| source.downcast_ref::<crate::Error>());
        // A store of the application's own may name anything in its errors, and its errors are not
        // the cache's.
        if let Some(fault) = fault.filter(|_| !self.is_own) {
            self.host.store_failed(fault);
        }
        self.emit(SessionEvent::Failed { reason: error.what().into() });
    }
}

fn add_headers(config: &Config, headers: &mut http::HeaderMap, answer: Answer) {
    let Answer { cookies, token, vary } = answer;
    let sends = !cookies.is_empty() || token.is_some();
    for cookie in cookies {
        // Always valid: the cookie consists of header-safe characters, and ids and names are
        // encoded.
        if let Ok(value) = HeaderValue::try_from(cookie) {
            headers.append(SET_COOKIE, value);
        }
    }
    if let Some((name, token)) = token
        && let Ok(value) = HeaderValue::try_from(token)
    {
        headers.insert(name, value);
    }
    if !config.cache_headers || !vary {
        return;
    }
    for transport in &config.transports {
        let name = match transport {
            Transport::Cookie => HeaderValue::from_static("Cookie"),
            Transport::Bearer => HeaderValue::from_static("Authorization"),
            Transport::Header(name) => HeaderValue::from(name.clone()),
        };
        let stands =
            tokens(headers, &VARY).any(|token| token == "*" || token.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
        if !stands {
            headers.append(VARY, name);
        }
    }
    // What the handler says about caching. `s-maxage` says that a shared cache may keep the
    // response.
    let says = |words: &[&str]| {
        let words_of = |token: &str| token.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        tokens(headers, &CACHE_CONTROL).any(|token| words.contains(&words_of(token).as_str()))
    };
    if says(&["private", "no-store"]) {
        return;
    }
    if sends {
        // Overrides everything else: an id is for one client.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    } else if !says(&["public", "s-maxage"]) {
        let said: Vec<&str> = tokens(headers, &CACHE_CONTROL).chain(["private"]).collect();
        if let Ok(value) = HeaderValue::try_from(said.join(", ")) {
            headers.insert(CACHE_CONTROL, value);
        }
    }
}

/// Returns the parts of a list header.
fn tokens<'a>(headers: &'a http::HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Returns the path as the browser sees it; a nested router strips its beginning.
fn path<B>(request: &Request<B>) -> &str {
    #[cfg(feature = "axum")]
    if let Some(original) = request.extensions().get::<axum::extract::OriginalUri>() {
        return original.0.path();
    }
    request.uri().path()
}

/// Returns whether a browser sends a cookie of this path there: RFC 6265, 5.1.4.
fn is_below(path: &str, cookie_path: &str) -> bool {
    match path.strip_prefix(cookie_path) {
        Some(rest) => rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

fn is_https<B>(config: &Config, request: &Request<B>) -> bool {
    if config.https || request.uri().scheme_str() == Some("https") {
        return true;
    }
    let forwarded = request.headers().get("x-forwarded-proto").filter(|_| config.proxy);
    let first = forwarded.and_then(|value| value.to_str().ok()).and_then(|value| value.split(',').next());
    first.is_some_and(|first| first.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;

    /// Returns what this layer makes of a handler's headers: `vary`, `cache-control`.
    fn added(said: &[(&'static str, &'static str)], sends: bool) -> (String, String) {
        let transports =
            [Transport::Cookie, Transport::Bearer, Transport::Header(http::HeaderName::from_static("x-id"))];
        let cache = Cache::in_memory();
        let layer = SessionLayer::builder(&cache).secret([7_u8; 32]).transports(transports).build().unwrap();
        let mut headers = http::HeaderMap::new();
        for (name, value) in said {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let cookies = if sends { vec!["a=b".to_owned()] } else { Vec::new() };
        add_headers(&layer.0.config, &mut headers, Answer { cookies, token: None, vary: true });
        (
            tokens(&headers, &VARY).collect::<Vec<_>>().join(", "),
            tokens(&headers, &CACHE_CONTROL).collect::<Vec<_>>().join(", "),
        )
    }

    #[test]
    fn vary_names_what_the_response_depends_on_whatever_the_handler_sets() {
        // N1
        for (said, vary) in [
            (&[][..], "Cookie, Authorization, x-id"),
            (&[("vary", "*")], "*"),
            (&[("vary", "X-Cookie-Consent, authorization")], "X-Cookie-Consent, authorization, Cookie, x-id"),
            (&[("vary", "Accept"), ("vary", " cookie ,X-Id")], "Accept, cookie, X-Id, Authorization"),
        ] {
            assert_eq!(added(said, false).0, vary, "{said:?}");
        }
        for (said, reads, sends) in [
            (None, "private", "no-store"),
            (Some("no-cache"), "no-cache, private", "no-store"),
            (Some("max-age=60"), "max-age=60, private", "no-store"),
            (Some("public, max-age=60"), "public, max-age=60", "no-store"),
            (Some("s-maxage=5"), "s-maxage=5", "no-store"),
            (Some("Private, max-age=60"), "Private, max-age=60", "Private, max-age=60"),
            (Some("no-store"), "no-store", "no-store"),
            (Some("private=\"x-a\""), "private=\"x-a\"", "private=\"x-a\""),
        ] {
            let said: Vec<_> = said.map(|said| ("cache-control", said)).into_iter().collect();
            assert_eq!((added(&said, false).1.as_str(), added(&said, true).1.as_str()), (reads, sends), "{said:?}");
        }
    }

    #[test]
    fn a_cookie_is_sent_below_its_path_by_segments() {
        for below in [("/", "/"), ("/a", "/"), ("/admin", "/admin"), ("/admin/x", "/admin"), ("/admin/x", "/admin/")] {
            assert!(is_below(below.0, below.1), "{below:?}");
        }
        for beside in [("/adminfoo", "/admin"), ("/", "/admin"), ("/admin", "/admin/")] {
            assert!(!is_below(beside.0, beside.1), "{beside:?}");
        }
    }
}
