//! How long the values that were read tracked may be served.

use std::sync::atomic::{AtomicU64, Ordering};

/// Until when tracked reads may be served, in milliseconds of the coarse clock.
///
/// Every change so far has been notified, or is notified within that time. A half-open connection
/// or a stopped process delivers no notifications, so trust ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Trust(AtomicU64);

impl Trust {
    /// Makes trust without an end, for a store that notifies changes within the process.
    pub(crate) fn absolute() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    pub(crate) fn extend(&self, until: u64) {
        self.0.store(until, Ordering::Release);
    }

    pub(crate) fn revoke(&self) {
        self.0.store(0, Ordering::Release);
    }

    #[inline]
    pub(crate) fn holds(&self, now: u64) -> bool {
        now < self.until()
    }

    /// Returns when trust ends, on the coarse clock.
    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
