//! Describes the machine and the versions, for the text above the tables.

use std::fs;
use std::process::Command;

use crate::server::RedisServer;

/// The lock file of this workspace names the version of each contender.
const LOCK: &str = include_str!("../Cargo.lock");

/// Returns the version of a package that this program was built with.
pub fn version(package: &str) -> String {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let rest = LOCK.split_once(&entry).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).unwrap_or("?").to_owned()
}

/// Returns the processor, the number of cores, the system and the compiler.
pub fn describe(server: &RedisServer) -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = output("rustc", &["--version"]);
    let rustc = rustc.split(' ').nth(1).unwrap_or("?");
    let info = server.cli(&["INFO", "server"]);
    let redis = info.lines().find_map(|line| line.trim_end().strip_prefix("redis_version:")).unwrap_or("?");
    format!("{cores} cores of {model}, Linux {}, Rust {rustc}, Redis {redis}", kernel.trim())
}

/// Returns the load average of the last minute.
pub fn load() -> f64 {
    let line = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Returns the versions of all contenders.
pub fn versions() -> String {
    const PACKAGES: [&str; 10] = [
        "redis",
        "cached",
        "moka",
        "quick_cache",
        "hitbox",
        "hitbox-redis",
        "hitbox-moka",
        "tower-sessions",
        "tower-sessions-redis-store",
        "bincode",
    ];
    PACKAGES.map(|package| format!("`{package}` {}", version(package))).join(", ")
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
