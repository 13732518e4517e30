//! What a second process and a lost link do to the local tier: R6 and R7.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peers::proxy::Proxy;

use super::peer::{Peer, Source};

/// How long an old value may be served in R6 before it counts as kept.
const KEPT: Duration = Duration::from_secs(3);
/// The same in R7: three times our default bound.
const LAGS: Duration = Duration::from_secs(6);
const FILLS: Duration = Duration::from_millis(200);
const PACE: Duration = Duration::from_millis(20);

/// R6: the reader's reply with the old value is on its way while the writer stores a new one.
pub async fn a_write_overtakes_a_reply(reader: Arc<dyn Peer>, writer: Arc<dyn Peer>, proxy: &mut Proxy) -> String {
    let _warm = reader.read(Source::with_row(0), 600).await;
    // The reply that is held may be that of a heartbeat, so there are several rounds.
    for id in 601..606 {
        let source = Source::with_row(1);
        let _stored = writer.read(Arc::clone(&source), id).await;
        // hitbox may write to Redis in the background.
        tokio::time::sleep(FILLS).await;
        proxy.hold_replies();
        let (late, row) = (Arc::clone(&reader), Arc::clone(&source));
        let late = tokio::spawn(async move { late.read(row, id).await });
        proxy.held().await;
        source.write(2);
        let set = writer.set(id, 2).await;
        proxy.open();
        let _either = late.await.expect("a caller");
        if let Err(error) = set {
            return format!("error: {error}");
        }
        if let Some(verdict) = wait_for_new(&*reader, &source, id, KEPT).await.err() {
            return verdict;
        }
    }
    "right".into()
}

/// Returns whether the reader keeps in its process what it has read from Redis.
pub async fn keeps_hits(reader: &dyn Peer, writer: &dyn Peer, proxy: &Proxy) -> bool {
    let source = Source::with_row(1);
    let _stored = writer.read(Arc::clone(&source), 650).await;
    for _ in 0..2 {
        let _hit = reader.read(Arc::clone(&source), 650).await;
        // A fill of the local tier may still be under way.
        tokio::time::sleep(FILLS).await;
    }
    source.write(2);
    proxy.freeze();
    let answer = tokio::time::timeout(FILLS, reader.read(source, 650)).await;
    proxy.open();
    matches!(answer, Ok(Ok(1)))
}

/// R7: the link of the reader is frozen, and the writer stores a new value.
pub async fn a_frozen_link(reader: Arc<dyn Peer>, writer: Arc<dyn Peer>, proxy: &Proxy) -> String {
    let source = Source::with_row(1);
    for _ in 0..3 {
        let _kept = reader.read(Arc::clone(&source), 700).await;
    }
    proxy.freeze();
    source.write(2);
    let set = writer.set(700, 2).await;
    let outcome = wait_for_new(&*reader, &source, 700, LAGS).await;
    proxy.open();
    match (set, outcome) {
        (Err(error), _) => format!("error: {error}"),
        (Ok(()), Ok(after)) => format!("right: nothing old after {:.1} s", after.as_secs_f64()),
        (Ok(()), Err(verdict)) => verdict,
    }
}

/// Reads until the new value comes. Returns how long that took, or what went wrong.
async fn wait_for_new(reader: &dyn Peer, source: &Arc<Source>, id: u64, most: Duration) -> Result<Duration, String> {
    let started = Instant::now();
    loop {
        match reader.read(Arc::clone(source), id).await {
            Ok(2) => {
                let elapsed = started.elapsed();
                // A fill of the local tier may still be under way.
                tokio::time::sleep(FILLS).await;
                return match reader.read(Arc::clone(source), id).await {
                    Ok(1) => Err("**old value kept**, after the new one was served".into()),
                    _ => Ok(elapsed),
                };
            }
            Ok(1) if started.elapsed() < most => tokio::time::sleep(PACE).await,
            Ok(1) => return Err(format!("**old value kept**, still after {} s", most.as_secs())),
            Ok(other) => return Err(format!("a value of {other}")),
            Err(_) => return Err(format!("an error after {:.1} s", started.elapsed().as_secs_f64())),
        }
    }
}
