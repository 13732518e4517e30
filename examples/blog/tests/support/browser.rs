//! A server in this process and just enough of a browser.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{LazyLock, mpsc};

use blog::config::Database;
use blog::{App, Config};

/// What came back.
pub(crate) struct Page {
    pub(crate) status: u16,
    /// In lower case, one a line.
    pub(crate) headers: String,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

pub(crate) fn get(path: &str) -> Page {
    request("GET", path, None, "")
}

pub(crate) fn post(path: &str, fields: &[(&str, &str)]) -> Page {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request("POST", path, Some("application/x-www-form-urlencoded"), &body)
}

pub(crate) fn request(method: &str, path: &str, content_type: Option<&str>, body: &str) -> Page {
    let mut stream = TcpStream::connect(*SERVER).unwrap();
    let content_type = content_type.map(|value| format!("content-type: {value}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: blog\r\nconnection: close\r\n{content_type}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may answer and close before it has read a body that is too large.
    let sent = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { panic!("no answer: {sent:?} {read:?}") };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
    Page { status, headers: head.to_lowercase(), location, body: body.to_owned() }
}

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let (started, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let database = std::env::var("BLOG_TEST_DATABASE_URL").unwrap_or_else(|_| temporary_database());
            let config = Config { addr: String::new(), database: Database::parse(&database).unwrap(), cache_url: None };
            let app = App::open(&config).await.unwrap();
            started.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, app.router()).await.unwrap();
        });
    });
    address.recv().unwrap()
});

/// A file that no run before has left behind.
fn temporary_database() -> String {
    let path = std::env::temp_dir().join(format!("blog-test-{}.db", std::process::id()));
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::remove_file(format!("{}{suffix}", path.display())) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
    format!("sqlite:{}", path.display())
}
