//! A tag of an `Option` equals the tag of its content.

use std::convert::Infallible;

use cache_core::{Cache, cached, invalidates};
use support::on_both_stores;

/// A page as seen by a viewer, or by an anonymous one.
#[cached(name = "seen", ttl = 60, key = "{viewer}:{page}", skip(cache), tags("viewer:{viewer}", "pages"), cache = cache)]
async fn seen(cache: &Cache, viewer: Option<i64>, page: u32) -> u32 {
    let _ = (cache, viewer);
    page
}

#[cached(name = "owners", ttl = 60, key = "{id}", skip(cache, owner), tags("owner:{value.0}", "each:{value.1[].0}"), cache = cache)]
async fn owners(cache: &Cache, id: u32, owner: Option<i64>) -> (Option<i64>, Vec<(Option<i64>,)>) {
    let _ = (cache, id);
    (owner, vec![(owner,), (None,), (Some(9),)])
}

#[invalidates(tag = "viewer:{follower}", cache = cache)]
async fn follow(cache: &Cache, follower: i64) -> Result<(), Infallible> {
    let _ = (cache, follower);
    Ok(())
}

#[invalidates(tags("viewer:{follower}", "owner:{follower}"), cache = cache)]
async fn perhaps_follow(cache: &Cache, follower: Option<i64>) -> Result<(), Infallible> {
    let _ = (cache, follower);
    Ok(())
}

async fn stand(cache: &Cache) -> [bool; 3] {
    let of = async |viewer| seen::entry(viewer, 1).on(cache).get().await.unwrap().is_some();
    [of(Some(7)).await, of(Some(8)).await, of(None).await]
}

on_both_stores! {
    // I1, K1
    async fn a_tag_of_an_option_is_that_of_its_content(nodes: &Nodes) {
        let cache = nodes.node().await;
        let read = async || {
            for viewer in [Some(7), Some(8), None] {
                seen(&cache, viewer, 1).await;
            }
            assert_eq!(stand(&cache).await, [true; 3]);
        };
        read().await;
        follow(&cache, 7).await.unwrap();
        assert_eq!(stand(&cache).await, [false, true, true]);
        read().await;
        perhaps_follow(&cache, Some(8)).await.unwrap();
        assert_eq!(stand(&cache).await, [true, false, true]);
        read().await;
        // There is no follower, so nothing is invalidated.
        perhaps_follow(&cache, None).await.unwrap();
        cache.invalidate_tag("viewer:!").await.unwrap();
        assert_eq!(stand(&cache).await, [true; 3]);
        cache.invalidate_tag("pages").await.unwrap();
        assert_eq!(stand(&cache).await, [false; 3]);
        // Keys still distinguish `None` from every content.
        let keys = [Some(7), None].map(|viewer| seen::entry(viewer, 1).on(&cache).key().to_owned());
        assert!(keys[0].contains(":?7:1@") && keys[1].contains(":!:1@"), "{keys:?}");
    }

    // I1
    async fn tags_of_the_value_leave_out_what_is_absent(nodes: &Nodes) {
        let cache = nodes.node().await;
        let stands = async |id| owners::entry(id).on(&cache).get().await.unwrap().is_some();
        for tag in ["owner:7", "each:7", "each:9"] {
            owners(&cache, 1, Some(7)).await;
            owners(&cache, 2, None).await;
            assert_eq!((stands(1).await, stands(2).await), (true, true));
            cache.invalidate_tag(tag).await.unwrap();
            assert_eq!((stands(1).await, stands(2).await), (false, tag != "each:9"), "{tag}");
        }
    }
}
