//! Times as JavaScript writes them, in UTC.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Timestamp;

/// 9999-12-31T23:59:59.999Z: both forms have four digits for the year. Later times count as this.
const LAST_MS: u64 = 253_402_300_799_999;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Formats as `Fri, 20 Nov 2026 09:21:22 GMT`, as `toUTCString` does. Milliseconds are cut off.
pub(super) fn http(time: Timestamp) -> String {
    let since = Duration::from_millis(time.as_millis().min(LAST_MS));
    // Every time before the year 10000 is a system time.
    UNIX_EPOCH.checked_add(since).map(httpdate::fmt_http_date).unwrap_or_default()
}

/// Formats as `2026-11-20T09:21:22.716Z`, as `JSON.stringify` writes dates.
pub(super) fn iso(time: Timestamp) -> String {
    let (http, millis) = (http(time), time.as_millis().min(LAST_MS) % 1000);
    let mut parts = http.split(' ').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    let (day, month, year, clock) = (next(), next(), next(), next());
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month).map_or(0, |(number, _)| number);
    format!("{year}-{month:02}-{day}T{clock}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let time = Timestamp::from_millis(millis);
            assert_eq!((super::iso(time).as_str(), http(time).as_str()), (iso, imf));
        }
    }
}
