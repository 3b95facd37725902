//! The agent on a server whose disk, and with it the log, is full.

use std::fs::File;
use std::process::Command;

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    // A setting without effect is warned about in the log before anything else.
    let text = format!("state_dir = {:?}\nevents.mode = \"auto\"\n", dir.path());
    std::fs::write(&config, text).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_procwarden-agent"))
        .args(["run", "--config"])
        .arg(config)
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(64), "not enrolled, and no panic");
}
