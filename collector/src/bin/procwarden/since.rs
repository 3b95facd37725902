//! Points in time as an operator writes them: a date, an RFC 3339 time, or how
//! long ago it was.

use std::str::FromStr;
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::toml_config::parse_duration;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, UtcOffset};

/// A point in time, perhaps relative to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// At this time.
    At(UnixMillis),
    /// This long before now.
    Ago(Duration),
}

impl Since {
    /// The point in time, when the command runs at `now`.
    pub(crate) fn resolve(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                // 0 means "any time" to the collector.
                UnixMillis(now.0.saturating_sub(millis).max(1))
            }
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let midnight = || {
            Date::parse(text, format_description!("[year]-[month]-[day]"))
                .ok()
                .map(|date| date.midnight().assume_offset(UtcOffset::UTC))
        };
        let at = OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .or_else(midnight)
            .ok_or(
                "write a time such as 2026-11-23T09:00:00Z or 2026-11-23, or how long ago, such as \
             15m, 12h or 30d",
            )?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000)
            .map(|millis| Self::At(UnixMillis(millis)))
            .map_err(|_| "the time is out of range".into())
    }
}

/// Reads a span of time for clap.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_that_is_offered() {
        let now = UnixMillis(1_795_424_400_000);
        for (text, millis) in [
            ("2026-11-23T09:00:00Z", 1_795_424_400_000),
            ("2026-11-23T10:00:00+01:00", 1_795_424_400_000),
            ("2026-11-23T09:00:00.250Z", 1_795_424_400_250),
            ("2026-11-23", 1_795_392_000_000),
            ("15m", 1_795_424_400_000 - 900_000),
            ("12h", 1_795_424_400_000 - 43_200_000),
            ("30d", 1_795_424_400_000 - 2_592_000_000),
            ("100000d", 1),
        ] {
            let since: Since = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(since.resolve(now), UnixMillis(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-11-23 09:00",
            "1w",
            "-5m",
            "now",
        ] {
            let error = text.parse::<Since>().expect_err(text);
            assert!(error.contains("30d"), "{error}");
        }
    }
}
