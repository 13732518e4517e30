//! A view counter in the session: ours compared with Express with connect-redis, and with
//! tower-sessions with its Redis store.
//!
//! Each round takes `BENCH_SECONDS` (2). There are `BENCH_ROUNDS` (5) rounds, in which the
//! applications take turns. The output is requests a second, the ratio to the first application,
//! and the number of acknowledged increments that are missing from the sessions afterwards. Needs
//! Node and the packages of the Express peer, which `tests/interop/install` installs.

#![allow(dead_code, reason = "shared with other benches")]

#[path = "../../../cache-core/benches/harness.rs"]
mod harness;

use std::time::Duration;

use harness::{median, runtime};
use peers::server::RedisServer;
use peers::sessions::{self, Application, CONNECTIONS, Round};

const SESSIONS: [usize; 2] = [1, 2_000];

fn main() {
    let redis = RedisServer::start();
    let url = redis.url();
    let contenders = sessions::applications(&url, true);
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(f64::clamp(seconds, 0.1, 60.0));
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5).max(1);
    let load = runtime();
    for count in SESSIONS {
        let cookies: Vec<Vec<String>> =
            contenders.iter().map(|contender| load.block_on(sessions::begin(contender, count))).collect();
        let mut results: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for turn in 0..contenders.len() {
                let which = (round + turn) % contenders.len();
                let result = load.block_on(sessions::run(&contenders[which], &cookies[which], time, None));
                // The first round is a warm-up.
                if round > 0 {
                    results[which].push(result);
                }
            }
        }
        print(count, &contenders, &results);
    }
}

fn print(sessions: usize, contenders: &[Application], results: &[Vec<Round>]) {
    println!("\nview counter, {CONNECTIONS} connections, {sessions} session(s), {} rounds", results[0].len());
    for (contender, rounds) in contenders.iter().zip(results) {
        let ratios = rounds.iter().zip(&results[0]).map(|(own, express)| own.per_second / express.per_second);
        let ratio = median(ratios.collect());
        let per_second = median(rounds.iter().map(|round| round.per_second).collect());
        let acknowledged: u64 = rounds.iter().map(|round| round.acknowledged).sum();
        let lost: u64 = rounds.iter().map(|round| round.lost).sum();
        println!("  {:<40} {per_second:>8.0}/s   x{ratio:<5.2} {lost:>8} of {acknowledged} lost", contender.name);
    }
}
