//! The one-shot scan: no collector, no state, the same judgement.

use std::process::{Command, Output};

use procwarden_tests::binaries::binary;
use procwarden_tests::collector::text;
use procwarden_tests::payload::{Payload, volatile_directory};
use serde_json::Value;

fn scan(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("procwarden-agent"));
    command
        .args(["scan", "--min-age", "0"])
        .args(arguments)
        .output()
        .unwrap()
}

fn object_of(output: &Output, pid: u32) -> Option<Value> {
    let lines = text(&output.stdout);
    let objects = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    objects.into_iter().find(|object| object["pid"] == pid)
}

#[test]
fn a_scan_shows_what_it_reports_as_json_lines_and_nothing_else() {
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("seen")).start();
    let output = scan(&["--json", "--stats"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let object = object_of(&output, payload.pid()).unwrap();
    assert_eq!(object["verdict"], "report");
    assert!(
        object.get("host_id").is_none(),
        "a scan has no host id: {object}"
    );
    for field in [
        "id",
        "host",
        "boot_id",
        "start_time",
        "started_at",
        "age_secs",
        "ppid",
        "uid",
    ] {
        assert!(
            object.get(field).is_some(),
            "{field} is missing in {object}"
        );
    }
    let stats = text(&output.stderr);
    let stats: Value = stats
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_default();
    for field in [
        "processes",
        "wall_us",
        "cpu_us",
        "syscalls_skipped",
        "read_errors",
        "findings",
    ] {
        assert!(stats[field].is_u64(), "{field} is missing in {stats}");
    }
}

#[test]
fn a_rule_hides_a_process_unless_all_are_asked_for() {
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("hidden");
    let payload = Payload::at(&path).start();
    let rules = directory.path().join("rules.pignore");
    std::fs::write(&rules, format!("exe:{}\n", path.display())).unwrap();
    let rules = rules.display().to_string();
    let output = scan(&["--json", "--pignore", &rules]);
    assert_eq!(object_of(&output, payload.pid()), None);
    let output = scan(&["--json", "--all", "--pignore", &rules]);
    let object = object_of(&output, payload.pid()).unwrap();
    assert_eq!(object["verdict"], "ignored");
    assert_eq!(object["rule"], format!("exe:{}", path.display()));
}

#[test]
fn a_table_is_for_people_and_holds_no_control_characters() {
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("table"));
    let payload = payload
        .does(&[b"sleep".as_slice(), b"\x1b]0;owned\x07\xff"])
        .start();
    let output = scan(&[]);
    let table = text(&output.stdout);
    assert!(table.contains(&payload.pid().to_string()), "{table}");
    assert!(!table.contains(['\x1b', '\x07']), "{table}");
}

#[test]
fn bad_files_are_configuration_errors() {
    let directory = volatile_directory().unwrap();
    let rules = directory.path().join("bad.pignore");
    std::fs::write(&rules, "pexe:(\n").unwrap();
    let output = scan(&["--pignore", &rules.display().to_string()]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains(":1:"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(scan(&["--no-such-flag"]).status.code(), Some(64));
}
