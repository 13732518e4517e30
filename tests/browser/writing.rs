//! Content written in one page and read in another.

use std::time::{Duration, Instant};

use super::Desk;

/// The longest time another process may serve a cached page: the cache's default.
const MAX_STALENESS: Duration = Duration::from_secs(2);

#[test]
fn scripts_in_a_post_are_text() {
    const SCRIPT: &str = "<script>alert(document.title = 'run')</script>";
    const PICTURE: &str = "<img src=x onerror=\"alert(document.title = 'run')\">";
    let desk = Desk::new();
    let Desk { tab, .. } = &desk;
    desk.log_in(tab);
    let path = desk
        .publish(&format!("Title {SCRIPT}"), &format!("Text {SCRIPT}\n\n{PICTURE}\n\n[a link](javascript:alert(1))"));
    tab.fill("Comment", SCRIPT);
    tab.button("Post comment");
    assert!(tab.string("document.querySelector('.said').innerText") == SCRIPT, "{}", tab.text());
    for (path, texts) in
        [(&*path, &[SCRIPT, PICTURE][..]), ("/", &[SCRIPT]), ("/authors/1", &[SCRIPT]), ("/search?q=alert", &[SCRIPT])]
    {
        desk.goto(path);
        for text in texts {
            assert!(tab.shows(text), "{path}: {}", tab.text());
        }
        assert_eq!(tab.evaluate("document.querySelectorAll('script, img, [href^=javascript]').length"), 0, "{path}");
        assert_ne!(tab.string("document.title"), "run");
        assert_eq!(tab.complaints(), [""; 0], "{path}: nothing was even tried");
    }
}

#[test]
fn an_edit_through_one_instance_is_on_the_next_page_of_another() {
    let desk = Desk::with_instances(2);
    let Desk { tab, chromium, blogs } = &desk;
    let elsewhere = chromium.profile();
    desk.log_in(tab);
    let path = desk.publish("Before the edit", "x");
    for _ in 0..2 {
        elsewhere.goto(&blogs.on(1, "/"));
        elsewhere.link("Before the edit");
        assert_eq!(elsewhere.path(), path);
    }
    assert!(elsewhere.shows("without a database query"), "the other one has it in its cache: {}", elsewhere.text());

    tab.link("Edit");
    tab.fill("Title", "After the edit");
    tab.button("Save");
    assert!(tab.shows("Your changes are saved.") && tab.shows("After the edit"), "{}", tab.text());
    let answered = Instant::now();
    loop {
        let asked = answered.elapsed();
        elsewhere.reload();
        if elsewhere.string("document.querySelector('h1').innerText") == "After the edit" {
            break;
        }
        assert!(asked <= MAX_STALENESS, "old {asked:?} after the edit");
    }
    elsewhere.link("Field Notes");
    assert!(elsewhere.shows("After the edit") && !elsewhere.shows("Before the edit"));
}

#[test]
fn a_session_is_good_on_every_instance() {
    let desk = Desk::with_instances(2);
    desk.log_in(&desk.tab);
    desk.tab.goto(&desk.blogs.on(1, "/devices"));
    assert!(desk.tab.shows("this device"), "{}", desk.tab.text());
    desk.tab.button("Log out");
    desk.goto("/devices");
    assert_eq!(desk.tab.path(), "/login");
}
