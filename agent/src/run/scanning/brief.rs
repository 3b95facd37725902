//! Findings that were reported with less evidence, and have the rest of it
//! gathered when a scan has time for that.
//!
//! Whoever starts many suspects that are dear to look at would otherwise have
//! the one that matters reported without files, maps, environment and digest
//! for as long as it lives. Promises: each once in a run of the agent, the
//! worst first; bounded; a process that ended or is ignored by now is
//! forgotten. The update is recorded with the finding, without an alert.

use std::collections::BTreeSet;

use procwarden_common::finding::{ActionRecord, Subject};
use procwarden_common::policy::Verdict;
use procwarden_common::process::ProcessKey;
use procwarden_common::wire::Change;

use super::Scanning;
use super::report::{AT_ONCE, Allowance, remember};
use crate::clock;
use crate::scan::Suspect;

/// Processes that wait for the rest of their evidence.
const WAITING_MAX: usize = 4096;

/// What the record of a finding calls it.
const WHAT: &str = "evidence";
const RESULT: &str = "gathered in full after the report";

/// Processes that wait.
#[derive(Debug, Default)]
pub(crate) struct Brief(BTreeSet<ProcessKey>);

impl Brief {
    /// A process was reported with less evidence.
    pub(super) fn add(&mut self, subject: &Subject) {
        if let Subject::Process(key) = subject
            && self.0.len() < WAITING_MAX
        {
            self.0.insert(*key);
        }
    }

    /// Those of a scan's suspects that wait, in their order; whoever is not
    /// among them does not wait any longer.
    fn waiting<'a>(&mut self, suspects: &'a [Suspect]) -> Vec<(ProcessKey, &'a Suspect)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let reported = suspects.iter().filter(|s| s.verdict == Verdict::Report);
        let waiting: Vec<(ProcessKey, &Suspect)> = reported
            .filter_map(|suspect| match suspect.bare.subject {
                Subject::Process(key) if self.0.contains(&key) => Some((key, suspect)),
                _ => None,
            })
            .collect();
        self.0 = waiting.iter().map(|(key, _)| *key).collect();
        waiting
    }
}

impl Scanning {
    /// Gathers what is missing of the suspects of a scan, as far as that is
    /// allowed. They are sorted by what is to come first.
    pub(super) fn complete_evidence(&mut self, suspects: &[Suspect], allowance: &mut Allowance) {
        let waiting = self.brief.waiting(suspects);
        let mut gatherer = self.scanner.gatherer();
        let mut is_durable = None;
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
            is_durable = Some(self.spool.append(&changes));
        }
        if is_durable == Some(true) {
            remember(&mut self.reported_file, &self.reported, &self.board);
        }
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::indicator::IndicatorId;
    use procwarden_common::severity::Severity;

    use super::*;
    use crate::reported::tests::{account, ignored_by, process, suspect};

    #[test]
    fn those_wait_that_are_still_reported_and_each_is_named_once() {
        let of = |subject| suspect(subject, &[(IndicatorId::EXE_DELETED, Severity::High)]);
        let mut brief = Brief::default();
        for subject in [process(1, 1), process(1, 2), process(1, 3), account(7, 0)] {
            brief.add(&subject);
        }
        let suspects = [
            of(process(1, 3)),
            of(process(1, 4)),
            ignored_by("u", of(process(1, 2))),
            of(process(1, 1)),
        ];
        let pids = |waiting: Vec<(ProcessKey, &Suspect)>| -> Vec<u32> {
            waiting.iter().map(|(key, _)| key.pid).collect()
        };
        assert_eq!(pids(brief.waiting(&suspects)), [3, 1]);
        // What did not wait any longer then does not wait later.
        let again = [of(process(1, 2)), of(process(1, 1))];
        assert_eq!(pids(brief.waiting(&again)), [1]);
        assert!(brief.waiting(&[]).is_empty() && brief.0.is_empty());
    }

    #[test]
    fn no_more_wait_than_a_number() {
        let mut brief = Brief::default();
        for pid in 0..WAITING_MAX as u32 + 9 {
            brief.add(&process(1, pid));
        }
        assert_eq!(brief.0.len(), WAITING_MAX);
    }
}
