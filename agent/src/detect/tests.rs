//! Which detectors look at which process.

use std::collections::{BTreeMap, HashMap, HashSet};

use procwarden_common::process::Protocol;

use super::*;

fn ids(process: &Process, settings: &Settings, scope: &Scope) -> Vec<String> {
    ids_with(process, settings, scope, Young::Wait)
}

fn ids_with(process: &Process, settings: &Settings, scope: &Scope, young: Young) -> Vec<String> {
    let groups = HashSet::new();
    let context = DetectContext::new(settings, scope, &groups, young);
    detect(process, &context)
        .iter()
        .map(|s| s.indicator.id.to_string())
        .collect()
}

/// Everything at once: bracketed, deleted, in /tmp, listening, connected.
fn loud(uid: u32) -> Process {
    let mut process = sample::with_exe(uid, b"/tmp/x (deleted)", ExeState::Deleted);
    process.comm = b"[kworker/0:1]".to_vec();
    process.sockets = vec![
        sample::listener("0.0.0.0:39001"),
        sample::connection(Protocol::Tcp, "10.0.0.1:1", "10.0.0.2:2"),
    ];
    process
}

#[test]
fn accounts_are_examined_for_everything_and_root_for_disguises() {
    let settings = Settings::default();
    let expected = [
        "fake-kernel-thread",
        "exe-deleted",
        "exe-in-volatile-dir",
        "unexpected-listener",
        "network-connection",
    ];
    assert_eq!(ids(&loud(1000), &settings, &Scope::Everyone), expected);
    assert_eq!(
        ids(&loud(0), &settings, &Scope::Everyone),
        expected.get(..3).unwrap()
    );
    let nobody_else = Scope::Named(HashSet::new());
    assert_eq!(
        ids(&loud(1000), &settings, &nobody_else),
        ["fake-kernel-thread"]
    );
}

#[test]
fn only_whose_own_reading_hangs_shows_it_and_not_when_it_is_young_or_switched_off() {
    let hanging = sample::of_account(1000, b"alice");
    let mut other = hanging.clone();
    other.key.pid += 1;
    let mut young = hanging.clone();
    young.age_secs = 59;
    let hung = Hung {
        reads: vec![crate::procfs::What::Memory],
        side: crate::procfs::Side::Account(1000),
    };
    let (groups, hung) = (HashSet::new(), HashMap::from([(hanging.key, hung)]));
    let seen = |process: &Process, settings: &Settings, scope: &Scope| {
        let context = DetectContext::new(settings, scope, &groups, Young::Wait).with_hung(&hung);
        let sightings = detect(process, &context).into_iter();
        let ids = sightings.map(|s| s.indicator.id);
        ids.collect::<Vec<_>>() == [IndicatorId::UNREADABLE_PROCESS]
    };
    let (settings, everyone) = (Settings::default(), Scope::Everyone);
    assert!(seen(&hanging, &settings, &everyone));
    assert!(!seen(&other, &settings, &everyone) && !seen(&young, &settings, &everyone));
    assert!(!seen(&hanging, &settings, &Scope::Named(HashSet::new())));
    let off = Settings {
        detectors: BTreeMap::from([(IndicatorId::UNREADABLE_PROCESS, false)]),
        ..Settings::default()
    };
    assert!(!seen(&hanging, &off, &everyone));
}

#[test]
fn young_ended_and_kernel_processes_wait_or_are_nothing() {
    let settings = Settings::default();
    let seen = |change: fn(&mut Process)| {
        let mut process = loud(1000);
        change(&mut process);
        ids(&process, &settings, &Scope::Everyone).len()
    };
    assert_eq!(seen(|_| {}), 5);
    assert_eq!(seen(|p| p.age_secs = 59), 0);
    assert_eq!(seen(|p| p.age_secs = 60), 5);
    assert_eq!(seen(|p| p.state = b'Z'), 0);
    assert_eq!(seen(|p| p.kernel_thread = true), 0);
}

#[test]
fn a_look_judges_of_the_young_what_needs_no_age() {
    let mut process = loud(1000);
    process.age_secs = 0;
    let settings = Settings::default();
    let seen = ids_with(&process, &settings, &Scope::Everyone, Young::AreJudged);
    assert_eq!(seen, ["fake-kernel-thread"]);
    process.age_secs = 60;
    let seen = ids_with(&process, &settings, &Scope::Everyone, Young::AreJudged);
    assert_eq!(seen, ids(&process, &settings, &Scope::Everyone));
}

#[test]
fn what_only_its_age_speaks_for_is_looked_at_when_it_is_old_enough() {
    let settings = Settings::default();
    let groups = HashSet::new();
    let context = DetectContext::new(&settings, &Scope::Everyone, &groups, Young::AreJudged);
    let wait = |uid, exe: &[u8], state, age_secs| {
        let mut process = sample::with_exe(uid, exe, state);
        process.age_secs = age_secs;
        comes_of_age(&process, &context).map(|wait| wait.as_secs())
    };
    assert_eq!(wait(1000, b"/tmp/x", ExeState::Live, 0), Some(60));
    assert_eq!(wait(0, b"/tmp/x", ExeState::Live, 20), Some(40));
    let deleted = b"/srv/x (deleted)";
    assert_eq!(wait(1000, deleted, ExeState::Deleted, 59), Some(1));
    assert_eq!(wait(1000, b"/tmp/x", ExeState::Live, 60), None);
    assert_eq!(wait(1000, b"/usr/bin/x", ExeState::Live, 0), None);
}

#[test]
fn settings_switch_each_indicator_off() {
    for off in ["fake-kernel-thread", "exe-deleted", "network-connection"] {
        let detectors = BTreeMap::from([(off.parse().unwrap(), false)]);
        let settings = Settings {
            detectors,
            ..Settings::default()
        };
        let seen = ids(&loud(1000), &settings, &Scope::Everyone);
        assert_eq!(seen.len(), 4);
        assert!(!seen.iter().any(|id| id == off));
    }
}

#[test]
fn descriptors_are_walked_only_where_a_detector_asks() {
    let settings = Settings::default();
    let wants = |process: &Process| wants_sockets(process, &settings, &Scope::Everyone);
    assert!(wants(&sample::of_account(1000, b"alice")));
    assert!(!wants(&sample::of_account(0, b"root")));
    assert!(wants(&sample::with_exe(0, b"/dev/shm/x", ExeState::Live)));
    let quiet = Settings {
        detectors: BTreeMap::from([
            (IndicatorId::UNEXPECTED_LISTENER, false),
            (IndicatorId::NETWORK_CONNECTION, false),
        ]),
        ..Settings::default()
    };
    assert!(!wants_sockets(
        &sample::of_account(1000, b"alice"),
        &quiet,
        &Scope::Everyone
    ));
}
