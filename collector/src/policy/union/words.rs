//! What is said of policies that do not fit together. Pure.

use std::collections::BTreeSet;

use procwarden_common::diagnostic::{Diagnostic, Level};
use procwarden_common::policy::EffectivePolicy;
use procwarden_common::printable::printable;

use super::{Revisions, Who};
use crate::ledger::LedgerState;

/// Errors that are told of one combination.
const ERRORS_TOLD_MAX: usize = 3;

/// Combinations that are told of as bad already.
const WARNINGS_TOLD_MAX: usize = 5;

/// Hosts, by one of them and their number; tokens where there are none.
pub(super) fn who(state: &LedgerState, all: &BTreeSet<Who>) -> String {
    let mut hosts = all.iter().filter_map(|who| match who {
        Who::Host(id) => Some(*id),
        Who::Token(_) | Who::NewToken => None,
    });
    let Some(first) = hosts.next() else {
        return enrolling(all);
    };
    let host = state.hosts.get(&first);
    let name = host.map_or_else(|| "?".to_owned(), |host| printable(host.name.as_bytes()));
    match hosts.count() {
        0 => format!("host {name} ({first})"),
        more => format!("{} hosts such as {name} ({first})", more + 1),
    }
}

/// Hosts that are not there yet.
fn enrolling(tokens: &BTreeSet<Who>) -> String {
    match (tokens.first(), tokens.len()) {
        (Some(Who::Token(id)), 0 | 1) => format!(
            "hosts that enrol with token {0} (end it with `procwarden token revoke {0}` if nobody \
             shall use it)",
            printable(id.as_bytes())
        ),
        (Some(Who::Token(id)), count) => format!(
            "hosts that enrol with one of {count} tokens such as {} (`procwarden token list` shows \
             them with their groups; end those that nobody shall use with `procwarden token revoke`)",
            printable(id.as_bytes())
        ),
        _ => "hosts that enrol with this token".to_owned(),
    }
}

/// The first errors, each with the policy that it is in.
pub(super) fn reasons(effective: &EffectivePolicy, remarks: &[Diagnostic]) -> String {
    let errors = remarks.iter().filter(|remark| remark.level == Level::Error);
    let errors: Vec<_> = errors
        .map(|error| match effective.policy_with(&error.file) {
            Some(name) => format!("policy {name}: {error}"),
            None => error.to_string(),
        })
        .collect();
    let told = errors.iter().take(ERRORS_TOLD_MAX).cloned();
    let mut told = told.collect::<Vec<_>>().join("; ");
    if errors.len() > ERRORS_TOLD_MAX {
        let more = errors.len() - ERRORS_TOLD_MAX;
        told.push_str(&format!("; and {more} more"));
    }
    told
}

/// Why a change is refused.
pub(super) fn refused(who: &str, policies: &Revisions, why: &str) -> String {
    let names = names(policies);
    format!("{who} would get the policies {names} together, and agents refuse that: {why}")
}

/// What a change leaves as bad as it was.
pub(super) fn bad_already(who: &str, policies: &Revisions, why: &str) -> Diagnostic {
    let names = names(policies);
    warning(
        format!(
            "{who}: the policies {names} do not fit together, as they did not before, so agents \
             go on with what they took last: {why} [together]"
        ),
        "shorten one of them, or give it to other groups",
    )
}

/// That a fleet has more combinations than are compiled for one change.
pub(super) fn unchecked(count: usize) -> Diagnostic {
    warning(
        format!(
            "{count} more combinations of policies were not checked, those of tokens and the shortest ones: agents \
             refuse what does not fit together [unchecked]"
        ),
        "look at `procwarden policy status` afterwards",
    )
}

/// Keeps the first ones, and says how many there were besides.
pub(super) fn bound(warnings: &mut Vec<Diagnostic>) {
    let more = warnings.len().saturating_sub(WARNINGS_TOLD_MAX);
    if more > 0 {
        warnings.truncate(WARNINGS_TOLD_MAX);
        let message = format!("the same is true of {more} more combinations [together]");
        warnings.push(warning(message, ""));
    }
}

fn names(policies: &Revisions) -> String {
    let names: Vec<_> = policies.iter().map(|(name, _)| name.as_str()).collect();
    names.join(", ")
}

fn warning(message: String, help: &str) -> Diagnostic {
    Diagnostic {
        level: Level::Warning,
        file: "fleet".to_owned(),
        line: 0,
        column: 0,
        message,
        help: help.to_owned(),
    }
}
