//! Calls of batch functions.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Cached, Resolved};
use crate::cache::Cache;
use crate::call::batch::{self, Returned};
use crate::call::lookup::Lookup;
use crate::call::plan::Plan;
use crate::coordination::single_flight::FlightOutcome;
use crate::key::EntryKey;
use crate::key::{self, KeyText, KeyWriter};
use crate::local::{Hit, ParsedKey};
use crate::options::LocalTier;
use crate::value::Erased;
use crate::value::return_type::{BatchReturn, Parts, Returns};
use crate::value::rules::Rules;

/// The return type of the function for one id.
type One<T, E> = Result<Option<T>, E>;

impl<T, E> Cached<One<T, E>>
where
    T: Clone + Send + Sync + 'static,
    E: Send + 'static,
{
    /// Returns the values if all of them can be read without waiting. `args` writes the key's
    /// arguments for one id.
    ///
    /// Does not wait.
    ///
    /// # Errors
    /// The misses, to be run.
    pub fn look_up_all<R, K>(
        &self,
        cache: &Cache,
        ids: &[K],
        args: impl Fn(&K, &mut KeyWriter<'_>),
    ) -> Result<R, Box<BatchMiss<R, K>>>
    where
        R: BatchReturn<Id = K, Value = T, Error = E, One = One<T, E>>,
        K: Clone + Eq + Hash,
    {
        let resolved = self.resolve(cache);
        let (mut seen, mut asked, mut missing) = (HashSet::with_capacity(ids.len()), Vec::new(), Vec::new());
        for id in ids.iter().filter(|id| seen.insert(*id)) {
            let mut text = KeyText::new();
            args(id, &mut KeyWriter::new(&mut text));
            let hit = match self.look_up_one(cache, resolved, &text) {
                Ok(hit) => Some(hit),
                Err(key) => {
                    missing.push((asked.len(), key));
                    None
                }
            };
            asked.push((id.clone(), hit));
        }
        if missing.is_empty() {
            let found = asked.into_iter().filter_map(|(id, hit)| Some((id, hit.flatten()?))).collect();
            return Ok(R::join(Parts { found, failed: Vec::new() }));
        }
        Err(Box::new(self.batch_miss(cache, resolved, asked, missing, false)))
    }

    /// Returns a miss for all ids, to be computed whatever is stored.
    pub fn refresh_all<R, K>(
        &self,
        cache: &Cache,
        ids: &[K],
        args: impl Fn(&K, &mut KeyWriter<'_>),
    ) -> Box<BatchMiss<R, K>>
    where
        R: BatchReturn<Id = K, Value = T, Error = E, One = One<T, E>>,
        K: Clone + Eq + Hash,
    {
        let resolved = self.resolve(cache);
        let mut seen = HashSet::with_capacity(ids.len());
        let (mut asked, mut missing) = (Vec::new(), Vec::new());
        for id in ids.iter().filter(|id| seen.insert(*id)) {
            let mut text = KeyText::new();
            args(id, &mut KeyWriter::new(&mut text));
            missing.push((
                asked.len(),
                EntryKey::new(&cache.0.namespace, &resolved.name, text.as_str(), &resolved.fingerprint),
            ));
            asked.push((id.clone(), None));
        }
        Box::new(self.batch_miss(cache, resolved, asked, missing, true))
    }

    fn batch_miss<R, K>(
        &self,
        cache: &Cache,
        resolved: &'static Resolved,
        asked: Vec<(K, Option<Option<T>>)>,
        missing: Vec<(usize, EntryKey)>,
        refresh: bool,
    ) -> BatchMiss<R, K>
    where
        R: BatchReturn<Id = K, Value = T, Error = E, One = One<T, E>>,
    {
        let (returns, local, cache) = (self.returns, self.local, cache.clone());
        BatchMiss { cache, resolved, asked, missing, returns, local, refresh }
    }

    /// Looks up one id. A value that is expired or due for a refresh is a miss, because a batch
    /// does not refresh in the background.
    fn look_up_one(&self, cache: &Cache, resolved: &'static Resolved, args: &KeyText) -> Result<Option<T>, EntryKey> {
        let take = |returned: One<T, E>| returned.ok().flatten();
        let key = || EntryKey::new(&cache.0.namespace, &resolved.name, args.as_str(), &resolved.fingerprint);
        if key::is_uncut(&cache.0.namespace, &resolved.name, args.len()) {
            let local = ParsedKey::new(resolved.origin, args);
            if let Some(Hit::Fresh(returned)) =
                cache.0.in_local(&local.as_ref(), || resolved.function, self.returns.of.ok)
            {
                cache.0.meter_hit(key);
                return Ok(take(returned));
            }
        }
        let key = key();
        let options = resolved.options.get().map(|(options, owned)| (options, *owned));
        match cache.0.lookup(&key.value_key, &key.name, &self.returns.of.value, options, self.local, self.returns.of.ok)
        {
            Lookup::Hit(returned) => {
                cache.0.meter_hit(|| key.clone());
                Ok(take(returned))
            }
            Lookup::HitRefresh(..) | Lookup::Miss => Err(key),
        }
    }
}

/// A call without values for some of its ids.
#[must_use = "a miss does nothing until it runs"]
pub struct BatchMiss<R: BatchReturn, K> {
    cache: Cache,
    resolved: &'static Resolved,
    /// Each id once, with its value if there was one.
    asked: Vec<(K, Option<Option<R::Value>>)>,
    /// The positions and keys of those without a value.
    missing: Vec<(usize, EntryKey)>,
    returns: Returns<R::One>,
    local: LocalTier,
    /// Run the function whatever is stored.
    refresh: bool,
}

impl<R: BatchReturn, K> fmt::Debug for BatchMiss<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchMiss").field("missing", &self.missing.len()).finish_non_exhaustive()
    }
}

impl<R, K, T, E> BatchMiss<R, K>
where
    R: BatchReturn<Id = K, Value = T, Error = E, One = One<T, E>> + Send,
    K: Clone + Eq + Hash + Send + Sync,
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Runs the slow path. `rules` returns the rules of an id; if `alike`, they are the same for
    /// all ids.
    ///
    /// `function` is called once with the ids that are missing. It is called again for ids that
    /// another caller was computing when it was dropped.
    ///
    /// If the future is dropped, the run ends, and callers that wait for its ids start their own.
    pub fn run<'a>(
        self,
        alike: bool,
        rules: impl Fn(&K) -> Rules,
        function: impl Fn(Vec<K>) -> BoxFuture<'a, R> + Send + Sync + 'a,
    ) -> BoxFuture<'a, R>
    where
        R: 'a,
        K: 'a,
    {
        let Self { cache, resolved, mut asked, missing, returns, local, refresh } = self;
        let mut shared: Option<Arc<Rules>> = None;
        let (mut plans, mut positions) = (Vec::with_capacity(missing.len()), Vec::with_capacity(missing.len()));
        for (position, key) in missing {
            let Some((id, _)) = asked.get(position) else { continue };
            let rules = match &shared {
                Some(shared) if alike => Arc::clone(shared),
                _ => Arc::new(rules(id)),
            };
            let _options = resolved.options.get_or_init(|| (rules.options.clone(), false));
            shared = Some(Arc::clone(&rules));
            positions.push(position);
            let overdue = returns.overdue;
            let number = resolved.function.into();
            plans.push(Plan { overdue, refresh, number, ..Plan::new(key, returns.of.value, rules, local) });
        }
        let plans: Arc<[Plan]> = plans.into();
        async move {
            let ids: Vec<K> = positions.iter().filter_map(|at| Some(asked.get(*at)?.0.clone())).collect();
            // The error of the whole call, if there was one.
            let whole: Mutex<Option<Erased>> = Mutex::new(None);
            let outcomes = {
                let (ids, whole, function) = (&ids, &whole, &function);
                let ask = move |of: Vec<usize>| -> BoxFuture<'_, Returned> {
                    let wanted: Vec<K> = of.iter().filter_map(|at| ids.get(*at).cloned()).collect();
                    let run = function(wanted.clone());
                    async move {
                        let returned = batch::by_id(wanted, run.await);
                        if let Err(error) = &returned {
                            *whole.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(error));
                        }
                        returned
                    }
                    .boxed()
                };
                batch::run(&cache.0, &plans, &ask).await
            };
            let failed =
                |outcome: &FlightOutcome| matches!(outcome, FlightOutcome::Failed(_) | FlightOutcome::Panicked(_));
            let whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner).is_some();
            if (whole || !R::FAILS_BY_ID)
                && let Some(at) = outcomes.iter().position(failed)
            {
                // The other outcomes are dropped, so that the caller gets the error itself and not
                // a shared one.
                let outcome = outcomes.into_iter().nth(at).unwrap_or(FlightOutcome::Abandoned);
                return fail(returns, outcome, &resolved.name);
            }
            let mut errors = Vec::new();
            for ((at, id), outcome) in positions.into_iter().zip(ids).zip(outcomes) {
                match (returns.convert(outcome, &resolved.name), asked.get_mut(at)) {
                    (Ok(value), Some((_, hit))) => *hit = Some(value),
                    (Ok(_), None) => {}
                    (Err(error), _) => errors.push((id, error)),
                }
            }
            let found = asked.into_iter().filter_map(|(id, hit)| Some((id, hit.flatten()?))).collect();
            R::join(Parts { found, failed: errors })
        }
        .boxed()
    }
}

fn fail<R, T, E>(returns: Returns<One<T, E>>, outcome: FlightOutcome, name: &str) -> R
where
    R: BatchReturn<Error = E>,
{
    match returns.convert(outcome, name).map(drop).map_err(R::fail) {
        Err(Ok(failed)) => failed,
        #[expect(
            clippy::panic,
            reason = "only a failure of the whole call leads here, and such a type has an error of the whole call"
        )]
        Ok(()) | Err(Err(_)) => panic!("`{name}` failed with an error that its return type cannot represent"),
    }
}
