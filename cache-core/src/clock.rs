//! Where time comes from.
//!
//! Invariant: nothing else in this crate reads a clock. Two kinds of time are kept apart: [`Timestamp`], milliseconds
//! since the Unix epoch as the *store's server* counts them, which records carry; and monotonic time, for
//! durations inside this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch on the clock of the store's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub(crate) u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time, `later` on. Saturates.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(millis(later)))
    }

    /// How long until `deadline`; zero if it has passed.
    #[must_use]
    pub fn until(self, deadline: Self) -> Duration {
        Duration::from_millis(deadline.0.saturating_sub(self.0))
    }
}

/// A duration in whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time since 1970 as the standard library has it.
pub(crate) fn wall_time(since: Duration) -> SystemTime {
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// A clock that is moved by hand.
#[derive(Debug)]
struct Manual {
    now: AtomicU64,
    moved: tokio::sync::Notify,
}

/// The source of time of one cache. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "made by tests only"))]
    Manual(Arc<Manual>),
    /// The runtime's, since this moment: it stands still while the runtime's time is paused. Behind a pointer, so that which clock it is stands in a
    /// word of its own: each hit looks at it.
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "made by tests only"))]
    Runtime(Arc<tokio::time::Instant>),
}

/// Where clocks for tests start: 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`advance`](Self::advance), for tests. Starts at 2026-01-01T00:00:00Z.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::new(Manual { now: AtomicU64::new(START_MS), moved: tokio::sync::Notify::new() })))
    }

    /// The clock of the tokio runtime that this is called in, for tests whose time is paused. Starts as [`manual`](Self::manual) does.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of_runtime() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the runtime's clock")]
        Self(Source::Runtime(Arc::new(tokio::time::Instant::now())))
    }

    /// Moves a manual clock forward; the other clocks are left alone.
    #[cfg(any(test, feature = "testing"))]
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.now.fetch_add(millis(by), Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// This machine's wall clock. It orders nothing: records use the server's time.
    pub(crate) fn wall(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
            Source::System => Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)),
            Source::Manual(manual) => Timestamp(manual.now.load(Ordering::SeqCst)),
            Source::Runtime(start) => Timestamp(since(start)),
        }
    }

    /// The same, as fine as it can be had, since 1970: for showing to people.
    pub(crate) fn wall_precise(&self) -> Duration {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Manual(_) | Source::Runtime(_) => Duration::from_millis(self.wall().0),
        }
    }

    /// Milliseconds of monotonic time since some moment before; a few milliseconds coarse, and cheap enough for each hit.
    #[inline]
    pub(crate) fn coarse(&self) -> u64 {
        match &self.0 {
            Source::System => coarse_millis(),
            Source::Manual(_) | Source::Runtime(_) => self.coarse_in_tests(),
        }
    }

    /// The clocks of tests show one time, as wall clocks and as monotonic ones.
    #[cold]
    #[inline(never)]
    fn coarse_in_tests(&self) -> u64 {
        self.wall().0
    }

    /// A point in monotonic time, for measuring how long something took.
    pub(crate) fn start(&self) -> Stopwatch {
        Stopwatch { clock: self.clone(), started: self.monotonic() }
    }

    /// Resolves `duration` after this call; on a manual clock, once it has been advanced that far.
    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (timer, manual) = match &self.0 {
            Source::System | Source::Runtime(_) => (Some(tokio::time::sleep(duration)), None),
            Source::Manual(manual) => {
                let deadline = manual.now.load(Ordering::SeqCst).saturating_add(millis(duration));
                (None, Some((Arc::clone(manual), deadline)))
            }
        };
        async move {
            if let Some(timer) = timer {
                timer.await;
            }
            if let Some((manual, deadline)) = manual {
                loop {
                    // Registered before the look, so that no move is missed in between.
                    let moved = manual.moved.notified();
                    if manual.now.load(Ordering::SeqCst) >= deadline {
                        return;
                    }
                    moved.await;
                }
            }
        }
    }

    fn monotonic(&self) -> Monotonic {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
            Source::System => Monotonic::System(Instant::now()),
            Source::Manual(manual) => Monotonic::Manual(manual.now.load(Ordering::SeqCst)),
            Source::Runtime(start) => Monotonic::Manual(since(start)),
        }
    }
}

/// The time of a runtime's clock that started then.
fn since(start: &tokio::time::Instant) -> u64 {
    START_MS.saturating_add(millis(start.elapsed()))
}

/// The kernel keeps this one in memory: 6 ns instead of 22 for a precise reading.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn coarse_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    // Since the machine's start: never negative, and far from the end of 64 bits.
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn coarse_millis() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    let now = Instant::now();
    millis(now.saturating_duration_since(*START.get_or_init(|| now)))
}

#[derive(Debug, Clone, Copy)]
enum Monotonic {
    System(Instant),
    Manual(u64),
}

/// Measures elapsed monotonic time.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    clock: Clock,
    started: Monotonic,
}

impl Stopwatch {
    /// Resolves when this shows at least `elapsed`.
    pub(crate) fn reaches(&self, elapsed: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (started, source) = (self.started, self.clock.0.clone());
        async move {
            match (started, source) {
                (Monotonic::System(started), _) => match started.checked_add(elapsed) {
                    Some(end) => tokio::time::sleep_until(end.into()).await,
                    None => std::future::pending().await,
                },
                (Monotonic::Manual(started), Source::Manual(manual)) => {
                    let end = started.saturating_add(millis(elapsed));
                    loop {
                        // Registered before the look, so that no move is missed in between.
                        let moved = manual.moved.notified();
                        if manual.now.load(Ordering::SeqCst) >= end {
                            return;
                        }
                        moved.await;
                    }
                }
                (Monotonic::Manual(started), Source::Runtime(start)) => {
                    let passed = Duration::from_millis(since(&start).saturating_sub(started));
                    tokio::time::sleep(elapsed.saturating_sub(passed)).await;
                }
                // A stopwatch is made by its own clock.
                (Monotonic::Manual(_), Source::System) => {}
            }
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        match (self.started, self.clock.monotonic()) {
            (Monotonic::System(from), Monotonic::System(to)) => to.saturating_duration_since(from),
            (Monotonic::Manual(from), Monotonic::Manual(to)) => Duration::from_millis(to.saturating_sub(from)),
            _ => Duration::ZERO,
        }
    }
}

/// How far the server's clock is ahead of ours, learned on each connection and heartbeat.
#[derive(Debug, Default)]
pub(crate) struct ServerOffset(AtomicI64);

impl ServerOffset {
    /// Records that the server's clock showed `server` while ours showed `ours`.
    pub(crate) fn learn(&self, server: Timestamp, ours: Timestamp) {
        let ahead = i128::from(server.0).saturating_sub(i128::from(ours.0));
        let ahead = i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN });
        self.0.store(ahead, Ordering::Relaxed);
    }

    /// `ours` on the server's clock.
    pub(crate) fn apply(&self, ours: Timestamp) -> Timestamp {
        Timestamp(ours.0.saturating_add_signed(self.0.load(Ordering::Relaxed)))
    }
}
