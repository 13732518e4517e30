//! What a value is stored under: the versions of its namespace, its function and its tags.
//!
//! ```text
//! <namespace>@version         all entries of the namespace
//! <namespace>:<name>@version  all entries of a function, of every build
//! <namespace>@tag:<tag>       all entries with this tag
//! <namespace>@tags:<kind>     changes with every tag of the kind: the text before the first `:`
//! ```
//!
//! Invariant: a record names the versions that were read before its run began. An invalidation writes new random versions, so
//! a record from before it agrees with none ever again, and a version that is lost agrees with nothing (R3, R4, R14, R15, R16).
//!
//! A tag that depends on the value is known only after the run. Its version is read then, together with that of its kind:
//! if the kind has not changed since before the run, neither has the tag.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xxhash_rust::xxh3::xxh3_128;

use crate::cache::Inner;
use crate::clock::millis;
use crate::envelope::{Envelope, TagVersion};
use crate::error::Result;
use crate::events::Event;
use crate::history::{By, Scope, What};
use crate::key::{KeyText, KeyWriter, shorten, tag_name};
use crate::sabotage::{self, Guard};
use crate::shape::{Erased, Rules};
use crate::store::{Slot, VERSION_RENEWED_BELOW, Version};
use crate::versions::{self, Cell, Dependencies, Dependency, Pending};

/// How many tags an entry can have: a page of elements with one each. Each is 16 bytes and its name in the record, and a load on every hit. A record holds 255.
pub(crate) const MAX_TAGS: usize = 128;

/// When to look at versions again that are read now, in milliseconds of the coarse clock.
pub(crate) fn due_after(now: u64) -> u64 {
    now.saturating_add(millis(VERSION_RENEWED_BELOW) / 2)
}

/// The versions that one call goes by, as they were when the store was last read.
pub(crate) struct Basis {
    /// Of the namespace, the function, the tags, the kinds of tags by value: in this order.
    seen: Vec<Seen>,
    /// The tags that do not depend on the value.
    tags: Vec<Box<str>>,
}

/// A version as it was seen.
struct Seen {
    cell: Arc<Cell>,
    version: Option<Version>,
    at: Pending,
}

/// Whether a record was stored under the versions that stand.
pub(crate) enum Agreement {
    /// It was. `Some`: what L1 has to go by; `None`: changes of it are not told here.
    Yes(Option<Dependencies>),
    /// A version has changed since. Such a record is never served again, not even as a stale one (R17).
    No,
    /// A tag of its value is fenced: nobody is served it now, and it is served again if the write did not happen.
    Fenced,
}

impl Basis {
    /// Nothing is read yet.
    pub(crate) fn new(inner: &Inner, name: &str, rules: Option<&Rules>) -> Self {
        inner.look_at_versions_again_when_due();
        let tags = rules.map_or(&[][..], |rules| &rules.options.tags);
        // One too many is enough to store nothing.
        let tags = tags.get(..MAX_TAGS.saturating_add(1)).unwrap_or(tags);
        let mut keys = vec![namespace_key(&inner.namespace), function_key(&inner.namespace, name)];
        keys.extend(tags.iter().map(|tag| tag_key(&inner.namespace, tag)));
        keys.extend(rules.into_iter().flat_map(|rules| rules.kinds).map(|kind| kind_key(&inner.namespace, kind)));
        let seen = keys.iter().map(|key| Seen::of(inner.versions.cell(key))).collect();
        Self { seen, tags: tags.to_vec() }
    }

    /// Reads the value, and in the same trip what is not known of the versions.
    pub(crate) async fn read(&mut self, inner: &Inner, key: &str, track: bool) -> Result<(Slot, bool)> {
        self.seen.iter_mut().for_each(Seen::look);
        let unknown: Vec<Arc<str>> = self.unknown().map(|seen| Arc::clone(seen.cell.key())).collect();
        let (slot, tracked) = match (unknown.is_empty(), track) {
            (true, true) => inner.store.read_tracked(key).await?,
            (true, false) => (inner.store.read(key).await?, false),
            (false, _) => {
                let (slot, found, tracked) = inner.store.read_versioned(key, &unknown).await?;
                self.take(found, tracked);
                (slot, tracked)
            }
        };
        self.look_again(inner).await?;
        Ok((slot, tracked && track))
    }

    /// As [`read`](Self::read), for several values at once; `bases`: all that they go by.
    pub(crate) async fn read_many(
        inner: &Inner,
        bases: &mut [Self],
        keys: &[Arc<str>],
        track: bool,
    ) -> Result<(Vec<Slot>, bool)> {
        bases.iter_mut().flat_map(|basis| &mut basis.seen).for_each(Seen::look);
        let unknown = keys_of(bases.iter().flat_map(Self::unknown));
        let (slots, found, tracked) = inner.store.read_many(keys, &unknown, track).await?;
        let found: HashMap<Arc<str>, Option<Version>> = unknown.into_iter().zip(found).collect();
        for seen in bases.iter_mut().flat_map(|basis| &mut basis.seen).filter(|seen| seen.version.is_none()) {
            seen.set(found.get(seen.cell.key()).copied().flatten(), tracked);
        }
        for basis in bases {
            basis.look_again(inner).await?;
        }
        Ok((slots, tracked && track))
    }

    /// What was known when a read was sent may have been told to have changed since.
    async fn look_again(&mut self, inner: &Inner) -> Result<()> {
        let mut lost = false;
        for seen in self.seen.iter_mut().filter(|seen| seen.version.is_some() && seen.cell.has_changed(seen.at)) {
            seen.look();
            lost |= seen.version.is_none();
        }
        if lost { self.read_unknown(inner).await } else { Ok(()) }
    }

    /// Reads what is not known of the versions.
    pub(crate) async fn read_unknown(&mut self, inner: &Inner) -> Result<()> {
        self.seen.iter_mut().filter(|seen| seen.version.is_none()).for_each(Seen::look);
        let unknown: Vec<Arc<str>> = self.unknown().map(|seen| Arc::clone(seen.cell.key())).collect();
        if !unknown.is_empty() {
            let (found, tracked) = inner.store.read_versions(&unknown, true).await?;
            self.take(found, tracked);
        }
        Ok(())
    }

    fn unknown(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.version.is_none())
    }

    fn take(&mut self, found: Vec<Option<Version>>, tracked: bool) {
        for (seen, version) in self.seen.iter_mut().filter(|seen| seen.version.is_none()).zip(found) {
            seen.set(version, tracked);
        }
    }

    /// Whether a value can be stored under these versions: one that is fenced, or could not be made, agrees with nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.unknown().next().is_none()
    }

    /// What has ended a record that does not agree.
    pub(crate) fn ended_by(&self, record: &Envelope) -> Scope {
        if record.versions == self.implicit() { Scope::Tag } else { Scope::FunctionOrNamespace }
    }

    /// Whether one of them is known to have changed since it was read.
    pub(crate) fn has_changed(&self) -> bool {
        self.seen.iter().any(|seen| seen.cell.has_changed(seen.at))
    }

    /// Whether all of them still stand; one more trip if that is not known. Where the store does not answer, nobody can tell, and they do.
    pub(crate) async fn stands(&self, inner: &Inner) -> bool {
        if self.has_changed() {
            return false;
        }
        let seen = self.seen.iter().map(|seen| Seen::known(Arc::clone(&seen.cell))).collect();
        let mut now = Self { seen, tags: Vec::new() };
        if let Err(error) = now.read_unknown(inner).await {
            inner.store_failed(&error);
            return true;
        }
        now.seen.iter().zip(&self.seen).all(|(now, then)| now.version.is_some() && now.version == then.version)
    }

    /// The digest of the versions that every entry has.
    fn implicit(&self) -> Option<u128> {
        let [namespace, function, ..] = self.seen.as_slice() else { return None };
        let mut bytes = [0; 32];
        let both = [namespace.version?, function.version?].map(|version| version.bits().to_le_bytes());
        bytes.iter_mut().zip(both.as_flattened()).for_each(|(to, from)| *to = *from);
        Some(xxh3_128(&bytes))
    }

    /// The tags with their versions.
    fn tagged(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.tags.iter().map(|tag| &**tag).zip(self.seen.iter().skip(2))
    }

    fn kinds(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().skip(self.tags.len().saturating_add(2))
    }

    /// Whether a record was stored under the versions that stand. One more trip if it has tags that nothing is known of.
    pub(crate) async fn agrees(&self, inner: &Inner, record: &Envelope) -> Result<Agreement> {
        let all = Self::agree_all(inner, &[(self, record)]).await?;
        Ok(all.into_iter().next().unwrap_or(Agreement::No))
    }

    /// The same for several records, each by its basis.
    pub(crate) async fn agree_all(inner: &Inner, records: &[(&Self, &Envelope)]) -> Result<Vec<Agreement>> {
        let mut all: Vec<Option<Vec<Seen>>> =
            records.iter().map(|(basis, record)| basis.compare(inner, record)).collect();
        let unknown = keys_of(all.iter().flatten().flatten().filter(|seen| seen.version.is_none()));
        if !unknown.is_empty() {
            // One that is missing is made, so that it differs from the record's for good (R16). What is unknown then is fenced.
            let (found, tracked) = inner.store.read_versions(&unknown, true).await?;
            let found: HashMap<Arc<str>, Option<Version>> = unknown.into_iter().zip(found).collect();
            for seen in all.iter_mut().flatten().flatten().filter(|seen| seen.version.is_none()) {
                seen.set(found.get(seen.cell.key()).copied().flatten(), tracked);
            }
        }
        let conclude = |((basis, record), by_value): (&(&Self, &Envelope), Option<Vec<Seen>>)| {
            by_value.map_or(Agreement::No, |by_value| basis.conclude(record, &by_value))
        };
        Ok(records.iter().zip(all).map(conclude).collect())
    }

    /// The same without a trip. `None`: only the store can tell.
    pub(crate) fn agrees_now(&mut self, inner: &Inner, record: &Envelope) -> Option<Agreement> {
        self.seen.iter_mut().for_each(Seen::look);
        if !self.is_complete() {
            return None;
        }
        let Some(by_value) = self.compare(inner, record) else { return Some(Agreement::No) };
        by_value.iter().all(|seen| seen.version.is_some()).then(|| self.conclude(record, &by_value))
    }

    /// The tags of the record that this basis does not have, in the record's order. `None`: it does not agree in what both have.
    fn compare(&self, inner: &Inner, record: &Envelope) -> Option<Vec<Seen>> {
        let implicit = self.implicit()?;
        let mut own = self.tagged();
        // Also a record of a build that did not have the tag yet: no invalidation of the tag would reach it.
        let has = |(tag, seen): (&str, &Seen)| {
            record
                .tags
                .iter()
                .any(|other| *other.name == *tag && Some(other.version) == seen.version.map(Version::bits))
        };
        if record.versions != Some(implicit) || !own.all(has) {
            return None;
        }
        Some(
            self.by_value(record)
                .map(|tag| Seen::known(inner.versions.cell(&tag_key(&inner.namespace, &tag.name))))
                .collect(),
        )
    }

    fn by_value<'a>(&'a self, record: &'a Envelope) -> impl Iterator<Item = &'a TagVersion> {
        record.tags.iter().filter(|tag| !self.tags.contains(&tag.name))
    }

    fn conclude(&self, record: &Envelope, by_value: &[Seen]) -> Agreement {
        let mut all = self.by_value(record).zip(by_value);
        if all.any(|(tag, seen)| seen.version.is_some_and(|version| version.bits() != tag.version)) {
            return Agreement::No;
        }
        if by_value.iter().any(|seen| seen.version.is_none()) {
            return Agreement::Fenced;
        }
        Agreement::Yes(self.dependencies(by_value))
    }

    /// What L1 has to go by, if changes of all of it are told here.
    fn dependencies(&self, by_value: &[Seen]) -> Option<Dependencies> {
        let own = self.seen.iter().take(self.tags.len().saturating_add(2));
        own.chain(by_value).map(Seen::depend).collect::<Option<Vec<_>>>().map(versions::shared)
    }

    /// What to write into the record of a value whose run began after these versions were read. `None`: it must not be stored.
    ///
    /// One trip if the value has tags of its own.
    pub(crate) async fn of_value(
        &self,
        inner: &Inner,
        name: &Arc<str>,
        rules: &Rules,
        value: &Erased,
    ) -> Result<Option<Under>> {
        let mut texts = rules.tags_of.as_ref().map_or_else(Vec::new, |tags_of| tags_of(value));
        texts.sort();
        texts.dedup();
        texts.retain(|text| !self.tags.contains(text));
        let count = texts.len().saturating_add(self.tags.len());
        if count > MAX_TAGS {
            inner.events.emit(Event::TooManyTags { name: Arc::clone(name), tags: count });
            return Ok(None);
        }
        let Some(implicit) = self.implicit().filter(|_| self.is_complete()) else { return Ok(None) };
        let mut by_value: Vec<Seen> =
            texts.iter().map(|text| Seen::of(inner.versions.cell(&tag_key(&inner.namespace, text)))).collect();
        if !by_value.is_empty() {
            let kinds = self.kinds().map(|seen| seen.cell.key());
            let keys: Vec<Arc<str>> = kinds.chain(by_value.iter().map(|seen| seen.cell.key())).cloned().collect();
            by_value.iter_mut().for_each(|seen| seen.at = seen.cell.begin());
            let (found, tracked) = inner.store.read_versions(&keys, true).await?;
            let mut found = found.into_iter();
            // In one answer with the tags: were a tag changed after its run began, so would be its kind.
            let differ = self.kinds().filter(|kind| found.next().flatten() != kind.version).count();
            if differ > 0 && !sabotage::is(Guard::KindsFromBeforeRun) {
                return Ok(None);
            }
            by_value.iter_mut().zip(found).for_each(|(seen, version)| seen.set(version, tracked));
        }
        let names = self.tagged().chain(texts.iter().map(|text| &**text).zip(&by_value));
        let tags: Option<Vec<TagVersion>> =
            names.map(|(name, seen)| Some(TagVersion { name: name.into(), version: seen.version?.bits() })).collect();
        Ok(tags.map(|tags| Under { versions: Some(implicit), tags, dependencies: self.dependencies(&by_value) }))
    }
}

/// Their keys, each once.
fn keys_of<'a>(seen: impl Iterator<Item = &'a Seen>) -> Vec<Arc<str>> {
    let mut keys: Vec<Arc<str>> = seen.map(|seen| Arc::clone(seen.cell.key())).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What a record says of the versions it is stored under.
pub(crate) struct Under {
    pub(crate) versions: Option<u128>,
    pub(crate) tags: Vec<TagVersion>,
    /// What L1 has to go by; `None`: changes of it are not told here.
    pub(crate) dependencies: Option<Dependencies>,
}

impl Seen {
    fn of(cell: Arc<Cell>) -> Self {
        Self { at: cell.begin(), cell, version: None }
    }

    /// With the version, if it is known to stand.
    fn known(cell: Arc<Cell>) -> Self {
        let mut seen = Self::of(cell);
        seen.look();
        seen
    }

    /// Takes what is known to stand.
    fn look(&mut self) {
        // In this order: a change in between shows as one.
        self.at = self.cell.begin();
        self.version = self.cell.known();
    }

    /// Takes what a read brought that was sent after the last look.
    fn set(&mut self, version: Option<Version>, tracked: bool) {
        self.version = version;
        if let Some(version) = version.filter(|_| tracked) {
            self.cell.learn(self.at, version);
        }
    }

    fn depend(&self) -> Option<Dependency> {
        self.cell.depend(self.version?)
    }
}

/// All entries of a namespace.
pub(crate) fn namespace_key(namespace: &str) -> String {
    format!("{namespace}@version")
}

/// All entries of a function.
pub(crate) fn function_key(namespace: &str, name: &str) -> String {
    let mut key = format!("{namespace}:{name}");
    shorten(&mut key);
    key.push_str("@version");
    key
}

/// All entries with a tag.
pub(crate) fn tag_key(namespace: &str, tag: &str) -> String {
    key_of("@tag:", namespace, tag)
}

/// Of what a key of this module is the version.
pub(crate) fn scope(version_key: &str) -> Scope {
    match version_key.split_once('@') {
        Some((name, "version")) if !name.contains(':') => Scope::Namespace,
        Some((name, _)) if name.contains(':') => Scope::Function,
        _ => Scope::Tag,
    }
}

fn kind_key(namespace: &str, kind: &str) -> String {
    key_of("@tags:", namespace, kind)
}

fn key_of(what: &str, namespace: &str, text: &str) -> String {
    let mut written = KeyText::new();
    KeyWriter::new(&mut written).text(text);
    let mut key = format!("{namespace}{what}{}", written.as_str());
    shorten(&mut key);
    key
}

/// The keys that an invalidation of tags renews: each tag, and before it its kind.
pub(crate) fn keys_of_tags(namespace: &str, tags: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Arc<str>> {
    let (mut kinds, mut keys): (Vec<Arc<str>>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
    for tag in tags {
        let tag = tag.as_ref();
        let kind = tag.split_once(':').map(|(kind, _)| kind_key(namespace, kind).into());
        kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
        keys.push(tag_key(namespace, &tag_name(tag)).into());
    }
    // The kinds first: a run that reads its tag's old version must not find the kind's new one afterwards.
    kinds.append(&mut keys);
    kinds
}

impl Inner {
    /// What is known of versions is forgotten once a month, so that those in use are read, and with that renewed, long before they would run out.
    fn look_at_versions_again_when_due(&self) {
        let (now, due) = (self.clock.coarse(), self.versions_due.load(Ordering::Relaxed));
        let is_due = now >= due
            && self.versions_due.compare_exchange(due, due_after(now), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due {
            self.versions.clear();
        }
    }

    /// Gives these keys new versions. No caller that begins after it gets what was there before: what this process knows is
    /// forgotten before the write is sent, and again after its answer.
    pub(crate) async fn renew_versions(&self, keys: &[Arc<str>]) -> Result<()> {
        let renewed = self.forgetting(keys, async { self.store.renew_versions(keys).await }).await;
        for key in keys {
            let invalidated = What::Invalidated(scope(key), By::ThisProcess);
            self.history
                .note(key, renewed.as_ref().map_or_else(|error| What::WriteFailed(error.kind()), |()| invalidated));
        }
        renewed
    }

    /// Runs a write that changes these versions.
    pub(crate) async fn forgetting<T>(&self, keys: &[Arc<str>], write: impl Future<Output = Result<T>>) -> Result<T> {
        // Held over the await: dropped there, the write may have happened all the same.
        let _before_and_after = Forget::new(self, keys);
        write.await
    }
}

/// Forgets what this process knows of versions, when it is made and when it is dropped.
struct Forget<'a> {
    inner: &'a Inner,
    keys: &'a [Arc<str>],
}

impl<'a> Forget<'a> {
    fn new(inner: &'a Inner, keys: &'a [Arc<str>]) -> Self {
        let forget = Self { inner, keys };
        forget.now();
        forget
    }

    fn now(&self) {
        if sabotage::is(Guard::OwnWriteForgets) {
            return;
        }
        for key in self.keys {
            self.inner.versions.changed(key);
        }
        // Which runs are under way for entries with a tag is not known before they end.
        self.inner.flights.detach_all();
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // I1
    fn an_invalidation_renews_one_key_a_tag_and_one_a_kind_before() {
        let keys = |tags: &[&'static str]| {
            let keys = keys_of_tags("app", tags);
            keys.iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&["posts"]), ["app@tag:posts"]);
        let three = ["app@tags:author", "app@tag:author:7", "app@tag:author:8", "app@tag:posts"];
        assert_eq!(keys(&["author:7", "author:8", "posts"]), three);
        assert_eq!(keys(&["a b:{x}"]), ["app@tags:a%20b", "app@tag:a%20b:%7Bx%7D"]);
        assert_eq!(keys(&[]), [""; 0]);
    }

    #[test]
    fn a_version_key_tells_of_what_it_is() {
        assert_eq!(scope(&namespace_key("app")), Scope::Namespace);
        assert_eq!(scope(&function_key("app", "shop.product")), Scope::Function);
        for tag in ["posts", "author:7", "@version", "a@version"] {
            assert_eq!(scope(&tag_key("app", tag)), Scope::Tag, "{tag}");
        }
    }
}
