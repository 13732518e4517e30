//! Applications with a view counter in the session, and the load on them.
//!
//! Each application runs on one thread of its own, as Express does. The load is the same for all:
//! 32 connections that stay open, each with one request in flight.

use std::fs;
use std::io::{BufRead as _, BufReader as Lines};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use cache_core::Cache;
use cache_core::session::{Secret, Session, SessionError, SessionLayer, SessionMode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tower_sessions::{Expiry, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config, Pool};

use crate::measure::{ServerClock, nanoseconds, process_cpu, thread_cpu};

/// How many connections send requests.
pub const CONNECTIONS: usize = 32;
/// The most requests in one round, whatever the time.
const MOST_REQUESTS: usize = 1_000_000;

/// An application that counts the views of each session and returns the count.
pub struct Application {
    pub name: &'static str,
    address: SocketAddr,
    path: &'static str,
    server: Server,
}

/// The part that ends with the application.
enum Server {
    Thread(#[allow(dead_code, reason = "kept until the application ends")] Runtime),
    Node(Child),
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Node(process) = self {
            // It may have ended by itself.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// The result of one round.
#[derive(Debug, Clone)]
pub struct Round {
    pub per_second: f64,
    pub acknowledged: u64,
    pub lost: u64,
    /// CPU time of the application for one request, in nanoseconds.
    pub cpu: f64,
    /// The same of Redis; zero if it is not measured.
    pub redis_cpu: f64,
}

/// Returns all applications: Express only if its packages are installed, unless `install` is set.
pub fn applications(url: &str, install: bool) -> Vec<Application> {
    let express = (install || express_is_installed()).then(|| express(url));
    let others = [
        served("tower-sessions and its Redis store", tower(url.to_owned())),
        served("**cache-core**, mode `Express`", ours(url.to_owned(), SessionMode::Express)),
        served("**cache-core**, mode `Native`", ours(url.to_owned(), SessionMode::Native)),
    ];
    express.into_iter().chain(others).collect()
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns whether `tests/interop/install` has nothing to do.
fn express_is_installed() -> bool {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let lock = "express-peer/package-lock.json";
    let installed = fs::read(target.join(lock)).ok();
    installed.is_some() && installed == fs::read(root().join("tests/interop/express/package-lock.json")).ok()
}

impl Application {
    /// Returns the CPU time of the application so far, in nanoseconds. `load` is that of the
    /// calling thread, which sends the requests.
    fn cpu(&self) -> f64 {
        match &self.server {
            Server::Thread(_) => nanoseconds(process_cpu().saturating_sub(thread_cpu())),
            Server::Node(process) => {
                let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
                let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
                // In hundredths of a second: user and system time.
                fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 1e7
            }
        }
    }
}

// --- The applications ----------------------------------------------------------------------------

/// Serves an application on a thread of its own, which also creates it.
fn served(name: &'static str, app: impl Future<Output = Router> + Send + 'static) -> Application {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let threads = threads.expect("a runtime");
    let address = threads.block_on(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let app = app.await;
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    });
    Application { name, address, path: "/", server: Server::Thread(threads) }
}

async fn ours(url: String, mode: SessionMode) -> Router {
    async fn count(session: Session) -> Result<String, SessionError> {
        session.increment("views", 1).await.map(|views| views.to_string())
    }
    let cache = Cache::connect(&url).await.expect("a cache");
    let prefix = format!("{mode:?}:");
    let layer = SessionLayer::builder(&cache).mode(mode).prefix(prefix).secret(Secret::generate()).build();
    Router::new().route("/", get(count)).layer(layer.expect("settings that work"))
}

async fn tower(url: String) -> Router {
    async fn count(session: tower_sessions::Session) -> Result<String, tower_sessions::session::Error> {
        let views = session.get::<u64>("views").await?.unwrap_or(0) + 1;
        session.insert("views", views).await?;
        Ok(views.to_string())
    }
    async fn answer(session: tower_sessions::Session) -> Result<String, axum::http::StatusCode> {
        count(session).await.map_err(|_fault| axum::http::StatusCode::INTERNAL_SERVER_ERROR)
    }
    let config = Config::from_url(&url).expect("a URL");
    let pool = Pool::new(config, None, None, None, 6).expect("a pool");
    pool.connect();
    pool.wait_for_connect().await.expect("a connection");
    let expiry = Expiry::OnInactivity(time::Duration::days(1));
    let layer = SessionManagerLayer::new(RedisStore::new(pool)).with_secure(false).with_expiry(expiry);
    Router::new().route("/", get(answer)).layer(layer)
}

/// Starts the peer of `tests/interop`, with the step that counts.
fn express(url: &str) -> Application {
    let root = root();
    let installed = Command::new(root.join("tests/interop/install")).output().expect("it can be run");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let packages = String::from_utf8(installed.stdout).expect("a path");
    let mut process = Command::new("node")
        .arg(root.join("tests/interop/express/app.js"))
        .arg(format!(r#"{{"redis":"{url}","apps":[{{}}]}}"#))
        .env("NODE_PATH", packages.trim_end())
        .env("NODE_ENV", "production")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node can be started");
    let mut line = String::new();
    Lines::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it is");
    let port: String = line.chars().filter(char::is_ascii_digit).collect();
    Application {
        name: "Express 5.3 + connect-redis 9",
        address: (Ipv4Addr::LOCALHOST, port.parse().expect("a port")).into(),
        path: "/?steps=%5B%22count%20views%22%5D",
        server: Server::Node(process),
    }
}

// --- The load ------------------------------------------------------------------------------------

/// One connection, with one request in flight at a time.
struct Client {
    stream: BufReader<TcpStream>,
    path: &'static str,
    line: String,
    body: Vec<u8>,
}

impl Client {
    async fn connect(application: &Application) -> Self {
        let stream = TcpStream::connect(application.address).await.expect("it listens");
        stream.set_nodelay(true).expect("an option of every socket");
        Self { stream: BufReader::new(stream), path: application.path, line: String::new(), body: Vec::new() }
    }

    /// Sends a request. Returns the count in the response, and the cookie if there is one.
    async fn view(&mut self, cookie: Option<&str>) -> (u64, Option<String>) {
        let cookie = cookie.map(|cookie| format!("cookie: {cookie}\r\n")).unwrap_or_default();
        let request = format!("GET {} HTTP/1.1\r\nhost: bench\r\n{cookie}\r\n", self.path);
        self.stream.get_mut().write_all(request.as_bytes()).await.expect("it reads");
        let (mut length, mut set_cookie) = (0, None);
        let mut is_first = true;
        loop {
            self.line.clear();
            assert!(self.stream.read_line(&mut self.line).await.expect("it answers") > 0, "it has hung up");
            let line = self.line.trim_end();
            assert!(!is_first || line.starts_with("HTTP/1.1 200"), "{line}");
            is_first = false;
            let Some((name, value)) = line.split_once(": ") else { if line.is_empty() { break } else { continue } };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().expect("a length");
            } else if name.eq_ignore_ascii_case("set-cookie") {
                set_cookie = value.split(';').next().map(str::to_owned);
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).await.expect("the whole of it");
        let digits = self.body.iter().filter(|byte| byte.is_ascii_digit());
        (digits.fold(0, |count, digit| count * 10 + u64::from(digit - b'0')), set_cookie)
    }
}

/// Creates this many sessions, each with one view. Returns their cookies.
pub async fn begin(application: &Application, sessions: usize) -> Vec<String> {
    let mut client = Client::connect(application).await;
    let mut cookies = Vec::new();
    for _ in 0..sessions {
        cookies.push(client.view(None).await.1.expect("a cookie"));
    }
    cookies
}

/// Returns the sum of the counts of all sessions. Adds one view to each.
async fn counts(application: &Application, cookies: &[String]) -> u64 {
    let mut client = Client::connect(application).await;
    let mut sum = 0;
    for cookie in cookies {
        sum += client.view(Some(cookie)).await.0;
    }
    sum
}

/// Sends requests for `time`.
pub async fn run(application: &Application, cookies: &[String], time: Duration, redis: Option<&ServerClock>) -> Round {
    let before = counts(application, cookies).await;
    let server = || redis.map_or(0.0, |clock| nanoseconds(clock.read()));
    let (started, cpu, redis_cpu) = (Instant::now(), application.cpu(), server());
    let clients = (0..CONNECTIONS).map(async |index| {
        let mut client = Client::connect(application).await;
        let mut views = 0;
        // No two connections use one session, unless there is only one.
        for cookie in cookies.iter().skip(index % cookies.len()).step_by(CONNECTIONS.min(cookies.len())).cycle() {
            if started.elapsed() >= time || views >= (MOST_REQUESTS / CONNECTIONS) as u64 {
                break;
            }
            client.view(Some(cookie)).await;
            views += 1;
        }
        views
    });
    let acknowledged: u64 = futures::future::join_all(clients).await.into_iter().sum();
    let per_second = acknowledged as f64 / started.elapsed().as_secs_f64();
    let cpu = (application.cpu() - cpu) / acknowledged as f64;
    let redis_cpu = (server() - redis_cpu) / acknowledged as f64;
    // Both readings count as views too. The first of them is before this round.
    let after = counts(application, cookies).await;
    let counted = after - before - cookies.len() as u64;
    Round { per_second, acknowledged, lost: acknowledged.saturating_sub(counted), cpu, redis_cpu }
}
