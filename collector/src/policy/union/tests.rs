//! What is refused because hosts would get it together with something else.

use procwarden_common::clock::UnixMillis;
use procwarden_common::limits::RULES_MAX;
use procwarden_common::policy::PolicyFile;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;

use super::super::rollout::tests::plan as rollout_plan;
use super::super::{Draft, assign, groups_without_hosts, publish};
use super::*;

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

/// A ledger with a host in the group `web`.
async fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    enrol(&ledger, 1, "web1", &["web"]).await;
    (dir, ledger)
}

async fn enrol(ledger: &Ledger, id: u8, name: &str, groups: &[&str]) {
    let enrolled = v1::HostEnrolled {
        host_id: vec![id; 16].into(),
        host_name: name.into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Default::default()
    };
    let entry = Entry::HostEnrolled(enrolled);
    let commit = ledger.commit::<()>(NOW, "collector", |_| Ok(entry));
    commit.await.unwrap();
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
        groups: Vec::new(),
    }
}

/// The same policy with another number of rules.
fn with_rules(name: &str, rules: &str) -> Draft {
    let file = PolicyFile {
        path: format!("{name}.pignore"),
        content: rules.as_bytes().to_vec(),
    };
    Draft {
        files: vec![file],
        ..half(name)
    }
}

async fn published(ledger: &Ledger, draft: Draft) -> Result<bool, PolicyError> {
    let outcome = publish(ledger, "uid:0(root)", NOW, draft).await;
    outcome.map(|outcome| outcome.published)
}

/// Publishes what is not refused; gives what is said about it.
async fn published_with(ledger: &Ledger, draft: Draft) -> Vec<String> {
    let outcome = publish(ledger, "uid:0(root)", NOW, draft).await.unwrap();
    assert!(outcome.published);
    let remarks = outcome.diagnostics.iter();
    remarks.map(ToString::to_string).collect()
}

async fn assigned(ledger: &Ledger, name: &str, group: &str) -> Result<(), PolicyError> {
    let groups = vec![group.into()];
    let assigned = assign(ledger, "uid:0(root)", NOW, name.into(), groups).await;
    assigned.map(drop)
}

#[tokio::test]
async fn what_hosts_would_get_together_is_checked_before_it_is_published_or_assigned() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("default")).await.unwrap());
    // Nobody runs it yet.
    assert!(published(&ledger, half("web")).await.unwrap());
    let refused = assigned(&ledger, "web", "web").await.unwrap_err();
    let sentence = refused.to_string();
    let begin = "host web1 (01010101-0101-0101-0101-010101010101) would get the policies default, \
                 web together, and agents refuse that: policy web: web.pignore:";
    assert!(sentence.starts_with(begin), "{sentence}");
    assert!(sentence.contains("rules"), "{sentence}");
    // No host is in that group, which is said.
    let groups = vec!["db".into(), "all".into(), "web".into()];
    let empty = |groups: &[String]| ledger.read(|state| groups_without_hosts(state, groups));
    let [warning] = empty(&groups).try_into().unwrap();
    assert!(warning.message.starts_with("no host is in group db"));
    let assigned_to = assign(&ledger, "uid:0(root)", NOW, "web".into(), vec!["db".into()]);
    assert_eq!(assigned_to.await.unwrap(), [warning]);

    let small = with_rules("web", "exe:/opt/x\n");
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
    let together = check(&ledger, &change("web"), NOW).await.unwrap();
    assert_eq!(together.turns.len(), 0, "the default policy alone");
    assert!(check(&ledger, &change("db"), NOW).await.is_err());
    // What was not checked is not written.
    let late = ledger.read(|state| still_holds(state, &change("db"), &together));
    assert!(late.is_err());
    let same = ledger.read(|state| still_holds(state, &change("web"), &together));
    assert!(same.is_ok());
}

#[tokio::test]
async fn a_host_whose_policies_do_not_fit_already_holds_up_no_change() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("web")).await.unwrap());
    assigned(&ledger, "web", "web").await.unwrap();
    assert!(published(&ledger, half("db")).await.unwrap());
    assigned(&ledger, "db", "db").await.unwrap();
    assert!(
        published(&ledger, with_rules("default", "exe:/a\n"))
            .await
            .unwrap()
    );
    for (id, name) in [(2, "both1"), (3, "both2")] {
        enrol(&ledger, id, name, &["db", "web"]).await;
    }
    // Nobody was asked: that combination is bad, and the fix goes out anyway.
    let fix = with_rules("default", "exe:/b\n");
    let warnings = published_with(&ledger, fix).await;
    let begin = "fleet: warning: 2 hosts such as both1 (02020202-0202-0202-0202-020202020202): the \
                 policies default, db, web do not fit together, as they did not before";
    assert!(
        warnings.iter().any(|w| w.starts_with(begin)),
        "{warnings:?}"
    );
    // What fits on web1 may still not be made bad.
    let grown = published(&ledger, half("default")).await;
    let refused = grown.unwrap_err().to_string();
    assert!(refused.starts_with("host web1 ("), "{refused}");
    // Nor does a host of another kind stand in the way of the cure.
    assert!(
        published(&ledger, with_rules("db", "exe:/db\n"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn what_an_aborted_roll_out_would_bring_back_is_checked_too() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("default")).await.unwrap());
    let small = with_rules("web", "exe:/w\n");
    assert!(published(&ledger, small).await.unwrap());
    assigned(&ledger, "web", "web").await.unwrap();
    // The roll-out makes room that its abort takes away again.
    let smaller = Draft {
        staged: true,
        ..with_rules("default", "exe:/d\n")
    };
    assert!(published(&ledger, smaller).await.unwrap());
    let started = Entry::RolloutStarted(v1::RolloutStarted {
        policy: "default".into(),
        revision: 2,
        plan: Some((&rollout_plan(&[100])).into()),
        hosts: Some(v1::RolloutHosts {
            limit: u64::MAX,
            ..Default::default()
        }),
    });
    let commit = ledger.commit::<()>(NOW, "uid:0(root)", |_| Ok(started));
    commit.await.unwrap();
    let grown = published(&ledger, half("web")).await;
    assert!(grown.is_err_and(|refused| matches!(refused, PolicyError::Union(_))));
}

#[tokio::test]
async fn a_text_and_its_groups_come_together_or_not_at_all() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("default")).await.unwrap());
    let given = |draft: Draft, group: &str| Draft {
        groups: vec![group.into()],
        ..draft
    };
    let refused = published(&ledger, given(half("web"), "web")).await;
    assert!(refused.is_err_and(|refused| matches!(refused, PolicyError::Union(_))));
    assert!(ledger.read(|state| !state.policies.contains_key("web")));
    let misnamed = published(&ledger, given(half("web"), "No Group")).await;
    assert!(misnamed.is_err_and(|refused| matches!(refused, PolicyError::Name(_))));

    let small = with_rules("web", "exe:/opt/x\n");
    let groups = || ledger.read(|state| state.policies["web"].groups.clone());
    assert!(
        published(&ledger, given(small.clone(), "web"))
            .await
            .unwrap()
    );
    assert_eq!(groups(), ["web"]);
    // The same text again: its groups alone are new.
    assert!(
        !published(&ledger, given(small.clone(), "db"))
            .await
            .unwrap()
    );
    assert_eq!(groups(), ["db"]);
    assert!(!published(&ledger, small).await.unwrap());
    assert_eq!(groups(), ["db"]);
}

/// A token that ends a moment after `NOW`.
async fn make_token(ledger: &Ledger, id: &str, groups: &[&str]) {
    let created = Entry::TokenCreated(v1::TokenCreated {
        id: id.into(),
        secret_sha256: vec![0; 32].into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        expires_at_ms: NOW.0 + 1,
        uses: 2,
    });
    let commit = ledger.commit::<()>(NOW, "uid:0(root)", |_| Ok(created));
    commit.await.unwrap();
}

/// Two policies that do not fit together, for groups without a common host.
async fn two_halves(ledger: &Ledger) {
    for name in ["db", "web"] {
        assert!(published(ledger, half(name)).await.unwrap());
        assigned(ledger, name, name).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_is_refused_whose_hosts_would_get_what_does_not_compile() {
    let (_dir, ledger) = ledger().await;
    two_halves(&ledger).await;
    let token = |groups: &[&str]| Change::Token {
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let (web, both) = (token(&["web"]), token(&["web", "db"]));
    let together = check(&ledger, &web, NOW).await.unwrap();
    assert!(
        ledger
            .read(|state| still_holds(state, &web, &together))
            .is_ok()
    );
    assert!(
        ledger
            .read(|state| still_holds(state, &both, &together))
            .is_err()
    );
    let refused = check(&ledger, &both, NOW).await.unwrap_err().to_string();
    let begin = "hosts that enrol with this token would get the policies db, web together, and \
                 agents refuse that: policy ";
    assert!(refused.starts_with(begin), "{refused}");
    // A new token mends nothing, so a host like that excuses none.
    enrol(&ledger, 2, "both", &["db", "web"]).await;
    assert!(check(&ledger, &both, NOW).await.is_err());
}

#[tokio::test]
async fn what_hosts_can_still_enrol_with_counts_as_a_host() {
    let (_dir, ledger) = ledger().await;
    assert!(published(&ledger, half("web")).await.unwrap());
    assigned(&ledger, "web", "web").await.unwrap();
    make_token(&ledger, "70ce", &["web", "db"]).await;
    assert!(published(&ledger, half("db")).await.unwrap());
    let refused = assigned(&ledger, "db", "db").await.unwrap_err().to_string();
    let begin = "hosts that enrol with token 70ce (end it with `procwarden token revoke 70ce` if \
                 nobody shall use it) would get the policies db, web together";
    assert!(refused.starts_with(begin), "{refused}");

    // One that is over or used up brings nobody any more.
    let change = Change::Assigned {
        policy: "db".into(),
        groups: vec!["db".into()],
    };
    let later = UnixMillis(NOW.0 + 1);
    assert!(check(&ledger, &change, later).await.is_ok());
    let revoked = Entry::TokenRevoked(v1::TokenRevoked { id: "70ce".into() });
    let commit = ledger.commit::<()>(NOW, "uid:0(root)", |_| Ok(revoked));
    commit.await.unwrap();
    assigned(&ledger, "db", "db").await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_bad_already_holds_up_no_fix_and_is_named() {
    let (_dir, ledger) = ledger().await;
    two_halves(&ledger).await;
    assert!(
        published(&ledger, with_rules("default", "exe:/a\n"))
            .await
            .unwrap()
    );
    make_token(&ledger, "70ce", &["web", "db"]).await;
    let fix = with_rules("default", "exe:/b\n");
    let warnings = published_with(&ledger, fix).await;
    let begin = "fleet: warning: hosts that enrol with token 70ce ";
    assert!(
        warnings.iter().any(|w| w.starts_with(begin)),
        "{warnings:?}"
    );
}
