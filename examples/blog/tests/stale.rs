//! The blog while its database fails: pages that were read before stay readable past their ttl.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/reader.rs"]
mod reader;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use blog::config::Database;
use blog::{App, Config};
use browser::Browser;
use cache_core::Cache;
use cache_core::clock::Clock;
use reader::Reader;
use sqlx::Connection as _;

const MINUTE: Duration = Duration::from_secs(60);

/// Runs a statement directly on the database.
fn by_hand(url: &str, statement: &str) {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn without_footer(page: &str) -> &str {
    page.split("<footer").next().unwrap_or(page)
}

#[test]
fn stale_pages_are_served_while_the_database_fails() {
    // F2
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("blog.db").display());
    let config = Config::new(Database::parse(&url).unwrap());
    let clock = Clock::manual();
    let settings = Cache::builder().clock(clock.clone());
    let blog = Browser(server::serve(move || async move { App::open_with(&config, settings).await.unwrap() }));

    let paths = ["/", "/feed.xml", "/posts/7", "/authors/3", "/authors"];
    let before: Vec<String> = paths.iter().map(|path| blog.get(path).body).collect();
    let writer = Reader::logged_in(blog, "demo", "demo");
    let publish = |title: &str| writer.post("/posts", &[("title", title), ("body", "x")]);
    let own = publish("Read before").location().unwrap().to_owned();
    assert_eq!(blog.get(&own).status, 200);
    let published = publish("Nobody has read this");
    let address = published.location().unwrap();
    let front = blog.get("/").body;
    let feed = blog.get("/feed.xml").body;
    assert!(front.contains("Nobody has read this") && feed.contains("Nobody has read this"));

    by_hand(&url, "ALTER TABLE posts RENAME TO elsewhere");
    by_hand(&url, "ALTER TABLE authors RENAME TO nowhere");
    by_hand(&url, "ALTER TABLE comments RENAME TO somewhere");
    // Past every ttl, but within every stale window.
    clock.advance(120 * MINUTE);
    for (path, before) in paths.iter().zip(&before) {
        let now = blog.get(path);
        assert_eq!(now.status, 200, "{path}: {}", now.body);
        assert!(now.headers.contains("cache-control: private, no-cache"), "{path}");
        let before = match *path {
            "/" => &front,
            "/feed.xml" => &feed,
            _ => before,
        };
        assert_eq!(without_footer(&now.body), without_footer(before), "{path}");
    }
    // Pages that were never read cannot be served, and writes fail; readers are not affected.
    let page = blog.get(address);
    assert!(page.status == 500 && page.body.contains("Something went wrong"), "{}", page.body);
    let edit = [("title", "Changed"), ("body", "x")];
    assert_eq!(writer.post(&format!("{own}/edit"), &edit).status, 500);
    assert_eq!(publish("Lost").status, 500);
    for path in paths {
        assert_eq!(blog.get(path).status, 200, "{path}, after writes that failed");
    }

    by_hand(&url, "ALTER TABLE elsewhere RENAME TO posts");
    by_hand(&url, "ALTER TABLE nowhere RENAME TO authors");
    by_hand(&url, "ALTER TABLE somewhere RENAME TO comments");
    assert_eq!(writer.post(&format!("{own}/edit"), &edit).status, 303);
    assert!(blog.get(&own).body.contains("<h1>Changed</h1>"));

    // A day after its end, a page is no longer served.
    by_hand(&url, "ALTER TABLE posts RENAME TO elsewhere");
    clock.advance(26 * 60 * MINUTE);
    assert_eq!(blog.get("/").status, 500);
}
