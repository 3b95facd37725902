//! Whatever goes away and comes back: every finding arrives, once, and there
//! is one mail about it.

use std::time::Duration;

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, Running, volatile_directory};
use procwarden_tests::wait::{eventually, stays};

/// Payloads of one herd.
const HERD: usize = 12;

fn herd(directory: &tempfile::TempDir, name: &str) -> Vec<Running> {
    let payload = Payload::at(&directory.path().join(name));
    (0..HERD).map(|_| payload.start()).collect()
}

/// Every process has exactly one finding and one mail, and it stays so.
fn each_arrived_once(fleet: &Fleet, herd: &[Running]) {
    let ids: Vec<String> = herd
        .iter()
        .map(|p| fleet.wait_for_finding(p, "exe-in-volatile-dir"))
        .collect();
    for id in &ids {
        fleet.wait_for_one_mail(id);
    }
    stays("nothing is repeated", Duration::from_secs(4), || {
        for (payload, id) in herd.iter().zip(&ids) {
            let findings = fleet.collector.findings_of(payload.pid())?.len();
            let mails = fleet.mails_about(id);
            if (findings, mails) != (1, 1) {
                return Err(format!("{findings} findings and {mails} mails about {id}"));
            }
        }
        Ok(())
    });
}

#[test]
fn a_restarted_agent_repeats_nothing() {
    let mut fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let before = herd(&directory, "before");
    each_arrived_once(&fleet, &before);
    assert!(fleet.agent.stop().success());
    let meanwhile = herd(&directory, "meanwhile");
    fleet.agent.start();
    each_arrived_once(&fleet, &meanwhile);
    each_arrived_once(&fleet, &before);
}

#[test]
fn an_agent_killed_with_sigkill_loses_and_repeats_nothing() {
    let mut fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let herd = herd(&directory, "herd");
    for pause_millis in [900, 1_300, 2_100] {
        std::thread::sleep(Duration::from_millis(pause_millis));
        fleet.agent.kill();
        fleet.agent.start();
    }
    each_arrived_once(&fleet, &herd);
}

#[test]
fn a_restarted_collector_repeats_nothing_and_asks_for_nothing_again() {
    let mut fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let before = herd(&directory, "before");
    each_arrived_once(&fleet, &before);
    assert!(
        fleet.collector.stop().success(),
        "{}",
        fleet.collector.log()
    );
    fleet.collector.start();
    let after = herd(&directory, "after");
    each_arrived_once(&fleet, &after);
    each_arrived_once(&fleet, &before);
}

#[test]
fn findings_made_while_the_collector_is_away_arrive_when_it_is_back() {
    let mut fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    assert!(fleet.collector.stop().success());
    let directory = volatile_directory().unwrap();
    let herd = herd(&directory, "unseen");
    std::thread::sleep(Duration::from_secs(5));
    fleet.collector.start();
    each_arrived_once(&fleet, &herd);
}

/// Where every finding about these processes stands, in the collector's words.
fn states(fleet: &Fleet, pids: &[u32]) -> Result<Vec<String>, String> {
    let list = ["findings", "list", "--limit", "100000"];
    let findings = fleet.collector.json(&list)?;
    let state = |pid: &u32| {
        let mut about = findings.iter().filter(|finding| finding["pid"] == *pid);
        match (about.next(), about.next()) {
            (Some(finding), None) => Ok(finding["state"].as_str().unwrap_or_default().to_owned()),
            (None, _) => Err(format!("no finding about {pid}")),
            (Some(_), Some(_)) => Err(format!("several findings about {pid}")),
        }
    };
    pids.iter().map(state).collect()
}

/// A fleet for an account, whose agent's spool is soon full.
fn with_a_small_spool(account: u32) -> Fleet {
    let fleet = Fleet::start_for(account).unwrap();
    fleet.wait_until_applied();
    let config = format!(
        "state_dir = {:?}\n[spool]\nmax_bytes = 65536\n",
        fleet.agent.state_dir()
    );
    std::fs::write(fleet.path("agent.toml"), config).unwrap();
    fleet.agent.reload();
    fleet
}

#[test]
fn ends_that_a_full_spool_drops_are_told_when_the_collector_is_back() {
    const ACCOUNT: u32 = 61_434;
    let mut fleet = with_a_small_spool(ACCOUNT);
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("ends")).account(ACCOUNT);
    let ending: Vec<Running> = (0..HERD).map(|_| payload.start()).collect();
    let pids: Vec<u32> = ending.iter().map(Running::pid).collect();
    eventually("all to be reported", || states(&fleet, &pids));

    assert!(fleet.collector.stop().success());
    drop(ending);
    // A few of these are more than the spool holds, and worth more than ends.
    let bulky = payload.does(&["sleep", &"x".repeat(12_000)]);
    let mut flood = Vec::new();
    eventually("the ends to be dropped", || {
        flood.push(bulky.start());
        let log = fleet.agent.log();
        let is_dropped = log.contains(&format!("ends_kept_for_later={HERD}"));
        is_dropped.then_some(()).ok_or(log)
    });
    // What is owed outlives the agent.
    fleet.agent.kill();
    fleet.agent.start();

    fleet.collector.start();
    eventually("all to have ended", || {
        let states = states(&fleet, &pids)?;
        let is_over = states.iter().all(|state| state == "ended");
        (is_over.then_some(())).ok_or_else(|| format!("{states:?}\n{}", fleet.agent.log()))
    });
    let told = "Ends of findings that a full spool dropped are told again.";
    assert!(fleet.agent.log().contains(told), "{}", fleet.agent.log());
    // What was dropped stays counted.
    let status = fleet.agent.status().unwrap();
    assert!(
        status["spool_dropped"].as_u64() >= Some(HERD as u64),
        "{status}"
    );
    drop(flood);
}

#[test]
fn processes_whose_reports_a_full_spool_drops_are_reported_when_the_collector_is_back() {
    const ACCOUNT: u32 = 61_435;
    let mut fleet = with_a_small_spool(ACCOUNT);
    assert!(fleet.collector.stop().success());

    // A few of these are more than the spool holds.
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("dropped")).account(ACCOUNT);
    let bulky = payload.does(&["sleep", &"x".repeat(2500)]);
    let herd: Vec<Running> = (0..2 * HERD).map(|_| bulky.start()).collect();
    let pids: Vec<u32> = herd.iter().map(Running::pid).collect();
    eventually("reports to be dropped", || {
        let log = fleet.agent.log();
        let is_said = |running: &Running| log.contains(&format!("process {}\"", running.pid()));
        let kept = log.split("reports_kept_for_later=").skip(1);
        let is_dropped = kept.into_iter().any(|count| !count.starts_with('0'));
        (is_dropped && herd.iter().all(is_said))
            .then_some(())
            .ok_or(log)
    });
    // What was dropped is known after a kill.
    fleet.agent.kill();
    fleet.agent.start();

    fleet.collector.start();
    let are_open = || {
        let states = states(&fleet, &pids)?;
        let is_open = states.iter().all(|state| state == "open");
        (is_open.then_some(())).ok_or_else(|| format!("{states:?}\n{}", fleet.agent.log()))
    };
    eventually("all to be reported", are_open);
    stays("each is there once", Duration::from_secs(4), are_open);
}

#[test]
fn a_collector_killed_during_ingest_loses_and_doubles_nothing() {
    let mut fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    let directory = volatile_directory().unwrap();
    let mut all = Vec::new();
    for (round, pause_millis) in [1_700, 2_300, 2_900].into_iter().enumerate() {
        all.extend(herd(&directory, &format!("round-{round}")));
        std::thread::sleep(Duration::from_millis(pause_millis));
        fleet.collector.kill();
        fleet.collector.start();
    }
    each_arrived_once(&fleet, &all);
}

#[test]
fn mails_wait_in_the_outbox_while_the_mail_server_refuses_them() {
    let mut fleet = Fleet::start().unwrap();
    fleet.smtp.refuse(true);
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("refused")).start();
    let id = fleet.wait_for_finding(&payload, "exe-in-volatile-dir");
    let _why = wait_for_failed_mail(&fleet);
    assert_eq!(fleet.mails_about(&id), 0);
    fleet.smtp.refuse(false);
    // A restart forgets how long to wait, never what to send.
    assert!(fleet.collector.stop().success());
    fleet.collector.start();
    fleet.wait_for_one_mail(&id);
    assert_eq!(fleet.mails_about(&id), 1);
}

/// What the operator is told of the first mail that could not leave.
fn wait_for_failed_mail(fleet: &Fleet) -> String {
    eventually("the failure to be seen by the operator", || {
        let alerts = fleet.collector.json(&["alerts", "list"])?;
        let failed = alerts.iter().find_map(|alert| alert["last_error"].as_str());
        failed.map(str::to_owned).ok_or(format!("{alerts:?}"))
    })
}

#[test]
fn a_mail_server_that_hangs_holds_up_nothing_but_the_mail() {
    let fleet = Fleet::start().unwrap();
    fleet.smtp.hang(true);
    let directory = volatile_directory().unwrap();
    let first = Payload::at(&directory.path().join("first")).start();
    let first_id = fleet.wait_for_finding(&first, "exe-in-volatile-dir");
    eventually("a mail that hangs", || {
        let hung = fleet.smtp.hung();
        (hung > 0)
            .then_some(())
            .ok_or_else(|| fleet.collector.log())
    });
    let second = Payload::at(&directory.path().join("second")).start();
    let second_id = fleet.wait_for_finding(&second, "exe-in-volatile-dir");
    let why = wait_for_failed_mail(&fleet);
    assert!(why.contains("did not finish within 30 s"), "{why}");
    fleet.smtp.hang(false);
    for id in [first_id, second_id] {
        fleet.wait_for_one_mail(&id);
        assert_eq!(fleet.mails_about(&id), 1);
    }
}
