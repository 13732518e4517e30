//! Sessions in a store implemented by the user: the promises of such a store, and of the sessions
//! on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::Cache;
use cache_core::clock::Clock;
use cache_core::session::{Session, SessionErrorKind, SessionLayer, SessionStore, TooMany};
use cache_core::testing::check_session_store;
use futures::future::join_all;
use support::{Gate, soon};
use tokio::task::yield_now;

use self::map::{Broken, Map, Plan};
use super::client::{Browser, Page, express, native};

mod map;
mod moves;

async fn login(browser: &Browser, layer: &SessionLayer) -> Page {
    browser.visit(layer, |session| async move { session.login("ada").await.map(|()| 200) }).await
}

fn on(store: &Arc<Map>) -> SessionLayer {
    native(&Cache::in_memory()).store(Arc::clone(store)).build().unwrap()
}

// node-11
#[tokio::test]
async fn a_promise_that_a_store_breaks_is_named() {
    let check = async |broken| {
        let store = Map::broken(broken);
        check_session_store(&store, async |time| store.let_pass(time)).await
    };
    assert_eq!(check(Broken::Nothing).await, Ok(()));
    for (broken, promise) in [
        (Broken::TouchMakes, "swap, touch and remove do not create an absent key"),
        (Broken::BytesAreText, "bytes are loaded exactly as they were stored"),
        (Broken::KeysHaveNoCase, "keys that differ in case, spaces or punctuation are different keys"),
        (Broken::CreateLooksFirst, "of many concurrent creates of a key, exactly one succeeds"),
        (Broken::CreateOverwrites, "of many concurrent creates of a key, exactly one succeeds"),
        (Broken::SwapComparesLengths, "a swap replaces exactly the expected bytes, or else returns the current ones"),
        (Broken::SwapLooksFirst, "of many concurrent swaps with the same expected bytes, exactly one succeeds"),
        (Broken::RemoveAlwaysSaysYes, "swap, touch and remove do not create an absent key"),
        (Broken::NothingEnds, "a key is absent after its ttl has passed"),
        (Broken::SwapTakesTheEnd, "a swap without a ttl keeps the expiry"),
        (Broken::SwapGivesNoTime, "a swap with a ttl sets that ttl"),
        (Broken::TouchGivesNoTime, "a touch sets the ttl from now on"),
        (Broken::LoadTellsNoTime, "a load returns the remaining ttl of a key"),
    ] {
        let found = check(broken).await.unwrap_err();
        assert_eq!(found.promise(), promise, "{broken:?}: {found}");
    }
}

#[tokio::test]
async fn no_increment_is_lost_by_several_processes_on_a_custom_store() {
    let store = Map::new();
    let layers = [on(&store), on(&store), on(&store)];
    let browser = Browser::default();
    browser.set(&layers[0], "views", 0).await;
    let requests = (0..60).map(|n| {
        let (browser, layer) = (browser.copy(), layers[n % 3].clone());
        tokio::spawn(async move {
            browser.visit(&layer, |session| async move { session.increment("views", 1).await.map(|_| 200) }).await
        })
    });
    for page in soon("all are answered", join_all(requests)).await {
        assert_eq!(page.unwrap().status, 200);
    }
    assert_eq!(browser.get(&layers[1], "views").await, Some(60));
}

#[tokio::test]
async fn an_ended_session_is_not_created_again_on_a_custom_store() {
    let (store, gate) = (Map::new(), Gate::shut());
    let layer = on(&store);
    let browser = Browser::default();
    login(&browser, &layer).await;
    let (slow, held, there) = (browser.copy(), gate.clone(), layer.clone());
    let request = tokio::spawn(async move {
        slow.visit(&there, |session| async move {
            session.insert("late", &1).await?;
            held.pass().await;
            Ok(200)
        })
        .await
    });
    soon("it has read", gate.arrival()).await;
    assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 1);
    gate.let_through(1);
    let page = soon("its answer", request).await.unwrap();
    assert_eq!((page.status, page.cookies.len()), (200, 0));
    assert_eq!(store.sessions(), Vec::<String>::new());
}

#[tokio::test]
async fn an_id_change_leaves_nothing_under_the_old_id_on_a_custom_store() {
    let store = Map::new();
    for layer in [on(&store), express(&Cache::in_memory()).store(Arc::clone(&store)).build().unwrap()] {
        let browser = Browser::default();
        browser.set(&layer, "cart", 3).await;
        let old = browser.copy();
        let page = browser.visit(&layer, |session: Session| async move { session.cycle_id().await.map(|()| 200) });
        assert_eq!(page.await.status, 200);
        assert_eq!((browser.get(&layer, "cart").await, old.get(&layer, "cart").await), (Some(3), None));
        assert_eq!(store.sessions().len(), 1);
        let page = browser.visit(&layer, |session: Session| async move { session.logout().await.map(|()| 200) });
        assert_eq!(page.await.status, 200);
        assert_eq!(store.sessions().len(), 0);
    }
}

#[tokio::test]
async fn a_login_that_fails_at_any_step_leaves_no_session_outside_of_the_list() {
    let plans: [fn(u64) -> Plan; 2] = [Plan::FailBefore, Plan::FailAfter];
    for plan in plans {
        let mut failures = 0;
        for step in 0.. {
            let store = Map::new();
            let layer = on(&store);
            let browser = Browser::default();
            browser.set(&layer, "cart", 3).await;
            // Creates the key of tags.
            layer.of_user("ada").list().await.unwrap();
            store.begin(plan(step));
            let page = login(&browser, &layer).await;
            let steps = store.heal();
            let failed = page.status != 200;
            failures += u32::from(failed);
            assert!(!failed || page.status == 503 && page.cookies.is_empty(), "step {step}: {page:?}");
            let after = matches!(plan(step), Plan::FailAfter(_));
            let what = format!("step {step} of {steps}, done before it fails: {after}");
            assert!(store.sessions().len() <= 1, "{what}: under two ids");
            assert_eq!(layer.of_user("ada").list().await.unwrap().len(), store.logins(), "{what}");
            assert!(failed || store.logins() == 1, "{what}");
            let standing = store.logins();
            assert_eq!(layer.of_user("ada").end_all().await.unwrap(), standing, "{what}");
            assert_eq!(store.logins(), 0, "{what}");
            if step >= steps {
                assert!(!failed, "{what}");
                break;
            }
        }
        assert!(failures >= 4, "{failures}");
    }
}

#[tokio::test]
async fn reading_the_list_removes_no_login_in_progress() {
    for step in 0.. {
        let (store, gate) = (Map::new(), Gate::shut());
        let layer = on(&store);
        let browser = Browser::default();
        browser.set(&layer, "cart", 3).await;
        layer.of_user("ada").list().await.unwrap();
        store.begin(Plan::Hold(step, gate.clone()));
        let (there, slow) = (layer.clone(), browser.copy());
        let mut request = tokio::spawn(async move { login(&slow, &there).await.status });
        let held = tokio::select! {
            () = gate.arrival() => true,
            status = &mut request => {
                assert_eq!(status.unwrap(), 200);
                false
            }
        };
        if !held {
            assert!(step >= 6, "{step} steps");
            break;
        }
        layer.of_user("ada").list().await.unwrap();
        gate.let_through(1);
        assert_eq!(soon("the login", request).await.unwrap(), 200, "step {step}");
        store.heal();
        assert_eq!(layer.of_user("ada").list().await.unwrap().len(), 1, "step {step}");
        assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 1, "step {step}");
        assert_eq!(store.sessions().len(), 0, "step {step}");
    }
}

#[tokio::test]
async fn concurrent_logins_leave_as_many_sessions_as_the_limit_on_a_custom_store() {
    for then in [TooMany::Refuse, TooMany::EndOldest] {
        let store = Map::new();
        let layer = native(&Cache::in_memory()).store(Arc::clone(&store)).max_sessions(3, then).build().unwrap();
        let logins = (0..12).map(|_| {
            let layer = layer.clone();
            tokio::spawn(async move { login(&Browser::default(), &layer).await.status })
        });
        let statuses = soon("all are answered", join_all(logins)).await;
        let (done, refused): (Vec<u16>, Vec<u16>) =
            statuses.into_iter().map(|status| status.unwrap()).partition(|status| *status == 200);
        assert!(refused.iter().all(|status| *status == 409), "{refused:?}");
        let right = if then == TooMany::Refuse { 3 } else { 12 };
        assert_eq!((done.len(), store.logins()), (right, 3), "{then:?}");
        assert_eq!(layer.of_user("ada").list().await.unwrap().len(), 3);
        // A logout makes room immediately.
        assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 3);
        assert_eq!(login(&Browser::default(), &layer).await.status, 200);
    }
}

#[tokio::test]
async fn one_of_two_overlapping_logins_stays_at_every_step() {
    for (then, right) in [(TooMany::Refuse, [200, 409]), (TooMany::EndOldest, [200, 200])] {
        for step in 0.. {
            let (store, gate) = (Map::new(), Gate::shut());
            let layer = native(&Cache::in_memory()).store(Arc::clone(&store)).max_sessions(1, then).build().unwrap();
            layer.of_user("ada").list().await.unwrap();
            store.begin(Plan::Hold(step, gate.clone()));
            let there = layer.clone();
            let mut request = tokio::spawn(async move { login(&Browser::default(), &there).await.status });
            let held = tokio::select! {
                () = gate.arrival() => true,
                status = &mut request => {
                    assert_eq!(status.unwrap(), 200);
                    false
                }
            };
            if !held {
                assert!(step >= 6, "{step} steps");
                break;
            }
            let second = login(&Browser::default(), &layer).await.status;
            gate.let_through(1);
            let mut statuses = [soon("the login", request).await.unwrap(), second];
            statuses.sort_unstable();
            assert_eq!(statuses, right, "{then:?}, step {step}");
            assert_eq!(store.logins(), 1, "{then:?}, step {step}");
            assert_eq!(layer.of_user("ada").list().await.unwrap().len(), 1, "{then:?}, step {step}");
        }
    }
}

// One thread: everything that can run has run when this task continues.
#[tokio::test(flavor = "current_thread")]
async fn nothing_of_a_failed_request_is_written_with_others() {
    let (store, gate) = (Map::new(), Gate::shut());
    let layer = on(&store);
    let browser = Browser::default();
    browser.set(&layer, "n", 1).await;
    // Its swap waits. By then, the data that the others have read are outdated.
    store.begin(Plan::Hold(1, gate.clone()));
    let (first, there) = (browser.copy(), layer.clone());
    let first = tokio::spawn(async move {
        first.visit(&there, |session| async move { session.insert("n", &"text").await.map(|()| 200) }).await.status
    });
    soon("its swap", gate.arrival()).await;
    let (half, there) = (browser.copy(), layer.clone());
    let half = tokio::spawn(async move {
        half.visit(&there, |session| async move {
            session.insert("half", &1).await?;
            session.increment("n", 1).await.map(|_| 200)
        })
        .await
        .status
    });
    let (whole, there) = (browser.copy(), layer.clone());
    let whole = tokio::spawn(async move {
        whole.visit(&there, |session| async move { session.increment("views", 1).await.map(|_| 200) }).await.status
    });
    for _ in 0..1_000 {
        yield_now().await;
    }
    gate.let_through(1);
    let statuses = soon("all are answered", join_all([first, half, whole])).await;
    let statuses: Vec<u16> = statuses.into_iter().map(Result::unwrap).collect();
    // Two reads, and one swap for both waiting requests.
    assert_eq!((statuses, store.heal()), (vec![200, 500, 200], 5));
    assert_eq!((browser.get(&layer, "half").await, browser.get(&layer, "views").await), (None, Some(1)));
}

#[tokio::test]
async fn a_generated_id_that_exists_ends_no_session_on_a_custom_store() {
    let (store, next) = (Map::new(), Arc::new(Mutex::new("one")));
    let generated = Arc::clone(&next);
    let layer = express(&Cache::in_memory()).store(Arc::clone(&store));
    let layer = layer.generate_id(move || (*generated.lock().unwrap()).to_owned()).build().unwrap();
    let (first, second) = (Browser::default(), Browser::default());
    first.set(&layer, "cart", 1).await;
    *next.lock().unwrap() = "two";
    second.set(&layer, "cart", 2).await;
    *next.lock().unwrap() = "one";
    let page = second.visit(&layer, |session: Session| async move { session.cycle_id().await.map(|()| 200) });
    assert_eq!(page.await.status, 500);
    assert_eq!((first.get(&layer, "cart").await, second.get(&layer, "cart").await), (Some(1), Some(2)));
    assert_eq!(store.sessions().len(), 2);
}

#[tokio::test]
async fn a_login_that_was_not_stored_takes_no_place_in_the_list_of_a_custom_store() {
    let (store, asked) = (Map::new(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&asked);
    // The first of them is somebody's already.
    let id = move || if counted.fetch_add(1, Ordering::SeqCst) < 2 { "one".to_owned() } else { "two".to_owned() };
    let layer = express(&Cache::in_memory()).store(Arc::clone(&store)).max_sessions(1, TooMany::Refuse);
    let layer = layer.generate_id(id).build().unwrap();
    Browser::default().set(&layer, "cart", 1).await;
    asked.store(0, Ordering::SeqCst);
    assert_eq!(login(&Browser::default(), &layer).await.status, 200);
    assert!(asked.load(Ordering::SeqCst) > 2, "the first id was tried");
    assert_eq!((store.logins(), layer.of_user("ada").list().await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn a_session_restored_by_an_express_peer_is_ended_on_a_custom_store() {
    let store = Map::new();
    let layer = express(&Cache::in_memory()).store(Arc::clone(&store)).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "cart", 3).await;
    let key = format!("sess:{}", browser.id("connect.sid").unwrap());
    let read_before = store.load(&key).await.unwrap().unwrap().bytes;
    let copy = browser.copy();
    browser.visit(&layer, |session| async move { session.destroy().await.map(|()| 200) }).await;
    assert!(store.create(&key, &read_before, None).await.unwrap());
    assert_eq!(copy.get(&layer, "cart").await, None);
    assert_eq!(store.load(&key).await.unwrap(), None);
}

#[tokio::test]
async fn operations_on_all_sessions_are_refused_on_a_custom_store() {
    let store = Map::new();
    let layer = on(&store);
    login(&Browser::default(), &layer).await;
    let all = layer.all();
    let kinds = [
        all.length().await.unwrap_err().kind(),
        all.handles().await.unwrap_err().kind(),
        all.list().await.unwrap_err().kind(),
        all.clear().await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [SessionErrorKind::Unsupported; 4]);
    assert_eq!(store.logins(), 1);
}

#[tokio::test]
async fn a_custom_store_that_fails_or_hangs_is_a_503_within_the_deadline() {
    let (store, clock) = (Map::new(), Clock::manual());
    let cache = Cache::builder().clock(clock.clone()).in_memory();
    let deadline = Duration::from_secs(7);
    let layer = native(&cache).store(Arc::clone(&store)).deadline(deadline).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "a", 1).await;
    store.begin(Plan::FailBefore(0));
    let page = browser.set(&layer, "a", 2).await;
    assert_eq!((page.status, page.cookies.len()), (503, 0));
    let gate = Gate::shut();
    store.begin(Plan::Hold(0, gate.clone()));
    let (slow, there) = (browser.copy(), layer.clone());
    let request = tokio::spawn(async move {
        slow.visit(&there, |session| async move { session.insert("a", &3).await.map(|()| 200) }).await.status
    });
    soon("it waits", gate.arrival()).await;
    clock.advance(deadline);
    assert_eq!(soon("its answer", request).await.unwrap(), 503);
    store.heal();
    assert_eq!(browser.get(&layer, "a").await, Some(1));
}
