//! Deciding what is said, over several scans.

use std::collections::HashSet;
use std::sync::Arc;

use procwarden_common::indicator::Indicator;
use procwarden_common::policy::{Rule, RuleFacts, RuleKey, RuleOrigin};
use procwarden_common::process::ProcessKey;
use proptest::prelude::*;

use super::*;
use crate::scan::{ScanStats, Suspect};

pub(crate) fn boot(n: u8) -> BootId {
    BootId::from_slice(&[n; 16]).unwrap()
}

pub(crate) fn process(boot_n: u8, pid: u32) -> Subject {
    Subject::Process(ProcessKey {
        boot_id: boot(boot_n),
        pid,
        start_time: 100,
    })
}

pub(crate) fn account(uid: u32, since: i64) -> Subject {
    Subject::Account {
        boot_id: boot(1),
        uid,
        since: UnixMillis(since),
    }
}

pub(super) fn set(subjects: &[Subject]) -> Reported {
    let said = Said {
        indicators: [IndicatorId::EXE_MEMFD, IndicatorId::EXE_DELETED].into(),
        highest: Some(Severity::High),
        actions: ["on_deleted".to_owned()].into(),
    };
    Reported {
        subjects: subjects.iter().map(|s| (*s, said.clone())).collect(),
        missing: BTreeSet::new(),
    }
}

pub(crate) fn suspect(subject: Subject, indicators: &[(IndicatorId, Severity)]) -> Suspect {
    let indicator = |(id, severity): &(IndicatorId, Severity)| Indicator {
        id: id.clone(),
        severity: *severity,
        evidence: "e".into(),
    };
    Suspect {
        bare: Finding {
            subject,
            indicators: indicators.iter().map(indicator).collect(),
            observed_at: UnixMillis(0),
            uid: 1,
            user: b"u".to_vec(),
            process: None,
            host: None,
            actions: Vec::new(),
            quiet: false,
        },
        process: None,
        verdict: Verdict::Report,
        members: Vec::new(),
    }
}

fn ignored(suspect: Suspect) -> Suspect {
    ignored_by("u", suspect)
}

/// Ignored by a rule for this account.
pub(crate) fn ignored_by(user: &str, mut suspect: Suspect) -> Suspect {
    let origin = RuleOrigin {
        policy: "p".into(),
        revision: 1,
        file: "f".into(),
        line: 1,
    };
    suspect.verdict = Verdict::Ignored(Arc::new(Rule {
        key: RuleKey::User,
        value: user.into(),
        origin,
        facts: RuleFacts::default(),
    }));
    suspect
}

pub(crate) fn scan(at: i64, pids: &[u32], suspects: Vec<Suspect>) -> ScanOutcome {
    let key = |pid: &u32| ProcessKey {
        boot_id: boot(1),
        pid: *pid,
        start_time: 100,
    };
    let alive: HashSet<_> = pids.iter().map(key).collect();
    ScanOutcome {
        at: UnixMillis(at),
        alive,
        unknown: HashSet::new(),
        young: Vec::new(),
        suspects,
        stats: ScanStats::default(),
        notes: Vec::new(),
    }
}

impl Reported {
    /// All that has to be said after a scan.
    fn decide(&mut self, boot: BootId, outcome: &ScanOutcome) -> Vec<Change> {
        let mut changes = self.decide_ended(boot, outcome);
        // Without a list the scanner finds no suspects either.
        changes.extend(self.decide_looked(&outcome.suspects, true));
        changes
    }
}

/// `+` and `-` with PID or uid.
fn words(changes: &[Change]) -> Vec<String> {
    let number = |subject: &Subject| match subject {
        Subject::Process(key) => key.pid,
        Subject::Account { uid, .. } => *uid,
        Subject::Host { .. } => 0,
    };
    let word = |change: &Change| match change {
        Change::Reported(finding) => format!("+{}", number(&finding.subject)),
        Change::Ended(ended) => format!("-{}", number(&ended.subject)),
    };
    changes.iter().map(word).collect()
}

const MEMFD: (IndicatorId, Severity) = (IndicatorId::EXE_MEMFD, Severity::High);
const LISTENER: (IndicatorId, Severity) = (IndicatorId::UNEXPECTED_LISTENER, Severity::Low);
const WORSE: (IndicatorId, Severity) = (IndicatorId::FAKE_KERNEL_THREAD, Severity::Critical);

#[test]
fn a_process_is_reported_once_and_ends_once() {
    let mut reported = Reported::default();
    let seen = || scan(1, &[1, 5], vec![suspect(process(1, 5), &[MEMFD])]);
    assert_eq!(words(&reported.decide(boot(1), &seen())), ["+5"]);
    assert!(reported.decide(boot(1), &seen()).is_empty());
    assert!(
        reported
            .decide(boot(1), &scan(2, &[1, 5], vec![]))
            .is_empty()
    );
    assert_eq!(
        words(&reported.decide(boot(1), &scan(3, &[1], vec![]))),
        ["-5"]
    );
    assert!(reported.decide(boot(1), &scan(4, &[1], vec![])).is_empty());
}

#[test]
fn more_indicators_or_a_higher_severity_are_said_and_fewer_are_not() {
    let mut reported = Reported::default();
    let worse = (IndicatorId::UNEXPECTED_LISTENER, Severity::Critical);
    for (indicators, said) in [
        (vec![LISTENER], true),
        (vec![LISTENER, MEMFD], true),
        (vec![MEMFD], false),
        (vec![LISTENER], false),
        (vec![worse.clone()], true),
        (vec![LISTENER, MEMFD, worse], false),
    ] {
        let outcome = scan(1, &[5], vec![suspect(process(1, 5), &indicators)]);
        assert_eq!(
            !reported.decide(boot(1), &outcome).is_empty(),
            said,
            "{indicators:?}"
        );
    }
}

#[test]
fn an_ignored_process_is_reported_when_its_rule_goes_away() {
    let mut reported = Reported::default();
    let suspect = || suspect(process(1, 5), &[MEMFD]);
    assert!(
        reported
            .decide(boot(1), &scan(1, &[5], vec![ignored(suspect())]))
            .is_empty()
    );
    assert_eq!(reported.len(), 0);
    assert_eq!(
        words(&reported.decide(boot(1), &scan(2, &[5], vec![suspect()]))),
        ["+5"]
    );
    // Reported, then ignored for a while: nothing is repeated.
    assert!(
        reported
            .decide(boot(1), &scan(3, &[5], vec![ignored(suspect())]))
            .is_empty()
    );
    assert!(
        reported
            .decide(boot(1), &scan(4, &[5], vec![suspect()]))
            .is_empty()
    );
}

#[test]
fn what_ran_before_a_reboot_has_ended() {
    let mut reported = set(&[process(2, 5), account(33, 7)]);
    let changes = reported.decide(boot(3), &scan(1, &[5], vec![]));
    assert_eq!(words(&changes), ["-5", "-33"]);
}

#[test]
fn an_account_keeps_its_episode_until_it_is_below_its_limit() {
    let mut reported = Reported::default();
    let over = |at| scan(at, &[1], vec![suspect(account(33, at), &[LISTENER])]);
    assert_eq!(words(&reported.decide(boot(1), &over(10))), ["+33"]);
    assert!(reported.decide(boot(1), &over(20)).is_empty());
    // One scan without it says nothing: it may be the first after a start.
    assert!(reported.decide(boot(1), &scan(22, &[1], vec![])).is_empty());
    assert!(reported.decide(boot(1), &over(24)).is_empty());
    assert!(reported.decide(boot(1), &scan(26, &[1], vec![])).is_empty());
    let ended = reported.decide(boot(1), &scan(30, &[1], vec![]));
    assert_eq!(
        ended,
        [Change::Ended(Ended {
            subject: account(33, 10),
            ended_at: UnixMillis(30)
        })]
    );
    let again = reported.decide(boot(1), &over(40));
    let [Change::Reported(finding)] = again.as_slice() else {
        panic!("{again:?}")
    };
    assert_eq!(finding.subject, account(33, 40));
}

#[test]
fn a_scan_that_saw_nothing_ends_nothing() {
    let mut reported = set(&[process(1, 5)]);
    assert!(reported.decide(boot(1), &scan(1, &[], vec![])).is_empty());
    assert_eq!(reported.len(), 1);
}

#[test]
fn an_account_keeps_its_episode_over_clock_jumps_in_both_directions() {
    const DAY: i64 = 86_400_000;
    let mut reported = Reported::default();
    let over = |at| scan(at, &[1], vec![suspect(account(33, at), &[LISTENER])]);
    assert_eq!(words(&reported.decide(boot(1), &over(1000))), ["+33"]);
    for at in [1000 + 400 * DAY, -DAY, 0, 1001, i64::MAX, i64::MIN] {
        assert!(reported.decide(boot(1), &over(at)).is_empty(), "{at}");
    }
    assert!(reported.decide(boot(1), &scan(5, &[1], vec![])).is_empty());
    // Its end is told by the clock of the moment, about the same episode.
    let ended = reported.decide(boot(1), &scan(3, &[1], vec![]));
    let expected = Ended {
        subject: account(33, 1000),
        ended_at: UnixMillis(3),
    };
    assert_eq!(ended, [Change::Ended(expected)]);
    assert_eq!(reported.len(), 0);
}

/// The set as the next start of the agent reads it.
fn restarted(reported: &Reported) -> Reported {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, _, _) = file::ReportedFile::load(dir.path()).unwrap();
    file.save(reported).unwrap();
    let (_, read, is_damaged) = file::ReportedFile::load(dir.path()).unwrap();
    assert!(!is_damaged);
    read
}

#[test]
fn an_action_is_remembered_over_restarts_until_its_process_is_gone() {
    let mut reported = Reported::default();
    let seen = || scan(1, &[1, 5], vec![suspect(process(1, 5), &[MEMFD])]);
    assert_eq!(words(&reported.decide(boot(1), &seen())), ["+5"]);
    reported.note_action(process(1, 5), "on_deleted");
    for _ in 0..3 {
        reported = restarted(&reported);
        assert!(reported.decide(boot(1), &seen()).is_empty());
        assert!(reported.has_acted(&process(1, 5), "on_deleted"));
        assert!(!reported.has_acted(&process(1, 5), "on_over_limit"));
    }
    let gone = reported.decide(boot(1), &scan(2, &[1], vec![]));
    assert_eq!(words(&gone), ["-5"]);
    assert!(!reported.has_acted(&process(1, 5), "on_deleted"));
}

#[test]
fn what_is_unsaid_is_reported_anew_as_it_is_then_and_its_actions_are_not_repeated() {
    let mut reported = Reported::default();
    let seen = |what| {
        scan(
            1,
            &[1, 5, 6],
            vec![
                suspect(process(1, 5), &[what]),
                suspect(process(1, 6), &[MEMFD]),
            ],
        )
    };
    assert_eq!(words(&reported.decide(boot(1), &seen(MEMFD))), ["+5", "+6"]);
    reported.note_action(process(1, 5), "on_deleted");
    reported.unsay(&process(1, 5));
    reported.unsay(&process(1, 7));
    reported = restarted(&reported);
    let without_room = reported.decide_looked(&seen(LISTENER).suspects, false);
    assert!(without_room.is_empty());
    let worse = scan(1, &[5], vec![suspect(process(1, 5), &[WORSE])]);
    let mut reported_worse = reported.clone();
    let without_room = reported_worse.decide_looked(&worse.suspects, false);
    assert_eq!(words(&without_room), ["+5"]);
    let changes = reported.decide(boot(1), &seen(LISTENER));
    assert_eq!(words(&changes), ["+5"]);
    let [Change::Reported(finding)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(finding.indicators[0].id, IndicatorId::UNEXPECTED_LISTENER);
    assert!(reported.has_acted(&process(1, 5), "on_deleted"));
    assert!(reported.decide(boot(1), &seen(LISTENER)).is_empty());
    reported.unsay_all();
    assert_eq!(words(&reported.decide(boot(1), &seen(MEMFD))), ["+5", "+6"]);
}

proptest! {
    #[test]
    fn reports_and_ends_alternate_and_memory_is_bounded_whatever_the_clock_and_restarts_do(
        scans in proptest::collection::vec(
            (
                proptest::collection::btree_map(2u32..8, any::<Option<bool>>(), 0..6),
                any::<i64>(),
                proptest::bool::weighted(0.2),
            ),
            1..20,
        )
    ) {
        // Per PID: None is alive and harmless, Some(false) suspicious, Some(true) ignored.
        let mut reported = Reported::default();
        let mut open = std::collections::BTreeSet::new();
        for (processes, at, is_restart) in scans {
            if is_restart {
                reported = restarted(&reported);
            }
            let mut pids: Vec<u32> = processes.keys().copied().collect();
            pids.push(1);
            let suspects = processes.iter().filter_map(|(&pid, &kind)| {
                let suspect = suspect(process(1, pid), &[MEMFD]);
                kind.map(|is_ignored| if is_ignored { ignored(suspect) } else { suspect })
            }).collect();
            for change in reported.decide(boot(1), &scan(at, &pids, suspects)) {
                match change {
                    Change::Reported(f) => prop_assert!(open.insert(f.subject)),
                    Change::Ended(e) => prop_assert!(open.remove(&e.subject)),
                }
            }
            prop_assert!(reported.len() <= pids.len());
            prop_assert_eq!(reported.len(), open.len());
        }
    }
}
