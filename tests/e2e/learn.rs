//! Learn mode on two hosts of different groups: what is severe is still
//! mailed, the rest is kept, and a file comes out at the end.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use procwarden_tests::collector::text;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, is_root, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// Nobody else's: the agents look at nothing else.
const ACCOUNT: u32 = 61_431;

/// A program of the system that does nothing but hold a connection of this
/// machine to itself: of low severity. It ends with the value.
struct Connected {
    child: Child,
    _listener: TcpListener,
}

impl Connected {
    fn start() -> Self {
        Self::of("sleep", &["1000"])
    }

    fn of(program: &str, arguments: &[&str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(stream)));
        if is_root() {
            command.uid(ACCOUNT).gid(ACCOUNT);
        }
        Self {
            child: command.spawn().unwrap(),
            _listener: listener,
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_err();
        let _gone = self.child.wait().is_err();
    }
}

/// The ids of the findings about a process, by the group of the host; waits
/// until both hosts reported it.
fn ids_by_group(fleet: &Fleet, pid: u32) -> (String, String) {
    eventually(&format!("two findings about {pid}"), || {
        let findings = fleet.collector.findings_of(pid)?;
        let hosts = fleet.collector.json(&["hosts", "list", "--group", "db"])?;
        let is_db = |finding: &&Value| finding["host_id"] == hosts[0]["id"];
        let id = |finding: &Value| finding["id"].as_str().unwrap_or_default().to_owned();
        let db = findings.iter().find(is_db).map(id);
        let other = findings.iter().find(|finding| !is_db(finding)).map(id);
        db.zip(other)
            .ok_or_else(|| format!("{findings:?}\n{}", fleet.agent.log()))
    })
}

#[test]
fn a_group_is_learned_from_quietly_and_comes_to_a_policy() {
    let fleet = Fleet::start_for(ACCOUNT).unwrap();
    let _second = fleet.another_agent("second", "db");
    fleet.wait_until_applied();
    let from_before = Connected::of("tail", &["-f", "/dev/null"]);
    let (before_id, _) = ids_by_group(&fleet, from_before.child.id());
    let started = fleet
        .collector
        .json(&["policy", "learn", "db", "--for", "1h"])
        .unwrap();
    assert_eq!(
        (&started[0]["running"], &started[0]["hosts"]),
        (&true.into(), &1.into())
    );

    let program = Connected::start();
    let (db_low, other_low) = ids_by_group(&fleet, program.child.id());
    let directory = volatile_directory().unwrap();
    let severe = Payload::at(&directory.path().join("severe"));
    let severe = severe.account(ACCOUNT).start();
    let (db_severe, other_severe) = ids_by_group(&fleet, severe.pid());
    for id in [&other_low, &db_severe, &other_severe] {
        fleet.wait_for_one_mail(id);
    }
    assert_eq!(fleet.mails_about(&db_low), 0, "it is learned from");

    let file = fleet.path("learned.pignore").display().to_string();
    let propose = ["policy", "learn", "db", "--propose", &file];
    let proposed = fleet.collector.json(&propose).unwrap();
    assert_eq!(proposed[0]["file"], file, "{proposed:?}");
    let written = std::fs::read_to_string(&file).unwrap();
    for id in [&db_low, &before_id] {
        let shown = fleet.collector.json(&["findings", "show", id]).unwrap();
        let rule = format!("exe:{}", shown[0]["exe"].as_str().unwrap());
        assert!(written.lines().any(|line| line == rule), "{written}");
    }
    let left_out = format!("# {}: ", directory.path().join("severe").display());
    assert!(written.contains(&left_out), "{written}");
    assert!(
        !written.contains("\ncmd:") && !written.contains("\nuser:"),
        "{written}"
    );
    let checked = fleet.collector.operator(&["policy", "check", &file]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));

    it_ends_by_hand_and_is_in_the_trail(fleet);
}

fn it_ends_by_hand_and_is_in_the_trail(mut fleet: Fleet) {
    let ended = fleet
        .collector
        .json(&["policy", "learn", "end", "db"])
        .unwrap();
    assert_eq!(ended[0]["running"], false, "{ended:?}");
    let again = fleet.collector.operator(&["policy", "learn", "end", "db"]);
    assert_eq!(again.status.code(), Some(2));
    let program = Connected::start();
    let (db_low, _) = ids_by_group(&fleet, program.child.id());
    fleet.wait_for_one_mail(&db_low);

    let before = fleet.collector.json(&["policy", "learn", "list"]).unwrap();
    assert!(fleet.collector.stop().success());
    fleet.collector.start();
    assert_eq!(
        fleet.collector.json(&["policy", "learn", "list"]).unwrap(),
        before
    );
    let trail = fleet.collector.json(&["audit"]).unwrap();
    let of_group = trail.iter().filter(|entry| entry["object"] == "group db");
    let words: Vec<&Value> = of_group.map(|entry| &entry["what"]).collect();
    assert_eq!(words, ["ended", "started"]);
}
