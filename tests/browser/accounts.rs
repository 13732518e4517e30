//! Login and logout, as seen by the browser that keeps the cookie.

use super::{Desk, PASSWORD, Tab};

const MONTH_SECONDS: f64 = 30.0 * 86_400.0;

fn register(desk: &Desk) {
    desk.goto("/");
    desk.tab.link("Log in");
    desk.tab.link("New here? Register");
    desk.tab.fill("Your name, as readers see it", "Ada Newcomer");
    desk.tab.fill("Login", "ada");
    desk.tab.fill("Password, at least 8 characters", PASSWORD);
    desk.tab.button("Register");
    assert!(desk.tab.shows("Welcome. You can write now."), "{}", desk.tab.text());
}

fn is_logged_in(tab: &Tab) -> bool {
    tab.has("button", "Log out")
}

#[test]
fn registration_sets_a_cookie_that_scripts_and_other_sites_cannot_read() {
    let desk = Desk::new();
    register(&desk);
    let cookies = desk.tab.cookies();
    let [cookie] = &cookies[..] else { panic!("{} cookies", cookies.len()) };
    assert_eq!(
        ["name", "domain", "path", "sameSite"].map(|of| cookie.text(of)),
        ["__Host-id", "localhost", "/", "Lax"]
    );
    assert!(cookie.is("secure") && cookie.is("httpOnly"));
    assert!(cookie.is("session"), "it goes when the browser is closed");
    assert_eq!(desk.tab.string("document.cookie"), "", "what a script can read");
    assert!(is_logged_in(&desk.tab));
}

#[test]
fn a_login_that_is_to_be_remembered_outlives_the_browser_by_30_days() {
    let desk = Desk::new();
    desk.goto("/login");
    desk.tab.fill("Login", "demo");
    desk.tab.fill("Password", "demo");
    desk.tab.tick("Remember me for 30 days");
    desk.tab.button("Log in");
    assert!(is_logged_in(&desk.tab));
    let cookies = desk.tab.cookies();
    let now = desk.tab.evaluate("Date.now() / 1000").as_f64().unwrap();
    let left = cookies[0].expires() - now;
    assert!(cookies.len() == 1 && !cookies[0].is("session"));
    assert!((MONTH_SECONDS - 120.0..=MONTH_SECONDS + 1.0).contains(&left), "{left} s");
}

#[test]
fn a_required_login_leads_to_the_requested_page() {
    let desk = Desk::new();
    let Desk { tab, .. } = &desk;
    desk.goto("/");
    tab.link("Write");
    tab.fill("Login", "demo");
    tab.fill("Password", "wrong");
    tab.button("Log in");
    assert!(tab.shows("Login or password is wrong."), "{}", tab.text());
    tab.fill("Password", "demo");
    tab.button("Log in");
    assert!(tab.path() == "/posts/new" && tab.has("button", "Publish"), "{}", tab.text());
    // Also with a new account.
    let other = desk.chromium.profile();
    other.goto(&desk.blogs.at("/posts/1"));
    other.link("Log in to write a comment");
    other.link("New here? Register");
    other.fill("Your name, as readers see it", "Ada Newcomer");
    other.fill("Login", "ada");
    other.fill("Password, at least 8 characters", PASSWORD);
    other.button("Register");
    other.fill("Comment", "As the first thing.");
    other.button("Post comment");
    assert!(other.path() == "/posts/1" && other.shows("As the first thing."), "{}", other.text());
}

#[test]
fn logging_out_everywhere_ends_another_browser_at_its_next_page() {
    let desk = Desk::new();
    let Desk { tab, chromium, .. } = &desk;
    let other = chromium.profile();
    desk.log_in(tab);
    desk.log_in(&other);
    other.link("Write");
    desk.goto("/devices");
    let devices = "document.querySelectorAll('.devices li').length";
    assert_eq!(tab.evaluate(devices), 2, "{}", tab.text());
    assert_eq!(tab.text().matches("this device").count(), 1, "{}", tab.text());
    tab.button("Log out everywhere");
    assert!(tab.shows("You are logged out on every device.") && !is_logged_in(tab));
    other.link("Write");
    assert_eq!(other.path(), "/login");
    assert!(!is_logged_in(&other));
}

#[test]
fn after_a_logout_going_back_shows_nothing_private() {
    let desk = Desk::new();
    let Desk { tab, .. } = &desk;
    desk.log_in(tab);
    desk.goto("/posts/1");
    tab.link("Ines Caldeira: your devices");
    assert!(tab.shows("Chrome on Linux this device"));
    tab.button("Log out");
    assert!(tab.shows("You are logged out.") && !is_logged_in(tab));
    assert_eq!(tab.cookies().iter().filter(|cookie| !cookie.is("session")).count(), 0);
    tab.back();
    assert!(tab.path() == "/login" && tab.was_asked_for(), "{}: {}", tab.url(), tab.text());
    tab.back();
    assert!(tab.path() == "/posts/1" && !is_logged_in(tab) && !tab.shows("Post comment"), "{}", tab.text());
}

#[test]
fn posts_read_since_the_login_are_counted() {
    let desk = Desk::new();
    desk.goto("/posts/1");
    desk.log_in(&desk.tab);
    for path in ["/posts/1", "/posts/2", "/posts/1", "/authors/1", "/posts/3"] {
        desk.goto(path);
    }
    desk.tab.reload();
    desk.goto("/devices");
    assert!(desk.tab.shows("opened 5 posts since you logged in"), "{}", desk.tab.text());
}

#[test]
fn a_message_is_shown_once_and_not_after_a_reload() {
    let desk = Desk::new();
    desk.log_in(&desk.tab);
    desk.tab.reload();
    assert!(!desk.tab.shows("Welcome back."));
    desk.publish("With a message", "x");
    assert!(desk.tab.shows("Your post is published."));
    desk.tab.reload();
    assert!(desk.tab.shows("With a message") && !desk.tab.shows("Your post is published."));
    desk.tab.link("Field Notes");
    assert!(!desk.tab.shows("Your post is published."));
}

#[test]
fn a_form_of_another_login_is_refused_with_a_page_that_says_so() {
    let desk = Desk::new();
    let Desk { tab, .. } = &desk;
    desk.log_in(tab);
    desk.goto("/posts/new");
    tab.fill("Title", "From before");
    tab.fill("Text", "Typed before another login.");
    let second = tab.another();
    second.goto(&desk.blogs.at("/"));
    second.button("Log out");
    desk.log_in(&second);
    tab.button("Publish");
    assert_eq!(tab.status(), 403);
    assert!(
        tab.shows("Nothing was saved") && tab.shows("Go back to the form") && tab.has("link", "To the front page"),
        "{}",
        tab.text()
    );
    second.goto(&desk.blogs.at("/"));
    assert!(!second.shows("From before"));
    tab.back();
    let typed = "document.querySelector('#body').value";
    assert_eq!(tab.string(typed), "Typed before another login.", "it is still there");
    tab.button("Publish");
    assert!(tab.shows("Your post is published.") && tab.shows("Typed before another login."), "{}", tab.text());

    second.goto(&desk.blogs.at("/posts/new"));
    second.fill("Title", "Without a token");
    second.fill("Text", "x");
    second.evaluate("document.querySelectorAll('[name=csrf]').forEach(field => field.remove())");
    second.button("Publish");
    assert_eq!(second.status(), 403);
    second.goto(&desk.blogs.at("/"));
    assert!(!second.shows("Without a token"));
}

#[test]
fn a_browser_that_keeps_no_cookie_is_told_what_to_do() {
    let desk = Desk::new();
    let Desk { tab, blogs, .. } = &desk;
    // Neither HTTPS nor `localhost`.
    tab.goto(&blogs.under("blog.test", 0, "/login"));
    tab.fill("Login", "demo");
    tab.fill("Password", "demo");
    tab.button("Log in");
    assert_eq!((tab.status(), tab.cookies().len()), (403, 0));
    assert!(tab.shows("cookie") && tab.shows("http://localhost"), "{}", tab.text());
    // The address that the blog prints when it starts.
    tab.goto(&blogs.under("127.0.0.1", 0, "/login"));
    tab.fill("Login", "demo");
    tab.fill("Password", "demo");
    tab.button("Log in");
    assert!(is_logged_in(tab), "{}", tab.text());
}

#[test]
fn while_redis_is_away_pages_are_read_and_forms_say_why_they_are_not_there() {
    let desk = Desk::new();
    let Desk { tab, blogs, .. } = &desk;
    desk.log_in(tab);
    blogs.redis.kill();
    for path in ["/", "/posts/1", "/authors"] {
        assert_eq!(desk.goto(path), 200, "{path}");
        assert!(!is_logged_in(tab));
    }
    for path in ["/login", "/devices", "/posts/new"] {
        assert_eq!(desk.goto(path), 503, "{path}");
        assert!(tab.shows("Logging in and writing are not possible at the moment"), "{}", tab.text());
    }
    assert_eq!(tab.cookies().len(), 1, "it is good again once Redis is back with its data");
}
