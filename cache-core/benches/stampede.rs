//! How much do concurrent callers of a cold key cost: how often does the function run, and how long
//! does the last caller wait beyond the run itself?
//!
//! Measured with 1,000 callers in one process, and with 1,000 in each of four. Starts its own
//! `redis-server`.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a benchmark: it reads the clock, prints, and panics on errors"
)]

mod harness;
#[path = "../../tests/support/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache_core::{Cache, cached};
use server::RedisServer;

const CALLERS: usize = 1_000;
const COMPUTE: Duration = Duration::from_millis(50);
const ROUNDS: u64 = 7;

static COMPUTES: AtomicUsize = AtomicUsize::new(0);

#[cached(ttl = "1h")]
async fn report(round: u64) -> String {
    COMPUTES.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(COMPUTE).await;
    format!("report {round}")
}

fn main() {
    // Set in child processes: the URL of the server they share.
    if let Ok(url) = std::env::var("BENCH_STAMPEDE") {
        return child(&url);
    }
    for processes in [1, 4] {
        let server = RedisServer::start();
        let mut children: Vec<_> = (0..processes).map(|_| Process::start(&server.url())).collect();
        let mut over = Vec::new();
        let mut computes = Vec::new();
        for round in 0..ROUNDS {
            children.iter_mut().for_each(|child| child.begin(round));
            let told: Vec<_> = children.iter_mut().map(Process::end).collect();
            computes.push(told.iter().map(|(computes, _)| computes).sum::<usize>());
            over.push(told.iter().map(|(_, over)| *over).fold(0.0, f64::max));
        }
        println!(
            "{processes} process(es) x {CALLERS} callers, {ROUNDS} cold keys: computes {computes:?}, \
             last caller after the compute {:.1} ms (worst {:.1} ms)",
            harness::median(over.clone()),
            over.iter().copied().fold(0.0, f64::max),
        );
    }
}

/// Reads round numbers, and answers each with
/// `<computes> <milliseconds of the last caller beyond the compute>`.
fn child(url: &str) {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = threads.expect("a runtime");
    Cache::install(runtime.block_on(Cache::connect(url)).expect("a cache")).expect("the first");
    println!("ready");
    for line in std::io::stdin().lines() {
        let round = line.expect("a line").parse().expect("a round");
        let before = COMPUTES.load(Ordering::Relaxed);
        let started = Instant::now();
        let last = runtime.block_on(async {
            let callers = (0..CALLERS).map(|_| {
                tokio::spawn(async move {
                    report(round).await;
                    started.elapsed()
                })
            });
            let callers: Vec<_> = callers.collect();
            let mut last = Duration::ZERO;
            for caller in callers {
                last = last.max(caller.await.expect("a caller"));
            }
            last
        });
        let over = last.saturating_sub(COMPUTE).as_secs_f64() * 1e3;
        println!("{} {over}", COMPUTES.load(Ordering::Relaxed) - before);
    }
}

struct Process {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env("BENCH_STAMPEDE", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, answers };
        assert_eq!(process.line(), "ready");
        process
    }

    fn begin(&mut self, round: u64) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{round}").expect("the process listens");
    }

    fn end(&mut self) -> (usize, f64) {
        let line = self.line();
        let (computes, over) = line.split_once(' ').expect("two numbers");
        (computes.parse().expect("a number"), over.parse().expect("a number"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the process answers");
        line.trim_end().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing its input makes it exit.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}
