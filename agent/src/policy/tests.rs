//! Pushes and restarts, on a real disk.

use super::*;

use procwarden_common::clock::UnixMillis;
use procwarden_common::policy::{RuleText, judge};

fn message(rules: &str, revision: u64) -> v1::EffectivePolicy {
    v1::EffectivePolicy {
        documents: vec![v1::PolicyDocument {
            name: "default".into(),
            revision,
            files: vec![v1::PolicyFile {
                path: "default.pignore".into(),
                content: Bytes::copy_from_slice(rules.as_bytes()),
            }],
            settings: "[scan]\ninterval_secs = 7\n".into(),
        }],
    }
}

fn load(dir: &Path) -> Loaded {
    PolicyStore::load(dir).unwrap()
}

#[test]
fn without_a_policy_nothing_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = load(dir.path());
    assert!(loaded.policy.rules().is_empty());
    assert!(loaded.damaged.is_none());
    assert!(loaded.store.state().applied_hash.is_empty());
}

#[test]
fn a_good_policy_is_applied_once_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = load(dir.path()).store;
    let Pushed::Applied(policy) = store.push(message("exe:/usr/sbin/x\n", 3)) else {
        panic!()
    };
    assert_eq!(policy.settings().interval_secs, 7);
    assert!(matches!(
        store.push(message("exe:/usr/sbin/x\n", 3)),
        Pushed::Unchanged
    ));
    let again = load(dir.path());
    assert_eq!(again.policy.rules().len(), 1);
    assert_eq!(again.store.state(), store.state());
    assert_eq!(store.state().applied[0].revision, 3);
}

#[test]
fn a_bad_policy_is_refused_with_its_reason_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = load(dir.path()).store;
    assert!(matches!(
        store.push(message("exe:/usr/sbin/x\n", 1)),
        Pushed::Applied(_)
    ));
    let good = store.state();
    let Pushed::Refused(reason) = store.push(message("pexe:(\n", 2)) else {
        panic!()
    };
    assert!(reason.contains("default.pignore:1"), "{reason}");
    let state = store.state();
    assert_eq!(state.applied_hash, good.applied_hash);
    assert_eq!(state.refused_reason, reason);
    assert_eq!(load(dir.path()).policy.rules().len(), 1);
    // A good one clears the refusal.
    assert!(matches!(
        store.push(message("exe:/usr/sbin/y\n", 3)),
        Pushed::Applied(_)
    ));
    assert!(store.state().refused_hash.is_empty());
}

#[test]
fn a_policy_over_any_limit_is_refused_and_the_last_good_one_stays() {
    use procwarden_common::limits::{POLICIES_MAX, POLICY_BYTES_MAX, POLICY_FILES_MAX, RULES_MAX};
    let dir = tempfile::tempdir().unwrap();
    let mut store = load(dir.path()).store;
    let pushed = store.push(message("exe:/usr/sbin/x\n", 1));
    assert!(matches!(pushed, Pushed::Applied(_)));
    let good = store.state();

    let mut many_documents = message("exe:/a\n", 2);
    let document = many_documents.documents[0].clone();
    many_documents.documents = vec![document; POLICIES_MAX + 1];
    let mut many_files = message("exe:/a\n", 2);
    let file = many_files.documents[0].files[0].clone();
    many_files.documents[0].files = vec![file; POLICY_FILES_MAX + 1];
    let mut bad_settings = message("exe:/a\n", 2);
    bad_settings.documents[0].settings = "[scan]\ninterval_secs = 0\n".into();
    let over = [
        ("bytes", message(&"#".repeat(POLICY_BYTES_MAX + 1), 2)),
        ("rules", message(&"user:a\n".repeat(RULES_MAX + 1), 2)),
        ("slow patterns", message(&"pexe:(?!a)b\n".repeat(257), 2)),
        ("one slow pattern", message("pexe:(?!a)(x{100}){100}\n", 2)),
        ("size", message("pexe:((x{1000}){1000}){1000}\n", 2)),
        ("documents", many_documents),
        ("files", many_files),
        ("settings", bad_settings),
    ];
    for (what, message) in over {
        let Pushed::Refused(reason) = store.push(message) else {
            panic!("too many or too much: {what}")
        };
        assert!(
            !reason.is_empty() && reason.len() <= REASON_BYTES_MAX,
            "{reason}"
        );
        let state = store.state();
        assert_eq!(state.applied_hash, good.applied_hash, "{what}");
        assert_eq!(state.refused_reason, reason, "{what}");
        assert_eq!(load(dir.path()).policy.rules().len(), 1, "{what}");
    }
}

#[test]
fn a_rule_that_gives_up_is_told_by_name_until_the_policy_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = load(dir.path()).store;
    let slow = "pcmd:(a|b|ab)*(?=c)c\n".repeat(SLOW_RULES_MAX + 2);
    let Pushed::Applied(policy) = store.push(message(&format!("exe:/x\n{slow}"), 7)) else {
        panic!()
    };
    assert!(notes_on_slow_rules(&policy).is_empty());
    let text = RuleText {
        user: "bob".into(),
        exe: None,
        cmd: Some("ab".repeat(100)),
    };
    let _reported = judge(&policy, &text, UnixMillis(0));
    let notes = notes_on_slow_rules(&policy);
    assert_eq!(notes.len(), SLOW_RULES_MAX + 1, "{notes:?}");
    let place = "default revision 7, default.pignore:2: pcmd:(a|b|ab)*(?=c)c";
    assert!(notes[0].ends_with(place), "{notes:?}");
    assert_eq!(notes[SLOW_RULES_MAX], "the same is true of 2 more rules");
    assert!(notes_on_slow_rules(&load(dir.path()).policy).is_empty());
}

#[test]
fn a_damaged_file_is_told_and_ignores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = load(dir.path()).store;
    assert!(matches!(
        store.push(message("exe:/usr/sbin/x\n", 1)),
        Pushed::Applied(_)
    ));
    let path = dir.path().join(DIR).join(NAME);
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 10, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let loaded = load(dir.path());
        assert!(
            loaded.damaged.is_some() && loaded.policy.rules().is_empty(),
            "byte {at}"
        );
        // What the collector sends again is then no "unchanged" one.
        assert!(loaded.store.state().applied_hash.is_empty());
    }
}
