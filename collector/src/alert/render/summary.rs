//! One line's worth of a finding, in printable and bounded form. Pure.

use std::cmp::Reverse;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{StoredFinding, Subject};
use procwarden_common::id::FindingId;
use procwarden_common::indicator::Indicator;
use procwarden_common::printable::printable;
use procwarden_common::severity::Severity;

use crate::alert::words::{clip, harmless};

/// Longest texts of a line.
const HOST_BYTES_MAX: usize = 64;
const ACCOUNT_BYTES_MAX: usize = 32;
const EXE_BYTES_MAX: usize = 80;
const INDICATORS_NAMED_MAX: usize = 3;

/// What subjects and tables say about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Its id.
    pub(crate) id: FindingId,
    /// Its severity.
    pub(crate) severity: Severity,
    /// Name of the host.
    pub(crate) host: String,
    /// Name of the account; nothing for a host's finding.
    pub(crate) account: Option<String>,
    /// Nothing for an account's finding.
    pub(crate) pid: Option<u32>,
    /// The worst indicators, and how many more there are.
    pub(crate) indicators: String,
    /// Path of the executable; nothing where there is none.
    pub(crate) exe: Option<String>,
    /// When it was first reported.
    pub(crate) first_seen: UnixMillis,
}

impl Summary {
    /// The line of a finding.
    pub(crate) fn of(stored: &StoredFinding) -> Self {
        let finding = &stored.finding;
        let exe = finding
            .process
            .as_ref()
            .and_then(|process| process.exe.as_ref());
        Self {
            id: stored.id,
            severity: finding.severity(),
            host: clip(&harmless(&stored.host_name), HOST_BYTES_MAX, "..."),
            account: match finding.subject {
                Subject::Host { .. } => None,
                Subject::Process(_) | Subject::Account { .. } => {
                    Some(clip(&printable(&finding.user), ACCOUNT_BYTES_MAX, "..."))
                }
            },
            pid: match finding.subject {
                Subject::Process(key) => Some(key.pid),
                Subject::Account { .. } | Subject::Host { .. } => None,
            },
            indicators: names(&finding.indicators),
            exe: exe.map(|exe| clip(&printable(exe), EXE_BYTES_MAX, "...")),
            first_seen: stored.first_seen,
        }
    }
}

/// Indicators, the worst first.
pub(super) fn worst_first(indicators: &[Indicator]) -> Vec<&Indicator> {
    let mut sorted: Vec<&Indicator> = indicators.iter().collect();
    sorted.sort_by_key(|indicator| Reverse(indicator.severity));
    sorted
}

fn names(indicators: &[Indicator]) -> String {
    let names: Vec<&str> = worst_first(indicators)
        .iter()
        .map(|i| i.id.as_str())
        .collect();
    let named = names
        .iter()
        .take(INDICATORS_NAMED_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(INDICATORS_NAMED_MAX) {
        0 => named,
        more => format!("{named} +{more}"),
    }
}
