//! The presets of deploy/policies: they compile without a remark, every rule
//! says why it is there, and none hides what a preset must never hide.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::suggest::{is_in_writable_place, is_interpreter};
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, PolicyFile, RuleKey, RuleText, Verdict, check, judge,
};

/// The presets, sorted by name.
fn presets() -> Vec<PolicyFile> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies");
    let mut presets: Vec<PolicyFile> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "pignore"))
        .map(|path| PolicyFile {
            content: std::fs::read(&path).unwrap(),
            path: path.file_name().unwrap().to_string_lossy().into_owned(),
        })
        .collect();
    presets.sort_by(|a, b| a.path.cmp(&b.path));
    presets
}

fn compile(file: PolicyFile) -> Policy {
    let document = PolicyDocument {
        name: "preset".to_owned(),
        revision: 1,
        files: vec![file],
        settings: String::new(),
    };
    let documents = vec![document];
    let (policy, remarks) = check(&EffectivePolicy { documents }, UnixMillis(0)).unwrap();
    assert_eq!(remarks, []);
    policy
}

#[test]
fn every_preset_of_the_readme_is_there_and_compiles_without_a_remark() {
    let names: Vec<String> = presets().into_iter().map(|file| file.path).collect();
    let expected = [
        "apache.pignore",
        "base-almalinux.pignore",
        "base-debian.pignore",
        "cpanel.pignore",
        "databases.pignore",
        "directadmin.pignore",
        "dns.pignore",
        "ftp.pignore",
        "litespeed.pignore",
        "mail.pignore",
        "monitoring.pignore",
        "nginx.pignore",
        "php-fpm.pignore",
        "plesk.pignore",
        "proxy.pignore",
    ];
    assert_eq!(names, expected);
    for preset in presets() {
        let rules = compile(preset.clone()).rules().len();
        assert_eq!(
            rules == 0,
            preset.path == "php-fpm.pignore",
            "{}",
            preset.path
        );
    }
}

/// Hosts get several presets at once; a rule twice is a remark in every check.
#[test]
fn no_two_presets_hold_the_same_rule() {
    let mut seen = std::collections::BTreeMap::new();
    // These two are for different systems.
    let base = |name: &str| name.starts_with("base-");
    for preset in presets() {
        for rule in compile(preset.clone()).rules() {
            let before = seen.insert(rule.to_string(), preset.path.clone());
            let both_base = before.as_deref().is_none_or(base) && base(&preset.path);
            assert!(
                before.is_none() || both_base,
                "{rule}: {before:?} {}",
                preset.path
            );
        }
    }
}

#[test]
fn every_rule_has_a_reason_in_the_line_before_it() {
    for preset in presets() {
        let text = String::from_utf8(preset.content).unwrap();
        let mut before = "";
        for line in text.lines() {
            if !line.is_empty() && !line.starts_with('#') {
                let reason = before
                    .strip_prefix("#@ reason=\"")
                    .and_then(|rest| rest.strip_suffix('"'));
                let reason = reason.unwrap_or_default();
                let good = reason.len() > 5 && !reason.contains(['"', '\\']);
                assert!(good, "{}: {line}: {before}", preset.path);
            }
            before = line;
        }
    }
}

#[test]
fn a_rule_names_a_whole_path_outside_of_every_writable_place() {
    for preset in presets() {
        for rule in compile(preset.clone()).rules() {
            let place = format!("{}: {rule}", preset.path);
            assert!(matches!(rule.key, RuleKey::Exe | RuleKey::Pexe), "{place}");
            assert!(rule.value.starts_with('/'), "{place}");
            assert!(
                !rule.value.contains("..") && !rule.value.contains("//"),
                "{place}"
            );
            assert!(!is_in_writable_place(&rule.value), "{place}");
            assert!(!is_interpreter(&rule.value), "{place}");
            if rule.key == RuleKey::Pexe {
                assert!(
                    !rule.value.contains(['*', '+', '|', '?']),
                    "{place}: too wide"
                );
            }
        }
    }
}

#[test]
fn no_preset_hides_an_interpreter_a_deleted_program_or_a_writable_path() {
    let bad = [
        "/usr/bin/perl",
        "/usr/bin/python3.11",
        "/usr/bin/php8.2",
        "/usr/sbin/php-fpm8.2",
        "/opt/cpanel/ea-php82/root/usr/sbin/php-fpm",
        "/usr/local/php82/sbin/php-fpm82",
        "/usr/sbin/sw-engine-fpm",
        "/usr/local/cpanel/3rdparty/perl/536/bin/perl",
        "/bin/bash",
        "/usr/bin/dash",
        "/usr/bin/ruby3.1",
        "/usr/bin/node",
        "/usr/bin/ssh",
        "/usr/bin/curl",
        "/tmp/httpd",
        "/dev/shm/named",
        "/home/bob/usr/sbin/exim",
        "/usr/sbin/exim4 (deleted)",
        "/usr/lib/postgresql/15/bin/postgres (deleted)",
        "/usr/lib/postgresql/15/bin/../../../../../tmp/postgres",
    ];
    for preset in presets() {
        let policy = compile(preset.clone());
        for exe in bad {
            let text = RuleText {
                user: "bob".to_owned(),
                exe: Some(exe.to_owned()),
                cmd: Some("php-fpm: pool www".to_owned()),
            };
            assert_eq!(
                judge(&policy, &text, UnixMillis(0)),
                Verdict::Report,
                "{}: {exe}",
                preset.path
            );
        }
    }
}
