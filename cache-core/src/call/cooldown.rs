//! Keys whose refresh failed or was skipped: they are left alone for a while.

use std::time::Duration;

use crate::call::plan::Plan;
use crate::engine::Engine;
use crate::observe::events::Table;
use crate::observe::history::HistoryEvent;

/// No refresh of this record from this process for that long.
pub(crate) fn leave_alone(engine: &Engine, plan: &Plan, fill_id: u64, rest: Option<Duration>) {
    let rest = rest.unwrap_or(engine.limits.refresh_throttle).min(engine.limits.refresh_throttle);
    plan.observed(engine, HistoryEvent::LeftAlone { rest });
    rest_from_now(engine, plan, fill_id, rest);
}

pub(super) fn rest_from_now(engine: &Engine, plan: &Plan, fill_id: u64, rest: Duration) {
    if engine.refreshes.rest(&plan.key.value_key, fill_id, engine.clock.coarse(), rest) {
        engine.events.table_full(Table::Resting);
    }
}
