//! What sessions say, as facts that a roll-out is decided on.

use procwarden_common::finding::{Finding, ProcessFacts, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;

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
        health: Some(v1::AgentHealth {
            scans: 5,
            ..v1::AgentHealth::default()
        }),
        held_back: v1::HeldBack::default(),
    }
}

fn facts(state: &LedgerState, sessions: HashMap<HostId, SessionInfo>) -> Facts {
    let heard = Heard {
        sessions,
        judged: HashSet::from([host_id(0)]),
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
/// silent before, 5 has said nothing of it, 6 was heard of before the start
/// only, 7 refused what it was sent before as well, and 8 was never heard of.
#[test]
fn hosts_that_refuse_or_went_silent_are_told_from_those_that_are_excused() {
    let mut state = fleet(9);
    begin(&mut state, &[100]);
    let host = |number: u32| host_id(number.into());
    let policy = state.policies.get_mut("default").unwrap();
    let rollout = policy.rollout.as_mut().unwrap();
    rollout.started_at = NOW.plus_millis(-10 * MINUTE);
    rollout.excused.extend([host(4), host(7)]);

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
    let refused = |number| v1::PolicyState {
        refused_hash: wanted(number).into(),
        refused_reason: "bad\u{1b}pattern".into(),
        ..Default::default()
    };
    let sessions = HashMap::from([
        (host(0), session(0, applied(0))),
        (host(1), session(4, applied(1))),
        (host(2), session(0, refused(2))),
        (host(3), session(5, applied(3))),
        (host(4), session(9, applied(4))),
        (host(5), session(0, v1::PolicyState::default())),
        (host(6), session(11, v1::PolicyState::default())),
        (host(7), session(0, refused(7))),
    ]);
    let seen = facts(&state, sessions.clone());
    assert_eq!((seen.hosts, seen.reached, seen.applied), (9, 9, 2));
    let unjudged = (seen.unjudged.hosts, seen.unjudged.example.as_str());
    assert_eq!(unjudged, (1, "web1"), "host 0 has judged by it");
    assert_eq!(seen.refused.hosts, 1);
    assert_eq!(seen.refused.example, "web2: bad\\1bpattern");
    assert_eq!(
        (seen.silent.hosts, seen.silent.example.as_str()),
        (1, "web3")
    );
    let pending = (seen.pending.hosts, seen.pending.example.as_str());
    assert_eq!(pending, (3, "web5"));
    let excused = Heard {
        sessions: sessions.clone(),
        judged: HashSet::new(),
        at: Moment {
            now: NOW,
            collector_started_at: NOW,
        },
    };
    let excused = (0..9).filter(|number| excused.is_excused(&state, host(*number)));
    assert_eq!(excused.collect::<Vec<_>>(), [2, 3, 4, 6, 7, 8]);

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
        Self::since(plan, NOW).await
    }

    /// The same with a collector that was started at this time, by its clock.
    async fn since(plan: Plan, collector_started_at: UnixMillis) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        for entry in entries(2) {
            commit(&ledger, entry).await;
        }
        let sessions = Sessions::new();
        let rollouts = Rollouts::new(ledger.clone(), sessions.clone(), collector_started_at);
        let started = ledger.read(|state| start(state, "default", 2, &plan, NOW, |_| false));
        commit(&ledger, started.unwrap()).await;
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
    assert_eq!(evidence_since(&rollout).0, NOW);
    rollout.moved = Some(Moved {
        at: NOW.plus_millis(MINUTE),
        by: "uid:0(root)".into(),
        reason: String::new(),
    });
    let since = NOW.plus_millis(MINUTE);
    assert_eq!(
        evidence_since(&rollout),
        (since, since.plus_millis(-5 * MINUTE))
    );
}

#[tokio::test]
async fn the_rules_that_are_new_are_read_once_per_roll_out() {
    let road = Road::of(plan(&[50, 100])).await;
    let ledger = &road.rollouts.ledger;
    let kept = NewRules::default();
    let rules = |revision| {
        kept.with(ledger, "default", revision, |rules, evidence| {
            assert!(evidence.begins(UnixMillis(1)));
            rules.to_vec()
        })
    };
    let first = rules(2);
    let texts: Vec<String> = first.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["exe:/r2"]);
    assert!(Arc::ptr_eq(&first[0], &rules(2)[0]));
    assert!(rules(1).is_empty());
    kept.retain(&[]);
    assert!(!Arc::ptr_eq(&first[0], &rules(2)[0]));
}

/// A severe process that the new rule hides, and where its executable is.
fn hidden(exe: &str, severity: Severity, at: UnixMillis) -> v1::Finding {
    let finding = Finding {
        subject: Subject::Process(ProcessKey {
            boot_id: BootId::from_slice(&[1; 16]).unwrap(),
            pid: 5,
            start_time: 1,
        }),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_DELETED,
            severity,
            evidence: String::new(),
        }],
        observed_at: at,
        uid: 1000,
        user: b"bob".to_vec(),
        process: Some(ProcessFacts {
            exe: Some(exe.into()),
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    };
    v1::Finding::from(&finding)
}

impl Road {
    /// One of the hosts that the roll-out has reached says what the new rule
    /// ignored: how much of it was fresh, and which samples stand for how much.
    fn say(&self, fresh: u64, last_severe: UnixMillis, samples: Vec<(v1::Finding, u64)>) {
        self.hear(NOW.plus_millis(9 * MINUTE), fresh, last_severe, samples);
    }

    /// The same, received at this time.
    fn hear(
        &self,
        received_at: UnixMillis,
        fresh: u64,
        last_severe: UnixMillis,
        samples: Vec<(v1::Finding, u64)>,
    ) {
        let ledger = &self.rollouts.ledger;
        let rollout = rollout(ledger);
        let mut hosts = ledger.read(|state| state.hosts.keys().copied().collect::<Vec<_>>());
        hosts.retain(|host| rollout.reaches("default", *host));
        let id = |rules: &[Arc<Rule>], _: &mut Evidence| rules[0].id();
        let rule = self.rollouts.new_rules.with(ledger, "default", 2, id);
        let (samples, fresh_of_samples) = samples.into_iter().unzip();
        let message = v1::RuleHits {
            rule_id: rule.as_bytes().to_vec().into(),
            processes: 1,
            severe: 1,
            first_ms: 1,
            last_ms: NOW.0,
            last_severe_ms: if fresh > 0 { last_severe.0 } else { 0 },
            samples,
            fresh,
            worst_fresh: v1::Severity::Critical.into(),
            fresh_of_samples,
        };
        let hits = self.rollouts.sessions.rule_hits();
        hits.take(hosts[0], false, vec![message], received_at);
    }

    fn reason(seen: &Rollout) -> &str {
        seen.moved.as_ref().map_or("", |moved| &moved.reason)
    }
}

fn stopping() -> Plan {
    Plan {
        severity: Some(Severity::High),
        ..plan(&[50, 100])
    }
}

fn at(millis: i64) -> UnixMillis {
    NOW.plus_millis(millis)
}

#[tokio::test]
async fn a_rule_that_hides_what_was_severe_stops_its_roll_out() {
    let road = Road::of(stopping()).await;
    assert_eq!(road.at(0).await.phase, Phase::Running);
    road.say(0, NOW, vec![(hidden("/r2", Severity::Medium, at(1)), 0)]);
    assert_eq!(road.at(1).await.phase, Phase::Running);
    let taken_over = (hidden("/r2", Severity::Critical, at(2)), 0);
    road.say(0, NOW, vec![taken_over.clone()]);
    assert_eq!(road.at(1).await.phase, Phase::Running, "hidden before too");
    let fresh = (hidden("/r2 x", Severity::High, at(3)), 1);
    road.say(1, at(3), vec![taken_over, fresh]);
    let seen = road.at(1).await;
    let why = "it ignores what was high: exe:/r2 on web";
    assert!(Road::reason(&seen).starts_with(why), "{seen:?}");

    // No sample had room: it may be as bad as the worst.
    let road = Road::of(stopping()).await;
    road.at(0).await;
    road.say(1, at(1), Vec::new());
    let seen = road.at(1).await;
    let why = "it ignores what was critical: exe:/r2 on web";
    assert!(Road::reason(&seen).starts_with(why), "{seen:?}");
}

#[tokio::test]
async fn what_was_hidden_before_the_start_stops_no_roll_out_and_the_same_again_does() {
    let road = Road::of(stopping()).await;
    // An attempt a moment ago, of which the host has told, and another one.
    road.say(
        4,
        at(-1000),
        vec![(hidden("/r2", Severity::High, at(-1000)), 3)],
    );
    assert_eq!(road.at(0).await.phase, Phase::Running);
    assert_eq!(road.at(1).await.phase, Phase::Running);
    // The host's clock is behind.
    road.say(
        5,
        at(-500),
        vec![(hidden("/r2", Severity::High, at(-500)), 4)],
    );
    assert_eq!(road.at(1).await.phase, Phase::Reverted);
}

#[tokio::test]
async fn a_host_whose_clock_is_ahead_tells_the_same_again_and_it_is_not_new() {
    let road = Road::of(stopping()).await;
    let ahead = NOW.plus_millis(60 * MINUTE);
    let hear = |minutes: i64, fresh| {
        let sample = (hidden("/r2", Severity::High, ahead), 3);
        let received_at = NOW.plus_millis(minutes * MINUTE);
        road.hear(received_at, fresh, ahead, vec![sample]);
    };
    hear(-1, 4);
    assert_eq!(road.at(0).await.phase, Phase::Running);
    hear(2, 4);
    assert_eq!(road.at(2).await.phase, Phase::Running);
    hear(3, 5);
    assert_eq!(road.at(3).await.phase, Phase::Reverted);
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_nothing_new() {
    let later = NOW.plus_millis(60 * MINUTE);
    let road = Road::since(stopping(), later).await;
    road.say(
        4,
        at(-1000),
        vec![(hidden("/r2", Severity::High, at(-1000)), 3)],
    );
    let seen = road.at(0).await;
    assert_eq!(seen.phase, Phase::Running);
    assert_eq!(seen.baseline.unwrap().marks.len(), 1);
}

#[tokio::test]
async fn a_rule_that_takes_over_what_another_policy_hides_stops_nothing() {
    let road = Road::of(stopping()).await;
    let document = v1::PolicyDocument {
        name: "other".into(),
        revision: 1,
        files: vec![v1::PolicyFile {
            path: "p".into(),
            content: b"pexe:/r[0-9]\n".to_vec().into(),
        }],
        settings: String::new(),
    };
    let published = Entry::PolicyPublished(v1::PolicyPublished {
        document: Some(document),
        ..Default::default()
    });
    commit(&road.rollouts.ledger, published).await;
    let assign = |groups: Vec<String>| {
        Entry::PolicyAssigned(v1::PolicyAssigned {
            name: "other".into(),
            groups,
        })
    };
    commit(&road.rollouts.ledger, assign(vec!["all".into()])).await;
    assert_eq!(road.at(0).await.phase, Phase::Running);
    road.say(
        3,
        at(2),
        vec![(hidden("/r2", Severity::Critical, at(2)), 3)],
    );
    let seen = road.at(1).await;
    assert_eq!(seen.phase, Phase::Running, "{seen:?}");
    // What it hides is judged anew when the other one goes.
    commit(&road.rollouts.ledger, assign(Vec::new())).await;
    assert_eq!(road.at(1).await.phase, Phase::Reverted);
}

impl Road {
    /// The collector stops and starts a minute after the roll-out began; its
    /// hosts are not back yet.
    fn restarted(self) -> Self {
        let Self { dir, rollouts, .. } = self;
        drop(rollouts);
        let ledger = Ledger::open(dir.path()).unwrap();
        let rollouts = Rollouts::new(ledger, Sessions::new(), at(MINUTE));
        Self {
            dir,
            rollouts,
            _seats: Vec::new(),
        }
    }
}

#[tokio::test]
async fn a_restart_does_not_accuse_a_rule_of_what_it_hid_before() {
    let road = Road::of(stopping()).await;
    let old = vec![(hidden("/r2", Severity::High, at(-1000)), 3)];
    road.say(4, at(-1000), old.clone());
    assert_eq!(road.at(0).await.phase, Phase::Running);
    let road = road.restarted();
    assert_eq!(road.at(1).await.phase, Phase::Running);
    road.say(4, at(-1000), old);
    assert_eq!(road.at(1).await.phase, Phase::Running, "it is told again");
    let new = vec![(hidden("/r2", Severity::High, at(-500)), 4)];
    road.say(5, at(-500), new);
    assert_eq!(road.at(1).await.phase, Phase::Reverted, "a slow clock");
}

#[tokio::test]
async fn a_restart_forgives_no_rule_what_it_has_hidden_since_the_start() {
    let road = Road::of(stopping()).await;
    assert_eq!(road.at(0).await.phase, Phase::Running);
    let road = road.restarted();
    // The host is back before anybody looks.
    road.say(1, at(10), vec![(hidden("/r2", Severity::High, at(10)), 1)]);
    assert_eq!(road.at(1).await.phase, Phase::Reverted);

    // Nor where the collector ended before its first look.
    let road = Road::of(stopping()).await.restarted();
    road.say(1, at(10), vec![(hidden("/r2", Severity::High, at(10)), 1)]);
    assert_eq!(road.at(1).await.phase, Phase::Running, "it is noted first");
    assert_eq!(road.at(1).await.phase, Phase::Reverted);
}

#[tokio::test]
async fn what_was_there_before_is_written_once() {
    let road = Road::of(stopping()).await;
    let kept = road.at(0).await.baseline.unwrap();
    assert_eq!((kept.since, kept.marks.len()), (NOW, 0));
    road.say(0, at(-1), vec![(hidden("/r2", Severity::Low, at(-1)), 0)]);
    let again = road.at(1).await.baseline.unwrap();
    assert!(Arc::ptr_eq(&kept.marks, &again.marks));
    // Nobody asks what this one hides.
    let unasked = Plan {
        severity: None,
        ..stopping()
    };
    assert_eq!(Road::of(unasked).await.at(0).await.baseline, None);
}
