//! What rules ignored: counted on the agents, added up on the collector,
//! shown with the policy.

use std::path::Path;

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// What `policy show` says of a rule of the policy `default`.
fn shown(fleet: &Fleet, rule: &str) -> Value {
    let shown = fleet
        .collector
        .json(&["policy", "show", "default"])
        .unwrap();
    let rules = shown[0]["rule_hits"].as_array().unwrap();
    let found = rules.iter().find(|object| object["rule"] == rule);
    found
        .unwrap_or_else(|| panic!("{rule} is not in {shown:?}"))
        .clone()
}

/// Waits until a rule ignored so many processes on so many hosts.
#[track_caller]
fn wait_for_hits(fleet: &Fleet, rule: &str, processes: u64, hosts: u64) -> Value {
    eventually(&format!("{processes} hit(s) of {rule}"), || {
        let shown = shown(fleet, rule);
        if (&shown["processes"], &shown["hosts"]) == (&processes.into(), &hosts.into()) {
            return Ok(shown);
        }
        Err(shown.to_string())
    })
}

/// Nothing of what a rule ignored is stored: the agents counted it.
fn a_preview_says_what_removing_it_brings_back(fleet: &Fleet, rule: &str, exe: &Path) {
    let file = fleet.path("without.pignore");
    std::fs::write(&file, "# nothing is ignored\n").unwrap();
    let file = file.display().to_string();
    let command = ["policy", "preview", "default", &file];
    let said = fleet.collector.json(&command).unwrap();
    let removed = said.iter().find(|object| object["rule"] == rule).unwrap();
    assert_eq!(removed["change"], "removed", "{removed}");
    assert_eq!(removed["findings"], 0, "{removed}");
    let ignored = &removed["ignored"];
    assert_eq!(ignored["processes"], 2, "{removed}");
    assert_eq!(
        ignored["samples"][0]["exe"],
        exe.display().to_string(),
        "{removed}"
    );
    let told = fleet.collector.told(&command);
    assert!(told.contains("this would be reported:"), "{told}");
}

#[test]
fn a_policy_shows_what_each_rule_ignored_and_where() {
    let mut fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("counted");
    let rule = format!("exe:{}", path.display());
    let never = "exe:/nonexistent/never";
    fleet.publish_rules(&format!("{rule}\n{never}\n"));

    let payload = Payload::at(&path);
    let (_first, _second) = (payload.start(), payload.start());
    let counted = wait_for_hits(&fleet, &rule, 2, 1);
    // Both look alike: one sample stands for them.
    assert_eq!(
        counted["samples"][0]["exe"],
        path.display().to_string(),
        "{counted}"
    );
    assert_eq!(counted["samples"].as_array().unwrap().len(), 1, "{counted}");
    // A host counts when it has scanned under the revision.
    let told = eventually("scans under the revision", || {
        let told = fleet.collector.told(&["policy", "show", "default"]);
        if told.contains("counted on 1 of 1 host(s)") {
            return Ok(told);
        }
        Err(told)
    });
    assert!(told.contains("ignored 2 process(es)"), "{told}");
    let marks = &shown(&fleet, never)["marks"];
    assert_eq!(*marks, serde_json::json!(["never-matched"]));

    a_preview_says_what_removing_it_brings_back(&fleet, &rule, &path);

    // A revision that keeps the rule keeps its counts, and so does a restart
    // of either side; processes that still run are not counted again.
    fleet.publish_rules(&format!("# moved\n{rule}\n"));
    assert!(fleet.agent.stop().success());
    assert!(fleet.collector.stop().success());
    fleet.collector.start();
    fleet.agent.start();
    let again = wait_for_hits(&fleet, &rule, 2, 1);
    // Anybody can put a program there.
    assert_eq!(again["marks"], serde_json::json!(["too-broad"]), "{again}");

    // A host that is shut out counts no more.
    let hosts = fleet.collector.json(&["hosts", "list"]).unwrap();
    let host = hosts[0]["id"].as_str().unwrap();
    let _revoked = fleet.collector.told(&["hosts", "revoke", host]);
    let gone = wait_for_hits(&fleet, &rule, 0, 0);
    assert_eq!(gone["samples"], serde_json::json!([]), "{gone}");
}
