//! Whether the agent's loops still get anywhere: what its watchdog asks.
//!
//! Pure but for the lock. A loop says by when it will be heard of again, or
//! that it waits for nothing but work; one that is late is stuck.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    scanner: Option<Instant>,
    uplink: Option<Instant>,
}

impl Progress {
    /// The loop works, and will be heard of again by `due`.
    pub(crate) fn works(&self, which: Loop, due: Instant) {
        *Self::place(&mut self.lock(), which) = Some(due);
    }

    /// The loop waits for work, which may take any time to come.
    pub(crate) fn rests(&self, which: Loop) {
        *Self::place(&mut self.lock(), which) = None;
    }

    /// A loop that should have been heard of.
    pub(crate) fn stuck(&self, now: Instant) -> Option<Loop> {
        let due = self.lock();
        let is_late = |due: Option<Instant>| due.is_some_and(|due| due < now);
        if is_late(due.scanner) {
            Some(Loop::Scanner)
        } else {
            is_late(due.uplink).then_some(Loop::Uplink)
        }
    }

    const fn place(due: &mut Due, which: Loop) -> &mut Option<Instant> {
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
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let progress = Progress::default();
        assert_eq!(progress.stuck(later), None);
        progress.works(Loop::Uplink, later);
        assert_eq!(progress.stuck(later), None);
        let too_late = later + Duration::from_secs(1);
        assert_eq!(progress.stuck(too_late), Some(Loop::Uplink));
        progress.works(Loop::Scanner, now);
        assert_eq!(progress.stuck(too_late), Some(Loop::Scanner));
        progress.rests(Loop::Scanner);
        progress.works(Loop::Uplink, too_late);
        assert_eq!(progress.stuck(too_late), None);
    }
}
