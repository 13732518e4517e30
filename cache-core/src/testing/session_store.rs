//! Checks whether a store of the application's own fulfils the contract of sessions.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;

use crate::session::{SessionStore, SessionSwap, StoredSession};

/// How many callers try the same step concurrently.
const CALLERS: usize = 16;
const LONG: Duration = Duration::from_secs(600);
/// The ttl of keys that end during the check. Stores may count whole seconds.
const SHORT: Duration = Duration::from_secs(2);
const AFTER_SHORT: Duration = Duration::from_secs(4);
/// How much less than the given time a key may have left.
const SLACK: Duration = Duration::from_secs(60);

/// A promise of [`SessionStore`] that a store does not keep. `Debug` prints the same as `Display`,
/// for `unwrap` in a test.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokenPromise {
    promise: &'static str,
    detail: String,
}

impl BrokenPromise {
    /// Returns the promise as a sentence.
    #[must_use]
    pub fn promise(&self) -> &'static str {
        self.promise
    }
}

impl fmt::Display for BrokenPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.detail)
    }
}

impl fmt::Debug for BrokenPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for BrokenPromise {}

/// Checks every promise of [`SessionStore`], for a test of a store.
///
/// Writes a few hundred keys that begin with a random text, and removes those that have not ended,
/// unless a promise is broken. `pass` lets the given amount of the store's time pass; it is called
/// once, with four seconds. A store whose clock a test can move needs no waiting; for any other
/// store, sleep. Concurrent steps are polled by one task.
///
/// ```
/// # use std::collections::HashMap;
/// # use std::convert::Infallible;
/// # use std::sync::{Arc, Mutex, atomic::{AtomicU64, Ordering}};
/// # use std::time::Duration;
/// # use cache_core::session::{SessionStore, SessionSwap, StoredSession};
/// /// A map in this process, with a clock that counts milliseconds.
/// #[derive(Default)]
/// struct Map {
///     entries: Mutex<HashMap<String, (Vec<u8>, Option<u64>)>>,
///     now: AtomicU64,
/// }
/// # impl Map {
/// #     fn with<T>(&self, step: impl FnOnce(&mut HashMap<String, (Vec<u8>, Option<u64>)>, u64) -> T) -> Result<T, Infallible> {
/// #         let (mut entries, now) = (self.entries.lock().unwrap(), self.now.load(Ordering::SeqCst));
/// #         entries.retain(|_, (_, ends)| ends.is_none_or(|ends| now < ends));
/// #         Ok(step(&mut entries, now))
/// #     }
/// # }
/// # fn ends(now: u64, ttl: Duration) -> u64 { now + ttl.as_millis() as u64 }
///
/// impl SessionStore for Map {
///     type Error = Infallible;
///     // ..
/// #   async fn load(&self, key: &str) -> Result<Option<StoredSession>, Infallible> {
/// #       self.with(|entries, now| {
/// #           let left = |ends: u64| Duration::from_millis(ends - now);
/// #           entries.get(key).map(|(bytes, ends)| StoredSession { bytes: bytes.clone(), ttl: ends.map(left) })
/// #       })
/// #   }
/// #   async fn create(&self, key: &str, bytes: &[u8], ttl: Option<Duration>) -> Result<bool, Infallible> {
/// #       self.with(|entries, now| {
/// #           if entries.contains_key(key) {
/// #               return false;
/// #           }
/// #           entries.insert(key.to_owned(), (bytes.to_vec(), ttl.map(|ttl| ends(now, ttl))));
/// #           true
/// #       })
/// #   }
/// #   async fn swap(&self, key: &str, expected: &[u8], bytes: &[u8], ttl: Option<Duration>) -> Result<SessionSwap, Infallible> {
/// #       self.with(|entries, now| match entries.get_mut(key) {
/// #           None => SessionSwap::Gone,
/// #           Some((found, _)) if found != expected => SessionSwap::Conflict(found.clone()),
/// #           Some((found, end)) => {
/// #               *found = bytes.to_vec();
/// #               if let Some(ttl) = ttl {
/// #                   *end = Some(ends(now, ttl));
/// #               }
/// #               SessionSwap::Done
/// #           }
/// #       })
/// #   }
/// #   async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, Infallible> {
/// #       self.with(|entries, now| entries.get_mut(key).map(|(_, end)| *end = Some(ends(now, ttl))).is_some())
/// #   }
/// #   async fn remove(&self, key: &str) -> Result<bool, Infallible> {
/// #       self.with(|entries, _| entries.remove(key).is_some())
/// #   }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let store = Map::default();
/// let pass = async |time: Duration| {
///     store.now.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
/// };
/// cache_core::testing::check_session_store(&store, pass).await.unwrap();
/// # });
/// ```
///
/// # Errors
/// The first broken promise. A store error counts as one.
pub async fn check_session_store<S: SessionStore>(
    store: &S,
    pass: impl AsyncFnOnce(Duration),
) -> Result<(), BrokenPromise> {
    let check = Check { store, run: format!("check:{:016x}:", crate::random::u64()) };
    check.what_is_absent().await?;
    check.bytes_come_back().await?;
    check.keys_are_told_apart().await?;
    check.one_creates().await?;
    check.a_swap_compares().await?;
    check.one_swaps().await?;
    check.no_increment_is_lost().await?;
    check.a_removal_removes().await?;
    check.times(pass).await
}

struct Check<'a, S> {
    store: &'a S,
    /// The prefix of the check's keys.
    run: String,
}

type Checked = Result<(), BrokenPromise>;

fn holds(promise: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(BrokenPromise { promise, detail: detail() }) }
}

/// Checks the result of one step.
fn is<T: fmt::Debug + PartialEq>(promise: &'static str, step: &str, found: T, right: T) -> Checked {
    holds(promise, found == right, || format!("{step} returns {found:?} instead of {right:?}"))
}

impl<S: SessionStore> Check<'_, S> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.run)
    }

    async fn load(&self, promise: &'static str, key: &str) -> Result<Option<StoredSession>, BrokenPromise> {
        self.store.load(key).await.map_err(|error| fault(promise, error))
    }

    async fn bytes(&self, promise: &'static str, key: &str) -> Result<Option<Vec<u8>>, BrokenPromise> {
        Ok(self.load(promise, key).await?.map(|found| found.bytes))
    }

    async fn create(
        &self,
        promise: &'static str,
        key: &str,
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, BrokenPromise> {
        self.store.create(key, bytes, ttl).await.map_err(|error| fault(promise, error))
    }

    async fn swap(
        &self,
        promise: &'static str,
        key: &str,
        expected: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> Result<SessionSwap, BrokenPromise> {
        self.store.swap(key, expected, bytes, ttl).await.map_err(|error| fault(promise, error))
    }

    async fn touch(&self, promise: &'static str, key: &str, ttl: Duration) -> Result<bool, BrokenPromise> {
        self.store.touch(key, ttl).await.map_err(|error| fault(promise, error))
    }

    async fn remove(&self, promise: &'static str, key: &str) -> Result<bool, BrokenPromise> {
        self.store.remove(key).await.map_err(|error| fault(promise, error))
    }

    /// Checks every method on an absent key.
    async fn is_absent(&self, promise: &'static str, key: &str) -> Checked {
        is(promise, "load", self.load(promise, key).await?, None)?;
        is(promise, "swap", self.swap(promise, key, b"a", b"b", Some(LONG)).await?, SessionSwap::Gone)?;
        is(promise, "touch", self.touch(promise, key, LONG).await?, false)?;
        is(promise, "remove", self.remove(promise, key).await?, false)?;
        is(promise, "load after swap, touch and remove", self.load(promise, key).await?, None)
    }

    async fn what_is_absent(&self) -> Checked {
        self.is_absent("swap, touch and remove do not create an absent key", &self.key("absent")).await
    }

    async fn bytes_come_back(&self) -> Checked {
        const PROMISE: &str = "bytes are loaded exactly as they were stored";
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let large = all.repeat(512);
        for bytes in [&b""[..], b"{\"a\":1} \r\n\0", &[0xff, 0xfe, 0], &all, &large] {
            let key = self.key("bytes");
            self.create(PROMISE, &key, b"before", Some(LONG)).await?;
            let swapped = self.swap(PROMISE, &key, b"before", bytes, Some(LONG)).await?;
            is(PROMISE, "swap", swapped, SessionSwap::Done)?;
            let found = self.bytes(PROMISE, &key).await?;
            holds(PROMISE, found.as_deref() == Some(bytes), || format!("{} bytes after a swap", bytes.len()))?;
            self.remove(PROMISE, &key).await?;
            is(PROMISE, "create", self.create(PROMISE, &key, bytes, Some(LONG)).await?, true)?;
            let found = self.bytes(PROMISE, &key).await?;
            holds(PROMISE, found.as_deref() == Some(bytes), || format!("{} bytes after a create", bytes.len()))?;
            // `swap` compares them exactly, too.
            let swapped = self.swap(PROMISE, &key, bytes, b"after", Some(LONG)).await?;
            is(PROMISE, "swap over what create stored", swapped, SessionSwap::Done)?;
            self.remove(PROMISE, &key).await?;
        }
        Ok(())
    }

    async fn keys_are_told_apart(&self) -> Checked {
        const PROMISE: &str = "keys that differ in case, spaces or punctuation are different keys";
        let long = "k".repeat(400);
        let longer = format!("{long}k");
        let names = ["k", "K", "k ", " k", "k%", "k_", "k*", "{k}", "k:k", "é", "e", &long, &longer];
        for name in names {
            let created = self.create(PROMISE, &self.key(name), name.as_bytes(), Some(LONG)).await?;
            holds(PROMISE, created, || format!("`{name}` is treated as another key"))?;
        }
        for name in names {
            let found = self.bytes(PROMISE, &self.key(name)).await?;
            holds(PROMISE, found.as_deref() == Some(name.as_bytes()), || {
                format!("`{name}` has the bytes of another key")
            })?;
            is(PROMISE, "remove", self.remove(PROMISE, &self.key(name)).await?, true)?;
        }
        Ok(())
    }

    async fn one_creates(&self) -> Checked {
        const PROMISE: &str = "of many concurrent creates of a key, exactly one succeeds";
        let key = self.key("created");
        is(PROMISE, "the first create", self.create(PROMISE, &key, b"first", Some(LONG)).await?, true)?;
        is(PROMISE, "the second create", self.create(PROMISE, &key, b"second", Some(LONG)).await?, false)?;
        is(PROMISE, "load", self.bytes(PROMISE, &key).await?, Some(b"first".to_vec()))?;
        self.remove(PROMISE, &key).await?;
        let contents: Vec<String> = (0..CALLERS).map(|n| n.to_string()).collect();
        let all = contents.iter().map(|text| self.create(PROMISE, &key, text.as_bytes(), Some(LONG)));
        let created = join_all(all).await.into_iter().collect::<Result<Vec<bool>, _>>()?;
        let winners: Vec<&String> =
            contents.iter().zip(created).filter(|(_, won)| *won).map(|(text, _)| text).collect();
        holds(PROMISE, winners.len() == 1, || format!("{} of {CALLERS} concurrent creates succeeded", winners.len()))?;
        let right = winners.first().map(|text| text.as_bytes().to_vec());
        is(PROMISE, "load after many creates", self.bytes(PROMISE, &key).await?, right)?;
        self.remove(PROMISE, &key).await.map(drop)
    }

    async fn a_swap_compares(&self) -> Checked {
        const PROMISE: &str = "a swap replaces exactly the expected bytes, or else returns the current ones";
        let key = self.key("swapped");
        self.create(PROMISE, &key, b"Bytes", Some(LONG)).await?;
        for other in [&b"bytes"[..], b"Byte", b"Bytes ", b"Bytes\0", b"", b"%"] {
            let swapped = self.swap(PROMISE, &key, other, b"new", Some(LONG)).await?;
            is(PROMISE, "swap over other bytes", swapped, SessionSwap::Conflict(b"Bytes".to_vec()))?;
        }
        is(PROMISE, "load", self.bytes(PROMISE, &key).await?, Some(b"Bytes".to_vec()))?;
        let swapped = self.swap(PROMISE, &key, b"Bytes", b"new", Some(LONG)).await?;
        is(PROMISE, "swap", swapped, SessionSwap::Done)?;
        is(PROMISE, "load after the swap", self.bytes(PROMISE, &key).await?, Some(b"new".to_vec()))?;
        // Replacing bytes with the same bytes is not a conflict.
        let swapped = self.swap(PROMISE, &key, b"new", b"new", Some(LONG)).await?;
        is(PROMISE, "swap over the same bytes", swapped, SessionSwap::Done)?;
        self.remove(PROMISE, &key).await.map(drop)
    }

    async fn one_swaps(&self) -> Checked {
        const PROMISE: &str = "of many concurrent swaps with the same expected bytes, exactly one succeeds";
        let key = self.key("contended");
        self.create(PROMISE, &key, b"before", Some(LONG)).await?;
        let contents: Vec<String> = (0..CALLERS).map(|n| n.to_string()).collect();
        let all = contents.iter().map(|text| self.swap(PROMISE, &key, b"before", text.as_bytes(), Some(LONG)));
        let swapped = join_all(all).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let done = swapped.iter().filter(|swapped| **swapped == SessionSwap::Done).count();
        holds(PROMISE, done == 1, || format!("{done} of {CALLERS} succeeded"))?;
        let gone = swapped.contains(&SessionSwap::Gone);
        holds(PROMISE, !gone, || "one swap reports that the key is absent".to_owned())?;
        self.remove(PROMISE, &key).await.map(drop)
    }

    async fn no_increment_is_lost(&self) -> Checked {
        const PROMISE: &str = "no increment is lost if a conflicting swap is retried with the returned bytes";
        const EACH: usize = 8;
        let key = self.key("counted");
        self.create(PROMISE, &key, b"0", Some(LONG)).await?;
        let count = async || {
            for _ in 0..EACH {
                let mut current = self.bytes(PROMISE, &key).await?.unwrap_or_default();
                loop {
                    let number: usize =
                        std::str::from_utf8(&current).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                    let next = number.saturating_add(1).to_string();
                    match self.swap(PROMISE, &key, &current, next.as_bytes(), Some(LONG)).await? {
                        SessionSwap::Done => break,
                        SessionSwap::Conflict(found) => current = found,
                        SessionSwap::Gone => {
                            return holds(PROMISE, false, || "the key is absent".to_owned());
                        }
                    }
                }
            }
            Ok(())
        };
        join_all((0..CALLERS).map(|_| count())).await.into_iter().collect::<Checked>()?;
        let right = CALLERS.saturating_mul(EACH).to_string().into_bytes();
        is(PROMISE, "load", self.bytes(PROMISE, &key).await?, Some(right))?;
        self.remove(PROMISE, &key).await.map(drop)
    }

    async fn a_removal_removes(&self) -> Checked {
        const PROMISE: &str = "a removed key is absent, and exactly one removal reports that it existed";
        let key = self.key("removed");
        self.create(PROMISE, &key, b"a", Some(LONG)).await?;
        is(PROMISE, "remove", self.remove(PROMISE, &key).await?, true)?;
        self.is_absent(PROMISE, &key).await?;
        is(PROMISE, "create after the removal", self.create(PROMISE, &key, b"b", Some(LONG)).await?, true)?;
        let removed = join_all((0..CALLERS).map(|_| self.remove(PROMISE, &key))).await;
        let removed = removed.into_iter().collect::<Result<Vec<bool>, _>>()?;
        let stood = removed.into_iter().filter(|stood| *stood).count();
        holds(PROMISE, stood == 1, || format!("{stood} of {CALLERS} concurrent removals report that the key existed"))
    }

    /// Checks all expiries together, so that time passes only once.
    async fn times(&self, pass: impl AsyncFnOnce(Duration)) -> Checked {
        const LEFT: &str = "a load returns the remaining ttl of a key";
        const END: &str = "a key is absent after its ttl has passed";
        const KEEP: &str = "a swap without a ttl keeps the expiry";
        const GIVE: &str = "a swap with a ttl sets that ttl";
        const TOUCH: &str = "a touch sets the ttl from now on";
        let key = |name: &str| self.key(name);
        for (name, ttl) in [
            ("ends", Some(SHORT)),
            ("ends, created again", Some(SHORT)),
            ("stays", Some(LONG)),
            ("for ever", None),
            ("kept short", Some(SHORT)),
            ("kept for ever", None),
            ("given more", Some(SHORT)),
            ("given less", Some(LONG)),
            ("given an end", None),
            ("touched longer", Some(SHORT)),
            ("touched shorter", Some(LONG)),
            ("touched for ever", None),
        ] {
            is(END, "create", self.create(END, &key(name), b"a", ttl).await?, true)?;
        }
        for name in ["kept short", "kept for ever"] {
            is(KEEP, "swap", self.swap(KEEP, &key(name), b"a", b"b", None).await?, SessionSwap::Done)?;
        }
        for (name, ttl) in [("given more", LONG), ("given less", SHORT), ("given an end", SHORT)] {
            is(GIVE, "swap", self.swap(GIVE, &key(name), b"a", b"b", Some(ttl)).await?, SessionSwap::Done)?;
        }
        for (name, ttl) in [("touched longer", LONG), ("touched shorter", SHORT), ("touched for ever", SHORT)] {
            is(TOUCH, "touch", self.touch(TOUCH, &key(name), ttl).await?, true)?;
            is(TOUCH, "load", self.bytes(TOUCH, &key(name)).await?, Some(b"a".to_vec()))?;
        }
        // A conflict extends nothing.
        let conflict = self.swap(END, &key("ends"), b"other", b"b", Some(LONG)).await?;
        is(END, "swap over other bytes", conflict, SessionSwap::Conflict(b"a".to_vec()))?;
        is(END, "create of an existing key", self.create(END, &key("ends"), b"b", Some(LONG)).await?, false)?;
        let left = self.load(LEFT, &key("stays")).await?.and_then(|found| found.ttl);
        let right = left.is_some_and(|left| left <= LONG && left >= LONG.saturating_sub(SLACK));
        holds(LEFT, right, || format!("{left:?} right after a create with {LONG:?}"))?;
        pass(AFTER_SHORT).await;
        for (promise, name) in [
            (END, "ends"),
            (KEEP, "kept short"),
            (GIVE, "given less"),
            (GIVE, "given an end"),
            (TOUCH, "touched shorter"),
            (TOUCH, "touched for ever"),
        ] {
            self.is_absent(promise, &key(name)).await?;
        }
        for (promise, name) in [(END, "stays"), (GIVE, "given more"), (TOUCH, "touched longer")] {
            let left = self.load(promise, &key(name)).await?.and_then(|found| found.ttl);
            // Some of it has passed.
            let right = left.is_some_and(|left| left < LONG && left >= LONG.saturating_sub(SLACK));
            holds(promise, right, || format!("{left:?} left of {LONG:?} after {AFTER_SHORT:?}"))?;
            self.remove(promise, &key(name)).await?;
        }
        for (promise, name) in [(END, "for ever"), (KEEP, "kept for ever")] {
            let found = self.load(promise, &key(name)).await?;
            let right = found.as_ref().is_some_and(|found| found.ttl.is_none());
            holds(promise, right, || format!("{found:?} for a key without an expiry"))?;
            self.remove(promise, &key(name)).await?;
        }
        let anew = key("ends, created again");
        is(END, "create of an expired key", self.create(END, &anew, b"new", Some(LONG)).await?, true)?;
        let found = self.load(END, &anew).await?;
        let right = found.as_ref().is_some_and(|found| found.bytes == b"new" && found.ttl > Some(SHORT));
        holds(END, right, || format!("{found:?} for a key that was created again after it had expired"))?;
        self.remove(END, &anew).await.map(drop)
    }
}

fn fault(promise: &'static str, error: impl Into<Box<dyn StdError + Send + Sync>>) -> BrokenPromise {
    let error: Box<dyn StdError + Send + Sync> = error.into();
    BrokenPromise { promise, detail: format!("the store failed: {error}") }
}
