//! Decides what a call does about its key. Pure: everything is an argument.
//!
//! ```text
//! what is stored ── decide ─┬─ Serve, ServeOld ─> the call returns it
//!                           ├─ Acquire ─> take the lease ─┬─ taken ──> run the function
//!                           │                             └─ refused ─ decide_refused ─> a verdict
//!                           ├─ Wait ────> another process computes; look again after that
//!                           ├─ Compute ─> run the function without storing
//!                           └─ Discard ─> remove what is not a record
//! ```
//!
//! Single calls, batches, entries and the embedded read all use it, so they decide alike.

use std::time::Duration;

use crate::call::plan::Plan;
use crate::call::record::{Old, Served, Stored};
use crate::coordination::lease::Obstacle;
use crate::engine::Engine;
use crate::observe::events::StaleCause;
use crate::options::SingleFlightScope;
use crate::store::{LeaseTarget, Slot};
use crate::value::Erased;

/// What a call does next.
pub(crate) enum Verdict {
    /// Return this fresh value.
    Serve(Served),
    /// Return this expired value, for this reason.
    ServeOld(Erased, StaleCause),
    /// Take the lease at this place. The expired value is what to return if the function fails.
    Acquire(LeaseTarget, Option<Erased>),
    /// Wait for this long, or for the next change of the key: another process computes the value.
    Wait(Option<Duration>),
    /// Run the function without storing its value. The expired value of the record with this fill
    /// id is what to return if the function fails.
    Compute(Option<(Erased, u64)>),
    /// Remove the content of the key: it is not a record of this function.
    Discard(&'static str),
    /// Decide again: this is the content of the key now.
    LookAt(Slot),
    /// Remove what blocks the next refresh, and decide again about the same content.
    EndThrottle,
}

/// What the caller wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Replace the value, even if it is fresh. The new one must be stored.
    pub(crate) refresh: bool,
    /// Wait for the runs of other processes.
    pub(crate) waits: bool,
    /// Wait for this long at most if there is an expired value to return.
    pub(crate) soft_timeout: Option<Duration>,
}

impl Request {
    /// A request for a value that may be returned at once.
    pub(crate) const HIT: Self = Self { refresh: false, waits: true, soft_timeout: None };

    pub(crate) fn of(engine: &Engine, plan: &Plan) -> Self {
        Self {
            refresh: plan.refresh,
            // A refresh must store its value, so it waits for its turn.
            waits: plan.refresh || plan.rules.options.single_flight == SingleFlightScope::Cluster,
            soft_timeout: plan.terms(engine).soft_timeout,
        }
    }
}

/// Decides about the content of a key.
///
/// `cooldown`: why the record with this fill id is not refreshed now, if it is not.
pub(crate) fn decide(request: Request, stored: Stored, cooldown: impl FnOnce(u64) -> Option<StaleCause>) -> Verdict {
    match stored {
        Stored::Absent => Verdict::Acquire(LeaseTarget::Empty, None),
        // The last run stored nothing: its waiters run at once, and one of them may store (X7).
        Stored::Unstored(mark) => Verdict::Acquire(LeaseTarget::OverMark(mark), None),
        Stored::Unawaited(_) if !request.refresh => Verdict::Compute(None),
        Stored::Leased(_) | Stored::Unawaited(_) if !request.waits => Verdict::Compute(None),
        Stored::Leased(left) | Stored::Unawaited(left) => Verdict::Wait(left),
        Stored::Value(served) if !request.refresh => Verdict::Serve(served),
        Stored::Old(Old { fill_id, value: Some(old) }) if !request.refresh => match cooldown(fill_id) {
            Some(cause) => Verdict::ServeOld(old, cause),
            None => Verdict::Acquire(LeaseTarget::Beside(fill_id), Some(old)),
        },
        Stored::Value(Served { fill_id, .. }) | Stored::Old(Old { fill_id, .. }) | Stored::Newer(fill_id, _) => {
            Verdict::Acquire(LeaseTarget::Beside(fill_id), None)
        }
        // The record has no other use, so the lease replaces it, where waiters look.
        Stored::Invalid(fill_id, _) => Verdict::Acquire(LeaseTarget::Instead(fill_id), None),
        // The value may be older than the write that the fence protects, so it is not stored (R22).
        Stored::Fenced => Verdict::Compute(None),
        Stored::Foreign(reason) => Verdict::Discard(reason),
    }
}

/// Decides after the lease at this place was refused.
///
/// `old`: the expired value of [`Verdict::Acquire`]. `waited`: how long the caller has waited in
/// total, whatever woke it in between.
pub(crate) fn decide_refused(
    request: Request,
    target: LeaseTarget,
    old: Option<Erased>,
    obstacle: Obstacle,
    waited: Duration,
) -> Verdict {
    match (obstacle, target) {
        (Obstacle::Throttle(_), _) => match old {
            Some(old) => Verdict::ServeOld(old, StaleCause::Throttled),
            // A caller without an expired value, or one that refreshes, is not delayed by another
            // caller's failure.
            None => Verdict::EndThrottle,
        },
        // Another caller took the lease over the mark: this one runs at once too (X7).
        (Obstacle::Slot(Slot::Unstored(_) | Slot::Unawaited(_)), LeaseTarget::OverMark(_)) if !request.refresh => {
            Verdict::Compute(None)
        }
        // The last run stored nothing: this caller runs at once too (X7).
        (Obstacle::Slot(Slot::Unawaited(_)), LeaseTarget::Beside(fill_id)) if !request.refresh => {
            Verdict::Compute(old.map(|old| (old, fill_id)))
        }
        (Obstacle::Slot(Slot::Leased(_) | Slot::Unawaited(_)), LeaseTarget::Beside(fill_id)) if !request.waits => {
            Verdict::Compute(old.map(|old| (old, fill_id)))
        }
        // Another process refreshes the record.
        (Obstacle::Slot(Slot::Leased(left) | Slot::Unawaited(left)), LeaseTarget::Beside(_)) => {
            match request.soft_timeout.zip(old) {
                None => Verdict::Wait(left),
                Some((most, old)) => match most.saturating_sub(waited) {
                    Duration::ZERO => Verdict::ServeOld(old, StaleCause::SoftTimeout),
                    rest => Verdict::Wait(Some(left.map_or(rest, |left| left.min(rest)))),
                },
            }
        }
        (Obstacle::Slot(found), _) => Verdict::LookAt(found),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Timestamp;
    use crate::coordination::refresh::{ServeWindow, StalenessPolicy};
    use crate::observe::history::Scope;
    use crate::store::Token;
    use crate::value::envelope::Envelope;

    const CALL: Request = Request { refresh: false, waits: true, soft_timeout: None };
    const ALONE: Request = Request { waits: false, ..CALL };
    const REFRESH: Request = Request { refresh: true, ..CALL };
    const PATIENT: Request = Request { soft_timeout: Some(Duration::from_secs(2)), ..CALL };
    const LEFT: Option<Duration> = Some(Duration::from_secs(3));
    const ID: u64 = 7;

    fn old() -> Erased {
        Arc::new("an old value")
    }

    fn value() -> Stored {
        let envelope = Envelope {
            codec: 1,
            present: true,
            fill_id: ID,
            created: Timestamp::from_millis(1_000_000),
            fresh_for: Duration::from_secs(60),
            stale_for: Duration::ZERO,
            cost: Duration::ZERO,
            versions: None,
            tags: Vec::new(),
        };
        let terms = StalenessPolicy {
            at_once: Duration::ZERO,
            window: Duration::ZERO,
            soft_timeout: None,
            beta: 0.0,
            deadline: None,
        };
        let serving = ServeWindow::of(&envelope, &terms, Timestamp::from_millis(1_000_001)).unwrap();
        Stored::Value(Served { value: Arc::new("a value"), fill_id: ID, payload_bytes: 1, serving, under: None })
    }

    fn text(verdict: &Verdict) -> String {
        let with = |old: &Option<Erased>| if old.is_some() { ", old value" } else { "" };
        match verdict {
            Verdict::Serve(_) => "serve".to_owned(),
            Verdict::ServeOld(_, cause) => format!("serve old, {cause:?}"),
            Verdict::Acquire(LeaseTarget::OverMark(_), old) => format!("acquire over the mark{}", with(old)),
            Verdict::Acquire(target, old) => format!("acquire {target:?}{}", with(old)),
            Verdict::Wait(left) => format!("wait {:?}", left.unwrap_or_default()),
            Verdict::Compute(None) => "compute".to_owned(),
            Verdict::Compute(Some((_, fill_id))) => format!("compute, old value of {fill_id}"),
            Verdict::Discard(reason) => format!("discard {reason}"),
            Verdict::LookAt(slot) => format!("look at {slot:?}"),
            Verdict::EndThrottle => "end the throttle".to_owned(),
        }
    }

    #[test]
    fn the_verdict_depends_on_what_is_stored() {
        let mark = || Token::of_unstored(format!("N{:032x}", 5).as_bytes()).unwrap();
        let old_record = |value| Stored::Old(Old { fill_id: ID, value });
        type Row = (fn() -> Stored, [&'static str; 3]);
        let rows: Vec<Row> = vec![
            (|| Stored::Absent, ["acquire Empty"; 3]),
            (value, ["serve", "serve", "acquire Beside(7)"]),
            (|| Stored::Old(Old { fill_id: ID, value: None }), ["acquire Beside(7)"; 3]),
            (|| Stored::Newer(ID, "newer"), ["acquire Beside(7)"; 3]),
            (|| Stored::Invalid(ID, Some(Scope::Tag)), ["acquire Instead(7)"; 3]),
            (|| Stored::Invalid(ID, None), ["acquire Instead(7)"; 3]),
            (|| Stored::Fenced, ["compute"; 3]),
            (|| Stored::Leased(LEFT), ["wait 3s", "compute", "wait 3s"]),
            (|| Stored::Unawaited(LEFT), ["compute", "compute", "wait 3s"]),
            (|| Stored::Foreign("bytes"), ["discard bytes"; 3]),
        ];
        for (stored, expected) in rows {
            let decided = [CALL, ALONE, REFRESH].map(|request| text(&decide(request, stored(), |_| None)));
            assert_eq!(decided, expected);
        }
        for request in [CALL, ALONE, REFRESH] {
            assert_eq!(text(&decide(request, Stored::Unstored(mark()), |_| None)), "acquire over the mark");
        }
        // An expired value may be returned only while its record is not refreshed.
        let cools = |fill_id| (fill_id == ID).then_some(StaleCause::Throttled);
        assert_eq!(text(&decide(CALL, old_record(Some(old())), cools)), "serve old, Throttled");
        assert_eq!(text(&decide(CALL, old_record(Some(old())), |_| None)), "acquire Beside(7), old value");
        assert_eq!(text(&decide(CALL, old_record(None), cools)), "acquire Beside(7)");
        assert_eq!(text(&decide(REFRESH, old_record(Some(old())), cools)), "acquire Beside(7)");
    }

    #[test]
    fn the_verdict_depends_on_the_obstacle() {
        let mark = || Token::of_unstored(format!("N{:032x}", 5).as_bytes()).unwrap();
        let refused = |request, target, old, obstacle, waited| {
            text(&decide_refused(request, target, old, obstacle, Duration::from_secs(waited)))
        };
        let beside = LeaseTarget::Beside(ID);
        let leased = || Obstacle::Slot(Slot::Leased(LEFT));
        let unawaited = || Obstacle::Slot(Slot::Unawaited(LEFT));
        // The record is refreshed by another process.
        assert_eq!(refused(CALL, beside, Some(old()), leased(), 0), "wait 3s");
        assert_eq!(refused(CALL, beside, None, leased(), 9), "wait 3s");
        assert_eq!(refused(PATIENT, beside, None, leased(), 9), "wait 3s");
        assert_eq!(refused(PATIENT, beside, Some(old()), leased(), 0), "wait 2s");
        assert_eq!(refused(PATIENT, beside, Some(old()), leased(), 1), "wait 1s");
        assert_eq!(refused(PATIENT, beside, Some(old()), leased(), 2), "serve old, SoftTimeout");
        assert_eq!(refused(ALONE, beside, Some(old()), leased(), 0), "compute, old value of 7");
        assert_eq!(refused(ALONE, beside, None, leased(), 0), "compute");
        // The last run stored nothing.
        assert_eq!(refused(CALL, beside, Some(old()), unawaited(), 0), "compute, old value of 7");
        assert_eq!(refused(CALL, beside, None, unawaited(), 0), "compute");
        assert_eq!(refused(REFRESH, beside, None, unawaited(), 0), "wait 3s");
        for (obstacle, of_refresh) in
            [(unawaited(), "look at Unawaited(Some(3s))"), (Obstacle::Slot(Slot::Unstored(mark())), "look at Unstored")]
        {
            let Obstacle::Slot(slot) = &obstacle else { panic!("it is a slot") };
            let again = Obstacle::Slot(slot.clone());
            assert_eq!(refused(CALL, LeaseTarget::OverMark(mark()), None, again, 0), "compute");
            let decided = refused(REFRESH, LeaseTarget::OverMark(mark()), None, obstacle, 0);
            assert!(decided.starts_with(of_refresh), "{decided}");
        }
        // The last refresh failed.
        assert_eq!(refused(CALL, beside, Some(old()), Obstacle::Throttle(LEFT), 0), "serve old, Throttled");
        assert_eq!(refused(CALL, beside, None, Obstacle::Throttle(LEFT), 0), "end the throttle");
        // The key has changed.
        for target in [LeaseTarget::Empty, LeaseTarget::Instead(ID), beside, LeaseTarget::OverMark(mark())] {
            for slot in [Slot::Absent, Slot::Fenced, Slot::WrongType] {
                let decided = refused(CALL, target, None, Obstacle::Slot(slot.clone()), 0);
                assert_eq!(decided, format!("look at {slot:?}"));
            }
        }
        assert_eq!(refused(CALL, LeaseTarget::Empty, None, leased(), 0), "look at Leased(Some(3s))");
    }
}
