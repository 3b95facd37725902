//! The page as a whole, from a collector's parts.

use procwarden_common::id::{BootId, HostId};
use procwarden_proto::v1;
use uuid::Uuid;

use super::fleet::{FleetFigures, figures};
use crate::hosts::Moment;
use crate::ledger::LedgerState;
use crate::ledger::state::HostRecord;
use crate::sessions::SessionInfo;
use procwarden_common::clock::UnixMillis;

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

fn record(revoked: bool) -> HostRecord {
    HostRecord {
        name: "web1".into(),
        groups: vec![],
        enrolled_at: UnixMillis(10),
        certificate_not_after: UnixMillis(if revoked { 5 } else { 5_000 }),
        revoked,
    }
}

/// A session whose agent says that it runs `applied`.
fn session(applied: &[(&str, u64)], dropped: u64) -> SessionInfo {
    let applied = applied.iter().map(|(name, revision)| v1::AppliedPolicy {
        name: (*name).to_owned(),
        revision: *revision,
    });
    SessionInfo {
        connected: true,
        host_name: "web1".into(),
        agent_version: "0.1.0".into(),
        kernel: "6.1".into(),
        boot_id: BootId::from_uuid(Uuid::nil()),
        last_heartbeat: Some(UnixMillis(100)),
        policy: v1::PolicyState {
            applied: applied.collect(),
            ..v1::PolicyState::default()
        },
        held_back: procwarden_proto::v1::HeldBack::default(),
        health: Some(v1::AgentHealth {
            spool_dropped: dropped,
            ..v1::AgentHealth::default()
        }),
    }
}

fn of(sessions: &[(u128, SessionInfo)], revoked: &[u128]) -> FleetFigures {
    let mut state = LedgerState::default();
    for (number, _) in sessions {
        let record = record(revoked.contains(number));
        state.hosts.insert(host(*number), record);
    }
    let session_of = |id| {
        let found = sessions.iter().find(|(number, _)| host(*number) == id);
        found.map(|(_, session)| session.clone())
    };
    let at = Moment {
        now: UnixMillis(200),
        collector_started_at: UnixMillis(0),
    };
    figures(&state, session_of, at)
}

#[test]
fn hosts_are_counted_by_state_and_every_state_is_there() {
    let sessions = [
        (1, session(&[], 3)),
        (2, session(&[], 4)),
        (3, session(&[], 9)),
    ];
    let figures = of(&sessions, &[3]);
    assert_eq!(figures.states.len(), 5);
    assert_eq!(
        (figures.states["connected"], figures.states["revoked"]),
        (2, 1)
    );
    assert_eq!(figures.states["silent"], 0);
    assert_eq!(
        figures.spool_dropped, 7,
        "a revoked host's word does not count"
    );
    assert_eq!(figures.first_certificate_end, Some(5_000));
}

#[test]
fn what_an_agent_makes_up_never_becomes_a_label() {
    let hostile = "x\"} 1\nprocwarden_hosts{state=\"connected";
    let names: Vec<String> = (0..500).map(|n| format!("made-up-{n}")).collect();
    let mut applied: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    applied.extend([(hostile, 1), ("default", 99)]);
    let figures = of(&[(1, session(&applied, 0))], &[]);
    let keys: Vec<_> = figures
        .applied
        .iter()
        .map(|((p, r), n)| (p.as_str(), r.as_str(), *n))
        .collect();
    assert_eq!(keys, [("default", "other", 1), ("other", "other", 501)]);
}
