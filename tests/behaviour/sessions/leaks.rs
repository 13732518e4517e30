//! Leftovers of sessions: no key without an expiry, no list entry without its session, and no id,
//! secret or value in logs, events, errors or `Debug` output.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache_core::Cache;
use cache_core::session::{Session, SessionError, SessionLayer, SessionMode, TooMany, Transport};
use futures::future::join_all;
use support::{Proxy, RedisServer};
use tokio::sync::broadcast::error::TryRecvError;

use super::client::{Browser, SECRET, express, native, session_keys};
use super::serial::Random;

const USERS: [&str; 3] = ["ada", "bob", "eve"];

/// Handles one request: a few random steps, and sometimes an error as the response.
async fn run(session: Session, plan: Vec<u64>) -> Result<u16, SessionError> {
    let mut status = 200;
    for step in plan {
        match step {
            0..4 => drop(session.increment("views", 1).await?),
            4 => session.login(USERS[0]).await?,
            5 => session.login(USERS[1]).await?,
            6 => session.login(USERS[2]).await?,
            7 => session.cycle_id().await?,
            8 => session.regenerate().await?,
            9 => session.destroy().await?,
            10 => session.logout().await?,
            11 => session.clear().await?,
            12 => session.set_max_age(Duration::from_secs(600)).await?,
            13 => session.set_max_age(Duration::ZERO).await?,
            14 => session.set_max_age(None).await?,
            15 => session.touch().await?,
            16 => drop(session.pop::<i64>("views").await?),
            17 => session.unset().await?,
            18 => status = 500,
            19 => drop(session.end_others().await?),
            20 => drop(session.csrf_token().await?),
            _ => session.save().await?,
        }
    }
    Ok(status)
}

fn layers(cache: &Cache) -> [SessionLayer; 6] {
    [
        express(cache).build().unwrap(),
        express(cache).mode(SessionMode::Dual).rolling(true).build().unwrap(),
        native(cache).build().unwrap(),
        native(cache).max_sessions(2, TooMany::EndOldest).absolute_timeout(Duration::from_secs(7200)).build().unwrap(),
        native(cache).save_uninitialized(true).resave(true).build().unwrap(),
        express(cache).max_sessions(2, TooMany::Refuse).build().unwrap(),
    ]
}

/// Returns the keys without an expiry.
fn eternal(server: &RedisServer) -> Vec<String> {
    let keys = server.cli(&["KEYS", "*"]);
    keys.lines().filter(|key| server.cli(&["PTTL", key]).trim() == "-1").map(str::to_owned).collect()
}

fn index_members(server: &RedisServer) -> Vec<String> {
    let indexes = server.cli(&["KEYS", "cache:sidx:*"]);
    let members = indexes.lines().map(|index| server.cli(&["ZRANGE", index, "0", "-1"]));
    members.flat_map(|members| members.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn plan(random: &mut Random) -> Vec<u64> {
    (0..=random.below(4)).map(|_| random.below(24)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_left_without_an_expiry_and_no_entry_without_its_session() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    let layers = layers(&cache);
    for seed in 0..12_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let browsers = [Browser::default(), Browser::default(), Browser::default()];
        for _ in 0..25 {
            let (browser, layer) = (
                &browsers[usize::try_from(random.below(3)).unwrap()],
                &layers[usize::try_from(random.below(6)).unwrap()],
            );
            let plan = plan(&mut random);
            let steps = plan.clone();
            let page = browser.visit(layer, move |session| run(session, steps)).await;
            assert!(matches!(page.status, 200 | 409 | 500), "seed {seed}: {plan:?}: {page:?}");
            // Sequentially: each entry of a list has its session.
            for member in index_members(&server) {
                let stands = server.cli(&["EXISTS", &member]);
                assert_eq!(stands.trim(), "1", "seed {seed}: {plan:?} left an entry behind");
            }
        }
        assert_eq!(eternal(&server), Vec::<String>::new(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_left_without_an_expiry_by_requests_at_the_same_time() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    let layers = layers(&cache);
    for seed in 0..20_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let browser = Browser::default();
        browser.set(&layers[usize::try_from(random.below(6)).unwrap()], "views", 1).await;
        let requests = (0..8).map(|_| {
            let (browser, layer, plan) =
                (browser.copy(), layers[usize::try_from(random.below(6)).unwrap()].clone(), plan(&mut random));
            tokio::spawn(async move { browser.visit(&layer, move |session| run(session, plan)).await })
        });
        for page in join_all(requests).await {
            assert!(page.unwrap().status < 503, "seed {seed}");
        }
        assert_eq!(eternal(&server), Vec::<String>::new(), "seed {seed}");
    }
    // Every session that is still logged in is in a list, and so can be ended.
    for layer in &layers {
        for user in USERS {
            layer.of_user(user).end_all().await.unwrap();
        }
    }
    for key in &session_keys(&server) {
        assert!(!server.cli(&["GET", key]).contains(r#""u":""#), "a session of a user in no list");
    }
}

/// The log of this thread, of all levels.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn add(&self, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }
}

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.add(&format!("{field}={value:?} "));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Returns an error with all its causes, by `Display` and `Debug`.
fn shown(error: &SessionError) -> String {
    let mut text = format!("{error} {error:?} ");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let _never_fails = write!(text, "{error} {error:?} ");
        source = error.source();
    }
    text
}

/// A value that has no JSON form, and whose error contains the value.
struct Telling;

impl serde::Serialize for Telling {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no form"))
    }
}

/// Tries operations that fail. Returns their errors.
async fn mistakes(session: &Session) -> Vec<SessionError> {
    let mut errors = Vec::new();
    errors.extend(session.get::<i64>("word").await.err());
    errors.extend(session.get::<Vec<bool>>("word").await.err());
    errors.extend(session.increment("word", 1).await.err());
    errors.extend(session.push("word", "mellon").await.err());
    errors.extend(session.insert("telling", &Telling).await.err());
    errors.extend(session.insert("cookie", "mellon").await.err());
    errors.extend(session.insert("large", &"mellon".repeat(20_000)).await.err());
    errors.extend(session.login("").await.err());
    errors.extend(session.login("mellon".repeat(100)).await.err());
    errors
}

// One thread, because the log is captured on the current thread.
#[tokio::test(flavor = "current_thread")]
async fn logs_events_and_errors_contain_no_id_secret_or_value() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let settings = Cache::builder().response_timeout(Duration::from_millis(300));
    let cache = settings.url(proxy.url()).connect().await.unwrap();
    let mut events = cache.subscribe();
    let mut hidden = vec![SECRET.to_owned(), "mellon".to_owned(), "ada@example".to_owned()];
    for builder in [native(&cache), express(&cache), native(&cache).transports([Transport::Bearer])] {
        let layer = builder.secret("keyboard").record_user_agent(true).build().unwrap();
        let mut browser = Browser::default().with("user-agent", "mellon/1.0");
        let kept = Arc::new(Mutex::new(Vec::new()));
        for round in 0..4 {
            let slot = Arc::clone(&kept);
            let page = browser.visit(&layer, move |session| async move {
                let first = session.id().await?;
                session.insert("word", "mellon").await?;
                session.login("ada@example").await?;
                let token = session.csrf_token().await?;
                let id = session.id().await?;
                let errors = mistakes(&session).await;
                assert_eq!(errors.len(), 9);
                let mut text: String = errors.iter().map(shown).collect();
                let values = session.read(|values| format!("{values:?}")).await?;
                write!(text, "{session:?} {id:?} {values}").unwrap();
                slot.lock().unwrap().extend([first.reveal().to_owned(), id.reveal().to_owned(), token]);
                tracing::info!(text, "shown");
                Ok(if round == 3 { 500 } else { 200 })
            });
            if let Some(token) = page.await.headers.get("session-token") {
                let token = token.to_str().unwrap();
                hidden.push(token.to_owned());
                browser = Browser::default()
                    .with("user-agent", "mellon/1.0")
                    .with("authorization", &format!("Bearer {token}"));
            }
        }
        for name in ["__Host-id", "connect.sid"] {
            hidden.extend(browser.cookie(name));
        }
        let list = layer.of_user("ada@example").list().await.unwrap();
        assert!(list.iter().any(|info| info.device.as_deref() == Some("mellon/1.0")), "returned on request");
        log.add(&format!("{list:?} {:?} {:?}", layer.all(), layer.all().list().await.unwrap()));
        // The stored data are corrupt, refused, or of another type; sessions have ended; signatures
        // are invalid.
        let keys = session_keys(&server).join("\n");
        for key in keys.lines() {
            server.cli(&["SET", key, "mellon"]);
        }
        browser.set(&layer, "views", 1).await;
        for key in keys.lines() {
            server.cli(&["DEL", key]);
            server.cli(&["HSET", key, "mellon", "1"]);
        }
        browser.set(&layer, "views", 1).await;
        server.cli(&["FLUSHDB"]);
        browser.set(&layer, "views", 1).await;
        let forged = Browser::default().with("cookie", "__Host-id=s%3Amellon.mellon; connect.sid=s%3Amellon.mellon");
        forged.with("authorization", "Bearer mellon.mellon").set(&layer, "views", 1).await;
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        assert_eq!(browser.set(&layer, "word", 2).await.status, 503);
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        proxy.cut();
        let slot = Arc::clone(&kept);
        let page = browser.visit(&layer, move |session| async move {
            let errors = [session.insert("word", "mellon").await, session.destroy().await];
            tracing::info!(
                errors = errors.iter().filter_map(|error| error.as_ref().err()).map(shown).collect::<String>()
            );
            let id = session.id().await;
            slot.lock().unwrap().extend(id.map(|id| id.reveal().to_owned()));
            Ok(200)
        });
        assert!(matches!(page.await.status, 200 | 503));
        proxy.heal();
        let look = || browser.visit(&layer, |session| async move { session.get::<i64>("views").await.map(|_| 200) });
        support::eventually("it is back", || async { look().await.status == 200 }).await;
        log.add(&format!("{layer:?} {:?} {:?} {:?}", layer.of_user("ada@example"), native(&cache), cache.stats()));
        hidden.append(&mut kept.lock().unwrap());
        loop {
            match events.try_recv() {
                Ok(event) => log.add(&format!("{event:?} ")),
                Err(TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
    }
    drop(guard);
    let log = log.0.lock().unwrap().clone();
    for expected in ["BadSignature", "UnknownId", "Unreadable", "StoreFailed", "ShortSecret"] {
        assert!(log.contains(expected), "{expected} did not happen: {log}");
    }
    for text in hidden {
        // Also for an id in another form: its beginning alone would be enough to search for it.
        let text = text.get(..16).unwrap_or(&text);
        assert!(!log.contains(text), "`{text}` is shown: {log}");
    }
}
