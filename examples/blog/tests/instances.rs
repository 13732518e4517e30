//! Three instances with one Redis: what is written through one is read through all.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot continue fails; bounds in time are what is tested"
)]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/instances.rs"]
mod instances;
#[path = "support/process.rs"]
mod process;
#[path = "support/reader.rs"]
mod reader;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use browser::{Browser, Page};
use instances::Instances;
use sqlx::Connection as _;

/// The longest time that another process may serve a locally cached value: the cache's default.
const MAX_STALENESS: Duration = Duration::from_secs(2);
/// Only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Reads after the first new one. None of them may be old again.
const MORE_READS: usize = 10;

/// A change, and a page that shows it.
struct Change<'a> {
    path: &'a str,
    is_new: Box<dyn Fn(&Page) -> bool + Sync + 'a>,
}

fn on_each<'a>(paths: &[&'a str], is_new: impl Fn(&Page) -> bool + Clone + Sync + 'a) -> Vec<Change<'a>> {
    paths.iter().map(|path| Change { path, is_new: Box::new(is_new.clone()) }).collect()
}

/// Checks that a write through one instance shows on its own pages at once, and on those of the
/// others within the bound, and that a new page stays new.
fn shows_everywhere(instances: &Instances, written_through: usize, changes: &[Change<'_>]) {
    let answered = Instant::now();
    for change in changes {
        let page = instances.browsers()[written_through].get(change.path);
        assert!((change.is_new)(&page), "{} on the instance that wrote: {}", change.path, page.body);
    }
    scope(|scope| {
        for browser in instances.browsers() {
            for change in changes {
                scope.spawn(move || {
                    loop {
                        let asked = answered.elapsed();
                        if (change.is_new)(&browser.get(change.path)) {
                            break;
                        }
                        assert!(asked <= MAX_STALENESS, "{} is old {asked:?} after the write", change.path);
                    }
                    for _ in 0..MORE_READS {
                        assert!(
                            (change.is_new)(&browser.get(change.path)),
                            "{} was new, and is old again",
                            change.path
                        );
                    }
                });
            }
        }
    });
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "this never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells the readers that writing has ended, also if a test fails before its end.
struct EndOfWriting<'a>(&'a AtomicBool);

impl Drop for EndOfWriting<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Returns the title on a post's page.
fn title(page: &Page) -> &str {
    page.body.split("<h1>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_else(|| panic!("{}", page.body))
}

fn title_at(browser: Browser, address: &str) -> String {
    title(&browser.get(address)).to_owned()
}

/// Returns the `n` of the title `Edit n`; 0 for another title.
fn number(page: &Page) -> u32 {
    title(page).strip_prefix("Edit ").and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn a_write_through_one_instance_shows_on_all() {
    // I2, I3, T5, T7
    let instances = Instances::start();
    let lists = ["/", "/feed.xml", "/authors/1", "/search?q=quixotically"];
    // Everything is read by all before each write, so that it is cached everywhere.
    let read_all = |address: &str| {
        for browser in instances.browsers() {
            for path in lists.iter().copied().chain([address]) {
                browser.get(path);
                browser.get(path);
            }
        }
    };
    // Includes the address of the next post, so that its absence is cached everywhere.
    let last = instances.publish(2, "The last one before");
    let id: i64 = last.rsplit('/').next().unwrap().parse().unwrap();
    let next = format!("/posts/{}", id.saturating_add(1));
    read_all(&next);
    assert!(instances.browsers().iter().all(|browser| browser.get(&next).status == 404));
    let address = instances.publish(0, "The first quixotically title");
    assert_eq!(address, next);
    let pages = [&lists[..], &[&address]].concat();
    let is_new = |page: &Page| page.status == 200 && page.body.contains("The first quixotically title");
    shows_everywhere(&instances, 0, &on_each(&pages, is_new));

    for (round, through) in [1, 2, 0, 1].into_iter().enumerate() {
        read_all(&address);
        let title = format!("Title {round}, quixotically");
        instances.post(through, &format!("{address}/edit"), &[("title", &title), ("body", "Another body.")]);
        shows_everywhere(&instances, through, &on_each(&pages, |page| page.body.contains(&title)));
    }

    read_all(&address);
    instances.post(2, &format!("{address}/comments"), &[("body", "Well said.")]);
    let on_lists = format!("{address}#comments\">1 comment<");
    // The feed does not contain comments.
    let with_counts = lists.map(|path| if path == "/feed.xml" { "/" } else { path });
    let mut changes = on_each(&with_counts, |page| page.body.contains(&on_lists));
    changes.extend(on_each(&[&address], |page| page.body.contains("Well said.")));
    shows_everywhere(&instances, 2, &changes);

    read_all(&address);
    instances.post(1, &format!("{address}/delete"), &[]);
    let mut changes = on_each(&lists, |page| !page.body.contains(&address));
    changes.extend(on_each(&[&address], |page| page.status == 404));
    shows_everywhere(&instances, 1, &changes);
}

#[test]
fn readers_of_all_instances_never_go_back_in_time() {
    // R6, R8, R22
    const EDITS: u32 = 40;
    let instances = Instances::start();
    let address = instances.publish(0, "Edit 0");
    let over = AtomicBool::new(false);
    scope(|scope| {
        for browser in instances.browsers() {
            let (address, over) = (&address, &over);
            scope.spawn(move || {
                let (mut seen, mut last) = (0, false);
                // Once more after the end, which has to show the last edit.
                while !last {
                    last = over.load(Ordering::SeqCst);
                    let read = number(&browser.get(address));
                    assert!(read >= seen, "after edit {seen} came edit {read}");
                    seen = read;
                }
            });
        }
        // Each edit goes through another instance, one after the other.
        let _end = EndOfWriting(&over);
        for edit in 1..=EDITS {
            let through = usize::try_from(edit % 3).unwrap();
            let title = format!("Edit {edit}");
            instances.post(through, &format!("{address}/edit"), &[("title", &title), ("body", "x")]);
            assert_eq!(title_at(instances.browsers()[through], &address), title, "on the instance that wrote");
        }
    });
    shows_everywhere(&instances, 1, &on_each(&[&address], |page| number(page) == EDITS));
}

#[test]
fn concurrent_edits_through_all_instances_end_with_the_last_one_everywhere() {
    // R5, R22
    let instances = Instances::start();
    let address = instances.publish(0, "Before all edits");
    let over = AtomicBool::new(false);
    for round in 0..4 {
        over.store(false, Ordering::SeqCst);
        scope(|scope| {
            for browser in instances.browsers() {
                let (address, over) = (&address, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        assert_eq!(browser.get(address).status, 200);
                        assert_eq!(browser.get("/").status, 200);
                    }
                });
            }
            let _end = EndOfWriting(&over);
            let writers: Vec<_> = (0..3)
                .map(|through| {
                    let (address, instances) = (&address, &instances);
                    scope.spawn(move || {
                        for edit in 0..8 {
                            let title = format!("Round {round}, edit {edit} through {through}");
                            instances.post(through, &format!("{address}/edit"), &[("title", &title), ("body", "x")]);
                        }
                    })
                })
                .collect();
            let failed = writers.into_iter().filter_map(|writer| writer.join().err()).count();
            assert_eq!(failed, 0, "writers that failed");
        });
        // The database decides the order of the edits.
        let last = title_in_the_database(&instances, &address);
        let changes = on_each(&["/", "/authors/1", &address], |page| page.body.contains(&last));
        shows_everywhere(&instances, 0, &changes);
    }
}

#[test]
fn pages_are_served_and_right_while_redis_is_away_and_after_it_is_back() {
    // D2
    let instances = Instances::start();
    let address = instances.publish(0, "Before the outage");
    let shows = |title: &'static str| on_each(&["/", "/authors/1", &address], move |page| page.body.contains(title));
    for browser in instances.browsers() {
        assert_eq!(title_at(browser, &address), "Before the outage");
        assert_eq!(browser.get("/").status, 200);
    }
    let reachable = |browser: Browser| !browser.get("/cache").body.contains("not reachable");

    for title in ["During the first outage", "During the second outage"] {
        instances.redis.kill();
        for path in ["/", "/authors/1", &address, "/search?q=bread"] {
            for browser in instances.browsers() {
                assert_eq!(browser.get(path).status, 200, "{path} without Redis");
            }
        }
        // Without the store no reader is known, so nothing is written; a change in the database
        // still shows.
        let refused = instances.writer(1).post(&format!("{address}/edit"), &[("title", "Refused"), ("body", "x")]);
        assert!(
            refused.status == 503 && refused.body.contains("Logging in and writing are not possible"),
            "{}",
            refused.body
        );
        assert_ne!(title_in_the_database(&instances, &address), "Refused");
        change_title_in_the_database(&instances, &address, title);
        shows_everywhere(&instances, 1, &shows(title));

        instances.redis.restart();
        for browser in instances.browsers() {
            eventually("the instance finds Redis again", || reachable(browser));
        }
        shows_everywhere(&instances, 1, &shows(title));
    }
    // The server came back empty.
    let writer = instances.writer(2);
    writer.log_in("demo", "demo");
    instances.post(2, &format!("{address}/edit"), &[("title", "After both outages"), ("body", "x")]);
    shows_everywhere(&instances, 2, &shows("After both outages"));
}

#[test]
fn one_session_is_good_on_all_instances_and_after_a_restart() {
    let mut instances = Instances::start();
    for through in 0..3 {
        assert!(instances.writer(through).is_logged_in(), "logged in through 0, asked through {through}");
    }
    instances.restart(0);
    instances.restart(1);
    assert!(instances.writer(0).is_logged_in() && instances.writer(1).is_logged_in(), "after a restart");
    instances.writer(1).get("/");
    assert_eq!(instances.writer(1).post("/logout", &[]).status, 303);
    for through in 0..3 {
        assert!(!instances.writer(through).is_logged_in(), "logged out through 1, asked through {through}");
    }
}

fn title_in_the_database(instances: &Instances, address: &str) -> String {
    by_hand(instances, async |connection| {
        let select = sqlx::query_scalar("SELECT title FROM posts WHERE id = $1").bind(id(address));
        select.fetch_one(connection).await.unwrap()
    })
}

fn change_title_in_the_database(instances: &Instances, address: &str, title: &str) {
    by_hand(instances, async |connection| {
        let update = sqlx::query("UPDATE posts SET title = $1 WHERE id = $2").bind(title).bind(id(address));
        update.execute(connection).await.unwrap();
    });
}

fn id(address: &str) -> i64 {
    address.rsplit('/').next().unwrap().parse().unwrap()
}

fn by_hand<T>(instances: &Instances, run: impl AsyncFnOnce(&mut sqlx::AnyConnection) -> T) -> T {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::AnyConnection::connect(&instances.database_url()).await.unwrap();
        let value = run(&mut connection).await;
        connection.close().await.unwrap();
        value
    })
}
