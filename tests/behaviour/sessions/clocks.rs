//! Nodes whose wall clocks are five minutes off, in both directions, on one Redis.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cache_core::Cache;
use cache_core::clock::{Clock, Timestamp};
use cache_core::session::{CookieOptions, Session, SessionBuilder};
use chrono::DateTime;
use support::Nodes;

use super::client::{Browser, express, native, session_keys, stored};

const OFF: Duration = Duration::from_secs(300);
const AGE: Duration = Duration::from_secs(600);

pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Returns a manual clock with this time.
pub(super) fn clock_at(time: Duration) -> Clock {
    let clock = Clock::manual();
    clock.advance(time - Duration::from_millis(1_767_225_600_000));
    clock
}

/// Returns three nodes: five minutes late, on time, five minutes early.
async fn nodes_off(nodes: &Nodes) -> Vec<Cache> {
    let mut caches = Vec::new();
    for time in [now() - OFF, now(), now() + OFF] {
        caches.push(nodes.node_with(Cache::builder().clock(clock_at(time))).await);
    }
    caches
}

/// Checks that times differ by no more than the duration of a test on a busy machine.
#[track_caller]
fn is_about(time: Duration, expected: Duration, what: &str) {
    let difference = time.abs_diff(expected);
    assert!(difference < Duration::from_secs(60), "{what}: {difference:?} away");
}

fn with_age(builder: SessionBuilder) -> SessionBuilder {
    builder.cookie(CookieOptions::new().max_age(AGE))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R14
async fn cookie_record_and_key_end_by_the_servers_clock_whatever_the_nodes_clock_shows() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    for cache in nodes_off(&nodes).await {
        for builder in [express(&cache), native(&cache)] {
            let layer = with_age(builder).build().unwrap();
            let browser = Browser::default();
            let page = browser.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
            // A browser's clock is roughly right, so the time in the cookie must be right too.
            let cookie = &page.cookies[0];
            let expires = cookie.split("; ").find_map(|part| part.strip_prefix("Expires=")).unwrap();
            let expires = DateTime::parse_from_rfc2822(expires).unwrap().timestamp_millis();
            is_about(Duration::from_millis(expires.try_into().unwrap()), now() + AGE, "the cookie");
            let keys = session_keys(server).join("\n");
            let left: u64 = server.cli(&["PTTL", keys.trim()]).trim().parse().unwrap();
            is_about(Duration::from_millis(left), AGE, "the key");
            // An Express peer takes this for the end of the session when it computes the ttl of its
            // next save.
            if let Some(text) = browser.stored(&cache).await.filter(|_| cookie.starts_with("connect.sid")) {
                let (_, rest) = text.split_once("\"expires\":\"").unwrap();
                let expires = DateTime::parse_from_rfc3339(rest.split_once('"').unwrap().0).unwrap().timestamp_millis();
                is_about(Duration::from_millis(expires.try_into().unwrap()), now() + AGE, "`expires`");
            }
            let info = layer.of_user("ada").list().await.unwrap().remove(0);
            let millis = |time: Timestamp| Duration::from_millis(time.as_millis());
            is_about(millis(info.since.unwrap()), now(), "the login");
            is_about(millis(info.seen.unwrap()), now(), "the last use");
            is_about(millis(info.ends), now() + AGE, "the end");
            assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R14
async fn a_session_that_one_node_wrote_is_alive_to_each_other() {
    let nodes = Nodes::redis();
    let caches = nodes_off(&nodes).await;
    // Shorter than the clock difference: by the node's own clock, these would have ended or not yet
    // begun.
    let short = Duration::from_secs(120);
    for build in [express, native] {
        let layers: Vec<_> =
            caches.iter().map(|cache| build(cache).ttl(short).absolute_timeout(short * 2).build().unwrap()).collect();
        for writer in &layers {
            let browser = Browser::default();
            browser.visit(writer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
            for reader in &layers {
                assert_eq!(reader.of_user("ada").list().await.unwrap().len(), 1);
                let page = browser.visit(reader, |session| async move {
                    assert_eq!(session.user().await?.as_deref(), Some("ada"));
                    assert!(session.auth_age().await?.unwrap() < Duration::from_secs(60));
                    session.increment("views", 1).await.map(|_| 200)
                });
                assert_eq!(page.await.status, 200);
            }
            assert_eq!(browser.get(writer, "views").await, Some(3));
            assert_eq!(writer.of_user("ada").end_all().await.unwrap(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R14
async fn the_absolute_timeout_counts_the_servers_time() {
    let nodes = Nodes::redis();
    let right = nodes.node().await;
    for build in [express, native] {
        for off in [now() - OFF, now() + OFF] {
            let clock = clock_at(off);
            let wrong = nodes.node_with(Cache::builder().clock(clock.clone())).await;
            let [begins, reads] = [&right, &wrong].map(|cache| build(cache).absolute_timeout(OFF).build().unwrap());
            let browser = Browser::default();
            browser.set(&begins, "views", 1).await;
            // The wrong clock advances and stays as wrong as before.
            clock.advance(OFF / 2);
            assert_eq!(browser.get(&reads, "views").await, Some(1));
            clock.advance(OFF / 2 + Duration::from_secs(1));
            assert_eq!(browser.get(&reads, "views").await, None, "over for whoever reads it then");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_an_express_peer_with_a_wrong_clock_ends_with_its_key() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let cache = nodes.node().await;
    let layer = with_age(express(&cache)).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "views", 1).await;
    let key = format!("sess:{}", browser.id("connect.sid").unwrap());
    let text = stored(&cache, &key).await.unwrap();
    let (before, rest) = text.split_once("\"expires\":\"").unwrap();
    let after = rest.split_once('"').unwrap().1;
    // The session's length twice over in the past and in the future.
    for time in [now() - AGE * 2, now() + AGE * 2] {
        let time = DateTime::from_timestamp_millis(time.as_millis().try_into().unwrap()).unwrap();
        let time = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        server.cli(&["SET", &key, &format!("{before}\"expires\":\"{time}\"{after}"), "EX", "300"]);
        assert_eq!(browser.get(&layer, "views").await, Some(1), "{time}");
        browser.set(&layer, "views", 2).await;
        let left: u64 = server.cli(&["PTTL", &key]).trim().parse().unwrap();
        is_about(Duration::from_millis(left), AGE, "the key, after a write of ours");
        browser.set(&layer, "views", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R14
async fn a_node_whose_clock_is_set_or_runs_fast_lists_and_ends_every_session_of_a_user() {
    let nodes = Nodes::redis();
    let day = Duration::from_secs(86_400);
    for build in [express, native] {
        for wrong in [Clock::set_wall_forward, Clock::set_wall_back, Clock::advance] {
            let clock = clock_at(now());
            let cache = nodes.node_with(Cache::builder().clock(clock.clone())).await;
            let layer = build(&cache).build().unwrap();
            let (before, after) = (Browser::default(), Browser::default());
            let login = |session: Session| async move { session.login("ada").await.map(|()| 200) };
            before.visit(&layer, login).await;
            // Between two heartbeats: the server's time was not read since.
            wrong(&clock, day * 3);
            after.visit(&layer, login).await;
            let users = layer.of_user("ada");
            assert_eq!(users.list().await.unwrap().len(), 2);
            assert_eq!(users.end_all().await.unwrap(), 2);
            for browser in [&before, &after] {
                let page = browser.visit(&layer, |session| async move {
                    assert_eq!(session.user().await?, None);
                    Ok(200)
                });
                assert_eq!(page.await.status, 200);
            }
        }
    }
}
