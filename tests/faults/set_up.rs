//! Typical configurations: some work as with other clients, the others produce an error that names
//! the necessary change.

use std::sync::{Arc, Mutex};

use cache_core::events::Event;
use cache_core::{Cache, ErrorKind, cached};
use support::{PATIENT, RedisServer, eventually};
use tokio::runtime::Builder;

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn doubled(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id * 2
}

// D1: the error of an operation without a connection names the address and the cause.
#[tokio::test]
async fn an_operation_without_a_connection_names_the_address_and_the_cause() {
    let server = RedisServer::builder().password("hunter2").start();
    server.kill();
    // A `String`, as from an environment variable.
    let cache = Cache::connect(server.url()).await.unwrap();
    let says = |error: &cache_core::Error| {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(text.contains(&format!("redis://:***@127.0.0.1:{}/0", server.port())), "{text}");
        assert!(!format!("{error:?}").contains("hunter2"));
        text
    };
    let error = cache.invalidate_tag("t").await.unwrap_err();
    assert!(says(&error).contains("refused"), "{error}");
    server.restart();
    eventually("it connects", || async { cache.is_available() }).await;
    server.kill();
    eventually("it is lost", || async { !cache.is_available() }).await;
    says(&cache.invalidate_tag("t").await.unwrap_err());
}

// D1
#[tokio::test]
async fn a_required_store_that_is_down_fails_the_start() {
    let server = RedisServer::start();
    let connect = || Cache::builder().url(format!("{}?{PATIENT}", server.url())).require_store().connect();
    assert!(connect().await.unwrap().is_available());
    server.kill();
    let error = connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains(&format!("redis://127.0.0.1:{}/0", server.port())) && text.contains("refused"), "{text}");
    // An embedded store is always available.
    assert!(Cache::builder().url("Memory://").require_store().connect().await.unwrap().is_available());
}

// D1: configuration files have empty settings.
#[tokio::test]
async fn an_empty_user_or_password_is_none() {
    let server = RedisServer::start();
    let builder = Cache::builder().host("127.0.0.1").port(server.port()).username("").password("").require_store();
    assert!(builder.connect().await.unwrap().is_available());
    let builder = Cache::builder().url(format!("redis://:@127.0.0.1:{}/", server.port())).password("").require_store();
    assert!(builder.connect().await.unwrap().is_available());
    assert!(Cache::builder().url("memory://").password("").connect().await.is_ok());
}

// D1: the hint names what the program has used.
#[tokio::test]
async fn hints_name_the_methods_or_the_url_as_the_address_was_given() {
    let server = RedisServer::builder().password("secret").start();
    let parts = || Cache::builder().host("127.0.0.1").port(server.port());
    let text = async |builder: cache_core::CacheBuilder| builder.connect().await.unwrap_err().to_string();
    for error in [text(parts()).await, text(parts().password("wrong")).await] {
        assert!(error.contains("`.password(..)`") && !error.contains("redis://"), "{error}");
    }
    for login in ["", ":wrong@"] {
        let error = text(Cache::builder().url(format!("redis://{login}127.0.0.1:{}", server.port()))).await;
        assert!(error.contains("`redis://") && !error.contains(".password("), "{error}");
    }
}

// D1: an option of another client's URL does not prevent a start.
#[tokio::test]
async fn an_option_of_another_client_is_reported_and_not_an_error() {
    let server = RedisServer::start();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let url = server.url().replace("redis://", "Valkey://");
    let builder = Cache::builder().url(format!("{url}?protocol=resp2&{PATIENT}")).on_event(move |event| {
        if let Event::UrlOptionIgnored { option } = event {
            seen.lock().unwrap().push(*option);
        }
    });
    assert!(builder.connect().await.unwrap().is_available());
    assert_eq!(*told.lock().unwrap(), ["protocol"]);
}

// D1: a proxy, or an old server.
#[tokio::test]
async fn a_server_that_refuses_hello_is_an_error_with_the_requirement() {
    for refusal in ["-ERR unsupported command\r\n", "-ERR unknown command 'HELLO'\r\n", "-NOPROTO no\r\n"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut asked = [0; 4096];
                while let Ok(read @ 1..) = tokio::io::AsyncReadExt::read(&mut socket, &mut asked).await {
                    // Each command is an array.
                    let commands = asked[..read].iter().filter(|byte| **byte == b'*').count();
                    let answer = refusal.repeat(commands);
                    drop(tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await);
                }
            }
        });
        let error = Cache::connect(format!("redis://127.0.0.1:{port}/?{PATIENT}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        let text = error.to_string();
        assert!(text.contains("RESP3") && text.contains("proxy") && text.contains("Redis 7.0"), "{text}");
    }
}

// D9: the requirements on the runtime are reported in a sentence.
#[test]
fn without_a_runtime_that_has_timers_and_io_connect_says_what_to_build() {
    let url = "redis://127.0.0.1:1/";
    let error = futures::executor::block_on(Cache::connect(url)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("`#[tokio::main]`"), "{error}");
    let runtimes = [
        Builder::new_current_thread().build(),
        Builder::new_current_thread().enable_io().build(),
        Builder::new_current_thread().enable_time().build(),
    ];
    for runtime in runtimes {
        let error = runtime.unwrap().block_on(Cache::connect(url)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("`.enable_all()`"), "{error}");
    }
}

/// Returns the panic message of `run`, if it panics.
fn panic_of(run: impl FnOnce()) -> Option<String> {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

// D9: a cached function works there, or reports what it needs.
#[test]
fn a_cached_function_works_outside_a_runtime_and_says_what_one_without_timers_lacks() {
    let cache = Cache::in_memory();
    // Outside a runtime, the caller drives the run, without a deadline.
    assert_eq!(futures::executor::block_on(doubled(&cache, 1)), 2);
    let runtime = Builder::new_current_thread().build().unwrap();
    let without_timers = panic_of(|| assert_eq!(runtime.block_on(doubled(&cache, 2)), 4));
    let text = without_timers.expect("the deadline of a run is a timer");
    assert!(text.contains("`.enable_all()`"), "{text}");
}

// S10, D2: an observer that panics when the connection is lost does not prevent a reconnect.
#[tokio::test]
async fn an_observer_that_panics_at_a_loss_ends_no_connection() {
    let server = RedisServer::start();
    let builder = Cache::builder().url(server.url()).on_event(|event| {
        assert!(!matches!(event, Event::Disconnected { .. } | Event::ConnectFailed { .. }), "a test of panics");
    });
    let cache = builder.connect().await.unwrap();
    server.kill();
    eventually("it is lost", || async { !cache.is_available() }).await;
    server.restart();
    eventually("it comes back", || async { cache.is_available() }).await;
    assert_eq!((doubled(&cache, 1).await, doubled(&cache, 1).await), (2, 2));
}
