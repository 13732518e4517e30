//! How much goes into one trip.
//!
//! ```text
//! what is written  its bytes are known ────────────────────────────> cut at a MiB
//! what is read     expected: what this function's records had so far ─> cut at a MiB of that; few keys while nothing is known
//! ```
//!
//! Invariant: a trip asks for [`MOST_KEYS`] keys at most and carries about [`MOST_BYTES`], or a
//! single larger value. So the server does nothing else for about a millisecond only, and what
//! waits behind a trip waits for a MiB.

use std::future::Future;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// How many bytes a trip carries, in either direction.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// How many keys a trip has.
pub(super) const MOST_KEYS: usize = 1000;
/// How many trips of one operation are under way at a time: one that the server works on, one that
/// is on its way.
const AT_A_TIME: usize = 2;
/// What a command takes beside its key and value: its name, a script's hash, a token, lengths.
pub(super) const COMMAND_BYTES: usize = 256;
/// How many keys are read at once of a function nothing is known of: as many as most batches have.
/// It is the one trip that may bring more than a MiB.
const FIRST_KEYS: usize = 128;
/// How many keys more with each that was read.
const MORE_KEYS: usize = 8;
/// What a record is taken for while none was seen, only keys without one.
const UNSEEN_BYTES: u32 = 4096;
/// Functions share a place where their names' hashes meet; then the larger records decide.
const PLACES: u64 = 512;

/// How large the records of each function are, by what came and went lately.
pub(super) struct Sizes(Box<[AtomicU64]>);

/// What is known of one function's records.
#[derive(Clone, Copy)]
struct Known {
    /// The largest, lately; zero: none was seen.
    bytes: u32,
    /// How many were seen since one surprised.
    seen: u32,
}

impl Sizes {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// Records of so many bytes came or went under this key; zero: there was none.
    pub(super) fn saw(&self, key: &str, bytes: usize) {
        let Some(place) = self.place(key) else { return };
        // Two at the same time may lose one another: it is an estimate.
        let known = Known::of(place.load(Ordering::Relaxed));
        let next = known.after(u32::try_from(bytes).unwrap_or(u32::MAX));
        if next.bits() != known.bits() {
            place.store(next.bits(), Ordering::Relaxed);
        }
    }

    /// How many of these keys to read in one trip: at least one, if there is one.
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

    /// By namespace and function: what stands before the second colon. Other keys are a kind of
    /// their own.
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

    /// How many keys of it are worth the risk.
    fn most(self) -> usize {
        FIRST_KEYS.saturating_add(usize::try_from(self.seen).unwrap_or(usize::MAX).saturating_mul(MORE_KEYS))
    }

    fn after(self, bytes: u32) -> Self {
        if bytes == 0 {
            return Self { seen: self.seen.saturating_add(1).min(MOST_KEYS as u32), ..self };
        }
        // Much larger than all before: what was small so far says little.
        let surprise = bytes > UNSEEN_BYTES && bytes / 4 > self.bytes;
        let seen = if surprise { 0 } else { self.seen.saturating_add(1).min(MOST_KEYS as u32) };
        // A largest one is forgotten by and by.
        let lower = self.bytes.saturating_sub(self.bytes.saturating_sub(bytes).div_ceil(16));
        Self { bytes: bytes.max(lower), seen }
    }
}

/// Cuts what is written into trips: each the next so many of `items` whose bytes fit.
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

/// Sends trips, a few at a time, and returns their answers in order. `next` makes each trip when
/// its turn has come, so that it can go by what those before it have brought; `None`: there is no
/// more.
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

/// The answers to all items, one for each, of trips that take the next so many each. After a trip
/// that failed no other is sent: its items and those behind have its error. If nothing was done at
/// all, that is the error of all.
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
                // An error says that another has failed before.
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
    fn reads_start_small_grow_with_what_came_and_shrink_at_once_when_records_are_large() {
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
    fn keys_without_a_record_say_little_of_how_large_one_would_be() {
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
    async fn after_a_trip_that_failed_no_other_is_sent_and_what_was_done_is_told() {
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
