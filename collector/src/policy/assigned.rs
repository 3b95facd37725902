//! What is doubtful about the groups that a policy is given to. Pure.

use procwarden_common::diagnostic::{Diagnostic, Level};

use crate::ledger::LedgerState;
use crate::ledger::state::{GROUP_ALL, GROUP_OF_HOST};

/// A warning for each group that no host is in: a name that was misspelt looks
/// like one whose hosts are yet to come.
pub(super) fn groups_without_hosts(state: &LedgerState, groups: &[String]) -> Vec<Diagnostic> {
    let is_empty = |group: &&String| {
        let mut hosts = state.hosts.values().filter(|host| !host.revoked);
        let is_special = *group == GROUP_ALL || group.starts_with(GROUP_OF_HOST);
        !is_special && !hosts.any(|host| host.is_in(group))
    };
    let empty = groups.iter().filter(is_empty);
    empty
        .map(|group| Diagnostic {
            level: Level::Warning,
            file: "fleet".to_owned(),
            line: 0,
            column: 0,
            message: format!("no host is in group {group} [no-host]"),
            help: "`procwarden hosts list` shows the groups of each host".to_owned(),
        })
        .collect()
}
