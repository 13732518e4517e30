//! Dates as the database stores them, in seconds since 1970, and as readers see them.

use cache_core::clock::Timestamp;
use time::OffsetDateTime;

/// Returns the current time in seconds since 1970.
pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Formats as `5 March 2026`.
pub(crate) fn long(seconds: i64) -> String {
    let at = at(seconds);
    format!("{} {} {}", at.day(), at.month(), at.year())
}

/// Formats as `5 March 2026, 15:40 UTC`.
pub(crate) fn minute(at: Timestamp) -> String {
    let seconds = i64::try_from(at.as_millis() / 1_000).unwrap_or(i64::MAX);
    let (hour, minute, _) = self::at(seconds).to_hms();
    format!("{}, {hour:02}:{minute:02} UTC", long(seconds))
}

/// Formats as `2026-03-05`, for the `datetime` attribute.
pub(crate) fn iso(seconds: i64) -> String {
    let at = at(seconds);
    format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day())
}

/// Formats as `2026-03-05T00:00:00Z`, for feeds.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (hour, minute, second) = at(seconds).to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", iso(seconds))
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_both_ways() {
        assert_eq!(long(1_772_668_800), "5 March 2026");
        assert_eq!(iso(1_772_668_800), "2026-03-05");
        assert_eq!(rfc3339(1_772_668_800 + 3_661), "2026-03-05T01:01:01Z");
        assert_eq!(minute(Timestamp::from_millis(1_772_668_861_000)), "5 March 2026, 00:01 UTC");
        assert_eq!(iso(i64::MAX), "1970-01-01");
    }
}
