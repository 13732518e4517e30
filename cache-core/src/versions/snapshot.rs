//! Version snapshots: the versions that a value is stored under, of its namespace, function and
//! tags.
//!
//! ```text
//! <namespace>@version         all entries of the namespace
//! <namespace>:<name>@version  all entries of a function, of every build
//! <namespace>@tag:<tag>       all entries with this tag
//! <namespace>@tags:<kind>     changes with every tag of the kind: the text before the first `:`
//! ```
//!
//! Invariant: a record names the versions that were read before its run began. An invalidation
//! writes new random versions, so a record from before it never matches again, and a lost version
//! matches nothing (R3, R4, R14, R15, R16).
//!
//! A tag that depends on the value is known only after the run. Its version is read then, and after
//! it the version of its kind. If the kind has not changed since before the run, the tag had not
//! changed either when it was read. An invalidation renews them in the reverse order, the kind
//! first. So the versions need not all be read at the same moment.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::clock::{Clock, millis};
use crate::error::{Error, Result};
use crate::key::versions::kind_key;
use crate::key::versions::tag_key;
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, Events};
use crate::observe::function_stats::FunctionNumber;
use crate::observe::history::{Actor, History, HistoryEvent, Scope};
use crate::store::sweep::digest;
use crate::store::{Slot, Store, VERSION_RENEWED_BELOW, Version};
use crate::value::Erased;
use crate::value::envelope::{Envelope, TagVersion};
use crate::value::rules::Rules;
use crate::versions::functions::FunctionVersions;
use crate::versions::keys::scope;
use crate::versions::{self, Cell, Dependencies, Dependency, Pending, Since, Versions};

/// The maximum number of tags of an entry: enough for a page of elements with one tag each. Each
/// takes 16 bytes and its name in the record, and one load on every hit. The record format allows
/// 255.
pub(crate) const MAX_TAGS: usize = 128;

/// Returns when versions that are read now must be read again, in milliseconds of the coarse clock.
fn due_after(now: u64) -> u64 {
    now.saturating_add(millis(VERSION_RENEWED_BELOW) / 2)
}

/// The versions that one call depends on, as of the last read.
pub(crate) struct VersionSnapshot {
    /// The versions of the namespace and the function.
    own: [Seen; 2],
    /// The versions of `tags`, then those of the kinds of tags that depend on the value.
    others: Vec<Seen>,
    /// The tags that do not depend on the value.
    tags: Vec<Box<str>>,
}

/// A version as it was last seen.
struct Seen {
    cell: Arc<Cell>,
    version: Option<Version>,
    at: Pending,
}

/// Whether the versions of a record are current.
pub(crate) enum VersionCheck {
    /// They are. The dependencies are what L1 must check. `None`: this process is not notified of
    /// changes, or L1 must not keep the value.
    Yes(Option<Dependencies>),
    /// A version has changed since. The record is never served again, not even as a stale value
    /// (R17).
    No,
    /// A tag of the value is fenced. The value is not served now. It is served again if the write
    /// did not happen.
    Fenced,
}

impl VersionSnapshot {
    /// Makes a snapshot in which no version is read yet.
    pub(crate) fn new(reader: &VersionReader, name: &str, number: FunctionNumber, rules: &Rules) -> Self {
        // One tag above the limit is enough to store nothing.
        let tags: Vec<_> = rules.options.tags.iter().take(MAX_TAGS.saturating_add(1)).cloned().collect();
        let tag_keys = tags.iter().map(|tag| tag_key(&reader.namespace, tag));
        let kind_keys = rules.kinds.iter().map(|kind| kind_key(&reader.namespace, kind));
        let others = tag_keys.chain(kind_keys).map(|key| Seen::of(reader.cells.cell(&key))).collect();
        Self { others, tags, ..Self::untagged(reader, name, number) }
    }

    /// Makes a snapshot for a function without tags.
    pub(crate) fn untagged(reader: &VersionReader, name: &str, number: FunctionNumber) -> Self {
        reader.look_again_when_due();
        let known = &reader.of_functions;
        let function = known.function(&reader.cells, &reader.namespace, name, number);
        let own = [Seen::of(Arc::clone(known.namespace())), Seen::of(function)];
        Self { own, others: Vec::new(), tags: Vec::new() }
    }

    fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.own.iter().chain(&self.others)
    }

    fn seen_mut(&mut self) -> impl Iterator<Item = &mut Seen> {
        self.own.iter_mut().chain(&mut self.others)
    }

    /// Reads the value, and in the same round trip the versions that are unknown.
    pub(crate) async fn read(&mut self, reader: &VersionReader, key: &str, track: bool) -> Result<(Slot, bool)> {
        self.seen_mut().for_each(Seen::look);
        let unknown: Vec<Arc<str>> = self.unknown().map(|seen| Arc::clone(seen.cell.key())).collect();
        let (slot, tracked) = match (unknown.is_empty(), track) {
            (true, track) => reader.store.begin_read(key, track).await?,
            (false, true) => {
                let (slot, found, tracked) = reader.store.read_versioned(key, &unknown).await?;
                self.take(found, tracked);
                (slot, tracked)
            }
            // The versions are tracked, the value is not: L1 does not keep it.
            (false, false) => {
                let (slots, found, tracked) = reader.store.read_many(&[key.into()], &unknown, false).await?;
                self.take(found, tracked);
                (slots.into_iter().next().unwrap_or(Slot::Absent), tracked)
            }
        };
        self.look_again(reader).await?;
        Ok((slot, tracked && track))
    }

    /// Like [`read`](Self::read), for several values at once. `bases`: all snapshots they depend
    /// on.
    pub(crate) async fn read_many(
        reader: &VersionReader,
        bases: &mut [Self],
        keys: &[Arc<str>],
        track: bool,
    ) -> Result<(Vec<Slot>, bool)> {
        bases.iter_mut().flat_map(Self::seen_mut).for_each(Seen::look);
        let unknown = keys_of(bases.iter().flat_map(Self::unknown));
        let (slots, found, tracked) = reader.store.read_many(keys, &unknown, track).await?;
        let found: HashMap<Arc<str>, Option<Version>> = unknown.into_iter().zip(found).collect();
        for seen in bases.iter_mut().flat_map(Self::seen_mut).filter(|seen| seen.version.is_none()) {
            seen.set(found.get(seen.cell.key()).copied().flatten(), tracked);
        }
        for basis in bases {
            basis.look_again(reader).await?;
        }
        Ok((slots, tracked && track))
    }

    /// Reads versions again if this process was notified of a change since the read was sent.
    pub(crate) async fn look_again(&mut self, reader: &VersionReader) -> Result<()> {
        let mut lost = false;
        for seen in self.seen_mut().filter(|seen| seen.version.is_some() && seen.cell.has_changed(seen.at)) {
            seen.look();
            lost |= seen.version.is_none();
        }
        // Rare, so it is boxed: a hit needs no memory for it.
        if lost { Box::pin(self.read_unknown(reader)).await } else { Ok(()) }
    }

    /// Reads the unknown versions.
    pub(crate) async fn read_unknown(&mut self, reader: &VersionReader) -> Result<()> {
        self.seen_mut().filter(|seen| seen.version.is_none()).for_each(Seen::look);
        let unknown: Vec<Arc<str>> = self.unknown().map(|seen| Arc::clone(seen.cell.key())).collect();
        if !unknown.is_empty() {
            let (found, tracked) = reader.store.read_versions(&unknown, true).await?;
            self.take(found, tracked);
        }
        Ok(())
    }

    /// Returns whether a first read has registered this build of the function.
    pub(crate) fn has_introduced(&self, build: &str) -> bool {
        let [_, function] = &self.own;
        function.cell.introduced(hash_of_build(build))
    }

    /// Remembers that a first read has registered this build of the function.
    pub(crate) fn set_introduced(&self, build: &str) {
        let [_, function] = &self.own;
        function.cell.set_introduced(hash_of_build(build));
    }

    /// Returns the function's version.
    pub(crate) fn function(&self) -> Option<Version> {
        let [_, function] = &self.own;
        function.version
    }

    fn unknown(&self) -> impl Iterator<Item = &Seen> {
        self.seen().filter(|seen| seen.version.is_none())
    }

    fn take(&mut self, found: Vec<Option<Version>>, tracked: bool) {
        for (seen, version) in self.seen_mut().filter(|seen| seen.version.is_none()).zip(found) {
            seen.set(version, tracked);
        }
    }

    /// Returns the cells with the moments at which they were last seen.
    pub(crate) fn since(&self) -> Vec<Since> {
        self.seen().map(|seen| Since { cell: Arc::clone(&seen.cell), at: seen.at }).collect()
    }

    /// Returns whether all versions are known. If not, nothing can be stored under them: a version
    /// is fenced, or could not be created.
    pub(crate) fn is_complete(&self) -> bool {
        self.unknown().next().is_none()
    }

    /// Returns what has invalidated a record that does not match.
    pub(crate) fn ended_by(&self, record: &Envelope) -> Scope {
        if record.versions == self.implicit() { Scope::Tag } else { Scope::FunctionOrNamespace }
    }

    /// Returns whether a version is known to have changed since it was read.
    pub(crate) fn has_changed(&self) -> bool {
        self.seen().any(|seen| seen.cell.has_changed(seen.at))
    }

    /// Returns whether all versions are still current. One more round trip if that is not known. If
    /// the store is unreachable, the versions are assumed unchanged.
    pub(crate) async fn stands(&self, reader: &VersionReader) -> bool {
        if self.has_changed() {
            return false;
        }
        let known = |seen: &Seen| Seen::known(Arc::clone(&seen.cell));
        let others = self.others.iter().map(known).collect();
        let mut now = Self { own: self.own.each_ref().map(known), others, tags: Vec::new() };
        if let Err(error) = now.read_unknown(reader).await {
            reader.store_failed(&error);
            return true;
        }
        now.seen().zip(self.seen()).all(|(now, then)| now.version.is_some() && now.version == then.version)
    }

    /// Returns the digest of the versions that every entry has.
    fn implicit(&self) -> Option<u128> {
        let [namespace, function] = &self.own;
        Some(digest(namespace.version?, function.version?))
    }

    /// Returns the tags with their versions.
    fn tagged(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.tags.iter().map(|tag| &**tag).zip(&self.others)
    }

    fn kinds(&self) -> impl Iterator<Item = &Seen> {
        self.others.iter().skip(self.tags.len())
    }

    /// Checks whether the versions of a record are current. One more round trip if it has tags of
    /// unknown versions. `keeps`: L1 may keep the value.
    pub(crate) async fn agrees(&self, reader: &VersionReader, record: &Envelope, keeps: bool) -> Result<VersionCheck> {
        let Some(by_value) = self.compare(reader, record) else { return Ok(VersionCheck::No) };
        if by_value.iter().all(|seen| seen.version.is_some()) {
            return Ok(self.conclude(record, &by_value, keeps));
        }
        let all = [(self, record, keeps)];
        let all = Box::pin(Self::agree_all(reader, &all)).await?;
        Ok(all.into_iter().next().unwrap_or(VersionCheck::No))
    }

    /// Like [`agrees`](Self::agrees), for several records, each with its own snapshot.
    pub(crate) async fn agree_all(
        reader: &VersionReader,
        records: &[(&Self, &Envelope, bool)],
    ) -> Result<Vec<VersionCheck>> {
        let mut all: Vec<Option<Vec<Seen>>> =
            records.iter().map(|(basis, record, _)| basis.compare(reader, record)).collect();
        let unknown = keys_of(all.iter().flatten().flatten().filter(|seen| seen.version.is_none()));
        if !unknown.is_empty() {
            // A missing version is created, so that it differs from the record's for good (R16). If
            // it is still unknown after that, it is fenced.
            let (found, tracked) = reader.store.read_versions(&unknown, true).await?;
            let found: HashMap<Arc<str>, Option<Version>> = unknown.into_iter().zip(found).collect();
            for seen in all.iter_mut().flatten().flatten().filter(|seen| seen.version.is_none()) {
                seen.set(found.get(seen.cell.key()).copied().flatten(), tracked);
            }
        }
        let conclude = |((basis, record, keeps), by_value): (&(&Self, &Envelope, bool), Option<Vec<Seen>>)| {
            by_value.map_or(VersionCheck::No, |by_value| basis.conclude(record, &by_value, *keeps))
        };
        Ok(records.iter().zip(all).map(conclude).collect())
    }

    /// Like [`agrees`](Self::agrees), without a round trip. `None`: only the store knows.
    pub(crate) fn agrees_now(
        &mut self,
        reader: &VersionReader,
        record: &Envelope,
        keeps: bool,
    ) -> Option<VersionCheck> {
        self.seen_mut().for_each(Seen::look);
        if !self.is_complete() {
            return None;
        }
        let Some(by_value) = self.compare(reader, record) else { return Some(VersionCheck::No) };
        by_value.iter().all(|seen| seen.version.is_some()).then(|| self.conclude(record, &by_value, keeps))
    }

    /// Returns the tags of the record that this snapshot does not have, in the record's order.
    /// `None`: the record does not match this snapshot.
    fn compare(&self, reader: &VersionReader, record: &Envelope) -> Option<Vec<Seen>> {
        let implicit = self.implicit()?;
        let mut own = self.tagged();
        // A record of a build without the tag does not match either: an invalidation of the tag
        // would not reach it.
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
                .map(|tag| Seen::known(reader.cells.cell(&tag_key(&reader.namespace, &tag.name))))
                .collect(),
        )
    }

    fn by_value<'a>(&'a self, record: &'a Envelope) -> impl Iterator<Item = &'a TagVersion> {
        record.tags.iter().filter(|tag| !self.tags.contains(&tag.name))
    }

    fn conclude(&self, record: &Envelope, by_value: &[Seen], keeps: bool) -> VersionCheck {
        let mut all = self.by_value(record).zip(by_value);
        if all.any(|(tag, seen)| seen.version.is_some_and(|version| version.bits() != tag.version)) {
            return VersionCheck::No;
        }
        if by_value.iter().any(|seen| seen.version.is_none()) {
            return VersionCheck::Fenced;
        }
        VersionCheck::Yes(if keeps { self.dependencies(by_value) } else { None })
    }

    /// Returns what L1 must check. `None`: this process is not notified of all changes.
    fn dependencies(&self, by_value: &[Seen]) -> Option<Dependencies> {
        let [namespace, function] = &self.own;
        let own = [namespace.depend()?, function.depend()?];
        let tags = self.others.iter().take(self.tags.len());
        let others: Option<Vec<Dependency>> = tags.chain(by_value).map(Seen::depend).collect();
        Some(versions::shared(Some(own), others?))
    }

    /// Returns what to write into the record of a value whose run began after these versions were
    /// read. `None`: it must not be stored.
    ///
    /// One round trip if tags depend on the value.
    pub(crate) async fn of_value(
        &self,
        reader: &VersionReader,
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
            reader.events.emit(Event::TooManyTags { name: Arc::clone(name), tags: count });
            return Ok(None);
        }
        let Some(implicit) = self.implicit().filter(|_| self.is_complete()) else { return Ok(None) };
        let mut by_value: Vec<Seen> =
            texts.iter().map(|text| Seen::of(reader.cells.cell(&tag_key(&reader.namespace, text)))).collect();
        if !by_value.is_empty() {
            let tags = by_value.iter().map(|seen| seen.cell.key());
            let mut keys: Vec<Arc<str>> = tags.chain(self.kinds().map(|seen| seen.cell.key())).cloned().collect();
            by_value.iter_mut().for_each(|seen| seen.at = seen.cell.begin());
            let has_guard = !mutants::removed(Invariant::TagsBeforeKinds);
            if !has_guard {
                keys.reverse();
            }
            let (mut found, tracked) = reader.store.read_versions(&keys, true).await?;
            if !has_guard {
                found.reverse();
            }
            // Read after the tags: if a tag had changed since the run began, so would its kind.
            let of_kinds = found.split_off(by_value.len().min(found.len()));
            let stand = self.kinds().zip(of_kinds).all(|(kind, version)| version == kind.version);
            if !stand && !mutants::removed(Invariant::KindsFromBeforeRun) {
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

/// Returns a number for the build, never zero: a cell starts with zero.
fn hash_of_build(fingerprint: &str) -> u64 {
    xxh3_64(fingerprint.as_bytes()) | 1
}

/// Returns their keys, without duplicates.
fn keys_of<'a>(seen: impl Iterator<Item = &'a Seen>) -> Vec<Arc<str>> {
    let mut keys: Vec<Arc<str>> = seen.map(|seen| Arc::clone(seen.cell.key())).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The versions in a record.
pub(crate) struct Under {
    pub(crate) versions: Option<u128>,
    pub(crate) tags: Vec<TagVersion>,
    /// What L1 must check. `None`: this process is not notified of changes.
    pub(crate) dependencies: Option<Dependencies>,
}

impl Seen {
    fn of(cell: Arc<Cell>) -> Self {
        Self { at: cell.begin(), cell, version: None }
    }

    /// Makes it with the version, if that is known to be current.
    fn known(cell: Arc<Cell>) -> Self {
        let mut seen = Self::of(cell);
        seen.look();
        seen
    }

    /// Takes the version that is known to be current.
    fn look(&mut self) {
        (self.at, self.version) = self.cell.look();
    }

    /// Takes the result of a read that was sent after the last look.
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

/// Reads and renews the versions of one cache.
pub(crate) struct VersionReader {
    store: Arc<dyn Store>,
    namespace: Box<str>,
    /// What this process knows of them.
    pub(crate) cells: Arc<Versions>,
    of_functions: FunctionVersions,
    /// When they must be read again, on the coarse clock.
    due: AtomicU64,
    clock: Clock,
    history: Arc<History>,
    events: Events,
}

impl VersionReader {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        namespace: &str,
        cells: Arc<Versions>,
        clock: Clock,
        history: Arc<History>,
        events: Events,
    ) -> Arc<Self> {
        let (of_functions, due) = (FunctionVersions::new(&cells, namespace), due_after(clock.coarse()).into());
        Arc::new(Self { store, namespace: namespace.into(), cells, of_functions, due, clock, history, events })
    }

    fn store_failed(&self, error: &Error) {
        self.events.store_failed(error, self.store.is_available());
    }

    /// Forgets all versions once a month. So those in use are read again, and thereby renewed, long
    /// before they expire.
    fn look_again_when_due(&self) {
        let (now, due) = (self.clock.coarse(), self.due.load(Ordering::Relaxed));
        let is_due =
            now >= due && self.due.compare_exchange(due, due_after(now), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due {
            self.cells.clear();
        }
    }

    /// Gives these keys new versions. No caller that begins after it gets what was there before:
    /// this process forgets the old versions before the write is sent, and again after its reply.
    pub(crate) async fn renew(&self, keys: &[Arc<str>]) -> Result<()> {
        let reversed: Vec<Arc<str>> = keys.iter().rev().cloned().collect();
        let in_order = if mutants::removed(Invariant::KindsBeforeTags) { &reversed } else { keys };
        let renewed = self.forgetting(keys, async { self.store.renew_versions(in_order).await }).await;
        self.note_invalidated(keys, &renewed);
        renewed
    }

    /// Adds an invalidation by this process to the history of its keys.
    pub(crate) fn note_invalidated(&self, keys: &[Arc<str>], done: &Result<()>) {
        for key in keys {
            let invalidated = HistoryEvent::Invalidated(scope(key), Actor::ThisProcess);
            self.history.note(
                key,
                done.as_ref().map_or_else(|error| HistoryEvent::WriteFailed(error.kind()), |()| invalidated),
            );
        }
    }

    /// Forgets what this process knows of these versions, so that later callers do not get it.
    pub(crate) fn forget(&self, keys: &[Arc<str>]) {
        drop(Forget::new(self, keys));
    }

    /// Runs a write that changes these versions.
    pub(crate) async fn forgetting<T>(&self, keys: &[Arc<str>], write: impl Future<Output = Result<T>>) -> Result<T> {
        // Held over the await: if the call is dropped there, the write may still have happened.
        let _before_and_after = Forget::new(self, keys);
        write.await
    }
}

/// Forgets what this process knows of versions, when it is made and when it is dropped.
struct Forget<'a> {
    reader: &'a VersionReader,
    keys: &'a [Arc<str>],
}

impl<'a> Forget<'a> {
    fn new(reader: &'a VersionReader, keys: &'a [Arc<str>]) -> Self {
        let forget = Self { reader, keys };
        forget.now();
        forget
    }

    fn now(&self) {
        if mutants::removed(Invariant::OwnWriteForgets) {
            return;
        }
        for key in self.keys {
            self.reader.cells.changed(key);
        }
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.now();
    }
}
