//! Attacks on the blog from outside: over HTTP, or with access to its Redis.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/process.rs"]
mod process;
#[path = "support/reader.rs"]
mod reader;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use browser::{Browser, Page, exchange};
use cache_core::testing::record;
use process::Process;
use reader::Reader;
use support::{Monitor, RedisServer};
use tempfile::TempDir;

const SECRET: &str = "the same one for all the instances";
const OTHER_SECRET: &str = "and one that only the others know";
const PASSWORD: &str = "correct horse";
const JSON: Option<&str> = Some("application/json");

/// Starts the blog on the database in this folder, with its cache at this URL.
fn blog(folder: &TempDir, cache_url: &str, secret: &str) -> Process {
    let mut blog = Command::new(env!("CARGO_BIN_EXE_blog"));
    blog.env("BLOG_ADDR", "127.0.0.1:0").env("RUST_LOG", "off").stdout(Stdio::piped());
    blog.env("DATABASE_URL", format!("sqlite:{}", folder.path().join("blog.db").display()));
    Process::new(blog.env("CACHE_URL", cache_url).env("SESSION_SECRET", secret).spawn().unwrap())
}

/// Starts one blog with its own Redis.
fn one() -> (RedisServer, TempDir, Process) {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let blog = blog(&folder, &redis.url(), SECRET);
    (redis, folder, blog)
}

fn registered(blog: Browser, login: &str) -> Reader {
    let reader = Reader::new(blog);
    let page = reader.register("Somebody New", login, PASSWORD);
    assert_eq!((page.status, page.location()), (303, Some("/")), "{}", page.body);
    assert!(reader.get("/").body.contains("Welcome. You can write now."));
    reader
}

/// Requests a page that only logged-in readers see. Status 303 redirects to the login page.
fn devices(blog: Browser, cookies: &str) -> Page {
    blog.request_with("GET", "/devices", &[("cookie", cookies)], None, "")
}

/// Returns the number of devices on a page.
fn count(page: &Page) -> usize {
    page.body.matches("<strong class=\"device\">").count()
}

/// Returns the cookie of the session, or `None` if there is none.
fn session_cookie(reader: &Reader) -> Option<String> {
    reader.cookies().split("; ").find_map(|cookie| cookie.strip_prefix("__Host-id=")).map(str::to_owned)
}

/// Returns the id in a cookie or a token, without its signature.
fn id_of(value: &str) -> String {
    let value: String =
        url::form_urlencoded::parse(format!("v={value}").as_bytes()).map(|(_, value)| value.into_owned()).collect();
    value.trim_start_matches("s:").rsplit_once('.').unwrap().0.to_owned()
}

/// Returns the keys of the sessions in this Redis.
fn session_keys(redis: &RedisServer) -> Vec<String> {
    redis.cli(&["KEYS", "*sess:*:v1:*"]).lines().map(str::to_owned).collect()
}

/// Returns all keys that belong to sessions in this Redis.
fn all_of_sessions(redis: &RedisServer) -> Vec<String> {
    let keys = redis.cli(&["KEYS", "*"]);
    let mut keys: Vec<_> = keys.lines().filter(|key| key.contains("sess:")).map(str::to_owned).collect();
    keys.sort_unstable();
    keys
}

/// Returns the bytes under a key.
fn stored(redis: &RedisServer, key: &str) -> Vec<u8> {
    let script = "return (redis.call('GET', KEYS[1]):gsub('.', function(c) return ('%02x'):format(c:byte()) end))";
    let hex = redis.cli(&["EVAL", script, "1", key]);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(byte).collect()
}

fn store(redis: &RedisServer, key: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = "ARGV[1]:gsub('..', function(h) return string.char(tonumber(h, 16)) end)";
    redis.cli(&["EVAL", &format!("local bytes = {bytes} return redis.call('SET', KEYS[1], bytes)"), "1", key, &hex]);
}

fn api_login(blog: Browser, from: Ipv4Addr, login: &str, password: &str) -> Page {
    let body = format!("{{\"login\":\"{login}\",\"password\":\"{password}\"}}");
    exchange(connect(blog, from), "POST", "/api/login", &[], JSON, &body)
}

/// Connects from another address of this machine.
fn connect(blog: Browser, from: Ipv4Addr) -> std::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(blog.0).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

fn me(blog: Browser, token: &str) -> Page {
    blog.request_with("GET", "/api/me", &[("authorization", &format!("Bearer {token}"))], None, "")
}

#[test]
fn a_cookie_planted_by_a_host_beside_the_blog_is_no_session() {
    // N2
    let (_redis, _folder, process) = one();
    let blog = process.browser;
    let (mallory, victim) = (registered(blog, "mallory"), registered(blog, "victim"));
    let planted = session_cookie(&mallory).unwrap();
    assert_eq!(devices(blog, &format!("__Host-id={planted}")).status, 200, "it is a good one under its own name");
    // Names that a browser lets another host of the domain set: every name without the prefix.
    let names = ["connect.sid", "id", "session", "host-id", "__host-id", "__HOST-ID", "__Secure-id", "__Host-id-form"];
    for name in names {
        assert_eq!(devices(blog, &format!("{name}={planted}")).status, 303, "{name}");
        // The victim stays logged in as themselves, wherever the planted cookie is.
        let own = victim.cookies();
        for cookies in [format!("{name}={planted}; {own}"), format!("{own}; {name}={planted}")] {
            let page = devices(blog, &cookies);
            assert!(page.status == 200 && count(&page) == 1, "{name}");
        }
    }
    // A login with the planted cookie does not write into the attacker's session.
    let fooled = Reader::new(blog);
    let form = fooled.get("/login").body;
    let csrf = form.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("login", "victim"), ("password", PASSWORD), ("csrf", csrf)])
        .finish();
    let cookies = format!("connect.sid={planted}; {}", fooled.cookies());
    let headers = [("cookie", cookies.as_str())];
    let page = blog.request_with("POST", "/login", &headers, Some("application/x-www-form-urlencoded"), &body);
    assert_eq!(page.status, 303, "{}", page.body);
    let new = page.all("set-cookie").iter().find_map(|cookie| cookie.strip_prefix("__Host-id=")).unwrap().to_owned();
    assert!(!new.starts_with(&planted), "a session of its own");
    assert_eq!(count(&mallory.get("/devices")), 1);
}

#[test]
fn the_id_from_before_a_login_is_not_the_id_after_it_and_is_worth_nothing() {
    let (redis, _folder, process) = one();
    let blog = process.browser;
    registered(blog, "victim");
    // A session without a user, which exists for a message. Its id is known to the attacker.
    let mallory = registered(blog, "mallory");
    assert_eq!(mallory.post("/logout", &[]).status, 303);
    let known = session_cookie(&mallory).unwrap();
    // The victim's browser has it, and the victim logs in with it.
    let victim = mallory.clone();
    victim.log_in("victim", PASSWORD);
    let after = session_cookie(&victim).unwrap();
    assert_ne!(id_of(&known), id_of(&after));
    assert_eq!(devices(blog, &format!("__Host-id={known}")).status, 303);
    assert_eq!(devices(blog, &format!("__Host-id={after}")).status, 200);
    // An id that the server has not issued is not accepted either, and neither is one that has
    // ended.
    let ids = ["s%3Achosen-by-mallory.AAAA", known.as_str()];
    for id in ids {
        let cookies = format!("__Host-id={id}");
        let page = blog.request_with("GET", "/login", &[("cookie", &cookies)], None, "");
        assert!(page.all("set-cookie").iter().all(|cookie| !cookie.contains(id)), "{id}");
    }
    // With tokens: the token returned by a login differs from the one sent with the request.
    let first = api_login(blog, Ipv4Addr::LOCALHOST, "mallory", PASSWORD);
    let known = first.all("session-token").first().unwrap().to_string();
    let authorization = format!("Bearer {known}");
    let body = format!("{{\"login\":\"victim\",\"password\":\"{PASSWORD}\"}}");
    let page = blog.request_with("POST", "/api/login", &[("authorization", &authorization)], JSON, &body);
    assert_eq!(page.status, 200, "{}", page.body);
    let after = page.all("session-token").first().unwrap().to_string();
    assert_ne!(id_of(&known), id_of(&after));
    assert_eq!((me(blog, &known).status, me(blog, &after).status), (401, 200));
    // The remaining sessions: the victim's registration, login and token. None is left of the
    // attacker's.
    assert_eq!(session_keys(&redis).len(), 3);
}

#[test]
fn a_session_of_another_database_is_refused_with_the_same_redis_and_secret() {
    // N6
    let redis = RedisServer::start();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // In one namespace too, where only the database distinguishes them.
    for url in [redis.url(), format!("{}?namespace=shared", redis.url())] {
        let [one, other] = folders.each_ref().map(|folder| blog(folder, &url, SECRET));
        let [first, second] = [&one, &other].map(|process| Reader::logged_in(process.browser, "demo", "demo"));
        // `demo` is the author with the same id in both.
        assert_eq!(devices(other.browser, &first.cookies()).status, 303);
        assert_eq!(devices(one.browser, &second.cookies()).status, 303);
        let login = api_login(one.browser, Ipv4Addr::LOCALHOST, "demo", "demo");
        let token = login.all("session-token").first().unwrap().to_string();
        assert_eq!((me(one.browser, &token).status, me(other.browser, &token).status), (200, 401));
        // Neither sees nor ends the sessions of the other.
        assert_eq!((count(&first.get("/devices")), count(&second.get("/devices"))), (2, 1));
        assert_eq!(second.post("/logout/everywhere", &[]).status, 303);
        assert!(first.is_logged_in() && me(one.browser, &token).status == 200 && !second.is_logged_in());
        assert_eq!(first.post("/logout/everywhere", &[]).status, 303);
    }
}

#[test]
fn programs_with_namespaces_of_their_own_share_a_redis_and_no_session() {
    // N6
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    // The same database: the same authors and the same prefix.
    let start = |namespace: &str, secret| blog(&folder, &format!("{}?namespace={namespace}", redis.url()), secret);
    let processes = [start("one", SECRET), start("two", SECRET), start("three", OTHER_SECRET)];
    let readers = processes.each_ref().map(|process| Reader::logged_in(process.browser, "demo", "demo"));
    for (at, process) in processes.iter().enumerate() {
        for (of, reader) in readers.iter().enumerate() {
            let page = devices(process.browser, &reader.cookies());
            assert_eq!(page.status, if at == of { 200 } else { 303 }, "the session of {of} at {at}");
            assert!(at != of || count(&page) == 1, "{}", page.body);
        }
    }
    let [one, two, three] = &readers;
    assert_eq!(two.post("/logout/everywhere", &[]).status, 303);
    assert!(one.is_logged_in() && !two.is_logged_in() && three.is_logged_in());
}

#[test]
fn foreign_writes_to_the_store_never_change_a_users_identity() {
    // N4
    let (redis, _folder, process) = one();
    let blog = process.browser;
    let victim = Reader::logged_in(blog, "demo", "demo");
    let of_victim = session_keys(&redis);
    let mallory = registered(blog, "mallory");
    let cookie = session_cookie(&mallory).unwrap();
    let keys = session_keys(&redis);
    let [key] = keys.iter().filter(|key| !of_victim.contains(key)).collect::<Vec<_>>()[..] else { panic!("{keys:?}") };
    let [of_victim] = &of_victim[..] else { panic!("{of_victim:?}") };
    let prefix = key.split_once(":sess:").unwrap().1.split_once(':').unwrap().0;
    let id = id_of(&cookie);
    let is_somebody = |name: &str| {
        let page = devices(blog, &format!("{name}={cookie}"));
        assert!(page.status == 200 || page.status == 303, "{}", page.body);
        page.status == 200
    };
    assert!(is_somebody("__Host-id"));

    // An Express application with the same secret, in which users choose the names of values.
    let forged = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"_m":{"u":"1","a":1767225600000}}"#;
    for express in [format!("sess:{prefix}:{id}"), format!("sess:{id}")] {
        redis.cli(&["SET", &express, forged]);
    }
    redis.cli(&["COPY", key, "kept"]);
    redis.cli(&["DEL", key]);
    for name in ["__Host-id", "connect.sid", "id"] {
        assert!(!is_somebody(name), "{name}");
    }
    // Forged data in place of the attacker's own session, and a copy of the victim's session.
    redis.cli(&["SET", key, forged]);
    assert!(!is_somebody("__Host-id"));
    redis.cli(&["COPY", of_victim, key, "REPLACE"]);
    assert!(!is_somebody("__Host-id"));
    // With write access to Redis, the envelope of a record can be forged, since it has no secret.
    // Tried with forged metadata, and with metadata that the blog has signed for the victim, in the
    // attacker's session.
    let record = stored(&redis, of_victim);
    let (codec, signed) = record::payload(of_victim, &record).unwrap();
    assert!(String::from_utf8_lossy(signed).contains(r#""u":"1""#), "it names its owner");
    for payload in [forged.as_bytes(), signed] {
        store(&redis, key, &record::seal_payload(key, codec, payload).unwrap());
        assert!(!is_somebody("__Host-id"));
        store(&redis, of_victim, &record::seal_payload(of_victim, codec, payload).unwrap());
        assert_eq!(victim.is_logged_in(), payload == signed, "it is read: only the name is not believed");
    }
    // Nothing else about the request prevented the access.
    redis.cli(&["COPY", "kept", key, "REPLACE"]);
    assert!(is_somebody("__Host-id") && victim.is_logged_in());
}

#[test]
fn guessed_ids_are_refused_without_a_lookup() {
    let (redis, _folder, process) = one();
    let blog = process.browser;
    let reader = registered(blog, "nora");
    let own = session_cookie(&reader).unwrap();
    let (id, signature) = own.rsplit_once('.').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut monitor = runtime.block_on(Monitor::start(&redis));
    let mut of_sessions = || {
        let commands = runtime.block_on(monitor.commands());
        commands.into_iter().filter(|words| words.iter().any(|word| word.contains("sess:"))).count()
    };
    for guess in 0..100 {
        let value = format!("s%3A{guess:032}.{signature}");
        let forged = format!("{id}.{guess:043}");
        for value in [&value, &forged] {
            assert_eq!(devices(blog, &format!("__Host-id={value}")).status, 303);
            assert_eq!(me(blog, value.trim_start_matches("s%3A")).status, 401);
        }
    }
    assert_eq!(of_sessions(), 0, "what we have not signed costs the store nothing");
    assert_eq!(devices(blog, &format!("__Host-id={own}")).status, 200);
    assert!(of_sessions() > 0);
    assert_eq!(session_keys(&redis).len(), 1);
}

#[test]
fn guessed_passwords_are_throttled_by_account_and_address_and_store_no_session() {
    let (redis, _folder, process) = one();
    let blog = process.browser;
    for login in ["nora", "other"] {
        assert_eq!(registered(blog, login).post("/logout/everywhere", &[]).status, 303);
    }
    let (before, sessions) = (all_of_sessions(&redis), session_keys(&redis).len());
    let (here, there) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    for guess in 0..5 {
        assert_eq!(api_login(blog, here, "nora", &format!("guess {guess}")).status, 401);
        let thief = Reader::new(blog);
        thief.get("/login");
        let page = thief.post("/login", &[("login", " NORA "), ("password", "another guess")]);
        assert_eq!((page.status, session_cookie(&thief)), (422, None));
    }
    // The right password and the wrong one get the same answer.
    let mut answers = [PASSWORD, "wrong"].map(|password| api_login(blog, here, "nora", password));
    for page in &mut answers {
        assert_eq!(page.status, 429, "{}", page.body);
        let [after] = page.all("retry-after")[..] else { panic!("{}", page.headers) };
        assert!((1..=900).contains(&after.parse().unwrap()), "{after}");
        assert!(page.all("session-token").is_empty());
    }
    assert_eq!(answers[0].body, answers[1].body);
    let page = Reader::new(blog);
    page.get("/login");
    let page = page.post("/login", &[("login", "nora"), ("password", PASSWORD)]);
    assert!(page.status == 429 && page.all("retry-after").len() == 1, "{}", page.body);
    assert!(page.body.contains("Please try again in 15 minutes."), "{}", page.body);
    assert_eq!(all_of_sessions(&redis), before, "nothing of that is a session");
    // The owner of the account can log in from another address, and others can log in from this
    // one.
    assert_eq!(api_login(blog, there, "nora", PASSWORD).status, 200);
    assert_eq!(api_login(blog, here, "other", PASSWORD).status, 200);
    assert_eq!(api_login(blog, here, "nora", PASSWORD).status, 429, "and not here");
    assert_eq!(session_keys(&redis).len().checked_sub(sessions), Some(2));
}

#[test]
fn forms_that_are_not_sent_store_no_session() {
    let (redis, _folder, process) = one();
    let blog = process.browser;
    for path in ["/login", "/register", "/login?next=%2Fposts%2Fnew"] {
        for method in ["GET", "HEAD"].into_iter().cycle().take(20) {
            let page = blog.request(method, path, None, "");
            assert_eq!(page.status, 200);
            assert!(
                page.all("set-cookie").iter().all(|cookie| cookie.starts_with("__Host-id-form=")),
                "{method} {path}"
            );
        }
    }
    let forged = blog.post("/login", &[("login", "demo"), ("password", "demo")]);
    assert_eq!(forged.status, 403);
    assert_eq!(all_of_sessions(&redis), Vec::<String>::new());
    // The form that was shown works for a login, and then there is a session.
    Reader::logged_in(blog, "demo", "demo");
    assert_eq!(session_keys(&redis).len(), 1);
}
