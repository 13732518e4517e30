//! The blog as a browser sees it: one server for all tests, on its own database.
//!
//! `BLOG_TEST_DATABASE_URL` names an empty database to use instead of a new SQLite file.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/reader.rs"]
mod reader;
#[path = "support/server.rs"]
mod server;

use std::sync::LazyLock;

use blog::config::Database;
use blog::{App, Config};
use browser::{Browser, Page};
use reader::Reader;

static BLOG: LazyLock<Browser> = LazyLock::new(|| {
    Browser(server::serve(|| async {
        let database = std::env::var("BLOG_TEST_DATABASE_URL").unwrap_or_else(|_| temporary_database());
        App::open(&Config::new(Database::parse(&database).unwrap())).await.unwrap()
    }))
});

/// The first author.
static WRITER: LazyLock<Reader> = LazyLock::new(|| Reader::logged_in(*BLOG, "demo", "demo"));

fn get(path: &str) -> Page {
    BLOG.get(path)
}

fn post(path: &str, fields: &[(&str, &str)]) -> Page {
    WRITER.post(path, fields)
}

/// Returns the path of a new file; deletes what an earlier run has left.
fn temporary_database() -> String {
    let path = std::env::temp_dir().join(format!("blog-test-{}.db", std::process::id()));
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::remove_file(format!("{}{suffix}", path.display())) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
    format!("sqlite:{}", path.display())
}

/// Publishes a post as the first author and returns its address.
fn publish(title: &str, body: &str) -> String {
    let page = post("/posts", &[("title", title), ("body", body)]);
    assert_eq!(page.status, 303, "{}", page.body);
    page.location().unwrap().to_owned()
}

#[test]
fn every_page_answers() {
    let own = publish("A post to be edited", "x");
    let (edit, delete) = (format!("{own}/edit"), format!("{own}/delete"));
    for path in ["/", "/?page=2", "/posts/1", "/authors", "/authors/1", "/login", "/register"] {
        assert_eq!(get(path).status, 200, "{path}");
    }
    for path in ["/", "/?page=2", "/posts/1", &edit, &delete, "/posts/new", "/authors", "/authors/1", "/devices"] {
        let page = WRITER.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(page.body.contains("<html lang=\"en\">") && page.body.contains("Made in "), "{path}");
        assert!(page.headers.contains("content-security-policy: default-src 'none'"), "{path}");
    }
    assert!(get("/search?q=bread").body.contains("posts with"));
    assert_eq!(get("/search").status, 200);
    let status = get("/cache");
    assert!(status.status == 200 && status.body.contains("available"));
    assert!(status.body.contains("blog.posts.<wbr>page<") && status.body.contains("<meter"), "{}", status.body);
    assert!(get("/style.css").headers.contains("content-type: text/css"));
    assert_eq!(get("/icon.svg").status, 200);
}

#[test]
fn a_missing_page_gets_an_error_page() {
    for path in
        ["/nope", "/posts/999999", "/authors/999999", "/?page=4000000000", "/authors/1?page=400", "/posts/999999/edit"]
    {
        let page = WRITER.get(path);
        assert_eq!(page.status, 404, "{path}");
        assert!(page.body.contains("Not found"), "{path}");
    }
    assert_eq!(post("/posts/999999/comments", &[("body", "hello")]).status, 404);
    assert_eq!(post("/posts/999999/delete", &[]).status, 404);
}

#[test]
fn bad_input_gets_a_page() {
    let long = format!("/search?q={}", "x".repeat(101));
    for path in [
        "/posts/abc",
        "/posts/0",
        "/posts/-1",
        "/posts/99999999999999999999",
        "/posts/%FF",
        "/?page=0",
        "/?page=x",
        "/?page=-1",
        "/?page=99999999999",
        "/?page=1&page=2",
        "/search?q=%00",
        "/search?q=a+b+c+d+e+f+g",
        &long,
    ] {
        let page = get(path);
        assert_eq!(page.status, 400, "{path}");
        assert!(page.body.contains("<html lang=\"en\">"), "{path}");
    }
    let wrong_method = BLOG.request("DELETE", "/posts/1", None, "");
    assert_eq!(wrong_method.status, 405);
    assert!(wrong_method.body.contains("<html"));
    let no_form = WRITER.request("POST", "/posts", Some("application/json"), "{}");
    assert_eq!(no_form.status, 400);
    assert!(no_form.body.contains("<html"));
}

#[test]
fn a_body_that_is_too_large_gets_a_page() {
    let page = post("/posts", &[("title", "Large"), ("body", &"x".repeat(600 * 1024))]);
    assert_eq!(page.status, 413);
    assert!(page.body.contains("Too large"));
}

#[test]
fn the_longest_post_is_taken() {
    let body = "🦀".repeat(40_000);
    let address = publish("As long as it gets", &body);
    assert!(get(&address).body.contains(&body));
    let page = post("/posts", &[("title", "Longer"), ("body", &format!("{body}x"))]);
    assert_eq!(page.status, 422);
}

#[test]
fn mistakes_are_shown_next_to_their_fields_and_text_is_kept() {
    let page = post("/posts", &[("title", "ab"), ("body", "kept \"text\" <b>")]);
    assert_eq!(page.status, 422);
    assert!(page.body.contains("id=\"title-mistake\""));
    assert!(!page.body.contains("id=\"body-mistake\""));
    assert!(page.body.contains("value=\"ab\"") && page.body.contains("kept &quot;text&quot; &lt;b&gt;"));

    assert_eq!(post("/posts", &[]).status, 422);
    let page = post("/posts/1/comments", &[("body", " \r\n ")]);
    assert_eq!(page.status, 422);
    assert!(page.body.contains("A comment needs some text."));
    let page = post(&format!("{}/edit", publish("To be edited", "x")), &[("title", ""), ("body", "kept")]);
    assert_eq!(page.status, 422);
    assert!(page.body.contains(">\nkept</textarea>"));
}

#[test]
fn scripts_are_shown_and_never_run() {
    const SCRIPT: &str = "<script>alert(1)</script>";
    let address = publish(&format!("Evil {SCRIPT}"), &format!("wickedword {SCRIPT} [x](javascript:alert(1))"));
    assert_eq!(post(&format!("{address}/comments"), &[("body", SCRIPT)]).status, 303);
    let search = get("/search?q=wickedword+%3Cscript%3E");
    assert!(search.body.contains("1 post with"));
    for page in [
        get(&address),
        WRITER.get(&format!("{address}/edit")),
        WRITER.get(&format!("{address}/delete")),
        get("/authors/1"),
        search,
    ] {
        assert!(!page.body.contains("<script"), "{}", page.body);
        assert!(page.body.contains("&lt;script&gt;"));
        assert!(!page.body.contains("href=\"javascript"));
    }
}

#[test]
fn a_write_shows_at_once_on_every_page() {
    let lists = ["/", "/authors/1", "/search?q=quixotically"];
    let all = |address: &str| -> Vec<Page> { lists.iter().copied().chain([address]).map(get).collect() };
    // Everything is read before each write, so that it is cached.
    all("/posts/1");

    let address = publish("The first quixotically title", "The first body.");
    for page in all(&address) {
        assert!(page.body.contains("The first quixotically title"), "after publishing");
    }

    let changed = [("title", "The second quixotically title"), ("body", "The second body.")];
    let page = post(&format!("{address}/edit"), &changed);
    assert_eq!((page.status, page.location()), (303, Some(address.as_str())));
    for page in all(&address) {
        assert!(page.body.contains("The second quixotically title"), "after editing");
        assert!(!page.body.contains("The first quixotically title") && !page.body.contains("The first body."));
    }

    let page = post(&format!("{address}/comments"), &[("body", "A comment\nof two lines")]);
    assert_eq!(page.status, 303);
    assert!(page.location().unwrap().starts_with(&format!("{address}#comment-")));
    assert!(get(&address).body.contains("A comment\nof two lines"));
    for list in lists {
        assert!(get(list).body.contains(&format!("href=\"{address}#comments\">1 comment<")), "{list}");
    }

    let page = post(&format!("{address}/delete"), &[]);
    assert_eq!((page.status, page.location()), (303, Some("/")));
    assert_eq!(get(&address).status, 404);
    for list in lists {
        assert!(!get(list).body.contains("The second quixotically title"), "{list} after deleting");
    }
    assert_eq!(post(&format!("{address}/comments"), &[("body", "too late")]).status, 404);
    assert_eq!(post(&format!("{address}/edit"), &changed).status, 404);
}

#[test]
fn a_post_that_was_requested_too_early_is_found_once_it_exists() {
    let address = publish("An unrememberable place in line", "x");
    let (_, id) = address.rsplit_once('/').unwrap();
    let next = id.parse::<i64>().unwrap().saturating_add(1);
    // Other tests publish too, so the next id may be used by them; whichever id it is, it must be
    // found.
    let mut last = next;
    for ahead in 0..20 {
        get(&format!("/posts/{}", next.saturating_add(ahead)));
    }
    for _ in 0..3 {
        let (_, id) = publish("Found where nothing was", "x")
            .rsplit_once('/')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        last = id.parse().unwrap();
        assert_eq!(get(&format!("/posts/{last}")).status, 200);
    }
    assert!(last >= next);
}

#[test]
fn search_folds_letters_and_takes_wildcards_as_letters() {
    publish("Überraschung", "Ein Satz mit 100% Zzyzx_Straße.");
    for query in ["%C3%9CBERRASCHUNG", "%C3%BCberraschung", "100%25+zzyzx_", "zzyzx_stra%C3%9Fe+satz"] {
        assert!(get(&format!("/search?q={query}")).body.contains(">Überraschung<"), "{query}");
    }
    assert!(get("/search?q=zz_zx").body.contains("Nothing found"));
    assert!(get("/search?q=%25zzyzx%25").body.contains("Nothing found"));
}

#[test]
fn paging_reaches_every_post_once() {
    let mut seen = Vec::new();
    let first = get("/authors/12");
    let total =
        first.body.split(" posts</span>").next().and_then(|head| head.rsplit('>').next()).unwrap().parse::<usize>();
    for page in 1.. {
        let page = get(&format!("/authors/12?page={page}"));
        if page.status == 404 {
            break;
        }
        let titles = page.body.split("<h2><a href=\"/posts/").skip(1).filter_map(|rest| rest.split('"').next());
        seen.extend(titles.map(str::to_owned));
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), Ok(count)), (count, total));
}

#[test]
fn the_feed_has_the_newest_posts() {
    let address = publish("Fish & <chips>", "With \"vinegar\" & salt.");
    let feed = get("/feed.xml");
    assert!(feed.status == 200 && feed.headers.contains("content-type: application/atom+xml"));
    assert!(feed.body.starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?>"));
    let entry = feed.body.split("<entry>").find(|entry| entry.contains(&format!("href=\"{address}\"")));
    let entry = entry.unwrap_or_else(|| panic!("{}", feed.body));
    assert!(entry.contains("<title>Fish &amp; &lt;chips&gt;</title>") && entry.contains("<author><name>"), "{entry}");
    // As XML requires.
    assert_eq!(feed.body.matches("<link").count(), feed.body.matches("</link>").count());
}

#[test]
fn a_page_read_again_asks_the_database_nothing() {
    assert_eq!(get("/authors/11").status, 200);
    assert!(get("/authors/11").body.contains("without a database query"));
}

#[test]
fn a_list_asks_for_all_its_authors_and_comment_counts_at_once() {
    let page = get("/?page=17");
    assert_eq!(page.body.matches("<a class=\"author\"").count(), 10, "each post has its author");
    assert!(page.body.contains(" comments</a>"), "and its comments");
    // At most four: the number of posts, the list, its authors, its comment counts.
    let queries = page.body.split(" database quer").next().and_then(|head| head.rsplit("with ").next()).unwrap();
    let queries: u32 = if queries.ends_with("out a") { 0 } else { queries.parse().unwrap() };
    assert!(queries <= 4, "{queries}");
    // The page of an author finds the entries that the list has cached.
    let author = page.body.split("<a class=\"author\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(get(author).status, 200);
}
