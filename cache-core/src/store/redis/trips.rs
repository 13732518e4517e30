//! How much goes into one round trip.
//!
//! ```text
//! writes  their bytes are known ────────────────────────────────> cut at a MiB
//! reads   expected size: this function's recent records ────────> cut at a MiB of that;
//!                                                                 few keys while nothing is known
//! ```
//!
//! Invariant: a round trip asks for [`MOST_KEYS`] keys at most and carries about [`MOST_BYTES`], or
//! a single larger value. So the server is busy with it for about a millisecond only, and a request
//! behind it waits for a MiB.

use std::future::Future;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// How many bytes a round trip carries, in either direction.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// How many keys a round trip has.
pub(super) const MOST_KEYS: usize = 1000;
/// How many round trips of one operation are in progress at a time: one that the server works on,
/// one in transit.
const AT_A_TIME: usize = 2;
/// The size of a command without its key and value: its name, a script's hash, a token, lengths.
pub(super) const COMMAND_BYTES: usize = 256;
/// How many keys of an unknown function are read at once: as many as most batches have. This is the
/// only round trip that may return more than a MiB.
const FIRST_KEYS: usize = 128;
/// How many more keys are read at once for each record seen.
const MORE_KEYS: usize = 8;
/// The assumed size of a record if only keys without a record were seen.
const UNSEEN_BYTES: u32 = 4096;
/// Functions whose names' hashes collide share an entry; the larger records decide then.
const PLACES: u64 = 512;

/// The sizes of each function's records, estimated from recent reads and writes.
pub(super) struct Sizes(Box<[AtomicU64]>);

/// What is known of one function's records.
#[derive(Clone, Copy)]
struct Known {
    /// The largest recent size; zero: none was seen.
    bytes: u32,
    /// How many were seen since the last surprisingly large one.
    seen: u32,
}

impl Sizes {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// Records the size of a record that was read or written under this key; zero: there was none.
    pub(super) fn saw(&self, key: &str, bytes: usize) {
        let Some(place) = self.place(key) else { return };
        // One of two concurrent updates may be lost: it is an estimate.
        let known = Known::of(place.load(Ordering::Relaxed));
        let next = known.after(u32::try_from(bytes).unwrap_or(u32::MAX));
        if next.bits() != known.bits() {
            place.store(next.bits(), Ordering::Relaxed);
        }
    }

    /// Returns how many of these keys to read in one round trip: at least one, if there is one.
    pub(super) fn fitting<'k>(&self, keys: impl Iterator<Item = &'k str>) -> usize {
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for key in keys.take(MOST_KEYS) {
            let known = self.place(key).map_or(Known::of(0), |place| Known::of(place.load(Ordering::Relaxed)));
            bytes = bytes.saturating_add(known.expected());
            if count > 0 && (bytes > MOST_BYTES || count >= known.most()) {
                break;
            }
            count = count.saturating_add(1);
        }
        count
    }

    /// Returns the entry by namespace and function, which is the text in front of the second colon.
    /// Other keys share an entry.
    fn place(&self, key: &str) -> Option<&AtomicU64> {
        let mut parts = key.splitn(3, ':');
        let of_function = match (parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(name), Some(_)) => {
                key.get(..namespace.len().saturating_add(name.len()).saturating_add(1))
            }
            _ => None,
        };
        let hash = xxh3_64(of_function.unwrap_or_default().as_bytes());
        self.0.get(usize::try_from(hash % PLACES).unwrap_or_default())
    }
}

impl Known {
    fn of(bits: u64) -> Self {
        Self { bytes: (bits >> 32) as u32, seen: bits as u32 }
    }

    fn bits(self) -> u64 {
        (u64::from(self.bytes) << 32) | u64::from(self.seen)
    }

    fn expected(self) -> usize {
        let bytes = if self.bytes == 0 { UNSEEN_BYTES } else { self.bytes };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Returns how many keys may be read at once.
    fn most(self) -> usize {
        FIRST_KEYS.saturating_add(usize::try_from(self.seen).unwrap_or(usize::MAX).saturating_mul(MORE_KEYS))
    }

    fn after(self, bytes: u32) -> Self {
        if bytes == 0 {
            return Self { seen: self.seen.saturating_add(1).min(MOST_KEYS as u32), ..self };
        }
        // Much larger than all before: earlier small sizes prove little.
        let surprise = bytes > UNSEEN_BYTES && bytes / 4 > self.bytes;
        let seen = if surprise { 0 } else { self.seen.saturating_add(1).min(MOST_KEYS as u32) };
        // An old maximum is forgotten gradually.
        let lower = self.bytes.saturating_sub(self.bytes.saturating_sub(bytes).div_ceil(16));
        Self { bytes: bytes.max(lower), seen }
    }
}

/// Splits writes into round trips: each takes the next `items` whose bytes fit.
pub(super) fn by_bytes<T>(items: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<Range<usize>> {
    let (mut trips, mut start, mut bytes) = (Vec::new(), 0_usize, 0_usize);
    for (at, item) in items.iter().enumerate() {
        let more = bytes_of(item).saturating_add(COMMAND_BYTES);
        if at > start && (bytes.saturating_add(more) > MOST_BYTES || at.saturating_sub(start) >= MOST_KEYS) {
            trips.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(more);
    }
    if start < items.len() {
        trips.push(start..items.len());
    }
    trips
}

/// Sends round trips, a few at a time, and returns their answers in order. `next` makes each one
/// when its turn comes, so that it can depend on the answers before it; `None` ends the sequence.
pub(super) async fn in_turn<F: Future>(mut next: impl FnMut() -> Option<F>) -> Vec<F::Output> {
    let (mut under_way, mut answers, mut all_sent) = (FuturesOrdered::new(), Vec::new(), false);
    loop {
        while !all_sent && under_way.len() < AT_A_TIME {
            match next() {
                Some(trip) => under_way.push_back(trip),
                None => all_sent = true,
            }
        }
        match under_way.next().await {
            Some(answer) => answers.push(answer),
            None => return answers,
        }
    }
}

/// Returns one answer for each item, from round trips that take the next items each.
///
/// After a failed round trip no other is sent: its items and all later ones have its error. If
/// nothing was done at all, that is the error of the whole call.
pub(super) async fn each<T, F>(
    mut next: impl FnMut() -> Option<Range<usize>>,
    trip: impl Fn(Range<usize>) -> F,
) -> Result<Vec<Result<T>>>
where
    F: Future<Output = Result<Vec<Result<T>>>>,
{
    let (failed, any_done) = (OnceLock::<Error>::new(), AtomicBool::new(false));
    let answers = in_turn(|| {
        let (range, trip, failed, any_done) = (next()?, &trip, &failed, &any_done);
        Some(async move {
            let count = range.len();
            let answered = match failed.get() {
                Some(error) => Err(error.again()),
                None => trip(range).await,
            };
            answered.inspect(|_| any_done.store(true, Ordering::Relaxed)).unwrap_or_else(|error| {
                let again = std::iter::repeat_with(|| Err(error.again())).take(count).collect();
                // An error means that another round trip has failed before.
                let _first = failed.set(error);
                again
            })
        })
    });
    let answers: Vec<Vec<Result<T>>> = answers.await;
    match failed.into_inner() {
        Some(error) if !any_done.into_inner() => Err(error),
        _ => Ok(answers.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn keys(name: &str, count: usize) -> Vec<String> {
        (0..count).map(|id| format!("app:{name}:{id}")).collect()
    }

    fn fitting(sizes: &Sizes, name: &str) -> usize {
        sizes.fitting(keys(name, 5000).iter().map(String::as_str))
    }

    fn saw(sizes: &Sizes, name: &str, count: usize, bytes: usize) {
        keys(name, count).iter().for_each(|key| sizes.saw(key, bytes));
    }

    #[test]
    // C3
    fn reads_start_small_grow_with_success_and_shrink_when_records_are_large() {
        let sizes = Sizes::new();
        assert_eq!(fitting(&sizes, "f"), FIRST_KEYS);
        saw(&sizes, "f", 10, 100);
        assert_eq!(fitting(&sizes, "f"), FIRST_KEYS + 10 * MORE_KEYS);
        saw(&sizes, "f", 2000, 100);
        assert_eq!(fitting(&sizes, "f"), MOST_KEYS);
        saw(&sizes, "f", 1, MIB);
        assert_eq!(fitting(&sizes, "f"), 1);
        saw(&sizes, "f", 300, 100);
        assert!(fitting(&sizes, "f") > 200, "{}", fitting(&sizes, "f"));
        saw(&sizes, "f", 2000, 10_000);
        assert_eq!(fitting(&sizes, "f"), MIB / 10_000);
        assert_eq!(fitting(&sizes, "g"), FIRST_KEYS, "each function has its own");
    }

    #[test]
    // C3
    fn missing_records_hardly_change_the_expected_size() {
        let sizes = Sizes::new();
        saw(&sizes, "f", 5000, 0);
        assert_eq!(fitting(&sizes, "f"), MIB / UNSEEN_BYTES as usize);
        assert_eq!(sizes.fitting(std::iter::empty()), 0);
    }

    #[test]
    // C3
    fn writes_are_cut_by_their_bytes_and_a_larger_one_goes_alone() {
        let item = |bytes: usize| bytes - COMMAND_BYTES;
        let cut = |sizes: &[usize]| by_bytes(sizes, |bytes| item(*bytes));
        assert_eq!(cut(&[]), []);
        assert_eq!(cut(&[MIB / 2, MIB / 2, 1000]), [0..2, 2..3]);
        assert_eq!(cut(&[1000, 5 * MIB, 1000, 1000]), [0..1, 1..2, 2..4]);
        assert_eq!(cut(&vec![300; 2500]), [0..1000, 1000..2000, 2000..2500]);
    }

    #[tokio::test]
    // C1
    async fn no_trip_follows_a_failed_one_and_the_completed_part_is_reported() {
        use std::cell::Cell;

        use crate::error::ErrorKind;
        let run = async |fails: usize| {
            let (mut trips, sent) = (vec![0..2, 2..4, 4..6, 6..8].into_iter(), Cell::new(0));
            let answers = each(
                || trips.next(),
                |range| {
                    sent.set(sent.get() + 1);
                    let fails = range.start >= fails;
                    async move {
                        tokio::task::yield_now().await;
                        if fails {
                            Err(Error::new(ErrorKind::Unavailable, "test"))
                        } else {
                            Ok(range.map(Ok).collect())
                        }
                    }
                },
            );
            (answers.await, sent.get())
        };
        let (answers, sent) = run(100).await;
        let all: Vec<usize> = answers.unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!((all, sent), ((0..8).collect(), 4));
        let (answers, sent) = run(2).await;
        let done: Vec<bool> = answers.unwrap().into_iter().map(|answer| answer.is_ok()).collect();
        assert_eq!(done, [true, true, false, false, false, false, false, false]);
        assert!(sent <= 3, "{sent}");
        assert_eq!(run(0).await.0.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    // C1
    async fn few_trips_are_under_way_at_a_time() {
        use std::cell::Cell;
        let (now, most, mut left) = (Cell::new(0), Cell::new(0), 10);
        let trip = || {
            left -= 1;
            (left >= 0).then(|| {
                now.set(now.get() + 1);
                most.set(now.get().max(most.get()));
                let (now, number) = (&now, left);
                async move {
                    tokio::task::yield_now().await;
                    now.set(now.get() - 1);
                    number
                }
            })
        };
        assert_eq!(in_turn(trip).await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(most.get(), AT_A_TIME);
    }
}
