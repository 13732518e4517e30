//! Two requests of one session that overlap: one stands in its handler, on one application, while the other comes and goes.

use serde_json::{Value, json};
use support::{Express, http};

use super::browser::{App, Browser, Ids, Redis};

/// Where a slow and a fast request of one session go.
struct Overlap<'r> {
    redis: &'r mut Redis,
    slow: u16,
    fast: u16,
}

/// What is left after both.
#[derive(Debug, PartialEq)]
struct Left {
    /// The session of the visitor's first cookie, without `cookie`.
    session: Option<Value>,
    /// How many sessions there are.
    sessions: usize,
}

impl Overlap<'_> {
    /// The slow request passes the gate, then takes its `steps`; before, the fast one takes those of `meanwhile`.
    async fn run(&mut self, steps: &[&str], meanwhile: &[&str]) -> Left {
        self.redis.flush().await;
        let mut fast = Browser::new(self.fast);
        fast.visit(&["set first 1"]).await;
        let key = format!("sess:{}", fast.sid());
        let mut slow = fast.on(self.slow);
        let steps: Vec<&str> = ["read first", "gate slow"].iter().chain(steps).copied().collect();
        let between = async {
            http::get(self.slow, "/__arrival/slow", &[]).await;
            assert_eq!(fast.visit(meanwhile).await.0.status, 200);
            http::get(self.slow, "/__open/slow", &[]).await;
        };
        let (visit, ()) = tokio::join!(slow.visit(&steps), between);
        assert!([200, 409, 503].contains(&visit.0.status), "{visit:?}");
        let session = self.redis.get(&key).await.map(|text| {
            let mut session: Value = serde_json::from_str(&text).unwrap();
            session.as_object_mut().unwrap().remove("cookie");
            session
        });
        let mut ids = Ids::new(None);
        Left { session, sessions: self.redis.stored("sess:", &mut ids).await.len() }
    }

    /// What each overlap leaves that must not lose anything.
    async fn losses(&mut self) -> Vec<String> {
        let session = |session: Value| Left { session: Some(session), sessions: 1 };
        let none = || Left { session: None, sessions: 0 };
        let renewed = || Left { session: None, sessions: 1 };
        let rows: [(&str, &[&str], &[&str], Left); 10] = [
            ("writers of different keys", &["set a 1"], &["set b 2"], session(json!({ "first": 1, "b": 2, "a": 1 }))),
            ("writers of one key", &["set a 1"], &["set a 2"], session(json!({ "first": 1, "a": 1 }))),
            ("a removal beside a write", &["delete first"], &["set b 2"], session(json!({ "b": 2 }))),
            ("a write beside a removal", &["set a 1"], &["delete first"], session(json!({ "a": 1 }))),
            ("a reader overlaps a login", &[], &["set user 7"], session(json!({ "first": 1, "user": 7 }))),
            ("a reader overlaps destroy", &[], &["destroy"], none()),
            ("a writer overlaps destroy", &["set a 1"], &["destroy"], none()),
            ("a saver overlaps destroy", &["set a 1", "save"], &["destroy"], none()),
            ("a reader overlaps regenerate", &[], &["regenerate", "set user 7"], renewed()),
            ("a writer overlaps regenerate", &["set a 1"], &["regenerate", "set user 7"], renewed()),
        ];
        let mut losses = Vec::new();
        for (name, steps, meanwhile, expected) in rows {
            let left = self.run(steps, meanwhile).await;
            if left != expected {
                losses.push(name.to_owned());
            }
        }
        losses
    }
}

fn apps() -> [App; 4] {
    let app = |resave, store| App { resave, store: Some(store), ..App::default() };
    [app(false, "connect-redis"), app(true, "connect-redis"), app(false, "express-store"), app(true, "express-store")]
}

const LOST_WITHOUT_RESAVE: &[&str] = &[
    "writers of different keys",
    "a removal beside a write",
    "a write beside a removal",
    "a writer overlaps destroy",
    "a saver overlaps destroy",
    "a writer overlaps regenerate",
];

const LOST_WITH_RESAVE: &[&str] = &[
    "writers of different keys",
    "a removal beside a write",
    "a write beside a removal",
    "a reader overlaps a login",
    "a reader overlaps destroy",
    "a writer overlaps destroy",
    "a saver overlaps destroy",
    "a reader overlaps regenerate",
    "a writer overlaps regenerate",
];

#[tokio::test]
async fn connect_redis_loses_and_the_store_for_express_does_not() {
    let mut redis = Redis::start().await;
    let express = Express::start(&redis.server, &apps().map(|app| app.options())).await;
    let expected = [LOST_WITHOUT_RESAVE, LOST_WITH_RESAVE, &[], &[]];
    for (&port, expected) in express.ports().iter().zip(expected) {
        assert_eq!(Overlap { redis: &mut redis, slow: port, fast: port }.losses().await, expected);
    }
    // Side by side on the same sessions: what counts is who ends last.
    let [stock, _, store, _] = express.ports()[..] else { unreachable!("four applications") };
    assert_eq!(Overlap { redis: &mut redis, slow: store, fast: stock }.losses().await, [""; 0]);
}

/// How many of `requests` at once are counted.
async fn counted(redis: &mut Redis, port: u16, requests: usize) -> u64 {
    let mut browser = Browser::new(port);
    browser.visit(&["set n 0"]).await;
    let visit = || {
        let mut browser = browser.clone();
        async move { assert_eq!(browser.visit(&["count n"]).await.0.status, 200) }
    };
    futures::future::join_all((0..requests).map(|_| visit())).await;
    let text = redis.get(&format!("sess:{}", browser.sid())).await.expect("the session is there");
    serde_json::from_str::<Value>(&text).unwrap()["n"].as_u64().unwrap()
}

#[tokio::test]
async fn express_does_not_count_requests_at_once() {
    let mut redis = Redis::start().await;
    let express = Express::start(&redis.server, &apps().map(|app| app.options())).await;
    let counted = counted(&mut redis, express.ports()[0], 50).await;
    assert!(counted < 50, "{counted}");
}
