//! Who is reached, what is decided, and what the ledger makes of the moves.

use procwarden_common::severity::Severity;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use proptest::prelude::*;

use super::decide::Seen;
use super::*;
use crate::ledger::LedgerState;
use crate::tls::testing::host_id;

pub(crate) const NOW: UnixMillis = UnixMillis(1_795_424_400_000);
const EVERY: u64 = 60_000;

pub(crate) fn plan(steps: &[u8]) -> Plan {
    Plan {
        steps: steps.to_vec(),
        every_millis: EVERY,
        refused: Some(Threshold::Hosts(1)),
        silent: Some(Threshold::Percent(5)),
        severity: Some(Severity::High),
        hold: false,
    }
}

fn rollout(steps: &[u8]) -> Rollout {
    Rollout {
        revision: 2,
        plan: plan(steps),
        started_at: NOW,
        started_by: "uid:0(root)".into(),
        step: 0,
        step_since: NOW,
        limit: 0,
        excused: BTreeSet::new(),
        phase: Phase::Running,
        moved: None,
        told: false,
        baseline: None,
    }
}

fn record(state: &mut LedgerState, entry: Entry) -> Result<(), String> {
    state.apply(v1::LedgerRecord {
        at_ms: NOW.0,
        actor: "uid:0(root)".into(),
        entry: Some(entry),
    })
}

fn publish(state: &mut LedgerState, revision: u64, staged: bool) {
    record(state, published(revision, staged)).unwrap();
}

fn published(revision: u64, staged: bool) -> Entry {
    let document = v1::PolicyDocument {
        name: "default".into(),
        revision,
        files: vec![v1::PolicyFile {
            path: "p".into(),
            content: format!("exe:/r{revision}\n").into_bytes().into(),
        }],
        settings: String::new(),
    };
    Entry::PolicyPublished(v1::PolicyPublished {
        document: Some(document),
        staged,
        ..Default::default()
    })
}

fn enroll(state: &mut LedgerState, number: u32) {
    record(state, enrolled(number)).unwrap();
}

fn enrolled(number: u32) -> Entry {
    Entry::HostEnrolled(v1::HostEnrolled {
        host_id: host_id(number.into()).as_bytes().to_vec().into(),
        host_name: format!("web{number}"),
        ..Default::default()
    })
}

/// Hosts of the policy `default` with revision 1, and a staged revision 2.
pub(crate) fn fleet(hosts: u32) -> LedgerState {
    let mut state = LedgerState::default();
    for entry in entries(hosts) {
        record(&mut state, entry).unwrap();
    }
    state
}

/// What makes such a fleet.
pub(crate) fn entries(hosts: u32) -> impl Iterator<Item = Entry> {
    let policy = [published(1, false), published(2, true)];
    policy.into_iter().chain((0..hosts).map(enrolled))
}

pub(crate) fn begin(state: &mut LedgerState, steps: &[u8]) {
    let entry = start(state, "default", 2, &plan(steps), NOW, |_| false).unwrap();
    record(state, entry).unwrap();
}

fn make(state: &mut LedgerState, wanted: v1::RolloutMove) -> Result<(), String> {
    let rollout = state.policies["default"].rollout.clone().unwrap();
    let advances = wanted == v1::RolloutMove::Advance;
    let hosts =
        advances.then(|| hosts_of_step(state, "default", &rollout, rollout.step + 1, |_| false));
    let entry = v1::RolloutMoved {
        policy: "default".into(),
        revision: rollout.revision,
        r#move: wanted.into(),
        reason: "because".into(),
        hosts,
    };
    record(state, Entry::RolloutMoved(entry))
}

/// The hosts that run this revision.
fn on(state: &LedgerState, revision: u64) -> BTreeSet<HostId> {
    let policy = &state.policies["default"];
    let runs = |host: &HostId| {
        revision_for("default", policy, *host)
            .unwrap()
            .document
            .revision
    };
    let hosts = state.hosts.keys().copied();
    hosts.filter(|host| runs(host) == revision).collect()
}

#[test]
fn a_staged_revision_reaches_nobody_before_its_roll_out() {
    let mut state = fleet(3);
    assert_eq!((on(&state, 1).len(), on(&state, 2).len()), (3, 0));
    publish(&mut state, 3, true);
    assert_eq!(on(&state, 1).len(), 3);
    publish(&mut state, 4, false);
    assert_eq!(on(&state, 4).len(), 3);
}

#[test]
fn each_move_has_its_effect_on_the_hosts() {
    use v1::RolloutMove::{Abort, Advance, Finish, Pause, Resume, Stop};
    let cases: [(&[v1::RolloutMove], Phase, usize); 8] = [
        (&[], Phase::Running, 1),
        (&[Pause], Phase::Paused, 1),
        (&[Pause, Resume], Phase::Running, 1),
        (&[Advance], Phase::Running, 5),
        (&[Advance, Advance], Phase::Running, 10),
        (&[Advance, Advance, Finish], Phase::Finished, 10),
        (&[Advance, Stop], Phase::Reverted, 0),
        (&[Advance, Abort], Phase::Aborted, 0),
    ];
    for (moves, phase, hosts) in cases {
        let mut state = fleet(10);
        begin(&mut state, &[1, 50, 100]);
        for wanted in moves {
            make(&mut state, *wanted).unwrap();
        }
        let seen = state.policies["default"].rollout.clone().unwrap();
        assert_eq!(
            (seen.phase, on(&state, 2).len()),
            (phase, hosts),
            "{moves:?}"
        );
        assert_eq!(on(&state, 1).len(), 10 - hosts, "{moves:?}");
    }
}

#[test]
fn a_stop_holds_the_hosts_where_the_plan_says_so() {
    let mut state = fleet(10);
    let held = Plan {
        hold: true,
        ..plan(&[50, 100])
    };
    let entry = start(&state, "default", 2, &held, NOW, |_| false).unwrap();
    record(&mut state, entry).unwrap();
    make(&mut state, v1::RolloutMove::Stop).unwrap();
    assert_eq!(on(&state, 2).len(), 5);
    let limit = state.policies["default"].rollout.as_ref().unwrap().limit;
    let resumed = move_by_operator(&state, "default", v1::RolloutMove::Resume, "", |_| true);
    record(&mut state, resumed.unwrap()).unwrap();
    let rollout = state.policies["default"].rollout.clone().unwrap();
    assert!(rollout.is_open());
    assert_eq!(rollout.limit, limit, "resuming reaches nobody else");
    let on_it = on(&state, 2);
    assert_eq!(rollout.excused, on_it, "who resumes accepts how they are");
}

#[test]
fn a_roll_out_that_is_over_moves_no_more_and_another_can_begin() {
    let mut state = fleet(2);
    begin(&mut state, &[100]);
    assert!(start(&state, "default", 2, &plan(&[100]), NOW, |_| false).is_err());
    make(&mut state, v1::RolloutMove::Abort).unwrap();
    assert!(make(&mut state, v1::RolloutMove::Advance).is_err());
    assert!(move_by_operator(&state, "default", v1::RolloutMove::Abort, "", |_| false).is_err());
    begin(&mut state, &[100]);
    make(&mut state, v1::RolloutMove::Finish).unwrap();
    assert_eq!(
        state.policies["default"].staying, None,
        "the newest one runs everywhere"
    );
    let again = start(&state, "default", 2, &plan(&[100]), NOW, |_| false).unwrap_err();
    assert!(
        again.to_string().contains("run revision 2 already"),
        "{again}"
    );
    let older = start(&state, "default", 1, &plan(&[100]), NOW, |_| false).unwrap();
    record(&mut state, older).unwrap();
    make(&mut state, v1::RolloutMove::Finish).unwrap();
    assert_eq!(
        on(&state, 1).len(),
        2,
        "an older revision can be rolled out as well"
    );
}

#[test]
fn what_cannot_be_rolled_out_is_refused_with_a_reason() {
    let state = fleet(0);
    for (name, revision, part) in [
        ("default", 2, "no host gets policy"),
        ("default", 1, "run revision 1 already"),
        ("default", 9, "has no revision 9"),
        ("nothing", 1, "there is no policy"),
    ] {
        let refused = start(&state, name, revision, &plan(&[100]), NOW, |_| false);
        let sentence = refused.unwrap_err().to_string();
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn hosts_that_were_silent_when_they_were_reached_are_excused() {
    let mut state = fleet(4);
    let silent = host_id(2);
    let entry = start(&state, "default", 2, &plan(&[100]), NOW, |host| {
        host == silent
    });
    record(&mut state, entry.unwrap()).unwrap();
    let rollout = state.policies["default"].rollout.clone().unwrap();
    assert_eq!(rollout.excused, BTreeSet::from([silent]));
}

fn seen(hosts: u32) -> Seen {
    Seen {
        hosts,
        example: "web1".into(),
    }
}

fn healthy() -> Facts {
    Facts {
        hosts: 100,
        reached: 10,
        applied: 10,
        ..Facts::default()
    }
}

#[test]
fn a_step_lasts_its_time_and_until_its_hosts_have_answered() {
    let later = NOW.plus_millis(EVERY as i64);
    let waiting = Facts {
        pending: seen(1),
        ..healthy()
    };
    let first = rollout(&[10, 100]);
    assert_eq!(decide(&first, NOW, &healthy()), Decision::Wait(None));
    assert_eq!(decide(&first, later, &healthy()), Decision::Advance);
    assert!(matches!(
        decide(&first, later, &waiting),
        Decision::Wait(Some(_))
    ));
    assert!(matches!(
        decide(&first, later, &Facts::default()),
        Decision::Wait(Some(_))
    ));
    let last = Rollout {
        step: 1,
        ..rollout(&[10, 100])
    };
    assert_eq!(decide(&last, later, &healthy()), Decision::Finish);
    let paused = Rollout {
        phase: Phase::Paused,
        ..first
    };
    assert_eq!(decide(&paused, later, &healthy()), Decision::Wait(None));
}

#[test]
fn it_stops_at_its_limits_and_says_why() {
    let ignored = |severity| {
        Some(Ignored {
            severity,
            example: "exe:/x on web1".into(),
        })
    };
    let table = [
        (
            Facts {
                refused: seen(1),
                ..healthy()
            },
            Some("1 host(s) refuse it: web1"),
        ),
        (
            Facts {
                silent: seen(1),
                ..healthy()
            },
            Some("1 host(s) went silent with it: web1"),
        ),
        (
            Facts {
                ignored: ignored(Severity::Critical),
                ..healthy()
            },
            Some("it ignores what was critical: exe:/x on web1"),
        ),
        (
            Facts {
                ignored: ignored(Severity::Medium),
                ..healthy()
            },
            None,
        ),
        (
            Facts {
                silent: seen(4),
                reached: 100,
                ..healthy()
            },
            None,
        ),
        (
            Facts {
                silent: seen(5),
                reached: 100,
                ..healthy()
            },
            Some("5 host(s) went silent with it: web1"),
        ),
    ];
    for (facts, why) in table {
        let expected = why.map_or(Decision::Wait(None), |why| Decision::Stop(why.into()));
        assert_eq!(decide(&rollout(&[100]), NOW, &facts), expected);
    }
}

#[test]
fn limits_that_are_never_reached_stop_nothing() {
    let bold = Rollout {
        plan: Plan {
            refused: None,
            silent: None,
            severity: None,
            ..plan(&[100])
        },
        ..rollout(&[100])
    };
    let bad = Facts {
        refused: seen(9),
        silent: seen(9),
        ignored: Some(Ignored {
            severity: Severity::Critical,
            example: String::new(),
        }),
        ..healthy()
    };
    assert_eq!(decide(&bold, NOW, &bad), Decision::Wait(None));
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let good = v1::RolloutPlan::from(&plan(&[1, 100]));
    assert_eq!(Plan::try_from(good.clone()), Ok(plan(&[1, 100])));
    let steps = |steps: &[u32]| v1::RolloutPlan {
        steps: steps.to_vec(),
        ..good.clone()
    };
    let zero = v1::rollout_threshold::Least::Hosts(0);
    for bad in [
        steps(&[]),
        steps(&[0, 100]),
        steps(&[50]),
        steps(&[50, 50, 100]),
        steps(&[10, 300]),
        steps(&(80..=100).collect::<Vec<_>>()),
        v1::RolloutPlan {
            every_ms: 0,
            ..good.clone()
        },
        v1::RolloutPlan {
            every_ms: u64::MAX,
            ..good.clone()
        },
        v1::RolloutPlan {
            severity: 99,
            ..good.clone()
        },
        v1::RolloutPlan {
            refused: Some(v1::RolloutThreshold { least: Some(zero) }),
            ..good.clone()
        },
    ] {
        assert!(Plan::try_from(bad.clone()).is_err(), "{bad:?}");
    }
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let parts = (0..5_u32, 0..5_u32, 0..5_u32, 0..5_u32);
    (parts, 0..20_u32, 0..3_u32).prop_map(
        |((applied, pending, refused, silent), more, unjudged)| Facts {
            hosts: applied + pending + refused + silent + more,
            reached: applied + pending + refused + silent,
            applied,
            pending: seen(pending),
            unjudged: seen(unjudged.min(applied)),
            refused: seen(refused),
            silent: seen(silent),
            ignored: None,
        },
    )
}

proptest! {
    /// Whatever hosts enrol between the steps: who is reached stays reached,
    /// and every step reaches its part of the hosts, rounded up.
    #[test]
    fn reached_hosts_stay_reached_and_the_first_step_reaches_one(
        hosts in 1..40_u32, new in proptest::collection::vec(0..10_u32, 3), first in 1..40_u8,
    ) {
        let mut state = fleet(hosts);
        begin(&mut state, &[first, first + 20, first + 40, 100]);
        let mut before = on(&state, 2);
        let least = |hosts: usize, percent: u8| (hosts * usize::from(percent)).div_ceil(100);
        prop_assert_eq!(before.len(), least(hosts as usize, first));
        let mut next = hosts;
        for (more, percent) in new.iter().zip([first + 20, first + 40, 100]) {
            (next..next + more).for_each(|number| enroll(&mut state, number));
            next += more;
            prop_assert!(on(&state, 2).is_superset(&before));
            make(&mut state, v1::RolloutMove::Advance).unwrap();
            let after = on(&state, 2);
            prop_assert!(after.is_superset(&before));
            prop_assert!(after.len() >= least(next as usize, percent));
            before = after;
        }
        prop_assert_eq!(before.len(), next as usize);
    }

    /// Nothing goes on before its time, or while a reason to stop is there;
    /// and nothing is decided about what does not run.
    #[test]
    fn it_never_goes_on_early_or_past_a_reason_to_stop(
        facts in any_facts(), elapsed in -100_000..200_000_i64, step in 0..2_usize,
        phase in proptest::sample::select(vec![
            Phase::Running, Phase::Paused, Phase::Held, Phase::Reverted, Phase::Aborted, Phase::Finished,
        ]),
    ) {
        let rollout = Rollout { step, phase, ..rollout(&[10, 100]) };
        let decision = decide(&rollout, NOW.plus_millis(elapsed), &facts);
        let goes_on = matches!(decision, Decision::Advance | Decision::Finish);
        let bad = facts.refused.hosts > 0 || facts.silent.hosts > 0;
        if phase != Phase::Running {
            prop_assert_eq!(decision, Decision::Wait(None));
        } else if bad {
            prop_assert!(matches!(decision, Decision::Stop(_)), "{:?}", decision);
        } else {
            let answered = facts.pending.hosts == 0 && facts.unjudged.hosts == 0;
            let ready = elapsed >= EVERY as i64 && answered && facts.applied > 0;
            prop_assert_eq!(goes_on, ready);
        }
    }
}

#[test]
fn a_stop_is_told_once_and_only_of_the_last_roll_out() {
    let mut state = fleet(2);
    begin(&mut state, &[100]);
    make(&mut state, v1::RolloutMove::Stop).unwrap();
    let told = |started_at_ms| {
        Entry::RolloutTold(v1::RolloutTold {
            policy: "default".into(),
            revision: 2,
            started_at_ms,
        })
    };
    let is_told = |state: &LedgerState| state.policies["default"].rollout.as_ref().unwrap().told;
    assert!(record(&mut state, told(NOW.0 - 1)).is_err());
    assert!(!is_told(&state));
    record(&mut state, told(NOW.0)).unwrap();
    assert!(is_told(&state));
    begin(&mut state, &[100]);
    assert!(!is_told(&state), "another roll-out, another mail");
}

#[test]
fn what_a_roll_out_began_from_is_kept_until_it_is_over() {
    use v1::RolloutMove::{Abort, Finish, Pause, Stop};
    for (wanted, hold, is_kept) in [
        (Pause, false, true),
        (Stop, true, true),
        (Stop, false, false),
        (Abort, false, false),
        (Finish, false, false),
    ] {
        let mut state = fleet(2);
        begin(&mut state, &[100]);
        let noted = v1::RolloutBaseline {
            policy: "default".into(),
            revision: 2,
            started_at_ms: NOW.0,
            since_ms: NOW.0,
            marks: Vec::new(),
        };
        record(&mut state, Entry::RolloutBaseline(noted)).unwrap();
        let policy = state.policies.get_mut("default").unwrap();
        policy.rollout.as_mut().unwrap().plan.hold = hold;
        make(&mut state, wanted).unwrap();
        let rollout = state.policies["default"].rollout.as_ref().unwrap();
        assert_eq!(rollout.baseline.is_some(), is_kept, "{wanted:?} {hold}");
    }
}
