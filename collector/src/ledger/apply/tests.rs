//! Records and what they add up to.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::state::{GROUP_ALL, POLICY_DEFAULT};
use super::*;

fn record(entry: Entry) -> v1::LedgerRecord {
    v1::LedgerRecord {
        at_ms: 5,
        actor: "uid:0(root)".into(),
        entry: Some(entry),
    }
}

fn token(id: &str) -> Entry {
    Entry::TokenCreated(v1::TokenCreated {
        id: id.into(),
        secret_sha256: Bytes::from_static(&[1; 32]),
        groups: vec![],
        expires_at_ms: 100,
        uses: 2,
    })
}

fn host(byte: u8, token_id: &str) -> Entry {
    Entry::HostEnrolled(v1::HostEnrolled {
        host_id: Bytes::from(vec![byte; 16]),
        host_name: "web1".into(),
        token_id: token_id.into(),
        groups: vec!["web".into()],
        serial: Bytes::new(),
        not_after_ms: 50,
    })
}

fn published(name: &str, revision: u64) -> Entry {
    Entry::PolicyPublished(v1::PolicyPublished {
        document: Some(v1::PolicyDocument {
            name: name.into(),
            revision,
            files: vec![v1::PolicyFile {
                path: "csf.pignore".into(),
                content: Bytes::from_static(b"# note\nexe:/usr/bin/a\n\nuser:bob\n"),
            }],
            settings: String::new(),
        }),
        comment: "why".into(),
        hash: Bytes::new(),
        staged: false,
        groups: Vec::new(),
    })
}

fn damaged(entry: Entry) -> Entry {
    let Entry::PolicyPublished(entry) = entry else {
        panic!("no policy");
    };
    let hash = Bytes::from_static(&[9; 32]);
    Entry::PolicyPublished(v1::PolicyPublished { hash, ..entry })
}

fn queued(upto: u64, ids: &[u8]) -> Entry {
    let alert = |byte: &u8| v1::Alert {
        expiring: Vec::new(),
        id: Bytes::from(vec![*byte; 16]),
        to: vec!["ops@example.com".into()],
        finding_ids: vec![Bytes::from_static(&[3; 16])],
    };
    Entry::AlertsQueued(v1::AlertsQueued {
        upto_position: upto,
        alerts: ids.iter().map(alert).collect(),
    })
}

fn sent(byte: u8) -> Entry {
    Entry::AlertSent(v1::AlertSent {
        id: Bytes::from(vec![byte; 16]),
    })
}

fn state_of(entries: impl IntoIterator<Item = Entry>) -> LedgerState {
    let mut state = LedgerState::default();
    for entry in entries {
        state.apply(record(entry)).unwrap();
    }
    state
}

#[test]
fn the_policy_default_is_assigned_to_every_host_from_the_start() {
    let state = LedgerState::default();
    assert!(state.policies[POLICY_DEFAULT].revisions.is_empty());
    assert_eq!(state.policies[POLICY_DEFAULT].groups, [GROUP_ALL]);
}

#[test]
fn an_enrolment_uses_its_token_up() {
    let state = state_of([token("t"), host(1, "t"), host(2, "t")]);
    assert_eq!(state.tokens["t"].used, 2);
    assert_eq!(state.hosts.len(), 2);
}

#[test]
fn groups_renewal_and_revocation_change_their_host() {
    let id = Bytes::from(vec![1; 16]);
    let state = state_of([
        token("t"),
        host(1, "t"),
        Entry::HostGroupsSet(v1::HostGroupsSet {
            host_id: id.clone(),
            groups: vec!["db".into()],
        }),
        Entry::HostRenewed(v1::HostRenewed {
            host_id: id.clone(),
            serial: Bytes::new(),
            not_after_ms: 99,
        }),
        Entry::HostRevoked(v1::HostRevoked { host_id: id }),
    ]);
    let host = state.hosts.values().next().unwrap();
    assert_eq!(host.groups, ["db"]);
    assert_eq!(host.certificate_not_after, UnixMillis(99));
    assert!(host.revoked);
    assert!(host.is_in("db") && host.is_in(GROUP_ALL) && !host.is_in("web"));
}

#[test]
fn a_published_revision_keeps_author_time_and_rules() {
    let state = state_of([published("default", 1), published("default", 2)]);
    let newest = state.policies["default"].newest().unwrap();
    assert_eq!(newest.document.revision, 2);
    assert_eq!((newest.author.as_str(), newest.rules), ("uid:0(root)", 2));
    assert_eq!(state.policies["default"].groups, [GROUP_ALL]);
}

#[test]
fn a_damaged_revision_does_not_take_the_later_ones_with_it() {
    let mut state = state_of([published("web", 1)]);
    let why = state.apply(record(damaged(published("web", 2))));
    assert!(why.unwrap_err().contains("does not match its hash"));
    state.apply(record(published("web", 3))).unwrap();
    let web = &state.policies["web"];
    assert_eq!(web.newest().unwrap().document.revision, 3);
    assert!(web.revision(2).is_none() && web.revision(1).is_some());
}

#[test]
fn alerts_wait_in_order_until_they_are_sent() {
    let state = state_of([queued(10, &[1, 2]), queued(20, &[3]), sent(2)]);
    assert_eq!(state.alerts.upto, Position(20));
    let waiting: Vec<u8> = state
        .alerts
        .alerts
        .values()
        .filter(|alert| alert.sent_at.is_none())
        .map(|alert| alert.id[0])
        .collect();
    assert_eq!(waiting, [1, 3]);
}

#[test]
fn an_alert_is_sent_once_at_its_first_time() {
    let mut state = state_of([queued(10, &[1]), sent(1)]);
    state
        .apply(v1::LedgerRecord {
            at_ms: 900,
            ..record(sent(1))
        })
        .unwrap();
    assert_eq!(state.alerts.alerts[&0].sent_at, Some(UnixMillis(5)));
}

#[test]
fn records_that_make_no_sense_change_nothing() {
    let bad = [
        Entry::TokenRevoked(v1::TokenRevoked { id: "?".into() }),
        token("t"),
        Entry::TokenCreated(v1::TokenCreated {
            id: "short".into(),
            ..Default::default()
        }),
        host(1, "t"),
        Entry::HostRevoked(v1::HostRevoked {
            host_id: Bytes::from(vec![9; 16]),
        }),
        Entry::HostRevoked(v1::HostRevoked {
            host_id: Bytes::from_static(b"short"),
        }),
        published("default", 1),
        damaged(published("default", 2)),
        Entry::PolicyPublished(v1::PolicyPublished::default()),
        Entry::PolicyAssigned(v1::PolicyAssigned {
            name: "?".into(),
            groups: vec![],
        }),
        sent(9),
        Entry::AlertsQueued(v1::AlertsQueued {
            upto_position: 99,
            alerts: vec![v1::Alert::default()],
        }),
    ];
    let mut state = state_of([token("t"), host(1, "t"), published("default", 1)]);
    let before = format!("{state:?}");
    for entry in bad {
        assert!(state.apply(record(entry.clone())).is_err(), "{entry:?}");
    }
    assert!(state.apply(v1::LedgerRecord::default()).is_err());
    assert_eq!(format!("{state:?}"), before);
}

#[test]
fn only_sent_alerts_are_forgotten() {
    let mut state = LedgerState::default();
    let many = ALERTS_KEPT_MAX as u64 + 1;
    for number in 0..many {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let alert = v1::Alert {
            id: Bytes::from(id.to_vec()),
            ..Default::default()
        };
        let entry = Entry::AlertsQueued(v1::AlertsQueued {
            upto_position: 0,
            alerts: vec![alert],
        });
        state.apply(record(entry)).unwrap();
    }
    assert_eq!(state.alerts.alerts.len() as u64, many);
    let newest = state.alerts.alerts[&(many - 1)].id;
    let entry = Entry::AlertSent(v1::AlertSent {
        id: Bytes::from(newest.to_vec()),
    });
    state.apply(record(entry)).unwrap();
    assert_eq!(state.alerts.alerts.len(), ALERTS_KEPT_MAX);
    assert!(state.alerts.alerts.contains_key(&0));
}

fn any_entry() -> impl Strategy<Value = Option<Entry>> {
    let byte = 0_u8..3;
    let bytes = prop_oneof![
        byte.clone().prop_map(|b| Bytes::from(vec![b; 16])),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
    ];
    prop_oneof![
        Just(None),
        "[ab]".prop_map(|id| Some(token(&id))),
        "[ab]".prop_map(|id| Some(Entry::TokenRevoked(v1::TokenRevoked { id }))),
        (byte.clone(), "[ab]").prop_map(|(b, id)| Some(host(b, &id))),
        bytes
            .clone()
            .prop_map(|host_id| Some(Entry::HostRevoked(v1::HostRevoked { host_id }))),
        bytes.prop_map(|id| Some(Entry::AlertSent(v1::AlertSent { id }))),
        ("[ab ]", 0_u64..4).prop_map(|(name, revision)| Some(published(&name, revision))),
        ("[ab]", proptest::collection::vec("[a-z]{1,3}", 0..3)).prop_map(|(name, groups)| Some(
            Entry::PolicyAssigned(v1::PolicyAssigned { name, groups })
        )),
        (any::<u64>(), proptest::collection::vec(byte, 0..3))
            .prop_map(|(upto, ids)| Some(queued(upto, &ids))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_records_fold_without_panic_and_revisions_stay_in_order(
        entries in proptest::collection::vec((any::<i64>(), any_entry()), 0..40),
    ) {
        let mut state = LedgerState::default();
        for (at_ms, entry) in entries {
            let _skipped = state.apply(v1::LedgerRecord { at_ms, actor: String::new(), entry });
        }
        for policy in state.policies.values() {
            let numbers = policy.revisions.iter().map(|r| r.document.revision);
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        }
    }
}
