//! Two applications on one store: a namespace isolates sessions like everything else.

use std::time::Duration;

use cache_core::Cache;
use cache_core::events::{Event, SessionEvent};
use cache_core::session::SessionBuilder;
use support::{Nodes, on_both_stores, soon};
use tokio::sync::broadcast::Receiver;

use super::client::{Browser, express, native};

async fn told(events: &mut Receiver<Event>, what: fn(&SessionEvent) -> bool) {
    soon("it is reported", async {
        while !matches!(events.recv().await.unwrap(), Event::Session(event) if what(&event)) {}
    })
    .await;
}

async fn log_in(browser: &Browser, layer: &cache_core::session::SessionLayer) {
    let page = browser.visit(layer, |session| async move {
        session.insert("views", &1).await?;
        session.login("7").await.map(|()| 200)
    });
    assert_eq!(page.await.status, 200);
}

async fn user(browser: &Browser, layer: &cache_core::session::SessionLayer) -> Option<String> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let page = browser.visit(layer, move |session| async move {
        send.send(session.user().await?).unwrap();
        Ok(200)
    });
    assert_eq!(page.await.status, 200);
    receive.await.unwrap()
}

on_both_stores! {
    async fn sessions_of_two_namespaces_with_one_secret_never_meet(nodes: &Nodes) {
        // N6
        let shop = nodes.node_with(Cache::builder().namespace("shop")).await;
        let blog = nodes.node_with(Cache::builder().namespace("blog")).await;
        let (in_shop, in_blog) = (native(&shop).build().unwrap(), native(&blog).build().unwrap());
        let (ada, bob) = (Browser::default(), Browser::default());
        log_in(&ada, &in_shop).await;
        log_in(&bob, &in_blog).await;
        assert_eq!((user(&ada, &in_blog).await, user(&bob, &in_shop).await), (None, None));
        for (layer, one) in [(&in_shop, &ada), (&in_blog, &bob)] {
            assert_eq!((layer.of_user("7").list().await.unwrap().len(), layer.all().length().await.unwrap()), (1, 1));
            assert_eq!(user(one, layer).await.as_deref(), Some("7"));
        }
        assert_eq!(in_shop.of_user("7").end_all().await.unwrap(), 1);
        assert_eq!(user(&bob, &in_blog).await.as_deref(), Some("7"));
        assert_eq!(in_shop.all().clear().await.unwrap(), 0);
        assert_eq!(user(&bob, &in_blog).await.as_deref(), Some("7"));
    }

    async fn a_prefix_shared_with_express_is_reported_and_users_are_not_mixed_up(nodes: &Nodes) {
        // N6
        let shop = nodes.node_with(Cache::builder().namespace("shop")).await;
        let blog = nodes.node_with(Cache::builder().namespace("blog")).await;
        let build = |cache: &Cache, prefix: &str| express(cache).prefix(prefix).build().unwrap();
        let in_shop = build(&shop, "sess:");
        let ada = Browser::default();
        // This login also ensures that the owner of the prefix is recorded.
        log_in(&ada, &in_shop).await;
        let mut events = blog.subscribe();
        let in_blog = build(&blog, "sess:");
        told(&mut events, |event| *event == SessionEvent::SharedPrefix).await;
        // The stored data are shared. The logged-in user is not, and neither are lists.
        assert_eq!((user(&ada, &in_shop).await.as_deref(), user(&ada, &in_blog).await), (Some("7"), None));
        assert_eq!(ada.get(&in_blog, "views").await, Some(1));
        assert_eq!((in_blog.of_user("7").list().await.unwrap().len(), in_blog.of_user("7").end_all().await.unwrap()), (0, 0));
        assert_eq!(in_shop.of_user("7").list().await.unwrap().len(), 1);
        // With different prefixes, or with the same namespace, there is nothing to report. A
        // shutdown ends an embedded store for all of its nodes.
        if matches!(nodes, Nodes::Embedded(..)) {
            return;
        }
        let (again, other, third) = (
            nodes.node_with(Cache::builder().namespace("shop")).await,
            nodes.node_with(Cache::builder().namespace("blog")).await,
            nodes.node_with(Cache::builder().namespace("blog")).await,
        );
        for (cache, prefix, shared) in [(again, "sess:", false), (other, "blog:", false), (third, "sess:", true)] {
            let mut events = cache.subscribe();
            drop(build(&cache, prefix));
            // It waits for the check, which runs in the background.
            cache.shutdown().await;
            let mut told = false;
            while let Ok(event) = events.try_recv() {
                told |= matches!(event, Event::Session(SessionEvent::SharedPrefix));
            }
            assert_eq!(told, shared, "{prefix}");
        }
    }

    async fn the_remaining_time_is_returned(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let minute = Duration::from_secs(60);
        let layers = |builder: SessionBuilder| builder.ttl(minute * 60).build().unwrap();
        for layer in [layers(express(&cache)), layers(native(&cache))] {
            let browser = Browser::default();
            let of_request = clock.clone();
            let page = browser.visit(&layer, move |session| async move {
                assert_eq!(session.expires_in().await?, None);
                session.insert("views", &1).await?;
                session.save().await?;
                assert_eq!(session.expires_in().await?, Some(minute * 60));
                of_request.advance(minute);
                assert_eq!(session.expires_in().await?, Some(minute * 59));
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
            clock.advance(minute);
            let of_request = clock.clone();
            let page = browser.visit(&layer, move |session| async move {
                assert_eq!(session.expires_in().await?, Some(minute * 58));
                of_request.advance(minute * 10);
                assert_eq!(session.expires_in().await?, Some(minute * 48));
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
        }
        let layer = native(&cache).disable_ttl(true).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let page = browser.visit(&layer, |session| async move {
            assert_eq!(session.expires_in().await?, None);
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
    }

    async fn the_cookie_is_sent_again_when_reading_prolongs_the_session(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let age = Duration::from_secs(600);
        let with_age = |builder: SessionBuilder| builder.cookie(cache_core::session::CookieOptions::new().max_age(age));
        for (builder, sent) in [
            (with_age(native(&cache)), 1),
            (with_age(native(&cache)).renew_cookie(false), 0),
            (with_age(express(&cache)), 0),
            (with_age(express(&cache)).renew_cookie(true), 1),
            (native(&cache).ttl(age), 0),
        ] {
            let (layer, browser) = (builder.build().unwrap(), Browser::default());
            browser.set(&layer, "views", 1).await;
            let look = async || {
                let page = browser.visit(&layer, |session| async move {
                    assert_eq!(session.get::<i64>("views").await?, Some(1));
                    Ok(200)
                });
                page.await.cookies.len()
            };
            clock.advance(age / 20);
            assert_eq!(look().await, 0);
            clock.advance(age / 10);
            assert_eq!((look().await, look().await), (sent, 0));
        }
    }
}
