use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::clock::UnixMillis;
use crate::finding::{Ancestor, Container, EnvironmentEntry, ExeFile, FindingState};
use crate::id::{BootId, HostId};
use crate::indicator::{Indicator, IndicatorId};
use crate::policy::{Rule, RuleFacts, RuleKey, RuleOrigin};
use crate::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
use crate::severity::Severity;

fn boot() -> BootId {
    BootId::from_uuid(Uuid::from_u128(1))
}

fn finding() -> Finding {
    Finding {
        subject: Subject::Process(ProcessKey {
            boot_id: boot(),
            pid: 42,
            start_time: 777,
        }),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_MEMFD,
            severity: Severity::High,
            evidence: "runs from memory".into(),
        }],
        observed_at: UnixMillis(1_795_424_400_000),
        uid: 1001,
        user: b"web1".to_vec(),
        process: Some(ProcessFacts {
            ppid: 1,
            started_at: UnixMillis(1_795_424_300_000),
            age_secs: 100,
            comm: b"x\ny".to_vec(),
            exe: Some(b"/memfd:a (deleted)".to_vec()),
            exe_deleted: true,
            exe_sha256: Some([0xab; 32]),
            cmdline: Cmdline {
                raw: b"a\0\xff\0".to_vec(),
                truncated: false,
            },
            exe_file: Some(ExeFile {
                device_major: 0,
                device_minor: 45,
                inode: 9,
                owner_uid: 1001,
                mode: 0o100_755,
                modified_at: UnixMillis(1_795_424_300_000),
                size_bytes: 12_345,
            }),
            container: Container::new("docker", "abc"),
            session: 40,
            environment: vec![EnvironmentEntry {
                name: "LD_PRELOAD".into(),
                value: b"/tmp/\x1b.so".to_vec(),
                value_truncated: false,
            }],
            tty: "pts/1".into(),
            sockets: vec![Socket {
                protocol: Protocol::Tcp,
                state: SocketState::Listen,
                local: Some("0.0.0.0:80".parse().expect("an address")),
                remote: None,
                filter_len: None,
            }],
            files: vec![b"/tmp/\x1b".to_vec()],
            ancestry: vec![Ancestor {
                pid: 1,
                exe: Vec::new(),
                cmdline: b"init\0".to_vec(),
            }],
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

fn stored(finding: Finding) -> StoredFinding {
    let host_id = HostId::from_uuid(Uuid::from_u128(2));
    StoredFinding {
        id: finding.subject.finding_id(Some(host_id)),
        host_id,
        host_name: "web.example".into(),
        finding,
        state: FindingState::Ended,
        first_seen: UnixMillis(1_795_424_400_000),
        last_seen: UnixMillis(1_795_424_401_000),
        ended_at: Some(UnixMillis(1_795_424_402_000)),
        evidence_position: 0,
    }
}

fn json_of(view: &FindingView) -> Value {
    serde_json::to_value(view).expect("a view is JSON")
}

#[test]
fn a_stored_finding_has_the_fields_of_the_design_in_their_order() {
    let text = serde_json::to_string(&FindingView::of_stored(&stored(finding()))).expect("JSON");
    let names = [
        "id",
        "host",
        "host_id",
        "boot_id",
        "pid",
        "start_time",
        "started_at",
        "age_secs",
        "ppid",
        "uid",
        "user",
        "comm",
        "exe",
        "exe_deleted",
        "exe_sha256",
        "exe_file",
        "cmdline",
        "container",
        "session",
        "tty",
        "severity",
        "indicators",
        "sockets",
        "files",
        "ancestry",
        "environment",
        "verdict",
        "state",
        "first_seen",
        "last_seen",
        "ended_at",
    ];
    let mut from = 0;
    for name in names {
        let found = text[from..].find(&format!("\"{name}\":"));
        from += found.unwrap_or_else(|| panic!("{name} is missing or misplaced in {text}"));
    }
    assert!(!text.contains("cwd") && !text.contains("loginuid") && !text.contains("rule"));
}

#[test]
fn hostile_text_is_printable_and_times_are_in_utc() {
    let value = json_of(&FindingView::of_stored(&stored(finding())));
    assert_eq!(value["comm"], "x\\ny");
    assert_eq!(value["cmdline"], "a \\ff");
    assert_eq!(value["files"], json!(["/tmp/\\1b"]));
    assert_eq!(value["started_at"], "2026-11-23T08:58:20Z");
    assert_eq!(value["ended_at"], "2026-11-23T09:00:02Z");
    assert_eq!(value["exe_sha256"], "ab".repeat(32));
    assert_eq!(value["ancestry"], json!([{"pid": 1, "cmdline": "init"}]));
    assert_eq!(
        value["exe_file"],
        json!({
            "device": "0:45", "inode": 9, "owner_uid": 1001, "mode": "0755",
            "modified_at": "2026-11-23T08:58:20Z", "size_bytes": 12_345
        })
    );
    assert_eq!(
        value["container"],
        json!({"runtime": "docker", "id": "abc"})
    );
    assert_eq!(
        value["environment"],
        json!([{"name": "LD_PRELOAD", "value": "/tmp/\\1b.so"}])
    );
    assert_eq!(
        value["sockets"],
        json!([{"proto": "tcp", "state": "LISTEN", "local": "0.0.0.0:80"}])
    );
    assert_eq!(
        value["indicators"],
        json!([{"id": "exe-memfd", "severity": "high", "evidence": "runs from memory"}])
    );
}

#[test]
fn a_finding_about_an_account_has_no_facts_of_a_process() {
    let account = Finding {
        subject: Subject::Account {
            boot_id: boot(),
            uid: 1001,
            since: UnixMillis(5),
        },
        process: None,
        ..finding()
    };
    let value = json_of(&FindingView::of_stored(&stored(account)));
    assert_eq!(value["kind"], "account");
    assert_eq!(value["user"], "web1");
    for name in [
        "pid",
        "start_time",
        "exe",
        "exe_deleted",
        "cmdline",
        "sockets",
        "files",
    ] {
        assert!(value.get(name).is_none(), "{name}");
    }
}

#[test]
fn a_one_shot_scan_names_its_host_and_its_verdict_and_no_history() {
    let value = json_of(&FindingView::of_scan("here", &finding(), &Verdict::Report));
    assert_eq!(value["host"], "here");
    assert_eq!(value["verdict"], "report");
    for name in [
        "host_id",
        "state",
        "first_seen",
        "last_seen",
        "ended_at",
        "rule",
    ] {
        assert!(value.get(name).is_none(), "{name}");
    }
}

#[test]
fn an_ignored_process_names_the_rule_and_where_it_was_written() {
    let rule = Rule {
        key: RuleKey::User,
        value: "web1".into(),
        origin: RuleOrigin {
            policy: "web".into(),
            revision: 3,
            file: "a.pignore".into(),
            line: 7,
        },
        facts: RuleFacts::default(),
    };
    let view = FindingView::of_scan("here", &finding(), &Verdict::Ignored(Arc::new(rule)));
    assert_eq!(view.verdict, "ignored");
    assert_eq!(view.rule.as_deref(), Some("user:web1"));
    assert_eq!(view.rule_origin.as_deref(), Some("web r3 a.pignore:7"));
}
