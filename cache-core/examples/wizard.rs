//! A type of objects with a form of its own: the drafts of a wizard with several pages, and a list
//! of them for each user.
//!
//! `cargo run -p cache-core --example wizard`

use std::collections::BTreeMap;
use std::time::Duration;

use cache_core::codec::{Codec as _, Json};
use cache_core::object::{ObjectForm, ObjectType};
use cache_core::{Cache, Error, Result};
use serde::{Deserialize, Serialize};

/// Identifies a draft.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DraftId {
    user: u64,
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Draft {
    id: DraftId,
    answers: BTreeMap<String, String>,
}

/// Stores drafts as JSON that other programs can read, for a day after their last use.
struct Drafts;

impl ObjectForm for Drafts {
    type Object = Draft;
    type Id = DraftId;

    // `{..}` puts the drafts of a user, and the list of them, into one slot of Redis Cluster.
    fn key(&self, namespace: &str, DraftId { user, name }: &DraftId) -> String {
        format!("{namespace}:draft:{{{user}}}:{name}")
    }

    fn encode(&self, _key: &str, draft: &Draft) -> Result<Vec<u8>> {
        let mut json = Vec::new();
        Json::encode(draft, &mut json)?;
        Ok(json)
    }

    fn decode(&self, _key: &str, bytes: &[u8]) -> Result<Option<Draft>> {
        Json::decode(bytes).map(Some).map_err(|_| Error::unreadable("not a draft"))
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
        Duration::from_secs(86400)
    }

    fn is_sliding(&self) -> bool {
        true
    }

    fn owner(&self, id: &DraftId) -> Option<String> {
        Some(id.user.to_string())
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let drafts = Cache::in_memory().objects_of(Drafts);
    let id = |name: &str| DraftId { user: 7, name: name.to_owned() };
    for name in ["tax", "loan"] {
        drafts.create(&Draft { id: id(name), answers: BTreeMap::new() }).await?;
    }

    // Two browser tabs send different pages at the same time: no answer is lost.
    let tax = id("tax");
    let (_, last) = tokio::try_join!(
        drafts.update(&tax, |draft| drop(draft.answers.insert("year".into(), "2025".into()))),
        drafts.update(&tax, |draft| drop(draft.answers.insert("income".into(), "none".into()))),
    )?;
    println!("answers: {:?}", last.map(|draft| draft.answers));

    for draft in drafts.list("7").await? {
        println!("user 7 has begun {}", draft.id.name);
    }

    // A page that is still on its way does not bring a draft back.
    drafts.remove(&tax).await?;
    let late = drafts.update(&tax, |draft| drop(draft.answers.insert("name".into(), "Ada".into()))).await?;
    println!("late page: {late:?}, drafts left: {}", drafts.list("7").await?.len());
    Ok(())
}
