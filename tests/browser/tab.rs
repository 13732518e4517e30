//! A tab, used as a person would: pages are opened, links and buttons are found by name and
//! clicked, fields are found by label.
//!
//! Invariant: an action that leads to another page returns when that page is loaded.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::{Value, json};

use super::chromium::{Event, Pipe};

pub(super) struct Tab {
    pipe: Rc<Pipe>,
    /// The profile.
    context: String,
    session: String,
    /// The server's status for the page, if it was requested: a page may come from memory or from
    /// the browser's cache.
    status: Cell<Option<u64>>,
}

/// A cookie as the browser keeps it.
#[derive(Clone, Debug)]
pub(super) struct Cookie(Value);

impl Cookie {
    pub(super) fn text(&self, property: &str) -> &str {
        self.0[property].as_str().unwrap_or_else(|| panic!("{property} of {}", self.0["name"]))
    }

    /// Returns a property: `httpOnly`, `secure`, or `session` if the cookie is removed when the
    /// browser closes.
    pub(super) fn is(&self, property: &str) -> bool {
        self.0[property] == true
    }

    /// Returns the expiry in seconds since 1970.
    pub(super) fn expires(&self) -> f64 {
        self.0["expires"].as_f64().expect("a time")
    }
}

impl Tab {
    /// Opens a tab in a new profile.
    pub(super) fn open(pipe: Rc<Pipe>) -> Self {
        let context = id(&pipe.call(None, "Target.createBrowserContext", &json!({})), "browserContextId");
        Self::open_in(pipe, context)
    }

    /// Opens another tab in the same profile.
    pub(super) fn another(&self) -> Self {
        Self::open_in(Rc::clone(&self.pipe), self.context.clone())
    }

    fn open_in(pipe: Rc<Pipe>, context: String) -> Self {
        let blank = json!({ "url": "about:blank", "browserContextId": context });
        let target = id(&pipe.call(None, "Target.createTarget", &blank), "targetId");
        let attach = json!({ "targetId": target, "flatten": true });
        let session = id(&pipe.call(None, "Target.attachToTarget", &attach), "sessionId");
        let tab = Self { pipe, context, session, status: Cell::default() };
        for domain in ["Page", "Network", "Runtime", "Log", "Audits", "DOM", "Accessibility"] {
            tab.call(&format!("{domain}.enable"), &json!({}));
        }
        tab.call("Page.setLifecycleEventsEnabled", &json!({ "enabled": true }));
        // Scrolling must not be animated.
        tab.media("light");
        tab
    }

    /// Sets the color scheme, light or dark.
    pub(super) fn media(&self, scheme: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Sets the size of the window in CSS pixels, of a phone or not.
    pub(super) fn resize(&self, width: u32, height: u32, is_phone: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Opens an address. Returns the status.
    pub(super) fn goto(&self, url: &str) -> u64 {
        self.loaded(|| {
            let navigated = self.call("Page.navigate", &json!({ "url": url }));
            assert!(navigated["errorText"].is_null(), "{url}: {}", navigated["errorText"]);
        });
        self.status()
    }

    pub(super) fn reload(&self) {
        self.loaded(|| drop(self.call("Page.reload", &json!({}))));
    }

    /// Presses the browser's back button.
    pub(super) fn back(&self) {
        let history = self.call("Page.getNavigationHistory", &json!({}));
        let at = history["currentIndex"].as_u64().and_then(|at| usize::try_from(at).ok()).expect("an index");
        let before = &history["entries"][at.checked_sub(1).expect("a page before this one")];
        self.loaded(|| drop(self.call("Page.navigateToHistoryEntry", &json!({ "entryId": before["id"] }))));
    }

    /// Clicks a link or a button that leads to another page.
    pub(super) fn press(&self, role: &str, name: &str) {
        let node = self.only(role, name);
        self.loaded(|| self.click(node));
    }

    pub(super) fn link(&self, name: &str) {
        self.press("link", name);
    }

    pub(super) fn button(&self, name: &str) {
        self.press("button", name);
    }

    /// Types into the field with this label, replacing its content.
    pub(super) fn fill(&self, label: &str, text: &str) {
        let role = if self.has("searchbox", label) { "searchbox" } else { "textbox" };
        self.click(self.only(role, label));
        self.evaluate("document.activeElement.select()");
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Ticks the box with this label.
    pub(super) fn tick(&self, label: &str) {
        self.click(self.only("checkbox", label));
    }

    /// Returns the status of the current page.
    pub(super) fn status(&self) -> u64 {
        self.status.get().unwrap_or_else(|| panic!("{} did not come from the server", self.url()))
    }

    /// Returns whether the current page was just requested from the server.
    pub(super) fn was_asked_for(&self) -> bool {
        self.status.get().is_some()
    }

    pub(super) fn url(&self) -> String {
        self.string("location.href")
    }

    /// Returns the path of the address.
    pub(super) fn path(&self) -> String {
        self.string("location.pathname")
    }

    /// Returns the visible text of the page.
    pub(super) fn text(&self) -> String {
        self.string("document.body.innerText")
    }

    pub(super) fn shows(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    /// Returns whether there is an element with this role and name.
    pub(super) fn has(&self, role: &str, name: &str) -> bool {
        !self.named(role, name).is_empty()
    }

    /// Returns the value of an expression.
    pub(super) fn evaluate(&self, expression: &str) -> Value {
        let mut answer = self.call("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    pub(super) fn string(&self, expression: &str) -> String {
        self.evaluate(expression).as_str().unwrap_or_else(|| panic!("{expression} is no text")).to_owned()
    }

    /// Returns the cookies of the profile.
    pub(super) fn cookies(&self) -> Vec<Cookie> {
        let cookies = self.pipe.call(None, "Storage.getCookies", &json!({ "browserContextId": self.context }));
        let cookies = cookies["cookies"].as_array().expect("a list");
        cookies.iter().cloned().map(Cookie).collect()
    }

    /// Returns new messages of the console and the issues panel, and dialogs that scripts have
    /// opened.
    pub(super) fn complaints(&self) -> Vec<String> {
        let complaints = self.pipe.events(&self.session, |event| is_complaint(&event.method));
        complaints.iter().map(|event| event.params.to_string()).collect()
    }

    /// Returns every node of the accessibility tree, by role and name.
    pub(super) fn accessible(&self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().expect("a list").iter().filter(|node| node["ignored"] != true);
        let text = |node: &Value, property: &str| node[property]["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| (text(node, "role"), text(node, "name"))).collect()
    }

    /// Presses the key that moves to the next field, link or button.
    pub(super) fn tab_key(&self) {
        self.key("Tab", 9, "");
    }

    /// Presses the key that submits a form.
    pub(super) fn enter(&self) {
        self.loaded(|| self.key("Enter", 13, "\r"));
    }

    fn key(&self, key: &str, code: u8, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Sends a request of the DevTools protocol to this tab.
    pub(super) fn call(&self, method: &str, params: &Value) -> Value {
        self.pipe.call(Some(&self.session), method, params)
    }

    fn named(&self, role: &str, name: &str) -> Vec<Value> {
        // Another tab of the profile may cover it, and a hidden tab is not drawn.
        self.call("Page.bringToFront", &json!({}));
        let document = self.call("Runtime.evaluate", &json!({ "expression": "document" }));
        let query = json!({ "objectId": document["result"]["objectId"], "role": role, "accessibleName": name });
        let found = self.call("Accessibility.queryAXTree", &query);
        let nodes = found["nodes"].as_array().expect("a list").iter();
        nodes.filter(|node| node["ignored"] != true).map(|node| node["backendDOMNodeId"].clone()).collect()
    }

    fn only(&self, role: &str, name: &str) -> Value {
        let mut found = self.named(role, name);
        assert_eq!(found.len(), 1, "{role} {name:?} on {}: {}", self.url(), self.text());
        found.remove(0)
    }

    /// Clicks the middle of a node.
    fn click(&self, node: Value) {
        let node = json!({ "backendNodeId": node });
        self.call("DOM.scrollIntoViewIfNeeded", &node);
        let quads = self.call("DOM.getContentQuads", &node);
        let corner = |at: usize| quads["quads"][0][at].as_f64().expect("it is on the page");
        let (x, y) = (f64::midpoint(corner(0), corner(4)), f64::midpoint(corner(1), corner(5)));
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &click);
        }
    }

    /// Performs an action that leads to another page, and waits until that page is loaded.
    fn loaded(&self, leave: impl FnOnce()) {
        self.pipe.events(&self.session, |event| !is_complaint(&event.method));
        leave();
        let is_whole = |event: &Event| event.params["frame"]["parentId"].is_null();
        let wait = |what: &str, fits: &dyn Fn(&Event) -> bool| self.pipe.event(&self.session, what, fits);
        let arrived = wait("another page", &|event| event.method == "Page.frameNavigated" && is_whole(event));
        let loader = arrived.params["frame"]["loaderId"].clone();
        let is_of = |event: &Event| event.params["loaderId"] == loader;
        // A page from the back/forward cache is complete immediately.
        if arrived.params["type"] != "BackForwardCacheRestore" {
            let is_load = |event: &Event| event.method == "Page.lifecycleEvent" && event.params["name"] == "load";
            wait("the page is loaded", &|event| is_load(event) && is_of(event));
        }
        let is_answer =
            |event: &Event| event.method == "Network.responseReceived" && event.params["type"] == "Document";
        let answers = self.pipe.events(&self.session, |event| is_answer(event) && is_of(event));
        let mut answers = answers.iter().map(|event| &event.params["response"]);
        let from_server = answers.find(|answer| answer["fromDiskCache"] != true);
        self.status.set(from_server.map(|answer| answer["status"].as_u64().expect("a number")));
    }
}

fn id(answer: &Value, name: &str) -> String {
    answer[name].as_str().expect("an id").to_owned()
}

fn is_complaint(method: &str) -> bool {
    [
        "Log.entryAdded",
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
        "Audits.issueAdded",
        "Page.javascriptDialogOpening",
    ]
    .contains(&method)
}
