//! The scanner's thread: scan, decide, gather evidence, spool, remember; then
//! wait for the interval, or for somebody who wants a scan now.
//!
//! Promises: a finding is in the spool before it is remembered as reported;
//! a scan never takes more than half of the time, however often somebody asks
//! for one. Intervals are measured with the monotonic clock: a wall clock that
//! jumps stops nothing. Evidence is gathered and spooled a few findings at a
//! time: an account that starts thousands of suspects fills no memory.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use procwarden_common::finding::Subject;
use procwarden_common::policy::Policy;
use procwarden_common::wire::Change;
use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::health::{Board, Part};
use crate::reported::Reported;
use crate::reported::file::ReportedFile;
use crate::scan::{ScanOutcome, Scanner};
use crate::spool::SharedSpool;
use crate::status::StatusFile;

mod wake;

pub(crate) use wake::{Wake, Waker, Wakes, waker};

/// A host that was just enrolled gets its first policy within a moment. Before
/// that, its first scan would report what the fleet ignores.
const FIRST_POLICY_WAIT: Duration = Duration::from_secs(5);

/// Scans that somebody asks for begin at least this long after one another.
const WANTED_SCAN_PAUSE: Duration = Duration::from_secs(1);

/// Findings whose evidence is in memory at once.
const EVIDENCE_AT_ONCE: usize = 8;

/// What the thread works with.
pub(crate) struct Scanning {
    pub(crate) scanner: Scanner,
    pub(crate) reported: Reported,
    pub(crate) reported_file: ReportedFile,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    /// There never was a policy: the first scan gives it a moment to come.
    pub(crate) awaits_policy: bool,
    pub(crate) spool: SharedSpool,
    pub(crate) board: Arc<Board>,
    pub(crate) status: Arc<StatusFile>,
}

impl Scanning {
    /// Starts the thread. The receiver gets a value when the thread stopped
    /// because it was told to, and an error when it broke.
    pub(crate) fn start(self, wakes: Wakes) -> std::io::Result<oneshot::Receiver<()>> {
        let (done, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("scanner".to_owned())
            .spawn(move || {
                self.run(&wakes);
                if done.send(()).is_err() {
                    tracing::debug!("Nobody waited for the scanner.");
                }
            })?;
        Ok(stopped)
    }

    fn run(mut self, wakes: &Wakes) {
        if self.awaits_policy && wakes.recv_timeout(FIRST_POLICY_WAIT) == Ok(Wake::Stop) {
            return;
        }
        loop {
            let began = Instant::now();
            self.scan_once();
            if self.wait(wakes, began, began.elapsed()) == Wake::Stop {
                break;
            }
        }
        // What the disk refused gets a last chance.
        if self.spool.append(&[]) {
            self.remember();
        }
    }

    fn scan_once(&mut self) {
        let policy = Arc::clone(&self.policy.borrow());
        let mut outcome = self.scanner.scan(&policy, clock::now());
        let changes = self.reported.decide(self.scanner.boot_id(), &outcome);
        // What is reported has copies in the changes.
        outcome.suspects = Vec::new();
        if self.spool_all(changes) {
            self.remember();
        }
        if outcome.alive.is_empty() {
            outcome
                .notes
                .push("the last scan saw no process at all: can /proc be read?".to_owned());
        }
        self.show(outcome);
    }

    /// Gathers the evidence and spools it; true when everything is on the disk.
    fn spool_all(&self, changes: Vec<Change>) -> bool {
        let mut gatherer = self.scanner.gatherer();
        let mut changes = changes.into_iter();
        loop {
            let mut some: Vec<Change> = changes.by_ref().take(EVIDENCE_AT_ONCE).collect();
            for change in &mut some {
                if let Change::Reported(finding) = change
                    && !gatherer.gather(finding)
                {
                    tracing::debug!("A process ended before its evidence was gathered.");
                }
            }
            say(&some);
            // Even with nothing to say: what the disk refused tries again.
            let is_durable = self.spool.append(&some);
            if changes.len() == 0 {
                return is_durable;
            }
        }
    }

    fn remember(&mut self) {
        let notes = match self.reported_file.save(&self.reported) {
            Ok(()) => Vec::new(),
            Err(error) => vec![format!(
                "what was reported cannot be remembered, a restart repeats it: {error}"
            )],
        };
        self.board.set_notes(Part::Reported, notes);
    }

    fn show(&self, outcome: ScanOutcome) {
        let reported = self.reported.len() as u64;
        self.board.set_notes(Part::Scan, outcome.notes);
        self.board.update(|health| {
            health.scans += 1;
            health.last_scan_at = Some(outcome.at);
            health.read_errors += outcome.stats.read_errors;
            health.last_scan = outcome.stats;
            health.reported = reported;
        });
        self.status.write(&self.board);
    }

    /// Waits for the next scan, or for the end.
    fn wait(&self, wakes: &Wakes, began: Instant, took: Duration) -> Wake {
        let mut is_wanted = false;
        loop {
            let interval = if is_wanted {
                WANTED_SCAN_PAUSE
            } else {
                Duration::from_secs(self.policy.borrow().settings().interval_secs)
            };
            match wakes.recv_timeout(pause(interval, took, began.elapsed())) {
                Ok(Wake::PolicyChanged) => {}
                Ok(Wake::ScanNow) => is_wanted = true,
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
                Err(RecvTimeoutError::Timeout) => return Wake::ScanNow,
            }
        }
    }
}

/// How long to wait, `elapsed` after a scan began that took `took`: until the
/// interval is over, and at least as long as the scan took.
fn pause(interval: Duration, took: Duration, elapsed: Duration) -> Duration {
    interval.max(took * 2).saturating_sub(elapsed)
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
            Change::Ended(ended) => {
                tracing::debug!(
                    subject = name_of(&ended.subject),
                    "The subject of a finding has ended."
                );
            }
        }
    }
}

fn name_of(subject: &Subject) -> String {
    match subject {
        Subject::Process(key) => format!("process {}", key.pid),
        Subject::Account { uid, .. } => format!("account {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_counts_from_the_beginning_and_scans_leave_half_of_the_time() {
        let secs = Duration::from_secs;
        for (interval, took, elapsed, waits) in [
            (60, 1, 1, 59),
            (60, 1, 30, 30),
            (60, 1, 90, 0),
            (1, 10, 10, 10),
            (1, 10, 15, 5),
        ] {
            assert_eq!(
                pause(secs(interval), secs(took), secs(elapsed)),
                secs(waits)
            );
        }
    }
}
