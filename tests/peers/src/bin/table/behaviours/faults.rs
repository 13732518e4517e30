//! Redis killed and back, and Redis paused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peers::server::RedisServer;

use super::peer::{Peer, Source};

/// The most time for one call, and for the cache to work again.
const MOST: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(50);

/// Kills the server, calls, starts it again, and waits until values are stored again.
pub async fn killed_and_back(peer: Arc<dyn Peer>, server: &RedisServer) -> String {
    let _stored = peer.read(Source::with_row(1), 800).await;
    tokio::task::block_in_place(|| server.kill());
    let down = call(&*peer, 801).await;
    tokio::task::block_in_place(|| server.restart());
    format!("down: {down}; back: {}", recovery(&*peer, 810).await)
}

/// Stops the server without closing its connections, calls, and lets it go on.
pub async fn paused(peer: Arc<dyn Peer>, server: &RedisServer) -> String {
    let _stored = peer.read(Source::with_row(1), 900).await;
    tokio::task::block_in_place(|| server.pause());
    let down = call(&*peer, 901).await;
    tokio::task::block_in_place(|| server.resume());
    format!("paused: {down}; back: {}", recovery(&*peer, 910).await)
}

/// Calls with a key that is not stored.
async fn call(peer: &dyn Peer, id: u64) -> String {
    let started = Instant::now();
    let answer = tokio::time::timeout(MOST, peer.read(Source::with_row(7), id)).await;
    let after = format!("{:.1} s", started.elapsed().as_secs_f64());
    match answer {
        Ok(Ok(7)) => format!("the function's value after {after}"),
        Ok(Ok(other)) => format!("a value of {other} after {after}"),
        Ok(Err(_)) => format!("**an error** after {after}"),
        Err(_) => format!("**no answer** within {after}"),
    }
}

/// Calls twice with one new key after the other, until the second call is a hit.
async fn recovery(peer: &dyn Peer, first: u64) -> String {
    let (started, mut has_value) = (Instant::now(), true);
    for id in first.. {
        if started.elapsed() > MOST {
            break;
        }
        let source = Source::with_row(7);
        let left = MOST.saturating_sub(started.elapsed()).max(PACE);
        let twice = async { (peer.read(Arc::clone(&source), id).await, peer.read(Arc::clone(&source), id).await) };
        let answers = tokio::time::timeout(left, twice).await;
        has_value = matches!(answers, Ok((Ok(7), Ok(7))));
        if has_value && source.computes() == 1 {
            return format!("hits after {:.1} s", started.elapsed().as_secs_f64());
        }
        tokio::time::sleep(PACE).await;
    }
    let what = if has_value { "values, but no hits" } else { "**errors**" };
    format!("{what} for {} s", MOST.as_secs())
}
