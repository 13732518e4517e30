//! Tests of the blog in a real browser: blog processes with a database and a Redis of their own,
//! and Chromium.

mod accounts;
mod blog;
mod chromium;
mod pages;
mod tab;
mod writing;

use blog::Blogs;
use chromium::Chromium;
use tab::Tab;

const PASSWORD: &str = "correct horse";

/// The setup of most tests: a blog and a browser tab.
struct Desk {
    // The field order is the drop order: the browser ends first.
    tab: Tab,
    chromium: Chromium,
    blogs: Blogs,
}

impl Desk {
    fn new() -> Self {
        Self::with_instances(1)
    }

    fn with_instances(count: usize) -> Self {
        let blogs = Blogs::start(count);
        let chromium = Chromium::start();
        Self { tab: chromium.profile(), chromium, blogs }
    }

    fn goto(&self, path: &str) -> u64 {
        self.tab.goto(&self.blogs.at(path))
    }

    /// Logs in as the first author, through the pages.
    fn log_in(&self, tab: &Tab) {
        tab.goto(&self.blogs.at("/"));
        tab.link("Log in");
        tab.fill("Login", "demo");
        tab.fill("Password", "demo");
        tab.button("Log in");
        assert!(tab.shows("Welcome back."), "{}", tab.text());
    }

    /// Publishes a post as the logged-in user. Returns the post's path.
    fn publish(&self, title: &str, body: &str) -> String {
        self.goto("/posts/new");
        self.tab.fill("Title", title);
        self.tab.fill("Text", body);
        self.tab.button("Publish");
        assert_eq!(self.tab.status(), 200, "{}", self.tab.text());
        self.tab.path()
    }
}
