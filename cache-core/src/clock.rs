//! The source of time.
//!
//! Invariant: nothing else in this crate reads a clock. Two kinds of time are kept apart:
//! [`Timestamp`], milliseconds since the Unix epoch on the clock of the *store's server*, which
//! records carry; and monotonic time, for durations inside this process.
//!
//! | clock | when the time is set | while the machine sleeps | used for |
//! |---|---|---|---|
//! | `coarse`, `start` | goes on | stops | hits, timeouts, durations |
//! | `boot` | goes on | goes on (Linux; else stops) | server time, expiry in the embedded store |
//! | `wall` | jumps | goes on | shown to people; if a server does not report its time |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch on the clock of the store's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub(crate) u64);

impl Timestamp {
    /// Makes a timestamp from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the time that is `later` after this one. Saturates.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(millis(later)))
    }

    /// Returns the time left until `deadline`; zero if it has passed.
    #[must_use]
    pub fn until(self, deadline: Self) -> Duration {
        Duration::from_millis(deadline.0.saturating_sub(self.0))
    }
}

/// Converts a duration to whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Converts a time since 1970 to the standard library's type.
pub(crate) fn wall_time(since: Duration) -> SystemTime {
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// A clock that tests move.
#[derive(Debug)]
struct Manual {
    now: AtomicU64,
    /// Total time by which the wall clock was set forward.
    set: AtomicI64,
    /// Total time for which the machine has slept.
    asleep: AtomicU64,
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
    /// The runtime's clock, counted from this moment. It stops while the runtime's time is paused.
    /// Behind a pointer, so that the discriminant is a word of its own: each hit reads it.
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "made by tests only"))]
    Runtime(Arc<Runtime>),
}

/// The clocks of one machine in a runtime whose time is paused.
#[derive(Debug)]
struct Runtime {
    start: tokio::time::Instant,
    /// How far the wall clock is ahead.
    ahead: AtomicI64,
    /// How long the machine has slept so far, and until when it sleeps: its monotonic clock stops
    /// meanwhile.
    slept: AtomicU64,
    asleep_until: AtomicU64,
}

/// Where test clocks start: 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;

impl Clock {
    /// Returns the system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Makes a clock for tests that moves only by [`advance`](Self::advance). Starts at
    /// 2026-01-01T00:00:00Z.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::new(Manual {
            now: AtomicU64::new(START_MS),
            set: AtomicI64::new(0),
            asleep: AtomicU64::new(0),
            moved: tokio::sync::Notify::new(),
        })))
    }

    /// Makes a clock of the current tokio runtime, for tests whose time is paused. Starts at the
    /// same time as [`manual`](Self::manual).
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of_runtime() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the runtime's clock")]
        let start = tokio::time::Instant::now();
        let (slept, asleep_until) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Source::Runtime(Arc::new(Runtime { start, ahead: AtomicI64::new(0), slept, asleep_until })))
    }

    /// Makes the clock of another machine in the same runtime, which can differ. Like
    /// [`of_runtime`](Self::of_runtime) if this clock is of another kind.
    #[cfg(feature = "testing")]
    pub(crate) fn of_another_machine(&self) -> Self {
        let Source::Runtime(runtime) = &self.0 else { return Self::of_runtime() };
        let (slept, asleep_until) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Source::Runtime(Arc::new(Runtime { start: runtime.start, ahead: AtomicI64::new(0), slept, asleep_until })))
    }

    /// Sets this machine's wall clock forward or back.
    #[cfg(feature = "testing")]
    pub(crate) fn step(&self, by: i64) {
        if let Source::Runtime(runtime) = &self.0 {
            runtime.ahead.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward. Has no effect on other clocks.
    #[cfg(any(test, feature = "testing"))]
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.now.fetch_add(millis(by), Ordering::SeqCst);
            manual.moved.notify_waiters();
        }
    }

    /// Sets the wall clock of a manual clock forward, as if the time of the machine was corrected.
    /// Monotonic time is unchanged.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_wall_forward(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.set.fetch_add(i64::try_from(millis(by)).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets the wall clock of a manual clock back.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_wall_back(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.set.fetch_sub(i64::try_from(millis(by)).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Simulates that the machine sleeps: its monotonic clock stops, its wall and boot clocks go
    /// on. A runtime's clock sleeps from now on for this long.
    #[cfg(any(test, feature = "testing"))]
    pub fn suspend(&self, by: Duration) {
        match &self.0 {
            Source::System => {}
            Source::Manual(manual) => {
                manual.asleep.fetch_add(millis(by), Ordering::SeqCst);
            }
            Source::Runtime(runtime) => {
                let (now, ms) = (runtime.since(), millis(by));
                let left = runtime.asleep_until.load(Ordering::SeqCst).saturating_sub(now);
                runtime.slept.fetch_add(ms.saturating_sub(left), Ordering::SeqCst);
                runtime.asleep_until.fetch_max(now.saturating_add(ms), Ordering::SeqCst);
            }
        }
    }

    /// Returns this machine's wall clock. It is not used for ordering: records use the server's
    /// time.
    pub(crate) fn wall(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
            Source::System => Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)),
            Source::Manual(manual) => Timestamp(manual.boot().saturating_add_signed(manual.set.load(Ordering::SeqCst))),
            Source::Runtime(runtime) => Timestamp(runtime.wall()),
        }
    }

    /// Returns milliseconds since some earlier moment, on a clock that cannot be set and that
    /// counts the time the machine sleeps (on Linux).
    pub(crate) fn boot(&self) -> u64 {
        match &self.0 {
            Source::System => boot_millis(),
            Source::Manual(manual) => manual.boot(),
            Source::Runtime(runtime) => runtime.since(),
        }
    }

    /// Returns how far the clock that counts sleep is ahead of the one that does not.
    fn slept(&self) -> i64 {
        let awake = self.coarse();
        let all = match &self.0 {
            Source::System => sleepless_millis(self),
            Source::Manual(_) | Source::Runtime(_) => self.boot(),
        };
        i64::try_from(i128::from(all).saturating_sub(i128::from(awake))).unwrap_or(0)
    }

    /// Returns the wall clock since 1970 at the best available resolution, for showing to people.
    pub(crate) fn wall_precise(&self) -> Duration {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Manual(_) | Source::Runtime(_) => Duration::from_millis(self.wall().0),
        }
    }

    /// Returns milliseconds of monotonic time since some earlier moment. The resolution is a few
    /// milliseconds, and it is cheap enough for each hit.
    #[inline]
    pub(crate) fn coarse(&self) -> u64 {
        match &self.0 {
            Source::System => coarse_millis(),
            Source::Manual(_) | Source::Runtime(_) => self.coarse_in_tests(),
        }
    }

    /// Unless its wall clock is set or its machine sleeps, a test clock shows the same wall and
    /// monotonic time.
    #[cold]
    #[inline(never)]
    fn coarse_in_tests(&self) -> u64 {
        match &self.0 {
            Source::Manual(manual) => manual.now.load(Ordering::SeqCst),
            Source::Runtime(runtime) => runtime.awake(),
            Source::System => self.wall().0,
        }
    }

    /// Returns the current point in monotonic time, for measuring durations.
    pub(crate) fn start(&self) -> Stopwatch {
        Stopwatch { clock: self.clone(), started: self.monotonic() }
    }

    /// Resolves `duration` after this call; on a manual clock, once it has been advanced that far.
    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (timer, manual) = match &self.0 {
            Source::System | Source::Runtime(_) => (Some(timer(duration)), None),
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
                    // Registered before the check, so that no move is missed in between.
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
            Source::Runtime(runtime) => Monotonic::Manual(runtime.awake()),
        }
    }
}

impl Manual {
    fn boot(&self) -> u64 {
        self.now.load(Ordering::SeqCst).saturating_add(self.asleep.load(Ordering::SeqCst))
    }
}

/// Makes a timer of the current runtime.
///
/// # Panics
///
/// Outside a runtime and in one without timers, as tokio does; the message says how to fix it.
#[expect(clippy::panic, reason = "tokio panics too, and without a time limit a compute could hang forever")]
fn timer(duration: Duration) -> tokio::time::Sleep {
    if tokio::runtime::Handle::try_current().is_err() {
        panic!(
            "a cached function needs a running tokio runtime: call it inside `#[tokio::main]`, `#[tokio::test]` or \
             `Runtime::block_on`"
        );
    }
    // There is no way to ask whether the runtime has timers.
    match std::panic::catch_unwind(|| tokio::time::sleep(duration)) {
        Ok(timer) => timer,
        Err(_panic) => panic!(
            "this tokio runtime lacks timers, which a cached function needs for its deadline: build it with \
             `.enable_all()`"
        ),
    }
}

impl Runtime {
    /// Returns the time of the runtime.
    fn since(&self) -> u64 {
        START_MS.saturating_add(millis(self.start.elapsed()))
    }

    fn wall(&self) -> u64 {
        self.since().saturating_add_signed(self.ahead.load(Ordering::SeqCst))
    }

    /// Returns that time without the time the machine has slept.
    fn awake(&self) -> u64 {
        let now = self.since().max(self.asleep_until.load(Ordering::SeqCst));
        now.saturating_sub(self.slept.load(Ordering::SeqCst))
    }
}

/// The kernel keeps this clock in memory: 6 ns instead of 22 for a precise reading.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn coarse_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    // Counted from the machine's start: never negative, and far from the end of 64 bits.
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // As above.
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000)
}

/// Reads a clock that goes on while the machine sleeps.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sleepless_millis(_clock: &Clock) -> u64 {
    boot_millis()
}

/// Reads the wall clock, since no other clock is available. Setting it forward looks like sleep,
/// too.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sleepless_millis(clock: &Clock) -> u64 {
    clock.wall().0
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn boot_millis() -> u64 {
    coarse_millis()
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
    /// Resolves when at least `elapsed` has passed.
    pub(crate) fn reaches(&self, elapsed: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (started, source) = (self.started, self.clock.0.clone());
        async move {
            match (started, source) {
                (Monotonic::System(started), _) => match started.checked_add(elapsed) {
                    Some(end) => {
                        let mut timer = std::pin::pin!(timer(Duration::ZERO));
                        timer.as_mut().reset(end.into());
                        timer.await;
                    }
                    None => std::future::pending().await,
                },
                (Monotonic::Manual(started), Source::Manual(manual)) => {
                    let end = started.saturating_add(millis(elapsed));
                    loop {
                        // Registered before the check, so that no move is missed in between.
                        let moved = manual.moved.notified();
                        if manual.now.load(Ordering::SeqCst) >= end {
                            return;
                        }
                        moved.await;
                    }
                }
                (Monotonic::Manual(started), Source::Runtime(runtime)) => loop {
                    let passed = Duration::from_millis(runtime.awake().saturating_sub(started));
                    match elapsed.checked_sub(passed) {
                        Some(left) if !left.is_zero() => timer(left).await,
                        _ => return,
                    }
                },
                // Unreachable: a stopwatch is always made by its own clock.
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

/// How far the server's clock is ahead of our boot clock, learned on each connection and heartbeat.
///
/// The boot clock is used instead of the wall clock, so that setting the time of this machine has
/// no effect here (R14).
#[derive(Debug, Default)]
pub(crate) struct ServerOffset {
    ahead: AtomicI64,
    is_known: AtomicBool,
}

impl ServerOffset {
    /// Records that the server's clock showed `server` while our boot clock showed `ours`.
    pub(crate) fn learn(&self, server: Timestamp, ours: u64) {
        self.ahead.store(ahead(server, ours), Ordering::Relaxed);
        self.is_known.store(true, Ordering::Release);
    }

    /// Records that the server's clock showed `server` at some time between two readings of our
    /// boot clock. The midpoint is used, which is off by at most half of the time between them.
    #[cfg(any(feature = "redis", feature = "testing", test))]
    pub(crate) fn learn_between(&self, server: Timestamp, before: u64, after: u64) {
        self.learn(server, before.saturating_add(after.saturating_sub(before) / 2));
    }

    /// Returns the server's time now, or our wall clock as long as no server has reported its time.
    pub(crate) fn now(&self, clock: &Clock) -> Timestamp {
        if !self.is_known.load(Ordering::Acquire) {
            return clock.wall();
        }
        Timestamp(clock.boot().saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }
}

fn ahead(server: Timestamp, ours: u64) -> i64 {
    let ahead = i128::from(server.0).saturating_sub(i128::from(ours));
    i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN })
}

/// Starts at wall time and then follows the boot clock, which cannot be set (R14).
#[derive(Debug)]
pub(crate) struct SteadyTime(ServerOffset);

impl SteadyTime {
    pub(crate) fn new(clock: &Clock) -> Self {
        let offset = ServerOffset::default();
        offset.learn(clock.wall(), clock.boot());
        Self(offset)
    }

    pub(crate) fn now(&self, clock: &Clock) -> Timestamp {
        self.0.now(clock)
    }
}

/// Two clocks that are read one after the other, one of them coarse, may differ by up to this for
/// no reason.
const SLEPT_AT_LEAST_MS: i64 = 100;

/// Detects that the machine has slept. Monotonic time, which limits the trust in L1, stops
/// meanwhile.
#[derive(Debug)]
pub(crate) struct SleepWatch(AtomicI64);

impl SleepWatch {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self(AtomicI64::new(clock.slept()))
    }

    /// Returns whether the machine has slept since the last call.
    pub(crate) fn has_slept(&self, clock: &Clock) -> bool {
        let slept = clock.slept();
        slept.saturating_sub(self.0.swap(slept, Ordering::Relaxed)) >= SLEPT_AT_LEAST_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    // R14
    fn server_time_advances_with_the_monotonic_clock() {
        let (clock, offset) = (Clock::manual(), ServerOffset::default());
        assert_eq!(offset.now(&clock), clock.wall(), "not known yet");
        let server = Timestamp::from_millis(5_000_000);
        offset.learn(server, clock.boot());
        clock.set_wall_forward(HOUR);
        assert_eq!(offset.now(&clock), server);
        clock.set_wall_back(HOUR * 3);
        assert_eq!(offset.now(&clock), server);
        clock.advance(HOUR);
        clock.suspend(HOUR);
        assert_eq!(offset.now(&clock), server.plus(HOUR * 2));
    }

    #[test]
    // R7
    fn a_sleep_is_detected_once_and_setting_the_wall_clock_is_not_a_sleep() {
        let clock = Clock::manual();
        let watch = SleepWatch::new(&clock);
        clock.advance(HOUR);
        clock.set_wall_forward(HOUR);
        assert!(!watch.has_slept(&clock));
        let before = clock.coarse();
        clock.suspend(HOUR);
        assert_eq!(clock.coarse(), before, "the clock that hits use stands still");
        assert!(watch.has_slept(&clock) && !watch.has_slept(&clock));
        clock.suspend(Duration::from_millis(99));
        assert!(!watch.has_slept(&clock));
    }

    #[test]
    fn the_systems_clocks_agree_while_it_is_awake() {
        let clock = Clock::system();
        let watch = SleepWatch::new(&clock);
        for _ in 0..1000 {
            assert!(!watch.has_slept(&clock));
        }
        assert!(clock.boot() >= clock.coarse().saturating_sub(20));
    }
}
