//! What a host does by its own configuration: scripts and kills, and the
//! record of each in its finding.
//!
//! Kills look at the whole machine, so everything here belongs to an account
//! of the tests' own, and a rule covers all others: a rule protects what it
//! covers. Only root can be another account.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use procwarden_tests::fleet::{FAST_SETTINGS, Fleet};
use procwarden_tests::payload::{Payload, Running, is_root, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// Everything is new when it is first looked at.
const SLOW_SETTINGS: &str = "[scan]\nmin_age_secs = 4\ninterval_secs = 1\n";

/// A fleet whose only account under suspicion is this one, without a name and
/// of one test alone, and whose host acts as told.
fn acting_fleet(account: u32, actions: &str, settings_text: &str) -> Fleet {
    let mut fleet = Fleet::start().unwrap();
    fleet.publish_rules(&format!("puser:(?!{account}$).*\n"));
    let settings = fleet.path("limits.toml");
    fs::write(&settings, settings_text).unwrap();
    let settings = settings.display().to_string();
    let set = ["policy", "set", "default", &settings, "--comment", "limits"];
    let _published = fleet.collector.told(&set);
    fleet.wait_until_applied();
    assert!(fleet.agent.stop().success());
    let config = fleet.path("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[actions]\n{actions}")).unwrap();
    fleet.agent.start();
    fleet
}

/// The finding about a process, once it has a record of an action.
#[track_caller]
fn finding_with(fleet: &Fleet, pid: u32, what: &str, result: &str) -> Value {
    eventually(&format!("{what}: {result}"), || {
        let findings = fleet.collector.findings_of(pid)?;
        let found = findings.iter().find(|f| has_action(f, what, result));
        found
            .cloned()
            .ok_or_else(|| format!("{findings:?}\n{}", fleet.agent.log()))
    })
}

fn has_action(finding: &Value, what: &str, result: &str) -> bool {
    let actions = finding["actions"].as_array().cloned().unwrap_or_default();
    actions.iter().any(|action| {
        let said = action["result"].as_str().unwrap_or_default();
        action["what"] == what && said.starts_with(result)
    })
}

fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

fn script(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

fn deleted(path: &Path, account: u32) -> Running {
    let running = Payload::at(path).account(account).start();
    fs::remove_file(path).unwrap();
    running
}

#[test]
fn a_script_gets_the_arguments_of_lfd_however_hostile_they_are_and_runs_once() {
    const ACCOUNT: u32 = 61_417;
    if !is_root() {
        return;
    }
    let scripts = tempfile::tempdir().unwrap();
    let (path, said) = (
        scripts.path().join("on-deleted"),
        scripts.path().join("said"),
    );
    let said_text = said.display().to_string();
    script(
        &path,
        &format!(
            "#!/bin/sh\nprintf '%s|' \"$#\" \"$@\" \"$PROCWARDEN_PID\" >> {said_text}\necho done\nexit 3\n"
        ),
    );
    let mut fleet = acting_fleet(ACCOUNT, &format!("on_deleted = {path:?}\n"), FAST_SETTINGS);
    let directory = volatile_directory().unwrap();
    let hostile = directory.path().join("a b;$(touch pwned)\n`id`");
    let payload = deleted(&hostile, ACCOUNT);
    let finding = finding_with(
        &fleet,
        payload.pid(),
        "on_deleted",
        "exit code 3, said: done",
    );
    let (pid, parent) = (payload.pid(), std::process::id());
    let expected = format!(
        "4|{} (deleted)|{pid}|{ACCOUNT}|{parent}|{pid}|",
        hostile.display()
    );
    assert_eq!(fs::read_to_string(&said).unwrap(), expected);

    // A restart remembers; a script that others can write is not run.
    assert!(fleet.agent.stop().success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o722)).unwrap();
    fleet.agent.start();
    let second = deleted(&directory.path().join("second"), ACCOUNT);
    let _refused = finding_with(
        &fleet,
        second.pid(),
        "on_deleted",
        "refused: its group or others",
    );
    assert_eq!(fs::read_to_string(&said).unwrap(), expected);
    let id = finding["id"].as_str().unwrap();
    let shown = fleet.collector.told(&["findings", "show", id]);
    assert!(shown.contains("on_deleted: exit code 3"), "{shown}");
}

#[test]
fn what_is_over_a_limit_is_killed_but_never_evidence_and_the_record_is_mailed() {
    const ACCOUNT: u32 = 61_418;
    if !is_root() {
        return;
    }
    let fleet = acting_fleet(
        ACCOUNT,
        "kill_over_limit = true\n",
        &format!("{SLOW_SETTINGS}[limits]\nprocess_age_secs = 2\n"),
    );
    let directory = volatile_directory().unwrap();
    let evidence = deleted(&directory.path().join("evidence"), ACCOUNT);
    let old = Payload::at(&directory.path().join("old"))
        .account(ACCOUNT)
        .start();
    let finding = finding_with(&fleet, old.pid(), "kill_over_limit", "killed");
    assert!(has_ended(old.pid()));
    let id = finding["id"].as_str().unwrap();
    fleet.wait_for_one_mail(id);
    eventually("the record in the mail", || {
        let mails = fleet.smtp.mails();
        let tells = |m: &&procwarden_tests::mails::Mail| {
            m.tells_of(id) && m.text.contains("kill_over_limit: killed")
        };
        mails
            .iter()
            .find(tells)
            .map(|_| ())
            .ok_or_else(|| format!("not in {} mails", mails.len()))
    });
    let refused = "refused: its executable is deleted";
    let _finding = finding_with(&fleet, evidence.pid(), "kill_over_limit", refused);
    assert!(!has_ended(evidence.pid()));
}

#[test]
fn what_was_killed_is_recorded_without_a_mail_where_the_host_wants_none() {
    const ACCOUNT: u32 = 61_420;
    if !is_root() {
        return;
    }
    let fleet = acting_fleet(
        ACCOUNT,
        "kill_over_limit = true\nalert_on_kill = false\n",
        &format!("{SLOW_SETTINGS}[limits]\nprocess_age_secs = 2\n"),
    );
    let directory = volatile_directory().unwrap();
    let old = Payload::at(&directory.path().join("old"))
        .account(ACCOUNT)
        .start();
    let killed = finding_with(&fleet, old.pid(), "kill_over_limit", "killed");
    assert!(has_ended(old.pid()));

    // A later one that nobody may kill is mailed: so the mail about the first
    // would have come by then.
    let evidence = deleted(&directory.path().join("evidence"), ACCOUNT);
    let refused = finding_with(&fleet, evidence.pid(), "kill_over_limit", "refused");
    fleet.wait_for_one_mail(refused["id"].as_str().unwrap());
    assert_eq!(fleet.mails_about(killed["id"].as_str().unwrap()), 0);
}

#[test]
fn a_fork_bomb_is_killed_as_a_session_and_is_one_finding() {
    const ACCOUNT: u32 = 61_419;
    if !is_root() {
        return;
    }
    let fleet = acting_fleet(
        ACCOUNT,
        "kill_fork_bomb = true\n",
        &format!("{FAST_SETTINGS}[limits]\nsession_processes = 6\n"),
    );
    let directory = volatile_directory().unwrap();
    let bomb = Payload::at(&directory.path().join("bomb"))
        .does(&["session", "9"])
        .account(ACCOUNT)
        .start();
    assert_eq!(bomb.said(), "made");
    let finding = eventually("the session to be killed", || {
        let account = ACCOUNT.to_string();
        let findings = fleet
            .collector
            .json(&["findings", "list", "--user", &account])?;
        let found = findings
            .iter()
            .find(|f| has_action(f, "kill_fork_bomb", "killed"));
        found
            .cloned()
            .ok_or_else(|| format!("{findings:?}\n{}", fleet.agent.log()))
    });
    assert_eq!(finding["kind"], "account", "{finding}");
    assert_eq!(finding["indicators"][0]["id"], "fork-bomb", "{finding}");
    eventually("the end of its first process", || {
        has_ended(bomb.pid())
            .then_some(())
            .ok_or_else(|| "it runs".to_owned())
    });
}
