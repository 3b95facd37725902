//! A collector that is ended at random moments, again and again, loses and
//! doubles nothing that it acknowledged.

use std::process::Command;

use procwarden_tests::binaries::binary;
use procwarden_tests::collector::text;
use serde_json::Value;

/// The report of the crash harness.
fn crash(arguments: &[&str]) -> Value {
    let program = binary("procwarden-crash");
    let mut command = Command::new(&program);
    command.args(arguments);
    // What this test has built is not built again.
    command.env("PROCWARDEN_BIN_DIR", program.parent().unwrap());
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    serde_json::from_str(said.trim())
        .unwrap_or_else(|e| panic!("{e}: {said}\n{}", text(&output.stderr)))
}

fn nothing_is_lost_or_doubled(report: &Value) {
    assert_eq!(
        (&report["lost"], &report["doubled"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    assert!(report["acked"].as_u64() > Some(0), "{report}");
    assert!(
        report["checked"].as_u64() >= report["acked"].as_u64(),
        "{report}"
    );
}

/// The report of a run with power cuts; nothing where none can be made.
fn power_cuts(mode: &str, rounds: u8) -> Option<Value> {
    // In memory, where it can be: what counts is the flush, not the medium.
    let shared = std::path::Path::new("/dev/shm");
    let directory = if shared.is_dir() { "/dev/shm" } else { "/tmp" };
    let report = crash(&[
        "--mode",
        mode,
        "--rounds",
        &rounds.to_string(),
        "--dir",
        directory,
    ]);
    if let Some(why) = report["skipped"].as_str() {
        #[expect(clippy::print_stderr, reason = "what was not tested is said")]
        {
            eprintln!("skipped: {why}");
        }
        return None;
    }
    Some(report)
}

#[test]
fn twenty_power_cuts_lose_and_double_nothing() {
    if let Some(report) = power_cuts("power", 20) {
        nothing_is_lost_or_doubled(&report);
    }
}

#[test]
fn power_cuts_under_sled_alone_lose_what_it_promised() {
    if let Some(report) = power_cuts("control", 20) {
        assert!(report["lost"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn power_cuts_under_an_agent_lose_nothing_that_its_spool_held() {
    let Some(report) = power_cuts("spool", 5) else {
        return;
    };
    nothing_is_lost_or_doubled(&report);
    assert_eq!(report["left_open"], 0, "{report}");
}

#[test]
fn twenty_kills_lose_and_double_nothing() {
    nothing_is_lost_or_doubled(&crash(&["--mode", "kill", "--rounds", "20"]));
}
