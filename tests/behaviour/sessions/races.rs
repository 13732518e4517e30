//! Concurrent requests of one session: no change is lost, no ended session comes back, and no id
//! outlives its session.

use std::sync::Arc;
use std::time::Duration;

use cache_core::session::{Session, SessionError, SessionErrorKind, SessionLayer};
use futures::future::join_all;
use support::{Gate, Nodes, on_both_stores, soon};

use super::client::{Browser, Page, express, native};

/// The ways in which a request can end or replace a session.
#[derive(Debug, Clone, Copy)]
enum End {
    Destroy,
    Logout,
    Regenerate,
    Cycle,
    Login,
}

const ENDS: [End; 5] = [End::Destroy, End::Logout, End::Regenerate, End::Cycle, End::Login];

async fn end(session: &Session, how: End) -> Result<(), SessionError> {
    match how {
        End::Destroy => session.destroy().await,
        End::Logout => session.logout().await,
        End::Regenerate => session.regenerate().await,
        End::Cycle => session.cycle_id().await,
        End::Login => session.login("ada").await,
    }
}

/// The actions of an overlapping request.
#[derive(Debug, Clone, Copy)]
enum Overlap {
    Insert,
    Increment,
    Push,
    Remove,
    Pop,
    Clear,
    Read,
    Touch,
    MaxAge,
    Save,
}

const OVERLAPS: [Overlap; 10] = [
    Overlap::Insert,
    Overlap::Increment,
    Overlap::Push,
    Overlap::Remove,
    Overlap::Pop,
    Overlap::Clear,
    Overlap::Read,
    Overlap::Touch,
    Overlap::MaxAge,
    Overlap::Save,
];

async fn overlap(session: &Session, what: Overlap) -> Result<(), SessionError> {
    match what {
        Overlap::Insert => session.insert("other", &1).await,
        Overlap::Increment => session.increment("views", 1).await.map(drop),
        Overlap::Push => session.push("list", &1).await,
        Overlap::Remove => session.remove("views").await,
        Overlap::Pop => session.pop::<i64>("views").await.map(drop),
        Overlap::Clear => session.clear().await,
        Overlap::Read => session.get::<i64>("views").await.map(drop),
        Overlap::Touch => session.touch().await,
        Overlap::MaxAge => session.set_max_age(Duration::from_secs(60)).await,
        Overlap::Save => {
            session.insert("other", &1).await?;
            match session.save().await {
                Err(error) if error.kind() == SessionErrorKind::Gone => Ok(()),
                saved => saved,
            }
        }
    }
}

/// Starts a request that has read its session and waits in the middle until the gate is opened.
fn stopped(
    browser: &Browser,
    layer: &SessionLayer,
    gate: &Gate,
    what: Overlap,
) -> impl Future<Output = Page> + Send + use<> {
    let (browser, layer, gate) = (browser.copy(), layer.clone(), gate.clone());
    async move {
        browser
            .visit(&layer, move |session| async move {
                session.get::<i64>("views").await?;
                gate.pass().await;
                overlap(&session, what).await?;
                Ok(200)
            })
            .await
    }
}

async fn nothing_comes_back(nodes: &Nodes, layer: &SessionLayer, how: End, what: Overlap) {
    let browser = Browser::default();
    browser.set(layer, "views", 1).await;
    let (old, gate) = (browser.copy(), Gate::shut());
    let late = tokio::spawn(stopped(&browser, layer, &gate, what));
    soon("the late one has read", gate.arrival()).await;
    let page = browser.visit(layer, move |session| async move { end(&session, how).await.map(|()| 200) }).await;
    assert_eq!(page.status, 200, "{how:?} against {what:?}");
    gate.let_through(1);
    let page = soon("the late one is answered", late).await.unwrap();
    assert_eq!((page.status, page.cookies.len()), (200, 0), "{how:?} against {what:?}: {page:?}");
    assert_eq!(old.get(layer, "views").await, None, "{how:?} against {what:?}: the old id is dead");
    let keeps = matches!(how, End::Cycle | End::Login);
    assert_eq!(browser.get(layer, "views").await, keeps.then_some(1), "{how:?} against {what:?}");
    assert_eq!(browser.get(layer, "other").await, None);
    let _ = nodes;
}

on_both_stores! {
    async fn no_overlapping_request_brings_an_ended_session_back(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in [express(&cache).build().unwrap(), native(&cache).build().unwrap()] {
            for how in ENDS {
                for what in OVERLAPS {
                    nothing_comes_back(nodes, &layer, how, what).await;
                }
            }
        }
    }

    async fn a_login_is_not_lost_to_an_overlapping_request(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        for what in OVERLAPS {
            // The overlapping request is written first, so that the login is made from the changed
            // session.
            let (browser, gate) = (Browser::default(), Gate::shut());
            browser.set(&layer, "views", 1).await;
            let (other, entered) = (browser.copy(), gate.clone());
            let (user, layer_of_user) = (browser.clone(), layer.clone());
            let login = tokio::spawn(async move {
                user.visit(&layer_of_user, move |session| async move {
                    session.login("ada").await?;
                    entered.pass().await;
                    Ok(200)
                })
                .await
            });
            soon("the login is under way", gate.arrival()).await;
            other.visit(&layer, move |session| async move { overlap(&session, what).await.map(|()| 200) }).await;
            gate.let_through(1);
            let page = soon("the login", login).await.unwrap();
            assert_eq!((page.status, page.cookies.len()), (200, 1), "{what:?}");
            let page = browser.visit(&layer, move |session| async move {
                assert_eq!(session.user().await?.as_deref(), Some("ada"), "{what:?}");
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
            assert_eq!(other.get(&layer, "views").await, None, "{what:?}: the old id is dead");
        }
    }

    async fn writers_of_different_values_keep_both(nodes: &Nodes) {
        let (one, two) = (nodes.node().await, nodes.node().await);
        // In one process, and in two.
        for other in [one.clone(), two] {
            let (layer, other) = (express(&one).build().unwrap(), express(&other).build().unwrap());
            let (browser, gate) = (Browser::default(), Gate::shut());
            browser.set(&layer, "views", 1).await;
            let late = tokio::spawn(stopped(&browser, &layer, &gate, Overlap::Insert));
            soon("the late one has read", gate.arrival()).await;
            browser.set(&other, "cart", 5).await;
            browser.set(&other, "views", 2).await;
            gate.let_through(1);
            soon("the late one", late).await.unwrap();
            let found = [browser.get(&layer, "views").await, browser.get(&layer, "cart").await, browser.get(&layer, "other").await];
            assert_eq!(found, [Some(2), Some(5), Some(1)]);
        }
    }

    async fn a_request_that_only_reads_writes_nothing_over_a_login(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).resave(true).build().unwrap();
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&layer, "views", 1).await;
        let late = tokio::spawn(stopped(&browser, &layer, &gate, Overlap::Read));
        soon("the late one has read", gate.arrival()).await;
        browser.set(&layer, "user", 7).await;
        gate.let_through(1);
        soon("the late one", late).await.unwrap();
        assert_eq!(browser.get(&layer, "user").await, Some(7));
    }

    async fn a_popped_value_is_returned_to_exactly_one_request(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&layer, "note", 1).await;
        let given = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let requests = (0..10).map(|_| {
            let (browser, layer, gate, given) = (browser.copy(), layer.clone(), gate.clone(), Arc::clone(&given));
            tokio::spawn(async move {
                browser
                    .visit(&layer, move |session| async move {
                        assert_eq!(session.get::<i64>("note").await?, Some(1));
                        gate.pass().await;
                        if session.pop::<i64>("note").await?.is_some() {
                            given.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        }
                        Ok(200)
                    })
                    .await
            })
        });
        let requests: Vec<_> = requests.collect();
        for _ in 0..10 {
            soon("one has read", gate.arrival()).await;
        }
        gate.let_through(10);
        for page in soon("all", join_all(requests)).await {
            assert_eq!(page.unwrap().status, 200);
        }
        assert_eq!(given.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    async fn parallel_logins_all_succeed_and_leave_one_session_each(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "cart", 3).await;
        let logins = (0..5).map(|_| {
            let (browser, layer) = (browser.copy(), layer.clone());
            async move {
                let page = browser.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
                assert_eq!((page.status, page.cookies.len()), (200, 1));
                browser.get(&layer, "cart").await
            }
        });
        let carts = soon("all", join_all(logins)).await;
        assert_eq!(browser.get(&layer, "cart").await, None, "the old id is dead");
        // The login that found the session still existing has taken its cart. The cart was not
        // copied.
        assert_eq!(carts.iter().filter(|cart| **cart == Some(3)).count(), 1, "{carts:?}");
        assert_eq!(layer.of_user("ada").list().await.unwrap().len(), 5);
    }
}

/// Sends this many requests, each adding one, over two processes.
async fn increments(nodes: &Nodes, parallel: usize, each: usize) {
    let mut layers = Vec::new();
    for _ in 0..2 {
        layers.push(express(&nodes.node().await).build().unwrap());
    }
    let browser = Browser::default();
    browser.set(&layers[0], "views", 0).await;
    let tasks = (0..parallel).map(|task| {
        let (browser, layer) = (browser.clone(), layers[task % 2].clone());
        tokio::spawn(async move {
            for _ in 0..each {
                let page = browser
                    .visit(&layer, |session| async move { session.increment("views", 1).await.map(|_| 200) })
                    .await;
                assert_eq!(page.status, 200);
            }
        })
    });
    for task in join_all(tasks.collect::<Vec<_>>()).await {
        task.unwrap();
    }
    assert_eq!(browser.get(&layers[1], "views").await, i64::try_from(parallel * each).ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_increments_are_exact_embedded() {
    increments(&Nodes::embedded(), 32, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_increments_are_exact_redis() {
    increments(&Nodes::redis(), 32, 1000).await;
}
