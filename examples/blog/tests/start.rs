//! Starts with settings that cannot work, and with a Redis that is not running.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/reader.rs"]
mod reader;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use browser::Browser;
use reader::Reader;
use sqlx::Connection as _;
use support::RedisServer;

/// Returns the command that starts the blog with this `CACHE_URL`, on its own database.
fn blog(folder: &tempfile::TempDir, cache_url: &str) -> Command {
    let mut blog = Command::new(env!("CARGO_BIN_EXE_blog"));
    blog.env("BLOG_ADDR", "127.0.0.1:0").env("CACHE_URL", cache_url).env("RUST_LOG", "off");
    blog.env("DATABASE_URL", format!("sqlite:{}", folder.path().join("blog.db").display()));
    blog
}

#[test]
fn a_wrong_cache_url_ends_it_with_one_line_that_says_what_to_write() {
    let redis = RedisServer::builder().password("opensesame").start();
    let folder = tempfile::tempdir().unwrap();
    for (url, fix) in [
        (redis.url_as(":wrongsecret"), "redis://user:password@host"),
        (redis.url().replace(":opensesame@", ""), "redis://:password@host"),
        (redis.url() + "notanumber", "database"),
        ("redsi://:wrongsecret@127.0.0.1/".to_owned(), "did you mean `redis`?"),
    ] {
        let output = blog(&folder, &url).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("CACHE_URL: ") && said.lines().count() == 1 && said.contains(fix), "{said}");
        assert!(!said.contains("wrongsecret") && !said.contains("opensesame"), "{said}");
    }
}

#[test]
fn an_unusable_setting_ends_it_with_one_line_that_names_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let end = |mut blog: Command| {
        let output = blog.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.stdout.is_empty() && output.status.code() == Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let mut on_a_port_that_is_taken = blog(&folder, "memory://");
    on_a_port_that_is_taken.env("BLOG_ADDR", &port);
    assert_eq!(
        end(on_a_port_that_is_taken),
        format!("BLOG_ADDR: {port} is in use; stop the other program or take another port\n")
    );

    std::fs::write(
        file("notes.txt"),
        "A text, and longer than the hundred bytes with which a database begins. ".repeat(9),
    )
    .unwrap();
    std::fs::write(file("empty.db"), "").unwrap();
    for (name, fix) in [
        ("no/such/folder.db", "its folder must exist and be writable"),
        ("empty.db?mode=ro", "the file and its folder must be writable"),
        ("notes.txt", "is not an SQLite database; use another file"),
    ] {
        let mut on_this_file = blog(&folder, "memory://");
        on_this_file.env("DATABASE_URL", format!("sqlite:{}", file(name)));
        let said = end(on_this_file);
        assert!(said.starts_with("DATABASE_URL: cannot use SQLite, ") && said.contains(fix), "{said}");
    }
}

#[test]
fn a_cookie_for_plain_http_can_be_switched_on() {
    let folder = tempfile::tempdir().unwrap();
    for (setting, name, is_secure) in [("secure", "__Host-id-form=", true), ("insecure", "blog-id-form=", false)] {
        let mut child =
            blog(&folder, "memory://").env("SESSION_COOKIE", setting).stdout(Stdio::piped()).spawn().unwrap();
        let lines: Vec<String> =
            BufReader::new(child.stdout.take().unwrap()).lines().take(5).map(Result::unwrap).collect();
        let address = lines[0].trim_start_matches("listening on http://").trim_end_matches('/');
        let reader = Reader::new(Browser(address.parse().unwrap()));
        reader.get("/login");
        let page = reader.post("/login", &[("login", "demo"), ("password", "demo")]);
        child.kill().unwrap();
        child.wait().unwrap();
        let cookies = page.all("set-cookie");
        let of_session: Vec<_> = cookies.iter().filter(|cookie| cookie.starts_with(name)).collect();
        let [cookie] = of_session[..] else { panic!("{cookies:?}") };
        assert_eq!(cookie.contains("; Secure"), is_secure, "{cookie}");
        assert!(lines[3].contains("set SESSION_SECRET") && lines[4].ends_with("log in as demo / demo"), "{lines:?}");
    }
}

#[test]
fn a_database_from_before_there_were_accounts_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut child = blog(&folder, "memory://").stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let address = first.trim().trim_start_matches("listening on http://").trim_end_matches('/');
        (child, Browser(address.parse().unwrap()))
    };
    let end = |mut child: std::process::Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    end(start().0);
    sqlx::any::install_default_drivers();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let url = format!("sqlite:{}", folder.path().join("blog.db").display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        for statement in [
            "DROP TABLE users",
            "DELETE FROM meta WHERE name = 'demo'",
            "UPDATE meta SET value = 1 WHERE name = 'schema'",
        ] {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    });
    let (child, browser) = start();
    assert_eq!(browser.get("/posts/300").status, 200, "what was there");
    let reader = Reader::new(browser);
    assert_eq!(reader.register("Somebody New", "somebody", "correct horse").status, 303);
    let stranger = Reader::new(browser);
    stranger.get("/login");
    assert_eq!(
        stranger.post("/login", &[("login", "demo"), ("password", "demo")]).status,
        422,
        "for new databases only"
    );
    end(child);
}

/// Two instances start at the same time on a new file: one writes while the other starts.
#[test]
fn an_instance_waits_for_another_that_is_starting_on_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    sqlx::any::install_default_drivers();
    let mut holder = runtime.block_on(async {
        let url = format!("sqlite:{}?mode=rwc", folder.path().join("blog.db").display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
        connection
    });
    let mut waiting = blog(&folder, "memory://");
    let mut child = waiting.env("RUST_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said = log.find(|line| line.contains("waiting for it") || line.starts_with("DATABASE_URL"));
    assert!(said.is_some_and(|line| line.contains("another process is starting on this database")));
    runtime.block_on(async {
        sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
        holder.close().await.unwrap();
    });
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.starts_with("listening on http://127.0.0.1:"), "{first}");
}

#[test]
fn pages_are_cached_behind_tls() {
    let Some(redis) = RedisServer::with_tls() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut child = blog(&folder, &redis.tls_url()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    let address = lines[0].trim_start_matches("listening on http://").trim_end_matches('/');
    let browser = Browser(address.parse().unwrap());
    assert_eq!(browser.get("/posts/300").status, 200);
    let stored = redis.cli(&["KEYS", "*"]);
    let status = browser.get("/cache");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[1].contains("rediss://") && !lines[1].contains("not reachable"), "{lines:?}");
    assert!(status.body.contains("available"), "{}", status.body);
    assert!(stored.contains("post"), "{stored}");
}

#[test]
fn it_starts_without_redis_and_says_so() {
    // D1
    let folder = tempfile::tempdir().unwrap();
    let mut child = blog(&folder, "redis://127.0.0.1:1/").stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[0].starts_with("listening on http://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].contains("redis://127.0.0.1:1/0 (not reachable; "), "{lines:?}");
    assert!(lines[1].contains("logging in is not possible"), "{lines:?}");
}
