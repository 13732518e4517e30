//! A view counter in the session: ours compared with Express with connect-redis, and with
//! tower-sessions with its Redis store.
//!
//! Each application runs on one thread of its own, as Express does, against one `redis-server` that
//! the bench starts on a free loopback port. The load is the same for all: 32 connections that stay
//! open, each with one request in flight, for `BENCH_SECONDS` (2) a round. There are `BENCH_ROUNDS`
//! (5) rounds, in which the applications take turns. The output is requests a second, the ratio to
//! Express, and the number of acknowledged increments that are missing from the sessions
//! afterwards. Needs Node and the packages of the Express peer, which `tests/interop/install`
//! installs.

#![allow(dead_code, reason = "shared with other benches")]

#[path = "../../../cache-core/benches/harness.rs"]
mod harness;
#[path = "../../support/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader as Lines};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use cache_core::Cache;
use cache_core::session::{Secret, Session, SessionError, SessionLayer, SessionMode};
use harness::{median, runtime};
use server::RedisServer;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tower_sessions::{Expiry, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config, Pool};

const CONNECTIONS: usize = 32;
/// The most requests in one round, whatever the time.
const MOST_REQUESTS: usize = 1_000_000;
const SESSIONS: [usize; 2] = [1, 2_000];

/// An application that counts the views of each session and returns the count.
struct Contender {
    name: &'static str,
    address: SocketAddr,
    path: &'static str,
    _server: Server,
}

/// The part that ends with the bench.
enum Server {
    Thread(Runtime),
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
struct Round {
    per_second: f64,
    acknowledged: u64,
    lost: u64,
}

fn main() {
    let redis = RedisServer::start();
    let url = redis.url();
    let contenders = [
        express(&url),
        served("tower-sessions 0.14 + redis store 0.16", tower(url.clone())),
        served("cache-core, mode Express", ours(url.clone(), SessionMode::Express)),
        served("cache-core, mode Native", ours(url.clone(), SessionMode::Native)),
    ];
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5).max(1);
    let load = runtime();
    for sessions in SESSIONS {
        let cookies: Vec<Vec<String>> =
            contenders.iter().map(|contender| load.block_on(begin(contender, sessions))).collect();
        let mut results: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for turn in 0..contenders.len() {
                let which = (round + turn) % contenders.len();
                let result = load.block_on(run(&contenders[which], &cookies[which]));
                // The first round is a warm-up.
                if round > 0 {
                    results[which].push(result);
                }
            }
        }
        print(sessions, &contenders, &results);
    }
}

fn print(sessions: usize, contenders: &[Contender], results: &[Vec<Round>]) {
    println!("\nview counter, {CONNECTIONS} connections, {sessions} session(s), {} rounds", results[0].len());
    for (contender, rounds) in contenders.iter().zip(results) {
        let ratios = rounds.iter().zip(&results[0]).map(|(own, express)| own.per_second / express.per_second);
        let ratio = median(ratios.collect());
        let per_second = median(rounds.iter().map(|round| round.per_second).collect());
        let acknowledged: u64 = rounds.iter().map(|round| round.acknowledged).sum();
        let lost: u64 = rounds.iter().map(|round| round.lost).sum();
        println!("  {:<40} {per_second:>8.0}/s   x{ratio:<5.2} {lost:>8} of {acknowledged} lost", contender.name);
    }
}

// --- The applications ----------------------------------------------------------------------------

/// Serves an application on a thread of its own, which also creates it.
fn served(name: &'static str, app: impl Future<Output = Router> + Send + 'static) -> Contender {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let threads = threads.expect("a runtime");
    let address = threads.block_on(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let app = app.await;
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    });
    Contender { name, address, path: "/", _server: Server::Thread(threads) }
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
fn express(url: &str) -> Contender {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
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
    Lines::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("it prints its address");
    let port: String = line.chars().filter(char::is_ascii_digit).collect();
    Contender {
        name: "Express 5.3 + connect-redis 9",
        address: (Ipv4Addr::LOCALHOST, port.parse().expect("a port")).into(),
        path: "/?steps=%5B%22count%20views%22%5D",
        _server: Server::Node(process),
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
    async fn connect(contender: &Contender) -> Self {
        let stream = TcpStream::connect(contender.address).await.expect("it listens");
        stream.set_nodelay(true).expect("an option of every socket");
        Self { stream: BufReader::new(stream), path: contender.path, line: String::new(), body: Vec::new() }
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
            let Some((name, value)) = line.split_once(": ") else {
                if line.is_empty() { break } else { continue }
            };
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
async fn begin(contender: &Contender, sessions: usize) -> Vec<String> {
    let mut client = Client::connect(contender).await;
    let mut cookies = Vec::new();
    for _ in 0..sessions {
        cookies.push(client.view(None).await.1.expect("a cookie"));
    }
    cookies
}

/// Returns the sum of the counts of all sessions. Adds one view to each.
async fn counts(contender: &Contender, cookies: &[String]) -> u64 {
    let mut client = Client::connect(contender).await;
    let mut sum = 0;
    for cookie in cookies {
        sum += client.view(Some(cookie)).await.0;
    }
    sum
}

async fn run(contender: &Contender, cookies: &[String]) -> Round {
    let before = counts(contender, cookies).await;
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(f64::clamp(seconds, 0.1, 60.0));
    let started = Instant::now();
    let clients = (0..CONNECTIONS).map(async |index| {
        let mut client = Client::connect(contender).await;
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
    // Both readings count as views too. The first of them is before this round.
    let after = counts(contender, cookies).await;
    let counted = after - before - cookies.len() as u64;
    Round { per_second, acknowledged, lost: acknowledged.saturating_sub(counted) }
}
