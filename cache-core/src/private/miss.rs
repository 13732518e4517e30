//! Calls that have to wait: what generated code runs after a look-up without a value.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Resolved;
use crate::cache::Cache;
use crate::call::flight::{self, Stages};
use crate::call::plan::Plan;
use crate::call::read_through::{self, Probed};
use crate::call::refresh;
use crate::coordination::single_flight::FlightOutcome;
use crate::key::EntryKey;
use crate::options::LocalTier;
use crate::value::return_type::Returns;
use crate::value::rules::Rules;

/// A running call, from [`Miss::run_here`].
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<'a, R: 'static>(Calling<'a, R>);

enum Calling<'a, R: 'static> {
    Reads { stages: Stages<'a>, returns: Returns<R>, name: Arc<str> },
    Refreshes(BoxFuture<'a, R>),
}

impl<R> fmt::Debug for Call<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}

impl<R> Future for Call<'_, R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        match &mut self.0 {
            Calling::Reads { stages, returns, name } => {
                Pin::new(stages).poll(context).map(|outcome| returns.convert(outcome, name))
            }
            Calling::Refreshes(refresh) => refresh.as_mut().poll(context),
        }
    }
}

/// A call without a value that can be read at once. Boxed when it runs, so that the calling future
/// stays small.
#[must_use = "a miss does nothing until it runs"]
pub struct Miss<R: 'static> {
    pub(super) cache: Cache,
    pub(super) key: EntryKey,
    pub(super) resolved: &'static Resolved,
    /// A value to return while the record with this fill id is refreshed.
    pub(super) due: Option<(R, u64)>,
    pub(super) returns: Returns<R>,
    pub(super) local: LocalTier,
}

impl<R> fmt::Debug for Miss<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Miss").field(&self.key).finish()
    }
}

impl<R: Send + 'static> Miss<R> {
    /// Runs the slow path with a future that owns everything it uses. Callers that join share this
    /// run, and it goes on while any of them waits.
    #[cold]
    #[inline(never)]
    pub fn run_shared<F>(self, rules: Rules, function: F) -> BoxFuture<'static, R>
    where
        F: Future<Output = R> + Send + 'static,
    {
        let (cache, plan, due, returns) = self.plan(rules, true);
        if let Some((value, fill_id)) = due {
            let function = function.map(returns.of.split).boxed();
            refresh::refresh_behind(&cache.0, &Arc::new(plan), fill_id, function);
            return ready(value).boxed();
        }
        async move {
            let name = Arc::clone(&plan.key.name);
            let outcome = match read_through::probe(&cache.0, &plan).await {
                Probed::Value(value) => FlightOutcome::Value(value),
                Probed::Due(value, fill_id) => {
                    let function = function.map(returns.of.split).boxed();
                    refresh::refresh_behind(&cache.0, &Arc::new(plan), fill_id, function);
                    FlightOutcome::Value(value)
                }
                Probed::Miss(read) => {
                    let function = function.map(returns.of.split).boxed();
                    // Boxed, so that a hit needs no memory for it.
                    flight::run_shared(&cache.0, plan, read, function).boxed().await
                }
            };
            returns.convert(outcome, &name)
        }
        .boxed()
    }

    /// Runs the slow path with a future that borrows from its caller. If that caller is dropped,
    /// one of the callers that joined starts its own run.
    #[cold]
    #[inline(never)]
    pub fn run_here<'a, F>(self, rules: Rules, function: F) -> Call<'a, R>
    where
        F: Future<Output = R> + Send + 'a,
    {
        let (cache, plan, due, returns) = self.plan(rules, false);
        let split = move |function: F| function.map(returns.of.split).boxed();
        let name = Arc::clone(&plan.key.name);
        Call(match due {
            None => {
                let stages = read_through::read_or_run_here(&cache.0, plan, function, split);
                Calling::Reads { stages, returns, name }
            }
            Some((value, fill_id)) => {
                let refresh = refresh::refresh_here(cache.0, Arc::new(plan), fill_id, split(function));
                let completed = move |refreshed: Option<FlightOutcome>| {
                    refreshed.map_or(value, |outcome| returns.convert(outcome, &name))
                };
                Calling::Refreshes(refresh.map(completed).boxed())
            }
        })
    }

    fn plan(self, rules: Rules, owned: bool) -> (Cache, Plan, Option<(R, u64)>, Returns<R>) {
        let Self { cache, key, resolved, due, returns, local } = self;
        let _options = resolved.options.get_or_init(|| (rules.options.clone(), owned));
        let rules = resolved.rules.share(rules);
        let plan = Plan {
            overdue: returns.overdue,
            owned,
            number: resolved.function.into(),
            ..Plan::new(key, returns.of.value, rules, local)
        };
        (cache, plan, due, returns)
    }
}
