//! How bad a finding is: info < low < medium < high < critical.

use std::fmt;
use std::str::FromStr;

/// The severity of an indicator, and of a finding (its highest indicator's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth a line, never a mail by default.
    Info,
    /// Counts only together with something else.
    Low,
    /// Someone should look.
    Medium,
    /// Likely hostile.
    High,
    /// Hostile until proven otherwise.
    Critical,
}

impl Severity {
    /// Every severity, lowest first.
    pub const ALL: [Self; 5] = [
        Self::Info,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
    ];

    /// The word used in configuration, JSON, tables and mails.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a severity: use info, low, medium, high or critical")]
pub struct InvalidSeverity;

impl FromStr for Severity {
    type Err = InvalidSeverity;

    fn from_str(text: &str) -> Result<Self, InvalidSeverity> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or(InvalidSeverity)
    }
}
