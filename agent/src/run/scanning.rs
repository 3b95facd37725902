//! The scanner's thread: scan, decide, gather evidence, spool, remember; then
//! wait for the interval, or for somebody who wants a scan now.
//!
//! Promises: a finding is in the spool before it is remembered as reported;
//! a scan never takes more than half of the time. Intervals are measured with
//! the monotonic clock: a wall clock that jumps stops nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
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

/// A host that was just enrolled gets its first policy within a moment. Before
/// that, its first scan would report what the fleet ignores.
const FIRST_POLICY_WAIT: Duration = Duration::from_secs(5);

/// Why the thread is woken before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody wants a scan.
    ScanNow,
    /// The interval may be another one.
    PolicyChanged,
    /// The agent stops.
    Stop,
}

/// Wakes the thread.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    wakes: Sender<Wake>,
}

impl Waker {
    pub(crate) fn wake(&self, wake: Wake) {
        if self.wakes.send(wake).is_err() {
            tracing::debug!(?wake, "The scanner has stopped already.");
        }
    }
}

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

/// A pair of waker and what it wakes.
pub(crate) fn waker() -> (Waker, Receiver<Wake>) {
    let (wakes, receiver) = channel();
    (Waker { wakes }, receiver)
}

impl Scanning {
    /// Starts the thread. The receiver gets a value when the thread stopped
    /// because it was told to, and an error when it broke.
    pub(crate) fn start(self, wakes: Receiver<Wake>) -> std::io::Result<oneshot::Receiver<()>> {
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

    fn run(mut self, wakes: &Receiver<Wake>) {
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
        self.spool_and_remember(&[]);
    }

    fn scan_once(&mut self) {
        let policy = Arc::clone(&self.policy.borrow());
        let mut outcome = self.scanner.scan(&policy, clock::now());
        let mut changes = self.reported.decide(self.scanner.boot_id(), &outcome);
        for change in &mut changes {
            if let Change::Reported(finding) = change
                && !self.scanner.gather_evidence(finding)
            {
                tracing::debug!("A process ended before its evidence was gathered.");
            }
        }
        say(&changes);
        self.spool_and_remember(&changes);
        if outcome.alive.is_empty() {
            outcome
                .notes
                .push("the last scan saw no process at all: can /proc be read?".to_owned());
        }
        self.show(outcome);
    }

    fn spool_and_remember(&mut self, changes: &[Change]) {
        if !self.spool.append(changes) {
            return;
        }
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

    /// Waits for the next scan; returns what it is for.
    fn wait(&self, wakes: &Receiver<Wake>, began: Instant, took: Duration) -> Wake {
        loop {
            let interval = Duration::from_secs(self.policy.borrow().settings().interval_secs);
            let pause = pause(interval, took, began.elapsed());
            match wakes.recv_timeout(pause) {
                Ok(Wake::PolicyChanged) => {}
                Ok(wake) => return wake,
                Err(RecvTimeoutError::Timeout) => return Wake::ScanNow,
                Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
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
