//! The behaviour of express-session 1.19 with connect-redis 9 as pure functions: which names it
//! removes, how long it lets a session live, and when it writes and sends a cookie. Checked against
//! its observed behaviour.

use std::time::Duration;

use super::stored::record::MaxAge;

/// The members of `Session.prototype` and `Object.prototype`. An Express peer drops values with
/// these names on its first read.
pub(super) const RESERVED: &[&str] = &[
    "cookie",
    "id",
    "req",
    "touch",
    "resetMaxAge",
    "save",
    "reload",
    "destroy",
    "regenerate",
    "constructor",
    "toString",
    "toLocaleString",
    "valueOf",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

/// Returns how long the store keeps a session, rounded up to whole seconds. `None` if its time has
/// ended and it is to be deleted.
pub(super) fn ttl(max_age: MaxAge, otherwise: Duration) -> Option<Duration> {
    match max_age {
        MaxAge::Browser => Some(otherwise),
        MaxAge::Millis(millis) => {
            let millis = u64::try_from(millis).ok().filter(|millis| *millis > 0)?;
            Some(Duration::from_secs(millis.div_ceil(1000)))
        }
    }
}

/// What is known of a session when its request ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The id that the client sent, with a valid signature, is this session's id.
    pub(super) known_to_client: bool,
    /// The id differs from the one at the beginning of the request.
    pub(super) id_changed: bool,
    /// The values differ from those at the beginning.
    pub(super) changed: bool,
    /// What counts as saved.
    pub(super) stored: Stored,
    /// Its cookie has an expiry.
    pub(super) expires: bool,
    pub(super) save_uninitialized: bool,
    pub(super) rolling: bool,
}

/// What this request knows to be saved. With `resave`, loaded values do not count; values saved in
/// this request do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Nothing,
    /// The current values.
    Same,
    Other,
}

/// What to do at the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) save: bool,
    pub(super) touch: bool,
    pub(super) cookie: bool,
}

/// Decides like express-session's `shouldSave`, `shouldTouch` and `shouldSetCookie`.
pub(super) fn due(facts: Facts) -> Due {
    let modified = facts.id_changed || facts.changed;
    let is_new = !facts.known_to_client;
    let saved = !facts.id_changed && facts.stored == Stored::Same;
    let save = if !facts.save_uninitialized && facts.stored == Stored::Nothing && is_new { modified } else { !saved };
    let cookie =
        if is_new { facts.save_uninitialized || modified } else { facts.rolling || (facts.expires && modified) };
    Due { save, touch: facts.known_to_client && !save, cookie }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_as_long_as_express_lets_it() {
        let day = Duration::from_secs(86400);
        for (millis, seconds) in [
            (1, Some(1)),
            (500, Some(1)),
            (1000, Some(1)),
            (1001, Some(2)),
            (1500, Some(2)),
            (600_000, Some(600)),
            (0, None),
            (-5, None),
        ] {
            assert_eq!(ttl(MaxAge::Millis(millis), day), seconds.map(Duration::from_secs), "{millis}");
        }
        assert_eq!(ttl(MaxAge::Browser, day), Some(day));
    }

    /// One row of the observed table, without and with `resave`, and with `save_uninitialized`:
    /// save, touch, cookie.
    #[track_caller]
    fn row(facts: Facts, plain: (bool, bool), resaved: (bool, bool), uninitialized: (bool, bool), cookie: [bool; 3]) {
        let seen = |facts| {
            let due = due(facts);
            (due.save, due.touch)
        };
        // With `resave`, loaded values do not count as saved.
        let stored = if facts.stored == Stored::Same && facts.known_to_client { Stored::Nothing } else { facts.stored };
        assert_eq!(seen(facts), plain, "plain");
        assert_eq!(seen(Facts { stored, ..facts }), resaved, "resave");
        assert_eq!(seen(Facts { save_uninitialized: true, ..facts }), uninitialized, "saveUninitialized");
        let cookies = [facts, Facts { rolling: true, ..facts }, Facts { save_uninitialized: true, ..facts }];
        assert_eq!(cookies.map(|facts| due(facts).cookie), cookie, "cookie: plain, rolling, saveUninitialized");
    }

    const NEW: Facts = Facts {
        known_to_client: false,
        id_changed: false,
        changed: false,
        stored: Stored::Nothing,
        expires: false,
        save_uninitialized: false,
        rolling: false,
    };
    const KNOWN: Facts = Facts { known_to_client: true, stored: Stored::Same, ..NEW };

    #[test]
    fn the_decisions_are_those_observed() {
        const NOTHING: (bool, bool) = (false, false);
        const SAVE: (bool, bool) = (true, false);
        const TOUCH: (bool, bool) = (false, true);
        // Nothing known (no cookie, an unknown id, a bad signature): first not written, then
        // written.
        row(NEW, NOTHING, NOTHING, SAVE, [false, false, true]);
        row(Facts { changed: true, ..NEW }, SAVE, SAVE, SAVE, [true; 3]);
        // Known and untouched. Writing the same value is not a change.
        row(KNOWN, TOUCH, SAVE, TOUCH, [false, true, false]);
        row(Facts { expires: true, ..KNOWN }, TOUCH, SAVE, TOUCH, [false, true, false]);
        // Known and written: sends a cookie only if it has an expiry, or with `rolling`.
        let written = Facts { changed: true, stored: Stored::Other, ..KNOWN };
        row(written, SAVE, SAVE, SAVE, [false, true, false]);
        row(Facts { expires: true, ..written }, SAVE, SAVE, SAVE, [true; 3]);
        // Regenerated, from a new session and from a known one.
        row(Facts { id_changed: true, ..NEW }, SAVE, SAVE, SAVE, [true; 3]);
        row(Facts { id_changed: true, changed: true, stored: Stored::Other, ..NEW }, SAVE, SAVE, SAVE, [true; 3]);
        // Saved explicitly: a known session is still touched; for a new session nothing is left to
        // do.
        assert_eq!(due(Facts { changed: true, ..KNOWN }), Due { save: false, touch: true, cookie: false });
        assert_eq!(
            due(Facts { changed: true, stored: Stored::Same, ..NEW }),
            Due { save: false, touch: false, cookie: true }
        );
    }
}
