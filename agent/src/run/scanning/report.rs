//! Reports suspects, a few at a time: evidence, actions, spool, memory.
//!
//! Promises: a finding is in the spool before it is remembered as reported;
//! and what is in the spool is remembered while others still wait, so that an
//! agent that is killed in between goes on and does not begin again. Evidence
//! takes a bounded time: an account that starts thousands of suspects, each as
//! dear as can be, has them reported with less of it at first (brief.rs). Which
//! ones have all of it is decided by severity, and by chance among equals.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use procwarden_common::finding::Subject;
use procwarden_common::wire::Change;

use super::{SCAN_MAX, Scanning};
use crate::evidence::Depth;
use crate::health::{Board, Part};
use crate::progress::Loop;
use crate::reported::Reported;
use crate::reported::file::ReportedFile;
use crate::scan::{Suspect, thread_cpu_micros};
use crate::spool::DroppedReports;

/// Suspects that are dealt with in one go, and so the findings whose evidence
/// is in memory at once.
pub(super) const AT_ONCE: usize = 8;

/// How often the file of what was reported is written while more waits: it is
/// written whole.
const REMEMBER_PAUSE: Duration = Duration::from_secs(2);

impl Scanning {
    /// Reports what is new about these, with all the evidence that is allowed,
    /// and leaves them in the order in which that was gathered. `is_durable` is
    /// whether all that was said before is on the disk.
    pub(super) fn report(
        &mut self,
        suspects: &mut [Suspect],
        allowance: &mut Allowance,
        mut is_durable: bool,
    ) {
        put_in_order(suspects, getrandom::u32().unwrap_or_default());
        let root = self.scanner.root();
        let mut gatherer = self.scanner.gatherer();
        let mut remembered_at = Instant::now();
        for some in suspects.chunks(AT_ONCE) {
            let has_room = self.spool.has_room_for_reports();
            let mut changes = self.reported.decide_looked(some, has_room);
            let tasks = (self.actions).plan(root, some, &self.reported, &mut changes);
            if changes.is_empty() {
                continue;
            }
            for change in &mut changes {
                let Change::Reported(finding) = change else {
                    continue;
                };
                self.brief.note(finding, allowance.is_spent());
                if !allowance.spend(|depth| gatherer.gather(finding, depth)) {
                    tracing::debug!("A process ended before its evidence was gathered.");
                }
                self.actions.kill(root, &tasks, &mut self.reported, finding);
            }
            say(&changes);
            is_durable = self.spool.append(&changes);
            self.actions
                .run_scripts(&tasks, &mut self.reported, &changes);
            let now = Instant::now();
            self.board.progress.works(Loop::Scanner, now, SCAN_MAX);
            if is_durable && now.duration_since(remembered_at) >= REMEMBER_PAUSE {
                remember(&mut self.reported_file, &self.reported, &self.board);
                remembered_at = now;
            }
        }
        if is_durable {
            remember(&mut self.reported_file, &self.reported, &self.board);
        }
    }

    /// Has reported anew whose report the spool dropped. What the spool lists
    /// is struck out there once it is kept here, so call it when all that was
    /// said is on the disk.
    pub(super) fn unsay_dropped(&mut self) {
        let dropped = self.spool.dropped_reports();
        if dropped == DroppedReports::default() {
            return;
        }
        let is_new = |subject: &&Subject| !self.unsaid.subjects.contains(subject);
        for subject in dropped.subjects.iter().filter(is_new) {
            self.reported.unsay(subject);
        }
        if dropped.and_more && !self.unsaid.and_more {
            tracing::warn!(
                "The spool dropped more findings than it could list: all that go on are reported anew."
            );
            self.reported.unsay_all();
        }
        let is_kept = remember(&mut self.reported_file, &self.reported, &self.board);
        if is_kept {
            self.spool.strike_out(&dropped);
        }
        self.unsaid = if is_kept {
            DroppedReports::default()
        } else {
            dropped
        };
    }
}

/// Keeps what was reported over a restart; whether it is kept. Call it when
/// that is on the disk.
pub(super) fn remember(file: &mut ReportedFile, reported: &Reported, board: &Board) -> bool {
    let notes = match file.save(reported) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!(
            "what was reported cannot be remembered, a restart repeats it: {error}"
        )],
    };
    let is_kept = notes.is_empty();
    board.set_notes(Part::Reported, notes);
    is_kept
}

/// The worst first, and among equals from `start` on. Accounts come last: a
/// kill of what is theirs would take the evidence of their processes.
fn put_in_order(suspects: &mut [Suspect], start: u32) {
    let places = suspects.len().max(1);
    suspects.rotate_left(usize::try_from(start).unwrap_or(0) % places);
    suspects.sort_by_cached_key(|suspect| {
        let is_process = matches!(suspect.bare.subject, Subject::Process(_));
        Reverse((is_process, suspect.bare.severity()))
    });
}

/// What evidence may still cost.
pub(super) struct Allowance {
    left: Duration,
    /// Findings that had to do with less.
    pub(super) brief: usize,
}

impl Allowance {
    /// So much processor time.
    pub(super) const fn new(left: Duration) -> Self {
        Self { left, brief: 0 }
    }

    /// Whether there is only as much as for less evidence.
    pub(super) const fn is_spent(&self) -> bool {
        self.left.is_zero()
    }

    /// Gathers as deep as is left, and takes what that cost.
    pub(super) fn spend<T>(&mut self, gather: impl FnOnce(Depth) -> T) -> T {
        if self.is_spent() {
            self.brief += 1;
            return gather(Depth::Brief);
        }
        let began_us = thread_cpu_micros();
        let gathered = gather(Depth::Whole);
        let used_us = thread_cpu_micros().saturating_sub(began_us);
        self.left = self.left.saturating_sub(Duration::from_micros(used_us));
        gathered
    }
}

fn say(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Reported(finding) => {
                let indicators: Vec<&str> =
                    finding.indicators.iter().map(|i| i.id.as_str()).collect();
                let (uid, severity) = (finding.uid, finding.severity());
                let indicators = indicators.join(" ");
                tracing::info!(subject = name_of(&finding.subject), uid, %severity, indicators, "A finding is reported.");
            }
            Change::Ended(ended) => say_ended(&ended.subject),
        }
    }
}

/// Logs that a subject has ended.
pub(super) fn say_ended(subject: &Subject) {
    tracing::debug!(
        subject = name_of(subject),
        "The subject of a finding has ended."
    );
}

fn name_of(subject: &Subject) -> String {
    match subject {
        Subject::Process(key) => format!("process {}", key.pid),
        Subject::Account { uid, .. } => format!("account {uid}"),
        Subject::Host { .. } => "this host".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::indicator::IndicatorId;
    use procwarden_common::severity::Severity;

    use super::*;
    use crate::reported::tests::{account, process, suspect};

    #[test]
    fn the_worst_has_its_evidence_first_and_equals_take_turns() {
        use Severity::{Critical, High, Low};
        let of = |subject, severity| suspect(subject, &[(IndicatorId::EXE_DELETED, severity)]);
        let order = |start| -> Vec<u32> {
            let mut suspects = vec![
                of(process(1, 1), Low),
                of(process(1, 2), High),
                of(process(1, 3), High),
                of(account(9, 0), Critical),
                of(process(1, 4), High),
            ];
            put_in_order(&mut suspects, start);
            let number = |suspect: &Suspect| match suspect.bare.subject {
                Subject::Process(key) => key.pid,
                Subject::Account { uid, .. } => uid,
                Subject::Host { .. } => 0,
            };
            suspects.iter().map(number).collect()
        };
        assert_eq!(order(0), [2, 3, 4, 1, 9]);
        assert_eq!(order(2), [3, 4, 2, 1, 9]);
        assert_eq!(order(u32::MAX), order(u32::MAX % 5));
        put_in_order(&mut [], 7);
    }

    #[test]
    fn evidence_is_brief_once_its_time_is_spent() {
        let mut allowance = Allowance::new(Duration::from_millis(5));
        let busy = |depth| {
            let began_us = thread_cpu_micros();
            while depth == Depth::Whole && thread_cpu_micros() < began_us + 6000 {}
            depth
        };
        let depths = [(); 3].map(|()| allowance.spend(busy));
        assert_eq!(depths, [Depth::Whole, Depth::Brief, Depth::Brief]);
        assert_eq!(allowance.brief, 2);
    }
}
