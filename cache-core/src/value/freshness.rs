//! Decides whether a record may be served now. Pure: the time is an argument.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::value::envelope::Envelope;

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve it. [`refresh_ahead`] decides whether to refresh it before its ttl ends.
    Fresh,
    /// Serve it only if an option allows stale values, and compute a new one.
    Stale,
    /// Treat it as absent.
    Expired,
}

/// Times are the server's own, so a record from further in the future than this was not written by
/// us.
const MAX_AHEAD: Duration = Duration::from_secs(3600);

/// Returns the verdict by age alone.
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

/// Returns whether a reader of a fresh record should refresh it already:
/// `now - cost * beta * ln(random) >= fresh_until`, and half of its ttl has passed.
///
/// XFetch, from Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede
/// Prevention", VLDB 2015: the more a value costs, the earlier it is refreshed; with `beta` 1 the
/// expected number of concurrent refreshes is lowest. `random` is in `0.0..1.0`; `beta` 0 turns it
/// off. The paper has no floor: without one, a value whose cost is a large part of its ttl is
/// refreshed all the time (F12).
pub(crate) fn refresh_ahead(envelope: &Envelope, now: Timestamp, beta: f64, random: f64) -> bool {
    let is_early = !calm(envelope, now).is_zero();
    !is_early && is_ahead(ahead_ms(envelope.cost, beta), now.until(envelope.fresh_until()), random)
}

/// Returns the time until half of the ttl has passed. Before that, no value is refreshed ahead of
/// its end.
pub(crate) fn calm(envelope: &Envelope, now: Timestamp) -> Duration {
    now.until(envelope.created.plus(envelope.fresh_for.checked_div(2).unwrap_or_default()))
}

/// Returns the product of a value's cost and beta, in milliseconds.
pub(crate) fn ahead_ms(cost: Duration, beta: f64) -> f64 {
    cost.as_secs_f64() * 1000.0 * beta
}

/// [`refresh_ahead`] of a value that is fresh for `left`, at most half of its ttl.
pub(crate) fn is_ahead(ahead_ms: f64, left: Duration, random: f64) -> bool {
    let left_ms = left.as_millis();
    // With no time left a refresh is due and not early, so chance does not decide.
    left_ms == 0 || ahead_ms * draw(random) >= left_ms as f64
}

/// Returns `-ln` of a random number. 1 - random is in (0, 1], so the result is finite and not below
/// zero.
fn draw(random: f64) -> f64 {
    -(1.0 - random).ln()
}

/// The upper bound of a draw of 53 random bits: `-ln(2^-53)` is 36.74.
pub(crate) const HIGHEST_DRAW: f64 = 37.0;

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: u64 = 1_767_225_600_000;

    fn envelope(fresh_ms: u64, stale_ms: u64, cost_ms: u64) -> Envelope {
        Envelope {
            codec: 1,
            present: true,
            fill_id: 1,
            created: Timestamp::from_millis(CREATED),
            fresh_for: Duration::from_millis(fresh_ms),
            stale_for: Duration::from_millis(stale_ms),
            cost: Duration::from_millis(cost_ms),
            versions: None,
            tags: Vec::new(),
        }
    }

    fn at(envelope: &Envelope, after_ms: i64) -> Freshness {
        verdict(envelope, Timestamp::from_millis(CREATED.saturating_add_signed(after_ms)))
    }

    #[test]
    fn each_verdict_begins_at_its_millisecond() {
        let record = envelope(1000, 500, 0);
        assert_eq!(at(&record, 0), Freshness::Fresh);
        assert_eq!(at(&record, 999), Freshness::Fresh);
        assert_eq!(at(&record, 1000), Freshness::Stale);
        assert_eq!(at(&record, 1499), Freshness::Stale);
        assert_eq!(at(&record, 1500), Freshness::Expired);
        assert_eq!(at(&envelope(1000, 0, 0), 1000), Freshness::Expired);
    }

    #[test]
    fn a_record_from_the_far_future_is_not_believed() {
        let record = envelope(1000, 0, 0);
        assert_eq!(at(&record, -3_600_000), Freshness::Fresh);
        assert_eq!(at(&record, -3_600_001), Freshness::Expired);
    }

    #[test]
    fn times_at_the_end_of_their_range_do_not_wrap() {
        let mut record = envelope(u64::MAX, u64::MAX, u64::MAX);
        record.created = Timestamp::from_millis(u64::MAX);
        assert_eq!(verdict(&record, Timestamp::from_millis(u64::MAX)), Freshness::Expired);
        assert_eq!(at(&record, 0), Freshness::Expired);
    }

    // F8
    #[test]
    fn early_refreshes_follow_the_xfetch_formula() {
        let record = envelope(10_000, 0, 500);
        for (left_ms, beta) in [(100_u32, 1.0), (500, 1.0), (2000, 1.0), (500, 3.0)] {
            let now = Timestamp::from_millis(CREATED + 10_000 - u64::from(left_ms));
            let draws = 10_000_u32;
            let early = (0..draws)
                .filter(|draw| refresh_ahead(&record, now, beta, f64::from(*draw) / f64::from(draws)))
                .count();
            // P(cost * beta * -ln(u) >= left) = exp(-left / (cost * beta))
            let expected = (-f64::from(left_ms) / (500.0 * beta)).exp() * f64::from(draws);
            let off = (f64::from(u32::try_from(early).unwrap()) - expected).abs();
            assert!(off <= 2.0, "{early} of {draws}, expected {expected}");
        }
        assert!(!refresh_ahead(&record, Timestamp::from_millis(CREATED + 9_999), 0.0, 0.999_999));
        assert!(refresh_ahead(&record, Timestamp::from_millis(CREATED + 10_000), 0.0, 0.0));
    }

    #[test]
    // F12
    fn no_value_is_refreshed_before_half_of_its_ttl_has_passed() {
        let most = |limit: u64| 1 + crate::random::u64() % limit;
        let mut later = 0;
        for _ in 0..20_000 {
            let fresh_ms = most(10_000_000);
            let record = envelope(fresh_ms, most(1000), most(2 * fresh_ms));
            let beta = crate::random::fraction() * 1000.0;
            let at = |after: u64| Timestamp::from_millis(CREATED + after);
            let half = fresh_ms / 2;
            for before in [0, half / 2, half.saturating_sub(1)].into_iter().filter(|before| *before < half) {
                let random = crate::random::fraction();
                assert!(!refresh_ahead(&record, at(before), beta, random), "{record:?} {before} {beta} {random}");
            }
            // As in the formula from then on.
            let (after, random) = (half + most(half + 1) - 1, crate::random::fraction());
            let left = fresh_ms.saturating_sub(after);
            let expected = left == 0 || record.cost.as_secs_f64() * 1000.0 * beta * -(1.0 - random).ln() >= left as f64;
            assert_eq!(refresh_ahead(&record, at(after), beta, random), expected, "{record:?} {after} {beta} {random}");
            later += u32::from(expected && left > 0);
        }
        assert!(later > 1000, "{later}");
    }

    #[test]
    // F12
    fn early_refreshes_less_than_double_the_computes_of_a_slow_value() {
        let run = |beta: f64| {
            let (mut record, mut runs) = (envelope(60_000, 0, 9_000), 1);
            let mut refreshed_at = None;
            for after in (0..623_000).step_by(20) {
                let now = Timestamp::from_millis(CREATED + after);
                if refreshed_at.is_some_and(|end| end <= now) {
                    (record.created, refreshed_at) = (now, None);
                }
                let due = verdict(&record, now) != Freshness::Fresh
                    || refresh_ahead(&record, now, beta, crate::random::fraction());
                if due && refreshed_at.is_none() {
                    refreshed_at = Some(now.plus(record.cost));
                    runs += 1;
                }
            }
            runs
        };
        let (ahead, without) = (run(1.0), run(0.0));
        // One in 30 s and the 9 s that it takes, at most; 47 without the floor.
        assert!(without == 10 && ahead <= 17, "{ahead} with refreshes ahead, {without} without");
    }
}
