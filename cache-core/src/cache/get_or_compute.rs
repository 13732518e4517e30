//! Calls with explicit keys and options: what `#[cached]` does, as methods of the cache.

use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};

use super::Cache;
use crate::call::batch::{self, Returned};
use crate::call::lookup::Lookup;
use crate::call::plan::{OldValue, Plan};
use crate::call::{read_through, refresh};
use crate::coordination::single_flight::FlightOutcome;
use crate::engine::Engine;
use crate::error::Result;
use crate::key::EntryKey;
use crate::key::Key;
use crate::options::{EntryOptions, Revalidated};
use crate::value::Erased;
use crate::value::codec::DefaultCodec;
use crate::value::fingerprint::fingerprint_text;
use crate::value::return_type::{BatchContainer, CacheValue, Form, Optional, Plain, ValueType};
use crate::value::rules::Rules;

impl Cache {
    /// Returns the value stored under `key`. If there is none, runs `compute` and stores its value.
    ///
    /// This is the explicit form of `#[cached]`. Callers of one key share one run, in this process
    /// and across all processes that share the store. If the store fails, `compute` runs and an
    /// [event](Self::subscribe) is emitted. If the caller that runs `compute` is dropped, another
    /// waiting caller runs its own.
    ///
    /// ```
    /// # use cache_core::{Cache, EntryOptions, Key};
    /// # use std::time::Duration;
    /// # async fn load(id: u64) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # async fn example(cache: &Cache, id: u64) -> Result<(), std::sync::Arc<std::io::Error>> {
    /// let options = EntryOptions::new().ttl(Duration::from_secs(60));
    /// let name = cache.get_or_compute(Key::new("user_name").part(&id), &options, || load(id)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of `compute`, shared by all callers that waited for that run.
    ///
    /// # Panics
    /// If `compute` panics, or if it requests the same key: it would wait for itself forever.
    pub async fn get_or_compute<T, E, C, F>(&self, key: Key, options: &EntryOptions, compute: C) -> Result<T, Arc<E>>
    where
        T: CacheValue,
        E: Send + Sync + 'static,
        C: FnOnce() -> F,
        F: Future<Output = Result<T, E>> + Send,
    {
        self.compute_unnamed::<Plain<T>, E, C, F>(key, options, compute).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), for values that may be absent. `None` is
    /// stored for `negative_ttl` if that is set, and otherwise not stored.
    ///
    /// # Errors
    /// The error of `compute`, shared by all callers that waited for that run.
    ///
    /// # Panics
    /// If `compute` panics, or if it requests the same key.
    pub async fn get_or_compute_optional<T, E, C, F>(
        &self,
        key: Key,
        options: &EntryOptions,
        compute: C,
    ) -> Result<Option<T>, Arc<E>>
    where
        T: CacheValue,
        E: Send + Sync + 'static,
        C: FnOnce() -> F,
        F: Future<Output = Result<Option<T>, E>> + Send,
    {
        self.compute_unnamed::<Optional<T>, E, C, F>(key, options, compute).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), for values that can be revalidated.
    /// `revalidate` gets the old value, if there is one, and may return it. Its ttl then begins
    /// again, and only a header is sent to the store.
    ///
    /// An old value is available for as long after its ttl as `stale_while_revalidate` or
    /// `stale_if_error` say. Without either option there is none.
    ///
    /// ```
    /// # use cache_core::options::Revalidated;
    /// # use cache_core::{Cache, EntryOptions, Key};
    /// # use std::time::Duration;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize)] struct Page { etag: String, text: String }
    /// # async fn fetch(etag: Option<&str>) -> Result<Option<Page>, std::io::Error> { Ok(None) }
    /// # async fn example(cache: &Cache) -> Result<(), std::sync::Arc<std::io::Error>> {
    /// let options = EntryOptions::new().ttl(Duration::from_secs(60)).stale_if_error(Duration::from_secs(86400));
    /// let revalidate = |old: Option<Page>| async move {
    ///     match (fetch(old.as_ref().map(|page| &*page.etag)).await?, old) {
    ///         (Some(page), _) => Ok(Revalidated::New(page)),
    ///         (None, Some(old)) => Ok(Revalidated::NotModified(old)),
    ///         (None, None) => Err(std::io::Error::other("not modified, but there is nothing")),
    ///     }
    /// };
    /// let page = cache.get_or_revalidate(Key::new("page"), &options, revalidate).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of `revalidate`, shared by all callers that waited for that run.
    ///
    /// # Panics
    /// If `revalidate` panics, or if it requests the same key.
    pub async fn get_or_revalidate<T, E, C, F>(
        &self,
        key: Key,
        options: &EntryOptions,
        revalidate: C,
    ) -> Result<T, Arc<E>>
    where
        T: CacheValue,
        E: Send + Sync + 'static,
        C: FnOnce(Option<T>) -> F + Send,
        F: Future<Output = Result<Revalidated<T>, E>> + Send,
    {
        let old = Arc::new(OldValue::default());
        let given = Arc::clone(&old);
        let function = || async move {
            let old = given.lock().unwrap_or_else(PoisonError::into_inner).take();
            let value = old.as_ref().and_then(Plain::<T>::restore);
            Ok(match revalidate(value).await? {
                Revalidated::New(value) => Plain::<T>::erase(value),
                // The same allocation, by which the engine recognizes that the value was not
                // modified.
                Revalidated::NotModified(value) => old.unwrap_or_else(|| Plain::<T>::erase(value)),
            })
        };
        self.run_unnamed::<Plain<T>, E, _>(key, options, Some(old), function).await
    }

    /// Like [`get_or_compute`](Self::get_or_compute), for many ids. Each id is an entry of its own,
    /// under the key that `key` returns for it.
    ///
    /// Stored values are read with one round trip for all ids. `compute` is called once with the
    /// ids that are missing. It is called again for ids that another caller was computing when it
    /// was dropped. An id that the result leaves out is absent: it is stored for `negative_ttl` if
    /// that is set, and otherwise not stored.
    ///
    /// The container can be a `HashMap`, `BTreeMap`, `IndexMap` or `Vec<(Id, Value)>`. Entries and
    /// runs are shared with [`get_or_compute_optional`](Self::get_or_compute_optional) under the
    /// same keys. `stale_if_error` applies. An old value is never served while a new one is
    /// computed, so `stale_while_revalidate`, `refresh`, `soft_timeout` and `early` have no effect
    /// here.
    ///
    /// ```
    /// # use cache_core::{Cache, EntryOptions, Key};
    /// # use std::collections::HashMap;
    /// # async fn load(ids: Vec<u64>) -> Result<HashMap<u64, String>, std::io::Error> { Ok(HashMap::new()) }
    /// # async fn example(cache: &Cache) -> Result<(), std::sync::Arc<std::io::Error>> {
    /// let key = |id: &u64| Key::new("user_name").part(id);
    /// let names = cache.get_or_compute_many(&[1, 2, 3], key, &EntryOptions::new(), load).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of `compute`. No value of that call is stored, and all callers that waited for one
    /// of its ids get the error.
    ///
    /// # Panics
    /// If `compute` panics, or if it requests one of its own keys.
    pub async fn get_or_compute_many<C, E, K, G, F>(
        &self,
        ids: &[C::Id],
        key: K,
        options: &EntryOptions,
        compute: G,
    ) -> Result<C, Arc<E>>
    where
        C: BatchContainer<Value: CacheValue, Id: Clone + Eq + Hash + Send + Sync> + 'static,
        E: Send + Sync + 'static,
        K: Fn(&C::Id) -> Key,
        G: Fn(Vec<C::Id>) -> F + Send + Sync,
        F: Future<Output = Result<C, E>> + Send,
    {
        let value = const { ValueType::of::<Optional<C::Value>, E, DefaultCodec>() };
        // A batch does not refresh in the background.
        let options =
            EntryOptions { stale_while_revalidate: None, soft_timeout: None, early: Some(0.0), ..options.clone() };
        let rules = Arc::new(Rules::of(options));
        let mut seen = HashSet::with_capacity(ids.len());
        let (mut asked, mut missing, mut plans) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids.iter().filter(|id| seen.insert(*id)) {
            let key = self.0.unnamed_key(&key(id), value);
            let options = &rules.options;
            let take = Optional::<C::Value>::restore;
            let lookup = self.0.lookup(&key.value_key, &key.name, &value, Some((options, false)), options.local, take);
            let hit = if let Lookup::Hit(hit) = lookup {
                self.0.meter_hit(|| key.clone());
                hit
            } else {
                missing.push(asked.len());
                plans.push(Plan::new(key, value, Arc::clone(&rules), options.local));
                None
            };
            asked.push((id.clone(), hit));
        }
        if !plans.is_empty() {
            let wanted: Vec<C::Id> = missing.iter().filter_map(|at| Some(asked.get(*at)?.0.clone())).collect();
            for (at, value) in
                missing.into_iter().zip(self.run_many::<C, E, _>(&plans.into(), &wanted, &compute).await?)
            {
                if let Some((_, hit)) = asked.get_mut(at) {
                    *hit = value;
                }
            }
        }
        Ok(C::from_pairs(asked.into_iter().filter_map(|(id, hit)| Some((id, hit?))).collect()))
    }

    async fn compute_unnamed<V, E, C, F>(
        &self,
        key: Key,
        options: &EntryOptions,
        compute: C,
    ) -> Result<V::Value, Arc<E>>
    where
        V: Form,
        V::Payload: CacheValue,
        E: Send + Sync + 'static,
        C: FnOnce() -> F,
        F: Future<Output = Result<V::Value, E>> + Send,
    {
        let function = || compute().map_ok(V::erase);
        self.run_unnamed::<V, E, _>(key, options, None, function).await
    }

    async fn run_unnamed<V, E, F>(
        &self,
        key: Key,
        options: &EntryOptions,
        old: Option<Arc<OldValue>>,
        function: impl FnOnce() -> F,
    ) -> Result<V::Value, Arc<E>>
    where
        V: Form,
        V::Payload: CacheValue,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Erased, E>> + Send,
    {
        let value = const { ValueType::of::<V, E, DefaultCodec>() };
        let key = self.0.unnamed_key(&key, value);
        let take = |value: &Erased| V::restore(value);
        let asked = Some((options, false));
        let due = match self.0.lookup(&key.value_key, &key.name, &value, asked, options.local, take) {
            Lookup::Hit(value) => {
                self.0.meter_hit(|| key.clone());
                return Ok(value);
            }
            Lookup::HitRefresh(value, fill_id) => Some((value, fill_id)),
            Lookup::Miss => None,
        };
        let rules = Arc::new(Rules::of(options.clone()));
        let plan = Plan { old, ..Plan::new(key, value, rules, options.local) };
        let function = function();
        let name = Arc::clone(&plan.key.name);
        let run = async move {
            let boxed = |function: F| function.map_err(|error| Arc::new(error) as Erased).boxed();
            match due {
                Some((value, fill_id)) => {
                    let engine = Arc::clone(&self.0);
                    let refreshed = refresh::refresh_here(engine, Arc::new(plan), fill_id, boxed(function)).await;
                    refreshed.unwrap_or_else(|| FlightOutcome::Value(V::erase(value)))
                }
                None => read_through::read_or_run_here(&self.0, plan, function, boxed).await,
            }
        };
        completed::<V, E>(Box::pin(run).await, &name)
    }

    /// Returns the values of these ids, in their order.
    async fn run_many<C, E, F>(
        &self,
        plans: &Arc<[Plan]>,
        ids: &[C::Id],
        compute: &(impl Fn(Vec<C::Id>) -> F + Send + Sync),
    ) -> Result<Vec<Option<C::Value>>, Arc<E>>
    where
        C: BatchContainer<Value: CacheValue, Id: Clone + Eq + Hash + Send + Sync> + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = Result<C, E>> + Send,
    {
        let ask = |of: Vec<usize>| -> BoxFuture<'_, Returned> {
            let wanted: Vec<C::Id> = of.iter().filter_map(|at| ids.get(*at).cloned()).collect();
            let run = compute(wanted.clone());
            Box::pin(async move { batch::by_id(wanted, run.await) })
        };
        let outcomes = Box::pin(batch::run(&self.0, plans, &ask)).await;
        let completed = plans
            .iter()
            .zip(outcomes)
            .map(|(plan, outcome)| completed::<Optional<C::Value>, E>(outcome, &plan.key.name));
        completed.collect()
    }
}

/// Converts the outcome of a run into what the caller gets.
pub(crate) fn completed<V: Form, E: Send + Sync + 'static>(
    outcome: FlightOutcome,
    name: &str,
) -> Result<V::Value, Arc<E>> {
    match outcome {
        FlightOutcome::Value(value) => match V::restore(&value) {
            Some(value) => Ok(value),
            None => mismatch(name),
        },
        FlightOutcome::Failed(error) => match error.downcast::<E>() {
            Ok(error) => Err(error),
            Err(_) => mismatch(name),
        },
        FlightOutcome::Panicked(panic) => panic.resume(name),
        FlightOutcome::Abandoned => mismatch(name),
    }
}

#[expect(clippy::panic, reason = "flights are keyed by value type, so only a bug in this crate leads here")]
fn mismatch(name: &str) -> ! {
    panic!("`{name}` returned a value of another type")
}

impl Engine {
    pub(crate) fn unnamed_key(&self, key: &Key, value: ValueType) -> EntryKey {
        let fingerprint = fingerprint_text((value.fingerprint)(), 0, value.codec_id);
        EntryKey::new(&self.namespace, &key.name().into(), key.args(), &fingerprint.into())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::observe::events::{Event, Table};
    use crate::options::LocalTier;

    #[tokio::test]
    // F9
    async fn a_refresh_of_a_record_that_was_replaced_meanwhile_runs_nothing() {
        let cache = Cache::in_memory();
        let options = EntryOptions::new();
        let compute = || async { Ok::<_, Infallible>(1_u32) };
        assert_eq!(cache.get_or_compute(Key::new("k"), &options, compute).await, Ok(1));
        let value = ValueType::of::<Plain<u32>, Infallible, DefaultCodec>();
        let key = cache.0.unnamed_key(&Key::new("k"), value);
        let plan = Arc::new(Plan::new(key, value, Arc::new(Rules::of(options)), LocalTier::Cache));
        // The record that this refresh was started for had another fill id.
        let function = Box::pin(async { unreachable!("the store has a newer value") });
        let engine = Arc::clone(&cache.0);
        assert!(refresh::refresh_here(engine, plan, 7, function).await.is_none());
        assert_eq!((cache.stats().refreshes, cache.stats().computes), (1, 1));
    }

    #[tokio::test]
    // C1
    async fn tables_of_names_are_bounded_and_report_once_that_they_are_full() {
        let cache = Cache::builder().local_limit_bytes(0).memory_limit_bytes(4 << 20).in_memory();
        let (mut events, mut full) = (cache.subscribe(), Vec::new());
        let names = 3 * 4096;
        for number in 0..names {
            let compute = || async { Ok::<_, Infallible>(number) };
            let key = Key::new(format!("name {number}"));
            assert_eq!(cache.get_or_compute(key, &EntryOptions::new(), compute).await, Ok(number));
            while let Ok(event) = events.try_recv() {
                full.extend(if let Event::TableFull { table } = event { Some(table) } else { None });
            }
        }
        assert_eq!(full, [Table::FunctionNames, Table::Builds]);
        assert!(cache.0.builds.names() <= 4096);
        assert!(cache.function_stats().len() <= 513);
        // A forgotten build is registered again, and an invalidation reaches it.
        for number in [0, names - 1] {
            let key = Key::new(format!("name {number}"));
            let read = async |value| {
                let compute = || async move { Ok::<_, Infallible>(value) };
                cache.get_or_compute(key.clone(), &EntryOptions::new(), compute).await.unwrap()
            };
            read(7).await;
            let value = ValueType::of::<Plain<i32>, Infallible, DefaultCodec>();
            let entry = cache.0.unnamed_key(&key, value);
            cache.0.builds.remove(&entry).await.unwrap();
            assert_eq!(read(8).await, 8);
        }
    }
}
