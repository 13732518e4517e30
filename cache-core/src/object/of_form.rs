//! Objects of a type that has a form of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use super::host::CellHost;
use crate::cache::Cache;
use crate::cell::{self, ATTEMPTS, CellKind, Cells, Draft, Entry, ObjectForm, Plan, Put, Stored, Verdict};
use crate::error::{Error, ErrorKind, Result};

/// How much longer than an object its entry in a list lives. It covers what the store rounds.
const SLACK: Duration = Duration::from_secs(1);

/// A type of objects with a form of its own: its lifetime, and a list for each owner.
///
/// [`Cache::objects_of`] takes a value of it. `cache-core/examples/wizard.rs` is a complete one.
/// For most types, `#[derive(CacheObject)]` is enough.
pub trait ObjectType: ObjectForm {
    /// Returns the name of this type, for messages and for the keys of its lists.
    fn name(&self) -> &str;

    /// Returns an object's id. A change of the object must not change it.
    fn id<'a>(&self, object: &'a Self::Object) -> &'a Self::Id;

    /// Returns how long an object lives without a write. A sliding object: without a use.
    fn ttl(&self) -> Duration;

    /// Returns whether a load or an update extends the object's life. Default: `false`.
    fn is_sliding(&self) -> bool {
        false
    }

    /// Returns the owner in whose list the object with this id is. Default: it is in no list.
    fn owner(&self, _id: &Self::Id) -> Option<String> {
        None
    }

    /// Returns the key of an owner's list. Default: `<namespace>:<name>-list:{<owner>}`.
    ///
    /// An object and its list are written in one step, so they have to lie in one slot of Redis
    /// Cluster: both keys need the same hash tag, which is the text in the first pair of braces. If
    /// they have none, or different ones, writes fail as [`ErrorKind::Configuration`].
    fn list_key(&self, namespace: &str, owner: &str) -> String {
        format!("{namespace}:{}-list:{{{owner}}}", self.name())
    }
}

impl Cache {
    /// Returns the objects of a type with a form of its own, which live in this cache's store. For
    /// types with `#[derive(CacheObject)]`, see [`objects`](Self::objects).
    #[must_use]
    pub fn objects_of<F: ObjectType>(&self, form: F) -> ObjectsOf<F> {
        ObjectsOf::new(self.into(), form)
    }
}

/// The objects of one type with a form of its own, from [`Cache::objects_of`]. Cheap to clone.
///
/// No update is lost, and a removed object does not come back. An object and its entry in the list
/// of its owner are written in one step, so neither exists without the other.
///
/// Every operation is one round trip, unless it says otherwise. If a write is dropped, or fails as
/// [unavailable](ErrorKind::Unavailable), it may have happened or not.
pub struct ObjectsOf<F>(Arc<Kind<F>>);

impl<F> Clone for ObjectsOf<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ObjectType> fmt::Debug for ObjectsOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectsOf").field(&self.0.form.name()).finish()
    }
}

impl<F: ObjectType> ObjectsOf<F> {
    pub(super) fn new(host: CellHost, form: F) -> Self {
        let cells = host.cells();
        Self(Arc::new(Kind { host, cells, form }))
    }

    /// Returns the object, or `None` if there is none. If at most half of a sliding object's time
    /// is left, the load resets it to the full ttl, which takes one more round trip, or two if the
    /// object is in a list.
    ///
    /// # Errors
    /// Store errors; the error of [`ObjectForm::decode`] if the stored bytes are not an object of
    /// this type. They are left as they are.
    pub async fn load(&self, id: &F::Id) -> Result<Option<F::Object>> {
        self.load_at(self.place(id)?).await
    }

    /// Stores a new object. Returns `false` if its key exists, whatever bytes are there; they are
    /// not changed.
    ///
    /// # Errors
    /// Store errors; the error of [`ObjectForm::encode`]; [`ErrorKind::Limit`] if the bytes exceed
    /// [`max_value_bytes`](crate::CacheBuilder::max_value_bytes).
    pub async fn create(&self, object: &F::Object) -> Result<bool> {
        let place = self.place(self.0.form.id(object))?;
        self.0.create(place, object).await
    }

    /// Changes an object by compare-and-swap. `change` is applied to the current object, and again
    /// after each conflict with another update, so that no update is lost; it may run several
    /// times. Returns the changed object, or `None` if there is no object with this id; none is
    /// created. Two round trips, and one more for each conflict.
    ///
    /// A sliding object gets its full ttl; any other object keeps the time it has left.
    ///
    /// # Errors
    /// The errors of [`load`](Self::load) and [`create`](Self::create); [`ErrorKind::Limit`] after
    /// 1000 conflicting attempts; [`ErrorKind::Configuration`] if `change` changes the id.
    pub async fn update(&self, id: &F::Id, change: impl FnMut(&mut F::Object)) -> Result<Option<F::Object>> {
        self.update_at(self.place(id)?, change).await
    }

    /// Resets the object's remaining time to the full ttl. Returns `false` if there is no such
    /// object. If it is in a list, this takes two round trips.
    ///
    /// # Errors
    /// Store errors.
    pub async fn touch(&self, id: &F::Id) -> Result<bool> {
        self.0.extend(&self.place(id)?).await
    }

    /// Removes the object. Returns `false` if there was none.
    ///
    /// Its entry stays in the list, where [`list`](Self::list) skips it, until the object's time
    /// would have ended.
    ///
    /// # Errors
    /// Store errors.
    pub async fn remove(&self, id: &F::Id) -> Result<bool> {
        self.remove_at(self.place(id)?).await
    }

    /// Returns how long the object lives if it is not used again, or `None` if there is none.
    ///
    /// # Errors
    /// Store errors.
    pub async fn ttl(&self, id: &F::Id) -> Result<Option<Duration>> {
        self.ttl_at(self.place(id)?).await
    }

    /// Returns all objects in the list of this owner, the one that ends first at the head. An
    /// object that begins or ends during the call may be missed or included. No object's life is
    /// extended.
    ///
    /// Costs one read for the list, and then one for each object that was created in the last
    /// [`ttl`](ObjectType::ttl), all at once.
    ///
    /// # Errors
    /// The same as [`load`](Self::load).
    pub async fn list(&self, owner: &str) -> Result<Vec<F::Object>> {
        let kind = &*self.0;
        let list = kind.form.list_key(kind.host.namespace(), owner);
        let members = kind.cells.members(&list).await?;
        let loads = members.into_iter().map(|(key, _)| cell::load(kind, None, key));
        Ok(try_join_all(loads).await?.into_iter().flatten().map(|found| found.object).collect())
    }

    /// Returns where the object with this id is.
    fn place(&self, id: &F::Id) -> Result<ObjectKeys> {
        let Kind { host, form, .. } = &*self.0;
        let key = form.key(host.namespace(), id);
        let list = form.owner(id).map(|owner| form.list_key(host.namespace(), &owner));
        if let Some(list) = &list
            && (hash_tag(&key).is_none() || hash_tag(&key) != hash_tag(list))
        {
            let detail = "the key of an object and that of its list need the same hash tag: text in braces, not empty";
            return Err(Error::new(ErrorKind::Configuration, "objects").detail(detail));
        }
        Ok(ObjectKeys { key, list })
    }

    pub(super) async fn load_at(&self, place: ObjectKeys) -> Result<Option<F::Object>> {
        let kind = &*self.0;
        let Some(found) = cell::load(kind, None, place.key.clone()).await? else { return Ok(None) };
        // Only in the second half, since each extension is a write of which other processes are
        // notified.
        if kind.form.is_sliding() && found.left.is_some_and(|left| left <= kind.form.ttl().mul_f64(0.5)) {
            kind.extend(&place).await?;
        }
        Ok(Some(found.object))
    }

    pub(super) async fn update_at(
        &self,
        place: ObjectKeys,
        mut change: impl FnMut(&mut F::Object),
    ) -> Result<Option<F::Object>> {
        let kind = &*self.0;
        let Some(current) = cell::load(kind, place.list, place.key).await? else { return Ok(None) };
        let swapped = cell::swap(kind, current, &(), |mut object| {
            change(&mut object);
            Some((object, true))
        });
        Ok(match swapped.await? {
            Some(Verdict::Written { object, .. }) => Some(object),
            _ => None,
        })
    }

    /// Stores an object that is in no list, whatever is stored already.
    pub(super) async fn overwrite(&self, place: ObjectKeys, object: &F::Object) -> Result<()> {
        let kind = &*self.0;
        kind.host.overwrite(&place.key, kind.encode(&place.key, object)?, kind.form.ttl()).await
    }

    pub(super) async fn touch_at(&self, place: ObjectKeys) -> Result<bool> {
        self.0.extend(&place).await
    }

    pub(super) async fn remove_at(&self, place: ObjectKeys) -> Result<bool> {
        self.0.cells.remove(&place.key, None).await
    }

    pub(super) async fn ttl_at(&self, place: ObjectKeys) -> Result<Option<Duration>> {
        Ok(self.0.cells.load(&place.key).await?.and_then(|(_, left)| left))
    }

    pub(super) fn namespace(&self) -> &str {
        self.0.host.namespace()
    }
}

/// The keys of an object and of the list that it is in.
#[derive(Clone)]
pub(super) struct ObjectKeys {
    pub(super) key: String,
    pub(super) list: Option<String>,
}

/// One type of objects in one cache.
struct Kind<F> {
    host: CellHost,
    cells: Cells,
    form: F,
}

impl<F: ObjectType> Kind<F> {
    fn encode(&self, key: &str, object: &F::Object) -> Result<Vec<u8>> {
        let bytes = self.form.encode(key, object)?;
        let max = self.host.max_bytes();
        if bytes.len() > max {
            let detail = format!(
                "the encoded object has {} bytes, the limit is {max}; see `CacheBuilder::max_value_bytes`",
                bytes.len()
            );
            return Err(Error::new(ErrorKind::Limit, "encode").detail(detail));
        }
        Ok(bytes)
    }

    async fn create(&self, ObjectKeys { key, list }: ObjectKeys, object: &F::Object) -> Result<bool> {
        let bytes = self.encode(&key, object)?.into();
        let draft = Draft { with: self.entry(list, &key), bytes, ttl: Some(self.form.ttl()), key, ..Draft::default() };
        Ok(matches!(cell::put(self, &draft, object).await?, Put::Done))
    }

    /// Returns the entry of an object that gets its full ttl.
    fn entry(&self, list: Option<String>, key: &str) -> Option<Entry> {
        let member = key.to_owned();
        list.map(|index| Entry { index, member, lasts: self.entry_lasts(), leaves: None, limit: None })
    }

    fn entry_lasts(&self) -> Duration {
        self.form.ttl().saturating_add(SLACK)
    }

    /// Resets the object's remaining time. Returns `false` if there is none.
    async fn extend(&self, place: &ObjectKeys) -> Result<bool> {
        // Before the object: an entry without an object is skipped, but an object without an entry
        // would be missed.
        if let Some(list) = &place.list {
            self.cells.enter(list, &place.key, self.entry_lasts()).await?;
        }
        self.cells.touch(&place.key, self.form.ttl()).await
    }
}

impl<F: ObjectType> CellKind for Kind<F> {
    type Form = F;
    /// The key of the list that the object is in.
    type At = Option<String>;
    type StalenessPolicy = ();
    type Error = Error;

    fn form(&self) -> &F {
        &self.form
    }

    fn cells(&self) -> &Cells {
        &self.cells
    }

    async fn prepare(
        &self,
        current: &Stored<Self>,
        object: F::Object,
        _terms: &(),
        _alone: bool,
    ) -> Result<Plan<F::Object>> {
        let key = current.key.clone();
        if self.form.key(self.host.namespace(), self.form.id(&object)) != key {
            let detail = "an update must not change the object's id; create the new object and remove the old one";
            return Err(Error::new(ErrorKind::Configuration, "update").detail(detail));
        }
        let list = current.at.clone().filter(|_| self.form.is_sliding());
        let draft = Draft {
            bytes: self.encode(&key, &object)?.into(),
            ttl: self.form.is_sliding().then(|| self.form.ttl()),
            with: self.entry(list, &key),
            over: Some((key.clone(), current.bytes.clone())),
            key,
            ..Draft::default()
        };
        Ok(Plan::Write(Box::new(draft), object))
    }

    /// An object has one key for all its life: what is not there has been removed.
    async fn look_again(&self, _: &Stored<Self>, _terms: &(), _taken: bool) -> Result<Option<Stored<Self>>> {
        Ok(None)
    }

    fn too_many_conflicts(&self) -> Error {
        let detail = format!("gave up after {ATTEMPTS} conflicting updates of one object");
        Error::new(ErrorKind::Limit, "update").detail(detail)
    }
}

/// Returns the part of a key that decides its Cluster slot.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}
