//! Random histories against a plain model: whatever happens to the process and
//! to the index in between, the answers are the model's.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::dedup::{Decision, Known, decide};

const SEGMENT_BYTES: u64 = 3000;

#[derive(Debug, Clone)]
enum Step {
    Report {
        host: u8,
        pid: u8,
        indicator: u8,
        severity: usize,
    },
    End {
        host: u8,
        pid: u8,
    },
    /// Stop and start.
    Reopen,
    /// Start from what is on the disk right now.
    Kill,
    /// Stop, lose index or facts, start.
    Lose {
        index: bool,
    },
    Retain {
        age: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let report =
        (0u8..3, 0u8..30, 0u8..3, 0usize..5).prop_map(|(host, pid, indicator, severity)| {
            Step::Report {
                host,
                pid,
                indicator,
                severity,
            }
        });
    let step = prop_oneof![
        40 => report,
        12 => (0u8..3, 0u8..30).prop_map(|(host, pid)| Step::End { host, pid }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => any::<bool>().prop_map(|index| Step::Lose { index }),
        1 => (0u8..100).prop_map(|age| Step::Retain { age }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A finding as it should be.
#[derive(Debug, Clone)]
struct Expected {
    known: Known,
    /// Which change reported it last: the listing is in this order.
    reported: i64,
    last_seen: i64,
    position: Position,
}

struct Model {
    findings: BTreeMap<FindingId, Expected>,
    now: i64,
    records: usize,
}

impl Model {
    /// What should become of a change: whether it is recorded.
    fn take(&mut self, id: FindingId, change: Change, position: Position) -> bool {
        let old = self.findings.get(&id).cloned();
        let decision = decide(old.as_ref().map(|e| &e.known), change, UnixMillis(self.now));
        let Decision::Record {
            change,
            first_seen,
            ended_at,
            ..
        } = decision
        else {
            return false;
        };
        let (indicators, reported, position) = match (change, old) {
            (Change::Reported(finding), _) => (finding.indicators, self.now, position),
            (Change::Ended(_), Some(old)) => (old.known.indicators, old.reported, old.position),
            (Change::Ended(_), None) => panic!("the end of nothing"),
        };
        let known = Known {
            indicators,
            actions: Vec::new(),
            process: None,
            first_seen,
            ended_at,
        };
        self.findings.insert(
            id,
            Expected {
                known,
                reported,
                last_seen: self.now,
                position,
            },
        );
        self.records += 1;
        true
    }

    fn compare(&self, findings: &Findings) {
        let mut expected: Vec<_> = self.findings.iter().collect();
        expected.sort_by_key(|(_, e)| std::cmp::Reverse(e.reported));
        let listed = list_all(findings, &FindingFilter::default());
        let ids = |all: &[StoredFinding]| all.iter().map(|f| f.id).collect::<Vec<_>>();
        assert_eq!(
            ids(&listed),
            expected.iter().map(|(id, _)| **id).collect::<Vec<_>>()
        );
        for (stored, (id, expected)) in listed.iter().zip(&expected) {
            let shown = findings.get(**id).unwrap().unwrap();
            for stored in [stored, &shown] {
                assert_eq!(stored.finding.indicators, expected.known.indicators);
                assert_eq!(
                    (stored.first_seen, stored.last_seen.0, stored.ended_at),
                    (
                        expected.known.first_seen,
                        expected.last_seen,
                        expected.known.ended_at
                    )
                );
                let is_ended = expected.known.ended_at.is_some();
                assert_eq!(stored.state == FindingState::Ended, is_ended);
            }
            assert_eq!(findings.find_prefix(&id.to_string()[..12]).unwrap(), [**id]);
        }
        let open = |f: &&StoredFinding| f.state == FindingState::Open;
        let figures = findings.figures();
        assert_eq!(figures.findings, listed.len() as u64);
        assert_eq!(
            figures.findings_open,
            listed.iter().filter(open).count() as u64
        );
        for number in 0..3 {
            let of_host = |f: &&StoredFinding| f.host_id == host(number);
            let count = listed.iter().filter(of_host).filter(open).count();
            assert_eq!(findings.open_count(host(number)), count as u64);
        }
    }
}

fn copied(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    damage::copy_dir(dir.path(), copy.path());
    copy
}

async fn run(steps: Vec<Step>) {
    let mut dir = tempfile::tempdir().unwrap();
    let mut findings = open_small(dir.path(), SEGMENT_BYTES);
    let mut model = Model {
        findings: BTreeMap::new(),
        now: 0,
        records: 0,
    };
    for step in steps {
        model.now += 1;
        match step {
            Step::Report {
                host: number,
                pid,
                indicator,
                severity,
            } => {
                let indicator = format!("i{indicator}");
                let change = report(pid.into(), &[(&indicator, Severity::ALL[severity])]);
                send(&findings, &mut model, number, change).await;
            }
            Step::End { host: number, pid } => {
                send(&findings, &mut model, number, end(pid.into())).await;
            }
            Step::Reopen => {
                findings.close().await;
                findings = open_small(dir.path(), SEGMENT_BYTES);
                model.compare(&findings);
            }
            Step::Kill => {
                let copy = copied(&dir);
                findings.close().await;
                dir = copy;
                findings = open_small(dir.path(), SEGMENT_BYTES);
                model.compare(&findings);
            }
            Step::Lose { index } => {
                findings.close().await;
                let lost = dir.path().join(if index { "index" } else { "facts" });
                if lost.is_dir() {
                    fs::remove_dir_all(lost).unwrap();
                }
                findings = open_small(dir.path(), SEGMENT_BYTES);
                model.compare(&findings);
            }
            Step::Retain { age } => {
                let cutoff = UnixMillis(model.now - i64::from(age));
                let dropped = findings.drop_older_than(cutoff).await.unwrap();
                let begin = findings.inner.past.journal.begin();
                let before = model.findings.len();
                model
                    .findings
                    .retain(|_, expected| expected.position >= begin);
                assert_eq!(dropped, (before - model.findings.len()) as u64);
            }
        }
    }
    model.compare(&findings);
    findings.close().await;
}

async fn send(findings: &Findings, model: &mut Model, number: u8, change: Change) {
    let id = finding_id(host(number.into()), &change);
    let before = findings.end();
    let recorded = model.take(id, change.clone(), before);
    record(findings, number.into(), model.now, vec![change]).await;
    assert_eq!(findings.end() > before, recorded);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_answers_are_those_of_a_plain_model(steps in steps()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(run(steps));
    }
}
