//! Randomness from the operating system, and a cheap generator seeded from it.

use std::cell::Cell;

/// Returns 128 unpredictable random bits, for tokens and fill ids.
pub(crate) fn u128() -> u128 {
    let mut bytes = [0; 16];
    #[expect(
        clippy::expect_used,
        reason = "an operating system without randomness cannot run a service, so there is nothing to fall back to"
    )]
    getrandom::fill(&mut bytes).expect("the operating system's random source works");
    u128::from_ne_bytes(bytes)
}

/// Returns 64 unpredictable random bits.
pub(crate) fn u64() -> u64 {
    (u128() >> 64) as u64
}

thread_local!(static STATE: Cell<u64> = Cell::new(u64() | 1));

/// Restarts the sequence of [`fraction`] on this thread from this seed.
#[cfg(feature = "testing")]
pub(crate) fn seed(seed: u64) {
    STATE.set(seed | 1);
}

/// Returns a number in `0.0..1.0` for jitter and backoff.
///
/// The generator is xorshift64*, with one state per thread, seeded from the operating system.
pub(crate) fn fraction() -> f64 {
    let word = STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    });
    (word >> 11) as f64 / (1_u64 << 53) as f64
}
