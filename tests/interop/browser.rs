//! Options that both peers understand, a visitor with a cookie, and the effects of a visit.

use std::collections::BTreeMap;

use chrono::DateTime;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde_json::{Value, json};
use support::http::{self, Response, percent_encoded};
use support::{Monitor, RedisServer};

/// An application's options, with the names of express-session. An omitted option has the default
/// of Express.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct App {
    pub(super) resave: bool,
    pub(super) save_uninitialized: bool,
    pub(super) rolling: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unset: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'static str>,
    /// A text, or a list of which the first one signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trust_proxy: Option<Value>,
    pub(super) cookie: Cookie,
    pub(super) store_options: StoreOptions,
    /// The store: that of connect-redis, or `express-store`. Express only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<&'static str>,
    /// The header `x-genid` sets the id of a new session. Express only.
    pub(super) genid_from_header: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cookie {
    /// In milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_age: Option<u64>,
    /// `true`, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secure: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) domain: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) same_site: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partitioned: Option<bool>,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoreOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<&'static str>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u64>,
}

impl App {
    pub(super) fn options(&self) -> Value {
        serde_json::to_value(self).unwrap()
    }

    pub(super) fn prefix(&self) -> &'static str {
        self.store_options.prefix.unwrap_or("sess:")
    }

    /// Returns the lifetime of a session in seconds.
    pub(super) fn ttl(&self) -> u64 {
        self.cookie.max_age.map_or(86400, |milliseconds| milliseconds / 1000)
    }
}

/// Returns the 16 combinations of resave, saveUninitialized, rolling, and with or without maxAge.
pub(super) fn combinations() -> impl Iterator<Item = App> {
    (0..16).map(|bits| App {
        resave: bits & 1 != 0,
        save_uninitialized: bits & 2 != 0,
        rolling: bits & 4 != 0,
        cookie: Cookie { max_age: (bits & 8 != 0).then_some(600_000), ..Cookie::default() },
        ..App::default()
    })
}

/// One visitor of one application.
#[derive(Debug, Clone)]
pub(super) struct Browser {
    pub(super) port: u16,
    /// `name=value`, as it is sent.
    pub(super) cookie: Option<String>,
}

impl Browser {
    pub(super) fn new(port: u16) -> Self {
        Self { port, cookie: None }
    }

    /// Returns the same visitor on another application.
    pub(super) fn on(&self, port: u16) -> Self {
        Self { port, cookie: self.cookie.clone() }
    }

    pub(super) async fn visit(&mut self, steps: &[&str]) -> Visit {
        self.visit_at("/", steps, &[]).await
    }

    /// Visits with these headers. The cookie of the response is kept, as by a browser.
    pub(super) async fn visit_at(&mut self, path: &str, steps: &[&str], headers: &[(&str, &str)]) -> Visit {
        let visit = Visit(http::get(self.port, &url(path, steps), &self.headers(headers)).await);
        if let Some(cookie) = visit.0.header("set-cookie") {
            self.cookie = Some(cookie.split(';').next().unwrap_or_default().to_owned());
        }
        visit
    }

    fn headers<'h>(&'h self, headers: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
        let cookie = self.cookie.as_deref().map(|cookie| ("Cookie", cookie));
        headers.iter().copied().chain(cookie).collect()
    }

    /// Returns the id in the cookie.
    pub(super) fn sid(&self) -> String {
        sid_of(self.cookie.as_deref().expect("a visitor with a cookie"))
    }
}

pub(super) fn url(path: &str, steps: &[&str]) -> String {
    format!("{path}?steps={}", percent_encoded(&serde_json::to_string(steps).unwrap()))
}

/// Returns the id in a signed cookie, if it needs no escapes: `connect.sid=s%3A<id>.<mac>`.
pub(super) fn sid_of(cookie: &str) -> String {
    let value = cookie.split_once('=').expect("a name and a value").1;
    let signed = value.strip_prefix("s%3A").unwrap_or_else(|| panic!("{value:?} is not signed"));
    signed.rsplit_once('.').expect("a signature").0.to_owned()
}

#[derive(Debug, Clone)]
pub(super) struct Visit(pub(super) Response);

impl Visit {
    /// Returns the result of the last step.
    pub(super) fn last(&self) -> Value {
        let mut results = self.0.json();
        let last = results.as_array_mut().and_then(Vec::pop);
        last.unwrap_or_else(|| panic!("no result in {:?}", self.0))
    }

    /// Returns the session's `Set-Cookie`, with its value as a name of `ids` and its time as
    /// seconds from the response's time.
    pub(super) fn set_cookie(&self, ids: &mut Ids) -> String {
        let all = self.0.all("set-cookie");
        let [cookie] = all[..] else {
            assert!(all.is_empty(), "{all:?}");
            return "none".to_owned();
        };
        let (pair, attributes) = cookie.split_once("; ").unwrap_or((cookie, ""));
        let name = pair.split_once('=').expect("a pair").0;
        let value = ids.name(&sid_of(pair));
        let date = self.0.header("date").expect("the server returns its time");
        let attributes = attributes.split("; ").map(|attribute| match attribute.strip_prefix("Expires=") {
            Some(expires) => format!("Expires=+{}", rounded(seconds(expires) - seconds(date))),
            None => attribute.to_owned(),
        });
        format!("{name}={value}; {}", attributes.collect::<Vec<_>>().join("; "))
    }
}

fn seconds(http_date: &str) -> i64 {
    DateTime::parse_from_rfc2822(http_date).unwrap_or_else(|error| panic!("{error}: {http_date}")).timestamp()
}

/// Rounds to ten seconds, because the response's time and the cookie's are not read at the same
/// moment.
fn rounded(seconds: i64) -> i64 {
    (seconds + 5).div_euclid(10) * 10
}

/// Short names for ids: `known` for the visitor's own, then `new`, `new2`, in the order of
/// appearance.
pub(super) struct Ids(Vec<String>);

impl Ids {
    pub(super) fn new(known: Option<String>) -> Self {
        Self(vec![known.unwrap_or_default()])
    }

    pub(super) fn name(&mut self, sid: &str) -> String {
        let place = self.0.iter().position(|known| known == sid).unwrap_or_else(|| {
            self.0.push(sid.to_owned());
            self.0.len() - 1
        });
        match place {
            0 => "known".to_owned(),
            1 => "new".to_owned(),
            more => format!("new{more}"),
        }
    }
}

/// The Redis of both peers, inspected from outside.
pub(super) struct Redis {
    pub(super) server: RedisServer,
    pub(super) keys: MultiplexedConnection,
    monitor: Monitor,
}

impl Redis {
    pub(super) async fn start() -> Self {
        let server = RedisServer::start();
        let client = redis::Client::open(server.url()).unwrap();
        // A busy machine answers late.
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(std::time::Duration::from_secs(20)))
            .set_connection_timeout(Some(std::time::Duration::from_secs(20)));
        let keys = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let monitor = Monitor::start(&server).await;
        Self { server, keys, monitor }
    }

    pub(super) async fn get(&mut self, key: &str) -> Option<String> {
        self.keys.get(key).await.unwrap()
    }

    pub(super) async fn bytes(&mut self, key: &str) -> Vec<u8> {
        self.keys.get(key).await.unwrap()
    }

    pub(super) async fn set_for(&mut self, key: &str, value: impl redis::ToSingleRedisArg + Send + Sync, seconds: u64) {
        let () = self.keys.set_ex(key, value, seconds).await.unwrap();
    }

    pub(super) async fn del(&mut self, key: &str) {
        let () = self.keys.del(key).await.unwrap();
    }

    pub(super) async fn expire(&mut self, key: &str, seconds: u64) {
        let () = self.keys.expire(key, i64::try_from(seconds).unwrap()).await.unwrap();
    }

    pub(super) async fn ttl(&mut self, key: &str) -> i64 {
        self.keys.ttl(key).await.unwrap()
    }

    pub(super) async fn make_hash(&mut self, key: &str) {
        let () = self.keys.hset(key, "a", "1").await.unwrap();
    }

    pub(super) async fn flush(&mut self) {
        let () = redis::cmd("FLUSHALL").query_async(&mut self.keys).await.unwrap();
    }

    /// Discards the commands recorded so far.
    pub(super) async fn forget_commands(&mut self) {
        self.monitor.commands().await;
    }

    /// Returns the commands on keys with this prefix since the last call, with ids by name and
    /// without values: `GET known; SET known EX 600`.
    pub(super) async fn commands(&mut self, prefix: &str, ids: &mut Ids) -> Vec<String> {
        let commands = self.monitor.commands().await;
        let of_sessions = commands.iter().filter(|words| words.iter().skip(1).any(|word| word.starts_with(prefix)));
        of_sessions.map(|words| shortened(words, prefix, ids)).collect()
    }

    /// Returns how many commands named a key with this prefix since the last call.
    pub(super) async fn keys_of_commands(&mut self, prefix: &str) -> usize {
        self.commands(prefix, &mut Ids::new(None)).await.len()
    }

    /// Returns the stored sessions under the prefix, by the name of the id: the JSON with its time
    /// as seconds from now, and the seconds until it expires.
    pub(super) async fn stored(&mut self, prefix: &str, ids: &mut Ids) -> BTreeMap<String, String> {
        let keys: Vec<String> = self.keys.keys(format!("{prefix}*")).await.unwrap();
        let mut stored = BTreeMap::new();
        for key in keys {
            let text = self.get(&key).await.unwrap();
            let ttl = rounded(self.ttl(&key).await);
            let name = ids.name(key.strip_prefix(prefix).expect("asked for by prefix"));
            stored.insert(name, format!("{} for {ttl} s", without_time(&text)));
        }
        stored
    }
}

fn shortened(words: &[String], prefix: &str, ids: &mut Ids) -> String {
    let mut short = Vec::new();
    for word in words {
        if let Some(sid) = word.strip_prefix(prefix) {
            short.push(ids.name(sid));
        } else if !word.starts_with('{') {
            short.push(rounded_time(word));
        }
    }
    short.join(" ")
}

/// Rounds times longer than a hundred to ten seconds, and numbers from 100,000 on as milliseconds,
/// because the clocks of two processes differ a little.
fn rounded_time(word: &str) -> String {
    match word.parse() {
        Ok(milliseconds @ 100_001..) => (rounded(milliseconds / 1000) * 1000).to_string(),
        Ok(seconds @ 101..) => rounded(seconds).to_string(),
        _ => word.to_owned(),
    }
}

/// Replaces `"expires":"2026-11-20T09:21:22.716Z"` by `"expires":"+600"`. Express recomputes
/// `originalMaxAge` at each save from two readings of the clock, and so loses a few milliseconds on
/// a busy machine. It is rounded to seconds.
pub(super) fn without_time(text: &str) -> String {
    let text = match text.split_once(r#""originalMaxAge":"#) {
        Some((before, rest)) => {
            let (age, after) = rest.split_once(',').unwrap_or((rest, ""));
            let age = age.parse().map_or(age.to_owned(), |age: u64| ((age + 500) / 1000 * 1000).to_string());
            &format!(r#"{before}"originalMaxAge":{age},{after}"#)
        }
        None => text,
    };
    let Some((before, rest)) = text.split_once(r#""expires":""#) else { return text.to_owned() };
    let (time, after) = rest.split_once('"').expect("the end of a text");
    let Ok(time) = DateTime::parse_from_rfc3339(time) else { return text.to_owned() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = time.timestamp() - i64::try_from(now.as_secs()).unwrap();
    format!(r#"{before}"expires":"+{}"{after}"#, rounded(seconds))
}

/// Returns the stored text of a session with these members besides `cookie`, as Express with
/// `maxAge` 10 minutes writes it.
pub(super) fn session_text(members: &Value) -> String {
    let expires = DateTime::from_timestamp_millis(
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
            + 600_000,
    );
    let expires = expires.unwrap().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let cookie = json!({ "originalMaxAge": 600_000, "expires": expires, "httpOnly": true, "path": "/" });
    let members = members.to_string();
    let rest = members.strip_prefix('{').expect("an object");
    format!(r#"{{"cookie":{cookie}{}{rest}"#, if rest == "}" { "" } else { "," })
}
