//! What is planned, over several scans; nothing is killed or run here.

use std::path::Path;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::policy::{Rule, RuleFacts, RuleKey, RuleOrigin};
use procwarden_common::severity::Severity;

use super::*;

fn suspect(pid: u32, id: IndicatorId) -> Suspect {
    let key = ProcessKey {
        boot_id: BootId::from_slice(&[1; 16]).unwrap(),
        pid,
        start_time: 7,
    };
    Suspect {
        bare: Finding {
            subject: Subject::Process(key),
            indicators: vec![Indicator {
                id,
                severity: Severity::High,
                evidence: String::new(),
            }],
            observed_at: UnixMillis(0),
            uid: 1000,
            user: b"alice".to_vec(),
            process: None,
            host: None,
            actions: Vec::new(),
            quiet: false,
        },
        process: None,
        verdict: Verdict::Report,
        members: Vec::new(),
    }
}

fn acting(config: ActionsConfig) -> Actions {
    Actions {
        config,
        runner: None,
        signalled: HashSet::new(),
    }
}

/// What one scan plans: subjects with the keys that want something, and how
/// many changes there are then.
fn planned(
    actions: &mut Actions,
    reported: &mut Reported,
    suspects: &[Suspect],
) -> (Vec<&'static str>, usize) {
    let root = ProcRoot::open(Path::new("/proc")).unwrap();
    let mut changes = reported.decide_looked(suspects, true);
    let tasks = actions.plan(&root, suspects, reported, &mut changes);
    let mut wanted = Vec::new();
    for (subject, task) in &tasks.0 {
        let kills = task.kills.iter().map(|(what, _)| *what);
        for what in kills.chain(task.scripts.iter().copied()) {
            wanted.push(what);
            reported.note_action(*subject, what);
        }
    }
    (wanted, changes.len())
}

#[test]
fn each_action_is_planned_once_and_one_that_is_switched_on_later_too() {
    let mut reported = Reported::default();
    let suspects = [suspect(999_999_999, IndicatorId::EXE_DELETED)];
    let mut off = acting(ActionsConfig::default());
    assert_eq!(planned(&mut off, &mut reported, &suspects), (vec![], 1));
    let mut on = acting(ActionsConfig {
        on_deleted: Some("/x".into()),
        ..ActionsConfig::default()
    });
    // Reported before: the record needs a change of its own.
    let once = (vec!["on_deleted"], 1);
    assert_eq!(planned(&mut on, &mut reported, &suspects), once);
    assert_eq!(planned(&mut on, &mut reported, &suspects), (vec![], 0));
}

#[test]
fn a_rule_protects_what_it_covers() {
    let mut suspect = suspect(999_999_999, IndicatorId::PROCESS_RUN_TIME);
    let origin = RuleOrigin {
        policy: "p".into(),
        revision: 1,
        file: "f".into(),
        line: 1,
    };
    suspect.verdict = Verdict::Ignored(std::sync::Arc::new(Rule {
        key: RuleKey::User,
        value: "alice".into(),
        origin,
        facts: RuleFacts::default(),
    }));
    let mut actions = acting(ActionsConfig {
        kill_over_limit: true,
        ..ActionsConfig::default()
    });
    let mut reported = Reported::default();
    assert_eq!(
        planned(&mut actions, &mut reported, &[suspect]),
        (vec![], 0)
    );
}

#[test]
fn a_kill_that_found_nobody_is_not_tried_again_in_vain() {
    let suspects = [suspect(999_999_999, IndicatorId::PROCESS_RUN_TIME)];
    let mut actions = acting(ActionsConfig {
        kill_over_limit: true,
        ..ActionsConfig::default()
    });
    let mut reported = Reported::default();
    let once = (vec!["kill_over_limit"], 1);
    assert_eq!(planned(&mut actions, &mut reported, &suspects), once);
    assert_eq!(planned(&mut actions, &mut reported, &suspects), (vec![], 0));
}

#[test]
fn what_came_of_many_is_said_in_one_line() {
    let mut tally = Tally::default();
    assert_eq!(tally.words(), "nothing was left to kill");
    tally.add(Outcome::Killed);
    assert_eq!(tally.words(), "killed");
    tally.add(Outcome::Killed);
    tally.add(Outcome::Refused("it is root's"));
    tally.add(Outcome::Gone);
    assert_eq!(
        tally.words(),
        "killed 2; refused 1: it is root's; ended by itself 1"
    );
}
