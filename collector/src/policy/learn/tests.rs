//! What is proposed, what is left out, and that the file is a policy.

use procwarden_common::finding::{Finding, FindingState, ProcessFacts, Subject};
use procwarden_common::id::{BootId, FindingId};
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::{Cmdline, ProcessKey};
use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn learning() -> Learning {
    Learning {
        since: NOW.plus_millis(-1000),
        until: NOW.plus_millis(1000),
        started_by: "uid:0(root)".into(),
        ended_by: None,
    }
}

pub(super) fn finding(host: u8, pid: u32, exe: Option<&[u8]>, severity: Severity) -> StoredFinding {
    let key = ProcessKey {
        boot_id: BootId::from_slice(&[1; 16]).unwrap(),
        pid,
        start_time: 1,
    };
    let process = ProcessFacts {
        exe: exe.map(<[u8]>::to_vec),
        cmdline: Cmdline {
            raw: b"x\n#\0exe:/bin/sh\0".to_vec(),
            truncated: false,
        },
        ..ProcessFacts::default()
    };
    StoredFinding {
        id: FindingId::from_bytes([host; 16]),
        host_id: HostId::from_slice(&[host; 16]).unwrap(),
        host_name: format!("web{host}"),
        finding: Finding {
            subject: Subject::Process(key),
            indicators: vec![Indicator {
                id: IndicatorId::UNEXPECTED_LISTENER,
                severity,
                evidence: "why".into(),
            }],
            observed_at: NOW,
            uid: 1000,
            user: b"bob\nexe:/bin/sh".to_vec(),
            process: Some(process),
            host: None,
            actions: Vec::new(),
            quiet: false,
        },
        state: FindingState::Open,
        first_seen: NOW,
        last_seen: NOW,
        ended_at: None,
        evidence_position: 0,
    }
}

/// An account over a limit, since a second of its own.
fn about_account(second: u32) -> StoredFinding {
    let mut account = finding(1, second, None, Severity::Medium);
    account.finding.process = None;
    account.finding.subject = Subject::Account {
        boot_id: BootId::from_slice(&[1; 16]).unwrap(),
        uid: 1000,
        since: NOW,
    };
    account
}

fn propose_of(findings: &[StoredFinding]) -> Proposed {
    let mut learner = Learner::default();
    findings.iter().for_each(|stored| learner.add(stored));
    learner.finish("web", &learning(), NOW)
}

fn rules(text: &str) -> Vec<String> {
    let preset = ("proposal", text);
    let (_, policy) = {
        let file = PolicyFile {
            path: preset.0.into(),
            content: preset.1.as_bytes().to_vec(),
        };
        let document = PolicyDocument {
            name: "p".into(),
            revision: 1,
            files: vec![file],
            settings: String::new(),
        };
        let effective = EffectivePolicy {
            documents: vec![document],
        };
        let (policy, remarks) = Policy::compile(&effective).unwrap();
        assert_eq!(remarks, [], "{text}");
        (0, policy)
    };
    policy.rules().iter().map(ToString::to_string).collect()
}

#[test]
fn programs_are_proposed_by_path_with_their_counts_and_presets() {
    let proposed = propose_of(&[
        finding(1, 1, Some(b"/usr/sbin/nginx"), Severity::High),
        finding(1, 2, Some(b"/usr/sbin/agent"), Severity::Low),
        finding(2, 3, Some(b"/usr/sbin/agent"), Severity::Medium),
        finding(2, 4, Some(b"/usr/sbin/agent"), Severity::Low),
    ]);
    assert_eq!((proposed.rules, proposed.left_out), (2, 0));
    let text = proposed.text;
    assert_eq!(rules(&text), ["exe:/usr/sbin/agent", "exe:/usr/sbin/nginx"]);
    let counts = "# 3 process(es) on 2 host(s), last 2026-11-23T09:00:00Z, up to medium: \
                  unexpected-listener x3; as bob\\nexe:/bin/sh\nexe:/usr/sbin/agent\n";
    assert!(text.contains(counts), "{text}");
    assert!(
        text.contains("# preset nginx has a rule for it\n"),
        "{text}"
    );
}

#[test]
fn what_nobody_should_whitelist_is_named_and_not_proposed() {
    let mut deleted = finding(1, 9, Some(b"/usr/sbin/replaced"), Severity::Medium);
    if let Some(process) = &mut deleted.finding.process {
        process.exe_deleted = true;
    }
    let account = about_account(10);
    let proposed = propose_of(&[
        finding(1, 1, Some(b"/usr/bin/perl"), Severity::Medium),
        finding(1, 2, Some(b"/tmp/x"), Severity::Medium),
        finding(1, 3, Some(b"/home/bob/x"), Severity::Medium),
        finding(1, 4, Some(b"/usr/sbin/gone (deleted)"), Severity::Medium),
        finding(1, 5, Some(b"/memfd:x (deleted)"), Severity::Critical),
        finding(1, 6, Some(b"/usr/sbin/critical"), Severity::Critical),
        finding(1, 7, Some(b"/usr/sbin/critical"), Severity::Low),
        finding(1, 8, None, Severity::Medium),
        deleted,
        account,
    ]);
    assert_eq!(rules(&proposed.text), Vec::<String>::new());
    assert_eq!((proposed.rules, proposed.left_out), (0, 9));
    for name in [
        "/usr/bin/perl: ",
        "/tmp/x: ",
        "/usr/sbin/critical: ",
        "(an account over",
    ] {
        assert!(
            proposed.text.contains(&format!("# {name}")),
            "{name} {}",
            proposed.text
        );
    }
}

#[test]
fn a_finding_about_the_host_is_none_about_an_account() {
    let mut host = about_account(1);
    host.finding.user = b"root".to_vec();
    host.finding.subject = Subject::Host {
        boot_id: BootId::from_slice(&[1; 16]).unwrap(),
        since: NOW,
    };
    let proposed = propose_of(&[host, about_account(2)]);
    assert_eq!((proposed.rules, proposed.left_out), (0, 2));
    let text = proposed.text;
    assert!(
        text.contains("# (the host itself, such as its load average): no rule covers a host"),
        "{text}"
    );
    assert!(text.contains("# (an account over a limit): "), "{text}");
    assert!(text.contains("x1; as bob"), "{text}");
    assert!(!text.contains("as root"), "{text}");
}

#[test]
fn what_had_no_room_is_among_what_is_left_out() {
    let mut learner = Learner::default();
    let more = 3;
    for n in 0..programs::ANYWHERE_MAX + more {
        let exe = format!("/tmp/.{n}");
        learner.add(&finding(1, 1, Some(exe.as_bytes()), Severity::Medium));
    }
    learner.add(&finding(1, 1, Some(b"/usr/sbin/nginx"), Severity::Low));
    let proposed = learner.finish("web", &learning(), NOW);
    assert_eq!(rules(&proposed.text), ["exe:/usr/sbin/nginx"]);
    let left_out = programs::ANYWHERE_MAX + more;
    assert_eq!(proposed.left_out, left_out as u64);
    let said = "# 3 finding(s) of 3 more program(s) are not counted";
    assert!(proposed.text.contains(said));
}

#[test]
fn what_the_file_has_no_room_for_is_counted_in_it() {
    let mut learner = Learner::default();
    let long = "x".repeat(PATH_BYTES_MAX - 100);
    for n in 0..600 {
        for place in ["/usr/sbin", "/tmp"] {
            let exe = format!("{place}/{n}{long}");
            learner.add(&finding(1, 1, Some(exe.as_bytes()), Severity::Low));
        }
    }
    let proposed = learner.finish("web", &learning(), NOW);
    assert_eq!(proposed.rules + proposed.left_out, 1_200);
    assert!(proposed.text.len() < 2 * 1024 * 1024 + 200);
    assert!(
        proposed.text.contains("more program(s) are not named"),
        "{} rules",
        proposed.rules
    );
}

#[test]
fn every_preset_is_considered() {
    assert_eq!(PRESETS.iter().filter_map(compiled).count(), PRESETS.len());
}

#[test]
fn a_time_of_learning_covers_its_begin_and_not_its_end() {
    let learning = learning();
    let covered = |at: i64| learning.covers(NOW.plus_millis(at));
    let seen = [-1001, -1000, 0, 999, 1000].map(covered);
    assert_eq!(seen, [false, true, true, true, false]);
}

proptest! {
    #[test]
    fn hostile_paths_never_add_a_line_of_their_own(
        exe in proptest::collection::vec(prop_oneof![
            proptest::sample::select(b"\n\r #:/@\\\"".to_vec()), any::<u8>(),
        ], 0..30),
    ) {
        let exe = [b"/usr/sbin/".as_slice(), &exe].concat();
        let stored = finding(1, 1, Some(&exe), Severity::Low);
        let text = RuleText::of_finding(&stored.finding);
        let proposed = propose_of(&[stored]);
        let rules = rules(&proposed.text);
        prop_assert_eq!(rules.len() as u64, proposed.rules);
        for rule in rules {
            prop_assert_eq!(rule, format!("exe:{}", text.exe.clone().unwrap()));
        }
    }
}
