//! Moves from the form of Express to our own, and other ids: what stands at each step.

use std::sync::Arc;

use cache_core::Cache;
use cache_core::clock::Clock;
use cache_core::session::{Session, SessionLayer, SessionMode};
use support::{Gate, soon};
use tokio::task::yield_now;

use super::super::client::{Browser, express, moving};
use super::{Map, Plan};

/// Layers on one store: before, during and after a move.
async fn three_modes(store: &Arc<Map>) -> [SessionLayer; 3] {
    let cache = Cache::builder().clock(Clock::manual()).in_memory();
    let layers = [express(&cache), express(&cache).mode(SessionMode::Dual), moving(&cache)];
    let layers = layers.map(|layer| layer.store(Arc::clone(store)).build().unwrap());
    // On one thread: each task that looks for other layers on the store has ended after this.
    for _ in 0..100 {
        yield_now().await;
    }
    layers
}

#[tokio::test]
async fn a_session_goes_from_express_over_both_to_native_and_ends_for_all() {
    let store = Map::new();
    let [before, dual, after] = three_modes(&store).await;
    let begin_with = |prefix: &str| store.entries.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).count();
    let browser = Browser::default();
    browser.set(&before, "cart", 3).await;
    // With both forms it stays where the peers find it.
    assert_eq!(browser.get(&dual, "cart").await, Some(3));
    browser.set(&dual, "cart", 4).await;
    assert_eq!((begin_with("cache:sess:v1:"), begin_with("sess:")), (0, 1));
    assert_eq!((browser.get(&before, "cart").await, browser.get(&after, "cart").await), (Some(4), Some(4)));
    assert_eq!((begin_with("cache:sess:v1:"), begin_with("sess:")), (1, 0));
    // A server of the step before finds it after its move.
    browser.set(&dual, "cart", 5).await;
    assert_eq!(browser.get(&after, "cart").await, Some(5));
    let old = browser.copy();
    let page = browser.visit(&dual, |session: Session| async move { session.destroy().await.map(|()| 200) });
    assert_eq!(page.await.status, 200);
    assert_eq!(store.sessions(), Vec::<String>::new());
    assert_eq!((old.get(&dual, "cart").await, old.get(&after, "cart").await), (None, None));
}

#[tokio::test]
async fn a_session_that_moves_while_it_ends_ends_on_a_custom_store() {
    let store = Map::new();
    let [before, _, after] = three_modes(&store).await;
    let (browser, gate) = (Browser::default(), Gate::shut());
    browser.set(&before, "cart", 3).await;
    let (late, entered, there) = (browser.copy(), gate.clone(), after.clone());
    let request = tokio::spawn(async move {
        late.visit(&there, |session| async move {
            session.get::<i64>("cart").await?;
            entered.pass().await;
            session.destroy().await.map(|()| 200)
        })
        .await
    });
    soon("it has read", gate.arrival()).await;
    assert_eq!(browser.get(&after, "cart").await, Some(3));
    gate.let_through(1);
    assert_eq!(soon("its answer", request).await.unwrap().status, 200);
    assert_eq!((store.sessions(), browser.get(&after, "cart").await), (Vec::new(), None));
}

#[tokio::test]
async fn a_move_or_another_id_that_fails_at_any_step_leaves_one_session_or_none() {
    let plans: [fn(u64) -> Plan; 2] = [Plan::FailBefore, Plan::FailAfter];
    for (plan, moves) in plans.into_iter().flat_map(|plan| [(plan, false), (plan, true)]) {
        let (mut kept, mut lost) = (0, 0);
        for step in 0.. {
            let store = Map::new();
            let [before, _, after] = three_modes(&store).await;
            let browser = Browser::default();
            browser.set(if moves { &before } else { &after }, "cart", 3).await;
            store.begin(plan(step));
            let page = browser.visit(&after, move |session: Session| async move {
                if !moves {
                    session.cycle_id().await?;
                }
                session.insert("other", &1).await.map(|()| 200)
            });
            let (page, steps) = (page.await, store.heal());
            let what = format!("step {step} of {steps}, moves: {moves}: {page:?}");
            let standing = store.sessions().len();
            let found = (browser.get(&after, "cart").await, browser.get(&after, "other").await);
            if page.status == 200 {
                assert_eq!((standing, found), (1, (Some(3), Some(1))), "{what}");
            } else {
                assert_eq!((page.status, page.cookies.len()), (503, 0), "{what}");
                assert!(standing <= 1, "{what}: under two ids");
                // Done or not, but not in part.
                match found {
                    (Some(3), None | Some(1)) => kept += 1,
                    (None, None) => lost += 1,
                    _ => panic!("{what}: {found:?}"),
                }
            }
            if step >= steps {
                assert_eq!(page.status, 200, "{what}");
                break;
            }
        }
        assert!(kept > 0 && lost <= 2, "moves: {moves}: {kept} kept, {lost} lost");
    }
}

#[tokio::test]
async fn a_change_that_comes_at_any_step_of_a_move_is_not_lost() {
    let mut held_back = 0;
    for step in 0.. {
        let (store, gate) = (Map::new(), Gate::shut());
        let [before, dual, after] = three_modes(&store).await;
        let browser = Browser::default();
        browser.set(&before, "cart", 3).await;
        let other = browser.copy();
        store.begin(Plan::Hold(step, gate.clone()));
        let (slow, there) = (browser.clone(), after.clone());
        let mut request = tokio::spawn(async move {
            slow.visit(&there, |session| async move { session.insert("new", &1).await.map(|()| 200) }).await.status
        });
        let held = tokio::select! {
            () = gate.arrival() => true,
            status = &mut request => {
                assert_eq!(status.unwrap(), 200);
                false
            }
        };
        if !held {
            break;
        }
        // Whoever finds no session at this moment changes none.
        let page = other.visit(&dual, |session| async move {
            if session.get::<i64>("cart").await?.is_none() {
                return Ok(404);
            }
            session.increment("cart", 1).await.map(|_| 200)
        });
        let changed = page.await.status == 200;
        held_back += i64::from(changed);
        gate.let_through(1);
        assert_eq!(soon("the move", request).await.unwrap(), 200, "step {step}");
        store.heal();
        let found = (browser.get(&after, "cart").await, browser.get(&after, "new").await);
        assert_eq!(found, (Some(3 + i64::from(changed)), Some(1)), "step {step}");
        assert_eq!(store.sessions().len(), 1, "step {step}");
    }
    assert!(held_back >= 2, "{held_back}");
}

#[tokio::test]
async fn sessions_of_express_move_on_a_custom_store() {
    let store = Map::new();
    let cache = Cache::builder().clock(Clock::manual()).in_memory();
    let before = express(&cache).store(Arc::clone(&store)).build().unwrap();
    let browser = Browser::default();
    browser.set(&before, "cart", 3).await;
    let after = moving(&cache).store(Arc::clone(&store)).build().unwrap();
    assert_eq!(browser.get(&after, "cart").await, Some(3));
    assert_eq!(browser.get(&after, "cart").await, Some(3));
    let entries = store.entries.lock().unwrap();
    let begin_with = |prefix: &str| entries.keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!((begin_with("cache:sess:v1:"), begin_with("sess:")), (1, 0), "{:?}", entries.keys());
}
