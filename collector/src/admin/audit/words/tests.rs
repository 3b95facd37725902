//! Each kind of record, and what is said of it.

use super::*;

fn say(entry: Entry) -> (String, String, String) {
    let record = v1::LedgerRecord {
        at_ms: 1_000,
        actor: "uid:0(root)".into(),
        entry: Some(entry),
    };
    let told = super::entry(&LedgerState::default(), record);
    assert_eq!(told.actor, "uid:0(root)");
    assert!(!told.what.contains(' '), "one word: {}", told.what);
    (told.what, told.object, told.details)
}

#[test]
fn a_token_is_told_without_its_secret() {
    let (what, object, details) = say(Entry::TokenCreated(v1::TokenCreated {
        id: "abc".into(),
        secret_sha256: vec![0xab; 32].into(),
        groups: vec!["web".into()],
        expires_at_ms: 1_795_424_400_000,
        uses: 3,
    }));
    assert_eq!((what.as_str(), object.as_str()), ("created", "token abc"));
    assert_eq!(details, "3 use(s) until 2026-11-23T09:00:00Z, groups web");
    assert!(!details.contains("abab"));
}

#[test]
fn a_revision_is_told_with_its_comment_and_its_damage() {
    let publish = |hash: &'static [u8]| {
        let document = v1::PolicyDocument {
            name: "web".into(),
            revision: 3,
            files: vec![v1::PolicyFile {
                path: "a".into(),
                content: b"user:bob\n".as_slice().into(),
            }],
            settings: String::new(),
        };
        say(Entry::PolicyPublished(v1::PolicyPublished {
            document: Some(document),
            comment: "why".into(),
            hash: hash.into(),
            staged: false,
            groups: vec!["web".into()],
        }))
    };
    let (what, object, details) = publish(b"");
    assert_eq!(
        (what.as_str(), object.as_str()),
        ("published", "policy web r3")
    );
    assert!(details.starts_with("to groups web; 1 rules, hash ") && details.ends_with(": why"));
    assert!(publish(b"other").2.contains("; damaged on the disk"));
}

#[test]
fn hosts_policies_and_alerts_are_told_in_one_word_each() {
    let id = bytes::Bytes::from(vec![1; 16]);
    let uuid = "01010101-0101-0101-0101-010101010101";
    let enrolled = v1::HostEnrolled {
        host_id: id.clone(),
        host_name: "web1".into(),
        token_id: "abc".into(),
        ..Default::default()
    };
    let (what, object, details) = say(Entry::HostEnrolled(enrolled));
    assert_eq!(what, "enrolled");
    assert_eq!(object, format!("host web1 {uuid}"));
    assert!(details.starts_with("with token abc, no group"), "{details}");

    let revoked = v1::HostRevoked {
        host_id: id.clone(),
    };
    let told = say(Entry::HostRevoked(revoked));
    assert_eq!(
        (told.0.as_str(), told.1),
        ("revoked", format!("host {uuid}"))
    );

    let assigned = v1::PolicyAssigned {
        name: "web".into(),
        groups: vec![],
    };
    let told = say(Entry::PolicyAssigned(assigned));
    assert_eq!(
        told,
        ("assigned".into(), "policy web".into(), "no group".into())
    );

    let queued = v1::AlertsQueued {
        upto_position: 9,
        alerts: vec![v1::Alert {
            expiring: vec![v1::ExpiringRule::default()],
            id: id.clone(),
            to: vec!["ops@example.net".into()],
            finding_ids: vec![id.clone(), id],
        }],
    };
    let (what, object, details) = say(Entry::AlertsQueued(queued));
    assert_eq!(what, "queued");
    assert_eq!(object, format!("alert {}", "01".repeat(16)));
    assert_eq!(
        details,
        "2 finding(s) to ops@example.net, 1 rule(s) that end soon"
    );
}

#[test]
fn what_a_newer_version_wrote_is_not_hidden() {
    let record = v1::LedgerRecord::default();
    assert_eq!(
        super::entry(&LedgerState::default(), record).what,
        "unknown"
    );
}
