//! The `Cookie` and `Set-Cookie` headers, in the grammar that Express peers read and write.
//!
//! Reading is as lenient as theirs (percent-encoded or bare, quoted, several headers, the first of
//! equal names), and writing as strict.

use std::fmt::Write as _;

use crate::clock::Timestamp;

/// Returns the decoded value of the first cookie with this name in the `Cookie` headers. `None` if
/// there is none, or if it is not UTF-8.
pub(super) fn find<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &str) -> Option<String> {
    let pairs = headers.into_iter().flat_map(|header| header.split(|byte| *byte == b';'));
    let value = pairs
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((trim(pair.get(..at)?), trim(pair.get(at.saturating_add(1)..)?)))
        })
        .find(|(found, _)| *found == name.as_bytes())?
        .1;
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let value = std::str::from_utf8(value).ok()?;
    // A value that cannot be decoded is used as it is.
    Some(percent_decoded(value).unwrap_or_else(|| value.to_owned()))
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at.saturating_add(1));
    bytes.get(start..end).unwrap_or_default()
}

/// Does what `decodeURIComponent` does.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

/// Does what `encodeURIComponent` does.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(8));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _never_fails = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The attributes of a `Set-Cookie` header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    pub(super) domain: Option<String>,
    pub(super) path: Option<String>,
    pub(super) expires: Option<Timestamp>,
    /// In seconds, in addition to `expires`. Express never sends it.
    pub(super) max_age: Option<u64>,
    pub(super) http_only: bool,
    pub(super) secure: bool,
    pub(super) partitioned: bool,
    pub(super) priority: Option<&'static str>,
    pub(super) same_site: Option<&'static str>,
}

impl Attributes {
    /// Returns the value of the header. `None` if the domain or the path contains a character that
    /// would end its attribute.
    pub(super) fn header(&self, name: &str, value: &str) -> Option<String> {
        let mut out = format!("{name}={}", percent_encoded(value));
        for (attribute, text) in [("Domain", &self.domain), ("Path", &self.path)] {
            if let Some(text) = text {
                if !is_attribute_text(text) {
                    return None;
                }
                let _never_fails = write!(out, "; {attribute}={text}");
            }
        }
        if let Some(seconds) = self.max_age {
            let _never_fails = write!(out, "; Max-Age={seconds}");
        }
        if let Some(expires) = self.expires {
            let _never_fails = write!(out, "; Expires={}", Date::of(expires).imf());
        }
        for (flag, attribute) in
            [(self.http_only, "HttpOnly"), (self.secure, "Secure"), (self.partitioned, "Partitioned")]
        {
            if flag {
                let _never_fails = write!(out, "; {attribute}");
            }
        }
        for (attribute, text) in [("Priority", self.priority), ("SameSite", self.same_site)] {
            if let Some(text) = text {
                let _never_fails = write!(out, "; {attribute}={text}");
            }
        }
        Some(out)
    }
}

/// Returns whether a text can be a domain or a path without ending its attribute.
pub(super) fn is_attribute_text(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b';')
}

/// Returns whether this can be the name of a cookie: a token of RFC 9110.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A calendar date with time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    days: u64,
    year: u64,
    month: u64,
    day: u64,
    /// Of the day.
    millis: u64,
}

/// 9999-12-31T23:59:59.999Z: both formats have four digits for the year.
const LAST_MS: u64 = 253_402_300_799_999;
const DAY_MS: u64 = 86_400_000;

impl Date {
    /// Converts a time. Times after the year 9999 count as its last moment.
    #[expect(clippy::arithmetic_side_effects, reason = "times before the year 10000 are far from every bound of u64")]
    pub(super) fn of(time: Timestamp) -> Self {
        let millis = time.as_millis().min(LAST_MS);
        let days = millis / DAY_MS;
        // Days to civil: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", for years
        // from 1970 on.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let of_era = shifted % 146_097;
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self { days, year, month, day, millis: millis % DAY_MS }
    }

    /// Formats as `2026-11-20T09:21:22.716Z`, as `JSON.stringify` writes dates.
    pub(super) fn iso(self) -> String {
        let (hours, minutes, seconds) = self.clock();
        let Self { year, month, day, millis, .. } = self;
        let millis = millis % 1000;
        format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
    }

    /// Formats as `Fri, 20 Nov 2026 09:21:22 GMT`, as `toUTCString` does. Milliseconds are cut off.
    pub(super) fn imf(self) -> String {
        const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (hours, minutes, seconds) = self.clock();
        let weekday = WEEKDAYS.get((self.days % 7) as usize).copied().unwrap_or_default();
        let month = MONTHS.get(self.month.saturating_sub(1) as usize).copied().unwrap_or_default();
        let Self { year, day, .. } = self;
        format!("{weekday}, {day:02} {month} {year:04} {hours:02}:{minutes:02}:{seconds:02} GMT")
    }

    fn clock(self) -> (u64, u64, u64) {
        let seconds = self.millis / 1000;
        (seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "s:R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y.ySXJuMFNnlbtXsjDNjR+Yzu51FNxPbNd5fAXqGG8yqE";
    const ENCODED: &str = "s%3AR1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y.ySXJuMFNnlbtXsjDNjR%2BYzu51FNxPbNd5fAXqGG8yqE";

    fn found(headers: &[&str]) -> Option<String> {
        find(headers.iter().map(|header| header.as_bytes()), "connect.sid")
    }

    #[test]
    fn what_express_accepts_is_read() {
        let lower = ENCODED.replace("%3A", "%3a").replace("%2B", "%2b");
        let half = ID.replacen(':', "%3A", 1);
        for value in [ENCODED, ID, &lower, &half, &format!("\"{ENCODED}\"")] {
            for header in [
                format!("connect.sid={value}"),
                format!("a=b; connect.sid={value}; c=d"),
                format!("a=b;connect.sid={value};c=d"),
                format!(" \t connect.sid \t= \t{value} \t"),
                format!("a; connect.sid={value}; connect.sid=second"),
                format!("a==; connect.sid={value}"),
            ] {
                assert_eq!(found(&[&header]).as_deref(), Some(ID), "{header}");
            }
            assert_eq!(found(&["a=b", &format!("connect.sid={value}"), "c=d"]).as_deref(), Some(ID));
        }
    }

    #[test]
    fn what_express_does_not_find_is_not_found() {
        for header in [
            "",
            "connect.sid",
            "Connect.sid=1",
            "connect.sid2=1",
            "xconnect.sid=1",
            "a=b, connect.sid=1",
            ";=;;",
            "=connect.sid",
        ] {
            assert_eq!(found(&[header]), None, "{header}");
        }
        assert_eq!(find([&b"connect.sid=\xff"[..]], "connect.sid"), None);
    }

    #[test]
    fn what_cannot_be_decoded_is_taken_as_it_is() {
        for value in ["s%3Aabc%zz", "s%3Aabc%", "s%3Aabc%f", "%ff"] {
            assert_eq!(found(&[&format!("connect.sid={value}")]).as_deref(), Some(value));
        }
        // Decoded only once.
        assert_eq!(found(&["connect.sid=s%253Aabc"]).as_deref(), Some("s%3Aabc"));
        // A bad cookie that comes first hides a good one after it.
        assert_eq!(found(&[&format!("connect.sid=bad; connect.sid={ENCODED}")]).as_deref(), Some("bad"));
        assert_eq!(found(&["connect.sid=\"a"]).as_deref(), Some("\"a"));
    }

    #[test]
    fn values_are_encoded_as_express_does() {
        assert_eq!(percent_encoded(ID), ENCODED);
        assert_eq!(percent_encoded("AZaz09-_.!~*'()"), "AZaz09-_.!~*'()");
        assert_eq!(percent_encoded("/+= ;,\"é\r\n"), "%2F%2B%3D%20%3B%2C%22%C3%A9%0D%0A");
    }

    #[test]
    fn attributes_stand_in_the_order_of_express() {
        let all = Attributes {
            domain: Some("example.com".into()),
            path: Some("/".into()),
            expires: Some(Timestamp::from_millis(1_795_166_482_716)),
            max_age: None,
            http_only: true,
            secure: true,
            partitioned: true,
            priority: Some("High"),
            same_site: Some("Strict"),
        };
        assert_eq!(
            all.header("sid", "a:b").unwrap(),
            "sid=a%3Ab; Domain=example.com; Path=/; Expires=Fri, 20 Nov 2026 09:21:22 GMT; HttpOnly; Secure; Partitioned; \
             Priority=High; SameSite=Strict"
        );
        assert_eq!(Attributes::default().header("sid", "").unwrap(), "sid=");
        for bad in ["/;Domain=evil", "/\r\nX: y", "/\u{e9}"] {
            assert_eq!(Attributes { path: Some(bad.into()), ..Attributes::default() }.header("sid", "a"), None);
        }
    }

    #[test]
    fn dates_are_those_of_javascript() {
        for (millis, iso, imf) in [
            (0, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z", "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_166_482_716, "2026-11-20T09:21:22.716Z", "Fri, 20 Nov 2026 09:21:22 GMT"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (u64::MAX, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let date = Date::of(Timestamp::from_millis(millis));
            assert_eq!((date.iso().as_str(), date.imf().as_str()), (iso, imf));
        }
    }

    #[test]
    fn names_are_tokens() {
        assert!(is_name("connect.sid") && is_name("__Host-id"));
        assert!(!is_name("") && !is_name("a b") && !is_name("a=b") && !is_name("a;b") && !is_name("é"));
    }
}
