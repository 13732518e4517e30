//! Parses durations in text: `"1d"`, `"1h30m"`, `"500ms"`.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// Parses `text` as a duration. Returns a message if it is not one.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let usage = "write a number and a unit (ms, s, m, h, d, w), such as `\"90s\"` or `\"1h30m\"`";
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("an empty duration; {usage}"));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        // For `10 minutes`, the message shows the right unit instead of reporting a missing one.
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return Err(format!("a number is expected at `{rest}`; {usage}"));
        }
        if unit.is_empty() {
            if tail.starts_with('.') {
                return Err(format!(
                    "`{text}` is not a whole number; write it in a smaller unit, such as `\"1500ms\"`"
                ));
            }
            return Err(format!("`{number}` has no unit; {usage}"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(unknown_unit(unit, number));
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        millis = match part.and_then(|part| millis.checked_add(part)) {
            Some(sum) => sum,
            None => return Err(format!("`{text}` is longer than can be counted")),
        };
        rest = tail.trim_start();
    }
    Ok(Duration::from_millis(millis))
}

/// The longest accepted duration.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Returns a message for a duration that is too long or looks like milliseconds.
pub(crate) fn doubt(option: &str, duration: Duration, is_number: bool) -> Option<String> {
    let seconds = duration.as_secs();
    // Five minutes in milliseconds, read as seconds, are more than three days. Whole days are taken
    // as intended.
    let looks_like_millis =
        is_number && seconds >= 300_000 && seconds.is_multiple_of(1_000) && !seconds.is_multiple_of(86_400);
    let too_long = duration > LONGEST;
    if !(too_long || looks_like_millis) {
        return None;
    }
    let days = seconds / 86_400;
    let meant = written(seconds / 1_000);
    Some(match (too_long, is_number) {
        (true, false) => {
            format!("`{option}` is more than 365 days, the longest possible; write at most `{option} = \"365d\"`")
        }
        (true, true) if seconds.is_multiple_of(1_000) => format!(
            "`{option}` is in seconds, and this is {days} days, more than the 365 that are possible; if milliseconds \
            are meant, write `{option} = \"{meant}\"`, else at most `{option} = \"365d\"`"
        ),
        (true, true) => format!(
            "`{option}` is in seconds, and this is {days} days, more than the 365 that are possible; write at most \
             `{option} = \"365d\"`"
        ),
        (false, _) => format!(
            "`{option}` is in seconds, and this is more than {days} days; if milliseconds are meant, write \
             `{option} = \"{meant}\"`, if not, `{option} = \"{seconds}s\"`"
        ),
    })
}

/// Formats seconds as text, such as `1h30m`.
fn written(mut seconds: u64) -> String {
    let mut text = String::new();
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        let number = seconds.checked_div(size).unwrap_or(0);
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
        seconds = seconds.checked_rem(size).unwrap_or(0);
    }
    text
}

fn unknown_unit(unit: &str, number: &str) -> String {
    let meant = match unit.to_ascii_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        "week" | "weeks" => "w",
        "milli" | "millis" | "msec" | "millisecond" | "milliseconds" => "ms",
        other => UNITS.iter().map(|(name, _)| *name).find(|name| *name == other).unwrap_or_default(),
    };
    if meant.is_empty() {
        format!("unknown unit `{unit}`; the units are ms, s, m, h, d, w")
    } else {
        format!("unknown unit `{unit}`; write `\"{number}{meant}\"`")
    }
}

/// Returns a duration as an expression, in whole seconds if possible.
pub(crate) fn constant(duration: Duration, span: Span) -> TokenStream {
    let (function, number) = if duration.subsec_millis() == 0 {
        ("from_secs", duration.as_secs())
    } else {
        ("from_millis", u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    };
    let function = Ident::new(function, span);
    let number = proc_macro2::Literal::u64_unsuffixed(number);
    quote::quote_spanned!(span=> ::core::time::Duration::#function(#number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{doubt, parse};

    #[test]
    fn every_unit_and_sums_of_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("10 m", 600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn numbers_that_look_like_milliseconds_name_both_readings() {
        let of = |seconds, is_number| doubt("ttl", Duration::from_secs(seconds), is_number).unwrap_or_default();
        for (millis, meant) in [(300_000, "5m"), (3_600_000, "1h"), (5_400_000, "1h30m"), (86_400_000, "1d")] {
            assert!(of(millis, true).contains(&format!("`ttl = \"{meant}\"`")), "{}", of(millis, true));
        }
        for seconds in [1, 60, 3_600, 86_400, 200_000, 604_800, 2_592_000, 31_536_000] {
            assert_eq!(of(seconds, true), "");
        }
        assert_eq!(of(3_600_000, false), "");
        assert!(of(31_536_001, true).contains("at most") && of(31_536_001, false).contains("at most"));
    }

    #[test]
    fn mistakes_name_the_fix() {
        for (text, part) in [
            ("", "empty"),
            ("60", "`60` has no unit"),
            ("1.5h", "smaller unit"),
            ("h", "a number is expected"),
            ("-1s", "a number is expected"),
            ("5min", "write `\"5m\"`"),
            ("10 minutes", "write `\"10m\"`"),
            ("1h 30", "`30` has no unit"),
            ("5D", "write `\"5d\"`"),
            ("5y", "unknown unit `y`"),
            ("99999999999999999999d", "longer than can be counted"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
