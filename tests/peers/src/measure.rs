//! Measures contenders in interleaved rounds: each round runs every contender once, and each round
//! starts with another one, so noise of the machine affects all of them alike.
//!
//! Each round runs at another stack depth, because the depth alone can cost one contender a third
//! and not the next.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::server::RedisServer;

/// How many rounds to run, and how long a contender takes in each.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    pub slice: Duration,
}

impl Plan {
    /// Returns the plan of the published numbers.
    pub fn full() -> Self {
        Self { rounds: 9, slice: Duration::from_millis(120) }
    }

    /// Returns the plan of a short run, to see whether everything works.
    pub fn quick() -> Self {
        Self { rounds: 3, slice: Duration::from_millis(30) }
    }
}

/// The median, the lowest and the highest of some values.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Returns the spread of these values.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), min: at(0), max: at(sorted.len().saturating_sub(1)) }
    }
}

/// What one contender took for one operation. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Line {
    pub name: String,
    pub time: Spread,
    /// The ratio to the first contender of the contest: the median over the rounds.
    pub ratio: Spread,
    pub client: f64,
    pub server: Option<f64>,
    /// What else there is to say, such as the number of computes.
    pub note: String,
}

/// The results of one contest.
#[derive(Debug, Clone)]
pub struct Results {
    pub title: String,
    pub lines: Vec<Line>,
}

/// The contenders for one question.
pub struct Contest<'a> {
    title: String,
    server: Option<&'a ServerClock>,
    threads: usize,
    grain: usize,
    contenders: Vec<(String, Box<dyn Fn(usize) + 'a>)>,
}

impl<'a> Contest<'a> {
    /// Makes a contest without contenders. The first one entered is the baseline.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), server: None, threads: 1, grain: 1, contenders: Vec::new() }
    }

    /// Sets the server whose CPU time is measured too.
    #[must_use]
    pub fn server(mut self, clock: &'a ServerClock) -> Self {
        self.server = Some(clock);
        self
    }

    /// Sets how many threads run each contender at the same time.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Makes the number of operations of a round a multiple of `grain`.
    #[must_use]
    pub fn grain(mut self, grain: usize) -> Self {
        self.grain = grain.max(1);
        self
    }

    /// Adds a contender; `run(times)` does that many operations.
    #[must_use]
    pub fn enter(mut self, name: &str, run: impl Fn(usize) + Send + Sync + 'a) -> Self {
        let threads = self.threads;
        let run = move |times: usize| {
            if threads == 1 {
                return run(times);
            }
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| run(times));
                }
            });
        };
        self.contenders.push((name.to_owned(), Box::new(run)));
        self
    }

    /// Runs all rounds.
    pub fn hold(self, plan: Plan) -> Results {
        eprintln!("{}: {} rounds", self.title, plan.rounds);
        // This is the warm-up too: it maps the memory and fills the caches.
        let times: Vec<usize> = self.contenders.iter().map(|(_, run)| self.calibrate(plan, run)).collect();
        let mut rounds = vec![Vec::new(); self.contenders.len()];
        for round in 0..plan.rounds {
            for turn in 0..self.contenders.len() {
                let which = (round + turn) % self.contenders.len();
                rounds[which].push(self.round(which, round, times[which]));
            }
        }
        let column = |which: usize, of: fn(&Round) -> f64| rounds[which].iter().map(of).collect::<Vec<_>>();
        let first = column(0, |round| round.time);
        let names = self.contenders.iter().map(|(name, _)| name.clone());
        let lines = names.enumerate().map(|(which, name)| {
            let times = column(which, |round| round.time);
            let ratios: Vec<f64> = times.iter().zip(&first).map(|(own, first)| own / first).collect();
            Line {
                name,
                time: Spread::of(&times),
                ratio: Spread::of(&ratios),
                client: Spread::of(&column(which, |round| round.client)).median,
                server: self.server.map(|_| Spread::of(&column(which, |round| round.server)).median),
                note: String::new(),
            }
        });
        Results { title: self.title.clone(), lines: lines.collect() }
    }

    /// Returns how many operations of a contender take about one slice.
    fn calibrate(&self, plan: Plan, run: &dyn Fn(usize)) -> usize {
        let mut times = self.grain;
        loop {
            let started = Instant::now();
            run(times);
            let elapsed = started.elapsed();
            if elapsed * 4 >= plan.slice || times > 1 << 26 {
                let scale = plan.slice.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
                let scaled = (times as f64 * scale.min(16.0)) as usize;
                return scaled.max(1).next_multiple_of(self.grain);
            }
            times *= 2;
        }
    }

    /// Runs one contender once.
    fn round(&self, which: usize, round: usize, times: usize) -> Round {
        let (client, server) = (process_cpu(), self.server.map(ServerClock::read));
        let elapsed = deeper(round * 7 % 19, &|| {
            let started = Instant::now();
            (self.contenders[which].1)(times);
            started.elapsed()
        });
        let (client, server) = (process_cpu() - client, self.server.map(ServerClock::read).zip(server));
        let all = (times * self.threads) as f64;
        Round {
            time: nanoseconds(elapsed) / times as f64,
            client: nanoseconds(client) / all,
            server: server.map_or(0.0, |(after, before)| nanoseconds(after.saturating_sub(before)) / all),
        }
    }
}

#[derive(Debug, Clone)]
struct Round {
    time: f64,
    client: f64,
    server: f64,
}

/// Reads the CPU time of a server's main thread.
#[derive(Debug)]
pub struct ServerClock {
    path: String,
}

impl ServerClock {
    /// Returns the clock of this server.
    pub fn of(server: &RedisServer) -> Self {
        let info = server.cli(&["INFO", "server"]);
        let pid = info.lines().find_map(|line| line.trim_end().strip_prefix("process_id:")).expect("its process");
        Self { path: format!("/proc/{pid}/schedstat") }
    }

    /// Returns the time that it has run so far; zero where the system does not tell.
    pub fn read(&self) -> Duration {
        let line = fs::read_to_string(&self.path).unwrap_or_default();
        Duration::from_nanos(line.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0))
    }
}

/// Returns the CPU time of all threads of this process so far.
pub fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// Returns the CPU time of the calling thread so far.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let spent = clock_gettime(id);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// Returns a duration in nanoseconds.
pub fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

#[inline(never)]
fn deeper(depth: usize, then: &dyn Fn() -> Duration) -> Duration {
    let room = black_box([0_u8; 176]);
    let elapsed = if depth == 0 { then() } else { deeper(depth - 1, then) };
    black_box(&room);
    elapsed
}
