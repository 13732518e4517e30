//! The cost of sessions, counted between the blog and Redis.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/reader.rs"]
mod reader;
#[path = "support/server.rs"]
mod server;

use blog::config::Database;
use blog::{App, Config};
use browser::Browser;
use reader::Reader;
use support::{Proxy, RedisServer};

const VIEWS: u64 = 50;

#[test]
fn visitors_cost_no_round_trip_and_logged_in_readers_one_per_page() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(redis.port()));
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        Config::new(Database::parse(&format!("sqlite:{}", folder.path().join("blog.db").display())).unwrap());
    config.cache_url = Some(proxy.url());
    let blog = Browser(server::serve(|| async move { App::open(&config).await.unwrap() }));
    let reader = Reader::logged_in(blog, "demo", "demo");
    let trips = |view: &dyn Fn() -> u16| {
        // After this, the page's data is in the local tier, and the session has its values.
        assert_eq!(view(), 200);
        let before = proxy.sendings();
        for _ in 0..VIEWS {
            assert_eq!(view(), 200);
        }
        proxy.sendings().saturating_sub(before)
    };
    let by_strangers = trips(&|| blog.get("/").status);
    let by_readers = trips(&|| reader.get("/").status);
    // Some slack for what the client sends on its own, such as a ping.
    assert!(by_strangers < VIEWS / 5, "{by_strangers} trips for {VIEWS} views of strangers");
    assert!((VIEWS..VIEWS + VIEWS / 5).contains(&by_readers), "{by_readers} trips for {VIEWS} views of readers");
}
