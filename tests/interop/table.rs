//! The effect of a visit on Redis and on the browser, for every kind of visit and all combinations
//! of options.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use support::root;

use super::browser::{App, Browser, Ids, Redis, combinations};
use super::peer::Peer;

/// The kind of visitor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Visitor {
    WithoutCookie,
    /// With a session in which `first` is 1, halfway to its end.
    Known,
    /// With a valid signature, but no session.
    Unknown,
    /// With the cookie of a destroyed session.
    AfterDestroy,
    BadSignature,
}

/// When the response has a `Set-Cookie`.
#[derive(Debug, Clone, Copy)]
enum When {
    Never,
    Always,
    SaveUninitialized,
    Rolling,
    MaxAgeOrRolling,
}

struct Row {
    name: &'static str,
    visitor: Visitor,
    steps: &'static [&'static str],
    unset: Option<&'static str>,
    /// The commands on Redis, with the visitor's session as `known`. By saveUninitialized and
    /// resave: neither, resave, saveUninitialized, both.
    commands: [&'static str; 4],
    cookie: When,
}

impl Row {
    fn expected_commands(&self, app: &App) -> Vec<String> {
        with_ttl(self.commands[usize::from(app.resave) + 2 * usize::from(app.save_uninitialized)], app)
    }

    fn expected_cookie(&self, app: &App) -> String {
        let is_set = match self.cookie {
            When::Never => false,
            When::Always => true,
            When::SaveUninitialized => app.save_uninitialized,
            When::Rolling => app.rolling,
            When::MaxAgeOrRolling => app.rolling || app.cookie.max_age.is_some(),
        };
        if !is_set {
            return "none".to_owned();
        }
        let expires = app.cookie.max_age.map_or(String::new(), |max_age| format!("Expires=+{}; ", max_age / 1000));
        format!("connect.sid={}; Path=/; {expires}HttpOnly", self.id_of_the_cookie())
    }

    fn id_of_the_cookie(&self) -> &'static str {
        match self.cookie {
            When::Rolling | When::MaxAgeOrRolling => "known",
            _ => "new",
        }
    }
}

/// Splits `GET known; SET known` into commands, with the lifetime of sessions in seconds.
fn with_ttl(commands: &str, app: &App) -> Vec<String> {
    let ttl = app.ttl();
    let with_ttl = |command: &str| match command.split(' ').next() {
        Some("SET") => format!("{command} EX {ttl}"),
        Some("EXPIRE") => format!("{command} {ttl}"),
        _ => command.to_owned(),
    };
    commands.split("; ").filter(|command| !command.is_empty()).map(with_ttl).collect()
}

const fn row(
    name: &'static str,
    visitor: Visitor,
    steps: &'static [&'static str],
    commands: [&'static str; 4],
    cookie: When,
) -> Row {
    Row { name, visitor, steps, unset: None, commands, cookie }
}

/// Like `row`, with the option `unset`.
const fn with_unset(unset: &'static str, row: Row) -> Row {
    Row { unset: Some(unset), ..row }
}

const UNTOUCHED: [&str; 4] =
    ["GET known; EXPIRE known", "GET known; SET known", "GET known; EXPIRE known", "GET known; SET known"];
const NOT_FOUND: [&str; 4] = ["GET known", "GET known", "GET known; SET new", "GET known; SET new"];
const ONLY_SAVE_UNINITIALIZED: [&str; 4] = ["", "", "SET new", "SET new"];

const TABLE: &[Row] = {
    use Visitor::{AfterDestroy, BadSignature, Known, Unknown, WithoutCookie};
    use When::{Always, MaxAgeOrRolling, Never, Rolling, SaveUninitialized};
    &[
        row("nothing is done", WithoutCookie, &[], ONLY_SAVE_UNINITIALIZED, SaveUninitialized),
        row("a missing key is read", WithoutCookie, &["read a"], ONLY_SAVE_UNINITIALIZED, SaveUninitialized),
        row("written", WithoutCookie, &["set a 1"], ["SET new"; 4], Always),
        row("nothing is done", Known, &[], UNTOUCHED, Rolling),
        row("read", Known, &["read first"], UNTOUCHED, Rolling),
        row("written", Known, &["set a 1"], ["GET known; SET known"; 4], MaxAgeOrRolling),
        row("removed", Known, &["delete first"], ["GET known; SET known"; 4], MaxAgeOrRolling),
        row("counted", Known, &["count first"], ["GET known; SET known"; 4], MaxAgeOrRolling),
        row("the same value written", Known, &["set first 1"], UNTOUCHED, Rolling),
        row("written and taken back", Known, &["set a 1", "delete a"], UNTOUCHED, Rolling),
        row("nothing is done", Unknown, &[], NOT_FOUND, SaveUninitialized),
        row("written", Unknown, &["set a 1"], ["GET known; SET new"; 4], Always),
        row("nothing is done", BadSignature, &[], ONLY_SAVE_UNINITIALIZED, SaveUninitialized),
        row("written", BadSignature, &["set a 1"], ["SET new"; 4], Always),
        row(
            "written and saved",
            Known,
            &["set a 1", "save"],
            ["GET known; SET known; EXPIRE known"; 4],
            MaxAgeOrRolling,
        ),
        row("saved", Known, &["save"], ["GET known; SET known; EXPIRE known"; 4], Rolling),
        row("saved", WithoutCookie, &["save"], ["SET new"; 4], SaveUninitialized),
        row(
            "reloaded",
            Known,
            &["reload"],
            [
                "GET known; GET known; EXPIRE known",
                "GET known; GET known; SET known",
                "GET known; GET known; EXPIRE known",
                "GET known; GET known; SET known",
            ],
            Rolling,
        ),
        row("touched", Known, &["touch"], UNTOUCHED, Rolling),
        row("regenerated", Known, &["regenerate"], ["GET known; DEL known; SET new"; 4], Always),
        row("regenerated and written", Known, &["regenerate", "set a 1"], ["GET known; DEL known; SET new"; 4], Always),
        row("regenerated", WithoutCookie, &["regenerate"], ["DEL new2; SET new"; 4], Always),
        row(
            "regenerated and saved",
            Known,
            &["regenerate", "set a 1", "save"],
            ["GET known; DEL known; SET new; SET new"; 4],
            Always,
        ),
        row("destroyed", Known, &["destroy"], ["GET known; DEL known"; 4], Never),
        row("destroyed", WithoutCookie, &["destroy"], ["DEL new"; 4], Never),
        row("nothing is done", AfterDestroy, &[], NOT_FOUND, SaveUninitialized),
        with_unset("keep", row("deleted from the request", Known, &["unset"], ["GET known"; 4], Never)),
        with_unset("keep", row("set to null", Known, &["null"], ["GET known"; 4], Never)),
        with_unset("destroy", row("deleted from the request", Known, &["unset"], ["GET known; DEL known"; 4], Never)),
        with_unset("destroy", row("set to null", Known, &["null"], ["GET known; DEL known"; 4], Never)),
    ]
};

/// Creates the visitor. The commands needed for that are discarded.
async fn arrive(visitor: Visitor, app: &App, port: u16, redis: &mut Redis) -> Browser {
    let mut browser = Browser::new(port);
    if visitor == Visitor::WithoutCookie {
        return browser;
    }
    browser.visit(&["set first 1"]).await;
    let key = format!("{}{}", app.prefix(), browser.sid());
    redis.expire(&key, app.ttl() / 2).await;
    match visitor {
        Visitor::WithoutCookie | Visitor::Known => {}
        Visitor::Unknown => redis.del(&key).await,
        Visitor::AfterDestroy => {
            browser.clone().visit(&["destroy"]).await;
        }
        Visitor::BadSignature => {
            redis.del(&key).await;
            let cookie = browser.cookie.as_mut().expect("just set");
            let last = if cookie.pop() == Some('A') { 'B' } else { 'A' };
            cookie.push(last);
        }
    }
    redis.forget_commands().await;
    browser
}

/// The effect of a visit.
#[derive(Debug, Clone, PartialEq)]
struct Effect {
    status: u16,
    cookie: String,
    /// By the name of the id: the stored text, and its lifetime.
    stored: BTreeMap<String, String>,
    commands: Vec<String>,
    /// The headers for caches.
    caching: Vec<String>,
}

/// Runs one visit at `port` by a visitor created at `before`. Also returns what was stored before
/// the visit.
async fn effect(redis: &mut Redis, app: &App, row: &Row, before: u16, port: u16) -> (BTreeMap<String, String>, Effect) {
    redis.flush().await;
    let mut browser = arrive(row.visitor, app, before, redis).await.on(port);
    let mut ids = Ids::new(browser.cookie.as_ref().map(|_| browser.sid()));
    let stored_before = redis.stored(app.prefix(), &mut ids).await;
    redis.forget_commands().await;
    let visit = browser.visit(row.steps).await;
    // First, so that the id in the cookie is `new`, whatever other ids occurred in the visit.
    let cookie = visit.set_cookie(&mut ids);
    let commands = redis.commands(app.prefix(), &mut ids).await;
    let stored = redis.stored(app.prefix(), &mut ids).await;
    let caching = ["vary", "cache-control"].iter().flat_map(|name| visit.0.all(name)).map(str::to_owned).collect();
    (stored_before, Effect { status: visit.0.status, cookie, stored, commands, caching })
}

/// Returns the rows, each with its application, because `unset` is an option of the application.
fn cases() -> (Vec<App>, Vec<(usize, &'static Row)>) {
    let mut apps = Vec::new();
    let mut cases = Vec::new();
    for unset in [None, Some("keep"), Some("destroy")] {
        for app in combinations() {
            let rows = TABLE.iter().filter(|row| row.unset == unset);
            cases.extend(rows.map(|row| (apps.len(), row)));
            apps.push(App { unset, ..app });
        }
    }
    (apps, cases)
}

/// Express itself must behave as in the table, before the table can be required of another peer.
#[tokio::test]
async fn express_alone_does_what_the_table_says() {
    let mut redis = Redis::start().await;
    let (apps, cases) = cases();
    let site = Peer::Express.start(&redis.server, &apps).await;
    let mut wrong = String::new();
    for (index, row) in cases {
        let (app, port) = (&apps[index], site.port(index));
        let (_, seen) = effect(&mut redis, app, row, port, port).await;
        let expected = Effect {
            status: 200,
            cookie: row.expected_cookie(app),
            commands: row.expected_commands(app),
            ..seen.clone()
        };
        if seen != expected {
            writeln!(wrong, "{:?}, {}, {app:?}:\n  expected {expected:?}\n  seen     {seen:?}", row.visitor, row.name)
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// With `express-store` instead of the store of connect-redis, only the writing commands differ.
#[tokio::test]
async fn the_store_for_express_does_what_connect_redis_does() {
    let mut redis = Redis::start().await;
    let (apps, cases) = cases();
    let stock = Peer::Express.start(&redis.server, &apps).await;
    let with_store: Vec<App> = apps.iter().map(|app| App { store: Some("express-store"), ..app.clone() }).collect();
    let store = Peer::Express.start(&redis.server, &with_store).await;
    let mut wrong = String::new();
    for (index, row) in cases {
        let (app, stock, store) = (&apps[index], stock.port(index), store.port(index));
        let (_, expected) = effect(&mut redis, app, row, stock, stock).await;
        for before in [stock, store] {
            let (_, seen) = effect(&mut redis, app, row, before, store).await;
            let writes = |effect: &Effect| effect.commands.iter().filter(|command| !command.starts_with("GET")).count();
            assert_eq!(writes(&seen), writes(&expected), "{seen:?}");
            let seen = Effect { commands: expected.commands.clone(), ..seen };
            if seen != expected {
                writeln!(
                    wrong,
                    "{:?}, {}, {app:?}:\n  expected {expected:?}\n  seen     {seen:?}",
                    row.visitor, row.name
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A deliberate difference of ours. `cache-core/docs/sessions-express.md` has the same list.
struct Difference {
    why: &'static str,
    of: fn(&Row, &App) -> bool,
    /// As commands of Express.
    commands: &'static str,
    /// Redis is as before the visit. Otherwise it is as after Express.
    untouched: bool,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        why: "a session that the handler does not look at is not read, and does not live longer for that",
        of: |row, app| row.steps.is_empty() && !app.resave && !app.rolling && !app.save_uninitialized,
        commands: "",
        untouched: true,
    },
    Difference {
        why: "an empty new session is not stored by `save` without its cookie: no request could ever find it",
        of: |row, app| is(row, Visitor::WithoutCookie, "saved") && !app.save_uninitialized,
        commands: "",
        untouched: true,
    },
    Difference {
        why: "what was never stored in Redis is not deleted from it",
        of: |row, _| is(row, Visitor::WithoutCookie, "regenerated"),
        commands: "SET new",
        untouched: false,
    },
    Difference {
        why: "what was never stored in Redis is not deleted from it",
        of: |row, _| is(row, Visitor::WithoutCookie, "destroyed"),
        commands: "",
        untouched: false,
    },
    Difference {
        why: "the new session is stored before the old one is deleted: a fault between the two logs no user out",
        of: |row, _| {
            row.steps == ["regenerate"] && row.visitor == Visitor::Known
                || is(row, Visitor::Known, "regenerated and written")
        },
        commands: "GET known; SET new; DEL known",
        untouched: false,
    },
    Difference {
        why: "the new session is stored before the old one is deleted: a fault between the two logs no user out",
        of: |row, _| is(row, Visitor::Known, "regenerated and saved"),
        commands: "GET known; SET new; DEL known; SET new",
        untouched: false,
    },
    Difference {
        why: "what was just saved for its whole time is not touched again, unless the cookie is sent",
        of: |row, app| is(row, Visitor::Known, "written and saved") && !app.rolling && app.cookie.max_age.is_none(),
        commands: "GET known; SET known",
        untouched: false,
    },
    Difference {
        why: "`save` without a change writes nothing; the end of the request touches the session",
        of: |row, app| is(row, Visitor::Known, "saved") && !app.resave,
        commands: "GET known; EXPIRE known",
        untouched: false,
    },
    Difference {
        why: "`save` without a change writes nothing; the end of the request does, with resave",
        of: |row, app| is(row, Visitor::Known, "saved") && app.resave,
        commands: "GET known; SET known",
        untouched: false,
    },
];

fn is(row: &Row, visitor: Visitor, name: &str) -> bool {
    row.visitor == visitor && row.name == name
}

/// Translates commands of Express to ours. Two commands sent together are one round trip.
fn in_our_words(commands: &[String]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for command in commands {
        let parts: Vec<&str> = command.split(' ').collect();
        words.extend(match parts[..] {
            ["GET", id] => vec![format!("GET {id}"), format!("PTTL {id}")],
            ["EXPIRE", id, seconds] => vec![format!("PEXPIRE {id} {seconds}000")],
            ["DEL", id] => vec![format!("UNLINK {id}")],
            ["SET", id, "EX", seconds] => {
                let create = format!("SET {id} NX PX {seconds}000");
                // A script compares the stored value. Its hash replaces its name.
                vec![if id == "known" || words.contains(&create) {
                    format!("EVALSHA 1 {id} {seconds}000")
                } else {
                    create
                }]
            }
            _ => panic!("{command}"),
        });
    }
    words
}

/// Returns `EVALSHA <hash> ..` without the hash.
fn without_hash(command: &str) -> String {
    match command.split_once(' ') {
        Some(("EVALSHA", rest)) => format!("EVALSHA {}", rest.split_once(' ').map_or("", |(_, rest)| rest)),
        _ => command.to_owned(),
    }
}

/// Returns the required effect of ours where the effect of Express is `express`.
fn expected_of_ours(row: &Row, app: &App, before: BTreeMap<String, String>, express: &Effect) -> Effect {
    let difference = DIFFERENCES.iter().find(|difference| (difference.of)(row, app));
    let commands = difference.map_or_else(|| express.commands.clone(), |it| with_ttl(it.commands, app));
    let stored = if difference.is_some_and(|it| it.untouched) { before } else { express.stored.clone() };
    let caching = caching_of_ours(row, app, express);
    Effect { commands: in_our_words(&commands), stored, caching, ..express.clone() }
}

/// N1: returns the headers for caches that ours adds to those of Express. Express sends none.
fn caching_of_ours(row: &Row, app: &App, express: &Effect) -> Vec<String> {
    assert!(express.caching.is_empty());
    let is_looked_at = !row.steps.is_empty() || app.resave || app.rolling || app.save_uninitialized;
    let headers: &[&str] = match express.cookie.as_str() {
        "none" if !is_looked_at => &[],
        "none" => &["Cookie", "private"],
        _ => &["Cookie", "no-store"],
    };
    headers.iter().map(|header| (*header).to_owned()).collect()
}

/// Visits to ours, and visits to Express with sessions written by ours, in all combinations of
/// options.
#[tokio::test]
async fn ours_does_what_express_does_but_for_the_listed_differences() {
    let mut redis = Redis::start().await;
    let (apps, cases) = cases();
    let express = Peer::Express.start(&redis.server, &apps).await;
    let ours = Peer::Ours.start(&redis.server, &apps).await;
    // A script is sent as text the first time.
    for index in 0..apps.len() {
        let mut browser = Browser::new(ours.port(index));
        browser.visit(&["set a 1"]).await;
        browser.visit(&["set a 2"]).await;
    }
    let mut wrong = String::new();
    let mut seen_differences = BTreeSet::new();
    for (index, row) in cases {
        let (app, express, ours) = (&apps[index], express.port(index), ours.port(index));
        let (before, of_express) = effect(&mut redis, app, row, express, express).await;
        let of_ours = expected_of_ours(row, app, before, &of_express);
        let difference = DIFFERENCES.iter().position(|difference| (difference.of)(row, app));
        if of_ours != (Effect { commands: in_our_words(&of_express.commands), ..of_express.clone() }) {
            seen_differences.extend(difference);
        }
        for (how, before, port, expected) in [
            ("ours on a session of Express", express, ours, &of_ours),
            ("ours on a session of ours", ours, ours, &of_ours),
            ("Express on a session of ours", ours, express, &of_express),
        ] {
            let (_, mut seen) = effect(&mut redis, app, row, before, port).await;
            seen.commands = seen.commands.iter().map(|command| without_hash(command)).collect();
            if seen != *expected {
                let what = format!("{how}: {:?}, {}, {app:?}", row.visitor, row.name);
                writeln!(wrong, "{what}:\n  expected {expected:?}\n  seen     {seen:?}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let not_seen = (0..DIFFERENCES.len()).filter(|index| !seen_differences.contains(index));
    let not_seen: Vec<&str> = not_seen.map(|index| DIFFERENCES[index].why).collect();
    assert!(not_seen.is_empty(), "no differences: {not_seen:?}");
}

/// The other differences, each with the test that shows both sides of it.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "a session that was just saved or touched is not touched again, unless the cookie is sent",
        "a_session_that_was_just_saved_is_not_touched_by_ours",
    ),
    (
        "a value under the key that is not a session counts as none and stays as it is",
        "foreign_values_are_taken_as_listed",
    ),
    ("values that were not changed go back byte for byte", "ours_gives_back_byte_for_byte_what_it_has_not_touched"),
    ("names that Express takes away are refused", "names_that_express_drops_are_refused_by_ours"),
    (
        "an id that is signed but longer than 256 bytes, or with white space in it, is none",
        "ids_that_are_signed_but_unfit_are_no_session_to_ours",
    ),
    ("an age that is set alone stays with the session", "an_age_that_changes_alone_stays_with_a_session_of_ours_only"),
    (
        "a session whose cookie cannot be sent is not stored",
        "a_session_whose_cookie_cannot_be_sent_is_not_stored_by_ours",
    ),
    ("the path of the cookie is compared by segments", "a_path_is_compared_by_segments_by_ours"),
    (
        "the answer leaves when the session is stored; if it cannot be, it is a 503 without a cookie",
        "an_answer_whose_session_cannot_be_stored_is_an_error_of_ours",
    ),
    (
        "a handler that answers with a status from 500 on changes nothing",
        "a_handler_that_fails_changes_nothing_of_ours",
    ),
    ("no write is lost and no session comes back", "ours_loses_nothing_beside_itself_and_the_store_for_express"),
    ("increments count each request", "ours_counts_every_request_over_several_instances"),
];

#[test]
fn every_difference_is_documented_and_tested() {
    let page = std::fs::read_to_string(root().join("cache-core/docs/sessions-express.md")).unwrap();
    let listed = DIFFERENCES.iter().map(|difference| difference.why).chain(ELSEWHERE.iter().map(|(why, _)| *why));
    let missing: Vec<&str> = listed.filter(|why| !page.contains(why)).collect();
    assert!(missing.is_empty(), "not in sessions-express.md: {missing:#?}");
    let files = ["cookies", "lifetimes", "races", "schemes", "stored"];
    let tests =
        files.map(|file| std::fs::read_to_string(root().join(format!("tests/interop/{file}.rs"))).unwrap()).concat();
    for (_, test) in ELSEWHERE {
        assert!(tests.contains(&format!("async fn {test}(")), "no test {test}");
    }
}
