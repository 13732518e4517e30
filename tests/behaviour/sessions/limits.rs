//! The limit on the sessions of a user, under concurrency.

use std::time::Duration;

use cache_core::session::{SessionErrorKind, SessionLayer, TooMany};
use futures::future::join_all;
use support::{Gate, on_both_stores, soon};

use super::client::{Browser, express, native};

const LOGINS: usize = 8;
const MOST: usize = 3;

/// Logs in this many times at once as one user, each on a device of its own, over two processes.
/// None gets its response before all have logged in. Returns the devices, and whether each was
/// admitted.
async fn logins(layers: &[SessionLayer; 2]) -> Vec<(Browser, bool)> {
    let gate = Gate::shut();
    let requests = (0..LOGINS).map(|index| {
        let (device, layer, gate) = (Browser::default(), layers[index % 2].clone(), gate.clone());
        tokio::spawn(async move {
            let (send, receive) = tokio::sync::oneshot::channel();
            let page = device.visit(&layer, move |session| async move {
                session.insert("device", &index).await?;
                let login = session.login("ada").await;
                gate.pass().await;
                if let Err(error) = &login {
                    assert_eq!(error.kind(), SessionErrorKind::TooManySessions);
                }
                send.send(login.is_ok()).unwrap();
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
            (device, receive.await.unwrap())
        })
    });
    let requests: Vec<_> = requests.collect();
    for _ in 0..LOGINS {
        gate.arrival().await;
    }
    gate.let_through(LOGINS);
    soon("all are answered", join_all(requests)).await.into_iter().map(Result::unwrap).collect()
}

/// Returns how many of the devices are logged in.
async fn logged_in(layer: &SessionLayer, devices: &[(Browser, bool)]) -> usize {
    let mut count = 0;
    for (device, _) in devices {
        let (send, receive) = tokio::sync::oneshot::channel();
        let page = device.visit(layer, move |session| async move {
            send.send(session.user().await?.is_some()).unwrap();
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
        count += usize::from(receive.await.unwrap());
    }
    count
}

on_both_stores! {
    async fn concurrent_logins_never_exceed_the_limit(nodes: &Nodes) {
        let (one, two) = (nodes.node().await, nodes.node().await);
        for build in [express, native] {
            let layers = [&one, &two].map(|cache| build(cache).max_sessions(MOST, TooMany::Refuse).build().unwrap());
            let devices = logins(&layers).await;
            assert_eq!(devices.iter().filter(|(_, let_in)| *let_in).count(), MOST);
            assert_eq!(logged_in(&layers[0], &devices).await, MOST);
            assert_eq!(layers[0].of_user("ada").list().await.unwrap().len(), MOST);
            // The data that a refused device has put into its session are kept, but the session is
            // not logged in.
            for (index, (device, let_in)) in devices.iter().enumerate() {
                assert_eq!(device.get(&layers[0], "device").await, i64::try_from(index).ok(), "let in: {let_in}");
            }
            assert_eq!(layers[0].of_user("ada").end_all().await.unwrap(), MOST);
        }
    }

    async fn concurrent_logins_leave_as_many_sessions_as_the_limit(nodes: &Nodes) {
        let (one, two) = (nodes.node().await, nodes.node().await);
        for build in [express, native] {
            let layers = [&one, &two].map(|cache| build(cache).max_sessions(MOST, TooMany::EndOldest).build().unwrap());
            let devices = logins(&layers).await;
            assert!(devices.iter().all(|(_, let_in)| *let_in));
            assert_eq!(logged_in(&layers[0], &devices).await, MOST);
            assert_eq!(layers[0].of_user("ada").list().await.unwrap().len(), MOST);
            assert_eq!(layers[0].of_user("ada").end_all().await.unwrap(), MOST);
        }
    }

    async fn a_login_that_was_refused_leaves_the_session_as_it_was(nodes: &Nodes) {
        let cache = nodes.node().await;
        for build in [express, native] {
            let layer = build(&cache).max_sessions(1, TooMany::Refuse).build().unwrap();
            let (first, second) = (Browser::default(), Browser::default());
            for (device, user) in [(&first, "ada"), (&second, "bob")] {
                device.visit(&layer, move |session| async move { session.login(user).await.map(|()| 200) }).await;
            }
            let before = second.copy();
            let page = second.visit(&layer, |session| async move {
                session.insert("cart", &1).await?;
                let error = session.login("ada").await.unwrap_err();
                assert_eq!(error.kind(), SessionErrorKind::TooManySessions);
                session.insert("wish", &2).await?;
                assert_eq!(session.user().await?.as_deref(), Some("bob"));
                assert_eq!(session.get("cart").await?, Some(1));
                Ok(200)
            });
            let page = page.await;
            assert_eq!((page.status, page.cookies.len()), (200, 0), "the id is what it was");
            assert_eq!((before.get(&layer, "cart").await, before.get(&layer, "wish").await), (Some(1), Some(2)));
            // The user of the session may log in again. The id changes.
            let page = second.visit(&layer, |session| async move { session.login("bob").await.map(|()| 200) });
            assert_eq!(page.await.cookies.len(), 1);
            assert_eq!((before.get(&layer, "cart").await, second.get(&layer, "cart").await), (None, Some(1)));
            for user in ["ada", "bob"] {
                assert_eq!(layer.of_user(user).end_all().await.unwrap(), 1);
            }
        }
    }

    async fn a_login_that_is_stored_at_once_lasts_whatever_is_answered(nodes: &Nodes) {
        let cache = nodes.node().await;
        for build in [express, native] {
            let layer = build(&cache).max_sessions(1, TooMany::Refuse).build().unwrap();
            let device = Browser::default();
            let page = device.visit(&layer, |session| async move {
                session.login("ada").await?;
                session.insert("lost", &1).await?;
                Ok(500)
            });
            assert_eq!(page.await.cookies.len(), 1, "otherwise the session would be unreachable and its place lost");
            let devices = [(device, true)];
            assert_eq!((logged_in(&layer, &devices).await, devices[0].0.get(&layer, "lost").await), (1, None));
            layer.of_user("ada").end_all().await.unwrap();
        }
    }

    async fn replacing_an_own_session_does_not_exceed_the_limit(nodes: &Nodes) {
        let cache = nodes.node().await;
        for then in [TooMany::Refuse, TooMany::EndOldest] {
            for build in [express, native] {
                let layer = build(&cache).max_sessions(2, then).build().unwrap();
                let (device, other) = (Browser::default(), Browser::default());
                for device in [&device, &other] {
                    device.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
                }
                let old = device.copy();
                let page = device.visit(&layer, |session| async move {
                    session.regenerate().await?;
                    session.login("ada").await?;
                    session.insert("new", &1).await?;
                    Ok(200)
                });
                assert_eq!(page.await.cookies.len(), 1, "{then:?}");
                assert_eq!((device.get(&layer, "new").await, old.get(&layer, "new").await), (Some(1), None));
                // The id changes without a login.
                device.visit(&layer, |session| async move { session.cycle_id().await.map(|()| 200) }).await;
                let devices = [(device, true), (other, true), (old, false)];
                assert_eq!(logged_in(&layer, &devices).await, 2, "{then:?}");
                assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 2);
            }
        }
    }

    async fn an_expired_session_leaves_its_place_to_another(nodes: &Nodes) {
        let cache = nodes.node().await;
        for then in [TooMany::Refuse, TooMany::EndOldest] {
            let layer = express(&cache).ttl(Duration::from_secs(60)).max_sessions(2, then).build().unwrap();
            let devices = [Browser::default(), Browser::default(), Browser::default()];
            for (index, device) in devices.iter().enumerate() {
                let page = device.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) });
                assert_eq!(page.await.status, 200, "{then:?}, {index}");
                if index == 0 {
                    // Deleted in the store directly, so that its entry stays.
                    nodes.delete_by_hand(&format!("sess:{}", device.id("connect.sid").unwrap())).await;
                }
            }
            assert!(devices[1].stored(&cache).await.is_some() && devices[2].stored(&cache).await.is_some());
            assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 2);
        }
    }
}
