//! `secure`, proxies and paths.

use serde_json::{Value, json};

use super::browser::{App, Browser, Cookie, Ids, Redis};
use super::peer::{Peer, on_both_peers};

/// Returns whether the cookie of a new session is `Secure`; `None` if there was no cookie.
async fn is_secure(port: u16, headers: &[(&str, &str)]) -> Option<bool> {
    let visit = Browser::new(port).visit_at("/", &["set a 1"], headers).await;
    visit.0.header("set-cookie").map(|cookie| cookie.contains("; Secure"))
}

fn app(secure: &str, proxy: Option<bool>, trust_proxy: Option<Value>) -> App {
    let secure = if secure == "auto" { json!("auto") } else { json!(secure == "true") };
    App { proxy, trust_proxy, cookie: Cookie { secure: Some(secure), ..Cookie::default() }, ..App::default() }
}

on_both_peers! {
    async fn a_secure_cookie_is_sent_by_https_only(peer: Peer) {
        let redis = Redis::start().await;
        let site = peer.start(&redis.server, &[app("true", Some(true), None), app("true", Some(false), None)]).await;
        for (header, sent) in [
            ("https", true),
            ("HTTPS", true),
            ("https, http", true),
            ("https,http", true),
            (" https ", true),
            ("http, https", false),
            ("http", false),
            ("", false),
        ] {
            let headers = [("X-Forwarded-Proto", header)];
            assert_eq!(is_secure(site.port(0), &headers).await, sent.then_some(true), "{header:?} from a proxy");
            assert_eq!(is_secure(site.port(1), &headers).await, None, "{header:?} from a client");
        }
        assert_eq!(is_secure(site.port(0), &[]).await, None);
    }

    async fn automatic_attributes_go_by_how_the_session_began(peer: Peer) {
        let mut redis = Redis::start().await;
        let mut auto = app("auto", Some(true), None);
        auto.cookie.same_site = Some("auto");
        let site = peer.start(&redis.server, &[auto]).await;
        for (scheme, cookie, stored) in [
            ("https", "Path=/; HttpOnly; Secure; SameSite=None", r#""secure":true,"httpOnly":true,"path":"/","sameSite":"none""#),
            ("http", "Path=/; HttpOnly; SameSite=Lax", r#""secure":false,"httpOnly":true,"path":"/","sameSite":"lax""#),
        ] {
            let mut browser = Browser::new(site.port(0));
            let visit = browser.visit_at("/", &["set a 1"], &[("X-Forwarded-Proto", scheme)]).await;
            let header = visit.0.header("set-cookie").expect("a new session").to_owned();
            assert!(header.ends_with(cookie), "{scheme}: {header}");
            let text = redis.get(&format!("sess:{}", browser.sid())).await.expect("stored");
            assert!(text.contains(stored), "{scheme}: {text}");
        }
    }

    async fn sessions_are_those_of_a_path(peer: Peer) {
        let redis = Redis::start().await;
        let cookie = Cookie { path: Some("/admin"), ..Cookie::default() };
        let site = peer.start(&redis.server, &[App { cookie, ..App::default() }]).await;
        for (path, has) in [("/admin", true), ("/admin/users", true), ("/", false), ("/ADMIN", false), ("/other/admin", false)] {
            let visit = Browser::new(site.port(0)).visit_at(path, &["has"], &[]).await;
            assert_eq!(visit.last(), json!(has), "{path}");
        }
        let visit = Browser::new(site.port(0)).visit_at("/admin", &["set a 1"], &[]).await;
        assert!(visit.0.header("set-cookie").is_some_and(|cookie| cookie.contains("; Path=/admin;")), "{visit:?}");
    }
}

/// Express stores a session that no client can return to. Ours does not.
#[tokio::test]
async fn a_session_whose_cookie_cannot_be_sent_is_not_stored_by_ours() {
    let mut redis = Redis::start().await;
    for (peer, sessions, saved) in [(Peer::Express, 1, 200), (Peer::Ours, 0, 500)] {
        redis.flush().await;
        let site = peer.start(&redis.server, &[app("true", Some(true), None)]).await;
        assert_eq!(is_secure(site.port(0), &[]).await, None);
        assert_eq!(redis.stored("sess:", &mut Ids::new(None)).await.len(), sessions, "{peer:?}");
        let visit = Browser::new(site.port(0)).visit(&["set a 1", "save"]).await;
        assert_eq!(visit.0.status, saved, "the waiter gets the error: {visit:?}");
    }
}

/// For Express, `/adminfoo` begins with `/admin`. A browser compares paths by segments, and so does
/// ours.
#[tokio::test]
async fn a_path_is_compared_by_segments_by_ours() {
    let redis = Redis::start().await;
    let cookie = Cookie { path: Some("/admin"), ..Cookie::default() };
    let app = App { cookie, ..App::default() };
    for (peer, has) in [(Peer::Express, true), (Peer::Ours, false)] {
        let site = peer.start(&redis.server, std::slice::from_ref(&app)).await;
        assert_eq!(
            Browser::new(site.port(0)).visit_at("/adminfoo", &["has"], &[]).await.last(),
            json!(has),
            "{peer:?}"
        );
    }
}

#[tokio::test]
async fn express_without_proxy_goes_by_its_own_setting() {
    let redis = Redis::start().await;
    let apps = [app("true", None, Some(json!(true))), app("true", None, None)];
    let site = Peer::Express.start(&redis.server, &apps).await;
    let headers = [("X-Forwarded-Proto", "https")];
    assert_eq!(is_secure(site.port(0), &headers).await, Some(true));
    assert_eq!(is_secure(site.port(1), &headers).await, None);
}
