//! D1 and the mistakes of an operator: a permanent error is returned immediately, says what to
//! change, and does not show the password. After a temporary error the cache tries again.

use std::time::Duration;

use cache_core::events::Event;
use cache_core::store_testing::{RawMessage, RawOver, RawSlot, RawStore};
use cache_core::{Cache, CacheBuilder, Error, ErrorKind};
use futures::StreamExt;
use support::{Proxy, RedisServer, eventually, soon};
use tokio::sync::broadcast::Receiver;

const SECRET: &str = "correct-horse-battery";
const WRONG: &str = "wrong-horse-battery";

/// Returns the error of a connection that must be refused, and checks that it shows no password.
async fn refused(url: &str) -> Error {
    let (store, mut events) = RawStore::redis_watched(url).await;
    let error = store.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert_silent(&error);
    while let Ok(event) = events.try_recv() {
        assert_no_secret(&format!("{event:?}"));
    }
    error
}

fn assert_silent(error: &Error) {
    assert_no_secret(&format!("{error} {error:?} {error:#?}"));
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        assert_no_secret(&format!("{cause} {cause:?}"));
        source = cause.source();
    }
}

fn assert_no_secret(text: &str) {
    assert!(!text.contains(SECRET) && !text.contains(WRONG), "{text}");
}

async fn next(events: &mut Receiver<Event>, what: &str, is: impl Fn(&Event) -> bool) -> Event {
    soon(what, async {
        loop {
            let event = events.recv().await.unwrap();
            assert_no_secret(&format!("{event:?}"));
            if is(&event) {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_wrong_password_says_so() {
    let server = RedisServer::builder().password(SECRET).user(&format!("app on >{SECRET} ~* &* +@all")).start();
    RawStore::redis(&server.url()).await.unwrap();
    RawStore::redis(&server.url_as(&format!("app:{SECRET}"))).await.unwrap();
    for credentials in [format!(":{WRONG}"), format!("app:{WRONG}"), format!("nobody:{SECRET}")] {
        let error = refused(&server.url_as(&credentials)).await;
        assert!(error.to_string().contains("WRONGPASS"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_password_says_so() {
    let server = RedisServer::builder().password(SECRET).start();
    let error = refused(&format!("redis://127.0.0.1:{}", server.port())).await;
    assert!(error.to_string().contains("redis://:password@host"), "{error}");
}

#[tokio::test]
async fn a_user_for_a_server_without_users_says_so() {
    let server = RedisServer::start();
    let error = refused(&server.url_as(&format!("app:{SECRET}"))).await;
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
}

#[tokio::test]
async fn a_wrong_database_says_so() {
    let server = RedisServer::start();
    RawStore::redis(&format!("{}15", server.url())).await.unwrap();
    let error = refused(&format!("{}16", server.url())).await;
    assert!(error.to_string().contains("no database with this number"), "{error}");
}

#[tokio::test]
async fn a_user_who_may_not_choose_a_database_says_so() {
    let rule = format!("app on >{SECRET} ~* &* +@all -select");
    let server = RedisServer::builder().user(&rule).start();
    let error = refused(&format!("{}3", server.url_as(&format!("app:{SECRET}")))).await;
    assert!(error.to_string().contains("+select"), "{error}");
}

#[tokio::test]
async fn an_untrusted_certificate_says_so() {
    let Some(server) = RedisServer::with_tls() else { return };
    let error = refused(&server.untrusted_tls_url()).await;
    assert!(error.to_string().contains("tls_ca"), "{error}");
    let missing = format!("{}?tls_ca=/nowhere/ca.pem", server.untrusted_tls_url());
    assert!(refused(&missing).await.to_string().contains("tls_ca"));
}

#[tokio::test]
async fn tls_to_a_plain_port_says_so() {
    let server = RedisServer::start();
    let url = format!("rediss://localhost:{}?connect_timeout=200ms", server.port());
    let (_store, mut events) = RawStore::redis_watched(&url).await;
    let Event::ConnectFailed { reason, .. } = next(&mut events, "it is reported", |_| true).await else { panic!() };
    assert!(reason.contains("TLS port?"), "{reason}");
}

#[tokio::test]
async fn no_tls_to_a_tls_port_says_so() {
    let Some(server) = RedisServer::with_tls() else { return };
    let (_store, mut events) = RawStore::redis_watched(&server.untrusted_tls_url().replace("rediss", "redis")).await;
    let Event::ConnectFailed { reason, .. } = next(&mut events, "it is reported", |_| true).await else { panic!() };
    assert!(reason.contains("`rediss://`"), "{reason}");
}

#[tokio::test]
async fn another_server_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            drop(tokio::io::AsyncWriteExt::write_all(&mut socket, answer).await);
        }
    });
    let error = refused(&format!("redis://:{SECRET}@127.0.0.1:{port}")).await;
    assert!(error.to_string().contains("not Redis"), "{error}");
}

// D1
#[tokio::test]
async fn the_store_starts_even_if_nothing_listens() {
    let server = RedisServer::start();
    server.kill();
    let (store, mut events) = RawStore::redis_watched(&server.url()).await;
    let store = store.unwrap();
    assert!(!store.is_available());
    let error = store.read("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let first = next(&mut events, "the attempt is reported", |_| true).await;
    assert!(matches!(first, Event::ConnectFailed { kind: ErrorKind::Unavailable, .. }), "{first:?}");
    server.restart();
    next(&mut events, "it connects by itself", |event| matches!(event, Event::Connected)).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// D1
#[tokio::test]
async fn a_name_that_does_not_resolve_is_waited_for() {
    let (store, mut events) = RawStore::redis_watched(&format!("redis://:{SECRET}@no-such-host.invalid/")).await;
    assert!(!store.unwrap().is_available());
    next(&mut events, "the attempt is reported", |event| matches!(event, Event::ConnectFailed { .. })).await;
}

// D1, D2: it accepts connections, but never answers.
#[tokio::test]
async fn a_silent_server_does_not_hold_up_the_start() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    proxy.freeze();
    let url = format!("{}?connect_timeout=100ms", proxy.url());
    let store = soon("connect returns", RawStore::redis(&url)).await.unwrap();
    assert!(!store.is_available());
    proxy.heal();
    eventually("it connects by itself", || async { store.is_available() }).await;
}

// At run time a refused login is an event, and the cache tries again.
#[tokio::test]
async fn a_password_that_changes_under_way_is_retried() {
    let server = RedisServer::builder().password(SECRET).start();
    let (store, mut events) = RawStore::redis_watched(&server.url()).await;
    let store = store.unwrap();
    let tell = |arguments: &[&str]| server.cli(arguments);
    tell(&["ACL", "SETUSER", "helper", "on", "nopass", "~*", "&*", "+@all"]);
    tell(&["CONFIG", "SET", "requirepass", WRONG]);
    // This connection of redis-cli was logged in before. The next ones are not, so the helper ends
    // ours.
    let helper = ["--user", "helper", "--pass", "any", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    tell(&helper);
    let failed = next(&mut events, "the login fails", |event| matches!(event, Event::ConnectFailed { .. })).await;
    assert!(matches!(failed, Event::ConnectFailed { kind: ErrorKind::Configuration, .. }), "{failed:?}");
    assert_eq!(store.read("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    tell(&["--user", "helper", "--pass", "any", "CONFIG", "SET", "requirepass", SECRET]);
    next(&mut events, "it logs in again", |event| matches!(event, Event::Connected)).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
}

// An operation that the user may not do is refused, with a text that does not contain the key.
#[tokio::test]
async fn a_user_without_rights_is_refused_without_the_key_in_the_text() {
    let rule = format!("app on >{SECRET} ~allowed:* ~allowed@* ~{{allowed:* &* +@all");
    let server = RedisServer::builder().user(&rule).start();
    let url = format!("{}?namespace=allowed", server.url_as(&format!("app:{SECRET}")));
    let store = RawStore::redis(&url).await.unwrap();
    for error in [
        store.read("private:7").await.map(drop).unwrap_err(),
        store.put("private:7", b"v", None).await.unwrap_err(),
        store.renew("private:7", 1, RawOver::Nothing, Duration::from_secs(1)).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(!format!("{error} {error:?}").contains("private"), "{error:?}");
        assert_silent(&error);
    }
    assert!(store.is_available());
}

// A channel without permission is refused. The others work, also after a reconnect.
#[tokio::test]
async fn a_channel_without_rights_is_refused() {
    let rule = format!("app on >{SECRET} ~* &open:* +@all");
    let server = RedisServer::builder().user(&rule).start();
    let store = RawStore::redis(&server.url_as(&format!("app:{SECRET}"))).await.unwrap();
    let mut open = store.subscribe("open:news").await.unwrap();
    let error = store.subscribe("closed:news").await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("NOPERM") && !error.to_string().contains("closed:"), "{error}");
    server.cli(&["PUBLISH", "open:news", "x"]);
    assert_eq!(soon("the message arrives", open.next()).await, Some(RawMessage::Payload(b"x".to_vec())));
}

// A temporary error is not a mistake of the operator.
#[tokio::test]
async fn a_server_without_a_free_place_is_waited_for() {
    let server = RedisServer::builder().option("maxclients", "1").start();
    let holder = RawStore::redis(&server.url()).await.unwrap();
    // The connection that started the server may still be open.
    eventually("the place is taken", || async { holder.is_available() }).await;
    let (store, mut events) = RawStore::redis_watched(&server.url()).await;
    let store = store.unwrap();
    let told = next(&mut events, "it is reported", |_| true).await;
    assert!(matches!(told, Event::ConnectFailed { kind: ErrorKind::Unavailable, .. }), "{told:?}");
    holder.close().await;
    drop(holder);
    eventually("there is a place", || async { store.is_available() }).await;
}

/// Returns the error text of a builder that must be refused, and checks that it shows no password.
async fn contradiction(builder: CacheBuilder) -> String {
    assert_no_secret(&format!("{builder:?}"));
    let error = builder.connect().await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert_silent(&error);
    error.to_string()
}

#[tokio::test]
async fn an_address_in_parts_is_as_good_as_a_url() {
    let server = RedisServer::builder().password(SECRET).user(&format!("app on >{SECRET} ~* &* +@all")).start();
    let parts = || Cache::builder().host("127.0.0.1").port(server.port());
    let by_parts = parts().username("app").password(SECRET).db(3).connect().await.unwrap();
    assert!(by_parts.is_available());
    assert_eq!(by_parts.address(), format!("redis://app:***@127.0.0.1:{}/3", server.port()));
    by_parts.plain().set("key", &1, None).await.unwrap();
    assert_eq!(server.cli(&["-n", "3", "GET", "key"]).trim(), "1");
    // The password is set separately from the URL.
    let url = format!("redis://127.0.0.1:{}/3", server.port());
    let apart = Cache::builder().url(url).password(SECRET).connect().await.unwrap();
    assert_eq!(apart.plain().get::<i64>("key").await.unwrap(), Some(1));
    assert!(contradiction(parts().password(WRONG)).await.contains("WRONGPASS"));
    assert!(contradiction(parts()).await.contains("password"));
}

#[tokio::test]
async fn a_duplicate_or_partial_address_says_so() {
    let server = RedisServer::builder().password(SECRET).start();
    let (new, url) = (Cache::builder, server.url());
    for (builder, says) in [
        (new().url(&url).host("h"), "both a URL and `host`"),
        (new().url(&url).port(1), "both a URL and `port`"),
        (new().url(&url).db(1), "both a URL and `db`"),
        (new().url(&url).tls(false), "both a URL and `tls`"),
        (new().url(&url).password(WRONG), "in one place"),
        (new().url("memory://").host("h"), "both a URL and `host`"),
        (new().url("memory://").password(SECRET), "cannot be used with `memory://`"),
        (new().port(6379), "`port` is set without `host`"),
        (new().password(SECRET), "`password` is set without `host`"),
        (new().host("h").username("app"), "`username` is set without `password`"),
        (new().host("redis://h"), "a name or an address alone"),
    ] {
        let error = contradiction(builder).await;
        assert!(error.contains(says), "{error}");
    }
}
