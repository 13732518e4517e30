//! Cooldown of keys whose refresh failed or was skipped.

use std::time::Duration;

use crate::call::plan::Plan;
use crate::engine::Engine;
use crate::observe::events::Table;
use crate::observe::history::HistoryEvent;

/// Starts the cooldown of this record: this process does not refresh it during that time.
pub(crate) fn begin_cooldown(engine: &Engine, plan: &Plan, fill_id: u64, rest: Option<Duration>) {
    let rest = rest.unwrap_or(engine.limits.refresh_throttle).min(engine.limits.refresh_throttle);
    plan.observed(engine, HistoryEvent::Cooldown { lasts: rest });
    cool_down(engine, plan, fill_id, rest);
}

pub(super) fn cool_down(engine: &Engine, plan: &Plan, fill_id: u64, rest: Duration) {
    if engine.refreshes.begin_cooldown(&plan.key.value_key, fill_id, engine.clock.coarse(), rest) {
        engine.events.table_full(Table::Cooldowns);
    }
}
