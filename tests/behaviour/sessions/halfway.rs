//! A round trip is lost during a change of a user's list. Whatever the outcome, the client is not
//! given a wrong confirmation, and no session is missing from its list, where `end_all` would not
//! find it.

use cache_core::Cache;
use cache_core::session::{Session, SessionError, SessionLayer, TooMany};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use support::{Loss, Proxy, RedisServer, eventually};

use super::client::{Browser, SECRET, express, native, session_keys};

type Change = fn(Session) -> BoxFuture<'static, Result<(), SessionError>>;

const CHANGES: [(&str, Change); 7] = [
    ("a login", |session| async move { session.login("ada").await }.boxed()),
    ("a login of another user", |session| async move { session.login("bob").await }.boxed()),
    ("another id", |session| async move { session.cycle_id().await }.boxed()),
    ("an empty session with another id", |session| async move { session.regenerate().await }.boxed()),
    ("an empty session and a login", |session| {
        async move {
            session.regenerate().await?;
            session.login("ada").await
        }
        .boxed()
    }),
    ("a logout", |session| async move { session.logout().await }.boxed()),
    ("a touch", |session| async move { session.touch().await }.boxed()),
];

/// Redis behind a proxy that can lose a round trip. Only the requests of the test use it.
struct Broken {
    server: RedisServer,
    network: Proxy,
    cache: Cache,
}

impl Broken {
    async fn start() -> Self {
        let server = RedisServer::start();
        let network = Proxy::start(server.port()).await;
        let url = format!("{}?heartbeat=600s&max_staleness=600s&connect_timeout=500ms", network.url());
        let cache = Cache::connect(&url).await.unwrap();
        Self { server, network, cache }
    }

    fn lines(&self, command: &[&str]) -> Vec<String> {
        self.server.cli(command).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    }

    /// Returns the stored sessions with a logged-in user, as members, with the milliseconds they
    /// have left.
    fn logged_in(&self) -> Vec<(String, u64)> {
        let of_user = |key: &String| {
            let stored = self.server.cli(&["GET", key]);
            ["ada", "bob"].iter().any(|user| stored.contains(&format!("\"u\":\"{user}\"")))
        };
        let keys = session_keys(&self.server).into_iter().filter(of_user);
        keys.map(|key| {
            let left = self.server.cli(&["PTTL", &key]).trim().parse().unwrap();
            (key, left)
        })
        .collect()
    }

    /// Checks that each of them is in a list for as long as it lives.
    fn all_are_listed(&self) -> Result<(), String> {
        for (member, left) in self.logged_in() {
            let time = self.lines(&["TIME"]);
            let now = time[0].parse::<u64>().unwrap() * 1000;
            let indexes = self.lines(&["KEYS", "cache:sidx:*"]);
            let scores = indexes.iter().map(|index| self.server.cli(&["ZSCORE", index, &member]));
            let until = scores.filter_map(|score| score.trim().parse::<f64>().ok()).fold(0.0, f64::max);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            if until < (now + left) as f64 {
                return Err(format!("a session of {left} ms is listed until {until}, {now}"));
            }
        }
        Ok(())
    }
}

/// Repeats the change, each time with a later round trip lost, until none is lost.
async fn lose_each(broken: &Broken, layer: &SessionLayer, name: &str, change: Change, loss: Loss, logged_in: bool) {
    for step in 0..20 {
        let browser = Browser::default();
        let begin = browser.visit(layer, move |session| async move {
            session.insert("views", &1).await?;
            if logged_in { session.login("ada").await.map(|()| 200) } else { Ok(200) }
        });
        assert_eq!(begin.await.status, 200);
        // A record in our own format has a checksum and cannot be edited.
        if name == "a touch" && browser.id("connect.sid").is_some() {
            soon_over(broken);
        }
        broken.network.lose(step, loss);
        let page = browser.visit(layer, move |session| async move { change(session).await.map(|()| 200) }).await;
        let lost = broken.network.has_lost();
        let what = format!("{name}, logged in: {logged_in}, {loss:?} of trip {step} lost: {lost}");
        assert_eq!((page.status, page.cookies.is_empty() || !lost), (if lost { 503 } else { 200 }, true), "{what}");
        broken.all_are_listed().unwrap_or_else(|error| panic!("{what}: {error}"));
        eventually("it is connected again", || async { layer.of_user("nobody").list().await.is_ok() }).await;
        for user in ["ada", "bob"] {
            layer.of_user(user).end_all().await.unwrap();
        }
        assert_eq!(broken.logged_in(), [], "{what}");
        broken.server.cli(&["FLUSHALL"]);
        if !lost {
            assert!(step > 1, "{what}: no trip could be lost");
            return;
        }
    }
    panic!("{name} takes more than 20 round trips");
}

/// Simulates that most of the session's time is over: the session and its entry end in a second,
/// and the record has the same time for its entry.
fn soon_over(broken: &Broken) {
    let [key] = &session_keys(&broken.server)[..] else { panic!("one session") };
    let stored = broken.server.cli(&["GET", key]);
    let soon = cache_core::session::raw::listed_until(stored.trim(), key, SECRET, 1).expect("until when it is listed");
    broken.server.cli(&["SET", key, &soon, "PX", "30000"]);
    let [index] = &broken.lines(&["KEYS", "cache:sidx:*"])[..] else { panic!("one list") };
    let soon = (broken.lines(&["TIME"])[0].parse::<u64>().unwrap() * 1000 + 31_000).to_string();
    broken.server.cli(&["ZADD", index, &soon, key]);
}

/// Runs all changes whose name contains `part`, each from a logged-in session, and a login also
/// from a session that is not logged in.
async fn whichever_is_lost(build: fn(&Cache) -> SessionLayer, part: &str) {
    let broken = Broken::start().await;
    let layer = build(&broken.cache);
    for (name, change) in CHANGES.into_iter().filter(|(name, _)| name.contains(part)) {
        for loss in [Loss::Request, Loss::Answer] {
            lose_each(&broken, &layer, name, change, loss, true).await;
            if name == "a login" {
                lose_each(&broken, &layer, name, change, loss, false).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn no_session_is_out_of_its_list_whichever_round_trip_is_lost() {
    whichever_is_lost(|cache| express(cache).build().unwrap(), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn no_session_of_our_own_form_is_out_of_its_list_whichever_round_trip_is_lost() {
    whichever_is_lost(|cache| native(cache).build().unwrap(), "another").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn no_login_that_may_be_refused_is_out_of_its_list_whichever_round_trip_is_lost() {
    whichever_is_lost(|cache| native(cache).max_sessions(3, TooMany::Refuse).build().unwrap(), "login").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn no_login_that_ends_another_is_out_of_its_list_whichever_round_trip_is_lost() {
    whichever_is_lost(|cache| express(cache).max_sessions(1, TooMany::EndOldest).build().unwrap(), "login").await;
}
