//! Reads that wait for one MGET. Each key has a list of its readers.
//!
//! ```text
//! key ─> place ─> reader ─> reader ..
//! a reader: waiting (a waker) ── answer ──> answered ── polled ──> gone
//!              └───────────── dropped ──────────────────────────────┘
//! ```
//!
//! Invariant: a place is shared only by readers that came before it was taken to be sent. Each
//! reader ends independently: one that is dropped, or has waited for too long, takes nothing from
//! the others of its place. A place whose readers are all gone is not sent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use redis::Cmd;
use xxhash_rust::xxh3::xxh3_64;

use super::super::error;
use super::super::trips::Sizes;
use super::{Answer, MOST_KEYS, STEP, bytes_of};
use crate::sync::{Mutex, MutexGuard};

/// How many readers a batch has at most. Readers that are gone count until it is sent.
const MOST_READERS: usize = 16_384;

/// Keys that are read together.
pub(super) struct Batch(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    places: Vec<KeySlot>,
    readers: Vec<Reader>,
    /// The keys, concatenated.
    texts: String,
    /// The place of a key, by its hash. If two keys have the same hash, the first.
    by_hash: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
    /// How many readers wait.
    waiting: usize,
    /// Places before this index were taken to be sent. No reader joins once it is above zero.
    taken: usize,
}

/// A key of a batch.
struct KeySlot {
    key: Range<usize>,
    track: bool,
    /// How many of its readers wait.
    waiting: usize,
    /// The first of its linked list of readers.
    first: Option<usize>,
}

struct Reader {
    place: usize,
    next: Option<usize>,
    /// On the coarse clock.
    came: u64,
    state: State,
}

enum State {
    Waits(Option<Waker>),
    Answered(Answer),
    Gone,
}

/// A read that waits for its answer. Dropping it does not affect other readers.
pub(crate) struct Waiting {
    batch: Arc<Batch>,
    reader: usize,
}

/// A hasher that passes through keys that are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Batch {
    /// Makes a batch with one reader.
    pub(super) fn new(now: u64, key: &str, track: bool) -> (Arc<Self>, Waiting) {
        let mut inside = Inside::default();
        let reader = inside.add(now, key, track);
        let batch = Arc::new(Self(Mutex::new(inside)));
        (Arc::clone(&batch), Waiting { batch, reader })
    }

    /// Adds a reader; `None` if the batch is full, or being sent.
    pub(super) fn join(self: &Arc<Self>, now: u64, key: &str, track: bool) -> Option<Waiting> {
        let mut inside = self.inside();
        let is_open = inside.taken == 0 && inside.places.len() < MOST_KEYS && inside.readers.len() < MOST_READERS;
        is_open.then(|| Waiting { batch: Arc::clone(self), reader: inside.add(now, key, track) })
    }

    /// Returns whether all readers are gone.
    pub(super) fn is_unwanted(&self) -> bool {
        self.inside().waiting == 0
    }

    /// Returns whether all places were taken.
    pub(super) fn is_taken(&self) -> bool {
        let inside = self.inside();
        inside.taken >= inside.places.len()
    }

    /// Takes the places of the next round trip, from where the last one ended. Readers that have
    /// waited for `longest` milliseconds get a timeout instead.
    pub(super) fn take(&self, now: u64, longest: u64, sizes: &Sizes) -> Vec<usize> {
        let mut wakers = Vec::new();
        let mut inside = self.inside();
        let Inside { places, readers, texts, taken, waiting, .. } = &mut *inside;
        for reader in readers.iter_mut() {
            if matches!(reader.state, State::Waits(_)) && now.saturating_sub(reader.came) >= longest {
                wakers.extend(reader.answer(Err(error::timed_out(STEP))));
                *waiting = waiting.saturating_sub(1);
                if let Some(place) = places.get_mut(reader.place) {
                    place.waiting = place.waiting.saturating_sub(1);
                }
            }
        }
        let open = places.iter().enumerate().skip(*taken).filter(|(_, place)| place.waiting > 0);
        let mut next: Vec<usize> = open.map(|(at, _)| at).collect();
        let keys = next.iter().map(|at| places.get(*at).map_or("", |place| place.key(texts)));
        next.truncate(sizes.fitting(keys));
        let left = places.iter().skip(next.last().map_or(*taken, |last| last.saturating_add(1)));
        let is_left = left.clone().any(|place| place.waiting > 0);
        *taken = if is_left { places.len().saturating_sub(left.len()) } else { places.len() };
        drop(inside);
        wakers.into_iter().for_each(Waker::wake);
        next
    }

    /// Sorts the places so that tracked ones come last, if tracking is possible. Returns how many
    /// are not tracked.
    pub(super) fn sort(&self, of: &mut [usize], tracks: bool) -> usize {
        let inside = self.inside();
        let is_tracked = |at: &usize| tracks && inside.places.get(*at).is_some_and(|place| place.track);
        of.sort_by_key(is_tracked);
        of.partition_point(|at| !is_tracked(at))
    }

    pub(super) fn mget(&self, of: &[usize]) -> Cmd {
        let inside = self.inside();
        let mut command = Cmd::with_capacity(of.len().saturating_add(1), inside.texts.len().saturating_add(4));
        command.arg("MGET");
        for place in of.iter().filter_map(|at| inside.places.get(*at)) {
            command.arg(place.key(&inside.texts));
        }
        command
    }

    /// Answers the readers of these places.
    pub(super) fn answer(&self, answers: impl Iterator<Item = (usize, Answer)>, sizes: &Sizes) {
        let mut wakers = Vec::with_capacity(answers.size_hint().0);
        let mut inside = self.inside();
        let Inside { places, readers, texts, waiting, .. } = &mut *inside;
        for (at, answer) in answers {
            let Some(place) = places.get_mut(at) else { continue };
            if let Ok((slot, _)) = &answer {
                sizes.saw(place.key(texts), bytes_of(slot));
            }
            *waiting = waiting.saturating_sub(std::mem::take(&mut place.waiting));
            let (mut next, mut answer) = (place.first.take(), Some(answer));
            while let Some(reader) = next.and_then(|next| readers.get_mut(next)) {
                next = reader.next;
                // The last one gets the original.
                let own = if next.is_some() { answer.as_ref().map(again) } else { answer.take() };
                wakers.extend(own.and_then(|own| reader.answer(own)));
            }
        }
        drop(inside);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Fails all readers: the batch will not be sent any more.
    pub(super) fn close(&self) {
        let mut inside = self.inside();
        let readers = inside.readers.iter_mut();
        let wakers: Vec<Waker> = readers.filter_map(|reader| reader.answer(Err(error::closed(STEP)))).collect();
        drop(inside);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn again(answer: &Answer) -> Answer {
    answer.as_ref().cloned().map_err(|error| error.again())
}

impl Inside {
    fn add(&mut self, now: u64, key: &str, track: bool) -> usize {
        let place = self.place(key);
        let reader = self.readers.len();
        let mut next = None;
        if let Some(place) = self.places.get_mut(place) {
            place.track |= track;
            place.waiting = place.waiting.saturating_add(1);
            next = place.first.replace(reader);
        }
        self.waiting = self.waiting.saturating_add(1);
        self.readers.push(Reader { place, next, came: now, state: State::Waits(None) });
        reader
    }

    fn place(&mut self, key: &str) -> usize {
        let new = self.places.len();
        match self.by_hash.entry(xxh3_64(key.as_bytes())) {
            Entry::Occupied(known) => {
                let is_it = self.places.get(*known.get()).is_some_and(|place| place.key(&self.texts) == key);
                if is_it {
                    return *known.get();
                }
            }
            Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
        }
        let start = self.texts.len();
        self.texts.push_str(key);
        self.places.push(KeySlot { key: start..self.texts.len(), track: false, waiting: 0, first: None });
        new
    }
}

impl KeySlot {
    fn key<'t>(&self, texts: &'t str) -> &'t str {
        texts.get(self.key.clone()).unwrap_or_default()
    }
}

impl Reader {
    /// Stores the answer and returns the waker to call.
    fn answer(&mut self, answer: Answer) -> Option<Waker> {
        let State::Waits(waker) = &mut self.state else { return None };
        let waker = waker.take();
        self.state = State::Answered(answer);
        waker
    }
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut inside = self.batch.inside();
        let Some(reader) = inside.readers.get_mut(self.reader) else { return Poll::Ready(Err(error::closed(STEP))) };
        match &mut reader.state {
            State::Waits(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            State::Waits(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            State::Answered(_) | State::Gone => match std::mem::replace(&mut reader.state, State::Gone) {
                State::Answered(answer) => Poll::Ready(answer),
                State::Waits(_) | State::Gone => Poll::Ready(Err(error::closed(STEP))),
            },
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inside = self.batch.inside();
        let Some(reader) = inside.readers.get_mut(self.reader) else { return };
        let (place, before) = (reader.place, std::mem::replace(&mut reader.state, State::Gone));
        if matches!(before, State::Waits(_)) {
            inside.waiting = inside.waiting.saturating_sub(1);
            if let Some(place) = inside.places.get_mut(place) {
                place.waiting = place.waiting.saturating_sub(1);
            }
        }
        // A destructor of the answer must not run under the lock.
        drop(inside);
        drop(before);
    }
}
