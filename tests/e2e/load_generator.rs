//! The load generator does what it says, in each of its modes, with a fleet
//! small enough for a test. What it measures is not looked at.

use std::process::Command;

use procwarden_tests::binaries::binary;
use procwarden_tests::collector::text;
use serde_json::Value;

fn run(arguments: &[&str]) -> Value {
    let program = binary("procwarden-load");
    let output = Command::new(&program)
        .env("PROCWARDEN_BIN_DIR", program.parent().unwrap())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    serde_json::from_str(&report).unwrap_or_else(|e| panic!("{report}: {e}"))
}

#[test]
fn findings_are_acknowledged_and_measured_beside_both_floors() {
    let report = run(&["ingest", "--agents", "4", "--seconds", "1", "--floor"]);
    for acked in [&report["findings"], &report["floor_null"]["findings"]] {
        assert!(acked.as_u64() > Some(0), "{report}");
    }
    let appended = &report["floor_append"]["findings_per_sec"];
    assert!(appended.as_f64() > Some(0.0), "{report}");
    assert!(report["ack_ms"]["p99"].is_f64(), "{report}");
    assert!(report["server"]["rss_bytes"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_fixed_rate_is_not_exceeded() {
    let arguments = ["--agents", "5", "--batch", "1", "--rate", "50"];
    let report = run(&[&["ingest", "--seconds", "2"][..], &arguments].concat());
    let findings = report["findings"].as_u64().unwrap();
    assert!((1..=100).contains(&findings), "{report}");
}

#[test]
fn idle_hosts_stay_connected_beside_a_bare_server() {
    let report = run(&["connect", "--agents", "20", "--seconds", "1", "--floor"]);
    for fleet in [&report, &report["floor_bare"]] {
        assert_eq!(fleet["streams_lost"], 0, "{report}");
        assert!(fleet["rss_bytes"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn every_host_runs_the_policy_that_was_published() {
    let report = run(&["push", "--agents", "20", "--rounds", "2", "--bytes", "5000"]);
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2, "{report}");
    let confirmed = |round: &Value| round["confirmed_by_status_secs"].is_f64();
    assert!(rounds.iter().all(confirmed), "{report}");
}

#[test]
fn every_host_comes_back_after_a_storm_and_after_a_restart() {
    for arguments in [&["storm"][..], &["storm", "--restart"]] {
        let report = run(&[arguments, &["--agents", "20"]].concat());
        assert_eq!(report["back_ms"]["samples"], 20, "{report}");
    }
}
