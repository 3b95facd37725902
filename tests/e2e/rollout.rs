//! Staged roll-outs on two hosts: set, preview, bring it to one, stop, roll
//! back; and to the end, over a restart of the collector.

use std::time::Duration;

use procwarden_tests::agent::Agent;
use procwarden_tests::collector::text;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// Nobody else's: the agents look at nothing else.
const ACCOUNT: u32 = 61_432;

/// A fleet of two hosts in different groups, which both get the policy `web`.
fn fleet() -> (Fleet, Agent) {
    let fleet = Fleet::start_for(ACCOUNT).unwrap();
    let second = fleet.another_agent("second", "db");
    let set = set(&fleet, "exe:/opt/one\n", &["--group", "all"]);
    assert_eq!(set["published"], true, "{set}");
    fleet.wait_until_policy_applied("web");
    fleet.wait_until_applied();
    (fleet, second)
}

fn rules_file(fleet: &Fleet, rules: &str) -> String {
    let file = fleet.path("csf.pignore");
    std::fs::write(&file, rules).unwrap();
    file.display().to_string()
}

fn set(fleet: &Fleet, rules: &str, more: &[&str]) -> Value {
    let file = rules_file(fleet, rules);
    let command = ["policy", "set", "web", &file, "--comment", "for a test"];
    one(fleet.collector.json(&[&command, more].concat()).unwrap())
}

fn one(objects: Vec<Value>) -> Value {
    let [object] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    object.clone()
}

fn rollout(fleet: &Fleet) -> Value {
    let output = fleet
        .collector
        .operator(&["policy", "rollout", "status", "web", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn wait_for_state(fleet: &Fleet, state: &str) -> Value {
    eventually(&format!("a roll-out that is {state}"), || {
        let seen = rollout(fleet);
        if seen["state"] == state {
            return Ok(seen);
        }
        Err(format!("{seen}\n{}", fleet.collector.log()))
    })
}

/// Revisions that the hosts run, in order.
fn running(fleet: &Fleet) -> Vec<u64> {
    let output = fleet
        .collector
        .operator(&["policy", "status", "web", "--json"]);
    let lines = text(&output.stdout);
    let objects = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut revisions: Vec<u64> = objects
        .map(|host| host["applied_revision"].as_u64().unwrap())
        .collect();
    revisions.sort_unstable();
    revisions
}

fn wait_until_hosts_run(fleet: &Fleet, revisions: &[u64]) {
    eventually(&format!("hosts that run {revisions:?}"), || {
        let seen = running(fleet);
        if seen == revisions {
            return Ok(());
        }
        Err(format!("{seen:?}\n{}", fleet.collector.log()))
    });
}

#[test]
fn a_revision_is_set_previewed_brought_to_one_host_stopped_and_rolled_back() {
    let (fleet, _second) = fleet();
    let rules = "exe:/opt/one\nexe:/opt/two\n";
    let staged = set(&fleet, rules, &["--staged"]);
    assert_eq!(
        (&staged["revision"], &staged["running"]),
        (&2.into(), &1.into())
    );
    let file = rules_file(&fleet, rules);
    let preview = fleet
        .collector
        .json(&["policy", "preview", "web", &file])
        .unwrap();
    assert_eq!(
        preview[0]["rule"], "exe:/opt/two",
        "compared with what hosts run"
    );
    assert_eq!(running(&fleet), [1, 1], "a staged revision reaches nobody");

    let start = [
        "policy", "rollout", "web", "2", "--steps", "50%,100%", "--every", "1h",
    ];
    let started = one(fleet.collector.json(&start).unwrap());
    assert_eq!(
        (&started["hosts"], &started["hosts_reached"]),
        (&2.into(), &1.into())
    );
    wait_until_hosts_run(&fleet, &[1, 2]);
    fleet.wait_until_policy_applied("web");

    let late = rules_file(&fleet, "exe:/opt/three\n");
    let publish = ["policy", "set", "web", &late, "--comment", "late"];
    let refused = fleet.collector.operator(&publish);
    assert_eq!(refused.status.code(), Some(2));
    let why = text(&refused.stderr);
    assert!(why.contains("policy rollout abort web"), "{why}");

    let abort = ["policy", "rollout", "abort", "web", "--reason", "too wide"];
    let aborted = one(fleet.collector.json(&abort).unwrap());
    assert_eq!(aborted["state"], "aborted", "{aborted}");
    wait_until_hosts_run(&fleet, &[1, 1]);
    let _back = fleet.collector.told(&["policy", "rollback", "web", "1"]);
    wait_until_hosts_run(&fleet, &[3, 3]);
    the_trail_names_every_step(&fleet);
}

fn the_trail_names_every_step(fleet: &Fleet) {
    let trail = fleet.collector.json(&["audit"]).unwrap();
    let steps: Vec<String> = trail
        .iter()
        .filter(|entry| {
            entry["object"]
                .as_str()
                .unwrap()
                .starts_with("policy web r")
        })
        .map(|entry| format!("{} {}", entry["what"], entry["object"]).replace('"', ""))
        .collect();
    assert_eq!(
        steps,
        [
            "published policy web r3",
            "aborted policy web r2",
            "started policy web r2",
            "staged policy web r2",
            "published policy web r1",
        ]
    );
}

#[test]
fn a_roll_out_goes_on_after_a_restart_and_ends_with_all_hosts() {
    let (mut fleet, _second) = fleet();
    let _staged = set(&fleet, "exe:/opt/two\n", &["--staged"]);
    let start = [
        "policy", "rollout", "web", "2", "--steps", "1%,100%", "--every", "2s",
    ];
    let _started = fleet.collector.told(&start);
    let _paused = fleet.collector.told(&["policy", "rollout", "pause", "web"]);
    wait_until_hosts_run(&fleet, &[1, 2]);

    assert!(fleet.collector.stop().success());
    fleet.collector.start();
    let seen = rollout(&fleet);
    assert_eq!(
        (&seen["state"], &seen["step"]),
        (&"paused".into(), &1.into())
    );
    let _resumed = fleet
        .collector
        .told(&["policy", "rollout", "resume", "web"]);
    let seen = wait_for_state(&fleet, "finished");
    assert_eq!(seen["step"], 2, "{seen}");
    wait_until_hosts_run(&fleet, &[2, 2]);
    let shown = one(fleet.collector.json(&["policy", "show", "web"]).unwrap());
    assert!(
        shown.get("running").is_none(),
        "hosts run the newest: {shown}"
    );
}

#[test]
fn a_rule_that_hides_something_severe_stops_its_roll_out_by_itself() {
    let (fleet, _second) = fleet();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("severe");
    let payload = Payload::at(&path).account(ACCOUNT).start();
    eventually("the payload to be reported by a host", || {
        let findings = fleet.collector.findings_of(payload.pid())?;
        findings.first().map(drop).ok_or_else(|| fleet.agent.log())
    });
    let _staged = set(&fleet, &format!("exe:{}\n", path.display()), &["--staged"]);
    let start = [
        "policy", "rollout", "web", "2", "--steps", "1%,100%", "--every", "1h",
    ];
    let _started = fleet.collector.told(&start);
    let seen = wait_for_state(&fleet, "reverted");
    let why = seen["reason"].as_str().unwrap();
    assert!(why.starts_with("it ignores what was high: exe:/"), "{why}");
    assert_eq!(seen["moved_by"], "collector", "{seen}");
    eventually("a mail about the stop", || {
        let mails = fleet.smtp.mails();
        let about = mails
            .iter()
            .find(|mail| mail.subject.contains("roll-out of web r2 stopped"));
        let mail = about.ok_or_else(|| fleet.collector.log())?;
        mail.text
            .contains(why)
            .then_some(())
            .ok_or_else(|| mail.text.clone())
    });
    let status = ["policy", "rollout", "status", "web"];
    assert_eq!(fleet.collector.operator(&status).status.code(), Some(2));
    wait_until_hosts_run(&fleet, &[1, 1]);
}

/// Waits until the roll-out has noted what its rules hid before it began or was
/// resumed, so often.
fn wait_until_beginning_is_noted(fleet: &Fleet, times: usize) {
    eventually("what the rules hid before to be noted", || {
        let trail = fleet.collector.json(&["audit"])?;
        let noted = trail.iter().filter(|entry| entry["what"] == "noted");
        let noted = noted.count();
        (noted == times).then_some(()).ok_or(format!("{trail:?}"))
    });
}

#[test]
fn a_restart_neither_accuses_a_roll_out_nor_forgives_it() {
    let (mut fleet, _second) = fleet();
    let directory = volatile_directory().unwrap();
    let path = |name: &str| directory.path().join(name);
    let [old, new] = ["old", "new"].map(|name| format!("exe:{}", path(name).display()));
    // Were it held against the roll-out again, the worst would be named.
    let _old = Payload::at(&path("old"))
        .argv0("[kworker/7:3]")
        .account(ACCOUNT)
        .start();
    let _staged = set(&fleet, &format!("{old}\n{new}\n"), &["--staged"]);
    let start = "policy rollout web 2 --steps 1%,100% --every 1h --on-stop hold";
    let start: Vec<_> = start.split(' ').collect();
    let _started = fleet.collector.told(&start);
    let why = wait_for_state(&fleet, "held")["reason"].to_string();
    assert!(why.contains(&format!("was critical: {old} on")), "{why}");
    // Who resumes it accepts what it hid until then.
    let resume = ["policy", "rollout", "resume", "web"];
    let _resumed = fleet.collector.told(&resume);
    wait_until_beginning_is_noted(&fleet, 2);
    assert_eq!(rollout(&fleet)["state"], "running");

    assert!(fleet.collector.stop().success());
    let _new = Payload::at(&path("new")).account(ACCOUNT).start();
    // The agents have counted it when they come back, and then tell both at
    // once; if not, the next heartbeat does.
    std::thread::sleep(Duration::from_secs(4));
    fleet.collector.start();
    let why = wait_for_state(&fleet, "held")["reason"].to_string();
    assert!(why.contains(&format!("was high: {new} on")), "{why}");
    wait_until_beginning_is_noted(&fleet, 2);
}

/// From now on the agent can keep no policy, so it refuses every new one.
fn refuse_policies(agent: &Agent) {
    let kept = agent.state_dir().join("policy");
    std::fs::rename(&kept, kept.with_extension("away")).unwrap();
    std::fs::write(&kept, "in the way").unwrap();
}

/// The one host of a list that is not like the others.
fn only(hosts: &[Value], is_it: impl Fn(&Value) -> bool) -> &Value {
    let found: Vec<_> = hosts.iter().filter(|host| is_it(host)).collect();
    let [one] = found.as_slice() else {
        panic!("{hosts:?}")
    };
    one
}

#[test]
fn a_host_that_refuses_a_revision_stops_its_roll_out_and_the_rest_holds() {
    let (fleet, second) = fleet();
    refuse_policies(&fleet.agent);
    refuse_policies(&second);
    let _staged = set(&fleet, "exe:/opt/two\n", &["--staged"]);
    let start = [
        "policy",
        "rollout",
        "web",
        "2",
        "--steps",
        "50%,100%",
        "--every",
        "1h",
        "--on-stop",
        "hold",
    ];
    let _started = fleet.collector.told(&start);
    let seen = wait_for_state(&fleet, "held");
    let why = seen["reason"].as_str().unwrap();
    assert!(why.starts_with("1 host(s) refuse it: "), "{why}");
    assert!(why.contains("cannot be kept on this host"), "{why}");
    assert_eq!(running(&fleet), [1, 1], "the last good one stays");

    let output = fleet
        .collector
        .operator(&["policy", "status", "web", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let lines = text(&output.stdout);
    let hosts: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let refused = only(&hosts, |host| host["state"] == "refused");
    let _untouched = only(&hosts, |host| host["state"] == "applied");
    let id = refused["host_id"].as_str().unwrap();
    let shown = one(fleet.collector.json(&["hosts", "show", id]).unwrap());
    let web = only(shown["policies"].as_array().unwrap(), |policy| {
        policy["name"] == "web"
    });
    assert_eq!(
        (&web["revision"], &web["rolling_out"]),
        (&2.into(), &true.into())
    );
    let told = fleet.collector.told(&["hosts", "show", id]);
    assert!(told.contains("r2 (rolling out)"), "{told}");

    let abort = ["policy", "rollout", "abort", "web", "--reason", "full disk"];
    let _aborted = fleet.collector.told(&abort);
    fleet.wait_until_policy_applied("web");
    assert_eq!(running(&fleet), [1, 1]);
}
