//! All sessions of a layer, as an administrator sees them.

use std::collections::BTreeSet;

use cache_core::session::{SessionLayer, SessionMode};
use futures::stream::{self, StreamExt as _};
use support::{Nodes, on_both_stores};

use super::client::{Browser, express, moving, native};

/// Makes this many visitors. Every third one is logged in.
async fn visitors(layer: &SessionLayer, count: usize) -> Vec<Browser> {
    let browsers: Vec<Browser> = (0..count).map(|_| Browser::default()).collect();
    // A few at a time: on a busy machine, a thousand at once would wait longer than a session may.
    let visits = stream::iter(browsers.iter().enumerate()).for_each_concurrent(16, async |(index, browser)| {
        let page = browser.visit(layer, move |session| async move {
            session.insert("views", &1).await?;
            if index % 3 == 0 {
                session.login("ada").await?
            }
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
    });
    visits.await;
    browsers
}

on_both_stores! {
    async fn all_sessions_are_counted_listed_and_ended(nodes: &Nodes) {
        let cache = nodes.node().await;
        for build in [express, native] {
            let layer = build(&cache).build().unwrap();
            // Foreign data: sessions under another prefix, and keys that are not sessions.
            let other = build(&cache).prefix("other:").build().unwrap();
            let stranger = visitors(&other, 1).await.remove(0);
            nodes.write_by_hand("session", "1").await;
            let all = layer.all();
            assert_eq!((all.length().await.unwrap(), all.list().await.unwrap()), (0, vec![]));
            let browsers = visitors(&layer, 1000).await;
            assert_eq!(all.length().await.unwrap(), 1000);
            let handles: BTreeSet<String> = all.handles().await.unwrap().into_iter().collect();
            let list = all.list().await.unwrap();
            assert_eq!(list.iter().map(|info| info.handle.clone()).collect::<BTreeSet<_>>(), handles);
            assert_eq!((handles.len(), list.iter().filter(|info| info.user.as_deref() == Some("ada")).count()), (1000, 334));
            // The handles are the same as in the lists of users. They are not ids.
            let of_ada: BTreeSet<String> = layer.of_user("ada").list().await.unwrap().into_iter().map(|info| info.handle).collect();
            assert!(of_ada.len() == 334 && of_ada.is_subset(&handles));
            for name in ["connect.sid", "__Host-id"] {
                assert!(browsers.iter().filter_map(|browser| browser.id(name)).all(|id| !handles.contains(&id)));
            }
            assert_eq!(all.clear().await.unwrap(), 1000);
            assert_eq!((all.length().await.unwrap(), all.clear().await.unwrap()), (0, 0));
            assert_eq!(browsers[0].get(&layer, "views").await, None);
            assert_eq!(stranger.get(&other, "views").await, Some(1), "of another prefix");
            if let Nodes::Redis(server) = nodes {
                // The lists of users are gone too. The list of the other prefix stays.
                assert_eq!(server.cli(&["KEYS", "cache:sidx:*"]).lines().count(), 1);
            }
            assert_eq!(other.all().clear().await.unwrap(), 1);
            nodes.delete_by_hand("session").await;
        }
    }

    async fn sessions_of_both_forms_are_all_sessions(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (old, new) = (express(&cache).build().unwrap(), moving(&cache).build().unwrap());
        let (left, moved) = (Browser::default(), Browser::default());
        for browser in [&left, &moved] {
            browser.set(&old, "views", 1).await;
        }
        moved.set(&new, "views", 2).await;
        nodes.write_by_hand("sess:foreign", "7").await;
        let dual = express(&cache).mode(SessionMode::Dual).build().unwrap();
        for layer in [&new, &dual] {
            // A key that holds no session is counted, because the key alone does not show it, but
            // not listed.
            assert_eq!((layer.all().length().await.unwrap(), layer.all().list().await.unwrap().len()), (3, 2));
        }
        dual.all().clear().await.unwrap();
        assert_eq!((left.get(&new, "views").await, moved.get(&new, "views").await), (None, None));
    }
}
