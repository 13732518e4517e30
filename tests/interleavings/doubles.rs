//! Minimal replacements for the parts of the engine that the modules under test use.

pub(crate) mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock};

    /// Few shards, because each lock that is taken is a step.
    pub(crate) const SHARDS: usize = 2;
}

pub(crate) mod key {
    pub(crate) use crate::key_text::KeyText;

    /// The single key of the models has no parts.
    pub(crate) enum Looks {
        Plain,
        Composed,
        Escaped,
    }

    impl Looks {
        pub(crate) fn of(_args: &[u8]) -> Self {
            Self::Plain
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) enum Whole<'a> {
        Number(u64),
        Text(&'a str),
        Other,
    }

    pub(crate) fn text_of(_args: &[u8]) -> Option<String> {
        None
    }

    pub(crate) fn written_text(text: &str) -> String {
        text.to_owned()
    }
}

pub(crate) mod clock {
    use std::time::Duration;

    /// It never advances.
    #[derive(Clone)]
    pub(crate) struct Clock;

    impl Clock {
        pub(crate) fn coarse(&self) -> u64 {
            1000
        }

        pub(crate) fn boot(&self) -> u64 {
            1000
        }
    }

    pub(crate) fn millis(duration: Duration) -> u64 {
        duration.as_millis() as u64
    }
}

pub(crate) mod store {
    pub(crate) struct Trust;

    impl Trust {
        pub(crate) fn holds(&self, _now: u64) -> bool {
            true
        }

        pub(crate) fn until(&self) -> u64 {
            u64::MAX
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Version(pub(crate) u64);
}

pub(crate) mod random {
    pub(crate) fn fraction() -> f64 {
        0.5
    }

    pub(crate) fn u64() -> u64 {
        1
    }
}

pub(crate) mod freshness {
    use std::time::Duration;

    pub(crate) const HIGHEST_DRAW: f64 = 37.0;

    pub(crate) fn is_ahead(_ahead_ms: f64, _left: Duration, _random: f64) -> bool {
        false
    }
}
