//! Dates as the database keeps them, seconds since 1970, and as readers see them.

use time::OffsetDateTime;

/// Now, in seconds since 1970.
pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// `5 March 2026`
pub(crate) fn long(seconds: i64) -> String {
    let at = at(seconds);
    format!("{} {} {}", at.day(), at.month(), at.year())
}

/// `2026-03-05`, for the `datetime` attribute.
pub(crate) fn iso(seconds: i64) -> String {
    let at = at(seconds);
    format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day())
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
        assert_eq!(iso(i64::MAX), "1970-01-01");
    }
}
