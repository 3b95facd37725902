//! Spans of time as people write them: `30s`, `5m`, `24h`, `30d`.

use std::time::Duration;

/// A text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write a number with s, m, h or d, such as 30s, 5m, 24h or 30d")]
pub struct InvalidDuration;

/// Reads `30s`, `5m`, `24h` or `30d`; a bare number counts seconds.
///
/// # Errors
/// When the text is anything else, or more seconds than 64 bits count.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or(InvalidDuration)?;
    let seconds_per_unit: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(InvalidDuration),
    };
    let number: u64 = number.parse().map_err(|_| InvalidDuration)?;
    number
        .checked_mul(seconds_per_unit)
        .map(Duration::from_secs)
        .ok_or(InvalidDuration)
}

/// The shortest exact way to write whole seconds.
pub(super) fn words(duration: Duration) -> String {
    let secs = duration.as_secs();
    let fits = |unit: u64| secs != 0 && secs.is_multiple_of(unit);
    match secs {
        _ if fits(86_400) => format!("{}d", secs / 86_400),
        _ if fits(3600) => format!("{}h", secs / 3600),
        _ if fits(60) => format!("{}m", secs / 60),
        _ => format!("{secs}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let cases = [
            ("30s", Some((30, "30s"))),
            ("5m", Some((300, "5m"))),
            ("24h", Some((86_400, "1d"))),
            ("90m", Some((5400, "90m"))),
            ("30d", Some((2_592_000, "30d"))),
            ("7", Some((7, "7s"))),
            ("0", Some((0, "0s"))),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5h", None),
            ("1 h", None),
            ("1w", None),
            ("5M", None),
            ("1h30m", None),
            ("é", None),
            ("18446744073709551615d", None),
            ("18446744073709551616", None),
        ];
        for (text, expected) in cases {
            let read = parse_duration(text).ok();
            let seen = read.map(|d| (d.as_secs(), words(d)));
            assert_eq!(
                seen,
                expected.map(|(secs, back)| (secs, back.to_owned())),
                "{text}"
            );
        }
    }
}
