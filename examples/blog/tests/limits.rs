//! What one client may use of the server: one application, and an address for each test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::Duration;

use blog::config::Database;
use blog::{App, Config, Limits};
use browser::{Browser, exchange, page};
use tokio::runtime::Runtime;

/// Only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Replaces limits of several seconds.
const SHORT: Duration = Duration::from_millis(300);

static APP: LazyLock<(App, Runtime)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("blog.db").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let app = runtime.block_on(async { App::open(&Config::new(Database::parse(&url).unwrap())).await.unwrap() });
    // Kept as long as the process runs.
    std::mem::forget(folder);
    (app, runtime)
});

/// Starts the blog with these limits.
fn blog(limits: Limits) -> SocketAddr {
    let (app, runtime) = &*APP;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.clone().with_limits(limits);
    runtime.spawn(async move { app.serve(listener, std::future::pending()).await });
    address
}

fn connect(blog: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(blog).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends a request whose handler waits for its body: the server asks for the body only then.
fn waiting(blog: SocketAddr, path: &str, body: &str) -> TcpStream {
    let mut stream = connect(blog);
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: blog\r\nconnection: close\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[test]
fn a_request_with_endless_headers_is_closed_and_blocks_no_other() {
    let limits = Limits { headers: SHORT, requests: NonZeroUsize::MIN, ..Limits::default() };
    let (blog, patient) = (blog(limits.clone()), blog(Limits { headers: DEADLINE, ..limits }));
    let starts = ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: blog\r\nx-slow: "];
    let half_open = |blog| {
        let opened = starts.iter().cycle().take(64).map(|start| {
            let mut stream = connect(blog);
            stream.write_all(start.as_bytes()).unwrap();
            stream
        });
        opened.collect::<Vec<_>>()
    };
    let held = half_open(patient);
    assert_eq!(exchange(connect(patient), "GET", "/posts/1", &[], None, "").status, 200, "beside 64 that are open");
    drop(held);
    for mut stream in half_open(blog) {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let blog = blog(Limits { headers: SHORT, ..Limits::default() });
    let mut stream = connect(blog);
    stream.write_all(b"GET /icon.svg HTTP/1.1\r\nhost: blog\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    // Nothing in the response says that the connection ends.
    assert!(head.starts_with("http/1.1 200 ") && !head.contains("connection:"), "{head}");
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let blog = blog(Limits { request: SHORT, ..Limits::default() });
    for (path, is_json) in [("/api/login", true), ("/login", false)] {
        let answer = if is_json {
            page(waiting(blog, path, "{}"))
        } else {
            let mut stream = connect(blog);
            let head = "POST /login HTTP/1.1\r\nhost: blog\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                        content-length: 9\r\n\r\nlogin";
            stream.write_all(head.as_bytes()).unwrap();
            page(stream)
        };
        let answer = answer.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.body.starts_with("{\"error\":\"the request took too long"), is_json, "{}", answer.body);
        assert!(answer.headers.contains("content-security-policy: "), "{}", answer.headers);
    }
}

#[test]
fn a_request_beyond_the_limit_is_turned_away_at_once_and_one_after_it_is_not() {
    let blog = blog(Limits { requests: NonZeroUsize::MIN, ..Limits::default() });
    let mut slow = waiting(blog, "/api/login", "{}");
    for (path, is_json) in [("/", false), ("/posts/1", false), ("/api/posts", true)] {
        let page = Browser(blog).get(path);
        assert_eq!((page.status, page.all("retry-after")), (503, vec!["1"]), "{path}: {}", page.body);
        assert_eq!(page.body.starts_with("{\"error\":"), is_json, "{path}: {}", page.body);
    }
    slow.write_all(b"{}").unwrap();
    assert_eq!(page(slow).unwrap().status, 401);
    assert_eq!(Browser(blog).get("/posts/1").status, 200);
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let blog = Browser(blog(Limits { body: 1000, ..Limits::default() }));
    let login = |password: usize| format!("{{\"login\":\"nobody\",\"password\":\"{}\"}}", "x".repeat(password));
    for (length, status) in [(900, 401), (1000, 413)] {
        let page = blog.request("POST", "/api/login", Some("application/json"), &login(length));
        assert!(page.status == status && page.body.starts_with("{\"error\":"), "{length}: {}", page.body);
    }
}
