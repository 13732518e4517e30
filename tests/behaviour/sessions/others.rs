//! Cases from the test suites of other session systems that no other test here covers.

use std::time::Duration;

use axum::response::IntoResponse as _;
use cache_core::Cache;
use cache_core::session::{CookieOptions, Session, SessionErrorKind, SessionLayer};
use futures::future::{join, join_all};
use support::{Gate, Nodes, Proxy, RedisServer, on_both_stores, soon};
use tower::{Layer as _, ServiceExt as _};

use super::client::{Browser, express, native};

fn both(cache: &Cache) -> [SessionLayer; 2] {
    [express(cache).build().unwrap(), native(cache).build().unwrap()]
}

async fn login(browser: &Browser, layer: &SessionLayer, user: &'static str) {
    let page = browser.visit(layer, move |session| async move { session.login(user).await.map(|()| 200) }).await;
    assert_eq!(page.status, 200);
}

on_both_stores! {
    async fn a_layer_within_another_leaves_the_session_to_it(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (outer, inner) = (native(&cache).build().unwrap(), native(&cache).native_name("__Host-in").build().unwrap());
        let handler = tower::service_fn(|request: http::Request<()>| async move {
            request.extensions().get::<Session>().unwrap().insert("views", &1).await.unwrap();
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        });
        let service = outer.layer(inner.layer(handler));
        let response = service.oneshot(http::Request::new(())).await.unwrap();
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies.len(), 1);
        assert!(cookies[0].to_str().unwrap().starts_with("__Host-id="));
        assert_eq!(cache.stats().sessions.created, 1);
    }

    async fn an_id_that_cannot_be_one_is_an_error(nodes: &Nodes) {
        let cache = nodes.node().await;
        for bad in ["", "a b", "a\r\nSet-Cookie: b=c"] {
            let layer = express(&cache).generate_id(move || bad.to_owned()).build().unwrap();
            let page = Browser::default().set(&layer, "views", 1).await;
            assert_eq!((page.status, page.cookies.len()), (500, 0), "{bad:?}");
        }
        assert_eq!(cache.stats().sessions.created, 0);
    }

    async fn a_slow_write_sends_the_expiry_of_its_end(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let cookie = CookieOptions::new().max_age(Duration::from_secs(600));
        let layer = express(&cache).cookie(cookie).build().unwrap();
        let browser = Browser::default();
        let before = browser.copy().set(&layer, "views", 1).await.cookies;
        let later = clock.clone();
        let page = browser.visit(&layer, move |session| async move {
            session.insert("views", &1).await?;
            later.advance(Duration::from_secs(3600));
            Ok(200)
        });
        let after = page.await.cookies;
        let hour = |cookie: &str| {
            let (_, time) = cookie.split_once(' ').unwrap().1.split_once("Expires=").unwrap();
            time.split(' ').nth(4).unwrap()[..2].parse::<u32>().unwrap()
        };
        assert_eq!((hour(&before[0]) + 1) % 24, hour(&after[0]), "{before:?} {after:?}");
    }

    async fn a_member_called_cookie_inside_of_a_value_counts(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        for taste in ["plain", "chocolate"] {
            let page = browser.visit(&layer, move |session| async move {
                session.insert("user", &serde_json::json!({"cookie": taste})).await.map(|()| 200)
            });
            assert_eq!(page.await.status, 200);
            assert!(browser.stored(&cache).await.unwrap().ends_with(&format!(r#""user":{{"cookie":"{taste}"}}}}"#)));
        }
    }

    async fn a_session_that_has_ended_cannot_be_reloaded_or_saved(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            for save in [false, true] {
                let (browser, gate) = (Browser::default(), Gate::shut());
                browser.set(&layer, "views", 1).await;
                let (late, entered, of_late) = (browser.copy(), gate.clone(), layer.clone());
                let request = tokio::spawn(async move {
                    late.visit(&of_late, move |session| async move {
                        session.insert("views", &2).await?;
                        entered.pass().await;
                        let result = if save { session.save().await } else { session.reload().await };
                        assert_eq!(result.unwrap_err().kind(), SessionErrorKind::Gone);
                        // A later insert does not bring it back either.
                        session.insert("views", &3).await?;
                        assert_eq!(session.save().await.unwrap_err().kind(), SessionErrorKind::Gone);
                        Ok(200)
                    })
                    .await
                });
                soon("it has read", gate.arrival()).await;
                browser.copy().visit(&layer, |session| async move { session.destroy().await.map(|()| 200) }).await;
                gate.let_through(1);
                assert_eq!(soon("it", request).await.unwrap().status, 200);
                assert_eq!(browser.get(&layer, "views").await, None);
            }
        }
    }

    async fn a_session_that_expires_during_its_request_is_not_created_again(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let browser = Browser::default();
            browser.set(&layer, "views", 1).await;
            let later = clock.clone();
            let page = browser.visit(&layer, move |session| async move {
                session.get::<i64>("views").await?;
                later.advance(Duration::from_secs(90_000));
                session.insert("views", &2).await?;
                Ok(200)
            });
            let page = page.await;
            assert_eq!((page.status, page.cookies.iter().filter(|cookie| !cookie.contains("1970")).count()), (200, 0));
            assert_eq!(browser.get(&layer, "views").await, None);
        }
    }

    async fn a_session_without_its_last_value_stays(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let browser = Browser::default();
            browser.set(&layer, "views", 1).await;
            let page = browser.visit(&layer, |session| async move { session.remove("views").await.map(|()| 200) });
            assert_eq!(page.await.status, 200);
            let page = browser.visit(&layer, |session| async move {
                assert!(!session.is_new().await?);
                assert_eq!(session.get::<i64>("views").await?, None);
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
        }
    }

    async fn a_cookie_is_removed_with_the_attributes_it_came_with(nodes: &Nodes) {
        let cache = nodes.node().await;
        let cookie = CookieOptions::new().domain("example.com").path("/shop");
        let layer = native(&cache).native_name("id").cookie(cookie).build().unwrap();
        let browser = Browser::default().at("/shop/cart");
        let came = browser.set(&layer, "views", 1).await.cookies.remove(0);
        let page = browser.visit(&layer, |session| async move { session.logout().await.map(|()| 200) });
        let gone = page.await.cookies.remove(0);
        let attributes = |cookie: &str| {
            let parts = cookie.split("; ").skip(1).filter(|part| !part.starts_with("Expires=")).map(str::to_owned);
            parts.collect::<Vec<_>>()
        };
        assert_eq!(attributes(&came), ["Domain=example.com", "Path=/shop", "HttpOnly", "Secure", "SameSite=Lax"]);
        assert_eq!(attributes(&gone), attributes(&came));
        assert!(gone.starts_with("id=; "), "{gone}");
    }

    async fn an_id_changes_twice_on_a_new_session_and_with_values(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            // For a new session: nothing is stored for the change of its id alone.
            let browser = Browser::default();
            let page = browser.visit(&layer, |session| async move { session.cycle_id().await.map(|()| 200) });
            assert!(page.await.cookies.is_empty());
            let page = browser.visit(&layer, |session| async move {
                session.insert("a", &1).await?;
                session.cycle_id().await?;
                session.insert("b", &2).await?;
                session.cycle_id().await?;
                session.remove("a").await?;
                Ok(200)
            });
            assert_eq!(page.await.cookies.len(), 1);
            assert_eq!((browser.get(&layer, "a").await, browser.get(&layer, "b").await), (None, Some(2)));
            // For an existing session, with a write in between.
            let old = browser.copy();
            let page = browser.visit(&layer, |session| async move {
                session.cycle_id().await?;
                session.save().await?;
                let between = session.id().await?;
                session.cycle_id().await?;
                assert_ne!(session.id().await?, between);
                session.insert("c", &3).await?;
                Ok(200)
            });
            assert_eq!(page.await.cookies.len(), 1);
            assert_eq!((browser.get(&layer, "b").await, browser.get(&layer, "c").await), (Some(2), Some(3)));
            assert_eq!(old.get(&layer, "b").await, None);
        }
        assert_eq!(cache.stats().sessions.created, 2);
    }

    async fn an_id_that_several_requests_change_has_one_successor(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let browser = Browser::default();
            browser.set(&layer, "views", 1).await;
            let gate = Gate::shut();
            let requests = join_all((0..5).map(|_| {
                let (browser, gate, layer) = (browser.copy(), gate.clone(), layer.clone());
                async move {
                    let page = browser.visit(&layer, move |session| async move {
                        session.cycle_id().await?;
                        gate.pass().await;
                        Ok(200)
                    });
                    (page.await.status, browser.get(&layer, "views").await)
                }
            }));
            let all_have_read = async {
                for _ in 0..5 {
                    gate.arrival().await;
                }
                gate.let_through(5);
            };
            let (ended, ()) = soon("all", join(requests, all_have_read)).await;
            assert!(ended.iter().all(|(status, _)| *status == 200), "{ended:?}");
            assert_eq!(ended.iter().filter(|(_, views)| views.is_some()).count(), 1, "{ended:?}");
            assert_eq!(browser.get(&layer, "views").await, None, "the id of before");
        }
    }

    async fn an_anonymous_session_is_in_no_list(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            Browser::default().set(&layer, "views", 1).await;
            for name in ["", "null", "undefined"] {
                assert_eq!(layer.of_user(name).list().await.unwrap(), []);
            }
            if let Nodes::Redis(server) = nodes {
                assert_eq!(server.cli(&["KEYS", "cache:sidx:*"]).trim(), "");
            }
        }
    }

    async fn a_session_that_changes_its_user_is_in_one_list(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let browser = Browser::default();
            for user in ["ada", "bob", "ada"] {
                login(&browser, &layer, user).await;
                for name in ["ada", "bob"] {
                    assert_eq!(layer.of_user(name).list().await.unwrap().len(), usize::from(name == user));
                }
            }
            layer.of_user("ada").end_all().await.unwrap();
        }
    }

    async fn a_thousand_sessions_of_a_user_are_listed_and_ended(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        for _ in 0..20 {
            let devices: Vec<Browser> = (0..50).map(|_| Browser::default()).collect();
            join_all(devices.iter().map(|device| login(device, &layer, "ada"))).await;
        }
        let ada = layer.of_user("ada");
        assert_eq!(ada.list().await.unwrap().len(), 1000);
        assert_eq!(ada.end_all().await.unwrap(), 1000);
        assert_eq!(ada.list().await.unwrap().len(), 0);
    }

    async fn an_expiry_in_the_past_stores_nothing(nodes: &Nodes) {
        let cache = nodes.node().await;
        let past = cache_core::clock::Timestamp::from_millis(1000);
        for builder in [express(&cache), native(&cache)] {
            let layer = builder.cookie(CookieOptions::new().expires(past)).build().unwrap();
            let browser = Browser::default();
            assert_eq!(browser.set(&layer, "views", 1).await.status, 200);
            assert_eq!(browser.get(&layer, "views").await, None);
        }
        assert_eq!(cache.stats().sessions.created, 0);
    }
}

#[tokio::test]
async fn an_error_says_nothing_to_the_client() {
    let cache = Cache::in_memory();
    let layer = native(&cache).build().unwrap();
    let browser = Browser::default();
    let page = browser.visit(&layer, |session| async move {
        session.insert("word", "mellon").await?;
        let response = session.get::<i64>("word").await.unwrap_err().into_response();
        assert_eq!(response.status(), 500);
        assert!(axum::body::to_bytes(response.into_body(), 1000).await.unwrap().is_empty());
        Ok(200)
    });
    assert_eq!(page.await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_that_fails_is_an_error_for_the_client() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let settings = Cache::builder().response_timeout(Duration::from_millis(200));
    let cache = settings.url(proxy.url()).connect().await.unwrap();
    let layer = native(&cache).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "views", 1).await;
    let page = browser.visit(&layer, move |session| async move {
        session.touch().await?;
        proxy.cut();
        Ok(200)
    });
    let page = page.await;
    assert_eq!((page.status, page.cookies.len()), (503, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_dropped_half_way_leave_each_session_whole_and_its_own() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = Cache::connect(&proxy.url()).await.unwrap();
    let layer = native(&cache).build().unwrap();
    let (one, two) = (Browser::default(), Browser::default());
    one.set(&layer, "views", 0).await;
    two.set(&layer, "views", 1_000_000).await;
    // Requests take long enough to be dropped on the way to the server or on the way back.
    proxy.delay(Duration::from_millis(3));
    let mut dropped = 0;
    for polls in 1..40_u64 {
        let count = |browser: Browser| {
            let layer = layer.clone();
            async move {
                browser.visit(&layer, |session| async move { session.increment("views", 1).await.map(|_| 200) }).await
            }
        };
        let given_up = tokio::time::timeout(Duration::from_micros(polls * 400), count(one.clone())).await.is_err();
        dropped += u64::from(given_up);
        // On the same connection: a reply to the dropped request would be another user's session.
        assert_eq!(count(two.clone()).await.status, 200);
        assert_eq!(two.get(&layer, "views").await, Some(1_000_000 + i64::try_from(polls).unwrap()));
    }
    proxy.heal();
    assert!(dropped > 5, "{dropped} were dropped");
    let counted = u64::try_from(one.get(&layer, "views").await.unwrap()).unwrap();
    assert!((39 - dropped..=39).contains(&counted), "{counted} counted, {dropped} dropped");
}
