//! An object and a session in which clients count. Every acknowledged increment is in the final
//! value.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use cache_core::Cache;
use cache_core::object::CacheObject;
use cache_core::session::{Session, SessionError, SessionLayer};
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tower::{Layer as _, ServiceExt as _};

use super::client::Client;
use super::history::Rule;

/// The acknowledged increments, by the object or session they were counted in.
#[derive(Default)]
pub(super) struct Counters {
    objects: u64,
    /// Each with the number of store restarts at that time.
    counted: BTreeMap<u64, (u64, u64)>,
    browser: Option<String>,
    visits: BTreeMap<String, (u64, u64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "counter", ttl = 3600, id = id)]
struct Counter {
    id: u64,
    /// Distinguishes successive objects with the same id.
    made: u64,
    count: u64,
}

/// Returns the session layer of one process. All processes share a secret.
pub(super) fn sessions(cache: &Cache) -> SessionLayer {
    SessionLayer::builder(cache).secret("a secret of thirty-two bytes....").build().unwrap()
}

impl Client {
    pub(super) async fn count(&self) {
        match self.draw(6) {
            _ if self.run.is_calm() => {}
            0..2 => self.update_object().await,
            2..5 => self.visit(true).await,
            _ => drop(self.visit_for(false).await),
        }
    }

    async fn update_object(&self) {
        let world = self.run.world();
        let (objects, restarts) = (self.cache.objects::<Counter>(), world.restarts());
        match objects.update(&0, |counter| counter.count += 1).await {
            Ok(Some(counter)) => {
                self.note(|| format!("counted in object {}: {}", counter.made, counter.count));
                let mut state = self.run.state();
                state.reached.updates += 1;
                state.counters.counted.entry(counter.made).or_insert((0, restarts)).0 += 1;
            }
            Ok(None) => {
                let made = {
                    let counters = &mut self.run.state().counters;
                    counters.objects += 1;
                    counters.objects
                };
                let made = Counter { id: 0, made, count: 0 };
                drop(objects.create(&made).await);
            }
            Err(error) => self.note(|| format!("nothing counted: {:?}", error.kind())),
        }
    }

    async fn visit(&self, counts: bool) {
        let restarts = self.run.world().restarts();
        let Some((cookie, count)) = self.visit_for(counts).await else { return };
        self.note(|| format!("counted in the session: {count:?}"));
        let mut state = self.run.state();
        state.reached.session_increments += 1;
        state.counters.visits.entry(cookie).or_insert((0, restarts)).0 += 1;
    }

    /// Sends one request. Returns its session and the count in it, or `None` if it failed.
    async fn visit_for(&self, counts: bool) -> Option<(String, Option<i64>)> {
        let count = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&count);
        let handler = move |session: Session| async move {
            let now = if counts { Some(session.increment("count", 1).await?) } else { session.get("count").await? };
            *slot.lock().unwrap() = now;
            Ok::<_, SessionError>(())
        };
        let service = self.sessions().layer(tower::service_fn(move |request: Request<()>| {
            let session = request.extensions().get::<Session>().unwrap().clone();
            let handled = handler.clone()(session);
            async move {
                let status = handled.await.map_or_else(|error| error.status().as_u16(), |()| 200);
                Ok::<_, Infallible>(Response::builder().status(status).body(String::new()).unwrap())
            }
        }));
        let sent = self.run.state().counters.browser.clone();
        let mut request = Request::builder().uri("/");
        if let Some(cookie) = &sent {
            request = request.header("cookie", cookie);
        }
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let set = response.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok()?.split(';').next());
        let status = response.status().as_u16();
        if status != 200 {
            self.note(|| format!("a request is answered with {status}"));
            return None;
        }
        // If two first requests run concurrently, only one of their sessions is kept.
        let cookie = set.map(str::to_owned).or(sent)?;
        let browser = &mut self.run.state().counters.browser;
        if set.is_some() && counts {
            *browser = Some(cookie.clone());
        }
        Some((cookie, *count.lock().unwrap()))
    }
}

/// At the end: checks that no acknowledged increment is lost.
pub(super) async fn check(client: &Client) {
    let restarts = client.run.world().restarts();
    let (counted, browser) = {
        let counters = &client.run.state().counters;
        (counters.counted.clone(), counters.browser.clone())
    };
    if let Ok(found) = client.cache.objects::<Counter>().load(&0).await {
        let newest = counted.iter().next_back().filter(|(_, (_, since))| *since == restarts);
        if let Some((made, (count, _))) = newest {
            let found = found.filter(|counter| counter.made == *made).map(|counter| counter.count);
            if found.is_none_or(|found| found < *count) {
                let what = format!("{count} updates of object {made} were acknowledged, {found:?} are left");
                client.run.violates(Rule::Lost, what);
            }
        }
    }
    let Some(cookie) = browser else { return };
    let visits = client.run.state().counters.visits.get(&cookie).copied();
    let Some((visits, _)) = visits.filter(|(_, since)| *since == restarts) else { return };
    if let Some((_, found)) = client.visit_for(false).await
        && found.is_none_or(|found| found < visits as i64)
    {
        let what = format!("{visits} increments of a session were acknowledged, {found:?} are left");
        client.run.violates(Rule::Lost, what);
    }
}
