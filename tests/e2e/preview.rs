//! Preview: what a rule would hide is said before it is published.

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};

/// The answer, over what began since then and what is open still.
fn preview_since(fleet: &Fleet, rules: &str, since: &str) -> Vec<serde_json::Value> {
    let file = fleet.path("candidate.pignore");
    std::fs::write(&file, rules).unwrap();
    let file = file.display().to_string();
    let command = ["policy", "preview", "default", &file, "--since", since];
    fleet.collector.json(&command).unwrap()
}

fn preview(fleet: &Fleet, rules: &str) -> Vec<serde_json::Value> {
    preview_since(fleet, rules, "30d")
}

#[test]
fn a_preview_names_what_a_rule_would_hide_and_what_its_removal_brings_back() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("previewed");
    let first = Payload::at(&path).start();
    let id = fleet.wait_for_finding(&first, "exe-in-volatile-dir");
    let rule = format!("exe:{}", path.display());

    let said = preview(&fleet, &format!("{rule}\nexe:/nonexistent/never\n"));
    let [hides, never, summary] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(hides["rule"], rule, "{hides}");
    assert_eq!(hides["change"], "added");
    assert_eq!(
        (&hides["findings"], &hides["hosts"]),
        (&1.into(), &1.into())
    );
    assert_eq!(hides["samples"][0]["id"], id, "{hides}");
    assert_eq!(never["findings"], 0, "{never}");
    assert_eq!(summary["hidden"], 1, "{summary}");
    assert_eq!(summary["rules_added"], 2, "{summary}");
    let said = preview_since(&fleet, &format!("{rule}\n"), "2199-01-01");
    assert_eq!(said[0]["findings"], 1, "it is open still: {said:?}");
    let revisions = fleet.collector.json(&["policy", "log", "default"]).unwrap();
    assert_eq!(revisions.len(), 1, "a preview publishes nothing");

    fleet.publish_rules(&format!("{rule}\n"));
    let said = preview(&fleet, "# nothing is ignored\n");
    let [back, summary] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(
        (&back["rule"], &back["change"]),
        (&rule.into(), &"removed".into())
    );
    assert_eq!(back["findings"], 1, "{back}");
    assert_eq!(
        (&summary["hidden"], &summary["shown"]),
        (&0.into(), &1.into())
    );
}
