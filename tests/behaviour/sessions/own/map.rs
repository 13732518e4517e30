//! A store of sessions in memory that can fail, wait, and break its contract.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::session::{SessionStore, SessionSwap, StoredSession};
use support::Gate;
use tokio::task::yield_now;

/// The contract that a store breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Nothing,
    TouchMakes,
    BytesAreText,
    KeysHaveNoCase,
    CreateLooksFirst,
    CreateOverwrites,
    SwapComparesLengths,
    SwapLooksFirst,
    RemoveAlwaysSaysYes,
    NothingEnds,
    SwapTakesTheEnd,
    SwapGivesNoTime,
    TouchGivesNoTime,
    LoadTellsNoTime,
}

#[derive(Clone)]
pub(super) enum Plan {
    Work,
    /// This step is not done, and reports a failure.
    FailBefore(u64),
    /// This step is done, but reports a failure.
    FailAfter(u64),
    /// This step waits.
    Hold(u64, Gate),
}

/// The store is unavailable. Its text must not be logged.
pub(super) struct Away;

impl fmt::Debug for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Away")
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store is away")
    }
}

impl std::error::Error for Away {}

pub(super) type Entries = BTreeMap<String, (Vec<u8>, Option<u64>)>;

/// A store in memory, with its own clock and faults.
pub(super) struct Map {
    pub(super) entries: Mutex<Entries>,
    now: AtomicU64,
    steps: AtomicU64,
    plan: Mutex<Plan>,
    broken: Broken,
}

impl Map {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::broken(Broken::Nothing))
    }

    pub(super) fn broken(broken: Broken) -> Self {
        let plan = Mutex::new(Plan::Work);
        Self { entries: Mutex::default(), now: AtomicU64::new(1), steps: AtomicU64::new(0), plan, broken }
    }

    /// Starts to count steps.
    pub(super) fn begin(&self, plan: Plan) {
        self.steps.store(0, Ordering::SeqCst);
        *self.plan.lock().unwrap() = plan;
    }

    /// Returns the number of steps since then.
    pub(super) fn heal(&self) -> u64 {
        *self.plan.lock().unwrap() = Plan::Work;
        self.steps.load(Ordering::SeqCst)
    }

    pub(super) fn let_pass(&self, time: Duration) {
        self.now.fetch_add(millis(time), Ordering::SeqCst);
    }

    async fn step<T>(&self, step: impl FnOnce(&mut Entries, u64) -> T) -> Result<T, Away> {
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        let plan = self.plan.lock().unwrap().clone();
        match &plan {
            Plan::FailBefore(which) if *which == number => return Err(Away),
            Plan::Hold(which, gate) if *which == number => gate.pass().await,
            _ => {}
        }
        // Other tasks run between any two steps.
        yield_now().await;
        let now = self.now.load(Ordering::SeqCst);
        let done = {
            let mut entries = self.entries.lock().unwrap();
            if self.broken != Broken::NothingEnds {
                entries.retain(|_, (_, ends)| ends.is_none_or(|ends| now < ends));
            }
            step(&mut entries, now)
        };
        match plan {
            Plan::FailAfter(which) if which == number => Err(Away),
            _ => Ok(done),
        }
    }

    fn key(&self, key: &str) -> String {
        if self.broken == Broken::KeysHaveNoCase { key.to_lowercase() } else { key.to_owned() }
    }

    fn text(&self, bytes: &[u8]) -> Vec<u8> {
        match self.broken {
            Broken::BytesAreText => String::from_utf8_lossy(bytes).into_owned().into(),
            _ => bytes.to_vec(),
        }
    }

    /// Returns the stored sessions as text, without keys of indexes or tags.
    pub(super) fn sessions(&self) -> Vec<String> {
        let now = self.now.load(Ordering::SeqCst);
        let entries = self.entries.lock().unwrap();
        let standing = entries.iter().filter(|(key, (bytes, ends))| {
            (key.starts_with("cache:sess:") || key.starts_with("sess:"))
                && bytes != b"null"
                && ends.is_none_or(|ends| now < ends)
        });
        standing.map(|(_, (bytes, _))| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Returns how many of them are logged in.
    pub(super) fn logins(&self) -> usize {
        self.sessions().iter().filter(|session| session.contains("\"u\":\"ada\"")).count()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

impl SessionStore for Map {
    type Error = Away;

    async fn load(&self, key: &str) -> Result<Option<StoredSession>, Away> {
        let key = self.key(key);
        let tells = self.broken != Broken::LoadTellsNoTime;
        self.step(|entries, now| {
            let (bytes, ends) = entries.get(&key)?;
            let ttl = ends.filter(|_| tells).map(|ends| Duration::from_millis(ends.saturating_sub(now)));
            Some(StoredSession { bytes: bytes.clone(), ttl })
        })
        .await
    }

    async fn create(&self, key: &str, bytes: &[u8], ttl: Option<Duration>) -> Result<bool, Away> {
        let (key, bytes) = (self.key(key), self.text(bytes));
        if self.broken == Broken::CreateLooksFirst {
            if self.step(|entries, _| entries.contains_key(&key)).await? {
                return Ok(false);
            }
            yield_now().await;
        }
        let overwrites = matches!(self.broken, Broken::CreateLooksFirst | Broken::CreateOverwrites);
        self.step(|entries, now| {
            let free = !entries.contains_key(&key);
            if free || overwrites {
                entries.insert(key, (bytes, ttl.map(|ttl| now + millis(ttl))));
            }
            free || overwrites
        })
        .await
    }

    async fn swap(&self, key: &str, expected: &[u8], bytes: &[u8], ttl: Option<Duration>) -> Result<SessionSwap, Away> {
        let (key, bytes) = (self.key(key), self.text(bytes));
        if self.broken == Broken::SwapLooksFirst {
            let found = self.step(|entries, _| entries.get(&key).map(|(found, _)| found.clone())).await?;
            match found {
                None => return Ok(SessionSwap::Gone),
                Some(found) if found != expected => return Ok(SessionSwap::Conflict(found)),
                Some(_) => yield_now().await,
            }
        }
        let broken = self.broken;
        self.step(|entries, now| match entries.get_mut(&key) {
            None => SessionSwap::Gone,
            Some((found, _)) if found.len() != expected.len() && broken == Broken::SwapComparesLengths => {
                SessionSwap::Conflict(found.clone())
            }
            Some((found, _))
                if found != expected && !matches!(broken, Broken::SwapComparesLengths | Broken::SwapLooksFirst) =>
            {
                SessionSwap::Conflict(found.clone())
            }
            Some((found, ends)) => {
                *found = bytes;
                match ttl {
                    Some(ttl) if broken != Broken::SwapGivesNoTime => *ends = Some(now + millis(ttl)),
                    None if broken == Broken::SwapTakesTheEnd => *ends = None,
                    _ => {}
                }
                SessionSwap::Done
            }
        })
        .await
    }

    async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, Away> {
        let (key, broken) = (self.key(key), self.broken);
        self.step(|entries, now| match entries.get_mut(&key) {
            Some((_, ends)) => {
                if broken != Broken::TouchGivesNoTime {
                    *ends = Some(now + millis(ttl));
                }
                true
            }
            None if broken == Broken::TouchMakes => {
                entries.insert(key, (Vec::new(), Some(now + millis(ttl))));
                true
            }
            None => false,
        })
        .await
    }

    async fn remove(&self, key: &str) -> Result<bool, Away> {
        let (key, broken) = (self.key(key), self.broken);
        self.step(|entries, _| entries.remove(&key).is_some() || broken == Broken::RemoveAlwaysSaysYes).await
    }
}
