//! Events of the kernel: what no scan could have seen is found, and an agent
//! without events says so and scans on.

use std::process::Command;
use std::time::Duration;

use procwarden_tests::child::Guarded;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, is_root, volatile_directory};
use procwarden_tests::wait::{eventually, stays};

/// No scan but the first within the test.
const NO_SCANS: &str = "[scan]\nmin_age_secs = 60\ninterval_secs = 3600\n";

/// A fleet whose agent may take a whole processor: a debug build on a busy
/// machine runs into debt with a few looks, and then asks for a scan.
fn with_room(settings: &str) -> Fleet {
    let mut fleet = Fleet::start_with(settings).unwrap();
    let config = fleet.path("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[limits]\ncpu = 100\n")).unwrap();
    wait_for_a_scan(&fleet);
    assert!(fleet.agent.stop().success());
    fleet.agent.start();
    fleet
}

/// Whether this machine must have events: the connector is there, and this is
/// the host's own pid and user namespace (which have fixed numbers).
fn must_have_events() -> bool {
    let is_initial = |name: &str, number: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        link.to_string_lossy().contains(number)
    };
    let connectors = std::fs::read_to_string("/proc/net/connector").unwrap_or_default();
    connectors.contains("cn_proc")
        && is_initial("pid", "4026531836")
        && is_initial("user", "4026531837")
        && is_root()
}

fn wait_for_a_scan(fleet: &Fleet) {
    eventually("the first scan", || match fleet.agent.status()? {
        status if status["scans"].as_u64() > Some(0) => Ok(()),
        status => Err(status.to_string()),
    });
}

/// Waits until the first scan is over. False where the kernel sends no events
/// to the tests: then the agent must have said so.
fn has_events(fleet: &Fleet) -> bool {
    wait_for_a_scan(fleet);
    let log = eventually("word of the events", || match fleet.agent.log() {
        log if log.contains("The kernel sends events") || log.contains("no events") => Ok(log),
        log => Err(log),
    });
    let has_events = log.contains("The kernel sends events");
    assert!(has_events || !must_have_events(), "{log}");
    if !has_events {
        #[expect(clippy::print_stdout, reason = "a skipped test says so")]
        {
            println!("skipped: this machine has no process events for the tests:\n{log}");
        }
    }
    has_events
}

#[test]
fn disguises_are_found_between_two_scans_and_all_else_waits_for_its_age() {
    let fleet = with_room(NO_SCANS);
    if !has_events(&fleet) {
        return;
    }
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("x");
    let disguised = Payload::at(&path).argv0("[kworker/0:1]").start();
    let renamed = Payload::at(&directory.path().join("y"))
        .does(&["rename", "kworker/u8:2"])
        .start();
    let plain = Payload::at(&directory.path().join("z")).start();
    let _id = fleet.wait_for_finding(&disguised, "fake-kernel-thread");
    let _id = fleet.wait_for_finding(&renamed, "fake-kernel-thread");
    if is_root() {
        let path = directory.path().join("m");
        let in_memory = Payload::at(&path).does(&["memfd", "sleep"]).start();
        let _id = fleet.wait_for_finding(&in_memory, "exe-memfd");
    }
    stays(
        "the young are left alone",
        Duration::from_secs(2),
        || match fleet.collector.findings_of(plain.pid())?.len() {
            0 => Ok(()),
            n => Err(format!("{n} findings about it")),
        },
    );
    let status = fleet.agent.status().unwrap();
    assert_eq!(
        status["scans"], 1,
        "only events can have shown them: {status}"
    );
}

#[test]
fn what_comes_of_age_is_found_without_waiting_for_a_scan() {
    let fleet = with_room("[scan]\nmin_age_secs = 2\ninterval_secs = 3600\n");
    if !has_events(&fleet) {
        return;
    }
    let directory = volatile_directory().unwrap();
    let listener = Payload::at(&directory.path().join("x"))
        .does(&["listen"])
        .start();
    let _id = fleet.wait_for_finding(&listener, "exe-in-volatile-dir");
    let finding = fleet
        .collector
        .findings_of(listener.pid())
        .unwrap()
        .remove(0);
    let ids: Vec<&str> = finding["indicators"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i["id"].as_str())
        .collect();
    assert!(ids.contains(&"unexpected-listener"), "at once: {finding}");
    assert_eq!(fleet.agent.status().unwrap()["scans"], 1);
}

/// In a user namespace of its own the kernel does not answer, as it does not
/// in a container.
#[test]
fn an_agent_without_events_says_so_and_scans_on() {
    let mut fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    assert!(fleet.agent.stop().success());
    let agent = fleet.agent.command("run");
    let mut contained = Command::new("unshare");
    contained.args(["--user", "--map-root-user"]);
    contained.arg(agent.get_program()).args(agent.get_args());
    let _agent = Guarded::start(&mut contained, &fleet.path("contained.log"));
    let notes = eventually("a note about events", || {
        let notes = fleet.agent.status()?["notes"].to_string();
        if notes.contains("no events") {
            Ok(notes)
        } else {
            Err(notes)
        }
    });
    assert!(notes.contains("container"), "{notes}");
    let directory = volatile_directory().unwrap();
    let disguised = Payload::at(&directory.path().join("x"))
        .argv0("[kworker/0:1]")
        .start();
    eventually("a finding by scans alone", || {
        let findings = fleet.collector.findings_of(disguised.pid())?;
        match findings.len() {
            1 => Ok(()),
            _ => Err(format!("{findings:?}")),
        }
    });
}

#[test]
fn a_reload_switches_events_off_and_on() {
    let fleet = Fleet::start_with(NO_SCANS).unwrap();
    let has_events = has_events(&fleet);
    let config = fleet.path("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let said = |words: &str, times: usize| {
        eventually(words, || match fleet.agent.log() {
            log if log.matches(words).count() == times => Ok(()),
            log => Err(log),
        });
    };
    std::fs::write(&config, format!("{text}[events]\nmode = \"off\"\n")).unwrap();
    fleet.agent.reload();
    said("Events are off", 1);
    if !has_events {
        return;
    }
    std::fs::write(&config, text).unwrap();
    fleet.agent.reload();
    said("The kernel sends events", 2);
    // And they are followed again.
    let directory = volatile_directory().unwrap();
    let disguised = Payload::at(&directory.path().join("x"))
        .argv0("[kworker/0:1]")
        .start();
    let _id = fleet.wait_for_finding(&disguised, "fake-kernel-thread");
}

/// More than the socket of the agent holds.
const RENAMES: &str = "40000";

#[test]
fn what_starts_while_the_kernel_throws_events_away_is_found_by_a_scan_that_comes_soon() {
    let fleet = Fleet::start_with(NO_SCANS).unwrap();
    if !has_events(&fleet) {
        return;
    }
    let directory = volatile_directory().unwrap();
    let agent = i32::try_from(fleet.agent.pid()).unwrap();
    let agent = rustix::process::Pid::from_raw(agent).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::STOP).unwrap();
    let busy = Payload::at(&directory.path().join("busy")).does(&["rename-often", RENAMES]);
    let _busy = busy.start();
    let survivor = Payload::at(&directory.path().join("x"))
        .argv0("[kworker/0:1]")
        .start();
    rustix::process::kill_process(agent, rustix::process::Signal::CONT).unwrap();
    let _id = fleet.wait_for_finding(&survivor, "fake-kernel-thread");
    eventually("the loss to be counted", || match fleet.agent.status()? {
        status if status["event_overflows"].as_u64() > Some(0) => Ok(()),
        status => Err(status.to_string()),
    });
}

/// Programs of the burst, in as many threads as there are.
const BURST: usize = 10_000;
const BURST_THREADS: usize = 4;

#[test]
fn a_burst_of_short_lived_programs_hides_nobody_who_outlives_it() {
    let fleet = Fleet::start_with("[scan]\nmin_age_secs = 0\ninterval_secs = 3600\n").unwrap();
    if !has_events(&fleet) {
        return;
    }
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("x");
    let survivor = Payload::at(&path).argv0("[kworker/0:1]");
    let survivors: Vec<_> = std::thread::scope(|threads| {
        let burst = || {
            for _ in 0..BURST / BURST_THREADS {
                let ended = Command::new("/bin/true").status().unwrap();
                assert!(ended.success());
            }
        };
        let bursts: Vec<_> = (0..BURST_THREADS).map(|_| threads.spawn(burst)).collect();
        let mut survivors = Vec::new();
        while survivors.len() < 10 || bursts.iter().any(|burst| !burst.is_finished()) {
            if survivors.len() < 10 {
                survivors.push(survivor.start());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        survivors
    });
    for survivor in &survivors {
        let _id = fleet.wait_for_finding(survivor, "fake-kernel-thread");
    }
    // What it cost and what it passed over reaches the collector.
    eventually("the burst to be counted", || {
        let host = fleet.collector.json(&["hosts", "list"])?.remove(0);
        match host["health"]["events_seen"].as_u64() {
            Some(seen) if seen >= 10 && host["health"]["cpu_share_ppm"].is_u64() => Ok(()),
            _ => Err(host.to_string()),
        }
    });
}

#[test]
fn those_that_are_dear_to_look_at_are_found_at_once_and_have_their_evidence_later() {
    // More than the looks of a moment may take, on any machine.
    const DEAR: usize = 60;
    let fleet = Fleet::start_with("[scan]\nmin_age_secs = 0\ninterval_secs = 20\n").unwrap();
    if !has_events(&fleet) {
        return;
    }
    let directory = volatile_directory().unwrap();
    let dear = Payload::at(&directory.path().join("dear")).does(&["hold", "900", "0"]);
    let herd: Vec<_> = (0..DEAR).map(|_| dear.start()).collect();
    let mut completed = 0;
    for member in &herd {
        let finding = eventually("the digest of each", || {
            let findings = fleet.collector.findings_of(member.pid())?;
            match findings.as_slice() {
                [finding] if finding["exe_sha256"].is_string() => Ok(finding.clone()),
                other => Err(format!("{other:?}; {}", fleet.agent.status()?)),
            }
        });
        let actions = finding["actions"].as_array().cloned().unwrap_or_default();
        completed += usize::from(actions.iter().any(|action| action["what"] == "evidence"));
    }
    assert!(
        completed > 0,
        "none had to wait: {}",
        fleet.agent.status().unwrap()
    );
}
