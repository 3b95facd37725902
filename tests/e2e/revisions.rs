//! Revisions of a policy on two hosts in different groups: who gets them, what
//! differs, the way back, and what the audit trail says afterwards.

use procwarden_tests::fleet::Fleet;
use serde_json::Value;

/// Publishes rules as the next revision of a policy.
fn publish(fleet: &Fleet, policy: &str, rules: &str, more: &[&str]) {
    let file = fleet.path("csf.pignore");
    std::fs::write(&file, rules).unwrap();
    let file = file.display().to_string();
    let command = ["policy", "set", policy, &file, "--comment", "for a test"];
    let _published = fleet.collector.told(&[&command, more].concat());
}

/// The id of the only host whose own groups are these.
fn host_of(fleet: &Fleet, groups: &[&str]) -> String {
    let hosts = fleet.collector.json(&["hosts", "list"]).unwrap();
    let mut found = hosts
        .iter()
        .filter(|host| host["groups"] == serde_json::json!(groups));
    let host = found.next().unwrap();
    assert!(found.next().is_none(), "{hosts:?}");
    host["id"].as_str().unwrap().to_owned()
}

/// The policies that a host should run, and the groups that bring them.
fn policies_of(fleet: &Fleet, host: &str) -> Vec<(String, Value)> {
    let shown = fleet.collector.json(&["hosts", "show", host]).unwrap();
    let policies = shown[0]["policies"].as_array().unwrap();
    policies
        .iter()
        .map(|p| (p["name"].as_str().unwrap().to_owned(), p["groups"].clone()))
        .collect()
}

/// What was done to the policy `web`, newest first.
fn audit_of_web(fleet: &Fleet) -> Vec<Value> {
    let mut trail = fleet.collector.json(&["audit"]).unwrap();
    trail.retain(|entry| {
        let object = entry["object"].as_str().unwrap();
        object == "policy web" || object.starts_with("policy web ")
    });
    trail
}

#[test]
fn a_policy_goes_to_its_group_comes_back_and_leaves_a_trail() {
    let mut fleet = Fleet::start().unwrap();
    let _second = fleet.another_agent("second", "db");
    let (web, db) = (host_of(&fleet, &[]), host_of(&fleet, &["db"]));
    let _set = fleet
        .collector
        .told(&["hosts", "set", &web, "--group", "web"]);

    publish(&fleet, "web", "exe:/opt/one\n", &["--group", "web"]);
    fleet.wait_until_policy_applied("web");
    fleet.wait_until_applied();
    only_the_host_of_the_group_has_it(&fleet, &web, &db);

    publish(&fleet, "web", "exe:/opt/one\nexe:/opt/two\n", &[]);
    let diff = fleet.collector.json(&["policy", "diff", "web", "1", "2"]);
    let added = serde_json::json!({
        "change": "added", "file": "csf.pignore", "line": 2, "text": "exe:/opt/two",
    });
    assert_eq!(diff.unwrap(), [added]);

    let back = ["policy", "rollback", "web", "1"];
    let _rolled_back = fleet
        .collector
        .told(&[&back[..], &["--comment", "too wide"]].concat());
    let again = fleet.collector.told(&back);
    assert!(again.contains("nothing to do"), "{again}");
    let unknown = fleet
        .collector
        .operator(&["policy", "rollback", "web", "9"]);
    assert_eq!(unknown.status.code(), Some(1));
    fleet.wait_until_policy_applied("web");
    the_old_content_is_the_newest_revision(&fleet, &web);

    the_trail_names_every_step(&audit_of_web(&fleet));
    let before = audit_of_web(&fleet);
    assert!(fleet.collector.stop().success());
    fleet.collector.start();
    assert_eq!(audit_of_web(&fleet), before, "a restart changes no history");
}

fn only_the_host_of_the_group_has_it(fleet: &Fleet, web: &str, db: &str) {
    let all = ("default".to_owned(), serde_json::json!(["all"]));
    let own = ("web".to_owned(), serde_json::json!(["web"]));
    assert_eq!(policies_of(fleet, web), [all.clone(), own]);
    assert_eq!(policies_of(fleet, db), [all]);
    let status = fleet.collector.json(&["policy", "status", "web"]).unwrap();
    assert_eq!(status.len(), 1, "{status:?}");
    assert_eq!(status[0]["host_id"], web);
    let shown = fleet.collector.json(&["hosts", "show", db]).unwrap();
    let applied = shown[0]["policy"]["applied"].as_array().unwrap();
    assert!(applied.iter().all(|p| p["name"] == "default"), "{shown:?}");
}

fn the_old_content_is_the_newest_revision(fleet: &Fleet, web: &str) {
    let log = fleet.collector.json(&["policy", "log", "web"]).unwrap();
    assert_eq!(log[0]["revision"], 3, "{log:?}");
    assert_eq!(log[0]["comment"], "rollback to revision 1: too wide");
    assert!(log.iter().all(|r| r["hash"].as_str().unwrap().len() == 64));
    let same = fleet.collector.told(&["policy", "diff", "web", "1", "3"]);
    assert!(same.contains("same content"), "{same}");
    let rules = fleet.collector.json(&["hosts", "show", web, "--rules"]);
    let rule = serde_json::json!({
        "rule": "exe:/opt/one", "policy": "web", "revision": 3,
        "file": "csf.pignore", "line": 1,
    });
    assert_eq!(rules.unwrap(), [rule]);
    let status = fleet.collector.json(&["policy", "status", "web"]).unwrap();
    assert_eq!(status[0]["applied_revision"], 3, "{status:?}");
    assert_eq!(status[0]["state"], "applied");
}

fn the_trail_names_every_step(trail: &[Value]) {
    let steps: Vec<String> = trail
        .iter()
        .map(|entry| format!("{} {}", entry["what"], entry["object"]).replace('"', ""))
        .collect();
    assert_eq!(
        steps,
        [
            "published policy web r3",
            "published policy web r2",
            "published policy web r1",
        ]
    );
    let details = trail[0]["details"].as_str().unwrap();
    assert!(details.ends_with("rollback to revision 1: too wide"));
    // The groups came with the text, in one record.
    let details = trail[2]["details"].as_str().unwrap();
    assert!(details.starts_with("to groups web; "), "{details}");
    for entry in trail {
        assert!(entry["actor"].as_str().unwrap().starts_with("uid:"));
        assert!(entry["time"].is_string(), "{entry}");
    }
}

#[test]
fn a_policy_can_be_given_to_one_host() {
    let fleet = Fleet::start().unwrap();
    let _second = fleet.another_agent("second", "db");
    let (first, db) = (host_of(&fleet, &[]), host_of(&fleet, &["db"]));
    publish(&fleet, "own", "exe:/opt/own\n", &[]);
    let _assigned = fleet
        .collector
        .told(&["policy", "assign", "own", "--host", &db]);
    fleet.wait_until_policy_applied("own");
    let all = ("default".to_owned(), serde_json::json!(["all"]));
    let own = ("own".to_owned(), serde_json::json!([format!("host:{db}")]));
    assert_eq!(policies_of(&fleet, &db), [all.clone(), own]);
    assert_eq!(policies_of(&fleet, &first), [all]);
    let shown = fleet.collector.json(&["hosts", "show", &db]).unwrap();
    let settings = shown[0]["settings"].as_array().unwrap();
    assert!(
        settings
            .iter()
            .any(|s| s["setting"] == "scan.interval_secs" && s["policy"] == "default"),
        "{shown:?}"
    );
}
