//! Policy files as people really have them, and the shipped ones.

use std::process::Output;

use procwarden_tests::binaries::workspace;
use procwarden_tests::collector::{Collector, text};

fn collector(directory: &tempfile::TempDir) -> Collector {
    let mut collector = Collector::init(directory.path(), None);
    collector.start();
    collector
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("procwarden-e2e-")
        .tempdir()
        .unwrap()
}

#[test]
fn all_errors_of_a_file_are_named_at_once_and_nothing_is_published() {
    let home = directory();
    let collector = collector(&home);
    let file = home.path().join("bad.pignore");
    std::fs::write(
        &file,
        "exe:/usr/bin/good\npexe:/a(b\n# comment\npcmd:x[\npuser:*\n",
    )
    .unwrap();
    let file = file.display().to_string();
    for command in [
        vec!["policy", "check", &file],
        vec!["policy", "set", "default", &file, "--comment", "bad"],
    ] {
        let output: Output = collector.operator(&command);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        for place in [":2:", ":4:", ":5:"] {
            assert!(
                said.contains(place),
                "{command:?} does not name line {place}: {said}"
            );
        }
    }
    assert_eq!(
        collector.json(&["policy", "log", "default"]).unwrap().len(),
        0
    );
}

#[test]
fn a_crlf_file_with_an_include_is_published_and_warned_about() {
    let home = directory();
    let collector = collector(&home);
    let included = home.path().join("more.pignore");
    std::fs::write(&included, "exe:/opt/more\r\n").unwrap();
    let file = home.path().join("csf.pignore");
    let rules = format!(
        "# servers\r\nexe:/usr/bin/one\r\nInclude {}\r\n",
        included.display()
    );
    std::fs::write(&file, rules).unwrap();
    let file = file.display().to_string();
    let output = collector.operator(&[
        "policy",
        "set",
        "default",
        &file,
        "--comment",
        "from Windows",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("CR"),
        "{}",
        text(&output.stderr)
    );
    let log = collector.json(&["policy", "log", "default"]).unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["rules"], 2, "{log:?}");
    assert_eq!(log[0]["comment"], "from Windows");
}

#[test]
fn the_shipped_policies_pass_the_check() {
    let home = directory();
    let collector = collector(&home);
    let policies = workspace().join("deploy").join("policies");
    let mut checked = 0;
    for entry in std::fs::read_dir(policies).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|e| e == "toml" || e == "pignore")
        {
            let output = collector.operator(&["policy", "check", &path.display().to_string()]);
            assert!(
                output.status.success(),
                "{}: {}",
                path.display(),
                text(&output.stderr)
            );
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn usage_errors_end_with_64_and_a_missing_collector_with_1() {
    let home = directory();
    let mut collector = collector(&home);
    assert_eq!(
        collector.operator(&["no-such-command"]).status.code(),
        Some(64)
    );
    assert_eq!(collector.operator(&["--help"]).status.code(), Some(0));
    assert!(collector.stop().success());
    let output = collector.operator(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("admin.sock"),
        "{}",
        text(&output.stderr)
    );
}
