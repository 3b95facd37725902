//! Ignore from a finding: the rule, its preview, the revision, and that the
//! agents obey it.

use std::path::Path;

use procwarden_tests::collector::text;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};
use serde_json::Value;

/// What `ignore` says about a finding.
fn ignore(fleet: &Fleet, id: &str, more: &[&str]) -> Value {
    let command = ["ignore", id, "--reason", "for a \"test\""];
    let said = fleet.collector.json(&[&command, more].concat()).unwrap();
    let [said] = said.as_slice() else {
        panic!("{said:?}")
    };
    said.clone()
}

fn revisions(fleet: &Fleet) -> Vec<Value> {
    fleet.collector.json(&["policy", "log", "default"]).unwrap()
}

#[test]
fn a_finding_is_ignored_by_the_rule_that_was_shown_first() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("it's [a] test");
    let payload = Payload::at(&path).argv0("a b\n$(x)").start();
    let id = fleet.wait_for_finding(&payload, "exe-in-volatile-dir");
    let rule = format!("exe:{}", path.display());

    let before = revisions(&fleet);
    let said = ignore(&fleet, &id, &["--expires", "2099-01-31"]);
    assert_eq!(said["rule"], rule, "{said}");
    let facts = said["facts"].as_str().unwrap();
    assert!(facts.starts_with("#@ expires=2099-01-31 owner="), "{facts}");
    assert!(facts.ends_with(r#"reason="for a \"test\"""#), "{facts}");
    assert_eq!(said["preview"][0]["rule"], rule, "{said}");
    assert_eq!(said["summary"]["hidden"], 1, "{said}");
    let warnings = said["diagnostics"].to_string();
    assert!(warnings.contains("[writable-path]"), "{said}");
    assert_eq!(
        (&said["published"], &said["can_be_forced"]),
        (&false.into(), &true.into())
    );

    let unforced = ["ignore", &id, "--reason", "x", "--yes"];
    let refused = fleet.collector.operator(&unforced);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains("--force"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(revisions(&fleet), before, "nothing was changed so far");

    let said = ignore(&fleet, &id, &["--yes", "--force"]);
    assert_eq!(said["published"], true, "{said}");
    fleet.wait_until_applied();
    let newest = &revisions(&fleet)[0];
    let comment = newest["comment"].as_str().unwrap();
    assert!(comment.contains(&id[..12]), "{comment}");
    assert!(
        newest["author"].as_str().unwrap().starts_with("uid:"),
        "{newest}"
    );

    let again = fleet.collector.operator(&["ignore", &id, "--reason", "x"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        text(&again.stderr).contains("covers it already"),
        "{}",
        text(&again.stderr)
    );
    drop(payload);
    the_next_process_of_the_program_is_not_reported(&fleet, &path);
}

/// The agent judges by the rule: what runs from there next is not reported,
/// while what the rule does not cover is.
fn the_next_process_of_the_program_is_not_reported(fleet: &Fleet, path: &Path) {
    let second = Payload::at(path).start();
    let other = Payload::at(&path.with_file_name("other")).start();
    let _reported = fleet.wait_for_finding(&other, "exe-in-volatile-dir");
    let of_second = fleet.collector.findings_of(second.pid());
    assert_eq!(of_second.unwrap(), Vec::<Value>::new());
}

#[test]
fn a_finding_of_a_deleted_executable_gets_no_rule_by_its_path() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let path = directory.path().join("gone");
    let payload = Payload::at(&path).start();
    std::fs::remove_file(&path).unwrap();
    let id = fleet.wait_for_finding(&payload, "exe-deleted");
    let said = ignore(&fleet, &id, &[]);
    assert_eq!(said["can_be_forced"], false, "{said}");
    let forced = ["ignore", &id, "--reason", "x", "--yes", "--force"];
    let refused = fleet.collector.operator(&forced);
    assert_eq!(refused.status.code(), Some(2));
    let unforced = ["ignore", &id, "--reason", "x", "--by", "pcmd", "--yes"];
    let refused = fleet.collector.operator(&unforced);
    assert_eq!(refused.status.code(), Some(2));
    let why = text(&refused.stderr);
    assert!(why.contains("was deleted or replaced"), "{why}");
    let said = ignore(&fleet, &id, &["--by", "pcmd", "--yes", "--force"]);
    assert_eq!(said["published"], true, "{said}");
    assert!(
        said["rule"].as_str().unwrap().starts_with("pcmd:"),
        "{said}"
    );
    fleet.wait_until_applied();
}
