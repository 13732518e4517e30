//! The sessions of one user in several browsers. A logged-out session stays logged out, and a
//! logged-in session is in the user's list.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use cache_core::session::{Session, SessionError};
use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};

use super::client::Client;
use super::history::Rule;
use super::simulation::Run;

const USER: &str = "ada";
const BROWSERS: u64 = 2;

/// The acknowledged state of the user's sessions.
#[derive(Default)]
pub(super) struct Account {
    /// The last cookie of each browser.
    browsers: BTreeMap<u64, String>,
    /// The number of the login that each cookie belongs to.
    cookies: BTreeMap<String, usize>,
    logins: Vec<Login>,
    /// Cookies of sessions that were logged out individually.
    logged_out: BTreeSet<String>,
    /// How often all sessions were ended, and how many of these calls are in progress.
    endings: u64,
    under_way: usize,
}

/// One login. Its session keeps its state when its id changes.
struct Login {
    /// The numbers of store restarts, and of calls that end all sessions, when the login began.
    restarts: u64,
    endings: u64,
    /// Something that ends it may have happened.
    may_end: bool,
    /// All sessions were ended after the login was acknowledged.
    ended: bool,
}

/// The action of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Login,
    Look,
    ChangesId,
    Logout,
}

/// The outcome of a request.
struct Page {
    user: Option<String>,
    handle: Option<String>,
    /// The current cookie of the browser.
    cookie: Option<String>,
}

impl Client {
    pub(super) async fn use_account(&self) {
        let (kind, browser) = (self.draw(10), self.draw(BROWSERS));
        match kind {
            0..3 => self.log_in(browser).await,
            3..5 => self.look(browser).await,
            5..7 => self.change_id(browser).await,
            7 => self.log_out(browser).await,
            8 => self.look_into_the_list(browser).await,
            _ => self.end_all().await,
        }
    }

    fn cookie(&self, browser: u64) -> Option<String> {
        self.run.state().account.browsers.get(&browser).cloned()
    }

    async fn log_in(&self, browser: u64) {
        let restarts = self.run.world().restarts();
        let (endings, under_way) = {
            let account = &self.run.state().account;
            (account.endings, account.under_way)
        };
        let sent = self.cookie(browser);
        self.may_end(sent.as_ref());
        let Some(Page { cookie: Some(cookie), .. }) = self.request(sent, Does::Login).await else { return };
        self.note(|| format!("browser {browser} is logged in"));
        let mut state = self.run.state();
        state.reached.logins += 1;
        let account = &mut state.account;
        let may_end = under_way > 0 || account.endings != endings;
        account.logins.push(Login { restarts, endings, may_end, ended: false });
        let number = account.logins.len() - 1;
        account.cookies.insert(cookie.clone(), number);
        account.browsers.insert(browser, cookie);
    }

    /// Sends one request and checks that its session is unchanged.
    async fn look(&self, browser: u64) {
        let sent = self.cookie(browser);
        drop(self.request(sent, Does::Look).await);
    }

    async fn change_id(&self, browser: u64) {
        let Some(sent) = self.cookie(browser) else { return };
        let before = self.run.state().account.cookies.get(&sent).copied();
        // If the request fails, the id may have changed, and no browser has the new cookie.
        self.may_end(Some(&sent));
        let Some(Page { cookie: Some(cookie), user: Some(_), .. }) =
            self.request(Some(sent.clone()), Does::ChangesId).await
        else {
            return;
        };
        let (Some(login), true) = (before, cookie != sent) else { return };
        self.note(|| format!("browser {browser} has another cookie"));
        let mut state = self.run.state();
        state.reached.changes_of_id += 1;
        state.account.cookies.insert(cookie.clone(), login);
        state.account.browsers.insert(browser, cookie);
    }

    async fn log_out(&self, browser: u64) {
        let Some(sent) = self.cookie(browser) else { return };
        self.may_end(Some(&sent));
        if self.request(Some(sent.clone()), Does::Logout).await.is_some() {
            self.note(|| format!("browser {browser} is logged out"));
            self.run.state().account.logged_out.insert(sent);
        }
    }

    fn may_end(&self, cookie: Option<&String>) {
        let account = &mut self.run.state().account;
        if let Some(login) = cookie.and_then(|cookie| account.cookies.get(cookie)) {
            account.logins[*login].may_end = true;
        }
    }

    /// Ends all sessions of the user ("log out everywhere").
    async fn end_all(&self) {
        let before = {
            let account = &mut self.run.state().account;
            account.endings += 1;
            account.under_way += 1;
            account.logins.len()
        };
        let under_way = UnderWay(&self.run);
        let ended = self.sessions().of_user(USER).end_all().await;
        drop(under_way);
        self.note(|| format!("all sessions end: {:?}", ended.as_ref().ok()));
        let mut state = self.run.state();
        if ended.is_ok() {
            state.reached.endings += 1;
            state.account.logins[..before].iter_mut().for_each(|login| login.ended = true);
        }
    }

    /// Checks that a session that is logged in before and after the list is read is in the list.
    async fn look_into_the_list(&self, browser: u64) {
        let Some(sent) = self.cookie(browser) else { return };
        let logged_in = async || {
            let page = self.request(Some(sent.clone()), Does::Look).await?;
            page.user.and(page.handle)
        };
        let Some(before) = logged_in().await else { return };
        let Ok(list) = self.sessions().of_user(USER).list().await else { return };
        if logged_in().await.as_ref() != Some(&before) {
            return;
        }
        self.run.state().reached.listings += 1;
        if !list.iter().any(|info| info.handle == before) {
            let what =
                format!("browser {browser} is logged in, and is none of the {} sessions of its user", list.len());
            self.run.violates(Rule::Listed, what);
        }
    }

    /// Sends a request. Returns `None` if it failed.
    async fn request(&self, sent: Option<String>, does: Does) -> Option<Page> {
        let ended = sent.as_ref().is_some_and(|cookie| self.run.state().account.has_ended(cookie));
        let seen = Arc::new(Mutex::new((None, None)));
        let slot = Arc::clone(&seen);
        let handler = move |session: Session| async move {
            let user = session.user().await?;
            let handle = session.handle().await?;
            match does {
                Does::Login => session.login(USER).await?,
                Does::ChangesId => session.cycle_id().await?,
                Does::Logout => session.logout().await?,
                Does::Look => {}
            }
            *slot.lock().unwrap() = (user, handle);
            Ok::<_, SessionError>(())
        };
        let service = self.sessions().layer(tower::service_fn(move |request: Request<()>| {
            let session = request.extensions().get::<Session>().unwrap().clone();
            let handled = handler.clone()(session);
            async move {
                let status = handled.await.map_or_else(|error| error.status().as_u16(), |()| 200);
                Ok::<_, Infallible>(Response::builder().status(status).body(String::new()).unwrap())
            }
        }));
        let mut request = Request::builder().uri("/");
        if let Some(cookie) = &sent {
            request = request.header("cookie", cookie);
        }
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let set = response.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok()?.split(';').next());
        let status = response.status().as_u16();
        let (user, handle) = seen.lock().unwrap().clone();
        self.note(|| format!("a request that does {does:?} is answered with {status}, user {user:?}"));
        if ended && user.is_some() {
            let what = format!("a session that was ended is logged in as {user:?} on node {}", self.node.index());
            self.run.violates(Rule::Ended, what);
        }
        (status == 200).then(|| Page { user, handle, cookie: set.map(str::to_owned).or(sent) })
    }
}

impl Account {
    fn has_ended(&self, cookie: &str) -> bool {
        let of_login = self.cookies.get(cookie).map(|login| &self.logins[*login]);
        self.logged_out.contains(cookie) || of_login.is_some_and(|login| login.ended)
    }

    /// Returns whether nothing can have ended the session.
    fn lives(&self, cookie: &str, restarts: u64) -> bool {
        let of_login = self.cookies.get(cookie).map(|login| &self.logins[*login]);
        of_login.is_some_and(|login| {
            !login.may_end && login.restarts == restarts && login.endings == self.endings && self.under_way == 0
        })
    }
}

/// Marks a call that ends all sessions as in progress, until dropped.
struct UnderWay<'a>(&'a Run);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().account.under_way -= 1;
    }
}

/// At the end: checks that every session that was logged in and not logged out is still logged in.
pub(super) async fn check(client: &Client) {
    for browser in 0..BROWSERS {
        let Some(cookie) = client.cookie(browser) else { continue };
        let lives = client.run.state().account.lives(&cookie, client.run.world().restarts());
        if let Some(page) = client.request(Some(cookie), Does::Look).await
            && page.user.is_none()
            && lives
        {
            client.run.violates(Rule::Lost, format!("a login of browser {browser} was acknowledged, and is lost"));
        }
    }
}
