//! Sessions with so many processes that they look like a fork bomb
//! (PT_FORKBOMB).
//!
//! Counted are living processes that share a session id above 1, those of
//! root included, those that a rule covers not. A session belongs to the
//! account of most of its processes; the sessions of one account are one
//! sighting, so that a bomb which changes its session is one finding.

use std::collections::BTreeMap;

use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::Process;
use procwarden_common::severity::Severity;

use super::account_processes::{AccountSighting, most_run};
use super::{DetectContext, Sighting};
use crate::procfs::process::is_ending;
use crate::snapshot::Snapshot;

/// The accounts whose sessions reach the limit, by uid.
pub(crate) fn detect(
    snapshot: &Snapshot,
    context: &DetectContext<'_>,
    is_ignored: &mut dyn FnMut(&Process) -> bool,
) -> Vec<AccountSighting> {
    let id = IndicatorId::FORK_BOMB;
    let Some(limit) = context
        .settings
        .session_processes
        .filter(|_| context.settings.detects(&id))
    else {
        return Vec::new();
    };
    let reaches = |count: usize| u64::try_from(count).is_ok_and(|count| count >= limit);
    let mut of_session: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in snapshot.processes().iter().filter(|p| is_counted(p)) {
        of_session.entry(process.session).or_default().push(process);
    }
    let mut of_account: BTreeMap<u32, Vec<(i32, Vec<&Process>)>> = BTreeMap::new();
    for (session, mut processes) in of_session {
        if !reaches(processes.len()) {
            continue;
        }
        processes.retain(|process| !is_ignored(process));
        if reaches(processes.len()) {
            let uid = owner(&processes);
            of_account
                .entry(uid)
                .or_default()
                .push((session, processes));
        }
    }
    let sighting = |(uid, sessions): (u32, Vec<(i32, Vec<&Process>)>)| {
        let all: Vec<&Process> = sessions
            .iter()
            .flat_map(|(_, of)| of.iter().copied())
            .collect();
        let first = all.iter().find(|process| process.uid == uid)?;
        let (session, largest) = sessions.iter().max_by_key(|(_, of)| of.len())?;
        let others = match sessions.len() {
            1 => String::new(),
            count => format!(" ({count} such sessions)"),
        };
        let evidence = format!(
            "{} processes in session {session}, the limit is {limit}{others}; most run {}",
            largest.len(),
            most_run(&all)
        );
        Some(AccountSighting {
            uid,
            user: std::sync::Arc::clone(&first.user),
            sighting: Sighting::new(id.clone(), Severity::High, evidence),
            members: all.iter().map(|process| process.key).collect(),
        })
    };
    of_account.into_iter().filter_map(sighting).collect()
}

fn is_counted(process: &Process) -> bool {
    !process.kernel_thread && process.session > 1 && !is_ending(process)
}

/// The account of most of them; of the lowest number among equals.
fn owner(processes: &[&Process]) -> u32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for process in processes {
        *counts.entry(process.uid).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(uid, count)| (*count, std::cmp::Reverse(*uid)));
    most.map_or(0, |(uid, _)| uid)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use procwarden_common::policy::Settings;

    use super::*;
    use crate::detect::scope::Scope;
    use crate::detect::{Young, sample};

    fn herd(uid: u32, session: i32, pids: std::ops::Range<u32>) -> Vec<Process> {
        pids.map(|pid| {
            let mut process = sample::of_account(uid, if uid == 0 { b"root" } else { b"alice" });
            (process.key.pid, process.session) = (pid, session);
            process
        })
        .collect()
    }

    fn seen(processes: Vec<Process>, ignored: &[u32]) -> Vec<(u32, usize, String)> {
        let settings = Settings {
            session_processes: Some(4),
            ..Settings::default()
        };
        let processes = processes.into_iter().map(std::sync::Arc::new).collect();
        let snapshot = Snapshot::new(processes, HashSet::new());
        let groups = HashSet::new();
        let context = DetectContext::new(&settings, &Scope::Everyone, &groups, Young::Wait);
        let accounts = detect(&snapshot, &context, &mut |p| ignored.contains(&p.key.pid));
        let row = |a: AccountSighting| (a.uid, a.members.len(), a.sighting.indicator.evidence);
        accounts.into_iter().map(row).collect()
    }

    #[test]
    fn a_session_that_reaches_the_limit_is_seen_root_s_included() {
        assert!(seen(herd(1000, 77, 10..13), &[]).is_empty());
        let evidence = "4 processes in session 77, the limit is 4; most run \"/usr/bin/sleep\" (4)";
        let expected = vec![(1000, 4, evidence.to_owned())];
        assert_eq!(seen(herd(1000, 77, 10..14), &[]), expected);
        assert_eq!(seen(herd(0, 77, 10..14), &[])[0].0, 0);
    }

    #[test]
    fn sessions_zero_and_one_ended_and_ignored_processes_do_not_count() {
        assert!(seen(herd(0, 0, 10..20), &[]).is_empty());
        assert!(seen(herd(0, 1, 10..20), &[]).is_empty());
        assert!(seen(herd(1000, 77, 10..14), &[11]).is_empty());
        let mut processes = herd(1000, 77, 10..14);
        processes[0].state = b'Z';
        assert!(seen(processes, &[]).is_empty());
    }

    #[test]
    fn the_sessions_of_one_account_are_one_sighting() {
        let mut processes = herd(1000, 77, 10..14);
        processes.extend(herd(1000, 99, 20..25));
        // One process of root's does not make it root's.
        processes.extend(herd(0, 99, 30..31));
        let seen = seen(processes, &[]);
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].0, seen[0].1), (1000, 10));
        assert!(
            seen[0].2.contains("6 processes in session 99"),
            "{}",
            seen[0].2
        );
        assert!(seen[0].2.contains("(2 such sessions)"), "{}", seen[0].2);
    }
}
