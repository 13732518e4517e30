//! The stored text of a session, and how each peer treats it.

use serde_json::{Value, json};

use super::browser::{App, Browser, Cookie, Ids, Redis, session_text, without_time};
use super::peer::{Peer, on_both_peers};

/// The outcome of a visit with a valid cookie.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// The session is found, and the visitor sees its values.
    Session,
    /// There is no session: the visitor gets a new one, never under the id in the cookie.
    Anew,
    /// Status 500. The key is unchanged.
    Error,
    /// No response at all.
    Hangs,
}

struct Foreign {
    what: &'static str,
    text: Vec<u8>,
    express: Outcome,
}

impl Foreign {
    /// Returns the outcome for ours: never an error, and never a request that hangs. Text that is
    /// not a session for Express is not one for ours either.
    fn ours(&self) -> Outcome {
        match self.express {
            Outcome::Error => Outcome::Anew,
            // serde_json does not accept such a text as a name. It is left unchanged.
            _ if self.what == "half of a surrogate pair in a key" => Outcome::Anew,
            Outcome::Hangs => Outcome::Session,
            other => other,
        }
    }
}

/// Returns unusual texts. Each has a session cookie, and `a` as `1` if it is a session.
fn foreign() -> Vec<Foreign> {
    use Outcome::{Anew, Error, Hangs, Session};
    let foreign = |what, text: &str, express| Foreign { what, text: text.as_bytes().to_vec(), express };
    let cookie = |members: &str| format!(r#"{{"cookie":{{{members}}},"a":1}}"#);
    let plain = r#""originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/""#;
    let with = |member: &str| format!(r#"{{"cookie":{{{plain}}},"a":1,{member}}}"#);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    vec![
        foreign("null", "null", Anew),
        foreign("false", "false", Anew),
        foreign("empty", "", Anew),
        foreign("a number", "7", Error),
        foreign("a text", r#""text""#, Error),
        foreign("true", "true", Error),
        foreign("an array", "[]", Error),
        foreign("no member", "{}", Error),
        foreign("no cookie", r#"{"a":1}"#, Error),
        foreign("cookie is null", r#"{"cookie":null,"a":1}"#, Error),
        foreign("cookie is a text", r#"{"cookie":"x","a":1}"#, Error),
        foreign("malformed", r#"{"cookie":{},"a":1"#, Error),
        foreign("the tombstone of connect-redis 6.1", "TOMBSTONE", Error),
        Foreign { what: "no UTF-8", text: b"{\"cookie\":{},\"a\":\"\xff".to_vec(), express: Error },
        foreign("an empty cookie", &cookie(""), Session),
        foreign(
            "expires in the past",
            &cookie(r#""originalMaxAge":1000,"expires":"2001-01-01T00:00:00.000Z""#),
            Session,
        ),
        foreign("expires as a number", &cookie(r#""originalMaxAge":60000,"expires":1795166492681"#), Session),
        foreign(
            "expires with nanoseconds",
            &cookie(r#""originalMaxAge":60000,"expires":"2100-01-01T00:00:00.123456789+02:00""#),
            Session,
        ),
        foreign("expires is garbage", &cookie(r#""originalMaxAge":60000,"expires":"soon""#), Session),
        foreign("expires is false", &cookie(r#""originalMaxAge":null,"expires":false"#), Session),
        foreign(
            "originalMaxAge as a float",
            &cookie(r#""originalMaxAge":1e5,"expires":"2100-01-01T00:00:00.000Z""#),
            Session,
        ),
        foreign(
            "originalMaxAge as a text",
            &cookie(r#""originalMaxAge":"60000","expires":"2100-01-01T00:00:00.000Z""#),
            Hangs,
        ),
        foreign("an unknown member of cookie", &cookie(&format!(r#"{plain},"color":"red""#)), Session),
        foreign("an unknown member", &with(r#""_m":{"created":1}"#), Session),
        foreign("keys like indices", &with(r#""10":1,"2":1"#), Session),
        foreign("a key twice", &with(r#""b":1,"b":2"#), Session),
        foreign("half of a surrogate pair", &with(r#""b":"\ud800""#), Session),
        foreign("half of a surrogate pair in a key", &with(r#""\ud800":1"#), Session),
        foreign("large numbers", &with(r#""b":18446744073709551615,"c":1.0,"d":-0,"e":1e400"#), Session),
        foreign("NUL and U+2028", &with("\"b\":\"\\u0000\u{2028}\""), Session),
        foreign("reserved names", &with(r#""id":"x","save":1,"toString":2,"__proto__":3"#), Session),
        foreign("nested deeply", &with(&format!(r#""b":{deep}"#)), Hangs),
    ]
}

/// Returns a visitor with a session of this application, and the session's key.
async fn visitor(port: u16) -> (Browser, String) {
    let mut browser = Browser::new(port);
    browser.visit(&["set a 1"]).await;
    let key = format!("sess:{}", browser.sid());
    (browser, key)
}

async fn outcome(browser: &mut Browser) -> Outcome {
    let before = browser.sid();
    let visit = browser.visit(&["read a"]).await;
    match visit.0.status {
        500 => Outcome::Error,
        200 if visit.last() == json!(1) => Outcome::Session,
        200 => {
            let sid = visit.0.header("x-sid").expect("the applications tell the id");
            assert_ne!(sid, before, "the id of a session that is not there is never taken over");
            Outcome::Anew
        }
        other => panic!("status {other}"),
    }
}

on_both_peers! {
    async fn foreign_values_are_taken_as_listed(peer: Peer) {
        let mut redis = Redis::start().await;
        let site = peer.start(&redis.server, &[App::default()]).await;
        for each in foreign() {
            let expected = if peer == Peer::Express { each.express } else { each.ours() };
            if expected == Outcome::Hangs {
                continue;
            }
            let (mut browser, key) = visitor(site.port(0)).await;
            redis.set_for(&key, each.text.as_slice(), 100).await;
            assert_eq!(outcome(&mut browser).await, expected, "{}", each.what);
            // A key that is not a session is never overwritten, even if the visitor writes.
            if expected != Outcome::Session {
                let before = redis.bytes(&key).await;
                browser.visit(&["set b 1"]).await;
                assert_eq!(redis.bytes(&key).await, before, "{}", each.what);
            }
        }
        let (mut browser, key) = visitor(site.port(0)).await;
        redis.del(&key).await;
        redis.make_hash(&key).await;
        let expected = if peer == Peer::Express { Outcome::Error } else { Outcome::Anew };
        assert_eq!(outcome(&mut browser).await, expected, "a hash");
    }
}

/// One peer reads the values that the other writes. Unchanged values are written back as they were.
#[tokio::test]
async fn values_go_from_one_peer_to_the_other_and_back() {
    let mut redis = Redis::start().await;
    let app = App { cookie: Cookie { max_age: Some(600_000), ..Cookie::default() }, ..App::default() };
    let sites = [
        Peer::Express.start(&redis.server, std::slice::from_ref(&app)).await,
        Peer::Ours.start(&redis.server, &[app]).await,
    ];
    let values = [
        json!(null),
        json!(true),
        json!(-1.5e-7),
        json!(9_007_199_254_740_991_i64),
        json!("\u{2028} \" \\ \u{0} é 数 😀"),
        json!([]),
        json!({}),
        json!({ "__proto_": [{ "deep": [[[null]]] }], "": "empty name" }),
    ];
    for (writer, reader) in [(&sites[0], &sites[1]), (&sites[1], &sites[0])] {
        let mut browser = Browser::new(writer.port(0));
        for (index, value) in values.iter().enumerate() {
            browser.visit(&[&format!("set v{index} {value}")]).await;
        }
        let key = format!("sess:{}", browser.sid());
        let before = redis.get(&key).await.unwrap();
        browser.port = reader.port(0);
        let all: Value = values.iter().enumerate().map(|(index, value)| (format!("v{index}"), value.clone())).collect();
        assert_eq!(browser.visit(&["all"]).await.last(), all);
        browser.visit(&["set added 1"]).await;
        let after = redis.get(&key).await.unwrap();
        let (before, after) = (without_time(&before), without_time(&after));
        assert_eq!(after, format!(r#"{},"added":1}}"#, before.strip_suffix('}').unwrap()));
        browser.port = writer.port(0);
        assert_eq!(browser.visit(&["read added"]).await.last(), json!(1));
        browser.visit(&["delete added"]).await;
        browser.port = reader.port(0);
        assert_eq!(browser.visit(&["all"]).await.last(), all);
    }
}

/// Express would change these at its next save. Ours does not.
#[tokio::test]
async fn ours_gives_back_byte_for_byte_what_it_has_not_touched() {
    let mut redis = Redis::start().await;
    let site = Peer::Ours.start(&redis.server, &[App::default()]).await;
    let (mut browser, key) = visitor(site.port(0)).await;
    let cookie = r#""cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/","color":"red"}"#;
    let rest = r#""10":1,"2":[18446744073709551615,1.0,-0,1e400],"s":"\ud800","id":"x","_app":{"b" : 1,"a":2}"#;
    redis.set_for(&key, format!("{{{cookie},{rest}}}"), 100).await;
    browser.visit(&["set a 1"]).await;
    assert_eq!(redis.get(&key).await.unwrap(), format!(r#"{{{cookie},{rest},"a":1}}"#));
}

/// Express drops them at its next read, whoever wrote them.
#[tokio::test]
async fn names_that_express_drops_are_refused_by_ours() {
    let mut redis = Redis::start().await;
    let express = Peer::Express.start(&redis.server, &[App::default()]).await;
    let ours = Peer::Ours.start(&redis.server, &[App::default()]).await;
    for name in [
        "cookie",
        "id",
        "req",
        "touch",
        "resetMaxAge",
        "save",
        "reload",
        "destroy",
        "regenerate",
        "constructor",
        "toString",
        "toLocaleString",
        "valueOf",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "__proto__",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
    ] {
        let (mut browser, key) = visitor(express.port(0)).await;
        let text = format!(r#"{{"cookie":{{"originalMaxAge":null,"expires":null}},"{name}x":1,"{name}":1}}"#);
        if name != "cookie" {
            redis.set_for(&key, text, 600).await;
            let all = browser.visit(&["set other 1", "all"]).await.last();
            assert_eq!(all, json!({ format!("{name}x"): 1, "other": 1 }), "{name}");
        }
        browser.port = ours.port(0);
        assert_eq!(browser.visit(&[&format!("set {name} 1")]).await.0.status, 500, "{name}");
    }
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_are_shared_by_all_instances() {
    let mut redis = Redis::start().await;
    let app = App { cookie: Cookie { max_age: Some(600_000), ..Cookie::default() }, ..App::default() };
    let express = Peer::Express.start(&redis.server, std::slice::from_ref(&app)).await;
    let first = Peer::Ours.start(&redis.server, std::slice::from_ref(&app)).await;
    let mut browser = Browser::new(first.port(0));
    browser.visit(&["count views", "set user \"ada\""]).await;
    drop(first);
    let instances = Peer::Ours.start(&redis.server, &[app.clone(), app.clone(), app]).await;
    for round in 0..4 {
        for port in [instances.port(0), instances.port(1), instances.port(2), express.port(0)] {
            browser.port = port;
            browser.visit(&["count views"]).await;
        }
        browser.port = instances.port(round % 3);
        assert_eq!(browser.visit(&["read user"]).await.last(), json!("ada"));
    }
    assert_eq!(browser.visit(&["read views"]).await.last(), json!(17));
    let mut ids = Ids::new(Some(browser.sid()));
    assert_eq!(redis.stored("sess:", &mut ids).await.into_keys().collect::<Vec<_>>(), ["known"], "one session");
}

/// A login at one peer is a login at the other, and so is a logout.
#[tokio::test]
async fn login_and_logout_hold_for_both_peers() {
    let redis = Redis::start().await;
    let express = Peer::Express.start(&redis.server, &[App::default()]).await;
    let ours = Peer::Ours.start(&redis.server, &[App::default()]).await;
    for (one, other) in [(&express, &ours), (&ours, &express)] {
        let mut browser = Browser::new(one.port(0));
        browser.visit(&["set visits 1"]).await;
        let anonymous = browser.clone();
        browser.visit(&["regenerate", "set user \"ada\""]).await;
        browser.port = other.port(0);
        assert_eq!(browser.visit(&["all"]).await.last(), json!({ "user": "ada" }));
        assert_eq!(anonymous.on(other.port(0)).visit(&["read visits"]).await.last(), json!(null), "the old id is dead");
        let known = browser.clone();
        browser.visit(&["destroy"]).await;
        for port in [one.port(0), other.port(0)] {
            assert_eq!(known.on(port).visit(&["read user"]).await.last(), json!(null));
        }
    }
}

/// `session_text` writes the same text as Express.
#[tokio::test]
async fn a_session_made_by_hand_is_one_to_both_peers() {
    let mut redis = Redis::start().await;
    for peer in [Peer::Express, Peer::Ours] {
        let site = peer.start(&redis.server, &[App::default()]).await;
        let (mut browser, key) = visitor(site.port(0)).await;
        redis.set_for(&key, session_text(&json!({ "hand": [1] })), 600).await;
        assert_eq!(browser.visit(&["all"]).await.last(), json!({ "hand": [1] }));
    }
}

/// Express answers before it knows whether the session is stored. Ours answers after that.
#[tokio::test]
async fn an_answer_whose_session_cannot_be_stored_is_an_error_of_ours() {
    let mut redis = Redis::start().await;
    for (peer, status, cookies) in [(Peer::Express, 200, 1), (Peer::Ours, 503, 0)] {
        let site = peer.start(&redis.server, &[App::default()]).await;
        redis.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        let visit = Browser::new(site.port(0)).visit(&["set user 1"]).await;
        redis.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!((visit.0.status, visit.0.all("set-cookie").len()), (status, cookies), "{peer:?}");
        assert!(redis.stored("sess:", &mut Ids::new(None)).await.is_empty());
    }
}

/// Express stores the changes of a failed handler. Ours does so only with an option.
#[tokio::test]
async fn a_handler_that_fails_changes_nothing_of_ours() {
    let redis = Redis::start().await;
    for (peer, expected) in [(Peer::Express, json!(2)), (Peer::Ours, json!(1))] {
        let site = peer.start(&redis.server, &[App::default()]).await;
        let (mut browser, _) = visitor(site.port(0)).await;
        assert_eq!(browser.visit(&["set a 2", "status 500"]).await.0.status, 500);
        assert_eq!(browser.visit(&["read a"]).await.last(), expected, "{peer:?}");
    }
}
