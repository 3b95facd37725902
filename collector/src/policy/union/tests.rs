//! What is refused because hosts would get it together with something else.

use procwarden_common::clock::UnixMillis;
use procwarden_common::limits::RULES_MAX;
use procwarden_common::policy::PolicyFile;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use super::super::{Draft, assign, publish};
use super::*;

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

/// A ledger with a host in the group `web`.
async fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let enrolled = v1::HostEnrolled {
        host_id: vec![1; 16].into(),
        host_name: "web1".into(),
        groups: vec!["web".into()],
        ..Default::default()
    };
    let entry = Entry::HostEnrolled(enrolled);
    let commit = ledger.commit::<()>(NOW, "collector", |_| Ok(entry));
    commit.await.unwrap();
    (dir, ledger)
}

/// A policy with more than half of the rules that a host may have.
fn half(name: &str) -> Draft {
    let rules: String = (0..=RULES_MAX / 2)
        .map(|n| format!("exe:/opt/{name}/{n}\n"))
        .collect();
    Draft {
        name: name.into(),
        files: vec![PolicyFile {
            path: format!("{name}.pignore"),
            content: rules.into_bytes(),
        }],
        settings: None,
        comment: String::new(),
        base: None,
        staged: false,
    }
}

async fn published(ledger: &Ledger, draft: Draft) -> Result<bool, PolicyError> {
    let outcome = publish(ledger, "uid:0(root)", NOW, draft).await;
    outcome.map(|outcome| outcome.published)
}

async fn assigned(ledger: &Ledger, name: &str, group: &str) -> Result<(), PolicyError> {
    assign(ledger, "uid:0(root)", NOW, name.into(), vec![group.into()]).await
}

#[tokio::test]
async fn what_hosts_would_get_together_is_checked_before_it_is_published_or_assigned() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("default")).await.unwrap());
    // Nobody runs it yet.
    assert!(published(&ledger, half("web")).await.unwrap());
    let refused = assigned(&ledger, "web", "web").await.unwrap_err();
    let sentence = refused.to_string();
    let begin = "hosts such as web1 would get the policies default, web together, and agents \
                 refuse that: web.pignore:";
    assert!(sentence.starts_with(begin), "{sentence}");
    assert!(sentence.contains("rules"), "{sentence}");
    // No host is in that group.
    assigned(&ledger, "web", "db").await.unwrap();

    let small = Draft {
        files: vec![PolicyFile {
            path: "web.pignore".into(),
            content: b"exe:/opt/x\n".to_vec(),
        }],
        ..half("web")
    };
    assert!(published(&ledger, small).await.unwrap());
    assigned(&ledger, "web", "web").await.unwrap();
    let grown = published(&ledger, half("web")).await;
    assert!(grown.is_err_and(|refused| matches!(refused, PolicyError::Union(_))));
}

#[tokio::test]
async fn the_groups_of_a_host_bring_policies_together_too() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("default")).await.unwrap());
    assert!(published(&ledger, half("db")).await.unwrap());
    assigned(&ledger, "db", "db").await.unwrap();
    let host = HostId::from_slice(&[1; 16]).unwrap();
    let change = |group: &str| Change::Groups {
        host,
        groups: vec![group.into()],
    };
    let together = check(&ledger, &change("web")).await.unwrap();
    assert_eq!(together.len(), 0, "the default policy alone");
    assert!(check(&ledger, &change("db")).await.is_err());
    // What was not checked is not written.
    let late = ledger.read(|state| still_holds(state, &change("db"), &together));
    assert!(late.is_err());
    let same = ledger.read(|state| still_holds(state, &change("web"), &together));
    assert!(same.is_ok());
}
