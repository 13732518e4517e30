//! Whether a record may be served now. Pure: the time is an argument.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::envelope::Envelope;

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and compute a new value before this one ends. Only [`refresh_ahead`] decides so.
    RefreshAhead,
    /// Serve it only under a promise that allows stale values, and compute a new one.
    Stale,
    /// As if it were not there.
    Expired,
}

/// Times are the server's own, so a record from further in the future than this was not written by us.
const MAX_AHEAD: Duration = Duration::from_secs(3600);

/// The verdict by age alone.
pub(crate) fn verdict(envelope: &Envelope, now: Timestamp) -> Freshness {
    if now.plus(MAX_AHEAD) < envelope.created {
        Freshness::Expired
    } else if now < envelope.fresh_until() {
        Freshness::Fresh
    } else if now < envelope.stale_until() {
        Freshness::Stale
    } else {
        Freshness::Expired
    }
}

/// Whether a reader of a fresh record should refresh it already: `now - cost * beta * ln(random) >= fresh_until`.
///
/// XFetch, from Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015: the
/// more a value costs, the earlier; with `beta` 1 the expected number of refreshes at once is least. `random` is in
/// `0.0..1.0`; `beta` 0 turns it off.
pub(crate) fn refresh_ahead(envelope: &Envelope, now: Timestamp, beta: f64, random: f64) -> bool {
    // 1 - random is in (0, 1], so the logarithm is finite and not above zero.
    let ahead_ms = envelope.cost.as_secs_f64() * 1000.0 * beta * -(1.0 - random).ln();
    let left_ms = now.until(envelope.fresh_until()).as_millis();
    // Nothing is left: that is not early any more, and not for chance to decide.
    left_ms == 0 || ahead_ms >= left_ms as f64
}
