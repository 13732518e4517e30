//! What a visit does to Redis and to the browser, for every kind of visit and all combinations of options.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::browser::{App, Browser, Ids, Redis, combinations};
use super::peer::Peer;

/// Who visits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Visitor {
    WithoutCookie,
    /// With a session in which `first` is 1, halfway to its end.
    Known,
    /// With a good signature, and no session.
    Unknown,
    /// With the cookie of a session that was destroyed.
    AfterDestroy,
    BadSignature,
}

/// When the answer has a `Set-Cookie`.
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
    /// On Redis, with the visitor's session as `known`. By saveUninitialized and resave: neither, resave, saveUninitialized, both.
    commands: [&'static str; 4],
    cookie: When,
}

impl Row {
    fn expected_commands(&self, app: &App) -> Vec<String> {
        let commands = self.commands[usize::from(app.resave) + 2 * usize::from(app.save_uninitialized)];
        let ttl = app.ttl();
        let with_ttl = |command: &str| match command.split(' ').next() {
            Some("SET") => format!("{command} EX {ttl}"),
            Some("EXPIRE") => format!("{command} {ttl}"),
            _ => command.to_owned(),
        };
        commands.split("; ").filter(|command| !command.is_empty()).map(with_ttl).collect()
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

    /// The last one that the visit has come to.
    fn id_of_the_cookie(&self) -> &'static str {
        match self.commands[0].rsplit("; ").next().and_then(|command| command.split(' ').nth(1)) {
            Some(id) if matches!(self.cookie, When::Always | When::Rolling | When::MaxAgeOrRolling) => id,
            _ => "new",
        }
    }
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

/// As `row`, with the option `unset`.
const fn with_unset(unset: &'static str, row: Row) -> Row {
    Row { unset: Some(unset), ..row }
}

const UNTOUCHED: [&str; 4] = [
    "GET known; EXPIRE known",
    "GET known; SET known",
    "GET known; EXPIRE known",
    "GET known; SET known",
];
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
        row("written and saved", Known, &["set a 1", "save"], ["GET known; SET known; EXPIRE known"; 4], MaxAgeOrRolling),
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

/// Brings the visitor into being. Nothing of it is left to be seen in the commands.
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

/// What a visit leaves behind.
#[derive(Debug, Clone, PartialEq)]
struct Effect {
    status: u16,
    cookie: String,
    /// By the name of the id: what is stored, and for how long.
    stored: BTreeMap<String, String>,
    commands: Vec<String>,
}

/// One visit at `port` by a visitor who has arrived at `before`.
async fn effect(redis: &mut Redis, app: &App, row: &Row, before: u16, port: u16) -> Effect {
    redis.flush().await;
    let mut browser = arrive(row.visitor, app, before, redis).await.on(port);
    let mut ids = Ids::new(browser.cookie.as_ref().map(|_| browser.sid()));
    redis.forget_commands().await;
    let visit = browser.visit(row.steps).await;
    // First: the id in the cookie is `new`, whatever others the visit has come by.
    let cookie = visit.set_cookie(&mut ids);
    let commands = redis.commands(app.prefix(), &mut ids).await;
    Effect { status: visit.0.status, cookie, stored: redis.stored(app.prefix(), &mut ids).await, commands }
}

/// The rows with the applications that they are asked of: `unset` is an option of the application.
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

/// The table is true of Express itself: only so it can tell what another must do.
#[tokio::test]
async fn express_alone_does_what_the_table_says() {
    let mut redis = Redis::start().await;
    let (apps, cases) = cases();
    let site = Peer::Express.start(&redis.server, &apps).await;
    let mut wrong = String::new();
    for (index, row) in cases {
        let (app, port) = (&apps[index], site.port(index));
        let seen = effect(&mut redis, app, row, port, port).await;
        let expected = Effect {
            status: 200,
            cookie: row.expected_cookie(app),
            commands: row.expected_commands(app),
            ..seen.clone()
        };
        if seen != expected {
            writeln!(wrong, "{:?}, {}, {app:?}:\n  expected {expected:?}\n  seen     {seen:?}", row.visitor, row.name).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn ours_does_what_express_does() {
    let mut redis = Redis::start().await;
    let (apps, cases) = cases();
    let express = Peer::Express.start(&redis.server, &apps).await;
    let ours = Peer::Ours.start(&redis.server, &apps).await;
    let mut wrong = String::new();
    for (index, row) in cases {
        let (app, express, ours) = (&apps[index], express.port(index), ours.port(index));
        let expected = effect(&mut redis, app, row, express, express).await;
        for (how, before, port) in [("E-O", express, ours), ("O-O", ours, ours), ("O-E", ours, express)] {
            let seen = effect(&mut redis, app, row, before, port).await;
            println!("CMD {how} {:?} {} rs{} su{}: {:?} <- {:?}", row.visitor, row.name, u8::from(app.resave), u8::from(app.save_uninitialized), seen.commands, expected.commands);
            if (&seen.status, &seen.cookie, &seen.stored) != (&expected.status, &expected.cookie, &expected.stored) {
                writeln!(wrong, "{how} {:?}, {}, rs{} su{} ro{} ma{:?}:\n  expected {expected:?}\n  seen     {seen:?}", row.visitor, row.name, app.resave, app.save_uninitialized, app.rolling, app.cookie.max_age).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
