//! The scanner's thread: scan, decide, gather evidence, spool, remember; then
//! wait for the interval, or for somebody who wants a scan now. In between it
//! looks at the processes that events marked.
//!
//! Promises: a finding is in the spool before it is remembered as reported;
//! a scan never takes more than half of the time, however often somebody asks
//! for one. Intervals are measured with the monotonic clock: a wall clock that
//! jumps stops nothing. Evidence is gathered and spooled a few findings at a
//! time and within limits (report.rs): an account that starts thousands of
//! suspects fills no memory and stops nothing.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use procwarden_common::policy::Policy;
use procwarden_common::wire::Change;
use tokio::sync::{oneshot, watch};

use crate::actions::Actions;
use crate::clock;
use crate::events::Lookout;
use crate::files::FileError;
use crate::health::{Board, Part};
use crate::hits::SharedHits;
use crate::hits::file::HitsFile;
use crate::policy::notes_on_slow_rules;
use crate::progress::Loop;
use crate::reported::Reported;
use crate::reported::file::ReportedFile;
use crate::scan::{LookOutcome, ScanOutcome, Scanner, thread_cpu_micros};
use crate::spool::{DroppedReports, SharedSpool};
use crate::status::StatusFile;

mod brief;
mod pace;
mod report;
mod wake;

pub(crate) use brief::Brief;
use pace::{Circumstances, Pace, pace};
use report::{Allowance, remember, say_ended};
pub(crate) use wake::{Wake, Waker, Wakes, waker};

/// A host that was just enrolled gets its first policy within a moment. Before
/// that, its first scan would report what the fleet ignores.
const FIRST_POLICY_WAIT: Duration = Duration::from_secs(5);

/// Scans that somebody asks for begin at least this long after one another.
const WANTED_SCAN_PAUSE: Duration = Duration::from_secs(1);

/// What events could not cover is scanned this long after the last scan, when
/// the interval is longer: events that were lost once are often lost again.
const RECONCILE_PAUSE: Duration = Duration::from_secs(5);

/// A scan that takes longer hangs, and so does reporting a few findings.
const SCAN_MAX: Duration = Duration::from_secs(600);

/// Processes that are looked at in one go.
const LOOKS_AT_ONCE: usize = 64;

/// Processor time for the evidence of one scan. A process that is as dear as
/// can be takes 50 ms.
const SCAN_EVIDENCE_MAX: Duration = Duration::from_secs(3);

/// Processor time for the evidence of one look, which is paid for like looks.
const LOOK_EVIDENCE_MAX: Duration = Duration::from_millis(500);

/// What the thread works with.
pub(crate) struct Scanning {
    pub(crate) scanner: Scanner,
    /// What this host does about its findings.
    pub(crate) actions: Actions,
    /// Which processes to look at between two scans.
    pub(crate) lookout: Arc<Lookout>,
    /// The agent's share of one processor, in percent.
    pub(crate) cpu_percent: watch::Receiver<u64>,
    pub(crate) reported: Reported,
    /// What was reported with less evidence.
    pub(crate) brief: Brief,
    /// What was unsaid and could not be kept: it is not unsaid once more.
    pub(crate) unsaid: DroppedReports,
    pub(crate) reported_file: ReportedFile,
    pub(crate) hits: SharedHits,
    pub(crate) hits_file: HitsFile,
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
            let cost = self.scan_once();
            if self.wait(wakes, began, cost) == Wake::Stop {
                break;
            }
        }
        // What the disk refused gets a last chance.
        if self.spool.append(&[]) {
            remember(&mut self.reported_file, &self.reported, &self.board);
        }
        let saved = self.hits_file.save(&self.hits.lock());
        self.note_hits(saved);
    }

    /// Scans; returns what it cost.
    fn scan_once(&mut self) -> Cost {
        let (began, began_us) = (Instant::now(), thread_cpu_micros());
        self.board.progress.works(Loop::Scanner, began, SCAN_MAX);
        let missed_something = self.lookout.scan_begins();
        let policy = Arc::clone(&self.policy.borrow());
        let mut outcome = self.scanner.scan(&policy, clock::now());
        let ended = self.ended(&outcome);
        self.actions.keep_alive(&outcome.alive);
        self.count_ignored(&outcome);
        if missed_something {
            // No event told of them, or none that there was room for.
            self.lookout.mark_all(&outcome.young, Instant::now());
        }
        // Even with nothing to say: what the disk refused tries again.
        let is_durable = self.spool.append(&ended);
        if is_durable {
            self.unsay_dropped();
        }
        let mut suspects = std::mem::take(&mut outcome.suspects);
        let mut allowance = Allowance::new(SCAN_EVIDENCE_MAX);
        self.report(&mut suspects, &mut allowance, is_durable);
        self.note_brief(allowance.brief);
        self.complete_evidence(&outcome, &suspects, &mut allowance);
        if outcome.alive.is_empty() {
            outcome
                .notes
                .push("the last scan saw no process at all: can /proc be read?".to_owned());
        }
        self.note_slow_rules(&policy);
        self.show(outcome);
        Cost {
            wall: began.elapsed(),
            cpu: Duration::from_micros(thread_cpu_micros().saturating_sub(began_us)),
        }
    }

    /// Counts what rules ignored, and keeps the counts.
    fn count_ignored(&mut self, outcome: &ScanOutcome) {
        let mut hits = self.hits.lock();
        hits.note(outcome);
        let saved = self.hits_file.save_when_due(&hits, Instant::now());
        drop(hits);
        self.note_hits(saved);
    }

    /// Says which rules gave up on a process. Each is logged once, and shown
    /// until another policy judges.
    fn note_slow_rules(&self, policy: &Policy) {
        let notes = notes_on_slow_rules(policy);
        self.board.set_notes(Part::SlowRules, notes);
    }

    fn note_hits(&self, saved: Result<(), FileError>) {
        let note = |error| {
            format!(
                "what rules ignored cannot be kept, a restart counts from an older state: {error}"
            )
        };
        let notes = saved.err().map(note).into_iter().collect();
        self.board.set_notes(Part::Hits, notes);
    }

    /// What has to be said about subjects that are gone.
    fn ended(&mut self, outcome: &ScanOutcome) -> Vec<Change> {
        let ended = (self.reported).decide_ended(self.scanner.boot_id(), outcome);
        for change in &ended {
            if let Change::Ended(ended) = change {
                say_ended(&ended.subject);
            }
        }
        ended
    }

    /// Says that findings had to do with less evidence.
    fn note_brief(&self, brief: usize) {
        let note = "so many suspects at once that some were reported without files, maps, \
                    environment and digest";
        let notes = (brief > 0).then(|| note.to_owned()).into_iter().collect();
        self.board.set_notes(Part::Evidence, notes);
    }

    fn show(&self, outcome: ScanOutcome) {
        let reported = self.reported.len() as u64;
        let events = self.lookout.counts();
        self.board.set_notes(Part::Scan, outcome.notes);
        self.board.update(|health| {
            health.scans += 1;
            health.last_scan_at = Some(outcome.at);
            health.read_errors += outcome.stats.read_errors;
            health.syscalls_skipped += outcome.stats.syscalls_skipped;
            health.last_scan = outcome.stats;
            health.reported = reported;
            health.events = events;
        });
    }

    /// Waits for the next scan, or for the end; looks at what is due meanwhile.
    fn wait(&mut self, wakes: &Wakes, began: Instant, cost: Cost) -> Wake {
        let mut is_wanted = false;
        let mut pace = self.keep_pace(cost.cpu);
        loop {
            let interval = if is_wanted {
                WANTED_SCAN_PAUSE.max(pace.wanted_min)
            } else if self.lookout.misses_something() {
                RECONCILE_PAUSE.max(pace.wanted_min).min(pace.interval)
            } else {
                pace.interval
            };
            let until_scan = pause(interval, cost.wall, began.elapsed());
            let until_look = self.lookout.next_look(Instant::now());
            let wait = until_look.map_or(until_scan, |look| look.min(until_scan));
            self.board.progress.rests(Loop::Scanner);
            let woken = wakes.recv_timeout(wait);
            (self.board.progress).works(Loop::Scanner, Instant::now(), SCAN_MAX);
            match woken {
                Ok(Wake::PaceChanged) => pace = self.keep_pace(cost.cpu),
                Ok(Wake::Look) => {}
                Ok(Wake::ScanNow) => is_wanted = true,
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
                Err(RecvTimeoutError::Timeout) if until_scan <= wait => return Wake::ScanNow,
                Err(RecvTimeoutError::Timeout) => self.look_at_due(),
            }
        }
    }

    /// How the next scan goes, after one of this cost; says so.
    fn keep_pace(&mut self, last_scan: Duration) -> Pace {
        let interval_secs = self.policy.borrow().settings().interval_secs;
        let cpu_percent = *self.cpu_percent.borrow();
        let pace = pace(&Circumstances {
            interval: Duration::from_secs(interval_secs),
            load_millis: load_per_processor_millis(),
            last_scan,
            cpu_percent,
        });
        self.scanner
            .set_share(pace.is_gentle.then_some(cpu_percent));
        self.board
            .set_notes(Part::Pace, pace.note.iter().cloned().collect());
        let interval = pace.interval;
        self.board.update(|health| health.scan_interval = interval);
        self.status.write(&self.board);
        pace
    }

    /// Looks at some of the marked processes, and pays for it.
    fn look_at_due(&mut self) {
        let began_us = thread_cpu_micros();
        let pids = self.lookout.take_due(Instant::now(), LOOKS_AT_ONCE);
        let policy = Arc::clone(&self.policy.borrow());
        let at = clock::now();
        let LookOutcome {
            mut suspects,
            stats,
            again,
        } = self.scanner.look(&pids, &policy, at);
        self.note_slow_rules(&policy);
        let now = Instant::now();
        for (pid, wait) in again {
            self.lookout.mark(pid, now + wait);
        }
        self.hits.lock().note_looked(&suspects, at);
        // Without a finding there is nothing to write.
        let evidence_max = self.lookout.evidence_left(now).min(LOOK_EVIDENCE_MAX);
        let mut allowance = Allowance::new(evidence_max);
        self.report(&mut suspects, &mut allowance, false);
        if allowance.brief > 0 {
            self.note_brief(allowance.brief);
        }
        let used_us = thread_cpu_micros().saturating_sub(began_us);
        self.lookout
            .looked(stats.processes, used_us, Instant::now());
        let events = self.lookout.counts();
        self.board.update(|health| {
            health.read_errors += stats.read_errors;
            health.syscalls_skipped += stats.syscalls_skipped;
            health.events = events;
        });
    }
}

/// What a scan cost, with everything that followed from it.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

/// The load average of the last minute per processor, in thousandths.
fn load_per_processor_millis() -> u64 {
    /// What the kernel counts as a load of 1: SI_LOAD_SHIFT is 16.
    const ONE: u64 = 1 << 16;
    let [load, ..] = rustix::system::sysinfo().loads;
    let processors = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    load.saturating_mul(1000) / ONE / processors
}

/// How long to wait, `elapsed` after a scan began that took `took`: until the
/// interval is over, and at least as long as the scan took.
fn pause(interval: Duration, took: Duration, elapsed: Duration) -> Duration {
    interval.max(took * 2).saturating_sub(elapsed)
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
