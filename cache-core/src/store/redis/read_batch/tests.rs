//! The outcome of waiting reads, without a server.

use futures::FutureExt as _;

use super::*;
use crate::error::ErrorKind;

const LONGEST_WAIT: Duration = Duration::from_millis(100);

fn reads() -> Reads {
    Reads::new(Arc::new(Sizes::new()))
}

/// Starts a read while another one is in progress.
fn wait(reads: &Reads, now: u64, key: &str, track: bool) -> Waiting {
    match reads.take(now, key, track).unwrap() {
        Taken::Waits(waiting) => waiting,
        Taken::Alone(_) => panic!("nothing is under way"),
    }
}

fn alone(reads: &Reads) -> Alone<'_> {
    match reads.take(0, "alone", false).unwrap() {
        Taken::Alone(alone) => alone,
        Taken::Waits(_) => panic!("something is under way"),
    }
}

fn bytes(text: &'static str) -> Slot {
    Slot::Bytes(Bytes::from_static(text.as_bytes()))
}

/// Answers each key with its own text, tracked.
fn answer(mut trip: Trip<'_>, texts: &[&'static str]) {
    assert_eq!(keys(&trip), texts);
    let answers = trip.places.drain(..).zip(texts).map(|(place, text)| (place, Ok((bytes(text), true))));
    trip.batch.answer(answers, &trip.reads.sizes);
}

/// Returns the keys as in the command.
fn keys(trip: &Trip<'_>) -> Vec<String> {
    let command = trip.batch.mget(&trip.places);
    let texts = command.args_iter().skip(1).map(|argument| match argument {
        redis::Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => panic!("no key"),
    });
    texts.collect()
}

fn outcome(waiting: Waiting) -> Option<std::result::Result<Slot, ErrorKind>> {
    waiting.now_or_never().map(|answer| answer.map(|(slot, _)| slot).map_err(|error| error.kind()))
}

#[test]
fn a_read_goes_alone_only_while_nothing_is_under_way() {
    let reads = reads();
    drop(alone(&reads));
    let under_way = alone(&reads);
    let first = wait(&reads, 0, "a", false);
    // An MGET is not held up by a GET whose caller may have stopped polling it.
    let trip = reads.next_trip(0, LONGEST_WAIT).unwrap();
    drop(under_way);
    let second = wait(&reads, 0, "b", false);
    answer(trip, &["a"]);
    assert_eq!(outcome(first), Some(Ok(bytes("a"))));
    // Waiting reads go first.
    let third = wait(&reads, 0, "c", false);
    answer(reads.next_trip(0, LONGEST_WAIT).unwrap(), &["b", "c"]);
    assert_eq!((outcome(second), outcome(third)), (Some(Ok(bytes("b"))), Some(Ok(bytes("c")))));
    assert!(reads.next_trip(0, LONGEST_WAIT).is_none());
    drop(alone(&reads));
}

#[test]
// D5
fn readers_of_one_key_share_a_place_and_dropping_one_keeps_the_others() {
    let reads = reads();
    let _under_way = alone(&reads);
    for dropped in 0..3 {
        let mut three: Vec<_> = (0..3).map(|_| Some(wait(&reads, 0, "a", false))).collect();
        let other = wait(&reads, 0, "b", false);
        three[dropped] = None;
        let trip = reads.next_trip(0, LONGEST_WAIT).unwrap();
        // Another one while the round trip is in progress.
        three[(dropped + 1) % 3] = None;
        answer(trip, &["a", "b"]);
        let left = three.into_iter().flatten().next().unwrap();
        assert_eq!((outcome(left), outcome(other)), (Some(Ok(bytes("a"))), Some(Ok(bytes("b")))));
    }
    drop((wait(&reads, 0, "a", false), wait(&reads, 0, "a", false)));
    assert!(reads.next_trip(0, LONGEST_WAIT).is_none(), "no caller waits for it");
}

#[test]
// R9
fn a_reader_does_not_join_a_read_that_was_already_sent() {
    let reads = reads();
    let _under_way = alone(&reads);
    let before = wait(&reads, 0, "a", false);
    let trip = reads.next_trip(0, LONGEST_WAIT).unwrap();
    let after = wait(&reads, 0, "a", false);
    answer(trip, &["a"]);
    assert_eq!(outcome(before), Some(Ok(bytes("a"))));
    answer(reads.next_trip(0, LONGEST_WAIT).unwrap(), &["a"]);
    assert_eq!(outcome(after), Some(Ok(bytes("a"))));
}

#[test]
// R9, C3
fn no_reader_joins_a_partly_sent_batch() {
    let reads = reads();
    let _under_way = alone(&reads);
    // Large values: few go together.
    reads.sizes.saw("app:f:0", super::super::trips::MOST_BYTES);
    let first = wait(&reads, 0, "app:f:1", false);
    let second = wait(&reads, 0, "app:f:2", false);
    answer(reads.next_trip(0, LONGEST_WAIT).unwrap(), &["app:f:1"]);
    let third = wait(&reads, 0, "app:f:2", false);
    assert_eq!(outcome(first), Some(Ok(bytes("app:f:1"))));
    let trip = reads.next_trip(0, LONGEST_WAIT).unwrap();
    assert_eq!(trip.places.len(), 1);
    let fourth = wait(&reads, 0, "app:f:2", false);
    drop(trip);
    assert_eq!(outcome(second), Some(Err(ErrorKind::Closed)), "it was not answered");
    answer(reads.next_trip(0, LONGEST_WAIT).unwrap(), &["app:f:2"]);
    assert_eq!((outcome(third), outcome(fourth)), (Some(Ok(bytes("app:f:2"))), Some(Ok(bytes("app:f:2")))));
}

#[test]
// D2
fn a_reader_that_times_out_gets_an_error_and_the_other_of_its_key_a_value() {
    let reads = reads();
    let _under_way = alone(&reads);
    let old = wait(&reads, 0, "a", false);
    let young = wait(&reads, 50, "a", false);
    let trip = reads.next_trip(100, LONGEST_WAIT).unwrap();
    assert_eq!(outcome(old), Some(Err(ErrorKind::Unavailable)));
    answer(trip, &["a"]);
    assert_eq!(outcome(young), Some(Ok(bytes("a"))));
    let last = wait(&reads, 0, "a", false);
    assert!(reads.next_trip(100, LONGEST_WAIT).is_none());
    assert_eq!(outcome(last), Some(Err(ErrorKind::Unavailable)));
}

#[test]
fn a_key_is_tracked_if_one_of_its_readers_asks_for_it() {
    let reads = reads();
    let _under_way = alone(&reads);
    let all = [("a", false), ("b", true), ("a", true), ("c", false)].map(|(key, track)| wait(&reads, 0, key, track));
    let mut trip = reads.next_trip(0, LONGEST_WAIT).unwrap();
    let plain = trip.batch.sort(&mut trip.places, true);
    assert_eq!((plain, keys(&trip)), (1, ["c", "a", "b"].map(str::to_owned).to_vec()));
    assert_eq!(trip.batch.sort(&mut trip.places, false), 3, "where nothing is");
    drop((trip, all));
}

#[test]
fn closing_the_store_fails_waiting_and_later_readers() {
    let reads = Arc::new(reads());
    let _under_way = alone(&reads);
    let waits = wait(&reads, 0, "a", false);
    drop(Closing::new(Arc::clone(&reads)));
    assert_eq!(outcome(waits), Some(Err(ErrorKind::Closed)));
    assert!(reads.take(0, "a", false).is_err_and(|error| error.kind() == ErrorKind::Closed));
}

#[test]
// D9
fn a_task_that_ends_late_takes_nothing_from_its_successor() {
    let reads = Arc::new(reads());
    let _under_way = alone(&reads);
    let old = Closing::new(Arc::clone(&reads));
    let left = wait(&reads, 0, "a", false);
    let trip = reads.next_trip(0, LONGEST_WAIT).unwrap();
    let waits = wait(&reads, 0, "b", false);
    let new = Closing::new(Arc::clone(&reads));
    assert!(reads.wake.notified().now_or_never().is_some(), "it looks for an earlier request");
    drop((trip, old));
    assert_eq!(outcome(left), Some(Err(ErrorKind::Closed)));
    assert!(reads.wake.notified().now_or_never().is_some(), "nothing is under way any more");
    answer(reads.next_trip(0, LONGEST_WAIT).unwrap(), &["b"]);
    assert_eq!(outcome(waits), Some(Ok(bytes("b"))));
    // A task that is made after the end of the last one accepts reads again.
    drop(new);
    assert!(reads.take(0, "a", false).is_err());
    let _newest = Closing::new(Arc::clone(&reads));
    drop(wait(&reads, 0, "a", false));
}

#[test]
// C1
fn batches_are_bounded_and_abandoned_keys_take_no_room() {
    let reads = reads();
    let _under_way = alone(&reads);
    let all: Vec<_> = (0..=MOST_KEYS).map(|key| wait(&reads, 0, &key.to_string(), false)).collect();
    assert_eq!(reads.queue().batches.len(), 2);
    drop(all);
    for key in 0..100_000 {
        drop(wait(&reads, 0, &key.to_string(), false));
    }
    assert!(reads.queue().batches.len() <= 2, "{}", reads.queue().batches.len());
    let trip = reads.next_trip(0, LONGEST_WAIT);
    assert!(trip.is_none() && reads.queue().batches.is_empty());
}
