//! A process reports what it knows of an entry: whether it is kept, and its history in this
//! process.

use std::sync::Arc;
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::why::{Actor, HistoryEvent, Local, LocalCopy, Scope, Why};
use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Gate, Nodes, Proxy, RedisServer, eventually, on_both_stores, soon};

#[cached(name = "why", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache, tags("rows", "row:{id}"))]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<Arc<str>, String> {
    let _ = cache;
    gate.pass().await;
    if text.is_empty() { Err(format!("no row {id}")) } else { Ok(text.into()) }
}

async fn read(cache: &Cache, text: &str) -> Result<Arc<str>, String> {
    soon("a read", row(cache, &Gate::open(), 7, text)).await
}

fn why(cache: &Cache) -> Why {
    row::entry(7).on(cache).why()
}

/// Returns the steps without their times and durations.
fn steps(why: &Why) -> Vec<String> {
    let name = |what: HistoryEvent| {
        let text = format!("{what:?}");
        text.split_once(" {").map_or(text.clone(), |(name, _)| name.to_owned())
    };
    let with_tag = |step: &cache_core::why::Step| match &step.tag {
        Some(tag) => format!("{} {tag}", name(step.what)),
        None => name(step.what),
    };
    why.steps().iter().map(with_tag).collect()
}

fn kept(why: &Why) -> Option<LocalCopy> {
    match why.local() {
        Local::Present(kept) => Some(kept),
        _ => None,
    }
}

/// Reads until the local tier answers.
async fn is_kept(cache: &Cache) {
    eventually("it is kept", || async {
        read(cache, "computed anew").await.expect("a value");
        kept(&why(cache)).is_some_and(|kept| kept.is_served())
    })
    .await;
}

#[cached(name = "not_here", ttl = 60, skip(cache), cache = cache, local = false)]
async fn not_here(cache: &Cache) -> u32 {
    let _ = cache;
    1
}

const FILLED: [&str; 5] = ["Missed", "LeaseTaken", "RunBegan", "RunEnded", "Filled"];

on_both_stores! {
    async fn a_tier_that_is_off_shows_as_off(nodes: &Nodes) {
        let cache = nodes.node().await;
        assert_eq!(not_here(&cache).await, 1);
        assert_eq!(not_here::entry().on(&cache).why().local(), Local::Off);
        let off = nodes.node_with(Cache::builder().local_limit_bytes(0)).await;
        read(&off, "v1").await.unwrap();
        assert_eq!(why(&off).local(), Local::Off);
    }

    async fn a_first_call_shows_miss_lease_run_and_fill_and_a_hit_in_the_process_shows_nothing(nodes: &Nodes) {
        let cache = nodes.node().await;
        assert_eq!((why(&cache).local(), steps(&why(&cache)).len()), (Local::Absent, 0));
        read(&cache, "v1").await.unwrap();
        assert_eq!(steps(&why(&cache)), FILLED);
        is_kept(&cache).await;
        let before = why(&cache);
        for _ in 0..100 {
            read(&cache, "v2").await.unwrap();
        }
        assert_eq!(why(&cache).steps(), before.steps());
        let kept = kept(&before).unwrap();
        assert!(kept.fresh_for > Duration::from_secs(30) && kept.fresh_for <= Duration::from_secs(60), "{kept:?}");
        assert!(before.to_string().starts_with("kept in this process: fresh for "), "{before}");
        assert_eq!(before.to_string().lines().count(), 1 + before.steps().len());
    }

    async fn what_another_process_wrote_or_removed_shows_as_a_push(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        read(&here, "v1").await.unwrap();
        is_kept(&there).await;
        assert_eq!(steps(&why(&there)), ["Hit"]);
        row::entry(7).on(&here).invalidate().await.unwrap();
        eventually("the push arrives", || async { why(&there).local() == Local::Absent }).await;
        assert_eq!(steps(&why(&there)), ["Hit", "Changed"]);
        // An own write in this process is not a push.
        assert_eq!(steps(&why(&here)), [&FILLED[..], &["Removed"]].concat());
        assert_eq!(why(&here).local(), Local::Absent);

        row::entry(7).on(&here).set("v2".into()).await.unwrap();
        is_kept(&there).await;
        nodes.delete_by_hand(row::entry(7).on(&there).key()).await;
        eventually("the push arrives", || async { why(&there).local() == Local::Absent }).await;
        assert_eq!(steps(&why(&there)), ["Hit", "Changed", "Hit", "Changed"]);
        assert_eq!(steps(&why(&here)), [&FILLED[..], &["Removed", "Set"]].concat());
    }

    async fn an_invalidation_of_many_shows_its_scope_and_its_process(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for (scope, tag) in [(Scope::Tag, Some("row:7")), (Scope::Function, None), (Scope::Namespace, None)] {
            is_kept(&here).await;
            is_kept(&there).await;
            let before = (why(&here).steps().len(), why(&there).steps().len());
            match (scope, tag) {
                (_, Some(tag)) => here.invalidate_tags([tag, "row:8"]).await.unwrap(),
                (Scope::Function, _) => row::invalidate_all(&here).await.unwrap(),
                _ => here.clear().await.unwrap(),
            }
            let ended = |why: &Why| kept(why).is_none_or(|kept| kept.unknown_version == Some(scope));
            assert!(ended(&why(&here)), "{}", why(&here));
            eventually("the push arrives", || async { ended(&why(&there)) }).await;
            eventually("the push is noted", || async { why(&there).steps().len() > before.1 }).await;
            for (node, before, by) in [(&here, before.0, Actor::ThisProcess), (&there, before.1, Actor::Another)] {
                let why = why(node);
                let new = &why.steps()[before..];
                // The embedded store may have evicted the record by now, which is a change of its
                // key.
                let new = new.iter().filter(|step| step.what != HistoryEvent::Changed);
                let last: Vec<_> = new.map(|step| (step.what, step.tag.as_deref())).collect();
                assert_eq!(last, [(HistoryEvent::Invalidated(scope, by), tag)]);
            }
            read(&here, "anew").await.unwrap();
            // In Redis the record still exists, and shows what has invalidated it.
            if let Nodes::Redis(_) = nodes {
                let outdated = if tag.is_some() { Scope::Tag } else { Scope::FunctionOrNamespace };
                assert_eq!(why(&here).steps()[before.0 + 1].what, HistoryEvent::Outdated(outdated));
            }
        }
    }

    async fn a_process_that_waits_for_the_lease_of_another_says_so(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let run = tokio::spawn({
            let (here, gate) = (here.clone(), gate.clone());
            async move { row(&here, &gate, 7, "v1").await }
        });
        gate.arrival().await;
        let waits = tokio::spawn({
            let there = there.clone();
            async move { read(&there, "v2").await }
        });
        eventually("it waits", || async { steps(&why(&there)) == ["Waited"] }).await;
        gate.let_through(1);
        assert_eq!(&*soon("it is woken", waits).await.unwrap().unwrap(), "v1");
        soon("it ends", run).await.unwrap().unwrap();
        // The push for the fill may arrive after that.
        assert_eq!(steps(&why(&there))[..2], ["Waited", "Hit"]);
    }

    // R1
    async fn a_fill_that_is_refused_says_why(nodes: &Nodes) {
        let (here, there, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        for tagged in [false, true] {
            let before = why(&here).steps().len();
            let run = tokio::spawn({
                let (here, gate) = (here.clone(), gate.clone());
                async move { row(&here, &gate, 7, "v1").await }
            });
            gate.arrival().await;
            if tagged {
                here.invalidate_tag("rows").await.unwrap();
            } else {
                row::entry(7).on(&there).invalidate().await.unwrap();
            }
            gate.let_through(1);
            soon("it ends", run).await.unwrap().unwrap();
            let refused = if tagged {
                ["Missed", "LeaseTaken", "RunBegan", "Invalidated(Tag, ThisProcess) rows", "RunEnded", "FillRefused(Outdated)"]
            } else {
                ["Missed", "LeaseTaken", "RunBegan", "RunEnded", "FillRefused(LeaseLost)", ""]
            };
            let refused: Vec<_> = refused.into_iter().filter(|step| !step.is_empty()).collect();
            assert_eq!(steps(&why(&here))[before..], refused);
        }
    }

    async fn a_run_that_fails_shows_its_error_and_not_its_text(nodes: &Nodes) {
        let cache = nodes.node().await;
        read(&cache, "").await.unwrap_err();
        assert_eq!(steps(&why(&cache)), ["Missed", "LeaseTaken", "RunBegan", "RunFailed"]);
        assert!(!why(&cache).to_string().contains("no row"));
    }

    // R22
    async fn a_fence_shows_from_its_raising_to_its_end(nodes: &Nodes) {
        let cache = nodes.node().await;
        let fence = cache.fence().entry(&row::entry(7).on(&cache)).tag("rows").raise().await.unwrap();
        read(&cache, "v1").await.unwrap();
        fence.lift().await.unwrap();
        let steps = steps(&why(&cache));
        let position = |step: &str| steps.iter().position(|other| other == step).unwrap_or_else(|| panic!("{steps:?}"));
        let in_order = ["FenceRaised", "RunBegan", "RunEnded", "FenceLifted"];
        assert!(in_order.map(position).is_sorted(), "{steps:?}");
        assert!(!steps.contains(&"Filled".to_owned()), "{steps:?}");
    }

    async fn keys_by_hand_have_a_history_too(nodes: &Nodes) {
        let cache = nodes.node().await;
        let key = || Key::new("by_hand").part(&7);
        let compute = || async { Ok::<_, String>(1_u32) };
        cache.get_or_compute(key(), &EntryOptions::new(), compute).await.unwrap();
        assert_eq!(steps(&cache.why::<u32>(&key())), FILLED);
        assert!(cache.why::<u32>(&Key::new("by_hand").part(&8)).steps().is_empty());
    }

    async fn a_disabled_history_has_no_steps_and_still_shows_the_local_copy(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder().history(0)).await;
        is_kept(&cache).await;
        assert!(why(&cache).steps().is_empty());
    }
}

#[tokio::test]
async fn a_refresh_that_fails_shows_with_its_throttle() {
    let clock = Clock::manual();
    let cache = Cache::builder().clock(clock.clone()).jitter(0.0).early(0.0).in_memory();
    let options = EntryOptions::new().ttl(Duration::from_secs(10)).stale_while_revalidate(Duration::from_secs(60));
    let key = || Key::new("refreshed");
    let ask =
        async |result: Result<u32, String>| cache.get_or_compute(key(), &options, || async { result }).await.unwrap();
    ask(Ok(1)).await;
    clock.advance(Duration::from_secs(11));
    assert_eq!(ask(Err("down".to_owned())).await, 1);
    // The throttle wakes waiters on the record, which is indistinguishable from a change.
    let refresh = ["RefreshBegan", "LeaseTaken", "RunBegan", "RunFailed", "Cooldown", "Changed", "RefreshFailed"];
    let why = cache.why::<u32>(&key());
    assert_eq!(steps(&why)[..5], FILLED);
    // If the value was not kept here, it was read first.
    let rest: Vec<_> = steps(&why)[5..].iter().filter(|step| *step != "Hit").cloned().collect();
    assert_eq!(rest, refresh);
    assert!(why.to_string().contains("not refreshed for 5.0 s"), "{why}");
    let last = why.steps().last().unwrap();
    assert_eq!(last.at.duration_since(why.steps()[0].at).unwrap(), Duration::from_secs(11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R7
async fn a_lost_connection_shows_as_one_step() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = Cache::connect(&proxy.url()).await.unwrap();
    is_kept(&cache).await;
    assert!(!steps(&why(&cache)).contains(&"ConnectionLost".to_owned()), "what was before is of no interest");
    proxy.cut();
    eventually("the loss is noticed", || async { !cache.is_available() }).await;
    assert_eq!(why(&cache).local(), Local::Absent);
    assert_eq!(steps(&why(&cache)).iter().filter(|step| **step == "ConnectionLost").count(), 1);
    proxy.heal();
    eventually("the link is back", || async { cache.is_available() }).await;
    is_kept(&cache).await;
    let after: Vec<_> = steps(&why(&cache)).into_iter().skip_while(|step| *step != "ConnectionLost").collect();
    assert_eq!(after, ["ConnectionLost", "Hit"]);
}

#[test]
fn neither_text_nor_debug_shows_arguments() {
    let cache = Cache::in_memory();
    let why = cache.why::<String>(&Key::new("session").part(&"secret"));
    assert!(!format!("{why} {why:?}").contains("secret"));
}
