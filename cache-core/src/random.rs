//! Randomness from the operating system, and a cheap generator seeded from it.

use std::cell::Cell;

/// 128 random bits nobody can guess, for tokens and fill ids.
pub(crate) fn u128() -> u128 {
    let mut bytes = [0; 16];
    #[expect(
        clippy::expect_used,
        reason = "an operating system without randomness cannot run a service; nothing sensible can follow"
    )]
    getrandom::fill(&mut bytes).expect("the operating system's random source works");
    u128::from_ne_bytes(bytes)
}

/// 64 random bits nobody can guess.
pub(crate) fn u64() -> u64 {
    (u128() >> 64) as u64
}

thread_local!(static STATE: Cell<u64> = Cell::new(u64() | 1));

/// Begins the sequence of [`fraction`] anew on this thread.
#[cfg(feature = "testing")]
pub(crate) fn seed(seed: u64) {
    STATE.set(seed | 1);
}

/// A number in `0.0..1.0` for jitter and backoff: xorshift64*, one state a thread, seeded from the system.
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
