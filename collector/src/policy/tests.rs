//! Who runs what, and the road of a revision on a real ledger.

use procwarden_common::limits::POLICY_BYTES_MAX;

use super::limits::COMMENT_BYTES_MAX;
use super::*;

const NOW: UnixMillis = UnixMillis(1_000);

fn draft(name: &str, rules: &str) -> Draft {
    let file = PolicyFile {
        path: "csf.pignore".into(),
        content: rules.as_bytes().to_vec(),
    };
    Draft {
        name: name.into(),
        files: vec![file],
        settings: None,
        comment: "why".into(),
        base: None,
        staged: false,
        groups: Vec::new(),
    }
}

fn open() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    (dir, ledger)
}

async fn publish_rules(ledger: &Ledger, name: &str, rules: &str) -> Outcome {
    publish(ledger, "uid:0(root)", NOW, draft(name, rules))
        .await
        .unwrap()
}

async fn enroll(ledger: &Ledger, byte: u8, groups: &[&str]) -> HostId {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let entry = v1::HostEnrolled {
        host_id: bytes::Bytes::from(vec![byte; 16]),
        host_name: format!("web{byte}"),
        groups,
        ..Default::default()
    };
    ledger
        .commit::<()>(NOW, "collector", |_| Ok(Entry::HostEnrolled(entry)))
        .await
        .unwrap();
    HostId::from_slice(&[byte; 16]).unwrap()
}

fn names(ledger: &Ledger, host: HostId) -> Vec<String> {
    let effective = ledger.read(|state| effective_for(state, host)).unwrap();
    effective
        .documents
        .into_iter()
        .map(|document| document.name)
        .collect()
}

#[tokio::test]
async fn a_host_runs_the_policies_of_all_first_and_then_those_of_its_groups() {
    let (_dir, ledger) = open();
    for name in ["a-web", "default", "unassigned", "z-all"] {
        assert!(
            publish_rules(&ledger, name, "exe:/bin/true\n")
                .await
                .published
        );
    }
    for (name, group) in [("a-web", "web"), ("z-all", "all")] {
        let groups = vec![group.to_owned()];
        assign(&ledger, "uid:0(root)", NOW, name.into(), groups)
            .await
            .unwrap();
    }
    let web = enroll(&ledger, 1, &["web"]).await;
    let db = enroll(&ledger, 2, &[]).await;
    assert_eq!(names(&ledger, web), ["default", "z-all", "a-web"]);
    assert_eq!(names(&ledger, db), ["default", "z-all"]);
    let unknown = HostId::from_slice(&[9; 16]).unwrap();
    assert_eq!(ledger.read(|state| effective_for(state, unknown)), None);
}

#[tokio::test]
async fn a_host_without_any_published_policy_runs_the_empty_one() {
    let (_dir, ledger) = open();
    let host = enroll(&ledger, 1, &[]).await;
    assert_eq!(names(&ledger, host), Vec::<String>::new());
}

#[tokio::test]
async fn the_same_text_is_not_published_again() {
    let (_dir, ledger) = open();
    assert!(
        publish_rules(&ledger, "default", "exe:/bin/true\n")
            .await
            .published
    );
    assert!(
        !publish_rules(&ledger, "default", "exe:/bin/true\n")
            .await
            .published
    );
    assert!(
        publish_rules(&ledger, "default", "exe:/bin/false\n")
            .await
            .published
    );
    assert_eq!(ledger.read(|state| newest_revision(state, "default")), 2);
}

#[tokio::test]
async fn a_policy_with_errors_is_refused_with_all_of_them() {
    let (_dir, ledger) = open();
    let outcome = publish_rules(&ledger, "default", "pexe:(\nexe:/ok\npcmd:[\n").await;
    assert!(!outcome.published);
    let errors = outcome
        .diagnostics
        .iter()
        .filter(|d| d.level == diagnostic::Level::Error);
    assert_eq!(errors.map(|d| d.line).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(ledger.read(|state| newest_revision(state, "default")), 0);
}

#[tokio::test]
async fn what_is_not_given_is_kept() {
    let (_dir, ledger) = open();
    assert!(
        publish_rules(&ledger, "default", "exe:/bin/true\n")
            .await
            .published
    );
    let settings = Some("[scan]\nmin_age_secs = 10\n".to_owned());
    let only_settings = Draft {
        files: vec![],
        settings,
        ..draft("default", "")
    };
    assert!(
        publish(&ledger, "uid:0(root)", NOW, only_settings)
            .await
            .unwrap()
            .published
    );
    assert!(
        publish_rules(&ledger, "default", "exe:/bin/false\n")
            .await
            .published
    );
    let newest = ledger
        .read(|state| newest_document(state, "default"))
        .unwrap();
    assert_eq!(newest.revision, 3);
    assert_eq!(newest.settings, "[scan]\nmin_age_secs = 10\n");
    assert_eq!(newest.files[0].content, b"exe:/bin/false\n");
}

#[tokio::test]
async fn a_text_made_from_an_older_revision_does_not_replace_a_newer_one() {
    let (_dir, ledger) = open();
    let from = |base, rules| Draft {
        base: Some(base),
        ..draft("web", rules)
    };
    let set = |draft| publish(&ledger, "uid:0(root)", NOW, draft);
    assert!(set(from(0, "exe:/one\n")).await.unwrap().published);
    assert!(set(from(1, "exe:/two\n")).await.unwrap().published);
    for (base, text) in [(0, "exe:/three\n"), (1, "exe:/three\n"), (9, "exe:/two\n")] {
        let refused = set(from(base, text)).await.unwrap_err().to_string();
        assert!(refused.contains("has revision 2 by now"), "{refused}");
        assert!(
            refused.contains(&format!("from revision {base}:")),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_a_policy_is_refused_with_a_reason() {
    let (_dir, ledger) = open();
    let huge = "#".repeat(POLICY_BYTES_MAX + 1);
    let nothing = Draft {
        files: vec![],
        ..draft("new", "")
    };
    let wordy = Draft {
        comment: "x".repeat(COMMENT_BYTES_MAX + 1),
        ..draft("default", "")
    };
    for (draft, part) in [
        (draft("Not A Name", ""), "policy name"),
        (draft("default", &huge), "at most"),
        (nothing, "no revision yet"),
        (wordy, "comment"),
    ] {
        let error = publish(&ledger, "uid:0(root)", NOW, draft)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    }
    let unknown = assign(&ledger, "uid:0(root)", NOW, "unknown".into(), vec![]).await;
    assert!(matches!(unknown, Err(PolicyError::Unknown(_))));
}

#[test]
fn rules_are_counted_as_lfd_reads_them() {
    let rules = "# exe:/no\r\nexe:/bin/a\r\n\n  PCMD :a.*x\nInclude other\nuser:bob";
    let document = PolicyDocument {
        name: "default".into(),
        revision: 1,
        files: draft("default", rules).files,
        settings: String::new(),
    };
    assert_eq!(rule_lines(&document), 3);
    let include = PolicyFile {
        path: "other".into(),
        content: b"cmd:x y\n#user:no\n".to_vec(),
    };
    let files = document.files.iter().cloned().chain([include]).collect();
    let document = PolicyDocument { files, ..document };
    let effective = EffectivePolicy {
        documents: vec![document.clone()],
    };
    let (policy, _) = policy::Policy::compile(&effective).unwrap();
    assert_eq!(rule_lines(&document), policy.rules().len() as u64);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_content_of_the_old_one() {
    let (_dir, ledger) = open();
    for rules in ["exe:/bin/one\n", "exe:/bin/two\n"] {
        assert!(publish_rules(&ledger, "web", rules).await.published);
    }
    let back = |number| rollback(&ledger, "uid:7(ann)", NOW, "web", number, "it hid too much");
    assert!(back(1).await.unwrap().published);
    ledger.read(|state| {
        let web = &state.policies["web"];
        let newest = web.newest().unwrap();
        let first = web.revision(1).unwrap();
        assert_eq!(newest.document.revision, 3);
        assert_eq!(newest.document.files, first.document.files);
        assert_eq!(newest.author, "uid:7(ann)");
        assert_eq!(newest.comment, "rollback to revision 1: it hid too much");
    });
    assert!(!back(1).await.unwrap().published, "it is there already");
    assert!(!back(3).await.unwrap().published);
    let unknown = back(9).await;
    assert!(matches!(
        unknown,
        Err(PolicyError::UnknownRevision { wanted: 9, .. })
    ));
    let nowhere = rollback(&ledger, "uid:7", NOW, "nowhere", 1, "").await;
    assert!(matches!(nowhere, Err(PolicyError::Unknown(_))));
    let long = "x".repeat(COMMENT_BYTES_MAX);
    let long = rollback(&ledger, "uid:7", NOW, "web", 2, &long).await;
    assert!(matches!(long, Err(PolicyError::Limit(_))));
}

#[tokio::test]
async fn a_revision_is_written_with_its_hash_and_survives_a_restart() {
    let (dir, ledger) = open();
    assert!(
        publish_rules(&ledger, "web", "exe:/bin/one\n")
            .await
            .published
    );
    let hash = |ledger: &Ledger| {
        ledger.read(|state| revision_hash(&state.policies["web"].newest().unwrap().document))
    };
    let before = hash(&ledger);
    drop(ledger);
    assert_eq!(hash(&Ledger::open(dir.path()).unwrap()), before);
}

#[tokio::test]
async fn a_policy_of_one_host_lies_over_those_of_its_groups_and_of_all() {
    let (_dir, ledger) = open();
    for name in ["a-host", "b-web", "c-all"] {
        assert!(
            publish_rules(&ledger, name, "exe:/bin/true\n")
                .await
                .published
        );
    }
    let host = enroll(&ledger, 1, &["web"]).await;
    let other = enroll(&ledger, 2, &["web"]).await;
    let own = crate::ledger::state::group_of_host(host);
    for (name, group) in [("a-host", own.as_str()), ("b-web", "web"), ("c-all", "all")] {
        let groups = vec![group.to_owned()];
        assign(&ledger, "uid:0(root)", NOW, name.into(), groups)
            .await
            .unwrap();
    }
    assert_eq!(names(&ledger, host), ["c-all", "b-web", "a-host"]);
    assert_eq!(names(&ledger, other), ["c-all", "b-web"]);
}
