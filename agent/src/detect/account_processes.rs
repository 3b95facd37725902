//! Accounts that run more processes than their limit (PT_USERPROC).
//!
//! Counted are living processes of accounts in scope but `nobody`, those with
//! a deleted executable included, those that a rule covers not. Rules are
//! asked only where the bare number is over the limit already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::{Process, ProcessKey};
use procwarden_common::severity::Severity;

use super::evidence_text::quoted;
use super::scope::{self, Standing};
use super::{DetectContext, Sighting};
use crate::procfs::process::is_ending;
use crate::snapshot::Snapshot;

/// Executables that evidence names.
const NAMED_MAX: usize = 3;

/// An account over its limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AccountSighting {
    pub(crate) uid: u32,
    pub(crate) user: Arc<[u8]>,
    pub(crate) sighting: Sighting,
    /// The processes that were counted.
    pub(crate) members: Vec<ProcessKey>,
}

/// The accounts over their limit, by uid.
pub(crate) fn detect(
    snapshot: &Snapshot,
    context: &DetectContext<'_>,
    is_ignored: &mut dyn FnMut(&Process) -> bool,
) -> Vec<AccountSighting> {
    let id = IndicatorId::USER_PROCESS_COUNT;
    let Some(limit) = context
        .settings
        .user_processes
        .filter(|_| context.settings.detects(&id))
    else {
        return Vec::new();
    };
    let over = |count: usize| u64::try_from(count).is_ok_and(|count| count > limit);
    let mut of_account: BTreeMap<u32, Vec<&Process>> = BTreeMap::new();
    for process in snapshot
        .processes()
        .iter()
        .filter(|process| is_counted(process, context))
    {
        of_account.entry(process.uid).or_default().push(process);
    }
    let mut sightings = Vec::new();
    for (uid, mut processes) in of_account {
        if !over(processes.len()) {
            continue;
        }
        processes.retain(|process| !is_ignored(process));
        let Some(first) = processes.first().filter(|_| over(processes.len())) else {
            continue;
        };
        let evidence = format!(
            "{} processes, the limit is {limit}; most run {}",
            processes.len(),
            most_run(&processes)
        );
        let sighting = Sighting::new(id.clone(), Severity::Medium, evidence);
        sightings.push(AccountSighting {
            uid,
            user: Arc::clone(&first.user),
            sighting,
            members: processes.iter().map(|process| process.key).collect(),
        });
    }
    sightings
}

fn is_counted(process: &Process, context: &DetectContext<'_>) -> bool {
    !process.kernel_thread
        && !is_ending(process)
        && !scope::is_nobody(process)
        && context.scope.standing(process) == Standing::InScope
}

/// What most of some processes run, in words.
pub(super) fn most_run(processes: &[&Process]) -> String {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for process in processes {
        let exe = process
            .exe
            .value()
            .map_or(&process.comm[..], |exe| &exe.link);
        *counts.entry(exe).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let shown: Vec<String> = counts
        .iter()
        .take(NAMED_MAX)
        .map(|(exe, count)| format!("{} ({count})", quoted(exe)))
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use procwarden_common::policy::Settings;
    use procwarden_common::process::ExeState;

    use super::*;
    use crate::detect::scope::Scope;
    use crate::detect::{Young, sample};

    fn herd(uid: u32, user: &[u8], pids: std::ops::Range<u32>) -> Vec<Process> {
        pids.map(|pid| {
            let mut process = sample::of_account(uid, user);
            process.key.pid = pid;
            process
        })
        .collect()
    }

    fn over(processes: Vec<Process>, ignored: &[u32]) -> Vec<(u32, String)> {
        let settings = Settings {
            user_processes: Some(3),
            ..Settings::default()
        };
        let snapshot = Snapshot::new(
            processes.into_iter().map(Arc::new).collect(),
            HashSet::new(),
        );
        let groups = HashSet::new();
        let context = DetectContext::new(&settings, &Scope::Everyone, &groups, Young::Wait);
        let seen = detect(&snapshot, &context, &mut |process| {
            ignored.contains(&process.key.pid)
        });
        seen.into_iter()
            .map(|account| (account.uid, account.sighting.indicator.evidence))
            .collect()
    }

    #[test]
    fn an_account_is_seen_above_its_limit() {
        let four = over(herd(1000, b"alice", 1..5), &[]);
        assert_eq!(
            four,
            [(
                1000,
                "4 processes, the limit is 3; most run \"/usr/bin/sleep\" (4)".to_owned()
            )]
        );
        assert!(over(herd(1000, b"alice", 1..4), &[]).is_empty());
    }

    #[test]
    fn root_nobody_zombies_and_ignored_processes_do_not_count() {
        assert!(over(herd(0, b"root", 1..9), &[]).is_empty());
        assert!(over(herd(99, b"nobody", 1..9), &[]).is_empty());
        assert!(over(herd(1000, b"alice", 1..5), &[3]).is_empty());
        let mut processes = herd(1000, b"alice", 1..5);
        processes
            .iter_mut()
            .take(1)
            .for_each(|process| process.state = b'Z');
        assert!(over(processes, &[]).is_empty());
    }

    #[test]
    fn deleted_executables_count() {
        let mut processes = herd(1000, b"alice", 1..4);
        let mut deleted = sample::with_exe(1000, b"/home/a/x (deleted)", ExeState::Deleted);
        deleted.key.pid = 9;
        processes.push(deleted);
        assert_eq!(over(processes, &[]).len(), 1);
    }
}
