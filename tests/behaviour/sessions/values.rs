//! Operations of handlers on the values of a session.

use std::collections::BTreeMap;

use cache_core::session::{Session, SessionData, SessionErrorKind};
use support::{Gate, on_both_stores, soon};

use super::client::{Browser, express, native};

#[derive(Debug, PartialEq, SessionData)]
struct Shop {
    cart: Vec<u64>,
    #[session(name = "lastSeen")]
    last_seen: Option<u64>,
    visits: BTreeMap<String, u32>,
}

async fn shop(browser: &Browser, layer: &cache_core::session::SessionLayer) -> Shop {
    let (send, receive) = tokio::sync::oneshot::channel();
    let page = browser.visit(layer, move |session| async move {
        send.send(session.data::<Shop>().await?).unwrap();
        Ok(200)
    });
    assert_eq!(page.await.status, 200);
    receive.await.unwrap()
}

on_both_stores! {
    async fn a_struct_is_a_view_of_values(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        assert_eq!(shop(&browser, &layer).await, Shop { cart: vec![], last_seen: None, visits: BTreeMap::new() });
        // An untouched field is not stored, and a change inside a field is detected.
        browser
            .visit(&layer, |session| async move {
                session.modify(|shop: &mut Shop| shop.visits.entry("home".into()).and_modify(|n| *n += 1).or_insert(1).clone_from(&5)).await?;
                session.modify(|shop: &mut Shop| shop.last_seen = Some(7)).await?;
                Ok(200)
            })
            .await;
        assert!(browser.stored(&cache).await.unwrap().ends_with(r#","visits":{"home":5},"lastSeen":7}"#));
        browser.visit(&layer, |session| async move { session.modify(|shop: &mut Shop| shop.last_seen = None).await.map(|()| 200) }).await;
        assert!(browser.stored(&cache).await.unwrap().ends_with(r#","visits":{"home":5}}"#));
        // A value of another type is reported with its name, and nothing is changed.
        browser.visit(&layer, |session| async move { session.insert("cart", "tea").await.map(|()| 200) }).await;
        let page = browser.visit(&layer, |session| async move {
            let error = session.data::<Shop>().await.unwrap_err();
            assert_eq!(error.kind(), SessionErrorKind::Value);
            assert!(error.to_string().contains("`cart`") && !format!("{error:?}").contains("tea"), "{error:?}");
            assert!(session.modify(|shop: &mut Shop| shop.cart.push(1)).await.is_err());
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
    }

    async fn concurrent_changes_of_different_fields_are_both_kept(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&layer, "views", 1).await;
        let (late, entered, of_late) = (browser.copy(), gate.clone(), layer.clone());
        let request = tokio::spawn(async move {
            late.visit(&of_late, move |session| async move {
                session.modify(|shop: &mut Shop| shop.cart.push(1)).await?;
                entered.pass().await;
                Ok(200)
            })
            .await
        });
        soon("the late one", gate.arrival()).await;
        browser.visit(&layer, |session| async move {
            session.modify(|shop: &mut Shop| {
                shop.cart.push(2);
                shop.last_seen = Some(3);
            }).await.map(|()| 200)
        }).await;
        gate.let_through(1);
        soon("the late one", request).await.unwrap();
        let shop = shop(&browser, &layer).await;
        assert_eq!((shop.cart, shop.last_seen), (vec![2, 1], Some(3)));
    }

    async fn messages_are_shown_once(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        browser
            .visit(&layer, |session| async move {
                session.flash("info", "saved").await?;
                session.flash("error", "not sent").await?;
                session.flash("info", "and kept").await?;
                Ok(302)
            })
            .await;
        // In the format of connect-flash.
        assert!(browser.stored(&cache).await.unwrap().ends_with(r#""flash":{"error":["not sent"],"info":["saved","and kept"]}}"#));
        let show = |session: Session| async move {
            let shown = session.take_flashes().await?;
            Ok(200 + u16::try_from(shown.len()).unwrap())
        };
        assert_eq!(browser.visit(&layer, show).await.status, 203);
        assert_eq!(browser.visit(&layer, show).await.status, 200);
        // Added and shown in one request.
        let page = Browser::default();
        let page = page.visit(&layer, |session| async move {
            session.flash("info", "now").await?;
            assert_eq!(session.take_flashes().await?[0].text, "now");
            Ok(200)
        });
        assert!(page.await.cookies.is_empty());
    }

    async fn forms_of_other_sites_are_detected(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let browser = Browser::default();
        let token = |browser: Browser| {
            let layer = layer.clone();
            async move {
                let (send, receive) = tokio::sync::oneshot::channel();
                browser.visit(&layer, move |session| async move {
                    send.send(session.csrf_token().await?).unwrap();
                    Ok(200)
                }).await;
                receive.await.unwrap()
            }
        };
        browser.set(&layer, "views", 1).await;
        // Two tabs at the same time get the same token.
        let (one, two) = futures::future::join(token(browser.clone()), token(browser.clone())).await;
        assert_eq!(one, two);
        let page = browser.visit(&layer, move |session| async move {
            assert!(session.verify_csrf(&one).await?);
            for wrong in ["", &one[1..], &format!("{one}x")] {
                assert!(!session.verify_csrf(wrong).await?);
            }
            session.login("ada").await?;
            assert!(!session.verify_csrf(&one).await?, "of before the login");
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
        let nobody = Browser::default();
        let page = nobody.visit(&layer, |session| async move { Ok(if session.verify_csrf("").await? { 200 } else { 403 }) });
        assert_eq!(page.await.status, 403);
    }

    async fn values_are_seen_by_the_request_that_sets_them(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let browser = Browser::default();
        let page = browser.visit(&layer, |session| async move {
            assert!(session.is_new().await?);
            assert_eq!((session.increment("n", 2).await?, session.increment("n", -5).await?), (2, -3));
            session.push("list", "a").await?;
            session.push("list", "b").await?;
            assert_eq!(session.get::<Vec<String>>("list").await?.unwrap(), ["a", "b"]);
            assert_eq!(session.increment("list", 1).await.unwrap_err().kind(), SessionErrorKind::Value);
            session.update("n", |n: Option<i64>| n.map(|n| n * 10)).await?;
            session.save().await?;
            assert!(!session.is_new().await?);
            session.insert("n", &0).await?;
            session.reload().await?;
            assert_eq!(session.get::<i64>("n").await?, Some(-30));
            assert_eq!(session.read(|values| values.names().map(str::to_owned).collect::<Vec<_>>()).await?, ["n", "list"]);
            assert_eq!(session.pop::<Vec<String>>("list").await?.unwrap().len(), 2);
            assert_eq!(session.pop::<Vec<String>>("list").await?, None);
            session.update("n", |_: Option<i64>| None::<i64>).await?;
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
        let page = browser.visit(&layer, |session| async move {
            assert_eq!(session.read(|values| values.names().count()).await?, 0);
            // Native format: names and numbers that only Express restricts.
            session.insert("id", &u64::MAX).await?;
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
    }

    async fn nothing_changes_after_the_response(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let (browser, kept) = (Browser::default(), std::sync::Arc::new(std::sync::Mutex::new(None)));
        let slot = std::sync::Arc::clone(&kept);
        browser.visit(&layer, move |session| async move {
            session.insert("views", &1).await?;
            *slot.lock().unwrap() = Some(session);
            Ok(200)
        }).await;
        let session: Session = kept.lock().unwrap().take().unwrap();
        for result in [session.insert("views", &2).await, session.destroy().await, session.save().await, session.logout().await] {
            assert_eq!(result.unwrap_err().kind(), SessionErrorKind::Answered);
        }
        assert_eq!(browser.get(&layer, "views").await, Some(1));
    }
}
