//! Where a host stands: a table of sessions and moments.

use procwarden_common::id::BootId;

use super::*;

const MINUTE: i64 = 60_000;

fn host(byte: u8) -> HostId {
    HostId::from_slice(&[byte; 16]).unwrap()
}

fn record(name: &str, enrolled_at: i64) -> HostRecord {
    HostRecord {
        name: name.into(),
        groups: vec![],
        enrolled_at: UnixMillis(enrolled_at),
        certificate_not_after: UnixMillis(i64::MAX),
        revoked: false,
    }
}

fn session(connected: bool, last_heartbeat: Option<i64>) -> SessionInfo {
    SessionInfo {
        connected,
        host_name: "web1".into(),
        agent_version: "0.1.0".into(),
        kernel: "6.18".into(),
        boot_id: BootId::from_slice(&[1; 16]).unwrap(),
        last_heartbeat: last_heartbeat.map(UnixMillis),
        policy: v1::PolicyState::default(),
        health: None,
        held_back: v1::HeldBack::default(),
    }
}

fn view(record: &HostRecord, session: Option<SessionInfo>) -> HostView<'_> {
    HostView {
        id: host(1),
        record,
        session,
        wanted_hash: [7; 32],
        findings_open: 0,
    }
}

#[test]
fn the_state_follows_from_session_and_clock() {
    use v1::HostState::{Away, Connected, Enrolled, Silent};
    // Collector started at minute 100, looked at in minute 120.
    let at = Moment {
        now: UnixMillis(120 * MINUTE),
        collector_started_at: UnixMillis(100 * MINUTE),
    };
    let cases = [
        (119, None, Enrolled),
        (115, None, Silent),
        (1, None, Silent),
        (1, Some((true, None)), Connected),
        (1, Some((true, Some(119))), Connected),
        (1, Some((true, Some(115))), Silent),
        (1, Some((false, Some(116))), Away),
        (1, Some((false, Some(114))), Silent),
        (119, Some((false, None)), Away),
    ];
    for (enrolled_minute, session_of, expected) in cases {
        let record = record("web1", enrolled_minute * MINUTE);
        let session = session_of
            .map(|(on, heard): (bool, Option<i64>)| session(on, heard.map(|m| m * MINUTE)));
        let case = format!("{enrolled_minute} {session_of:?}");
        assert_eq!(view(&record, session).state(at), expected, "{case}");
    }
    let just_started = Moment {
        collector_started_at: UnixMillis(118 * MINUTE),
        ..at
    };
    assert_eq!(view(&record("web1", 1), None).state(just_started), Away);
}

#[test]
fn a_revoked_host_is_revoked_whatever_its_session_says() {
    let record = HostRecord {
        revoked: true,
        ..record("web1", 0)
    };
    let at = Moment {
        now: UnixMillis(1),
        collector_started_at: UnixMillis(0),
    };
    assert_eq!(
        view(&record, Some(session(true, Some(1)))).state(at),
        v1::HostState::Revoked
    );
}

#[test]
fn a_policy_is_applied_refused_or_pending_by_its_hash() {
    use v1::PolicyHostState::{Applied, Pending, Refused, Silent};
    let at = Moment {
        now: UnixMillis(1000),
        collector_started_at: UnixMillis(0),
    };
    let wanted = || vec![7; 32].into();
    let refusal = "pattern too large";
    let cases = [
        (
            v1::PolicyState {
                applied_hash: wanted(),
                ..Default::default()
            },
            Applied,
            "",
        ),
        (
            v1::PolicyState {
                refused_hash: wanted(),
                refused_reason: refusal.into(),
                ..Default::default()
            },
            Refused,
            refusal,
        ),
        (
            v1::PolicyState {
                applied_hash: vec![1; 32].into(),
                ..Default::default()
            },
            Pending,
            "",
        ),
        (v1::PolicyState::default(), Pending, ""),
    ];
    let record = record("web1", 0);
    for (policy, expected, reason) in cases {
        let session = SessionInfo {
            policy,
            ..session(true, Some(900))
        };
        let status = view(&record, Some(session)).policy_status("default", at);
        assert_eq!((status.state(), status.reason.as_str()), (expected, reason));
    }
    let late = Moment {
        now: UnixMillis(10 * MINUTE),
        ..at
    };
    let status = view(&record, Some(session(true, Some(900)))).policy_status("default", late);
    assert_eq!(status.state(), Silent);
    assert_eq!(
        view(&record, None).policy_status("default", at).state(),
        Pending
    );
}

#[test]
fn the_applied_revision_is_that_of_the_named_policy() {
    let applied = |name: &str, revision| v1::AppliedPolicy {
        name: name.into(),
        revision,
    };
    let policy = v1::PolicyState {
        applied: vec![applied("default", 4), applied("web", 9)],
        ..Default::default()
    };
    let record = record("web1", 0);
    let at = Moment {
        now: UnixMillis(1),
        collector_started_at: UnixMillis(0),
    };
    let view = view(
        &record,
        Some(SessionInfo {
            policy,
            ..session(true, Some(1))
        }),
    );
    assert_eq!(view.policy_status("default", at).applied_revision, 4);
    assert_eq!(view.policy_status("other", at).applied_revision, 0);
}

#[test]
fn hosts_are_found_by_id_and_by_unique_name() {
    let mut state = LedgerState::default();
    for (byte, name) in [
        (1, "web1"),
        (2, "twin"),
        (3, "twin"),
        (4, "again"),
        (5, "again"),
    ] {
        state.hosts.insert(host(byte), record(name, 0));
    }
    state.hosts.get_mut(&host(4)).unwrap().revoked = true;
    assert_eq!(find(&state, " web1 "), Ok(host(1)));
    assert_eq!(find(&state, &host(2).to_string()), Ok(host(2)));
    assert_eq!(find(&state, "again"), Ok(host(5)));
    let several = find(&state, "twin").unwrap_err().to_string();
    assert!(several.contains(&host(2).to_string()) && several.contains(&host(3).to_string()));
    assert!(matches!(
        find(&state, "none"),
        Err(HostLookupError::Unknown(_))
    ));
    let unknown_id = host(9).to_string();
    assert!(matches!(
        find(&state, &unknown_id),
        Err(HostLookupError::Unknown(_))
    ));
}

#[test]
fn hosts_with_the_same_policies_want_the_same_hash() {
    let state = LedgerState::default();
    let mut hashes = WantedHashes::default();
    let none = hashes.of(&state, host(1), &record("web1", 0));
    assert_eq!(none, hashes.of(&state, host(2), &record("web2", 0)));
    assert_eq!(none, policy_hash(&EffectivePolicy::default()));
}
