//! Events of the kernel: which processes executed, renamed or changed
//! themselves a moment ago. They mark processes for a look between two scans;
//! scans go on all the same and remain what finds everything.
//!
//! Promises: without events (no permission, no kernel support, a container)
//! the agent works as before and says why in its status. Reading and looking
//! together stay within half of the agent's share of a processor: whatever is
//! too much is passed over, counted, and left to a scan that comes soon.
//! Never: believes an event. What a process is, /proc says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::health::{Board, Part};
use crate::run::scanning::{Wake, Waker};
use crate::scan::thread_cpu_micros;

mod budget;
mod connector;
mod marks;
mod message;

use budget::Budget;
use connector::{Connector, Read};
use marks::Marks;
use message::Event;

/// Whether to ask for events: `[events] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// Wherever the kernel has them.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// After the first event that waits, the agent sleeps for this long and reads
/// all that has come by then: one wake-up for a whole burst.
const GATHER: Duration = Duration::from_millis(20);

/// A program needs a moment to settle after execve(2): only then is its
/// command line complete, and what is about to end at once has ended.
const SETTLE: Duration = Duration::from_millis(40);

/// Events taken over in one go, so that nobody waits for the lock for long.
const CHUNK: usize = 512;

/// Longest sleep of the reader while it is in debt. What does not fit into
/// the socket meanwhile is lost and counted by the kernel.
const DEBT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long the reader waits for events before it looks around.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// What became of events since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventCounts {
    /// The kernel sends events now.
    pub(crate) is_on: bool,
    /// Events that asked for a look.
    pub(crate) seen: u64,
    /// Processes that were looked at.
    pub(crate) looks: u64,
    /// Events for which there was no room.
    pub(crate) skipped: u64,
    /// How often the kernel threw events away.
    pub(crate) overflows: u64,
}

/// What the reader of events and the scanner share.
#[derive(Debug)]
pub(crate) struct Lookout {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    marks: Marks,
    budget: Budget,
    counts: EventCounts,
    /// Something was passed over since the last scan began.
    misses_something: bool,
}

impl Lookout {
    /// `cpu_percent` is the agent's share of one processor; half of it is for
    /// events.
    pub(crate) fn new(cpu_percent: u64, now: Instant) -> Self {
        let state = State {
            marks: Marks::default(),
            budget: Budget::new(share_us(cpu_percent), now),
            counts: EventCounts::default(),
            misses_something: true,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// How long until there is something to look at that may be looked at;
    /// nothing while no process is marked.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let due = state.marks.next_due()?;
        Some(
            due.saturating_duration_since(now)
                .max(state.budget.wait(now)),
        )
    }

    /// The processes to look at now, `max` at most.
    pub(crate) fn take_due(&self, now: Instant, max: usize) -> Vec<u32> {
        self.lock().marks.take_due(now, max)
    }

    /// Asks for a look at a process from `due` on.
    pub(crate) fn mark(&self, pid: u32, due: Instant) {
        self.lock().mark(pid, due);
    }

    /// Asks for a look at each of these.
    pub(crate) fn mark_all(&self, pids: &[u32], due: Instant) {
        let mut state = self.lock();
        pids.iter().for_each(|&pid| state.mark(pid, due));
    }

    /// Takes over what looks cost: processes, and processor time.
    pub(crate) fn looked(&self, looks: u64, used_us: u64, now: Instant) {
        let mut state = self.lock();
        state.counts.looks += looks;
        state.budget.charge(used_us, now);
    }

    /// Whether something was passed over that a scan should find soon.
    pub(crate) fn misses_something(&self) -> bool {
        self.lock().misses_something
    }

    /// A scan begins, which finds whatever was passed over before; whether
    /// there was anything. The first scan finds what started before events.
    pub(crate) fn scan_begins(&self) -> bool {
        std::mem::take(&mut self.lock().misses_something)
    }

    pub(crate) fn counts(&self) -> EventCounts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves whole values behind, a panicking one too.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn mark(&mut self, pid: u32, due: Instant) {
        if !self.marks.mark(pid, due) {
            self.counts.skipped += 1;
            self.misses_something = true;
        }
    }

    fn overflowed(&mut self) {
        self.counts.overflows += 1;
        self.misses_something = true;
    }
}

/// Half of a share of one processor, in microseconds per second.
const fn share_us(cpu_percent: u64) -> u64 {
    cpu_percent * 10_000 / 2
}

/// Starts reading events, or says why there are none.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    mode: Mode,
    lookout: &Arc<Lookout>,
    waker: &Waker,
    board: &Arc<Board>,
) -> std::io::Result<()> {
    if mode == Mode::Off {
        tracing::info!("Events are off in the configuration: the agent scans at intervals only.");
        return Ok(());
    }
    let reader = Reader {
        lookout: Arc::clone(lookout),
        waker: waker.clone(),
        board: Arc::clone(board),
    };
    // It ends with the process: nothing that it holds has to be put away.
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || reader.run())?;
    Ok(())
}

/// The thread that reads events.
struct Reader {
    lookout: Arc<Lookout>,
    waker: Waker,
    board: Arc<Board>,
}

impl Reader {
    fn run(self) {
        let reason = match Connector::listen(request_number()) {
            Ok(connector) => {
                tracing::info!(
                    "The kernel sends events: new programs are looked at within a second."
                );
                self.lookout.lock().counts.is_on = true;
                // What started before the first event is for a scan.
                let error = self.read_until_broken(&connector);
                self.lookout.lock().counts.is_on = false;
                connector::NoEvents::Io(error)
            }
            Err(reason) => reason,
        };
        let note = format!(
            "no events, so what lives shorter than the interval between scans is not seen: {reason}"
        );
        self.board.set_notes(Part::Events, vec![note]);
    }

    fn read_until_broken(&self, connector: &Connector) -> Errno {
        loop {
            match connector.wait(IDLE_WAIT) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return error,
            }
            thread::sleep(GATHER);
            let began_us = thread_cpu_micros();
            let read = self.read_all(connector);
            let used_us = thread_cpu_micros().saturating_sub(began_us);
            if let Err(error) = read {
                return error;
            }
            self.waker.wake(Wake::Look);
            thread::sleep(self.pay(used_us).min(DEBT_PAUSE_MAX));
        }
    }

    fn pay(&self, used_us: u64) -> Duration {
        let now = Instant::now();
        let mut state = self.lookout.lock();
        state.budget.charge(used_us, now);
        state.budget.wait(now)
    }

    /// Reads what waits, up to twice as much as fits into the socket.
    fn read_all(&self, connector: &Connector) -> Result<(), Errno> {
        let mut pids = Vec::with_capacity(CHUNK);
        for _ in 0..40 {
            pids.clear();
            let mut overflows = 0;
            let mut is_empty = false;
            while pids.len() < CHUNK && !is_empty {
                match connector.read()? {
                    Read::Event(Event::Changed { pid }) => pids.push(pid),
                    Read::Event(Event::Answer { .. }) => {}
                    Read::Overflow => overflows += 1,
                    Read::Nothing => is_empty = true,
                }
            }
            self.take_over(&pids, overflows);
            if is_empty {
                break;
            }
        }
        Ok(())
    }

    fn take_over(&self, pids: &[u32], overflows: u64) {
        let due = Instant::now() + SETTLE;
        let mut state = self.lookout.lock();
        state.counts.seen += pids.len() as u64;
        for &pid in pids {
            state.mark(pid, due);
        }
        for _ in 0..overflows {
            state.overflowed();
        }
    }
}

/// Tells the kernel's answer to this agent from answers to others.
fn request_number() -> u32 {
    getrandom::u32().unwrap_or_else(|_| std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_wait_for_their_time_and_for_the_budget() {
        let now = Instant::now();
        let lookout = Lookout::new(10, now);
        assert_eq!(lookout.next_look(now), None);
        lookout.mark(7, now + SETTLE);
        assert_eq!(lookout.next_look(now), Some(SETTLE));
        lookout.looked(1, 10_000_000, now);
        assert!(lookout.next_look(now).unwrap() > Duration::from_secs(60));
        assert_eq!(lookout.take_due(now + SETTLE, 9), [7]);
        assert_eq!(lookout.counts().looks, 1);
    }

    #[test]
    fn what_is_passed_over_is_counted_until_a_scan_begins() {
        let now = Instant::now();
        let lookout = Lookout::new(10, now);
        assert!(lookout.scan_begins() && !lookout.misses_something());
        for pid in 0..=marks::MARKS_MAX as u32 {
            lookout.mark(pid, now);
        }
        assert_eq!(lookout.counts().skipped, 1);
        assert!(lookout.misses_something());
        assert!(lookout.scan_begins());
        assert!(!lookout.misses_something());
        lookout.lock().overflowed();
        assert!(lookout.misses_something());
        assert_eq!(lookout.counts().overflows, 1);
    }
}
