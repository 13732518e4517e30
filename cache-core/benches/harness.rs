//! Measures contenders against each other in turns, so that noise of the machine affects all of
//! them alike.
//!
//! A round runs each contender once. A cell shows the median over the rounds; the ratio is the
//! median of the rounds' ratios to the first contender. Each round runs at another stack depth,
//! which can cost one contender a third and not the next (Mytkowicz et al., "Producing wrong data
//! without doing anything obviously wrong!", 2009). Neither criterion nor divan does this.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a contender that many times, on one thread.
type Run = Arc<dyn Fn(usize) + Send + Sync>;

/// The contenders for one question.
pub struct Contest {
    title: String,
    contenders: Vec<(String, Run)>,
}

impl Contest {
    /// Makes a contest without contenders. The others are compared with the first one entered.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), contenders: Vec::new() }
    }

    /// Adds a contender; `run(times)` runs it that many times. If the program has an argument, only
    /// contenders whose names contain it are added.
    pub fn enter(mut self, name: &str, run: impl Fn(usize) + Send + Sync + 'static) -> Self {
        if wanted().is_none_or(|wanted| name.contains(&wanted)) {
            self.contenders.push((name.to_owned(), Arc::new(run)));
        }
        self
    }

    /// Prints a row for each contender: the time of one run, as one thread sees it while `threads`
    /// threads do the same, and the CPU time that this process spent on it.
    pub fn hold(&self, threads: usize, times: usize) {
        if self.contenders.is_empty() {
            return;
        }
        let rounds = rounds();
        let mut taken = vec![Vec::with_capacity(rounds); self.contenders.len()];
        let mut worked = taken.clone();
        for (_, run) in &self.contenders {
            // Warm-up: maps the memory and fills the caches.
            on_threads(threads, times / 4 + 1, run, 0);
        }
        for round in 0..rounds {
            for turn in 0..self.contenders.len() {
                let which = (round + turn) % self.contenders.len();
                let before = cpu();
                let elapsed = on_threads(threads, times, &self.contenders[which].1, round);
                let all = (times * threads) as f64;
                worked[which].push(cpu().saturating_sub(before).as_secs_f64() * 1e6 / all);
                taken[which].push(elapsed.as_secs_f64() * 1e9 / times as f64);
            }
        }
        println!("\n{}, {threads} thread(s), {rounds} rounds of {times}", self.title);
        for (((name, _), own), worked) in self.contenders.iter().zip(&taken).zip(worked) {
            let ratios = own.iter().zip(&taken[0]).map(|(own, first)| own / first).collect();
            let least = own.iter().copied().fold(f64::INFINITY, f64::min);
            let (middle, ratio) = (median(own.clone()), median(ratios));
            let worked = median(worked);
            println!("  {name:<44} {middle:>9.1} ns  (least {least:>9.1})   x{ratio:.2}   cpu {worked:.2} us");
        }
    }
}

fn on_threads(threads: usize, times: usize, run: &Run, round: usize) -> Duration {
    // About two hundred bytes each. A prime, so that the rounds are spread over a page.
    let depth = round * 7 % 19;
    if threads == 1 {
        return deeper(depth, &|| timed(times, run));
    }
    let barrier = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (run, barrier) = (Arc::clone(run), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                deeper(depth, &|| timed(times, &run))
            })
        })
        .collect();
    let times = workers.into_iter().map(|worker| worker.join().expect("a contender ran"));
    times.max().unwrap_or_default()
}

/// Returns the CPU time of this process so far.
#[cfg(target_os = "linux")]
fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
fn cpu() -> Duration {
    Duration::ZERO
}

fn timed(times: usize, run: &Run) -> Duration {
    let started = Instant::now();
    run(times);
    started.elapsed()
}

#[inline(never)]
fn deeper(depth: usize, then: &dyn Fn() -> Duration) -> Duration {
    let room = black_box([0_u8; 176]);
    let elapsed = if depth == 0 { then() } else { deeper(depth - 1, then) };
    black_box(&room);
    elapsed
}

/// Returns the filter given as `cargo bench -- <part of a name>`.
fn wanted() -> Option<String> {
    std::env::args().skip(1).find(|argument| !argument.starts_with('-'))
}

/// Returns `BENCH_ROUNDS`; 15 by default.
pub fn rounds() -> usize {
    std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(15).max(1)
}

/// Returns the median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Makes a runtime for the calling thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
