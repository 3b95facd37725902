//! Whole mails as text, and what hostile bytes come to.

use std::net::SocketAddr;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{
    Ancestor, Container, EnvironmentEntry, ExeFile, Finding, FindingState, ProcessFacts, Subject,
};
use procwarden_common::id::{BootId, HostId};
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

fn boot_id() -> BootId {
    BootId::from_uuid(Uuid::from_u128(2))
}

fn indicator(id: IndicatorId, severity: Severity, evidence: &str) -> Indicator {
    Indicator {
        id,
        severity,
        evidence: evidence.to_owned(),
    }
}

fn stored(host: u128, host_name: &str, finding: Finding) -> StoredFinding {
    let host_id = HostId::from_uuid(Uuid::from_u128(host));
    StoredFinding {
        id: finding.subject.finding_id(Some(host_id)),
        host_id,
        host_name: host_name.to_owned(),
        finding,
        state: FindingState::Open,
        first_seen: NOW,
        last_seen: NOW,
        ended_at: None,
        evidence_position: 0,
    }
}

fn process(pid: u32, severity: Severity) -> Finding {
    Finding {
        subject: Subject::Process(ProcessKey {
            boot_id: boot_id(),
            pid,
            start_time: 9_000,
        }),
        indicators: vec![indicator(
            IndicatorId::EXE_MEMFD,
            severity,
            "exe is /memfd:x (deleted)",
        )],
        observed_at: NOW,
        uid: 1001,
        user: b"bob".to_vec(),
        process: Some(ProcessFacts {
            ppid: 1,
            parent_start_time: 7,
            started_at: NOW.plus_millis(-75_000),
            age_secs: 75,
            comm: b"x".to_vec(),
            exe: Some(b"/memfd:x (deleted)".to_vec()),
            exe_deleted: true,
            cmdline: Cmdline {
                raw: b"[kworker/0:1]\0-d\0".to_vec(),
                truncated: false,
            },
            vsz_bytes: 4096 * 1024,
            rss_bytes: 1024 * 1024,
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

fn facts(findings: Vec<StoredFinding>) -> AlertFacts {
    AlertFacts {
        lines: findings.iter().map(Summary::of).collect(),
        full: findings.into_iter().take(FULL_FINDINGS_MAX).collect(),
        gone: Vec::new(),
        expiring: Vec::new(),
    }
}

/// The body without the rules, whose words are tested where they are made.
fn body_without_rules(body: &str) -> String {
    let mut paragraphs: Vec<&str> = body.split("\n\n").collect();
    paragraphs.retain(|paragraph| !paragraph.starts_with("If this is legitimate"));
    paragraphs.join("\n\n")
}

/// A process with something in every field.
fn talkative_process() -> Finding {
    let mut finding = process(4242, Severity::Critical);
    let listens = indicator(
        IndicatorId::UNEXPECTED_LISTENER,
        Severity::High,
        "tcp 0.0.0.0:4444",
    );
    finding.indicators.insert(0, listens);
    let facts_of = finding.process.as_mut().unwrap();
    facts_of.exe_sha256 = Some([0xab; 32]);
    facts_of.exe_file = Some(ExeFile {
        device_major: 0,
        device_minor: 1,
        inode: 5,
        owner_uid: 1001,
        mode: 0o100_777,
        modified_at: NOW,
        size_bytes: 12,
    });
    facts_of.container = Container::new("lxc", "web1");
    facts_of.session = 4240;
    facts_of.environment = vec![EnvironmentEntry {
        name: "REMOTE_ADDR".to_owned(),
        value: b"192.0.2.9\n".to_vec(),
        value_truncated: false,
    }];
    facts_of.cwd = Some(b"/home/bob".to_vec());
    facts_of.cgroup = b"/user.slice".to_vec();
    facts_of.tty = "pts/3".to_owned();
    facts_of.loginuid = Some(1001);
    let local: SocketAddr = "0.0.0.0:4444".parse().unwrap();
    let (near, far) = (
        "10.0.0.1:50000".parse().unwrap(),
        "192.0.2.9:443".parse().unwrap(),
    );
    let socket = |state, local, remote| Socket {
        protocol: Protocol::Tcp,
        state,
        local,
        remote,
        filter_len: None,
    };
    facts_of.sockets = vec![
        socket(SocketState::Listen, Some(local), None),
        socket(SocketState::Established, Some(near), Some(far)),
    ];
    facts_of.files = vec![b"/dev/null".to_vec(), b"socket:[7]".to_vec()];
    let parent = Ancestor {
        pid: 1,
        exe: b"/sbin/init".to_vec(),
        cmdline: b"/sbin/init\0".to_vec(),
    };
    facts_of.ancestry = vec![parent];
    facts_of.maps = vec![b"00400000-00401000 r-xp 00000000 00:01 5 /memfd:x (deleted)".to_vec()];
    finding
}

const TALKATIVE_BODY: &str = "\
critical: exe-memfd, unexpected-listener by bob on web1

Time:             2026-11-23T09:00:00Z
Host:             web1
PID:              4242 (start time 9000)
Parent PID:       1 (start time 7)
Account:          bob (uid 1001)
Uptime:           75 seconds (since 2026-11-23T08:58:45Z)
Name:             x
Executable:       /memfd:x (deleted)
Executable file:  the path does not name the file that runs any more
SHA-256:          abababababababababababababababababababababababababababababababab
File:             device 0:1 inode 5, owner uid 1001, mode 0777, 12 bytes, modified 2026-11-23T09:00:00Z
Command line (often faked in exploits):
    [kworker/0:1] -d
Directory:        /home/bob
Control group:    /user.slice
Container:        web1 (lxc)
Session:          4240
Terminal:         pts/3
Login uid:        1001
Memory:           1024 KiB resident, 4096 KiB virtual
Severity:         critical

Why it is suspicious:
  exe-memfd (critical)
    Its executable exists in memory only and never was a file on disk.
    exe is /memfd:x (deleted)
  unexpected-listener (high)
    It waits for connections from the network.
    tcp 0.0.0.0:4444

Network connections by the process:
  tcp    LISTEN      0.0.0.0:4444
  tcp    ESTABLISHED 10.0.0.1:50000 -> 192.0.2.9:443

Files open by the process:
  /dev/null
  socket:[7]

Parents of the process, nearest first:
  1 /sbin/init: /sbin/init

Telling variables of its environment:
  REMOTE_ADDR=192.0.2.9\\n

Memory maps by the process:
  00400000-00401000 r-xp 00000000 00:01 5 /memfd:x (deleted)

To see it again, with everything that is known of it now:
    procwarden findings show ID

";

#[test]
fn the_mail_about_one_process_says_what_is_needed_to_decide() {
    let mail = render(&facts(vec![stored(1, "web1", talkative_process())]));

    assert_eq!(
        mail.subject,
        "[procwarden] critical: exe-memfd, unexpected-listener by bob on web1"
    );
    assert!(mail.attachments.is_empty());
    assert!(
        mail.body
            .contains("\n\nIf this is legitimate, one of these lines"),
        "{}",
        mail.body
    );
    let id = facts_id(&mail.body);
    assert_eq!(
        body_without_rules(&mail.body).replace(&id, "ID"),
        TALKATIVE_BODY
    );
}

#[test]
fn the_rules_that_would_ignore_it_stand_in_the_mail_as_they_are_suggested() {
    let mut finding = process(42, Severity::High);
    let long = format!("/opt/{}/tool", "d".repeat(950));
    finding.process.as_mut().unwrap().exe = Some(long.clone().into_bytes());
    finding.process.as_mut().unwrap().cmdline.raw = vec![b'c'; 3000];
    let suggestions = procwarden_common::policy::suggest::suggest(&finding);
    assert!(!suggestions.is_empty());
    let mail = render(&facts(vec![stored(1, "web1", finding)]));
    let (_, rules) = mail
        .body
        .split_once("in a policy ignores it, safest first:\n")
        .unwrap();
    let lines: Vec<&str> = rules.lines().map(str::trim_start).collect();
    assert_eq!(lines[0], format!("exe:{long}"), "in one piece");
    let expected = suggestions.iter().flat_map(|suggestion| {
        let bytes = suggestion.line.len();
        let too_long = format!("(a rule of {bytes} bytes: too long for a mail)");
        let line = if bytes > 2048 {
            too_long
        } else {
            suggestion.line.clone()
        };
        [line, suggestion.note.to_owned()]
    });
    assert_eq!(lines[..suggestions.len() * 2], expected.collect::<Vec<_>>());
    assert!(
        rules.contains("(a rule of 3004 bytes: too long for a mail)"),
        "{rules}"
    );
}

/// The id that the command at the end of a block names.
fn facts_id(body: &str) -> String {
    let (_, rest) = body.split_once("procwarden findings show ").unwrap();
    rest.lines().next().unwrap().to_owned()
}

#[test]
fn the_mail_about_an_account_names_it_and_what_was_counted() {
    let finding = Finding {
        subject: Subject::Account {
            boot_id: boot_id(),
            uid: 1001,
            since: NOW,
        },
        indicators: vec![indicator(
            IndicatorId::USER_PROCESS_COUNT,
            Severity::Medium,
            "37 processes, limit 10",
        )],
        observed_at: NOW,
        uid: 1001,
        user: b"bob".to_vec(),
        process: None,
        host: None,
        actions: Vec::new(),
        quiet: false,
    };
    let mail = render(&facts(vec![stored(1, "web1", finding)]));
    assert_eq!(
        mail.subject,
        "[procwarden] medium: user-process-count by bob on web1"
    );
    let expected = "\
medium: user-process-count by bob on web1

Time:             2026-11-23T09:00:00Z
Host:             web1
Account:          bob (uid 1001)
Since:            2026-11-23T09:00:00Z
Severity:         medium

Why it is suspicious:
  user-process-count (medium)
    The account runs more processes than its limit.
    37 processes, limit 10

";
    assert!(mail.body.starts_with(expected), "{}", mail.body);
}

#[test]
fn several_findings_begin_with_a_table() {
    let findings = vec![
        stored(1, "web1", process(42, Severity::Critical)),
        stored(2, "database-server", process(4242, Severity::High)),
    ];
    let ids: Vec<String> = findings
        .iter()
        .map(|f| f.id.to_string().chars().take(12).collect())
        .collect();
    let mail = render(&facts(findings));
    assert_eq!(
        mail.subject,
        "[procwarden] 2 findings on 2 hosts (highest: critical)"
    );
    let expected = format!(
        "\
2 findings on 2 hosts (highest: critical).

SEVERITY  HOST             ACCOUNT  PID   INDICATORS  ID            EXECUTABLE
critical  web1             bob      42    exe-memfd   {}  /memfd:x (deleted)
high      database-server  bob      4242  exe-memfd   {}  /memfd:x (deleted)

== Finding 1 of 2 ====================================================

Time:             2026-11-23T09:00:00Z
",
        ids[0], ids[1]
    );
    assert!(mail.body.starts_with(&expected), "{}", mail.body);
    assert!(mail.body.contains("== Finding 2 of 2 ="));
}

#[test]
fn findings_of_one_host_name_it_in_the_subject() {
    let findings = (0..12).map(|pid| stored(1, "web1", process(pid, Severity::High)));
    let mail = render(&facts(findings.collect()));
    assert_eq!(
        mail.subject,
        "[procwarden] 12 findings on web1 (highest: high)"
    );
}

#[test]
fn long_evidence_is_attached_and_its_beginning_stays_in_the_mail() {
    let mut finding = process(42, Severity::High);
    let maps = (0..500).map(|n| format!("map number {n}").into_bytes());
    finding.process.as_mut().unwrap().maps = maps.collect();
    let mail = render(&facts(vec![stored(1, "web1", finding)]));
    let [(name, text)] = mail.attachments.as_slice() else {
        panic!("{:?}", mail.attachments)
    };
    assert!(
        name.starts_with("finding-") && name.ends_with(".txt"),
        "{name}"
    );
    assert!(text.starts_with("Memory maps by the process:\n  map number 0\n"));
    assert!(text.contains("  map number 499\n"));
    assert!(!text.contains("Files open"), "short lists are not attached");
    assert!(
        mail.body
            .contains("  map number 15\n  [all 500 lines: attached as finding-")
    );
    assert!(!mail.body.contains("map number 16\n"));
}

#[test]
fn what_does_not_fit_is_counted_and_the_command_that_lists_it_is_named() {
    let findings: Vec<StoredFinding> = (0..1000)
        .map(|pid| stored(1, "web1", process(pid, Severity::High)))
        .collect();
    let mail = render(&facts(findings));
    assert!(mail.body.len() <= BODY_BYTES_MAX);
    assert_eq!(
        mail.body.matches("\n== Finding ").count(),
        FULL_FINDINGS_MAX
    );
    assert!(mail.body.contains("\nand 800 more\n"));
    assert!(mail.body.contains("\n950 findings are not described here"));
    assert!(
        mail.body
            .contains("procwarden findings list --since 2026-11-23T09:00:00Z\n")
    );
}

#[test]
fn huge_findings_keep_body_and_attachments_bounded() {
    let huge = |pid| {
        let mut finding = process(pid, Severity::High);
        let facts = finding.process.as_mut().unwrap();
        facts.cmdline = Cmdline {
            raw: vec![0xff; 32 * 1024],
            truncated: true,
        };
        facts.exe = Some(vec![b'\n'; 4096]);
        facts.maps = vec![vec![0x1b; 4096]; 512];
        facts.files = vec![vec![0x07; 4096]; 64];
        stored(1, "web1", finding)
    };
    let mail = render(&facts((0..50).map(huge).collect()));
    assert!(mail.body.len() <= BODY_BYTES_MAX, "{}", mail.body.len());
    let attached: usize = mail.attachments.iter().map(|(_, text)| text.len()).sum();
    assert!(
        attached <= ATTACHMENTS_BYTES_MAX && attached > 0,
        "{attached}"
    );
    assert!(mail.body.contains("not attached, to keep this mail short"));
    assert!(mail.body.contains("findings are not described here"));
    assert!(mail.body.contains("[longer than what was read]"));
    assert!(mail.body.contains("[cut: "));
}

#[test]
fn findings_that_retention_removed_are_said_to_be_gone() {
    let gone = FindingId::from_bytes([0xcd; 16]);
    let mut some = facts(vec![stored(1, "web1", process(42, Severity::High))]);
    some.gone = vec![gone];
    let line = format!("Finding {gone} is no longer kept: it is older than the retention.\n");
    assert!(render(&some).body.contains(&line));
    let all = AlertFacts {
        gone: vec![gone; 60],
        ..AlertFacts::default()
    };
    let mail = render(&all);
    assert_eq!(
        mail.subject,
        "[procwarden] 60 findings that are no longer kept"
    );
    assert!(mail.body.contains(&line));
    assert!(mail.body.contains("10 more findings are no longer kept.\n"));
    assert_eq!(all.severity(), None);
}

#[test]
fn an_encoded_word_in_a_name_is_not_decoded_by_readers() {
    let mut finding = process(42, Severity::High);
    finding.user = b"=?utf-8?b?DQpCY2M6IHg=?=".to_vec();
    let subject = render(&facts(vec![stored(1, "=?x?q?=0d?=", finding)])).subject;
    assert!(!subject.contains("=?"), "{subject}");
}

/// A finding whose every text is `bytes`.
fn hostile(bytes: &[u8]) -> StoredFinding {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut finding = process(42, Severity::High);
    finding.user = bytes.to_vec();
    finding.indicators = vec![indicator(IndicatorId::EXE_MEMFD, Severity::High, &text)];
    finding.process = Some(ProcessFacts {
        comm: bytes.to_vec(),
        exe: Some(bytes.to_vec()),
        cmdline: Cmdline {
            raw: bytes.to_vec(),
            truncated: false,
        },
        cwd: Some(bytes.to_vec()),
        cgroup: bytes.to_vec(),
        tty: text.clone(),
        files: vec![bytes.to_vec(); 20],
        ancestry: vec![Ancestor {
            pid: 1,
            exe: bytes.to_vec(),
            cmdline: bytes.to_vec(),
        }],
        maps: vec![bytes.to_vec(); 20],
        ..ProcessFacts::default()
    });
    stored(1, &text, finding)
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte == b'\n' || (0x20..=0x7e).contains(&byte))
}

#[test]
fn no_text_of_a_process_begins_a_line_or_reaches_the_subject_raw() {
    let bytes =
        b"x\r\nBcc: thief@example.net\n\nExecutable:       /bin/true\x1b[2J\xe2\x80\xae\x00\x07";
    let mail = render(&facts(vec![hostile(bytes)]));
    assert!(is_plain(&mail.body));
    assert!(!mail.body.lines().any(|line| line.starts_with("Bcc:")));
    let executables = mail
        .body
        .lines()
        .filter(|line| line.starts_with("Executable:"));
    assert_eq!(executables.count(), 1);
    assert!(mail.subject.contains(r"\r\nBcc: thief"), "{}", mail.subject);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_process_is_called_the_mail_is_plain_text(
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..4),
    ) {
        let mail = render(&facts(texts.iter().map(|text| hostile(text)).collect()));
        prop_assert!(is_plain(&mail.body));
        prop_assert!(is_plain(&mail.subject) && !mail.subject.contains('\n'));
        prop_assert!(mail.subject.len() < 200);
        for (name, text) in &mail.attachments {
            prop_assert!(is_plain(text));
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)));
        }
    }
}
