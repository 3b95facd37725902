//! What sessions say, as facts that a roll-out is decided on.

use procwarden_common::id::BootId;

use super::*;
use crate::policy::rollout::tests::{NOW, begin, entries, fleet, plan};
use crate::policy::rollout::{Moved, Plan, revision_for, start};
use crate::sessions::Seat;
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

/// A ledger with a roll-out that has reached one of two hosts, which both say
/// that they run what they should.
struct Road {
    dir: tempfile::TempDir,
    rollouts: Rollouts,
    _seats: Vec<Seat>,
}

impl Road {
    async fn of(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        for entry in entries(2) {
            commit(&ledger, entry).await;
        }
        let started = ledger.read(|state| start(state, "default", 2, &plan, NOW, |_| false));
        commit(&ledger, started.unwrap()).await;
        let sessions = Sessions::new();
        let applied = ledger.read(|state| {
            let hash = |(id, record)| WantedHashes::default().of(state, id, record).to_vec();
            let hosts = state.hosts.iter();
            let hosts = hosts.map(|(id, record)| (*id, hash((*id, record))));
            hosts.collect::<Vec<_>>()
        });
        let open = |(host, hash): (HostId, Vec<u8>)| {
            let policy = v1::PolicyState {
                applied_hash: hash.into(),
                ..Default::default()
            };
            sessions.open(host, session(0, policy))
        };
        let _seats = applied.into_iter().map(open).collect();
        let rollouts = Rollouts {
            ledger,
            sessions,
            started_at: NOW,
            new_rules: NewRules::default(),
        };
        Self {
            dir,
            rollouts,
            _seats,
        }
    }

    /// Where the roll-out stands after a look at this moment.
    async fn at(&self, minutes: i64) -> Rollout {
        let now = NOW.plus_millis(minutes * MINUTE);
        self.rollouts.move_on("default", now).await.unwrap();
        rollout(&self.rollouts.ledger)
    }
}

async fn commit(ledger: &Ledger, entry: Entry) {
    ledger
        .commit::<()>(NOW, "uid:0(root)", |_| Ok(entry))
        .await
        .unwrap();
}

fn rollout(ledger: &Ledger) -> Rollout {
    ledger.read(|state| state.policies["default"].rollout.clone().unwrap())
}

/// The revisions that the hosts run, in order.
fn running(ledger: &Ledger) -> Vec<u64> {
    let mut revisions = ledger.read(|state| {
        let policy = &state.policies["default"];
        let of = |host: &HostId| revision_for("default", policy, *host).unwrap();
        let hosts = state.hosts.keys();
        hosts
            .map(|host| of(host).document.revision)
            .collect::<Vec<_>>()
    });
    revisions.sort_unstable();
    revisions
}

#[tokio::test]
async fn a_host_that_goes_silent_stops_its_roll_out_and_the_plan_says_what_stays() {
    for (hold, phase, revisions) in [
        (false, Phase::Reverted, [1, 1]),
        (true, Phase::Held, [1, 2]),
    ] {
        let road = Road::of(Plan {
            every_millis: 60 * 60_000,
            hold,
            ..plan(&[50, 100])
        })
        .await;
        assert_eq!(road.at(4).await.phase, Phase::Running);
        assert_eq!(running(&road.rollouts.ledger), [1, 2]);
        let seen = road.at(5).await;
        assert_eq!(seen.phase, phase);
        let why = seen.moved.as_ref().unwrap().reason.clone();
        assert!(
            why.starts_with("1 host(s) went silent with it: web"),
            "{why}"
        );
        assert_eq!(running(&road.rollouts.ledger), revisions);
        assert_eq!(road.at(6).await, seen, "it stopped once");

        let Road { dir, rollouts, .. } = road;
        drop(rollouts);
        let again = Ledger::open(dir.path()).unwrap();
        assert_eq!((rollout(&again), running(&again)), (seen, revisions.into()));
    }
}

#[tokio::test]
async fn who_resumes_a_roll_out_accepts_what_was_seen_until_then() {
    let road = Road::of(plan(&[50, 100])).await;
    let mut rollout = rollout(&road.rollouts.ledger);
    assert_eq!(evidence_since(&rollout), NOW.plus_millis(-5 * MINUTE));
    rollout.moved = Some(Moved {
        at: NOW.plus_millis(MINUTE),
        by: "uid:0(root)".into(),
        reason: String::new(),
    });
    assert_eq!(evidence_since(&rollout), NOW.plus_millis(MINUTE));
}

#[tokio::test]
async fn the_rules_that_are_new_are_read_once_per_roll_out() {
    let road = Road::of(plan(&[50, 100])).await;
    let ledger = &road.rollouts.ledger;
    let kept = NewRules::default();
    let first = kept.of(ledger, "default", 2);
    let texts: Vec<String> = first.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["exe:/r2"]);
    assert!(Arc::ptr_eq(&first, &kept.of(ledger, "default", 2)));
    assert!(kept.of(ledger, "default", 1).is_empty());
    kept.retain(&[]);
    assert!(!Arc::ptr_eq(&first, &kept.of(ledger, "default", 2)));
}
