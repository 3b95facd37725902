//! What a person says about a rule: until when it holds, whose it is, and why.
//!
//! Written as `#@ expires=2027-01-31 owner=ops reason="..."` above the rule,
//! which lfd reads as a comment. Never reads a clock: the time is a value.

use std::fmt;

use time::{Date, Month};

use crate::clock::UnixMillis;

mod read;
#[cfg(test)]
mod tests;

pub(super) use read::read;

/// Milliseconds of a day.
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// The facts of one rule; all of them may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleFacts {
    /// The last day on which the rule matches; without one it always does.
    pub expires: Option<LastDay>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Why it is there.
    pub reason: Option<String>,
}

impl RuleFacts {
    /// Whether the rule still matches at this time.
    #[must_use]
    pub fn in_force(&self, now: UnixMillis) -> bool {
        self.expires.is_none_or(|day| now < day.end())
    }

    /// When the rule stops matching; the end of time when it never does.
    #[must_use]
    pub fn end(&self) -> UnixMillis {
        self.expires.map_or(UnixMillis(i64::MAX), LastDay::end)
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `#@ expires=2027-01-31 owner=ops reason="..."`: a line that reads back as
/// the same facts.
impl fmt::Display for RuleFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#@")?;
        if let Some(day) = self.expires {
            write!(f, " expires={day}")?;
        }
        for (key, value) in [("owner", &self.owner), ("reason", &self.reason)] {
            if let Some(value) = value {
                write!(f, " {key}=")?;
                write_value(f, value)?;
            }
        }
        Ok(())
    }
}

/// Bare where that is safe, else in quotes.
fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    if !value.is_empty() && value.bytes().all(is_plain) {
        return f.write_str(value);
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    write!(f, "\"{escaped}\"")
}

/// A day by its date; it ends with the day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LastDay(Date);

impl LastDay {
    /// Reads `2027-01-31`; nothing else is a date.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let shape = |(at, b): (usize, &u8)| match at {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        };
        if bytes.len() != 10 || !bytes.iter().enumerate().all(shape) {
            return None;
        }
        let year = text.get(..4)?.parse().ok()?;
        let month = Month::try_from(text.get(5..7)?.parse::<u8>().ok()?).ok()?;
        let day = text.get(8..)?.parse().ok()?;
        Date::from_calendar_date(year, month, day).ok().map(Self)
    }

    /// The first moment after it.
    #[must_use]
    pub fn end(self) -> UnixMillis {
        let begin = self.0.midnight().assume_utc().unix_timestamp();
        UnixMillis(begin.saturating_mul(1000)).plus_millis(DAY_MILLIS)
    }
}

/// `2027-01-31`.
impl fmt::Display for LastDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}
