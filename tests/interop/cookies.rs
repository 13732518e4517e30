//! How ids are signed, and which `Cookie` headers are accepted.

use serde_json::{Value, json};
use support::http::percent_encoded;

use super::browser::{App, Browser, Cookie, Ids, Redis, session_text};
use super::peer::{Peer, on_both_peers};

/// Returns ids with their secrets, and the signatures that Express made of them.
fn vectors() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT", json!("keyboard cat"), "kdRwdvo/GWzaF6ijPy0ySlfqZaYx0TbOkHVGVctbQck"),
        ("R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y", json!("keyboard cat"), "ySXJuMFNnlbtXsjDNjR+Yzu51FNxPbNd5fAXqGG8yqE"),
        ("P2", json!("keyboard cat"), "6+21V6XsJ/KrtLDCK8GyEUiitjRvAFJGkQNgkv3gWH8"),
        ("99a6826d-214d-404e-8d6f-5bf27b923c9b", json!("session_@@key"), "SZsT4/xLV3AG+M32H7gYeWQamswhcwFMxTk982xB/Ro"),
        ("a.b.c", json!("会话"), "IdFlsY+QZvD4DV9/IzYrrHR9dQZcRncPC9S/VDz+wqQ"),
        (
            "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT",
            json!({ "hex": "000102ff" }),
            "cTDKm5GzHmm/0c83iIcjEP8eMFLSUls2Tl3JyJ3L61o",
        ),
    ]
}

/// Escapes a signature as `encodeURIComponent` does.
fn escaped(mac: &str) -> String {
    mac.replace('+', "%2B").replace('/', "%2F")
}

on_both_peers! {
    async fn ids_are_signed_as_the_vectors_say(peer: Peer) {
        let mut redis = Redis::start().await;
        let app = |secret: &Value| App { secret: Some(secret.clone()), genid_from_header: true, ..App::default() };
        let apps: Vec<App> = vectors().iter().map(|(_, secret, _)| app(secret)).collect();
        let site = peer.start(&redis.server, &apps).await;
        for (index, (sid, _, mac)) in vectors().into_iter().enumerate() {
            let expected = format!("connect.sid=s%3A{sid}.{}", escaped(mac));
            let mut browser = Browser::new(site.port(index));
            let visit = browser.visit_at("/", &["set a 1"], &[("x-genid", &percent_encoded(sid))]).await;
            assert_eq!(visit.0.header("set-cookie"), Some(format!("{expected}; Path=/; HttpOnly").as_str()));
            assert!(redis.get(&format!("sess:{sid}")).await.is_some(), "{sid}");
            let mut other = Browser { port: site.port(index), cookie: Some(expected) };
            assert_eq!(other.visit(&["read a"]).await.last(), json!(1), "{sid}");
            redis.flush().await;
        }
    }

    async fn ids_with_unsafe_characters_are_escaped(peer: Peer) {
        let redis = Redis::start().await;
        let site = peer.start(&redis.server, &[App { genid_from_header: true, ..App::default() }]).await;
        let mut browser = Browser::new(site.port(0));
        let visit = browser.visit_at("/", &["set a 1"], &[("x-genid", &percent_encoded("%;=,\"é!~*'()"))]).await;
        let cookie = visit.0.header("set-cookie").expect("a new session").to_owned();
        assert!(cookie.starts_with("connect.sid=s%3A%25%3B%3D%2C%22%C3%A9!~*'()."), "{cookie}");
        assert_eq!(browser.visit(&["read a"]).await.last(), json!(1));
    }

    async fn cookie_headers_are_accepted_or_rejected_as_the_list_says(peer: Peer) {
        let mut redis = Redis::start().await;
        let site = peer.start(&redis.server, &[App::default()]).await;
        redis.set_for("sess:P2", session_text(&json!({ "a": 1 })), 600).await;
        let mut wrong = Vec::new();
        for (what, headers, accepted) in cookie_headers() {
            redis.forget_commands().await;
            let headers: Vec<(&str, &str)> = headers.iter().map(|header| ("Cookie", header.as_str())).collect();
            let visit = Browser::new(site.port(0)).visit_at("/", &["read a"], &headers).await;
            let commands = redis.keys_of_commands("sess:").await;
            let (read, asked) = (visit.last() == json!(1), commands > 0);
            if (read, asked) != (accepted, accepted) {
                wrong.push(format!("{what}: read {read}, asked Redis {asked}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    async fn the_attributes_of_a_cookie_are_in_order(peer: Peer) {
        let mut redis = Redis::start().await;
        let all = Cookie {
            max_age: Some(90_000),
            secure: Some(json!(true)),
            http_only: Some(false),
            path: Some("/"),
            domain: Some("example.com"),
            same_site: Some("strict"),
            priority: Some("high"),
            partitioned: Some(true),
        };
        let app = App { cookie: all, proxy: Some(true), name: Some("sid"), ..App::default() };
        let site = peer.start(&redis.server, &[app]).await;
        let mut browser = Browser::new(site.port(0));
        let visit = browser.visit_at("/", &["set a 1"], &[("X-Forwarded-Proto", "https")]).await;
        let mut ids = Ids::new(Some(browser.sid()));
        let expected =
            "sid=known; Domain=example.com; Path=/; Expires=+90; Secure; Partitioned; Priority=High; SameSite=Strict";
        assert_eq!(visit.set_cookie(&mut ids), expected);
        let stored = redis.stored("sess:", &mut ids).await;
        let cookie = concat!(
            r#"{"originalMaxAge":90000,"partitioned":true,"priority":"high","expires":"+90","secure":true,"httpOnly":false,"#,
            r#""domain":"example.com","path":"/","sameSite":"strict"}"#
        );
        assert_eq!(stored["known"], format!(r#"{{"cookie":{cookie},"a":1}} for 90 s"#));
    }

    async fn secrets_are_rotated_without_a_logout(peer: Peer) {
        let redis = Redis::start().await;
        let cookie = Cookie { max_age: Some(600_000), ..Cookie::default() };
        let app = |secret: Value| App { secret: Some(secret), cookie: cookie.clone(), ..App::default() };
        let apps = [app(json!("old")), app(json!(["new", "old"])), app(json!(["new"])), app(json!(["older", "oldest"]))];
        let site = peer.start(&redis.server, &apps).await;
        let mut browser = Browser::new(site.port(0));
        browser.visit(&["set a 1"]).await;
        let (old, sid) = (browser.cookie.clone(), browser.sid());

        browser.port = site.port(1);
        assert_eq!(browser.visit(&["read a"]).await.last(), json!(1), "the second of the list");
        assert_eq!(browser.cookie, old, "no cookie was due");
        browser.visit(&["set b 2"]).await;
        assert_ne!(browser.cookie, old, "signed with the first of the list");
        assert_eq!(browser.sid(), sid);
        browser.port = site.port(2);
        assert_eq!(browser.visit(&["read b"]).await.last(), json!(2), "the old one is gone");
        browser.cookie = old;
        assert_eq!(browser.visit(&["read a"]).await.last(), json!(null));
        browser.port = site.port(3);
        assert_eq!(browser.visit(&["read a"]).await.last(), json!(null));
    }
}

/// Express requests any signed id from Redis.
#[tokio::test]
async fn ids_that_are_signed_but_unfit_are_no_session_to_ours() {
    let mut redis = Redis::start().await;
    let express = Peer::Express.start(&redis.server, &[App { genid_from_header: true, ..App::default() }]).await;
    let ours = Peer::Ours.start(&redis.server, &[App::default()]).await;
    let long = "x".repeat(300);
    for sid in ["with a blank", "a\r\nb", "a\0b", &long] {
        let mut browser = Browser::new(express.port(0));
        browser.visit_at("/", &["set a 1"], &[("x-genid", &percent_encoded(sid))]).await;
        redis.forget_commands().await;
        for (port, session) in [(express.port(0), true), (ours.port(0), false)] {
            let visit = browser.on(port).visit_at("/", &["read a"], &[("x-genid", "other")]).await;
            assert_eq!(visit.last() == json!(1), session, "{sid:?}");
            assert_eq!(redis.keys_of_commands("sess:").await > 0, session, "{sid:?}");
        }
    }
}

/// Returns requests, each as one or several `Cookie` headers, and whether they carry the cookie of
/// the session `P2`.
fn cookie_headers() -> Vec<(&'static str, Vec<String>, bool)> {
    let mac = "6+21V6XsJ/KrtLDCK8GyEUiitjRvAFJGkQNgkv3gWH8";
    let good = format!("connect.sid=s%3AP2.{}", escaped(mac));
    let raw = format!("connect.sid=s:P2.{mac}");
    let lower = good.replace("%3A", "%3a").replace("%2B", "%2b").replace("%2F", "%2f");
    let value = |value: String| vec![format!("connect.sid={value}")];
    let one = |header: String| vec![header];
    vec![
        ("escaped", one(good.clone()), true),
        ("escaped in lower case", one(lower), true),
        ("raw", one(raw.clone()), true),
        ("only the colon escaped", value(format!("s%3AP2.{mac}")), true),
        ("in double quotes", value(format!("\"s%3AP2.{}\"", escaped(mac))), true),
        ("blanks around", one(format!("a=1; \t connect.sid \t= \t{} \t; b=2", &good["connect.sid=".len()..])), true),
        ("no space after the semicolon", one(format!("a=1;{good};b=2")), true),
        ("in the second header", vec!["a=1".to_owned(), good.clone()], true),
        ("first of two, the second is bad", one(format!("{good}; connect.sid=bad")), true),
        ("second of two, the first is bad", one(format!("connect.sid=bad; {good}")), false),
        ("an empty value first", one(format!("connect.sid=; {good}")), false),
        ("without s:", value(format!("P2.{}", escaped(mac))), false),
        ("S:", value(format!("S%3AP2.{}", escaped(mac))), false),
        ("unsigned", value("P2".to_owned()), false),
        ("unsigned, with s:", value("s%3AP2".to_owned()), false),
        ("padded", value(format!("s%3AP2.{}%3D", escaped(mac))), false),
        ("a signature for URLs", value(format!("s%3AP2.{}", mac.replace('+', "-").replace('/', "_"))), false),
        ("a shortened signature", value(format!("s%3AP2.{}", escaped(&mac[..mac.len() - 1]))), false),
        ("a signature and more", value(format!("s%3AP2.{}A", escaped(mac))), false),
        ("no signature", value("s%3AP2.".to_owned()), false),
        ("no id", value(format!("s%3A.{}", escaped(mac))), false),
        ("a bad escape", value(format!("s%3AP2.{}", escaped(mac).replace("%2B", "%zz"))), false),
        ("escaped twice", value(format!("s%253AP2.{}", escaped(mac).replace('%', "%25"))), false),
        ("another name by case", one(good.replace("connect", "Connect")), false),
        ("a comma between", one(format!("a=1, {good}")), false),
        ("another id with the signature", value(format!("s%3AP3.{}", escaped(mac))), false),
        ("nothing", vec![], false),
    ]
}
