//! Whether the agent's loops still get anywhere: what its watchdog asks.
//!
//! Pure but for the lock. A loop says by when it will be heard of again, or
//! that it waits for nothing but work; one that is late is stuck.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A loop that has to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    Scanner,
    Uplink,
}

/// By when each loop will be heard of.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    due: Mutex<Due>,
}

#[derive(Debug, Default)]
struct Due {
    scanner: Option<Work>,
    uplink: Option<Work>,
}

/// What a loop is at.
#[derive(Debug, Clone, Copy)]
struct Work {
    since: Instant,
    due: Instant,
}

impl Progress {
    /// The loop works from `now` on, and will be heard of again within `time`.
    pub(crate) fn works(&self, which: Loop, now: Instant, time: Duration) {
        let work = Work {
            since: now,
            due: now + time,
        };
        *Self::place(&mut self.lock(), which) = Some(work);
    }

    /// The loop waits for work, which may take any time to come.
    pub(crate) fn rests(&self, which: Loop) {
        *Self::place(&mut self.lock(), which) = None;
    }

    /// A loop that should have been heard of.
    pub(crate) fn stuck(&self, now: Instant) -> Option<Loop> {
        let due = self.lock();
        let is_late = |work: Option<Work>| work.is_some_and(|work| work.due < now);
        if is_late(due.scanner) {
            Some(Loop::Scanner)
        } else {
            is_late(due.uplink).then_some(Loop::Uplink)
        }
    }

    /// How long the scanner has been at what it does, since it was last heard
    /// of; nothing while it rests.
    pub(crate) fn scanner_busy(&self, now: Instant) -> Option<Duration> {
        let work = self.lock().scanner?;
        Some(now.saturating_duration_since(work.since))
    }

    const fn place(due: &mut Due, which: Loop) -> &mut Option<Work> {
        match which {
            Loop::Scanner => &mut due.scanner,
            Loop::Uplink => &mut due.uplink,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_is_late_is_stuck_and_whoever_rests_is_not() {
        let (now, time) = (Instant::now(), Duration::from_secs(9));
        let later = now + time;
        let progress = Progress::default();
        assert_eq!(progress.stuck(later), None);
        progress.works(Loop::Uplink, now, time);
        assert_eq!(progress.stuck(later), None);
        let too_late = later + Duration::from_secs(1);
        assert_eq!(progress.stuck(too_late), Some(Loop::Uplink));
        assert_eq!(progress.scanner_busy(too_late), None);
        progress.works(Loop::Scanner, now, Duration::ZERO);
        assert_eq!(progress.stuck(too_late), Some(Loop::Scanner));
        assert_eq!(progress.scanner_busy(later), Some(time));
        progress.rests(Loop::Scanner);
        progress.works(Loop::Uplink, later, time);
        assert_eq!(progress.stuck(too_late), None);
    }
}
