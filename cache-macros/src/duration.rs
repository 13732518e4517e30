//! Durations as people write them: `"1d"`, `"1h30m"`, `"500ms"`.

use std::time::Duration;

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// The duration that `text` says, or what is wrong with it.
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
        // `10 minutes` is told what to write, not that it lacks a unit.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

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
