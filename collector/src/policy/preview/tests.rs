//! What rules would change, counted by the preview and by hand.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, FindingState, ProcessFacts, Subject};
use procwarden_common::id::{BootId, FindingId};
use procwarden_common::indicator::Indicator;
use procwarden_common::policy::{EffectivePolicy, PolicyDocument, PolicyFile};
use procwarden_common::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
use procwarden_common::wire::Change;
use proptest::prelude::*;

use super::sample::SAMPLES_MAX;
use super::*;
use crate::findings::FindingEntry;
use crate::journal::Position;
use crate::policy::hits::{HitSample, RuleSum};

/// In November 2026.
const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn policy(rules: &str) -> Policy {
    with_settings(rules, "")
}

fn with_settings(rules: &str, settings: &str) -> Policy {
    let document = PolicyDocument {
        name: "web".into(),
        revision: 1,
        files: vec![PolicyFile {
            path: "csf.pignore".into(),
            content: rules.as_bytes().to_vec(),
        }],
        settings: settings.into(),
    };
    let effective = EffectivePolicy {
        documents: vec![document],
    };
    Policy::compile(&effective).expect("rules that compile").0
}

/// Finding `number`, of a host, of an account, of an executable.
fn finding(number: u8, host: u8, user: &str, exe: &str, severity: Severity) -> StoredFinding {
    let key = ProcessKey {
        boot_id: BootId::from_slice(&[1; 16]).expect("16 bytes"),
        pid: u32::from(number),
        start_time: 1,
    };
    let indicator = |id| Indicator {
        id,
        severity,
        evidence: "why".into(),
    };
    StoredFinding {
        id: FindingId::from_bytes([number; 16]),
        host_id: HostId::from_slice(&[host; 16]).expect("16 bytes"),
        host_name: format!("web{host}"),
        finding: Finding {
            subject: Subject::Process(key),
            // Twice: an indicator counts once per finding.
            indicators: vec![
                indicator(IndicatorId::UNEXPECTED_LISTENER),
                indicator(IndicatorId::UNEXPECTED_LISTENER),
            ],
            observed_at: UnixMillis(i64::from(number)),
            uid: 1000,
            user: user.as_bytes().to_vec(),
            process: Some(ProcessFacts {
                exe: Some(exe.as_bytes().to_vec()),
                cmdline: Cmdline {
                    raw: format!("{exe}\0-x\0").into_bytes(),
                    truncated: false,
                },
                ..ProcessFacts::default()
            }),
            host: None,
            actions: Vec::new(),
            quiet: false,
        },
        state: FindingState::Open,
        first_seen: UnixMillis(i64::from(number)),
        last_seen: UnixMillis(i64::from(number)),
        ended_at: None,
        evidence_position: 1,
    }
}

fn preview(newest: &str, candidate: &str, findings: &[StoredFinding]) -> Report {
    let mut preview = Preview::new(policy(newest), policy(candidate), NOW);
    findings.iter().for_each(|stored| preview.add(stored));
    preview.finish()
}

fn lines(report: &Report) -> Vec<(Side, String, u64, u64, u64)> {
    let line = |r: &RuleReport| (r.side, r.rule.to_string(), r.findings, r.hosts, r.users);
    report.rules.iter().map(line).collect()
}

#[test]
fn what_settings_switch_off_is_counted_by_what_it_shows() {
    let findings = [
        finding(1, 1, "bob", "/opt/a", Severity::High),
        finding(2, 2, "eve", "/opt/a", Severity::High),
        finding(3, 2, "eve", "/opt/ignored", Severity::High),
    ];
    let rules = "exe:/opt/ignored\n";
    let totals = |newest: &str, candidate: &str| {
        let (newest, candidate) = (with_settings(rules, newest), with_settings("", candidate));
        let mut preview = Preview::new(newest, candidate, NOW);
        findings.iter().for_each(|stored| preview.add(stored));
        let report = preview.finish();
        let totals = report.totals;
        let off = (totals.switched_off, totals.switched_off_hosts);
        (off, totals.hidden, totals.shown, report.switched_off)
    };
    let off = "[detectors]\nunexpected-listener = false\n";
    let listeners = vec![(IndicatorId::UNEXPECTED_LISTENER, 2)];
    assert_eq!(totals("", off), ((2, 2), 0, 0, listeners));
    assert_eq!(totals("", ""), ((0, 0), 0, 1, Vec::new()));
    assert_eq!(totals(off, off), ((0, 0), 0, 1, Vec::new()));
    let other = "[detectors]\nexe-memfd = false\n";
    assert_eq!(totals("", other), ((0, 0), 0, 1, Vec::new()));
}

#[test]
fn a_rule_counts_while_it_is_in_force() {
    let findings = [finding(1, 1, "bob", "/opt/a", Severity::High)];
    let until = |day: &str| format!("#@ expires={day}\nexe:/opt/a\n");
    let (expired, in_force) = (until("2026-01-31"), until("2027-01-31"));
    let totals = |newest, candidate| {
        let totals = preview(newest, candidate, &findings).totals;
        (totals.hidden, totals.shown)
    };
    assert_eq!(totals("", &expired), (0, 0));
    assert_eq!(totals("", &in_force), (1, 0));
    assert_eq!(totals(&expired, &in_force), (1, 0), "a later end hides it");
    assert_eq!(
        totals(&in_force, &expired),
        (0, 1),
        "an earlier end shows it"
    );
}

#[test]
fn each_new_rule_says_what_it_hides_and_each_removed_one_what_it_brings_back() {
    use Severity::{Critical, High, Low};
    use Side::{Added, Removed};
    let findings = [
        finding(1, 1, "bob", "/opt/a", Low),
        finding(2, 2, "eve", "/opt/a", High),
        finding(3, 2, "eve", "/opt/b", Critical),
        finding(4, 3, "joe", "/opt/c", Low),
    ];
    let report = preview(
        "exe:/opt/c\nuser:nobody\n",
        "user:nobody\nexe:/opt/a\npexe:/opt/[ab]\ncmd:/opt/z -x\n",
        &findings,
    );
    let expected = [
        (Added, "pexe:/opt/[ab]".to_owned(), 1, 1, 1),
        (Added, "exe:/opt/a".to_owned(), 2, 2, 2),
        (Removed, "exe:/opt/c".to_owned(), 1, 1, 1),
        (Added, "cmd:/opt/z -x".to_owned(), 0, 0, 0),
    ];
    assert_eq!(lines(&report), expected);
    let a = &report.rules[1];
    assert_eq!(a.severity, Some(High));
    assert_eq!(a.indicators, [(IndicatorId::UNEXPECTED_LISTENER, 2)]);
    let users: Vec<_> = a.samples.iter().map(|s| s.user.as_str()).collect();
    assert_eq!(users, ["eve", "bob"], "the most severe one is first");
    let totals = Totals {
        findings: 4,
        hidden: 3,
        hidden_hosts: 2,
        shown: 1,
        shown_hosts: 1,
        rules_added: 3,
        rules_removed: 1,
        too_low: false,
        ..Totals::default()
    };
    assert_eq!(report.totals, totals);
}

/// What agents counted for a rule, with these samples.
fn counted(samples: &[StoredFinding]) -> RuleSum {
    let sample = |stored: &StoredFinding| HitSample {
        host: stored.host_id,
        finding: stored.finding.sample(),
    };
    RuleSum {
        processes: 12,
        severe: 2,
        hosts: 3,
        last: Some(NOW),
        samples: samples.iter().map(sample).collect(),
        ..RuleSum::default()
    }
}

/// What a candidate says of what each rule of the newest revision ignored.
fn ignored(newest: &str, candidate: &str, samples: &[StoredFinding]) -> Vec<(String, Ignored)> {
    let mut preview = Preview::new(policy(newest), policy(candidate), NOW);
    for rule in preview.newest_rules().to_vec() {
        preview.add_ignored(&rule, &counted(samples), |_| "web1");
    }
    let rules = preview.finish().rules.into_iter();
    rules
        .filter_map(|report| Some((report.rule.to_string(), report.ignored?)))
        .collect()
}

#[test]
fn a_removed_rule_says_what_it_ignored_and_what_of_it_would_be_reported() {
    let samples = [
        finding(1, 1, "bob", "/opt/a/x", Severity::High),
        finding(2, 1, "bob", "/opt/b/x", Severity::Low),
    ];
    let old = "pexe:/opt/.*";
    let said = ignored(&format!("{old}\n"), "exe:/opt/b/x\n", &samples);
    let [(rule, ignored_by)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(rule, old);
    assert_eq!(
        (ignored_by.processes, ignored_by.hosts, ignored_by.severe),
        (12, 3, 2)
    );
    let exes: Vec<_> = ignored_by.samples.iter().map(|s| s.exe.as_str()).collect();
    assert_eq!((exes, ignored_by.covered), (vec!["/opt/a/x"], 1));
    assert_eq!(ignored_by.samples[0].id, None, "nothing of it is stored");
    // Covered all the same: told, but nothing would be reported.
    let said = ignored(&format!("{old}\n"), "user:bob\n", &samples);
    assert_eq!((said[0].1.samples.len(), said[0].1.covered), (0, 2));
}

#[test]
fn a_rule_that_stays_is_told_of_only_when_it_no_longer_covers_its_samples() {
    let samples = [finding(1, 1, "bob", "/opt/a", Severity::Low)];
    assert_eq!(ignored("exe:/opt/a\n", "exe:/opt/a\n", &samples), []);
    let ended = "#@ expires=2026-01-31\nexe:/opt/a\n";
    let said = ignored("exe:/opt/a\n", ended, &samples);
    assert_eq!(said[0].1.samples.len(), 1);
}

#[test]
fn rules_that_bring_back_what_is_severe_come_first() {
    let severe = counted(&[finding(1, 1, "bob", "/opt/a", Severity::Critical)]);
    let mut preview = Preview::new(policy("exe:/opt/z\nexe:/opt/a\n"), policy("user:x\n"), NOW);
    preview.add(&finding(2, 1, "x", "/opt/y", Severity::High));
    let rule = preview.newest_rules()[1].clone();
    preview.add_ignored(&rule, &severe, |_| "web1");
    let order: Vec<_> = lines(&preview.finish())
        .into_iter()
        .map(|line| line.1)
        .collect();
    assert_eq!(order, ["exe:/opt/a", "user:x", "exe:/opt/z"]);
}

#[test]
fn what_is_ignored_already_is_not_counted_for_another_rule() {
    let findings = [finding(1, 1, "bob", "/opt/a", Severity::Low)];
    let report = preview("exe:/opt/a\n", "exe:/opt/a\nuser:bob\n", &findings);
    assert_eq!(
        lines(&report),
        [(Side::Added, "user:bob".to_owned(), 0, 0, 0)]
    );
    let report = preview("user:bob\n", "exe:/opt/a\n", &findings);
    assert!(report.rules.iter().all(|rule| rule.findings == 0));
    assert_eq!((report.totals.hidden, report.totals.shown), (0, 0));
}

#[test]
fn samples_are_the_most_severe_and_then_the_newest_and_their_text_is_cut() {
    let long = format!("/opt/{}", "x".repeat(2000));
    let mut findings: Vec<_> = (0..20)
        .map(|n| finding(n, 1, "bob", &long, Severity::Low))
        .collect();
    findings.push(finding(50, 1, "bob", &long, Severity::High));
    let report = preview("", "user:bob\n", &findings);
    let samples = &report.rules[0].samples;
    let ids: Vec<_> = samples
        .iter()
        .map(|s| s.id.unwrap().as_bytes()[0])
        .collect();
    assert_eq!(ids, [50, 19, 18, 17, 16]);
    assert_eq!(samples.len(), SAMPLES_MAX);
    assert!(samples.iter().all(|s| s.exe.len() == 256), "{samples:?}");
}

#[test]
fn the_record_of_the_index_has_every_text_that_rules_look_at() {
    let stored = finding(1, 1, "bob\n", "/opt/\x1b", Severity::Low);
    let mut whole = stored.finding.clone();
    if let Some(facts) = &mut whole.process {
        facts.files = vec![b"/etc/passwd".to_vec()];
    }
    let entry = FindingEntry {
        host_id: stored.host_id,
        host_name: stored.host_name,
        received_at: UnixMillis(1),
        first_seen: UnixMillis(1),
        ended_at: None,
        alertable: true,
        previous: None,
        change: Change::Reported(Box::new(whole.clone())),
    };
    let compact = entry.stored(entry.id(), &whole, Position(1));
    assert_ne!(compact.finding, whole);
    let text = RuleText::of_finding(&compact.finding);
    assert_eq!(text, RuleText::of_finding(&whole));
    assert!(text.exe.is_some() && text.cmd.is_some());
}

fn rules() -> impl Strategy<Value = String> {
    let rule = prop_oneof![
        "[ab]".prop_map(|user| format!("user:{user}\n")),
        "[a-d]".prop_map(|exe| format!("exe:/opt/{exe}\n")),
        "[a-d]{1,2}".prop_map(|exes| format!("pexe:/opt/[{exes}]\n")),
        "[a-d]".prop_map(|exe| format!("cmd:/opt/{exe} -x\n")),
    ];
    proptest::collection::vec(rule, 0..6).prop_map(|rules| rules.concat())
}

fn findings() -> impl Strategy<Value = Vec<StoredFinding>> {
    let one = (0u8..5, "[abc]", "[a-e]", 0usize..5);
    proptest::collection::vec(one, 0..40).prop_map(|all| {
        let number = |n: usize| u8::try_from(n).expect("few");
        all.into_iter()
            .enumerate()
            .map(|(n, (host, user, exe, severity))| {
                let exe = format!("/opt/{exe}");
                finding(number(n), host, &user, &exe, Severity::ALL[severity])
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn counts_are_those_of_judging_each_finding_by_hand(
        newest in rules(),
        candidate in rules(),
        findings in findings(),
    ) {
        let report = preview(&newest, &candidate, &findings);
        let (old, new) = (policy(&newest), policy(&candidate));
        let verdicts = |stored: &StoredFinding| {
            let text = RuleText::of_finding(&stored.finding);
            (judge(&old, &text, NOW), judge(&new, &text, NOW))
        };
        for rule in &report.rules {
            let is_its = |stored: &&StoredFinding| match (rule.side, verdicts(stored)) {
                (Side::Added, (Verdict::Report, Verdict::Ignored(by)))
                | (Side::Removed, (Verdict::Ignored(by), Verdict::Report)) => {
                    by.to_string() == rule.rule.to_string()
                }
                _ => false,
            };
            let its: Vec<_> = findings.iter().filter(is_its).collect();
            let hosts: HashSet<_> = its.iter().map(|s| s.host_id).collect();
            let users: HashSet<_> = its.iter().map(|s| &s.finding.user).collect();
            prop_assert_eq!(rule.findings, its.len() as u64);
            prop_assert_eq!(rule.hosts, hosts.len() as u64);
            prop_assert_eq!(rule.users, users.len() as u64);
            prop_assert_eq!(rule.severity, its.iter().map(|s| s.finding.severity()).max());
            prop_assert_eq!(rule.samples.len(), its.len().min(SAMPLES_MAX));
        }
        let sum = |side| report.rules.iter().filter(|r| r.side == side).map(|r| r.findings).sum::<u64>();
        prop_assert_eq!(report.totals.hidden, sum(Side::Added));
        prop_assert_eq!(report.totals.shown, sum(Side::Removed));
    }
}

/// Whether a finding is counted as switched off that shows these indicators.
fn is_off(
    ids: &str,
    ended_after_secs: Option<i64>,
    facts: &ProcessFacts,
    (newest, candidate): (&str, &str),
) -> bool {
    let indicator = |id: &str| Indicator {
        id: id.parse().expect("an indicator"),
        severity: Severity::Medium,
        evidence: "why".into(),
    };
    let mut stored = finding(1, 1, "bob", "/opt/a", Severity::Medium);
    stored.finding.indicators = ids.split(' ').map(indicator).collect();
    stored.ended_at = ended_after_secs.map(|secs| UnixMillis(secs * 1000));
    stored.finding.process = Some(facts.clone());
    let (newest, candidate) = (with_settings("", newest), with_settings("", candidate));
    let mut preview = Preview::new(newest, candidate, NOW);
    preview.add(&stored);
    preview.finish().totals.switched_off == 1
}

#[test]
fn what_ended_before_the_least_age_is_counted_and_a_disguise_is_not() {
    let settings = ("", "[scan]\nmin_age_secs = 300\n");
    for (ids, ended, age_secs, expected) in [
        ("unexpected-listener", Some(299), 100, true),
        ("unexpected-listener", Some(300), 100, false),
        // It may grow old enough.
        ("unexpected-listener", None, 100, false),
        // Its host's clock was set back.
        ("unexpected-listener", Some(200), 400, false),
        ("exe-memfd", Some(200), 100, false),
        ("unexpected-listener exe-memfd", Some(200), 100, false),
        ("hung-sshd", Some(200), 100, false),
    ] {
        let facts = ProcessFacts {
            age_secs,
            ..ProcessFacts::default()
        };
        let off = is_off(ids, ended, &facts, settings);
        assert_eq!(off, expected, "{ids} {ended:?} {age_secs}");
    }
}

#[test]
fn what_a_higher_limit_lets_pass_is_counted_by_what_was_reported() {
    let facts = ProcessFacts {
        age_secs: 100,
        vsz_bytes: 512 << 20,
        rss_bytes: 64 << 20,
        ..ProcessFacts::default()
    };
    for (ids, ended, key, limit, expected) in [
        (
            "process-virtual-memory",
            Some(600),
            "process_vsz_mb",
            512,
            true,
        ),
        (
            "process-virtual-memory",
            Some(600),
            "process_vsz_mb",
            511,
            false,
        ),
        ("process-virtual-memory", None, "process_vsz_mb", 512, false),
        (
            "process-resident-memory",
            Some(600),
            "process_rss_mb",
            64,
            true,
        ),
        (
            "process-resident-memory",
            Some(600),
            "process_rss_mb",
            63,
            false,
        ),
        ("process-resident-memory", None, "process_rss_mb", 64, false),
        ("process-run-time", Some(600), "process_age_secs", 600, true),
        (
            "process-run-time",
            Some(601),
            "process_age_secs",
            600,
            false,
        ),
        ("process-run-time", None, "process_age_secs", 600, false),
    ] {
        let newest = format!("[limits]\n{key} = 1\n");
        let candidate = format!("[limits]\n{key} = {limit}\n");
        let off = is_off(ids, ended, &facts, (&newest, &candidate));
        assert_eq!(off, expected, "{ids} {ended:?} {limit}");
    }
}

#[test]
fn what_an_earlier_report_must_have_shown_is_not_counted() {
    let facts = ProcessFacts {
        age_secs: 100,
        rss_bytes: 64 << 20,
        ..ProcessFacts::default()
    };
    // More than 100 MiB once, and by the newest report less.
    let newest = "[limits]\nprocess_rss_mb = 100\nprocess_age_secs = 60\n";
    let candidate = "[limits]\nprocess_rss_mb = 100\nprocess_age_secs = 0\n";
    let ids = "process-resident-memory process-run-time";
    assert!(!is_off(ids, Some(600), &facts, (newest, candidate)));
    assert!(is_off(
        "process-run-time",
        Some(600),
        &facts,
        (newest, candidate)
    ));
}

#[test]
fn connections_to_web_ports_are_counted_when_they_are_skipped() {
    let connection = |port: &u16| Socket {
        protocol: Protocol::Tcp,
        state: SocketState::Established,
        local: Some(([192, 0, 2, 1], *port).into()),
        remote: Some(([192, 0, 2, 2], 40_000).into()),
        filter_len: None,
    };
    let settings = ("", "[scan]\nskip_http = true\n");
    for (ports, expected) in [
        (&[80, 443][..], true),
        (&[80, 8080], false),
        (&[], false),
        // Others may have been left out.
        (&[80; 64], false),
    ] {
        let facts = ProcessFacts {
            sockets: ports.iter().map(connection).collect(),
            ..ProcessFacts::default()
        };
        let off = is_off("network-connection", None, &facts, settings);
        assert_eq!(off, expected, "{ports:?}");
    }
}
