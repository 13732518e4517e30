//! Turns a `User-Agent` into a name that people recognise. The client can claim anything, so use it
//! only for display, not for decisions.

/// Returns for example `Firefox on Linux`, `curl` or `A program`.
pub(crate) fn name(user_agent: Option<&str>) -> String {
    let Some(text) = user_agent else { return "A device".to_owned() };
    match (browser(text), system(text)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, Some(system)) => format!("A browser on {system}"),
        // `curl/8.5.0`: the part before the version, if it is a name.
        (None, None) => match text.split(['/', ' ']).next() {
            Some(name)
                if (2..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') =>
            {
                name.to_owned()
            }
            _ => "A program".to_owned(),
        },
    }
}

/// Returns the browser. Each browser also claims to be the ones it descends from, so the list is
/// ordered newest first.
fn browser(text: &str) -> Option<&'static str> {
    const BROWSERS: [(&str, &str); 9] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Vivaldi/", "Vivaldi"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    first(text, &BROWSERS)
}

/// Returns the system. Phones also name the system they descend from, so they come first.
fn system(text: &str) -> Option<&'static str> {
    const SYSTEMS: [(&str, &str); 7] = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    first(text, &SYSTEMS)
}

fn first(text: &str, known: &[(&str, &'static str)]) -> Option<&'static str> {
    known.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn browsers_and_programs_are_recognised() {
        const WEBKIT: &str = "AppleWebKit/537.36 (KHTML, like Gecko)";
        for (text, expected) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                &format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/137.0 Safari/537.36"),
                "Chrome on Windows",
            ),
            (
                &format!("Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/137.0 Safari/537.36 Edg/137.0"),
                "Edge on Windows",
            ),
            (
                &format!("Mozilla/5.0 (Linux; Android 15; Pixel 9) {WEBKIT} Chrome/137.0 Mobile Safari/537.36"),
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            ("Mozilla/5.0 (X11; Linux x86_64)", "A browser on Linux"),
            ("curl/8.5.0", "curl"),
            ("python-requests/2.32", "python-requests"),
            ("<script>alert(1)</script>", "A program"),
            ("", "A program"),
        ] {
            assert_eq!(name(Some(text)), expected, "{text}");
        }
        assert_eq!(name(None), "A device");
    }
}
