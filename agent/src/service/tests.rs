//! The shipped unit against what the code needs.

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::progress::Loop;

const UNIT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/systemd/procwarden-agent.service"
));

/// Every value of a key, in order.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

fn value(key: &str) -> &'static str {
    match values(key)[..] {
        [value] => value,
        ref other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn the_unit_starts_what_the_command_line_knows() {
    let command: Vec<&str> = value("ExecStart").split(' ').collect();
    assert_eq!(command[0], "/usr/bin/procwarden-agent");
    let cli = Cli::try_parse_from(&command).unwrap();
    assert!(matches!(cli.command, Command::Run(_)));
    assert_eq!(
        value("RestartPreventExitStatus"),
        crate::EXIT_USAGE.to_string()
    );
}

#[test]
fn the_unit_grants_what_the_defaults_of_the_agent_count_on() {
    let config = Config::default();
    assert_eq!(value("CPUQuota"), format!("{}%", config.cpu_percent));
    let state_dir = format!("/var/lib/{}", value("StateDirectory"));
    assert_eq!(config.state_dir.display().to_string(), state_dir);
    assert_eq!(value("StateDirectoryMode"), "0700");
}

#[test]
fn the_unit_grants_these_capabilities_and_says_why() {
    let granted: Vec<&str> = value("CapabilityBoundingSet").split(' ').collect();
    let needed = [
        "CAP_SYS_PTRACE",
        "CAP_DAC_READ_SEARCH",
        "CAP_NET_ADMIN",
        "CAP_KILL",
    ];
    assert_eq!(granted, needed);
    for capability in needed {
        let reason = format!("# {capability}: ");
        assert!(
            UNIT.lines().any(|line| line.starts_with(&reason)),
            "{capability}"
        );
    }
}

#[test]
fn a_greedy_script_does_not_stop_the_agent_and_no_core_holds_its_key() {
    assert_eq!(value("OOMPolicy"), "continue");
    assert_eq!(value("LimitCORE"), "0");
}

#[test]
fn the_unit_does_not_blind_the_agent() {
    for blinding in [
        "PrivateUsers",
        "PrivatePIDs",
        "PrivateNetwork",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectHome",
        "ProtectHostname",
        "User",
        "DynamicUser",
        "InaccessiblePaths",
        "RootDirectory",
    ] {
        assert!(values(blinding).is_empty(), "{blinding}");
    }
    assert_eq!(
        (value("ProtectProc"), value("ProcSubset")),
        ("default", "all")
    );
    let families: Vec<&str> = value("RestrictAddressFamilies").split(' ').collect();
    assert_eq!(families, ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]);
}

#[test]
fn the_watchdog_bites_late_enough_for_the_agent_to_feed_it() {
    assert_eq!((value("Type"), value("NotifyAccess")), ("notify", "main"));
    let timeout = Duration::from_secs(value("WatchdogSec").parse().unwrap());
    assert!(interval(timeout) * 3 <= timeout);
    assert_eq!(interval(Duration::from_secs(3)), Duration::from_secs(1));
    // What a stop may take, and some more.
    let stop: u64 = value("TimeoutStopSec").parse().unwrap();
    assert!(Duration::from_secs(stop) > crate::run::STOP_TIMEOUT);
}

#[test]
fn a_silent_scanner_is_a_note_from_two_intervals_on() {
    let (board, now) = (Board::default(), Instant::now());
    let secs = Duration::from_secs;
    let notes = |at| {
        note_silence(&board, at);
        board.snapshot().notes().len()
    };
    board.update(|health| health.scan_interval = secs(60));
    board.progress.works(Loop::Scanner, now, secs(600));
    assert_eq!((notes(now + secs(120)), notes(now + secs(121))), (0, 1));
    // It was heard of.
    board
        .progress
        .works(Loop::Scanner, now + secs(121), secs(600));
    assert_eq!(notes(now + secs(122)), 0);
    board.progress.rests(Loop::Scanner);
    assert_eq!(notes(now + secs(9999)), 0);
    // An interval of a second is no reason to cry wolf.
    board.update(|health| health.scan_interval = secs(1));
    board.progress.works(Loop::Scanner, now, secs(600));
    assert_eq!((notes(now + secs(30)), notes(now + secs(31))), (0, 1));
}
