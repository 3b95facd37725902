//! Findings that were reported with less evidence, and have the rest of it
//! gathered when a scan has time for that.
//!
//! Whoever starts many suspects that are dear to look at would otherwise have
//! the one that matters reported without files, maps, environment and digest
//! for as long as it lives. Promises: each once in a run of the agent, the
//! worst first; bounded, and where too many wait the worst do; a process that
//! ended or is ignored by now is forgotten. One that scans leave alone because
//! of its age waits until they do not. The update is recorded with the finding,
//! without an alert.

use std::collections::BTreeMap;
use std::time::Instant;

use procwarden_common::finding::{ActionRecord, Finding, Subject};
use procwarden_common::policy::Verdict;
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;

use super::report::{AT_ONCE, Allowance, remember};
use super::{SCAN_MAX, Scanning};
use crate::clock;
use crate::progress::Loop;
use crate::scan::{ScanOutcome, Suspect};

/// Processes that wait for the rest of their evidence.
const WAITING_MAX: usize = 4096;

/// What the record of a finding calls it.
const WHAT: &str = "evidence";
const RESULT: &str = "gathered after the report";

/// Processes that wait, and how severe they were.
#[derive(Debug, Default)]
pub(crate) struct Brief(BTreeMap<ProcessKey, Severity>);

impl Brief {
    /// A finding was reported, with less evidence or with all.
    pub(super) fn note(&mut self, finding: &Finding, is_brief: bool) {
        let Subject::Process(key) = finding.subject else {
            return;
        };
        if !is_brief {
            self.0.remove(&key);
            return;
        }
        let severity = finding.severity();
        if self.0.len() >= WAITING_MAX && !self.0.contains_key(&key) {
            let least = self.0.iter().min_by_key(|(_, severity)| **severity);
            match least.map(|(key, least)| (*key, *least)) {
                Some((least_key, least)) if least < severity => self.0.remove(&least_key),
                _ => return,
            };
        }
        self.0.insert(key, severity);
    }

    /// Forgets who has ended, and who is ignored.
    fn forget(&mut self, outcome: &ScanOutcome, suspects: &[Suspect]) {
        self.0.retain(|key, _| outcome.has(key));
        for suspect in suspects.iter().filter(|s| s.verdict != Verdict::Report) {
            if let Subject::Process(key) = suspect.bare.subject {
                self.0.remove(&key);
            }
        }
    }

    /// Those of a scan's suspects that wait, in their order.
    fn waiting<'a>(&self, suspects: &'a [Suspect]) -> Vec<(ProcessKey, &'a Suspect)> {
        let waits = |suspect: &'a Suspect| match suspect.bare.subject {
            Subject::Process(key) if self.0.contains_key(&key) => Some((key, suspect)),
            _ => None,
        };
        suspects.iter().filter_map(waits).collect()
    }
}

impl Scanning {
    /// Gathers what is missing of the suspects of a scan, as far as that is
    /// allowed. They are sorted by what is to come first.
    pub(super) fn complete_evidence(
        &mut self,
        outcome: &ScanOutcome,
        suspects: &[Suspect],
        allowance: &mut Allowance,
    ) {
        self.brief.forget(outcome, suspects);
        let waiting = self.brief.waiting(suspects);
        if waiting.is_empty() {
            return;
        }
        let mut gatherer = self.scanner.gatherer();
        let mut is_durable = false;
        for some in waiting.chunks(AT_ONCE) {
            if allowance.is_spent() || !self.spool.has_room_for_reports() {
                break;
            }
            let mut changes = Vec::new();
            for (key, suspect) in some {
                if allowance.is_spent() {
                    break;
                }
                let mut finding = suspect.finding();
                if allowance.spend(|depth| gatherer.gather(&mut finding, depth)) {
                    let record = ActionRecord::new(clock::now(), WHAT, RESULT);
                    finding.actions.push(record);
                    changes.push(Change::Reported(Box::new(finding)));
                }
                self.brief.0.remove(key);
            }
            is_durable = self.spool.append(&changes);
            (self.board.progress).works(Loop::Scanner, Instant::now(), SCAN_MAX);
        }
        if is_durable {
            remember(&mut self.reported_file, &self.reported, &self.board);
        }
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::indicator::IndicatorId;

    use super::*;
    use crate::reported::tests::{account, ignored_by, process, scan, suspect};

    fn of(subject: Subject, severity: Severity) -> Suspect {
        suspect(subject, &[(IndicatorId::EXE_DELETED, severity)])
    }

    fn high(pid: u32) -> Suspect {
        of(process(1, pid), Severity::High)
    }

    /// Who waits after a scan.
    fn waiting(brief: &mut Brief, alive: &[u32], suspects: &[Suspect]) -> Vec<u32> {
        brief.forget(&scan(1, alive, Vec::new()), suspects);
        let waiting = brief.waiting(suspects).into_iter();
        waiting.map(|(key, _)| key.pid).collect()
    }

    #[test]
    fn who_ended_or_is_ignored_is_forgotten_and_who_is_too_young_for_scans_is_not() {
        let mut brief = Brief::default();
        for pid in 1..=4 {
            brief.note(&high(pid).bare, true);
        }
        brief.note(&of(account(7, 0), Severity::High).bare, true);
        let suspects = [high(3), high(9), ignored_by("u", high(2))];
        // The first is left alone for now; the fourth has ended.
        assert_eq!(waiting(&mut brief, &[1, 2, 3, 9], &suspects), [3]);
        let later = [high(1), high(2), high(3), high(4)];
        assert_eq!(waiting(&mut brief, &[1, 2, 3, 4], &later), [1, 3]);
        // Somebody gathered all of it meanwhile.
        brief.note(&high(1).bare, false);
        assert_eq!(waiting(&mut brief, &[1, 2, 3, 4], &later), [3]);
    }

    #[test]
    fn where_too_many_wait_the_worst_do() {
        let mut brief = Brief::default();
        let pids = 0..WAITING_MAX as u32 + 9;
        pids.for_each(|pid| brief.note(&high(pid).bare, true));
        let late = WAITING_MAX as u32 + 10;
        for severity in [Severity::High, Severity::Critical] {
            brief.note(&of(process(1, late), severity).bare, true);
            assert_eq!(brief.0.len(), WAITING_MAX);
            let waits = !brief.waiting(&[high(late)]).is_empty();
            assert_eq!(waits, severity == Severity::Critical);
        }
    }
}
