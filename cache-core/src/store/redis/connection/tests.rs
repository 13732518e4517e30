//! The connection with a server that changes the clock before it answers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::store::supervisor::Supervised;

const HOUR: Duration = Duration::from_secs(3600);

/// Called with the name of each command, before its answer is sent.
type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// Makes a link to a server that answers the commands of a connection and its heartbeats.
fn link(clock: &Clock, background: &Arc<Background>, hook: impl Fn(&str) + Send + Sync + 'static) -> Arc<Link> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = RedisConfig::parse(&format!("redis://{}", listener.local_addr().unwrap())).unwrap();
    let hook: Hook = Arc::new(hook);
    // Each test has one connection, and the thread ends with it.
    std::thread::spawn(move || serve(listener.accept().unwrap().0, &hook));
    Arc::new(Link::new(config, clock.clone(), Events::new(Vec::new(), clock), background).unwrap())
}

fn serve(mut stream: TcpStream, hook: &Hook) {
    let mut unread = Vec::new();
    loop {
        while let Some((command, length)) = command(&unread) {
            unread.drain(..length);
            hook(&command);
            stream.write_all(&answer(&command)).unwrap();
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(read) => unread.extend_from_slice(&bytes[..read]),
        }
    }
}

/// Returns the first command's name and length in bytes; `None` if it is not complete yet.
fn command(bytes: &[u8]) -> Option<(String, usize)> {
    let line = |from: usize| {
        let end = from + bytes.get(from..)?.windows(2).position(|end| end == b"\r\n")?;
        let number = std::str::from_utf8(&bytes[from + 1..end]).unwrap().parse::<usize>().unwrap();
        Some((number, end + 2))
    };
    let (words, mut at) = line(0)?;
    let mut name = None;
    for _ in 0..words {
        let (length, from) = line(at)?;
        let word = bytes.get(from..from + length + 2)?;
        name.get_or_insert_with(|| String::from_utf8_lossy(&word[..length]).to_uppercase());
        at = from + length + 2;
    }
    Some((name?, at))
}

fn answer(command: &str) -> Vec<u8> {
    match command {
        "HELLO" => b"%1\r\n+proto\r\n:3\r\n".to_vec(),
        "TIME" => b"*2\r\n$10\r\n1767225600\r\n$1\r\n0\r\n".to_vec(),
        "INFO" => b"$20\r\nredis_version:7.0.15\r\n".to_vec(),
        _ => b"+OK\r\n".to_vec(),
    }
}

/// What the server does at each TIME.
#[derive(Clone)]
struct AtTime(Arc<Mutex<Box<dyn Fn() + Send>>>);

impl AtTime {
    fn nothing() -> Self {
        Self(Arc::new(Mutex::new(Box::new(|| {}))))
    }

    fn set(&self, what: impl Fn() + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(what);
    }

    fn link(&self, clock: &Clock, background: &Arc<Background>) -> Arc<Link> {
        let at_time = self.clone();
        link(clock, background, move |command| {
            if command == "TIME" {
                at_time.0.lock().unwrap()();
            }
        })
    }
}

/// Connects, and publishes the session.
async fn open(link: &Arc<Link>) -> (Supervised<Link>, Arc<Session>) {
    let mut supervised = Supervised::new(Arc::clone(link), link.config.max_staleness);
    supervised.open().await.unwrap();
    (supervised, link.session("test").await.unwrap())
}

#[tokio::test]
// R7
async fn trust_counts_from_when_the_answered_request_was_sent() {
    let (clock, at_time, background) = (Clock::manual(), AtTime::nothing(), Arc::new(Background::new()));
    let link = at_time.link(&clock, &background);
    let bound = millis(link.config.max_staleness);
    let late = clock.clone();
    at_time.set(move || late.advance(Duration::from_millis(300)));

    let asked = clock.coarse();
    let (mut supervised, session) = open(&link).await;
    assert_eq!((link.trust.until(), clock.coarse()), (asked + bound, asked + 300), "set-up");

    let asked = clock.coarse();
    supervised.beat(&session).await.unwrap();
    assert_eq!((link.trust.until(), clock.coarse()), (asked + bound, asked + 300), "heartbeat");
}

#[tokio::test]
// R7
async fn a_machine_that_has_slept_trusts_nothing_from_before() {
    let (clock, at_time, background) = (Clock::manual(), AtTime::nothing(), Arc::new(Background::new()));
    let link = at_time.link(&clock, &background);
    let bound = millis(link.config.max_staleness);
    let (mut supervised, session) = open(&link).await;
    supervised.beat(&session).await.unwrap();
    let gaps = link.pushes.epoch();

    // Before the heartbeat: a gap, and trust again from the answer on.
    clock.suspend(HOUR);
    supervised.beat(&session).await.unwrap();
    assert_eq!((link.pushes.epoch(), link.trust.until()), (gaps + 1, clock.coarse() + bound));

    // Between its request and the answer, which proves nothing about notifications in the meantime.
    let asleep = clock.clone();
    at_time.set(move || asleep.suspend(HOUR));
    supervised.beat(&session).await.unwrap();
    assert_eq!((link.pushes.epoch(), link.trust.until()), (gaps + 2, 0));

    at_time.set(|| {});
    supervised.beat(&session).await.unwrap();
    assert_eq!((link.pushes.epoch(), link.trust.until()), (gaps + 2, clock.coarse() + bound));
}

#[tokio::test]
// R14
async fn a_node_uses_the_servers_time_whatever_its_wall_clock_shows() {
    let (clock, at_time, background) = (Clock::manual(), AtTime::nothing(), Arc::new(Background::new()));
    let link = at_time.link(&clock, &background);
    let _open = open(&link).await;
    let now = link.now();
    assert_eq!(now, Timestamp::from_millis(1_767_225_600_000));
    clock.set_wall_forward(HOUR);
    assert_eq!(link.now(), now);
    clock.set_wall_back(HOUR * 2);
    assert_eq!(link.now(), now);
    clock.advance(HOUR);
    assert_eq!(link.now(), now.plus(HOUR));
}
