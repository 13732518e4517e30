//! How long sessions live in Redis, under which prefix, and with which expiry of their own.

use serde_json::json;

use super::browser::{App, Browser, Cookie, Ids, Redis, StoreOptions};
use super::peer::{Peer, on_both_peers};

fn app(max_age: Option<u64>, ttl: Option<u64>) -> App {
    let cookie = Cookie { max_age, ..Cookie::default() };
    App { cookie, store_options: StoreOptions { ttl, ..StoreOptions::default() }, ..App::default() }
}

on_both_peers! {
    async fn redis_keeps_a_session_for_whole_seconds_of_its_age(peer: Peer) {
        let mut redis = Redis::start().await;
        let mut cases = vec![
            (Some(500), None, 1),
            (Some(1000), None, 1),
            (Some(1500), None, 2),
            (Some(600_000), None, 600),
            (None, None, 86400),
            (None, Some(77), 77),
            // The cookie has precedence.
            (Some(600_000), Some(77), 600),
        ];
        // Express reads the clock again to compute the rest, so on a busy machine these are a
        // second less.
        if peer == Peer::Ours {
            cases.extend([(Some(1), None, 1), (Some(1001), None, 2)]);
        }
        let apps: Vec<App> = cases.iter().map(|(max_age, ttl, _)| app(*max_age, *ttl)).collect();
        let site = peer.start(&redis.server, &apps).await;
        for (index, (max_age, ttl, seconds)) in cases.into_iter().enumerate() {
            redis.forget_commands().await;
            Browser::new(site.port(index)).visit(&["set a 1"]).await;
            let expected = match peer {
                Peer::Express => format!("SET new EX {seconds}"),
                Peer::Ours => format!("SET new NX PX {seconds}000"),
            };
            assert_eq!(redis.commands("sess:", &mut Ids::new(None)).await, [expected], "{max_age:?}, {ttl:?}");
        }
    }

    async fn a_session_whose_age_is_over_at_once_is_not_stored(peer: Peer) {
        let mut redis = Redis::start().await;
        let site = peer.start(&redis.server, &[app(Some(0), None), app(None, None)]).await;
        let visit = Browser::new(site.port(0)).visit(&["set a 1"]).await;
        let mut ids = Ids::new(None);
        assert_eq!(visit.set_cookie(&mut ids), "connect.sid=new; Path=/; Expires=+0; HttpOnly");
        assert!(redis.stored("sess:", &mut ids).await.is_empty());
        // The same for an existing session.
        let mut browser = Browser::new(site.port(1));
        browser.visit(&["set a 1"]).await;
        browser.visit(&["set a 2", "maxage 0"]).await;
        assert!(redis.stored("sess:", &mut ids).await.is_empty());
    }

    async fn prefixes_keep_applications_apart(peer: Peer) {
        let mut redis = Redis::start().await;
        let app = |prefix| App { store_options: StoreOptions { prefix: Some(prefix), ttl: None }, ..App::default() };
        let site = peer.start(&redis.server, &[app("one:"), app("two:sess:"), app("")]).await;
        let mut browser = Browser::new(site.port(0));
        browser.visit(&["set a 1"]).await;
        for (index, prefix) in ["one:", "two:sess:", ""].into_iter().enumerate() {
            let mut browser = browser.on(site.port(index));
            assert_eq!(browser.visit(&["read a"]).await.last() == json!(1), index == 0);
            browser.visit(&["set b 2"]).await;
            assert!(redis.get(&format!("{prefix}{}", browser.sid())).await.is_some(), "{prefix}");
        }
    }

    async fn an_age_that_changes_with_a_value_stays_with_the_session(peer: Peer) {
        let mut redis = Redis::start().await;
        let site = peer.start(&redis.server, &[app(Some(600_000), None)]).await;
        let mut browser = Browser::new(site.port(0));
        browser.visit(&["set a 1"]).await;
        let mut ids = Ids::new(Some(browser.sid()));
        let visit = browser.visit(&["set remembered true", "maxage 90000000"]).await;
        assert_eq!(visit.set_cookie(&mut ids), "connect.sid=known; Path=/; Expires=+90000; HttpOnly");
        browser.visit(&["set a 2"]).await;
        let stored = redis.stored("sess:", &mut ids).await;
        let cookie = r#"{"originalMaxAge":90000000,"expires":"+90000","httpOnly":true,"path":"/"}"#;
        assert_eq!(stored["known"], format!(r#"{{"cookie":{cookie},"a":2,"remembered":true}} for 90000 s"#));
    }
}

/// Express forgets an age at the next request if nothing else was set. Ours does not.
#[tokio::test]
async fn an_age_that_changes_alone_stays_with_a_session_of_ours_only() {
    let mut redis = Redis::start().await;
    for (peer, cookie, seconds) in
        [(Peer::Express, "none", 600), (Peer::Ours, "connect.sid=known; Path=/; Expires=+90000; HttpOnly", 90000)]
    {
        redis.flush().await;
        let site = peer.start(&redis.server, &[app(Some(600_000), None)]).await;
        let mut browser = Browser::new(site.port(0));
        browser.visit(&["set a 1"]).await;
        let mut ids = Ids::new(Some(browser.sid()));
        let visit = browser.visit(&["maxage 90000000"]).await;
        assert_eq!(visit.set_cookie(&mut ids), cookie, "{peer:?}");
        browser.visit(&["read a", "touch"]).await;
        let stored = redis.stored("sess:", &mut ids).await;
        assert!(stored["known"].ends_with(&format!(" for {seconds} s")), "{peer:?}: {stored:?}");
    }
}

/// Express sends an EXPIRE with every request. Ours waits until a tenth of the time is over.
#[tokio::test]
async fn a_session_that_was_just_saved_is_not_touched_by_ours() {
    let mut redis = Redis::start().await;
    for (peer, touched) in [(Peer::Express, true), (Peer::Ours, false)] {
        redis.flush().await;
        let site = peer.start(&redis.server, &[app(None, Some(1000))]).await;
        let mut browser = Browser::new(site.port(0));
        browser.visit(&["set a 1"]).await;
        let key = format!("sess:{}", browser.sid());
        for (left, touched) in [(950, touched), (850, true)] {
            redis.expire(&key, left).await;
            browser.visit(&["read a"]).await;
            assert_eq!(redis.ttl(&key).await > 970, touched, "{peer:?} with {left} s left");
        }
    }
}
