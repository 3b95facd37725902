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
fn a_server_is_imported_as_one_revision_or_not_at_all() {
    let home = directory();
    let collector = collector(&home);
    let pignore = home.path().join("csf.pignore");
    std::fs::write(&pignore, "exe:/usr/sbin/exim\npexe:/a|/b\n").unwrap();
    let conf = home.path().join("csf.conf");
    let (pignore, conf_name) = (pignore.display().to_string(), conf.display().to_string());
    let import = [
        "import",
        "csf",
        "--pignore",
        &pignore,
        "--conf",
        &conf_name,
        "--policy",
        "default",
    ];
    let revisions = || collector.json(&["policy", "log", "default"]).unwrap().len();

    std::fs::write(&conf, "PT_LIMIT = \"60\"\nPT_USERPROC = \"ten\"\n").unwrap();
    let output = collector.operator(&import);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("csf.conf:2: error"), "{said}");
    assert_eq!(revisions(), 0, "half an import was published");

    let good = "TCP_IN = \"22\"\nPT_LIMIT = \"90\"\nPT_USERKILL = \"1\"\n";
    std::fs::write(&conf, good).unwrap();
    let dry = collector.told(&[&import[..], &["--dry-run"]].concat());
    assert!(dry.contains("min_age_secs = 90"), "{dry}");
    let dry = collector.json(&[&import[..], &["--dry-run"]].concat());
    let report = dry.unwrap().pop().unwrap();
    assert_eq!(report["kind"], "report", "{report}");
    assert_eq!((&report["ok"], &report["rules"]), (&true.into(), &2.into()));
    assert_eq!(revisions(), 0, "a dry run was published");
    let overtaken = collector.operator(&[&import[..], &["--base", "7"]].concat());
    assert!(!overtaken.status.success(), "{overtaken:?}");
    assert_eq!(
        revisions(),
        0,
        "published over a revision that is not there"
    );

    let output = collector.operator(&import);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for needed in ["agent-local", "PT_USERKILL"] {
        assert!(text(&output.stdout).contains(needed), "{output:?}");
    }
    assert!(text(&output.stderr).contains("lfd reads"), "{output:?}");
    assert_eq!(revisions(), 1);
    let shown = collector.told(&["policy", "show", "default"]);
    assert!(shown.contains("exe:/usr/sbin/exim") && shown.contains("min_age_secs = 90"));
}

#[test]
fn doubtful_rules_are_shown_with_a_caret_and_strict_publishes_none() {
    let home = directory();
    let collector = collector(&home);
    let file = home.path().join("doubtful.pignore");
    let rules = "# perl\nexe:/usr/bin/perl\n#@ expires=2020-01-31 owner=ops\nexe:/opt/old\n\
                 exe:/opt/twice\nexe:/opt/twice\n";
    std::fs::write(&file, rules).unwrap();
    let file = file.display().to_string();
    let set = ["policy", "set", "default", &file, "--comment", "doubtful"];
    for (command, code) in [
        (vec!["policy", "check", &file], 0),
        (vec!["policy", "check", &file, "--strict"], 2),
        ([&set[..], &["--strict"]].concat(), 2),
    ] {
        let output: Output = collector.operator(&command);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        assert!(said.contains("[interpreter]"), "{command:?}: {said}");
        let caret = "    exe:/usr/bin/perl\n        ^\n";
        assert!(said.contains(caret), "{command:?}: {said}");
        assert!(said.contains("[expired]"), "{command:?}: {said}");
    }
    let log = collector.json(&["policy", "log", "default"]).unwrap();
    assert_eq!(log.len(), 0, "strict publishes nothing");

    let output = collector.operator(&set);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for once in ["[interpreter]", "[duplicate]"] {
        assert_eq!(said.matches(once).count(), 1, "{once} is said once: {said}");
    }
    let shown = collector.operator(&["policy", "show", "default"]);
    let said = text(&shown.stderr);
    assert!(
        said.contains("[expired]") && said.contains("owner ops"),
        "{said}"
    );
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
