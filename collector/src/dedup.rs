//! Exactly once: what becomes of a reported change, given what is known of its
//! finding. Pure.
//!
//! Recorded are: a new finding; one that shows an indicator it did not show
//! before, one of a higher severity, or an action of the host that was not
//! told before; and the first end of a known finding.
//! An ended finding takes new facts but is never opened again. Everything else
//! is a duplicate: agents send again what they hold no ack for.

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{ActionRecord, Finding, ProcessFacts};
use procwarden_common::indicator::Indicator;
use procwarden_common::limits::{ACTIONS_MAX, INDICATORS_MAX};
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;

/// What dedup has to know of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Every indicator so far, in the order in which they were first seen.
    pub(crate) indicators: Vec<Indicator>,
    /// Every action of the host so far.
    pub(crate) actions: Vec<ActionRecord>,
    /// The newest facts of a process.
    pub(crate) process: Option<ProcessFacts>,
    pub(crate) first_seen: UnixMillis,
    pub(crate) ended_at: Option<UnixMillis>,
}

impl Known {
    fn severity(&self) -> Option<Severity> {
        self.indicators.iter().map(|i| i.severity).max()
    }
}

/// What becomes of a change.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decision {
    /// It is written to the journal in this form.
    Record {
        /// A report carries every indicator so far and the newest facts, with
        /// the evidence of before where it has none.
        change: Change,
        /// A new finding, or one whose severity rose.
        alertable: bool,
        first_seen: UnixMillis,
        /// When the finding ended, if it has by now.
        ended_at: Option<UnixMillis>,
    },
    /// The journal holds it already.
    Duplicate,
    /// The end of a finding that nobody reported.
    UnknownEnd,
}

/// Decides about one change of one finding.
pub(crate) fn decide(known: Option<&Known>, change: Change, received_at: UnixMillis) -> Decision {
    match (change, known) {
        (Change::Reported(finding), None) => first_report(finding, received_at),
        (Change::Reported(finding), Some(known)) => later_report(known, finding),
        (Change::Ended(_), None) => Decision::UnknownEnd,
        (Change::Ended(_), Some(known)) if known.ended_at.is_some() => Decision::Duplicate,
        (Change::Ended(ended), Some(known)) => Decision::Record {
            change: Change::Ended(ended),
            alertable: false,
            first_seen: known.first_seen,
            ended_at: Some(ended.ended_at),
        },
    }
}

/// Makes one of indicators that have the same id: the first, with what the one
/// of the highest severity says. Whether there were any.
pub(crate) fn unite(indicators: &mut Vec<Indicator>) -> bool {
    let mut rest = indicators.as_slice();
    let mut is_repeated = false;
    while let Some((first, behind)) = rest.split_first() {
        is_repeated |= behind.iter().any(|other| other.id == first.id);
        rest = behind;
    }
    if is_repeated {
        let mut united = Vec::with_capacity(indicators.len());
        merge(&mut united, indicators);
        *indicators = united;
    }
    is_repeated
}

fn first_report(mut finding: Box<Finding>, received_at: UnixMillis) -> Decision {
    unite(&mut finding.indicators);
    let alertable = !finding.quiet;
    Decision::Record {
        change: Change::Reported(finding),
        alertable,
        first_seen: received_at,
        ended_at: None,
    }
}

fn later_report(known: &Known, mut finding: Box<Finding>) -> Decision {
    let mut indicators = known.indicators.clone();
    let grew = merge(&mut indicators, &finding.indicators);
    let mut actions = known.actions.clone();
    let acted = merge_actions(&mut actions, &finding.actions);
    if !grew && !acted {
        return Decision::Duplicate;
    }
    finding.indicators = indicators;
    finding.actions = actions;
    if let (Some(new), Some(known)) = (&mut finding.process, &known.process) {
        keep_evidence(new, known);
    }
    let alertable = Some(finding.severity()) > known.severity() && !finding.quiet;
    Decision::Record {
        change: Change::Reported(finding),
        alertable,
        first_seen: known.first_seen,
        ended_at: known.ended_at,
    }
}

/// A host that had no time to look at a process in full says less about the
/// same program than it said before: that is kept.
fn keep_evidence(new: &mut ProcessFacts, known: &ProcessFacts) {
    let is_brief = new.files.is_empty()
        && new.maps.is_empty()
        && new.environment.is_empty()
        && new.exe_file.is_none()
        && new.exe_sha256.is_none();
    if is_brief && new.exe == known.exe {
        new.files.clone_from(&known.files);
        new.maps.clone_from(&known.maps);
        new.environment.clone_from(&known.environment);
        new.exe_file.clone_from(&known.exe_file);
        new.exe_sha256 = known.exe_sha256;
    }
}

/// Adds what `new` says beyond `all`; whether there was anything.
fn merge(all: &mut Vec<Indicator>, new: &[Indicator]) -> bool {
    let mut grew = false;
    for indicator in new {
        // Past the limit a record could not be read back.
        let has_room = all.len() < INDICATORS_MAX;
        match all.iter_mut().find(|i| i.id == indicator.id) {
            Some(old) if old.severity < indicator.severity => old.clone_from(indicator),
            None if has_room => all.push(indicator.clone()),
            Some(_) | None => continue,
        }
        grew = true;
    }
    grew
}

/// Adds the actions that `all` lacks; whether there was any. The first ones
/// are kept when there are too many.
fn merge_actions(all: &mut Vec<ActionRecord>, new: &[ActionRecord]) -> bool {
    let before = all.len();
    for record in new {
        if all.len() < ACTIONS_MAX && !all.contains(record) {
            all.push(record.clone());
        }
    }
    all.len() > before
}

#[cfg(test)]
mod tests {
    use procwarden_common::finding::{Ended, EnvironmentEntry, Subject};
    use procwarden_common::id::BootId;
    use procwarden_common::process::ProcessKey;

    use super::*;

    const SUBJECT: Subject = Subject::Process(ProcessKey {
        boot_id: BootId::from_uuid(uuid::Uuid::nil()),
        pid: 5,
        start_time: 6,
    });

    fn report(indicators: &[(&str, Severity)]) -> Change {
        let indicator = |(id, severity): &(&str, Severity)| Indicator {
            id: id.parse().unwrap(),
            severity: *severity,
            evidence: format!("{id} {severity}"),
        };
        Change::Reported(Box::new(Finding {
            subject: SUBJECT,
            indicators: indicators.iter().map(indicator).collect(),
            observed_at: UnixMillis(1),
            uid: 1000,
            user: b"user".to_vec(),
            process: None,
            host: None,
            actions: Vec::new(),
            quiet: false,
        }))
    }

    fn end() -> Change {
        Change::Ended(Ended {
            subject: SUBJECT,
            ended_at: UnixMillis(9),
        })
    }

    /// Sends changes one after the other; `R` recorded, `A` recorded and
    /// alertable, `d` duplicate, `?` unknown end.
    fn outcomes(changes: Vec<Change>) -> (String, Option<Known>) {
        let (mut text, mut state): (_, Option<Known>) = (String::new(), None);
        for (time, change) in (0i64..).zip(changes) {
            text.push(match decide(state.as_ref(), change, UnixMillis(time)) {
                Decision::Record {
                    change,
                    alertable,
                    first_seen,
                    ended_at,
                } => {
                    let (indicators, actions) = match (change, state) {
                        (Change::Reported(finding), _) => (finding.indicators, finding.actions),
                        (Change::Ended(_), known) => {
                            let known = known.unwrap();
                            (known.indicators, known.actions)
                        }
                    };
                    state = Some(Known {
                        indicators,
                        actions,
                        process: None,
                        first_seen,
                        ended_at,
                    });
                    if alertable { 'A' } else { 'R' }
                }
                Decision::Duplicate => 'd',
                Decision::UnknownEnd => '?',
            });
        }
        (text, state)
    }

    #[test]
    fn every_road_of_a_finding_is_recorded_exactly_once() {
        use Severity::{High, Low, Medium};
        let a = || report(&[("a", Medium)]);
        let ab_low = || report(&[("a", Medium), ("b", Low)]);
        let b_high = || report(&[("b", High)]);
        for (changes, expected) in [
            (vec![a(), a(), a()], "Add"),
            (vec![a(), ab_low(), ab_low(), a()], "ARdd"),
            (vec![a(), b_high(), a(), b_high()], "AAdd"),
            (vec![ab_low(), b_high(), ab_low()], "AAd"),
            (vec![a(), end(), end()], "ARd"),
            (vec![end(), a(), end()], "?AR"),
            (vec![a(), end(), a(), ab_low(), end()], "ARdRd"),
            (vec![report(&[]), report(&[])], "Ad"),
        ] {
            assert_eq!(outcomes(changes.clone()).0, expected, "{changes:?}");
        }
    }

    #[test]
    fn growth_keeps_order_and_first_seen_and_takes_the_higher_severity() {
        let changes = vec![
            report(&[("b", Severity::Low), ("b", Severity::Medium)]),
            end(),
            report(&[("a", Severity::Info), ("b", Severity::High)]),
        ];
        let (_, known) = outcomes(changes);
        let known = known.unwrap();
        let shown: Vec<_> = known
            .indicators
            .iter()
            .map(|i| i.evidence.as_str())
            .collect();
        assert_eq!(shown, ["b high", "a info"]);
        assert_eq!(
            (known.first_seen, known.ended_at),
            (UnixMillis(0), Some(UnixMillis(9)))
        );
    }

    #[test]
    fn a_later_report_with_less_evidence_about_the_same_program_takes_none_away() {
        let known = |exe: &[u8]| ProcessFacts {
            exe: Some(exe.to_vec()),
            exe_sha256: Some([7; 32]),
            environment: vec![EnvironmentEntry {
                name: "LD_PRELOAD".into(),
                value: b"/tmp/x.so".to_vec(),
                value_truncated: false,
            }],
            ..ProcessFacts::default()
        };
        let digest_after = |exe_before: &[u8], facts: ProcessFacts| {
            let before = Known {
                indicators: Vec::new(),
                actions: Vec::new(),
                process: Some(known(exe_before)),
                first_seen: UnixMillis(0),
                ended_at: None,
            };
            let Change::Reported(mut finding) = report(&[("a", Severity::Medium)]) else {
                unreachable!("it is a report");
            };
            finding.process = Some(facts);
            let decision = later_report(&before, finding);
            let Decision::Record {
                change: Change::Reported(finding),
                ..
            } = decision
            else {
                panic!("{decision:?}")
            };
            let facts = finding.process.unwrap();
            (facts.exe_sha256, facts.environment.len())
        };
        let brief = ProcessFacts {
            exe: Some(b"/tmp/x".to_vec()),
            ..ProcessFacts::default()
        };
        assert_eq!(digest_after(b"/tmp/x", brief.clone()), (Some([7; 32]), 1));
        assert_eq!(digest_after(b"/tmp/y", brief.clone()), (None, 0));
        let whole = ProcessFacts {
            exe_sha256: Some([8; 32]),
            ..brief
        };
        assert_eq!(digest_after(b"/tmp/x", whole), (Some([8; 32]), 0));
    }

    #[test]
    fn an_action_is_recorded_once_and_alerts_nobody_and_quiet_is_obeyed() {
        let with = |quiet: bool, results: &[&str]| {
            let Change::Reported(mut finding) = report(&[("a", Severity::Medium)]) else {
                unreachable!("it is a report");
            };
            let record = |result: &&str| ActionRecord::new(UnixMillis(1), "on_deleted", result);
            finding.actions = results.iter().map(record).collect();
            finding.quiet = quiet;
            Change::Reported(finding)
        };
        let (text, known) = outcomes(vec![
            with(false, &[]),
            with(false, &["exit code 0"]),
            with(false, &["exit code 0"]),
            with(false, &["exit code 1"]),
            with(false, &[]),
        ]);
        assert_eq!(text, "ARdRd");
        assert_eq!(known.unwrap().actions.len(), 2);
        assert_eq!(outcomes(vec![with(true, &["killed"])]).0, "R");
    }

    #[test]
    fn indicators_never_outgrow_what_can_be_read_back() {
        let names: Vec<String> = (0..INDICATORS_MAX + 5).map(|i| format!("i{i}")).collect();
        let each = |name: &String| report(&[(name.as_str(), Severity::Low)]);
        let (text, known) = outcomes(names.iter().map(each).collect());
        assert_eq!(known.unwrap().indicators.len(), INDICATORS_MAX);
        assert!(text.ends_with("ddddd"), "{text}");
    }
}
