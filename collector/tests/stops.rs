//! The collector as a process: it starts, says where it listens, and stops
//! when it is told to, whatever becomes of its log.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const COLLECTOR: &str = env!("CARGO_BIN_EXE_procwarden-collector");

/// Makes a fleet below `dir`; the configuration is returned.
fn init(dir: &Path) -> PathBuf {
    let data_dir = dir.join("data");
    let made = Command::new(COLLECTOR)
        .args(["init", "--name", "localhost", "--data-dir"])
        .arg(&data_dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = dir.join("collector.toml");
    let text = format!(
        "data_dir = {data_dir:?}\n[listen]\nfleet = '127.0.0.1:0'\nenroll = '127.0.0.1:0'\n\
         admin = 'unix:{}/admin.sock'\n",
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    config
}

fn serve(config: &Path, log: Stdio) -> Child {
    Command::new(COLLECTOR)
        .args(["serve", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn terminate(mut collector: Child) -> ExitStatus {
    let pid = Pid::from_child(&collector);
    kill_process(pid, Signal::TERM).unwrap();
    collector.wait().unwrap()
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    // As a log file on a full disk.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut collector = serve(&config, full.into());
    let mut lines = BufReader::new(collector.stdout.take().unwrap()).lines();
    let line = lines.next().expect("a line").unwrap();
    assert!(line.starts_with("listening fleet=127.0.0.1:"), "{line}");
    assert_eq!(terminate(collector).code(), Some(0));
}

#[test]
fn two_signals_at_once_are_one_orderly_stop() {
    let dir = tempfile::tempdir().unwrap();
    let config = init(dir.path());
    let mut collector = serve(&config, Stdio::null());
    let mut lines = BufReader::new(collector.stdout.take().unwrap()).lines();
    assert!(lines.next().is_some());
    let pid = Pid::from_child(&collector);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(terminate(collector).code(), Some(0));
    let clean = dir.path().join("data/index.clean");
    assert!(clean.exists(), "the index was closed in good order");
}
