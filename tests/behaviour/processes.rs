//! The races between processes, with real processes on a real Redis. Each process is this binary,
//! started for one test and given commands line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use cache_core::{Cache, cached};
use support::{Gate, RedisServer};

const URL: &str = "CACHE_CORE_TEST_NODE";
/// A lease short enough to wait for, and long enough for a busy machine to renew.
const LEASE: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(20);

#[cached(name = "row", ttl = 60, key = "7", skip(cache, gate, text), tags("rows"), cache = &cache)]
async fn row(cache: Cache, gate: Gate, text: String) -> Result<String, String> {
    let _ = &cache;
    gate.pass().await;
    if text == "error" { Err(text) } else { Ok(text) }
}

/// Past its ttl almost immediately, and then refreshed in the background.
#[cached(name = "due", ttl = "40ms", stale_while_revalidate = "1h", early = false, key = "7", skip(cache, gate, text), tags("rows"), cache = &cache)]
async fn due(cache: Cache, gate: Gate, text: String) -> Result<String, String> {
    let _ = &cache;
    gate.pass().await;
    Ok(text)
}

/// Has the same namespace and tag versions as `row`. Reading it loads them again after a lost link.
#[cached(name = "row", ttl = 60, key = "other", skip(cache, text), tags("rows"), cache = &cache)]
async fn other_row(cache: Cache, text: String) -> Result<String, String> {
    let _ = &cache;
    Ok(text)
}

/// Runs in the started process: executes the commands on standard input and reports on standard
/// output.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    let Ok(url) = std::env::var(URL) else { return };
    let cache = Cache::builder().url(url).lease(LEASE).connect().await.unwrap();
    let gate = Gate::shut();
    say("ready");
    let mut lines = lines_of_standard_input();
    while let Some(line) = lines.recv().await {
        let (command, text) = line.split_once(' ').unwrap_or((&line, ""));
        let text = text.to_owned();
        let entry = row::entry().on(&cache);
        match command {
            "start" => {
                let (cache, gate) = (cache.clone(), gate.clone());
                tokio::spawn(async move {
                    match row(cache, gate, text).await {
                        Ok(value) => say(&format!("returned {value}")),
                        Err(error) => say(&format!("failed {error}")),
                    }
                });
            }
            "arrival" => {
                gate.arrival().await;
                say("arrived");
            }
            "pass" => gate.let_through(1),
            "read" => say(&format!("read {}", row(cache.clone(), Gate::open(), text).await.unwrap())),
            "other" => say(&format!("other {}", other_row(cache.clone(), text).await.unwrap())),
            // Waits until the local tier of this process answers.
            "keep" => {
                support::eventually("it is kept", || async {
                    let hits = cache.stats().local_hits;
                    row(cache.clone(), Gate::open(), text.clone()).await.unwrap();
                    cache.stats().local_hits > hits
                })
                .await;
                say("kept");
            }
            // Waits until it has connected this many times.
            "connected" => {
                let times: u64 = text.parse().unwrap();
                support::eventually("the link is back", || async {
                    cache.stats().connects >= times && cache.is_available()
                })
                .await;
                say("linked");
            }
            "set" => {
                entry.set(text).await.unwrap();
                say("done");
            }
            "invalidate" => {
                entry.invalidate().await.unwrap();
                say("done");
            }
            "tag" => {
                cache.invalidate_tag(text).await.unwrap();
                say("done");
            }
            "clear" => {
                cache.clear().await.unwrap();
                say("done");
            }
            "function" => {
                row::invalidate_all(&cache).await.unwrap();
                say("done");
            }
            "due" => say(&format!("due {}", due(cache.clone(), Gate::open(), text).await.unwrap())),
            // Waits until a refresh is at the gate.
            "refresh" => {
                let before = cache.stats().refreshes;
                support::eventually("a refresh", || async {
                    due(cache.clone(), gate.clone(), text.clone()).await.unwrap();
                    cache.stats().refreshes > before
                })
                .await;
                gate.arrival().await;
                say("refreshes");
            }
            // Waits until that refresh has stored its value or was refused.
            "refreshed" => {
                let ended = |stats: cache_core::events::Stats| stats.fills + stats.refused_fills;
                let before = ended(cache.stats());
                gate.let_through(1);
                support::eventually("it ends", || async { ended(cache.stats()) > before }).await;
                say("ended");
            }
            "set-due" => {
                due::entry().on(&cache).set(text).await.unwrap();
                say("done");
            }
            // Starts readers that never stop, concurrent with everything else.
            "readers" => {
                for _ in 0..4 {
                    let (cache, text) = (cache.clone(), text.clone());
                    tokio::spawn(async move {
                        loop {
                            row(cache.clone(), Gate::open(), text.clone()).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                    });
                }
                say("reading");
            }
            // Writes many times in sequence.
            "writes" => {
                for number in 0..100 {
                    entry.clone().set(format!("{text}{number}")).await.unwrap();
                }
                say("written");
            }
            "waiting" => {
                support::eventually("a call waits", || async { cache.stats().waited > 0 }).await;
                say("waits");
            }
            "runs" => say(&format!("runs {}", cache.stats().computes)),
            "key" => say(&format!("key {}", entry.key())),
            other => panic!("{other}"),
        }
    }
}

/// Reading blocks, so it has a thread of its own.
fn lines_of_standard_input() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[expect(clippy::print_stdout, reason = "read by the test that started this process")]
fn say(text: &str) {
    println!("> {text}");
}

/// A separate process on the server.
struct Process {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl Process {
    fn start(server: &RedisServer) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "behaviour::processes::node", "--nocapture", "--test-threads=1"])
            .env(URL, server.url());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, told)) = line.split_once("> ") {
                    drop(sender.send(told.to_owned()));
                }
            }
        });
        let process = Self { child, input, output: receiver };
        process.tells("ready");
        process
    }

    fn send(&mut self, line: &str) -> &mut Self {
        writeln!(self.input, "{line}").unwrap();
        self
    }

    fn told(&self) -> String {
        self.output.recv_timeout(PATIENCE).expect("the process answers")
    }

    #[track_caller]
    fn tells(&self, text: &str) {
        assert_eq!(self.told(), text);
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Kills this child only. It would also end by itself when its input ends.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn two() -> (RedisServer, Process, Process) {
    let server = RedisServer::start();
    let (one, other) = (Process::start(&server), Process::start(&server));
    (server, one, other)
}

#[test]
// R1
fn an_invalidation_by_another_process_kills_the_fill_in_flight() {
    let (_server, mut one, mut other) = two();
    one.send("start v1").send("arrival").tells("arrived");
    other.send("invalidate").tells("done");
    one.send("pass").tells("returned v1");
    other.send("read v2").tells("read v2");
    one.send("read v3").tells("read v2");
}

#[test]
// R1
fn a_key_deleted_at_a_prompt_kills_the_fill_in_flight() {
    let (server, mut one, mut other) = two();
    one.send("key");
    let key = one.told().trim_start_matches("key ").to_owned();
    one.send("start v1").send("arrival").tells("arrived");
    assert_eq!(server.cli(&["DEL", &key]).trim(), "1");
    one.send("pass").tells("returned v1");
    other.send("read v2").tells("read v2");
}

#[test]
// R2, R5
fn a_set_by_another_process_stays_whatever_an_older_run_returns() {
    let (_server, mut one, mut other) = two();
    one.send("start v1").send("arrival").tells("arrived");
    other.send("set v2").tells("done");
    one.send("pass").tells("returned v1");
    one.send("read v3").tells("read v2");
    other.send("read v3").tells("read v2");
}

#[test]
// X1, X2
fn one_process_runs_and_the_other_is_woken_with_its_value() {
    let (_server, mut one, mut other) = two();
    one.send("start v1").send("arrival").tells("arrived");
    other.send("start v2").send("waiting").tells("waits");
    one.send("pass").tells("returned v1");
    other.tells("returned v1");
    other.send("runs").tells("runs 0");
}

#[test]
// X3, R11
fn a_killed_holder_is_followed_by_the_one_that_waits() {
    let (_server, mut one, mut other) = two();
    one.send("start v1").send("arrival").tells("arrived");
    other.send("start v2").send("waiting").tells("waits");
    one.kill();
    other.send("arrival").tells("arrived");
    other.send("pass").tells("returned v2");
    other.send("read v3").tells("read v2");
}

#[test]
// X4, R13
fn a_slow_holder_that_lives_keeps_its_lease() {
    let (server, mut one, mut other) = two();
    one.send("start v1").send("arrival").tells("arrived");
    other.send("start v2").send("waiting").tells("waits");
    one.send("key");
    let key = one.told().trim_start_matches("key ").to_owned();
    // Three times the length of the lease, counted by the server's renewals, which happen every
    // third of a lease.
    let renewals = || server.commandstats().get("pexpire").copied().unwrap_or(0);
    let (begin, mut checks) = (renewals(), 0);
    while renewals() < begin + 9 {
        assert_eq!(server.cli(&["EXISTS", &key]).trim(), "1", "the lease is held all the time");
        checks += 1;
        assert!(checks < 100_000, "the lease is renewed");
    }
    one.send("pass").tells("returned v1");
    other.tells("returned v1");
}

#[test]
// X5, R10, R12
fn a_lost_lease_stores_nothing_and_releases_nothing() {
    for end in ["start v1", "start error"] {
        let (server, mut one, mut other) = two();
        one.send("key");
        let key = one.told().trim_start_matches("key ").to_owned();
        one.send(end).send("arrival").tells("arrived");
        // As if the process had been stopped for longer than its lease: the other takes over.
        server.cli(&["DEL", &key]);
        other.send("start v2").send("arrival").tells("arrived");
        one.send("pass").told();
        assert!(server.cli(&["GET", &key]).starts_with('L'), "the lease of the other is held");
        other.send("pass").tells("returned v2");
        one.send("read v3").tells("read v2");
    }
}

#[test]
// R9, T5, I2
fn a_write_reaches_the_tier_of_the_other_process() {
    let (_server, mut one, mut other) = two();
    for round in 0..50 {
        let text = format!("v{round}");
        one.send(&format!("set {text}")).tells("done");
        one.send("read computed").tells(&format!("read {text}"));
        // A push takes a moment. Then the tier of the other process has the new value as well.
        let mut reads = 0;
        loop {
            other.send("read computed");
            if other.told() == format!("read {text}") {
                break;
            }
            reads += 1;
            assert!(reads < 10_000, "the write arrives");
        }
    }
}

/// Reads until it gets `wanted`, and fails if it gets `never`.
fn comes_to(process: &mut Process, command: &str, wanted: &str, never: &str) {
    for _ in 0..10_000 {
        process.send(command);
        let told = process.told();
        assert!(never.is_empty() || !told.ends_with(never), "{command}: {told}");
        if told.ends_with(wanted) {
            return;
        }
    }
    panic!("{command} never came to {wanted}");
}

#[test]
// R3, R4
fn an_invalidation_of_many_by_another_process_kills_the_fill_in_flight() {
    let (_server, mut one, mut other) = two();
    for (round, invalidate) in ["clear", "function", "tag rows"].into_iter().enumerate() {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        one.send(&format!("start {old}")).send("arrival").tells("arrived");
        other.send(invalidate).tells("done");
        one.send("pass").tells(&format!("returned {old}"));
        other.send(&format!("read {new}")).tells(&format!("read {new}"));
        comes_to(&mut one, "read never", &new, &old);
        other.send("invalidate").tells("done");
        comes_to(&mut one, "read between", "between", &old);
        // Invalidated by itself: a push from the other process might come after the next round has
        // begun.
        one.send("invalidate").tells("done");
    }
}

#[test]
// R4: in the background.
fn an_invalidation_by_another_process_kills_the_refresh_in_the_background() {
    let (_server, mut one, mut other) = two();
    for (round, invalidate) in ["tag rows", "clear"].into_iter().enumerate() {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        one.send(&format!("due {old}")).told();
        one.send(&format!("refresh {old}")).tells("refreshes");
        other.send(invalidate).tells("done");
        one.send("refreshed").tells("ended");
        other.send(&format!("due {new}")).tells(&format!("due {new}"));
        comes_to(&mut one, &format!("due {new}"), &new, "never");
    }
}

#[test]
// R5
fn a_refresh_in_the_background_does_not_overwrite_what_another_process_set() {
    let (_server, mut one, mut other) = two();
    one.send("due v1").tells("due v1");
    one.send("refresh stale").tells("refreshes");
    other.send("set-due v2").tells("done");
    one.send("refreshed").tells("ended");
    other.send("due v2").tells("due v2");
    comes_to(&mut one, "due v2", "v2", "stale");
}

#[test]
// R6
fn readers_in_one_process_keep_nothing_that_the_other_has_replaced() {
    let (_server, mut one, mut other) = two();
    one.send("readers computed").tells("reading");
    other.send("writes a").tells("written");
    comes_to(&mut one, "read computed", "a99", "");
    for _ in 0..100 {
        one.send("read computed").tells("read a99");
    }
}

#[test]
// R7
fn what_is_deleted_while_the_link_of_a_process_is_lost_is_not_served_by_it() {
    let (server, mut one, _other) = two();
    one.send("key");
    let key = one.told().trim_start_matches("key ").to_owned();
    for round in 1..=10 {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        one.send(&format!("set {old}")).tells("done");
        one.send("keep computed").tells("kept");
        // The following change is pushed to no connection: the old link is gone, and the new one
        // has not requested anything yet.
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        server.cli(&["DEL", &key]);
        one.send(&format!("connected {}", round + 1)).tells("linked");
        // The versions still exist and are loaded again. By versions alone, the old value would be
        // served.
        one.send("other computed").tells("other computed");
        one.send(&format!("read {new}")).tells(&format!("read {new}"));
    }
}

#[test]
// R8
fn two_processes_that_write_one_key_at_once_end_with_one_value() {
    let (_server, mut one, mut other) = two();
    for process in [&mut one, &mut other] {
        process.send("readers computed").tells("reading");
    }
    one.send("writes a");
    other.send("writes b");
    one.tells("written");
    other.tells("written");
    let last = |process: &mut Process| {
        process.send("read computed");
        process.told()
    };
    // Pushes take a moment.
    let agree = (0..10_000).any(|_| last(&mut one) == last(&mut other));
    assert!(agree, "each keeps its own value");
    let value = last(&mut one);
    assert!(value.ends_with("99"), "{value}");
    for _ in 0..100 {
        assert_eq!((last(&mut one), last(&mut other)), (value.clone(), value.clone()));
    }
}
