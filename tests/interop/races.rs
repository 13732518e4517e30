//! Two overlapping requests of one session: one waits in its handler, on one application, while the
//! other runs completely.

use serde_json::{Value, json};
use support::{Express, http};

use super::browser::{App, Browser, Ids, Redis};
use super::peer::Peer;

/// The applications for a slow and a fast request of one session.
struct Overlap<'r> {
    redis: &'r mut Redis,
    slow: u16,
    fast: u16,
    /// The application that the visitor uses afterwards with the first cookie, before the result is
    /// read.
    then: Option<u16>,
}

impl<'r> Overlap<'r> {
    fn new(redis: &'r mut Redis, slow: u16, fast: u16) -> Self {
        Self { redis, slow, fast, then: None }
    }
}

/// The result of both requests.
#[derive(Debug, PartialEq)]
struct Left {
    /// The session of the visitor's first cookie, without `cookie`.
    session: Option<Value>,
    /// The number of sessions.
    sessions: usize,
}

impl Overlap<'_> {
    /// Runs both: the fast request does the steps of `meanwhile`, then the slow one passes the gate
    /// and does its `steps`.
    async fn run(&mut self, steps: &[&str], meanwhile: &[&str]) -> Left {
        self.redis.flush().await;
        let mut fast = Browser::new(self.fast);
        fast.visit(&["set first 1"]).await;
        let key = format!("sess:{}", fast.sid());
        let mut slow = fast.on(self.slow);
        let first = fast.clone();
        let steps: Vec<&str> = ["read first", "gate slow"].iter().chain(steps).copied().collect();
        let between = async {
            http::get(self.slow, "/__arrival/slow", &[]).await;
            assert_eq!(fast.visit(meanwhile).await.0.status, 200);
            http::get(self.slow, "/__open/slow", &[]).await;
        };
        let (visit, ()) = tokio::join!(slow.visit(&steps), between);
        // In ours, an explicit `save` of an ended session is an error, which is the handler's
        // response here.
        let may_fail = steps.contains(&"save");
        assert!(visit.0.status == 200 || may_fail && visit.0.body.contains("Gone"), "{visit:?}");
        if let Some(port) = self.then {
            assert_eq!(first.on(port).visit(&["read first"]).await.0.status, 200);
        }
        let session = self.redis.get(&key).await.map(|text| {
            let mut session: Value = serde_json::from_str(&text).unwrap();
            session.as_object_mut().unwrap().remove("cookie");
            session
        });
        let mut ids = Ids::new(None);
        Left { session, sessions: self.redis.stored("sess:", &mut ids).await.len() }
    }

    /// Runs the overlaps that must not lose anything. Returns those that do.
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
        assert_eq!(Overlap::new(&mut redis, port, port).losses().await, expected);
    }
    // Mixed on the same sessions: the result depends on which request ends last.
    let [stock, _, store, _] = express.ports()[..] else { unreachable!("four applications") };
    assert_eq!(Overlap::new(&mut redis, store, stock).losses().await, [""; 0]);
}

/// Ours is safe with itself, with the store for Express, and with any peer if ours ends last. If a
/// stock connect-redis ends last, a session that ours has ended stays ended for ours.
#[tokio::test]
async fn ours_loses_nothing_beside_itself_and_the_store_for_express() {
    let mut redis = Redis::start().await;
    let express = Express::start(&redis.server, &apps().map(|app| app.options())).await;
    let ours = Peer::Ours.start(&redis.server, &apps()).await;
    let [stock, stock_resave, store, store_resave] = express.ports()[..] else { unreachable!("four applications") };
    let [plain, resave] = [ours.port(0), ours.port(1)];
    for (slow, fast) in [
        (plain, plain),
        (resave, resave),
        (plain, stock),
        (resave, stock_resave),
        (plain, store),
        (resave, store_resave),
        (store, plain),
        (store_resave, resave),
    ] {
        assert_eq!(Overlap::new(&mut redis, slow, fast).losses().await, [""; 0], "{slow} overlaps {fast}");
    }
    // Only Express itself can avoid overwriting. A session that it restores is ended again when
    // ours next reads it.
    let overwritten = ["writers of different keys", "a removal beside a write", "a write beside a removal"];
    let with_resave = [&overwritten[..], &["a reader overlaps a login"]].concat();
    for (slow, fast, at_once, then) in
        [(stock, plain, LOST_WITHOUT_RESAVE, &overwritten[..]), (stock_resave, plain, LOST_WITH_RESAVE, &with_resave)]
    {
        assert_eq!(Overlap::new(&mut redis, slow, fast).losses().await, at_once);
        let looked_at = Overlap { then: Some(plain), ..Overlap::new(&mut redis, slow, fast) }.losses().await;
        assert_eq!(looked_at, then);
    }
}

#[tokio::test]
async fn ours_counts_every_request_over_several_instances() {
    let mut redis = Redis::start().await;
    let ours = Peer::Ours.start(&redis.server, &[App::default(), App::default(), App::default()]).await;
    assert_eq!(counted(&mut redis, &[ours.port(0), ours.port(1), ours.port(2)], 60).await, 60);
}

#[tokio::test]
async fn requests_without_a_cookie_get_sessions_of_their_own() {
    let mut redis = Redis::start().await;
    let app = App { save_uninitialized: true, ..App::default() };
    for peer in [Peer::Express, Peer::Ours] {
        redis.flush().await;
        let site = peer.start(&redis.server, std::slice::from_ref(&app)).await;
        let visit = async || {
            Browser::new(site.port(0)).visit(&[]).await;
        };
        futures::future::join_all((0..10).map(|_| visit())).await;
        assert_eq!(redis.stored("sess:", &mut Ids::new(None)).await.len(), 10);
    }
}

/// With both peers, the browser keeps the session of the last response. The others expire.
#[tokio::test]
async fn concurrent_regenerations_each_get_their_own_session() {
    let mut redis = Redis::start().await;
    for peer in [Peer::Express, Peer::Ours] {
        redis.flush().await;
        let site = peer.start(&redis.server, &[App::default()]).await;
        let mut browser = Browser::new(site.port(0));
        browser.visit(&["set first 1"]).await;
        let old = format!("sess:{}", browser.sid());
        let visit = || {
            let mut browser = browser.clone();
            async move {
                let visit = browser.visit(&["regenerate", "set user 1"]).await;
                assert_eq!(visit.0.status, 200);
                browser.sid()
            }
        };
        let mut ids = futures::future::join_all((0..5).map(|_| visit())).await;
        assert_eq!(redis.get(&old).await, None, "the old one is dead");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
        let sessions = redis.stored("sess:", &mut Ids::new(None)).await.len();
        assert_eq!(sessions, 5);
    }
}

/// Returns how many of `requests` are counted if all have read the session before the first of them
/// counts.
async fn counted(redis: &mut Redis, ports: &[u16], requests: usize) -> u64 {
    let mut browser = Browser::new(ports[0]);
    browser.visit(&["set n 0"]).await;
    let port = |index: usize| ports[index % ports.len()];
    let visit = |index: usize| {
        let mut browser = browser.on(port(index));
        async move { assert_eq!(browser.visit(&["read n", "gate all", "count n"]).await.0.status, 200) }
    };
    let at_once = async {
        for path in ["/__arrival/all", "/__open/all"] {
            for index in 0..requests {
                http::get(port(index), path, &[]).await;
            }
        }
    };
    tokio::join!(futures::future::join_all((0..requests).map(visit)), at_once);
    let text = redis.get(&format!("sess:{}", browser.sid())).await.expect("the session is there");
    serde_json::from_str::<Value>(&text).unwrap()["n"].as_u64().unwrap()
}

#[tokio::test]
async fn express_does_not_count_requests_at_once() {
    let mut redis = Redis::start().await;
    let express = Express::start(&redis.server, &apps().map(|app| app.options())).await;
    // `n++` writes a number based on the earlier read: the store for Express merges names, not
    // numbers.
    for &port in express.ports() {
        assert_eq!(counted(&mut redis, &[port], 20).await, 1);
    }
}
