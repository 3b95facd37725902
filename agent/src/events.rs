//! Events of the kernel: which processes executed, renamed or changed
//! themselves a moment ago. They mark processes for a look between two scans;
//! scans go on all the same and remain what finds everything.
//!
//! Promises: without events (no permission, no kernel support, a container)
//! the agent works as before and says why in its status. Reading and looking
//! together stay within half of the agent's share of a processor, and each has
//! a part of its own: a process that does nothing but to make events takes no
//! looks away. Whatever is too much is passed over, counted, and left to a scan
//! that comes soon.
//! Never: believes an event. What a process is, /proc says.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod budget;
mod connector;
mod losses;
mod marks;
mod message;
mod reader;
mod retry;
mod switch;

use budget::Budget;
use losses::Losses;
use marks::Marks;
pub(crate) use reader::start;
pub(crate) use switch::Switch;

/// What is in debt for longer comes too late for what it is about: a scan is
/// to find it.
const DEBT_MAX: Duration = Duration::from_secs(1);

/// Of what events may cost, reading them may: a hundredth of a look each.
const READING_PERCENT: u64 = 20;

/// Whether to ask for events: `[events] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// Wherever the kernel has them.
    #[default]
    Auto,
    /// Never.
    Off,
}

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
    /// For looks, with the evidence that they gather.
    looking: Budget,
    /// For reading events.
    reading: Budget,
    counts: EventCounts,
    /// Whether the kernel throws events away.
    losses: Losses,
    /// Something was passed over since the last scan began.
    misses_something: bool,
}

impl Lookout {
    /// `cpu_percent` is the agent's share of one processor; half of it is for
    /// events.
    pub(crate) fn new(cpu_percent: u64, now: Instant) -> Self {
        let [looking, reading] = shares_us(cpu_percent);
        let state = State {
            marks: Marks::default(),
            looking: Budget::new(looking, now),
            reading: Budget::new(reading, now),
            counts: EventCounts::default(),
            losses: Losses::default(),
            misses_something: true,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Gives events another share of one processor.
    pub(crate) fn set_share(&self, cpu_percent: u64, now: Instant) {
        let [looking, reading] = shares_us(cpu_percent);
        let mut state = self.lock();
        state.looking.set_rate(looking, now);
        state.reading.set_rate(reading, now);
    }

    /// How long until there is something to look at that may be looked at;
    /// nothing while no process is marked.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let due = state.marks.next_due()?;
        Some(
            due.saturating_duration_since(now)
                .max(state.looking.wait(now)),
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

    /// Processor time that the evidence of a look may take: what the looks
    /// before it left. Whoever is dear to look at in full is reported with less
    /// evidence first, and keeps nobody behind waiting.
    pub(crate) fn evidence_left(&self, now: Instant) -> Duration {
        self.lock().looking.left(now)
    }

    /// Takes over what looks cost: processes, and processor time.
    pub(crate) fn looked(&self, looks: u64, used_us: u64, now: Instant) {
        let mut state = self.lock();
        state.counts.looks += looks;
        state.looking.charge(used_us, now);
        state.misses_something |= state.looking.wait(now) > DEBT_MAX;
    }

    /// Takes over what reading events cost; how long to read no more.
    fn was_read(&self, used_us: u64, now: Instant) -> Duration {
        let mut state = self.lock();
        state.reading.charge(used_us, now);
        let wait = state.reading.wait(now);
        state.misses_something |= wait > DEBT_MAX;
        wait
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

    /// Whether the kernel throws events away, or did a moment ago.
    fn loses_events(&self, now: Instant) -> bool {
        self.lock().losses.go_on(now)
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

    fn overflowed(&mut self, now: Instant) {
        self.counts.overflows += 1;
        self.losses.note(now);
        self.misses_something = true;
    }
}

/// Half of a share of one processor, for looking and for reading, in
/// microseconds per second.
const fn shares_us(cpu_percent: u64) -> [u64; 2] {
    let half = cpu_percent * 10_000 / 2;
    let reading = half * READING_PERCENT / 100;
    [half - reading, reading]
}

#[cfg(test)]
mod tests {
    use super::reader::SETTLE;
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
        lookout.lock().overflowed(now);
        assert!(lookout.misses_something());
        assert_eq!(lookout.counts().overflows, 1);
        assert!(lookout.loses_events(now) && !lookout.loses_events(now + losses::QUIET));
    }

    #[test]
    fn a_larger_share_pays_debts_sooner() {
        let now = Instant::now();
        let lookout = Lookout::new(10, now);
        lookout.mark(7, now);
        lookout.looked(1, 960_000, now);
        assert_eq!(lookout.next_look(now), Some(Duration::from_secs(20)));
        lookout.set_share(100, now);
        assert_eq!(lookout.next_look(now), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_flood_of_events_takes_no_looks_away_and_brings_a_scan() {
        let now = Instant::now();
        let lookout = Lookout::new(10, now);
        lookout.scan_begins();
        lookout.mark(7, now);
        assert_eq!(lookout.was_read(45_000, now), Duration::from_millis(500));
        assert!(!lookout.misses_something());
        assert_eq!(lookout.was_read(10_000, now), Duration::from_millis(1500));
        assert!(lookout.misses_something());
        assert_eq!(lookout.next_look(now), Some(Duration::ZERO));
    }

    #[test]
    fn looks_in_debt_leave_the_rest_to_a_scan() {
        let now = Instant::now();
        let lookout = Lookout::new(10, now);
        lookout.scan_begins();
        lookout.looked(1, 200_000, now);
        assert!(!lookout.misses_something());
        lookout.looked(1, 1000, now);
        assert!(lookout.misses_something());
    }
}
