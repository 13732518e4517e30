//! Items that only generated code may use. They change without notice.

#[path = "private/invalidates.rs"]
mod invalidates;

use std::any::TypeId;
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use self::invalidates::{Argument, Begun, OfItsCache, Returned, Write, argument};
use crate::call::plan::Plan;
pub use crate::key::{Displayed, TagWriter};
#[cfg(feature = "sessions")]
pub use crate::session::{assert_name as assert_session_name, field as session_field};
pub use crate::value::codec::{Codec, DefaultCodec};
pub use crate::value::return_type::{
    BatchProbe, BatchReturn, ByIoError, ErrorProbe, Original, Parts, Probe, Returns, Sharing, share_field,
};
pub use crate::value::rules::{Rules, Tags};

pub use self::batch::BatchMiss;
pub use self::miss::{Call, Miss};
pub use self::plain::{PlainCached, PlainMiss, look_up_plain};

#[path = "private/batch.rs"]
mod batch;
#[path = "private/miss.rs"]
mod miss;
#[path = "private/plain.rs"]
mod plain;

/// The traits of [`Probe`]'s methods, without their names, which may be names of the user's types.
pub mod via {
    pub use super::invalidates::via::{OfAny as _, OfResult as _};
    pub use crate::value::return_type::batch_via::{BatchOfOptions as _, BatchOfResults as _, BatchOfValues as _};
    pub use crate::value::return_type::error_via::{
        CannotBeOverdue as _, CannotShare as _, OverdueByIoError as _, OverdueByItself as _, SharesByClone as _,
        SharesByError as _, SharesByImpl as _, SharesByMessage as _, SharesByView as _,
    };
    pub use crate::value::return_type::payload_via::{
        AllowsTheRest as _, RefusesSecrets as _, SeesBoth as _, SeesComparable as _, SeesNothing as _,
        SeesWeighable as _,
    };
    pub use crate::value::return_type::via::{
        JustOption as _, JustPlain as _, JustShared as _, ResultOption as _, ResultPlain as _, ResultShared as _,
    };
}

use crate::cache::Cache;
use crate::call::lookup::Lookup;
use crate::entry::{CachedEntry, UnboundEntry};
use crate::key::EntryKey;
use crate::key::{self, KeyPart, KeyText, KeyWriter, Part};
use crate::local::{Hit, LocalKeyRef, Origin, ParsedKey};
use crate::observe::events::Event;
use crate::observe::function_stats::FunctionNumber;
use crate::options::{EntryOptions, LocalTier};
use crate::value::fingerprint::fingerprint_text;
use crate::value::rules::SharedRules;
use crate::versions::keys;

/// Returns the installed cache. If there is none, installs one in memory.
#[must_use]
#[inline]
pub fn installed() -> &'static Cache {
    Cache::global()
}

/// The constant properties of one cached function. One `static` each.
pub struct Function {
    ident: &'static str,
    named: Option<&'static str>,
    version: u64,
    first: OnceLock<Resolved>,
    /// Further instances of a generic function or of a method of a generic type. Leaked, one per
    /// instance.
    others: Mutex<Vec<&'static Resolved>>,
}

/// A function's name and fingerprint, for one value type and one owner.
#[derive(Debug)]
struct Resolved {
    owner: &'static str,
    of: &'static str,
    value: TypeId,
    name: Arc<str>,
    fingerprint: Arc<str>,
    origin: Origin,
    function: FunctionNumber,
    fingerprint_complete: bool,
    /// Set by its first run: its options, and whether its future owned everything it used.
    options: OnceLock<(EntryOptions, bool)>,
    rules: SharedRules,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.named.unwrap_or(self.ident)).finish()
    }
}

impl Function {
    /// Makes a function called `ident`.
    #[must_use]
    pub const fn new(ident: &'static str) -> Self {
        Self { ident, named: None, version: 0, first: OnceLock::new(), others: Mutex::new(Vec::new()) }
    }

    /// Sets a key name chosen by the user, which the macro has checked.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.named = Some(name);
        self
    }

    /// Sets the version that is part of the fingerprint.
    #[must_use]
    pub const fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }
}

/// A cached function with its types, shared by its companions.
pub struct Cached<R: 'static> {
    function: &'static Function,
    owner: Owner,
    of: &'static str,
    returns: Returns<R>,
    local: LocalTier,
}

/// The owner of a function, by `type_name`.
#[derive(Debug, Clone, Copy)]
enum Owner {
    /// A free function. The path of its companion type is its own path.
    Path(&'static str),
    /// A method of this type.
    Type(&'static str),
}

impl<R> Clone for Cached<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Cached<R> {}

impl<R> fmt::Debug for Cached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.function.fmt(f)
    }
}

impl<R: Send + 'static> Cached<R> {
    /// Makes a free function. `path` is the `type_name` of its companion.
    #[must_use]
    pub const fn function(function: &'static Function, path: &'static str, returns: Returns<R>) -> Self {
        Self { function, owner: Owner::Path(path), of: "", returns, local: LocalTier::Cache }
    }

    /// Makes a method. `owner` is the `type_name` of `Self`.
    #[must_use]
    pub const fn method(function: &'static Function, owner: &'static str, returns: Returns<R>) -> Self {
        Self { function, owner: Owner::Type(owner), of: "", returns, local: LocalTier::Cache }
    }

    /// Selects one instance of a generic function. `of` is the `type_name` of the type parameters
    /// that its result can depend on.
    #[must_use]
    pub const fn instance(mut self, of: &'static str) -> Self {
        self.of = of;
        self
    }

    /// Sets what the local tier does with the values.
    #[must_use]
    pub const fn local(mut self, local: LocalTier) -> Self {
        self.local = local;
        self
    }

    /// Slow path: no plain L1 hit, or the hit must be sampled by the consistency meter. `key`: the
    /// key in L1, if the store does not shorten it.
    fn lookup_cold(self, cache: &Cache, key: Option<&LocalKeyRef<'_>>, args: &str) -> Result<R, Box<Miss<R>>> {
        let resolved = self.resolve(cache);
        let hit = key.and_then(|key| cache.0.in_local(key, || resolved.function, self.returns.of.ok));
        if let Some(Hit::Fresh(value)) = hit {
            self.metered(cache, resolved, args);
            return Ok(value);
        }
        let entry = EntryKey::new(&cache.0.namespace, &resolved.name, args, &resolved.fingerprint);
        let options = resolved.options.get().map(|(options, owned)| (options, *owned));
        let (value_key, name, value) = (&entry.value_key, &entry.name, &self.returns.of.value);
        let found = match hit {
            Some(Hit::Due(value, fill_id)) => cache.0.due(value_key, value, fill_id),
            // A key that the store shortens is shortened in L1 too.
            _ if key.is_none() => cache.0.lookup(value_key, name, value, options, self.local, self.returns.of.ok),
            _ => cache.0.lookup_store(value_key, name, value, options, self.local, self.returns.of.ok),
        };
        let due = match found {
            Lookup::Hit(value) => {
                cache.0.meter_hit(|| entry.clone());
                return Ok(value);
            }
            Lookup::HitRefresh(value, fill_id) => Some((value, fill_id)),
            Lookup::Miss => None,
        };
        Err(Box::new(Miss {
            cache: cache.clone(),
            key: entry,
            resolved,
            due,
            returns: self.returns,
            local: self.local,
        }))
    }

    /// Offers a hit to the consistency meter.
    fn metered(self, cache: &Cache, resolved: &Resolved, args: &str) {
        cache.0.meter_hit(|| EntryKey::new(&cache.0.namespace, &resolved.name, args, &resolved.fingerprint));
    }

    /// Returns the entry of these arguments.
    pub fn entry(&self, cache: &Cache, rules: Rules, args: impl FnOnce(&mut KeyWriter<'_>)) -> CachedEntry<R> {
        self.entry_of(cache, Arc::new(rules), written(args))
    }

    /// Returns the entry of these arguments if only the caller knows the cache.
    pub fn unbound_entry(&self, rules: Rules, args: impl FnOnce(&mut KeyWriter<'_>)) -> UnboundEntry<R> {
        let (this, args) = (*self, written(args));
        UnboundEntry {
            key: format!("{}:{args}", self.name()),
            bind: Box::new(move |cache| this.entry_of(cache, Arc::new(rules), args)),
        }
    }

    fn entry_of(&self, cache: &Cache, rules: Arc<Rules>, args: Arc<str>) -> CachedEntry<R> {
        let resolved = self.resolve(cache);
        let key = EntryKey::new(&cache.0.namespace, &resolved.name, &args, &resolved.fingerprint);
        let plan =
            Plan { number: resolved.function.into(), ..Plan::new(key, self.returns.of.value, rules, self.local) };
        CachedEntry::new(cache.clone(), Arc::new(plan), self.returns, args)
    }

    /// Makes every entry of this instance a miss, in every build.
    ///
    /// # Errors
    /// Store errors.
    pub async fn invalidate_all(&self, cache: &Cache) -> crate::Result<()> {
        let name = &self.resolve(cache).name;
        cache.0.versions.renew(&[keys::function_key(&cache.0.namespace, name).into()]).await
    }

    /// Returns the name and fingerprint of this instance, which are computed at its first call.
    fn resolve(&self, cache: &Cache) -> &'static Resolved {
        match self.function.first.get() {
            Some(first) if self.is_first(first) => first,
            _ => self.resolve_other(cache),
        }
    }

    /// Returns whether this is the first instance. A free function without type parameters has only
    /// one.
    #[inline(always)]
    fn is_first(&self, first: &Resolved) -> bool {
        (matches!(self.owner, Owner::Path(_)) && self.of.is_empty()) || self.is_of(first)
    }

    #[inline(always)]
    fn is_of(&self, resolved: &Resolved) -> bool {
        let (Owner::Path(owner) | Owner::Type(owner)) = self.owner;
        // Mostly the same constant, so no bytes are compared.
        same(resolved.owner, owner) && same(resolved.of, self.of) && resolved.value == (self.returns.of.value.type_id)()
    }

    #[cold]
    fn resolve_other(&self, cache: &Cache) -> &'static Resolved {
        let (Owner::Path(owner) | Owner::Type(owner)) = self.owner;
        let value = (self.returns.of.value.type_id)();
        let mut is_new = false;
        let first = self.function.first.get_or_init(|| {
            is_new = true;
            self.work_out(owner, value)
        });
        let resolved = if self.is_of(first) {
            first
        } else {
            let mut others = self.function.others.lock().unwrap_or_else(PoisonError::into_inner);
            match others.iter().find(|resolved| self.is_of(resolved)) {
                Some(resolved) => resolved,
                None => {
                    is_new = true;
                    let resolved: &'static Resolved = Box::leak(Box::new(self.work_out(owner, value)));
                    others.push(resolved);
                    resolved
                }
            }
        };
        if is_new && !resolved.fingerprint_complete {
            cache.0.events.emit(Event::FingerprintIncomplete { type_name: (self.returns.of.value.type_name)() });
        }
        resolved
    }

    fn work_out(&self, owner: &'static str, value: TypeId) -> Resolved {
        let fingerprint = (self.returns.of.value.fingerprint)();
        let text = fingerprint_text(fingerprint, self.function.version, self.returns.of.value.codec_id);
        let name = self.name();
        Resolved {
            owner,
            of: self.of,
            value,
            origin: Origin::of(&name, &text),
            function: FunctionNumber::of_function(&name),
            name: name.into(),
            fingerprint: text.into(),
            // With a version, the owner of the function keeps track of changes.
            fingerprint_complete: fingerprint.complete || self.function.version != 0,
            options: OnceLock::new(),
            rules: SharedRules::default(),
        }
    }

    fn name(&self) -> String {
        let mut name = match (self.function.named, self.owner) {
            (Some(name), _) => name.to_owned(),
            (None, Owner::Path(path)) => readable(&without_companion_module(path)),
            (None, Owner::Type(owner)) => format!("{}.{}", readable(owner), self.function.ident),
        };
        if !self.of.is_empty() {
            name.push('<');
            name.push_str(&readable(self.of));
            name.push('>');
        }
        key::clean_name(name.into()).into_owned()
    }
}

/// Returns the value if it can be read without waiting. `args` writes the arguments of the key.
/// `cached` is called again on the slow path, so that a plain L1 hit does not keep it in memory.
///
/// Does not wait, and allocates nothing but the value.
///
/// # Errors
/// The miss, to be run.
// Inlined into the caller, where everything in `cached()` is constant.
#[inline(always)]
pub fn look_up<R: Send + 'static>(
    cached: impl Fn() -> Cached<R>,
    cache: &Cache,
    args: impl FnOnce(&mut KeyWriter<'_>),
) -> Result<R, Box<Miss<R>>> {
    let resolved = resolve(&cached, cache);
    let mut text = KeyText::lazy();
    args(&mut KeyWriter::new(&mut text));
    let is_uncut = key::is_uncut(&cache.0.namespace, &resolved.name, text.len());
    if is_uncut && cache.0.meter.is_none() && cache.0.local.is_some() {
        let key = ParsedKey::new(resolved.origin, &text);
        if let Some(hit) = in_local_plain(&cached, cache, resolved, &key.as_ref()) {
            return Ok(hit);
        }
    }
    lookup_written(&cached, cache, resolved, is_uncut, text)
}

#[cold]
#[inline(never)]
fn lookup_written<R: Send + 'static>(
    cached: &impl Fn() -> Cached<R>,
    cache: &Cache,
    resolved: &'static Resolved,
    is_uncut: bool,
    mut text: KeyText,
) -> Result<R, Box<Miss<R>>> {
    let args = text.written();
    let key = (is_uncut && cache.0.local.is_some()).then(|| ParsedKey::of_args(resolved.origin, args));
    cached().lookup_cold(cache, key.as_ref().map(ParsedKey::as_ref).as_ref(), args)
}

/// Like [`look_up`], for arguments that consist of this one part. Most parts can be compared
/// directly, without writing them as text.
///
/// # Errors
/// The miss, to be run.
#[inline(always)]
pub fn look_up_part<R: Send + 'static, P: KeyPart + ?Sized>(
    cached: impl Fn() -> Cached<R>,
    cache: &Cache,
    part: &P,
) -> Result<R, Box<Miss<R>>> {
    let resolved = resolve(&cached, cache);
    if let Some(key) = LocalKeyRef::whole(&resolved.origin, part.__whole())
        && key::is_uncut(&cache.0.namespace, &resolved.name, key.most_bytes())
        && cache.0.meter.is_none()
        && let Some(hit) = in_local_plain(&cached, cache, resolved, &key)
    {
        return Ok(hit);
    }
    lookup_part_written(&cached, cache, part)
}

/// Returns an argument for [`look_up_parts`].
#[inline(always)]
pub fn part<P: KeyPart>(value: &P) -> Part<'_> {
    Part { whole: value.__whole(), value }
}

/// Like [`look_up`], for arguments that consist of these parts. Numbers and texts are compared
/// without writing them as text.
///
/// # Errors
/// The miss, to be run.
#[inline(always)]
pub fn look_up_parts<R: Send + 'static, const N: usize>(
    cached: impl Fn() -> Cached<R>,
    cache: &Cache,
    parts: [Part<'_>; N],
) -> Result<R, Box<Miss<R>>> {
    let resolved = resolve(&cached, cache);
    if let Some(wholes) = LocalKeyRef::comparable(parts.map(|part| part.whole))
        && let key = LocalKeyRef::of_parts(&resolved.origin, &wholes)
        && key::is_uncut(&cache.0.namespace, &resolved.name, key.most_bytes())
        && cache.0.meter.is_none()
        && let Some(hit) = in_local_plain(&cached, cache, resolved, &key)
    {
        return Ok(hit);
    }
    lookup_parts_written(&cached, cache, &parts)
}

#[inline(never)]
fn lookup_parts_written<R: Send + 'static>(
    cached: &impl Fn() -> Cached<R>,
    cache: &Cache,
    parts: &[Part<'_>],
) -> Result<R, Box<Miss<R>>> {
    look_up(cached, cache, |key| key.parts(parts))
}

/// Returns a plain L1 hit. `cached` is called where the conversion is used, so that the compiler
/// knows it there.
#[inline(always)]
fn in_local_plain<R: Send + 'static>(
    cached: &impl Fn() -> Cached<R>,
    cache: &Cache,
    resolved: &'static Resolved,
    key: &LocalKeyRef<'_>,
) -> Option<R> {
    cache.0.in_local_plain(key, || resolved.function, |value| (cached().returns.of.ok)(value))
}

#[cold]
#[inline(never)]
fn lookup_part_written<R: Send + 'static, P: KeyPart + ?Sized>(
    cached: &impl Fn() -> Cached<R>,
    cache: &Cache,
    part: &P,
) -> Result<R, Box<Miss<R>>> {
    look_up(cached, cache, |key| key.member(part))
}

/// Returns the name and fingerprint of this instance, which are computed at its first call.
#[inline(always)]
fn resolve<R: Send + 'static>(cached: &impl Fn() -> Cached<R>, cache: &Cache) -> &'static Resolved {
    let this = cached();
    match this.function.first.get() {
        Some(first) if this.is_first(first) => first,
        _ => resolve_other(cached, cache),
    }
}

#[cold]
#[inline(never)]
fn resolve_other<R: Send + 'static>(cached: &impl Fn() -> Cached<R>, cache: &Cache) -> &'static Resolved {
    cached().resolve(cache)
}

#[inline]
fn same(a: &'static str, b: &'static str) -> bool {
    (std::ptr::eq(a.as_ptr(), b.as_ptr()) && a.len() == b.len()) || a == b
}

/// Formats a `type_name` for a key: dots for `::`, no white space, and no lifetimes, which only
/// some compilers print.
fn readable(type_name: &str) -> String {
    let mut out = type_name.replace("{{closure}}", "closure").replace("::", ".");
    while let Some(at) = out.find("'_") {
        let end = out.get(at..).and_then(|rest| rest.strip_prefix("'_, ")).map_or(2, |_| 4);
        out.replace_range(at..at.saturating_add(end), "");
    }
    out.replace("<>", "").replace(' ', "")
}

/// Removes the module of a companion, which is not part of the function's path.
fn without_companion_module(path: &str) -> Cow<'_, str> {
    let split = path.rsplit_once("::").and_then(|(rest, name)| Some((rest.rsplit_once("::")?, name)));
    match split {
        Some(((home, module), name)) if module.starts_with("__companion_") => format!("{home}::{name}").into(),
        _ => path.into(),
    }
}

fn written(args: impl FnOnce(&mut KeyWriter<'_>)) -> Arc<str> {
    let mut text = KeyText::new();
    args(&mut KeyWriter::new(&mut text));
    text.as_str().into()
}
