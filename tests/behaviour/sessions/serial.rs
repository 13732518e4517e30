//! Concurrent random requests of one session are serializable: the result is that of some
//! sequential order.

use std::collections::BTreeMap;

use cache_core::session::{Session, SessionError, SessionLayer};
use futures::future::join_all;
use serde_json::{Value, json};
use support::{Gate, Nodes, soon};

use super::client::{Browser, express, native};

const NAMES: [&str; 3] = ["a", "b", "c"];
const REQUESTS: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Step {
    Insert(&'static str, i64),
    Increment(&'static str, i64),
    Remove(&'static str),
    Double(&'static str),
    Clear,
}

/// The generator xorshift64*.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn step(&mut self) -> Step {
        let name = NAMES[usize::try_from(self.below(3)).unwrap()];
        let number = i64::try_from(self.below(100)).unwrap();
        match self.below(10) {
            0..3 => Step::Insert(name, number),
            3..7 => Step::Increment(name, number),
            7 => Step::Remove(name),
            8 => Step::Double(name),
            _ => Step::Clear,
        }
    }
}

async fn take(session: &Session, step: Step) -> Result<(), SessionError> {
    match step {
        Step::Insert(name, number) => session.insert(name, &number).await,
        Step::Increment(name, number) => session.increment(name, number).await.map(drop),
        Step::Remove(name) => session.remove(name).await,
        Step::Double(name) => session.update(name, |number: Option<i64>| number.map(|number| number * 2)).await,
        Step::Clear => session.clear().await,
    }
}

fn model(values: &mut BTreeMap<&'static str, i64>, step: Step) {
    match step {
        Step::Insert(name, number) => drop(values.insert(name, number)),
        Step::Increment(name, number) => *values.entry(name).or_default() += number,
        Step::Remove(name) => drop(values.remove(name)),
        Step::Double(name) => {
            if let Some(number) = values.get_mut(name) {
                *number *= 2;
            }
        }
        Step::Clear => values.clear(),
    }
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = orders(count - 1);
    shorter.iter().flat_map(|order| (0..count).map(|at| [&order[..at], &[count - 1], &order[at..]].concat())).collect()
}

async fn round(layers: &[SessionLayer], seed: u64) {
    let mut random = Random(seed | 1);
    let browser = Browser::default();
    browser.set(&layers[0], "a", 1).await;
    let plans: Vec<Vec<Step>> = (0..REQUESTS).map(|_| (0..=random.below(4)).map(|_| random.step()).collect()).collect();
    let gate = Gate::shut();
    let requests: Vec<_> = plans
        .iter()
        .enumerate()
        .map(|(index, plan)| {
            let (browser, gate, plan) = (browser.clone(), gate.clone(), plan.clone());
            let layer = layers[index % layers.len()].clone();
            tokio::spawn(async move {
                browser
                    .visit(&layer, move |session| async move {
                        // All have read before any of them writes.
                        session.get::<Value>("a").await?;
                        gate.pass().await;
                        for step in plan {
                            take(&session, step).await?;
                        }
                        Ok(200)
                    })
                    .await
            })
        })
        .collect();
    for _ in 0..REQUESTS {
        soon("all have read", gate.arrival()).await;
    }
    gate.let_through(REQUESTS);
    for page in soon("all", join_all(requests)).await {
        assert_eq!(page.unwrap().status, 200, "seed {seed}");
    }
    let (send, receive) = tokio::sync::oneshot::channel();
    browser
        .visit(&layers[0], move |session| async move {
            let found = session.read(|values| {
                let value = |name| Ok(values.get::<Value>(name)?.map(|value| (name.to_owned(), value)));
                NAMES
                    .into_iter()
                    .filter_map(|name| value(name).transpose())
                    .collect::<Result<BTreeMap<_, _>, SessionError>>()
            });
            send.send(found.await??).unwrap();
            Ok(200)
        })
        .await;
    let found = json!(receive.await.unwrap());
    let possible: Vec<Value> = orders(REQUESTS)
        .into_iter()
        .map(|order| {
            let mut values = BTreeMap::from([("a", 1)]);
            order.into_iter().flat_map(|request| &plans[request]).for_each(|step| model(&mut values, *step));
            json!(values)
        })
        .collect();
    assert!(possible.contains(&found), "seed {seed}: {found} of {plans:?}");
}

async fn rounds(nodes: &Nodes, count: u64) {
    let (one, two) = (nodes.node().await, nodes.node().await);
    let layers = [
        [express(&one).build().unwrap(), express(&two).build().unwrap()],
        [native(&one).build().unwrap(), native(&two).build().unwrap()],
    ];
    for seed in 0..count {
        round(&layers[usize::try_from(seed % 2).unwrap()], seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_requests_are_serializable_embedded() {
    rounds(&Nodes::embedded(), 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_requests_are_serializable_redis() {
    rounds(&Nodes::redis(), 500).await;
}
