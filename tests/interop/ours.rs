//! Our applications, with the routes of `tests/interop/express/app.js`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cache_core::Cache;
use cache_core::session::{
    CookieOptions, Priority, SameSite, Secret, Secure, Session, SessionError, SessionLayer, SessionMode, SessionValues,
    Unset,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::{Gate, RedisServer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::browser::App;

/// Servers in this process. Dropping it ends them.
pub(super) struct Ours {
    ports: Vec<u16>,
    servers: Vec<JoinHandle<()>>,
}

impl Ours {
    /// Starts the applications. Each has its own cache, as in a process of its own.
    pub(super) async fn start(server: &RedisServer, apps: &[App]) -> Self {
        let mut ours = Self { ports: Vec::new(), servers: Vec::new() };
        for app in apps {
            let cache = Cache::connect(&server.patient_url()).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ours.ports.push(listener.local_addr().unwrap().port());
            let router = router(layer(&cache, app));
            ours.servers.push(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
        }
        ours
    }

    pub(super) fn port(&self, index: usize) -> u16 {
        self.ports[index]
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

tokio::task_local! {
    /// The id for a new session of this request.
    static ID: String;
}

/// Translates the options of Express to ours.
fn layer(cache: &Cache, app: &App) -> SessionLayer {
    let mut builder = SessionLayer::builder(cache)
        .mode(SessionMode::Express)
        .prefix(app.prefix())
        .resave(app.resave)
        .save_uninitialized(app.save_uninitialized)
        .rolling(app.rolling)
        .proxy(app.proxy.unwrap_or(false))
        .cookie(cookie(app));
    match app.secret.as_ref().unwrap_or(&json!("keyboard cat")) {
        Value::String(secret) => builder = builder.secret(secret),
        Value::Array(secrets) => {
            for secret in secrets {
                builder = builder.secret(secret.as_str().unwrap());
            }
        }
        bytes => {
            let digits = bytes["hex"].as_str().unwrap();
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            builder = builder.secret(Secret::new((0..digits.len()).step_by(2).map(byte).collect::<Vec<_>>()));
        }
    }
    if let Some(name) = app.name {
        builder = builder.name(name);
    }
    if let Some(unset) = app.unset {
        builder = builder.unset(if unset == "destroy" { Unset::Destroy } else { Unset::Keep });
    }
    if let Some(ttl) = app.store_options.ttl {
        builder = builder.ttl(Duration::from_secs(ttl));
    }
    if app.genid_from_header {
        builder = builder.generate_id(|| ID.get());
    }
    builder.build().unwrap()
}

fn cookie(app: &App) -> CookieOptions {
    let of = &app.cookie;
    let mut cookie = CookieOptions::new();
    if let Some(max_age) = of.max_age {
        cookie = cookie.max_age(Duration::from_millis(max_age));
    }
    if let Some(secure) = &of.secure {
        cookie = cookie.secure(match secure {
            Value::Bool(true) => Secure::Always,
            Value::Bool(false) => Secure::Never,
            _ => Secure::Auto,
        });
    }
    if let Some(http_only) = of.http_only {
        cookie = cookie.http_only(http_only);
    }
    if let Some(path) = of.path {
        cookie = cookie.path(path);
    }
    if let Some(domain) = of.domain {
        cookie = cookie.domain(domain);
    }
    if let Some(same_site) = of.same_site {
        cookie = cookie.same_site(match same_site {
            "strict" => SameSite::Strict,
            "lax" => SameSite::Lax,
            "none" => SameSite::None,
            _ => SameSite::Auto,
        });
    }
    if let Some(priority) = of.priority {
        cookie = cookie.priority(match priority {
            "low" => Priority::Low,
            "medium" => Priority::Medium,
            _ => Priority::High,
        });
    }
    cookie.partitioned(of.partitioned.unwrap_or(false))
}

type Gates = Arc<Mutex<HashMap<String, Gate>>>;

fn gate(gates: &Gates, name: &str) -> Gate {
    gates.lock().unwrap().entry(name.to_owned()).or_insert_with(Gate::shut).clone()
}

fn router(layer: SessionLayer) -> Router {
    let gates = Gates::default();
    let with_sessions = Router::new().fallback(run).layer(layer).layer(from_fn(with_id)).with_state(Arc::clone(&gates));
    let arrival = async |State(gates): State<Gates>, Path(name): Path<String>| gate(&gates, &name).arrival().await;
    let open = async |State(gates): State<Gates>, Path(name): Path<String>| gate(&gates, &name).let_through(1);
    Router::new()
        .route("/__arrival/{gate}", get(arrival))
        .route("/__open/{gate}", get(open))
        .with_state(gates)
        .fallback_service(with_sessions)
}

async fn with_id(request: Request, next: Next) -> Response {
    let id = request.headers().get("x-genid").map(|id| decoded(id.to_str().unwrap())).unwrap_or_default();
    ID.scope(id, next.run(request)).await
}

/// Decodes the output of `percent_encoded`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digits = [char::from(*high), char::from(*low)];
                (u8::from_str_radix(&String::from_iter(digits), 16).unwrap(), behind)
            }
            _ => (*first, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).unwrap()
}

async fn run(State(gates): State<Gates>, Query(query): Query<HashMap<String, String>>, request: Request) -> Response {
    let session = request.extensions().get::<Session>().cloned();
    match run_steps(&gates, &query["steps"], session).await {
        Ok((status, headers, results)) => (status, headers, Json(results)).into_response(),
        Err(error) => (error.status(), Json(json!({ "error": format!("{error:?}") }))).into_response(),
    }
}

async fn run_steps(
    gates: &Gates,
    steps: &str,
    session: Option<Session>,
) -> Result<(StatusCode, HeaderMap, Vec<Value>), SessionError> {
    let steps: Vec<String> = serde_json::from_str(steps).unwrap();
    let mut status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    let mut results = Vec::new();
    for step in &steps {
        let (name, rest) = step.split_once(' ').unwrap_or((step, ""));
        results.push(match (name, &session) {
            ("has", session) => json!(session.is_some()),
            ("gate", _) => {
                gate(gates, rest).pass().await;
                Value::Null
            }
            ("status", _) => {
                status = rest.parse().unwrap();
                Value::Null
            }
            (_, Some(session)) => run_step(session, name, rest).await?,
            (_, None) => panic!("there is no session for {step}"),
        });
    }
    // Reading the id loads the session, so do it only in requests that use the session.
    if let Some(session) = session.filter(|_| !steps.is_empty()) {
        let id = session.id().await?;
        headers.insert("x-sid", support::http::percent_encoded(id.reveal()).parse().unwrap());
    }
    Ok((status, headers, results))
}

async fn run_step(session: &Session, name: &str, rest: &str) -> Result<Value, SessionError> {
    match name {
        "read" => return Ok(session.get(rest).await?.unwrap_or_default()),
        "all" => {
            let value = |values: &SessionValues<'_>, name: &str| values.get::<Value>(name).unwrap().unwrap();
            let all =
                session.read(|values| values.names().map(|name| (name.to_owned(), value(values, name))).collect());
            return all.await;
        }
        "set" => {
            let (key, value) = rest.split_once(' ').unwrap();
            session.insert(key, &RawValue::from_string(value.to_owned()).unwrap()).await?;
        }
        "delete" => session.remove(rest).await?,
        "count" => return session.increment(rest, 1).await.map(|count| json!(count)),
        "maxage" => {
            let millis: Option<u64> = serde_json::from_str(rest).unwrap();
            session.set_max_age(millis.map(Duration::from_millis)).await?;
        }
        "save" => session.save().await?,
        "reload" => session.reload().await?,
        "touch" => session.touch().await?,
        "regenerate" => session.regenerate().await?,
        "destroy" => session.destroy().await?,
        "unset" | "null" => session.unset().await?,
        _ => panic!("no such step: {name}"),
    }
    Ok(Value::Null)
}
