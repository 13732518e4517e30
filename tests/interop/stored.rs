//! What stands under the key of a session, and what each peer makes of it.

use serde_json::{Value, json};
use support::Express;

use super::browser::{App, Browser, Cookie, Redis, session_text, sid_of};

/// What a visit with a good cookie comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// The session is there, and this is what the visitor sees of it.
    Session,
    /// There is none: the visitor starts anew, and never under the id that the cookie has.
    Anew,
    /// Status 500. The key is as it was.
    Error,
    /// No answer at all.
    Hangs,
}

struct Foreign {
    what: &'static str,
    text: Vec<u8>,
    express: Outcome,
}

/// Each with a session cookie, `a` as `1` where it is a session, and whatever else makes it strange.
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
        foreign("expires in the past", &cookie(r#""originalMaxAge":1000,"expires":"2001-01-01T00:00:00.000Z""#), Session),
        foreign("expires as a number", &cookie(r#""originalMaxAge":60000,"expires":1795166492681"#), Session),
        foreign("expires with nanoseconds", &cookie(r#""originalMaxAge":60000,"expires":"2100-01-01T00:00:00.123456789+02:00""#), Session),
        foreign("expires is garbage", &cookie(r#""originalMaxAge":60000,"expires":"soon""#), Session),
        foreign("expires is false", &cookie(r#""originalMaxAge":null,"expires":false"#), Session),
        foreign("originalMaxAge as a float", &cookie(r#""originalMaxAge":1e5,"expires":"2100-01-01T00:00:00.000Z""#), Session),
        foreign("originalMaxAge as a text", &cookie(r#""originalMaxAge":"60000","expires":"2100-01-01T00:00:00.000Z""#), Hangs),
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

fn app() -> App {
    App::default()
}

/// A visitor whose cookie both peers have signed, and the key of the session.
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

#[tokio::test]
async fn express_alone_takes_foreign_values_as_expected() {
    let mut redis = Redis::start().await;
    let express = Express::start(&redis.server, &[app().options()]).await;
    for each in foreign().into_iter().filter(|each| each.express != Outcome::Hangs) {
        let (mut browser, key) = visitor(express.ports()[0]).await;
        redis.set_for(&key, each.text.as_slice(), 100).await;
        assert_eq!(outcome(&mut browser).await, each.express, "{}", each.what);
    }
    let (mut browser, key) = visitor(express.ports()[0]).await;
    redis.del(&key).await;
    redis.make_hash(&key).await;
    assert_eq!(outcome(&mut browser).await, Outcome::Error, "a hash");
}
