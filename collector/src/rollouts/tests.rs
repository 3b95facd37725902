//! What sessions say, as facts that a roll-out is decided on.

use procwarden_common::id::BootId;

use super::*;
use crate::policy::rollout::tests::{NOW, begin, fleet};
use crate::tls::testing::host_id;

const MINUTE: i64 = 60_000;

fn session(minutes_ago: i64, policy: v1::PolicyState) -> SessionInfo {
    SessionInfo {
        connected: true,
        host_name: "web".into(),
        agent_version: "0.1.0".into(),
        kernel: "6.18".into(),
        boot_id: BootId::from_slice(&[1; 16]).unwrap(),
        last_heartbeat: Some(NOW.plus_millis(-minutes_ago * MINUTE)),
        policy,
        health: None,
        held_back: v1::HeldBack::default(),
    }
}

fn facts(state: &LedgerState, sessions: HashMap<HostId, SessionInfo>) -> Facts {
    let heard = Heard {
        sessions,
        at: Moment {
            now: NOW,
            collector_started_at: NOW.plus_millis(-60 * MINUTE),
        },
    };
    let rollout = state.policies["default"].rollout.clone().unwrap();
    let mut wanted = WantedHashes::default();
    facts_of_hosts(state, "default", |host, facts| {
        add(state, &rollout, (host, &heard), &mut wanted, facts);
    })
    .unwrap()
}

/// Hosts 0 and 1 run what they should, 2 refuses it, 3 went silent, 4 was
/// silent before, 5 has said nothing of it.
#[test]
fn hosts_that_refuse_or_went_silent_are_told_from_those_that_were_silent_before() {
    let mut state = fleet(6);
    begin(&mut state, &[100]);
    let host = |number: u32| host_id(number.into());
    let policy = state.policies.get_mut("default").unwrap();
    let rollout = policy.rollout.as_mut().unwrap();
    rollout.silent_before.insert(host(4));

    let wanted = |number| {
        let record = &state.hosts[&host(number)];
        WantedHashes::default()
            .of(&state, host(number), record)
            .to_vec()
    };
    let applied = |number| v1::PolicyState {
        applied_hash: wanted(number).into(),
        ..Default::default()
    };
    let refused = v1::PolicyState {
        refused_hash: wanted(2).into(),
        refused_reason: "bad\u{1b}pattern".into(),
        ..Default::default()
    };
    let sessions = HashMap::from([
        (host(0), session(0, applied(0))),
        (host(1), session(4, applied(1))),
        (host(2), session(0, refused)),
        (host(3), session(5, applied(3))),
        (host(4), session(9, applied(4))),
        (host(5), session(0, v1::PolicyState::default())),
    ]);
    let seen = facts(&state, sessions.clone());
    assert_eq!((seen.hosts, seen.reached, seen.applied), (6, 6, 2));
    assert_eq!(seen.refused.hosts, 1);
    assert_eq!(seen.refused.example, "web2: bad\\1bpattern");
    assert_eq!(
        (seen.silent.hosts, seen.silent.example.as_str()),
        (1, "web3")
    );
    assert_eq!(
        (seen.pending.hosts, seen.pending.example.as_str()),
        (1, "web5")
    );

    // Without the one that refuses, the silence alone stops it.
    let mut sessions = sessions;
    sessions.insert(host(2), session(0, applied(2)));
    let seen = facts(&state, sessions);
    let rollout = state.policies["default"].rollout.clone().unwrap();
    assert_eq!(
        decide(&rollout, NOW, &seen),
        Decision::Stop("1 host(s) went silent with it: web3".into())
    );
}
