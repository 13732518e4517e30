//! Accounts and sessions: one server for all tests, and separate readers for each test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/reader.rs"]
mod reader;
#[path = "support/server.rs"]
mod server;

use std::sync::LazyLock;
use std::thread::scope;

use blog::config::Database;
use blog::{App, Config};
use browser::{Browser, Page};
use reader::Reader;

const PASSWORD: &str = "correct horse";

static BLOG: LazyLock<Browser> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("blog.db").display());
    Browser(server::serve(|| async move {
        let app = App::open(&Config::new(Database::parse(&url).unwrap())).await.unwrap();
        // Kept as long as the process runs.
        std::mem::forget(folder);
        app
    }))
});

/// Makes a new account that is logged in.
fn registered(login: &str) -> Reader {
    let reader = Reader::new(*BLOG);
    let page = reader.register("Somebody New", login, PASSWORD);
    assert_eq!((page.status, page.location()), (303, Some("/")), "{}", page.body);
    assert!(reader.get("/").body.contains("Welcome. You can write now."));
    reader
}

fn publish(reader: &Reader, title: &str) -> String {
    let page = reader.post("/posts", &[("title", title), ("body", "x")]);
    assert_eq!(page.status, 303, "{}", page.body);
    page.location().unwrap().to_owned()
}

/// Returns the number of devices on a page, and the handles of the others.
fn devices(page: &Page) -> (usize, Vec<String>) {
    let handles = page.body.split("name=\"handle\" value=\"").skip(1);
    let handles = handles.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    (page.body.matches("<strong class=\"device\">").count(), handles)
}

fn bearer(method: &str, path: &str, token: &str, body: &str) -> Page {
    let authorization = format!("Bearer {token}");
    BLOG.request_with(method, path, &[("authorization", &authorization)], Some("application/json"), body)
}

/// Logs in through the JSON API and returns the token.
fn token_of(login: &str) -> String {
    let body = format!("{{\"login\":\"{login}\",\"password\":\"{PASSWORD}\"}}");
    let page = BLOG.request("POST", "/api/login", Some("application/json"), &body);
    assert!(page.status == 200 && page.all("set-cookie").is_empty(), "{}", page.body);
    page.all("session-token").first().unwrap().to_string()
}

#[test]
fn a_registered_user_can_write_log_out_and_log_in_again() {
    let reader = registered("ada");
    let address = publish(&reader, "Written by a new author");
    assert!(BLOG.get(&address).body.contains("Somebody New") && BLOG.get("/authors").body.contains("Somebody New"));
    let before = reader.cookies();
    assert_eq!(reader.post("/logout", &[]).status, 303);
    assert!(reader.get("/").body.contains("You are logged out.") && !reader.is_logged_in());
    let old = BLOG.request_with("GET", "/devices", &[("cookie", &before)], None, "");
    assert_eq!((old.status, old.location()), (303, Some("/login?next=%2Fdevices")), "the id from before the logout");
    assert!(reader.log_in(" ADA ", PASSWORD).body.contains("Welcome back."));
    assert!(reader.is_logged_in());
}

#[test]
fn a_required_login_leads_to_the_requested_page() {
    let own = format!("{}/edit", publish(&registered("bea"), "Before the login"));
    let login = |way: &str, next: &str| {
        let reader = Reader::new(*BLOG);
        let form = reader.get(way).body;
        let wrong = reader.post("/login", &[("login", "bea"), ("password", "wrong"), ("next", next)]).body;
        let page = reader.post("/login", &[("login", "bea"), ("password", PASSWORD), ("next", next)]);
        (form + &wrong, page.location().unwrap().to_owned())
    };
    for asked in ["/posts/new", &own] {
        let way = BLOG.get(asked).location().unwrap().to_owned();
        let (forms, arrived) = login(&way, asked);
        assert_eq!(forms.matches(&format!("name=\"next\" value=\"{asked}\"")).count(), 2, "{forms}");
        assert_eq!(arrived, asked);
    }
    for elsewhere in ["//evil.test/", "https://evil.test/", "/\\evil.test/"] {
        let (forms, arrived) = login(&format!("/login?next={elsewhere}"), elsewhere);
        assert!(!forms.contains("evil.test") && arrived == "/", "{forms}");
    }
    let sent = Reader::new(*BLOG).post("/posts", &[("title", "Lost"), ("body", "x")]);
    assert_eq!(sent.location(), Some("/login"), "what was sent is not there any more");
}

#[test]
fn a_login_changes_the_id_of_the_session() {
    let reader = registered("bob");
    // Logging out leaves a message for the next page, so there is a session without a user.
    assert_eq!(reader.post("/logout", &[]).status, 303);
    let before = reader.cookies();
    assert!(before.starts_with("__Host-id="), "{before}");
    reader.log_in("bob", PASSWORD);
    assert_ne!(reader.cookies(), before);
    assert_eq!(BLOG.request_with("GET", "/devices", &[("cookie", &before)], None, "").status, 303);
}

#[test]
fn a_wrong_password_and_an_unknown_login_get_the_same_answer() {
    registered("carol");
    let answers = [("carol", "wrong horse"), ("nobody", PASSWORD), ("carol", "")].map(|(login, password)| {
        let reader = Reader::new(*BLOG);
        reader.get("/login");
        let page = reader.post("/login", &[("login", login), ("password", password)]);
        assert!(page.status == 422 && page.body.contains("Login or password is wrong."), "{}", page.body);
        assert!(!reader.is_logged_in() && !page.body.contains(PASSWORD));
        let form = page.body.split("<div class=\"field\"").skip(1).collect::<String>();
        form.split("<footer").next().unwrap().replace(login, "..")
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn a_login_belongs_to_one_author() {
    registered("dora");
    let late = Reader::new(*BLOG).register("Somebody Else", "Dora", PASSWORD);
    assert!(late.status == 422 && late.body.contains("This login is already taken."));
    assert!(!BLOG.get("/authors").body.contains("Somebody Else"));
    let bad = Reader::new(*BLOG).register("x", "a b", "short");
    for field in ["name", "login", "password"] {
        assert!(bad.status == 422 && bad.body.contains(&format!("id=\"{field}-mistake\"")), "{field}");
    }
}

#[test]
fn a_form_without_its_token_writes_nothing() {
    let reader = registered("emma");
    let own = publish(&reader, "As it was");
    let edit = format!("{own}/edit");
    let (comments, delete) = (format!("{own}/comments"), format!("{own}/delete"));
    let fields = [("title", "Forged"), ("body", "Forged"), ("handle", "x"), ("login", "emma"), ("password", PASSWORD)];
    let wrong = [&fields[..], &[("csrf", "forged"), ("name", "Forged")]].concat();
    let other = registered("emma-2");
    for path in
        [&*edit, &comments, &delete, "/posts", "/devices", "/logout", "/logout/everywhere", "/login", "/register"]
    {
        assert_eq!(reader.post_without_token(path, &fields).status, 403, "{path} without a token");
        assert_eq!(reader.post_without_token(path, &wrong).status, 403, "{path} with a wrong one");
    }
    assert!(reader.is_logged_in());
    let page = BLOG.get(&own).body;
    assert!(page.contains("As it was") && !page.contains("Forged") && !BLOG.get("/").body.contains("Forged"));
    // The token of another reader is not accepted, and neither is a post of a visitor without a
    // login.
    let foreign =
        other.get("/").body.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(reader.post_without_token("/logout", &[("csrf", &foreign)]).status, 403);
    let stranger = BLOG.post("/posts", &fields);
    assert_eq!((stranger.status, stranger.location()), (303, Some("/login")));
    assert_eq!(BLOG.post("/login", &fields).status, 403, "a login form sent from another site");
}

#[test]
fn only_the_author_of_a_post_can_change_it() {
    let address = publish(&registered("finn"), "By Finn");
    let other = registered("gina");
    for path in [format!("{address}/edit"), format!("{address}/delete")] {
        assert_eq!(other.get(&path).status, 403);
        assert_eq!(other.post(&path, &[("title", "Taken over"), ("body", "x")]).status, 403);
    }
    assert!(BLOG.get(&address).body.contains("By Finn") && !other.get(&address).body.contains(">Edit<"));
}

#[test]
fn a_message_is_shown_exactly_once() {
    let reader = registered("hal");
    let address = publish(&reader, "With a message");
    let pages: Vec<Page> = scope(|scope| {
        let pages: Vec<_> = (0..8).map(|_| scope.spawn(|| reader.get(&address))).collect();
        pages.into_iter().map(|page| page.join().unwrap()).collect()
    });
    let shown = pages.iter().filter(|page| page.body.contains("Your post is published.")).count();
    assert_eq!(shown, 1, "of eight pages at the same time");
    assert!(!reader.get("/").body.contains("Your post is published."));
}

#[test]
fn devices_are_listed_and_one_can_be_ended() {
    let here = registered("ida");
    let there = Reader::logged_in(*BLOG, "ida", PASSWORD);
    let token = token_of("ida");
    let (count, others) = devices(&here.get("/devices"));
    assert_eq!((count, others.len()), (3, 2), "two browsers and a program");
    let seen_there = devices(&there.get("/devices")).1;
    // The session that `there` does not offer to end is its own.
    let handle = others.iter().find(|handle| !seen_there.contains(handle)).unwrap();
    assert_eq!(here.post("/devices", &[("handle", handle)]).status, 303);
    let page = here.get("/devices");
    assert!(page.body.contains("That device is logged out.") && devices(&page).0 == 2);
    assert!(!there.is_logged_in() && here.is_logged_in());
    assert_eq!(bearer("GET", "/api/me", &token, "").status, 200);
    // A handle cannot end the sessions of another user.
    let other = registered("ida-2");
    assert_eq!(other.post("/devices", &[("handle", &devices(&page).1[0])]).status, 303);
    assert_eq!(bearer("GET", "/api/me", &token, "").status, 200);
}

#[test]
fn a_device_is_called_what_its_browser_says() {
    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let here = Reader::new(*BLOG).with("user-agent", FIREFOX);
    assert_eq!(here.register("Somebody New", "sue", PASSWORD).status, 303);
    let body = format!("{{\"login\":\"sue\",\"password\":\"{PASSWORD}\"}}");
    let agent = [("user-agent", "curl/8.5.0")];
    assert_eq!(BLOG.request_with("POST", "/api/login", &agent, Some("application/json"), &body).status, 200);
    Reader::logged_in(*BLOG, "sue", PASSWORD);
    let page = here.get("/devices").body;
    let mut names: Vec<_> =
        page.split("<strong class=\"device\">").skip(1).map(|rest| rest.split("</li>").next().unwrap()).collect();
    names.sort_unstable();
    let [nameless, firefox, curl] = names[..] else { panic!("three devices: {page}") };
    assert!(nameless.starts_with("A device<") && nameless.contains("Last seen ") && !nameless.contains("this device"));
    assert!(firefox.starts_with("Firefox on Linux<") && firefox.contains("this device") && !firefox.contains("handle"));
    assert!(curl.starts_with("curl<") && !curl.contains("this device") && curl.contains("name=\"handle\""));
}

#[test]
fn logging_out_everywhere_ends_all_clients_at_once() {
    let here = registered("jan");
    let there = Reader::logged_in(*BLOG, "jan", PASSWORD);
    let token = token_of("jan");
    let other = registered("jan-2");
    assert_eq!(here.post("/logout/everywhere", &[]).status, 303);
    assert!(here.get("/").body.contains("You are logged out on every device."));
    assert!(!here.is_logged_in() && !there.is_logged_in());
    assert_eq!(bearer("GET", "/api/me", &token, "").status, 401);
    assert!(other.is_logged_in());
}

#[test]
fn concurrent_views_are_counted_exactly() {
    let reader = registered("kim");
    scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(reader.get("/posts/1").status, 200);
                }
            });
        }
    });
    assert!(reader.get("/devices").body.contains("opened 40 posts since"));
}

#[test]
fn a_remembered_login_has_a_cookie_that_lasts() {
    registered("lea");
    for (remember, lasts) in [(None, false), (Some(("remember", "yes")), true)] {
        let reader = Reader::new(*BLOG);
        reader.get("/login");
        let fields: Vec<_> = [("login", "lea"), ("password", PASSWORD)].into_iter().chain(remember).collect();
        let page = reader.post("/login", &fields);
        let all = page.all("set-cookie");
        let cookie = all.iter().find(|cookie| cookie.starts_with("__Host-id=")).unwrap();
        assert_eq!(cookie.contains("Max-Age") || cookie.contains("Expires"), lasts, "{cookie}");
        for attribute in ["__Host-id=", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
}

#[test]
fn public_pages_start_no_session() {
    for path in ["/", "/posts/1", "/authors", "/authors/1", "/search?q=bread", "/feed.xml", "/cache", "/style.css"] {
        let page = BLOG.get(path);
        assert!(page.status == 200 && page.all("set-cookie").is_empty(), "{path}");
    }
    // The form's token is in its own cookie, and nothing is stored for it.
    for path in ["/login", "/register"] {
        for method in ["GET", "HEAD"] {
            let page = BLOG.request(method, path, None, "");
            let cookies = page.all("set-cookie");
            assert!(page.status == 200 && cookies.len() == 1, "{method} {path}: {cookies:?}");
            assert!(cookies[0].starts_with("__Host-id-form="), "{method} {path}: {cookies:?}");
        }
    }
}

#[test]
fn passwords_cannot_be_tried_without_end() {
    let reader = registered("nora");
    let guess = |password: &str| {
        let thief = Reader::new(*BLOG);
        thief.get("/login");
        thief.post("/login", &[("login", "Nora"), ("password", password)]).status
    };
    let statuses: Vec<u16> = (0..10).map(|attempt| guess(&format!("guess {attempt}"))).collect();
    assert!(statuses.iter().all(|status| *status == 422), "{statuses:?}");
    assert_eq!((guess(PASSWORD), guess("another")), (429, 429), "not even with the right one");
    let body = format!("{{\"login\":\"nora\",\"password\":\"{PASSWORD}\"}}");
    assert_eq!(BLOG.request("POST", "/api/login", Some("application/json"), &body).status, 429);
    // Logged-in readers stay logged in, and others can log in.
    assert!(reader.is_logged_in() && registered("nora-2").is_logged_in());
}

#[test]
fn programs_use_tokens_and_no_cookies() {
    let reader = registered("mia");
    let token = token_of("mia");
    let me = bearer("GET", "/api/me", &token, "");
    assert!(me.status == 200 && me.body.contains("\"name\":\"Somebody New\""), "{}", me.body);
    let created = bearer("POST", "/api/posts", &token, "{\"title\":\"By a program\",\"body\":\"x\"}");
    assert!(created.status == 201 && created.all("set-cookie").is_empty(), "{}", created.body);
    assert!(BLOG.get("/api/posts").body.contains("\"title\":\"By a program\""));

    // A token does not work as a cookie, and a cookie does not work as a token.
    for value in [token.clone(), format!("s:{token}")] {
        let cookie =
            format!("__Host-id={}", url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>());
        assert_eq!(BLOG.request_with("GET", "/devices", &[("cookie", &cookie)], None, "").status, 303);
        assert_eq!(BLOG.request_with("GET", "/api/me", &[("cookie", &cookie)], None, "").status, 401);
    }
    let cookies = reader.cookies();
    assert!(reader.is_logged_in());
    assert_eq!(BLOG.request_with("GET", "/api/me", &[("cookie", &cookies)], None, "").status, 401);
    let (_, value) = cookies.split_once('=').unwrap();
    let value: String =
        url::form_urlencoded::parse(format!("v={value}").as_bytes()).map(|(_, value)| value.into_owned()).collect();
    assert_eq!(bearer("GET", "/api/me", value.trim_start_matches("s:"), "").status, 401);

    for (body, status) in [("{", 400), ("{\"login\":\"mia\",\"password\":\"wrong\"}", 401), ("{\"login\":1}", 422)] {
        let page = BLOG.request("POST", "/api/login", Some("application/json"), body);
        assert!(page.status == status && page.body.starts_with("{\"error\":"), "{body}: {} {}", page.status, page.body);
    }
    assert_eq!(bearer("POST", "/api/posts", &token, "{\"title\":\"\",\"body\":\"x\"}").status, 422);
    assert_eq!(bearer("POST", "/api/posts", "nonsense", "{\"title\":\"Stolen\",\"body\":\"x\"}").status, 401);
    assert_eq!(bearer("POST", "/api/logout", &token, "").status, 204);
    assert_eq!(bearer("GET", "/api/me", &token, "").status, 401);
}
