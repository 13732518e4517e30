//! What caches do in races and under faults, as a table.

mod faults;
mod in_process;
mod names;
mod on_redis;
mod peer;
mod races;
mod tiers;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cache_core::Cache;
use hitbox_backend::composition::policy::RefillPolicy;
use peers::proxy::Proxy;
use peers::server::RedisServer;
use tokio::runtime::Runtime;

pub use names::{CHILD, child};
use peer::Peer;

/// The most time for one cell.
const MOST: Duration = Duration::from_secs(60);
const PEERS: [&str; 6] = ["cache-core", "`cached`, Redis", "hitbox, Redis", "`cached`, memory", "moka", "quick_cache"];
const ONE_PROCESS: &str = "cannot happen: one process";
const BY_DESIGN: &str = "right: a cache for each";
const NO_SERVER: &str = "no server";

/// Plays all races and faults. Returns a table.
pub fn table(runtime: &Runtime) -> String {
    runtime.block_on(async {
        let mut text = format!("| | {} |\n|---|{}\n", PEERS.join(" | "), "---|".repeat(PEERS.len()));
        for (title, cells) in rows().await {
            let _infallible = writeln!(text, "| {title} | {} |", cells.join(" | "));
        }
        text
    })
}

type Row = (&'static str, Vec<String>);

async fn rows() -> Vec<Row> {
    let mut rows = races().await;
    rows.extend(tiers().await);
    rows.extend(faults().await);
    rows.extend(names().await);
    rows
}

/// Runs one cell within its time.
async fn cell(what: &str, play: impl Future<Output = String>) -> String {
    let verdict = tokio::time::timeout(MOST, play).await;
    let verdict = verdict.unwrap_or_else(|_| format!("**no end** within {} s", MOST.as_secs()));
    eprintln!("{what}: {verdict}");
    verdict
}

async fn races() -> Vec<Row> {
    let server = RedisServer::start();
    let url = server.url();
    let peers: [Arc<dyn Peer>; 6] = [
        Arc::new(on_redis::Ours::connect(&url).await),
        Arc::new(on_redis::CachedOnRedis::connect(&url, false).await),
        on_redis::hitbox(&url),
        Arc::new(in_process::CachedInMemory),
        Arc::new(in_process::Moka(moka::future::Cache::new(1_000))),
        Arc::new(in_process::QuickCache(quick_cache::sync::Cache::new(1_000))),
    ];
    let mut rows: [Row; 4] = [
        ("R1: invalidation during a compute", Vec::new()),
        ("R2: `set` during a compute", Vec::new()),
        ("R18: 20 callers of a compute that fails", Vec::new()),
        ("R20: the first of two callers is dropped", Vec::new()),
    ];
    for (name, peer) in PEERS.iter().zip(peers) {
        races::check(name, &*peer).await;
        let cells = [
            cell(name, races::invalidation_during_a_compute(Arc::clone(&peer))).await,
            cell(name, races::set_during_a_compute(Arc::clone(&peer))).await,
            cell(name, races::an_error_with_many_callers(Arc::clone(&peer))).await,
            cell(name, races::the_first_caller_is_dropped(peer)).await,
        ];
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.1.push(cell));
    }
    let borrowing = on_redis::OursBorrowing(Cache::connect(&url).await.expect("a cache"));
    let borrowing = cell("cache-core, borrowing", races::the_first_caller_is_dropped(Arc::new(borrowing))).await;
    rows[3].1[0] = format!("the function owns its arguments: {}; it borrows: {borrowing}", rows[3].1[0]);
    rows.into()
}

async fn tiers() -> Vec<Row> {
    let ours = async |url: String, _is_reader: bool| -> Arc<dyn Peer> {
        let peer: Arc<dyn Peer> = Arc::new(on_redis::Ours::connect(&url).await);
        peer
    };
    let ours = two_tiers("cache-core", ours).await;
    // A process of `cached` with a local tier does not always read what it has set.
    let of_cached = async |url: String, is_reader: bool| -> Arc<dyn Peer> {
        let peer: Arc<dyn Peer> = Arc::new(on_redis::CachedOnRedis::connect(&url, is_reader).await);
        peer
    };
    let of_cached = two_tiers("`cached`", of_cached).await;
    let never = async |url: String, _is_reader: bool| on_redis::hitbox_in_two_tiers(&url, RefillPolicy::Never);
    let never = two_tiers("hitbox, by default", never).await;
    let always = async |url: String, _is_reader: bool| on_redis::hitbox_in_two_tiers(&url, RefillPolicy::Always);
    let always = two_tiers("hitbox, `RefillPolicy::Always`", always).await;
    let both = |at: usize| match (&never[at], &always[at]) {
        (never, always) if never == always => never.clone(),
        (never, always) => format!("by default: {never}; with `RefillPolicy::Always`: {always}"),
    };
    let row = |at: usize| {
        let cells = [ours[at].clone(), of_cached[at].clone(), both(at)];
        cells.into_iter().chain([NO_SERVER; 3].map(str::to_owned)).collect()
    };
    vec![("R6: a write overtakes a reply", row(0)), ("R7: the link is frozen", row(1))]
}

/// Plays R6 and R7 with a reader behind a proxy and a writer.
async fn two_tiers(name: &str, connect: impl AsyncFn(String, bool) -> Arc<dyn Peer>) -> [String; 2] {
    let server = RedisServer::start();
    let mut proxy = Proxy::start(server.port()).await;
    let (reader, writer) = (connect(proxy.url(), true).await, connect(server.url(), false).await);
    races::check(name, &*writer).await;
    let race = tiers::a_write_overtakes_a_reply(Arc::clone(&reader), Arc::clone(&writer), &mut proxy);
    let mut first = cell(name, race).await;
    proxy.open();
    if !tiers::keeps_hits(&*reader, &*writer, &proxy).await {
        first += " (it keeps no hits of Redis in the process)";
    }
    [first, cell(name, tiers::a_frozen_link(reader, writer, &proxy)).await]
}

async fn faults() -> Vec<Row> {
    let mut rows: [Row; 2] = [("Redis killed and back", Vec::new()), ("Redis paused", Vec::new())];
    for name in &PEERS[..3] {
        let server = RedisServer::start();
        let url = server.url();
        let peer: Arc<dyn Peer> = match *name {
            "cache-core" => Arc::new(on_redis::Ours::connect(&url).await),
            "hitbox, Redis" => on_redis::hitbox(&url),
            _ => Arc::new(on_redis::CachedOnRedis::connect(&url, false).await),
        };
        rows[1].1.push(cell(name, faults::paused(Arc::clone(&peer), &server)).await);
        rows[0].1.push(cell(name, faults::killed_and_back(peer, &server)).await);
    }
    for (_, cells) in &mut rows {
        cells.extend([NO_SERVER; 3].map(str::to_owned));
    }
    rows.into()
}

async fn names() -> Vec<Row> {
    let server = RedisServer::start();
    let url = server.url();
    let builds = [
        cell("builds", names::builds_of_ours(&url)).await,
        cell("builds", names::builds_of_cached(&url)).await,
        cell("builds", names::builds_of_hitbox(&url)).await,
    ];
    let modules = [
        cell("modules", names::ours_in_two_modules(&url)).await,
        cell("modules", async { tokio::task::block_in_place(|| names::of_cached_in_two_modules(&url)) }).await,
        cell("modules", names::hitbox_in_two_modules(&url)).await,
    ];
    let tenants = [
        cell("tenants", names::tenants_of_ours(&url)).await,
        "cannot be expressed: a function has one cache; a tenant has to be an argument".to_owned(),
        cell("tenants", names::tenants_of_hitbox(&url)).await,
    ];
    let extend = |cells: [String; 3], rest: [&str; 3]| cells.into_iter().chain(rest.map(str::to_owned)).collect();
    vec![
        ("R21: two builds, one key", extend(builds, [ONE_PROCESS; 3])),
        ("same function name in two modules", extend(modules, [BY_DESIGN; 3])),
        ("two tenants", extend(tenants, ["cannot be expressed: a function has one cache", BY_DESIGN, BY_DESIGN])),
    ]
}
