//! The subject of a mail: one printable line. Pure.

use std::collections::BTreeSet;

use super::{AlertFacts, SUBJECT_BYTES_MAX, Summary};
use crate::alert::words::{clip, harmless};

/// The subject line.
pub(super) fn subject(facts: &AlertFacts) -> String {
    let words = match facts.lines.as_slice() {
        [] => match facts.gone.len() {
            0 if !facts.expiring.is_empty() => super::expiring::subject(facts),
            1 => "a finding that is no longer kept".to_owned(),
            count => format!("{count} findings that are no longer kept"),
        },
        [line] => format!("{}: {}", line.severity, story(line)),
        _ => count(facts),
    };
    // Readers decode `=?...?=` (RFC 2047): what was printable would become
    // whatever a process wrote into its name.
    let words = harmless(&words).replace("=?", "=.?");
    clip(
        &format!("[procwarden] {words}"),
        SUBJECT_BYTES_MAX - 3,
        "...",
    )
}

/// `exe-memfd by bob on web1`; `high-load on web1`.
pub(super) fn story(line: &Summary) -> String {
    match &line.account {
        Some(account) => format!("{} by {account} on {}", line.indicators, line.host),
        None => format!("{} on {}", line.indicators, line.host),
    }
}

/// `12 findings on 5 hosts (highest: high)`.
pub(super) fn count(facts: &AlertFacts) -> String {
    let hosts: BTreeSet<&str> = facts.lines.iter().map(|line| line.host.as_str()).collect();
    let place = match hosts.first() {
        Some(host) if hosts.len() == 1 => (*host).to_owned(),
        _ => format!("{} hosts", hosts.len()),
    };
    let highest = facts
        .severity()
        .map_or("none", |severity| severity.as_str());
    format!(
        "{} findings on {place} (highest: {highest})",
        facts.lines.len()
    )
}
