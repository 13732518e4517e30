//! Races of one process with the database: R1, R2, R18 and R20.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::peer::{Answer, Peer, Source};

const CALLERS: usize = 20;
/// Time for callers to begin to wait. Whether they do cannot be observed from outside.
const SETTLES: Duration = Duration::from_millis(200);
/// Long enough for any answer that comes.
const ANSWERS: Duration = Duration::from_secs(10);

/// Panics unless `set` and `invalidate` do what they say when nothing happens at the same time.
/// Otherwise a wrong key here would look like a stale value there.
pub async fn check(name: &str, peer: &dyn Peer) {
    peer.set(100, 9).await.expect("it can be set");
    assert_eq!(peer.read(Source::with_row(1), 100).await, Ok(9), "{name} does not return what was set");
    peer.invalidate(100).await.expect("it can be invalidated");
    assert_eq!(peer.read(Source::with_row(3), 100).await, Ok(3), "{name} returns what was invalidated");
    assert_eq!(peer.read(Source::with_row(4), 100).await, Ok(3), "{name} does not cache");
}

/// R1: a compute reads the old row, the row changes, the entry is invalidated, the compute ends.
pub async fn invalidation_during_a_compute(peer: Arc<dyn Peer>) -> String {
    during_a_compute(peer, 1, async |peer, id| peer.invalidate(id).await).await
}

/// R2: the same with a value that is set.
pub async fn set_during_a_compute(peer: Arc<dyn Peer>) -> String {
    during_a_compute(peer, 2, async |peer, id| peer.set(id, 2).await).await
}

async fn during_a_compute(
    peer: Arc<dyn Peer>,
    id: u64,
    change: impl AsyncFnOnce(&dyn Peer, u64) -> Result<(), String>,
) -> String {
    let source = Source::shut();
    let call = tokio::spawn(start(&peer, &source, id));
    source.arrival().await;
    source.write(2);
    if let Err(error) = change(&*peer, id).await {
        return format!("error: {error}");
    }
    source.release();
    let _either = call.await.expect("a caller");
    match peer.read(Source::with_row(2), id).await {
        Ok(2) => "right".into(),
        Ok(1) => "**stale value** for the whole ttl".into(),
        other => format!("{other:?}"),
    }
}

/// R18: callers wait for one compute, which fails.
pub async fn an_error_with_many_callers(peer: Arc<dyn Peer>) -> String {
    let source = Source::shut();
    source.fail();
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(start(&peer, &source, 18))).collect();
    source.arrival().await;
    tokio::time::sleep(SETTLES).await;
    source.release();
    let answers = join_all(callers).await.into_iter().map(|answer| answer.expect("a caller"));
    let values = answers.filter(Result::is_ok).count();
    match (values, source.computes()) {
        (0, 1) => "right".into(),
        (0, computes) => format!("{computes} computes for {CALLERS} callers"),
        (values, _) => format!("{values} callers got a value"),
    }
}

/// R20: the caller that started the compute is dropped while another one waits.
pub async fn the_first_caller_is_dropped(peer: Arc<dyn Peer>) -> String {
    let source = Source::shut();
    let first = tokio::spawn(start(&peer, &source, 20));
    source.arrival().await;
    let second = tokio::spawn(start(&peer, &source, 20));
    tokio::time::sleep(SETTLES).await;
    first.abort();
    let _aborted = first.await;
    tokio::time::sleep(SETTLES).await;
    source.release();
    match (tokio::time::timeout(ANSWERS, second).await, source.computes()) {
        (Ok(Ok(Ok(1))), 1) => "right".into(),
        (Ok(Ok(Ok(1))), computes) => format!("right value, {computes} computes"),
        (Ok(Ok(other)), _) => format!("{other:?}"),
        (Ok(Err(error)), _) => error.to_string(),
        (Err(_), _) => format!("**no answer** for the other within {} s", ANSWERS.as_secs()),
    }
}

fn start(peer: &Arc<dyn Peer>, source: &Arc<Source>, id: u64) -> impl Future<Output = Answer> + Send + use<> {
    let (peer, source) = (Arc::clone(peer), Arc::clone(source));
    async move { peer.read(source, id).await }
}
