//! Compares this library with other crates, and writes the results into `cache-core/docs`.
//!
//!     cargo run --release --manifest-path tests/peers/Cargo.toml --bin table
//!     cargo run --release --manifest-path tests/peers/Cargo.toml --bin table -- --quick
//!     cargo run --release --manifest-path tests/peers/Cargo.toml --bin table -- growth
//!
//! The parts are `speed`, `growth` and `behaviours`; without a name, all of them run. The program
//! starts its own `redis-server` on free loopback ports. `--quick` takes a short time, prints the
//! tables and writes nothing.

mod batch;
mod behaviours;
mod cold;
mod growth;
mod l1;
mod l2;
mod views;

use std::fs;
use std::sync::Arc;

use peers::measure::{Plan, Results, ServerClock};
use peers::server::RedisServer;
use peers::{machine, plot, report};
use tokio::runtime::Runtime;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == behaviours::CHILD) {
        println!("{}", l1::runtime().block_on(behaviours::child()));
        return;
    }
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let wants = |part: &str| {
        arguments.iter().all(|argument| argument.starts_with('-')) || arguments.iter().any(|argument| argument == part)
    };
    let plan = if is_quick { Plan::quick() } else { Plan::full() };
    // One server and one runtime for all, because a function of `cached` stays with its first
    // connection.
    let (server, runtime) = (RedisServer::start(), l2::runtime());
    if wants("speed") {
        speed(&server, &runtime, plan).publish("speed", is_quick);
    }
    if wants("growth") {
        growth(&server, &runtime, plan).publish("growth", is_quick);
    }
    if wants("behaviours") {
        Part { text: behaviours::table(&runtime), plot: None }.publish("behaviours", is_quick);
    }
}

/// The output of one part.
struct Part {
    text: String,
    plot: Option<(&'static str, String)>,
}

impl Part {
    /// Prints the table, and writes it into the page unless this is a short run.
    fn publish(self, name: &str, is_quick: bool) {
        println!("{}", self.text);
        if is_quick {
            return;
        }
        report::replace(&report::docs().join("peers.md"), name, &self.text);
        if let Some((file, plot)) = self.plot {
            fs::write(report::docs().join(file), plot).expect("the plot can be written");
        }
    }
}

fn speed(server: &RedisServer, runtime: &Runtime, plan: Plan) -> Part {
    let (url, clock) = (server.url(), ServerClock::of(server));
    let before = machine::load();
    let mut results = l1::hold(plan);
    let clients = Arc::new(runtime.block_on(l2::Clients::connect(&url)));
    results.extend(l2::hold(runtime, &clients, &clock, plan));
    results.extend(batch::hold(runtime, &clients, &clock, plan));
    results.push(cold::hold(runtime, &url, &clock, plan));
    results.extend(views::hold(&url, &clock, plan));
    let about = format!("{} Versions: {}.", about(server, plan, before), machine::versions());
    let drawn: Vec<Results> = results.iter().filter(|contest| !contest.title.contains("2 thread")).cloned().collect();
    Part {
        text: format!("{}\n{}", report::wrap(&about), report::table(&results)),
        plot: Some(("peers.svg", plot::bars(&drawn))),
    }
}

fn growth(server: &RedisServer, runtime: &Runtime, plan: Plan) -> Part {
    let clock = ServerClock::of(server);
    let before = machine::load();
    let (results, charts) = growth::hold(runtime, &server.url(), &clock, plan);
    Part {
        text: format!("{}\n{}", report::wrap(&about(server, plan, before)), report::table(&results)),
        plot: Some(("growth.svg", plot::lines(&charts))),
    }
}

fn about(server: &RedisServer, plan: Plan, load_before: f64) -> String {
    format!(
        "{}. {} rounds in turns. The load average was {load_before:.1} at the start and {:.1} at the end; these \
         programs count in it, and other programs used the machine too.",
        machine::describe(server),
        plan.rounds,
        machine::load(),
    )
}
