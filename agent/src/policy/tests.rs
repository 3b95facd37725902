//! Pushes and restarts, on a real disk.

use super::*;

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
