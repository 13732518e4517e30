//! Objects with a form of their own: the same promises as for derived ones, and a list that always
//! agrees with them.

use std::time::Duration;

use cache_core::object::{ObjectForm, ObjectType, ObjectsOf};
use cache_core::{Cache, Error, ErrorKind, Result};
use support::{Nodes, on_both_stores, soon};
use tokio::task::JoinSet;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DraftId {
    user: u64,
    name: &'static str,
}

/// A draft of a wizard. Its stored form is `<name>=<page>`.
#[derive(Debug, Clone, PartialEq)]
struct Draft {
    id: DraftId,
    page: u32,
}

#[derive(Clone, Copy, Default)]
struct Drafts {
    sliding: bool,
    /// The list gets another hash tag than the drafts.
    elsewhere: bool,
}

const NAMES: [&str; 3] = ["tax", "loan", "busy"];

impl ObjectForm for Drafts {
    type Object = Draft;
    type Id = DraftId;

    fn key(&self, namespace: &str, id: &DraftId) -> String {
        format!("{namespace}:draft:{{{}}}:{}", id.user, id.name)
    }

    fn encode(&self, _: &str, draft: &Draft) -> Result<Vec<u8>> {
        if draft.page > 1000 {
            return Err(Error::unwritable("no wizard has so many pages"));
        }
        Ok(format!("\"{}={}\"", draft.id.name, draft.page).into_bytes())
    }

    fn decode(&self, key: &str, bytes: &[u8]) -> Result<Option<Draft>> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::unreadable("not text"))?.trim_matches('"');
        if text.is_empty() {
            return Ok(None);
        }
        let user = key.split(['{', '}']).nth(1).and_then(|user| user.parse().ok());
        let (name, page) = text.split_once('=').ok_or_else(|| Error::unreadable("not a draft"))?;
        let name = NAMES.into_iter().find(|known| *known == name);
        match (user, name, page.parse()) {
            (Some(user), Some(name), Ok(page)) => Ok(Some(Draft { id: DraftId { user, name }, page })),
            _ => Err(Error::unreadable("not a draft")),
        }
    }
}

impl ObjectType for Drafts {
    fn name(&self) -> &str {
        "draft"
    }

    fn id<'a>(&self, draft: &'a Draft) -> &'a DraftId {
        &draft.id
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(100)
    }

    fn is_sliding(&self) -> bool {
        self.sliding
    }

    fn owner(&self, id: &DraftId) -> Option<String> {
        Some(if self.elsewhere { "all".to_owned() } else { id.user.to_string() })
    }
}

fn drafts(cache: &Cache) -> ObjectsOf<Drafts> {
    cache.objects_of(Drafts::default())
}

fn draft(name: &'static str, page: u32) -> Draft {
    Draft { id: DraftId { user: 7, name }, page }
}

/// Returns the names and pages of the drafts in a list.
async fn listed(drafts: &ObjectsOf<Drafts>, owner: &str) -> Vec<(&'static str, u32)> {
    let mut listed: Vec<_> =
        drafts.list(owner).await.unwrap().into_iter().map(|draft| (draft.id.name, draft.page)).collect();
    listed.sort_unstable();
    listed
}

on_both_stores! {
    async fn create_load_list_update_and_remove(nodes: &Nodes) {
        let (here, there) = (drafts(&nodes.node().await), drafts(&nodes.node().await));
        assert_eq!(here.load(&draft("tax", 0).id).await.unwrap(), None);
        assert!(here.create(&draft("tax", 1)).await.unwrap());
        assert!(!there.create(&draft("tax", 9)).await.unwrap());
        assert_eq!(there.load(&draft("tax", 0).id).await.unwrap(), Some(draft("tax", 1)));
        assert!(here.create(&draft("loan", 2)).await.unwrap());
        let updated = there.update(&draft("loan", 0).id, |draft| draft.page += 1).await.unwrap();
        assert_eq!(updated, Some(draft("loan", 3)));
        assert_eq!(listed(&there, "7").await, [("loan", 3), ("tax", 1)]);
        assert_eq!(listed(&there, "8").await, []);
        assert!(there.remove(&draft("tax", 0).id).await.unwrap());
        assert!(!here.remove(&draft("tax", 0).id).await.unwrap());
        assert_eq!(listed(&here, "7").await, [("loan", 3)]);
        assert_eq!(here.update(&draft("tax", 0).id, |draft| draft.page += 1).await.unwrap(), None);
        // Created again, it is in the list again.
        assert!(here.create(&draft("tax", 4)).await.unwrap());
        assert_eq!(listed(&there, "7").await, [("loan", 3), ("tax", 4)]);
    }

    async fn the_bytes_under_the_key_are_those_of_the_form(nodes: &Nodes) {
        let cache = nodes.node().await;
        drafts(&cache).create(&draft("tax", 1)).await.unwrap();
        let stored: Option<String> = cache.plain().get("cache:draft:{7}:tax").await.unwrap();
        assert_eq!(stored.as_deref(), Some("tax=1"));
        nodes.write_by_hand("cache:draft:{7}:tax", "\"tax=5\"").await;
        assert_eq!(drafts(&cache).load(&draft("tax", 0).id).await.unwrap(), Some(draft("tax", 5)));
        // What counts as no object, and what is something else.
        nodes.write_by_hand("cache:draft:{7}:tax", "\"\"").await;
        assert_eq!(drafts(&cache).load(&draft("tax", 0).id).await.unwrap(), None);
        assert!(!drafts(&cache).create(&draft("tax", 1)).await.unwrap(), "the key exists");
        nodes.write_by_hand("cache:draft:{7}:tax", "\"secret\"").await;
        let error = drafts(&cache).load(&draft("tax", 0).id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        let error = drafts(&cache).update(&draft("tax", 0).id, |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
    }

    async fn no_update_is_lost(nodes: &Nodes) {
        let caches = [nodes.node().await, nodes.node().await, nodes.node().await];
        let sliding = Drafts { sliding: true, ..Drafts::default() };
        caches[0].objects_of(sliding).create(&draft("busy", 0)).await.unwrap();
        let mut updates = JoinSet::new();
        for task in 0..12 {
            // Half of them also renew the entry in the list.
            let drafts = caches[task % 3].objects_of(Drafts { sliding: task % 2 == 0, ..sliding });
            updates.spawn(async move {
                for _ in 0..25 {
                    drafts.update(&draft("busy", 0).id, |draft| draft.page += 1).await.unwrap().unwrap();
                }
            });
        }
        soon("all updates", updates.join_all()).await;
        assert_eq!(listed(&drafts(&caches[0]), "7").await, [("busy", 300)]);
    }

    async fn a_removed_draft_does_not_come_back(nodes: &Nodes) {
        let cache = nodes.node().await;
        let drafts = cache.objects_of(Drafts { sliding: true, ..Drafts::default() });
        drafts.create(&draft("tax", 1)).await.unwrap();
        let (plain, runtime, tax) = (cache.plain(), tokio::runtime::Handle::current(), draft("tax", 0).id);
        let updated = drafts.update(&tax, |draft| {
            draft.page += 1;
            // Another client removes it between the read and the write.
            let remove = plain.remove("cache:draft:{7}:tax");
            tokio::task::block_in_place(|| runtime.block_on(remove)).unwrap();
        });
        assert_eq!(updated.await.unwrap(), None);
        assert_eq!((drafts.load(&draft("tax", 0).id).await.unwrap(), listed(&drafts, "7").await), (None, vec![]));
    }

    async fn a_draft_in_use_stays_in_its_list(nodes: &Nodes) {
        let Nodes::Embedded(cache, clock) = nodes else { return };
        let (sliding, other) = (cache.objects_of(Drafts { sliding: true, ..Drafts::default() }), drafts(cache));
        sliding.create(&draft("tax", 0)).await.unwrap();
        sliding.create(&draft("busy", 0)).await.unwrap();
        other.create(&draft("loan", 0)).await.unwrap();
        for used in 1..=5 {
            clock.advance(Duration::from_secs(60));
            sliding.update(&draft("tax", 0).id, |draft| draft.page = used).await.unwrap().unwrap();
            assert!(sliding.load(&draft("busy", 0).id).await.unwrap().is_some());
            // An update of any other object leaves the time it has.
            let left = other.update(&draft("loan", 0).id, |draft| draft.page = used).await.unwrap();
            assert_eq!(left.is_some(), used == 1);
        }
        assert_eq!(listed(&other, "7").await, [("busy", 0), ("tax", 5)]);
        clock.advance(Duration::from_secs(60));
        assert!(other.touch(&draft("tax", 0).id).await.unwrap());
        assert_eq!(other.ttl(&draft("tax", 0).id).await.unwrap(), Some(Duration::from_secs(100)));
        clock.advance(Duration::from_secs(60));
        assert_eq!(listed(&other, "7").await, [("tax", 5)]);
        assert!(!other.touch(&draft("busy", 0).id).await.unwrap());
        clock.advance(Duration::from_secs(60));
        assert_eq!(listed(&other, "7").await, []);
    }

    async fn an_object_that_cannot_be_stored_is_an_error_and_changes_nothing(nodes: &Nodes) {
        let cache = nodes.node().await;
        let drafts = drafts(&cache);
        drafts.create(&draft("tax", 1)).await.unwrap();
        let tax = draft("tax", 0).id;
        let error = drafts.update(&tax, |draft| draft.page = 2000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        let error = drafts.update(&tax, |draft| draft.id.name = "loan").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert_eq!(listed(&drafts, "7").await, [("tax", 1)]);
        // A list in another slot could not be written in the same step.
        let elsewhere = cache.objects_of(Drafts { elsewhere: true, ..Drafts::default() });
        let error = elsewhere.create(&draft("loan", 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("hash tag"), "{error}");
    }
}
