//! Whether the kernel throws events away: an episode, not a moment.
//!
//! Pure. An episode begins with the first overflow and ends after a quiet
//! time, so that it is said once, however often the socket runs over.

use std::time::{Duration, Instant};

/// So long without an overflow ends an episode.
pub(super) const QUIET: Duration = Duration::from_secs(60);

/// The overflows of the socket.
#[derive(Debug, Default)]
pub(super) struct Losses {
    last: Option<Instant>,
}

impl Losses {
    /// Events were thrown away until now.
    pub(super) const fn note(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// Whether an episode goes on.
    pub(super) fn go_on(&self, now: Instant) -> bool {
        (self.last).is_some_and(|last| now.saturating_duration_since(last) < QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_lasts_until_it_was_quiet_for_long() {
        let begin = Instant::now();
        let mut losses = Losses::default();
        assert!(!losses.go_on(begin));
        losses.note(begin);
        let almost = begin + QUIET - Duration::from_secs(1);
        assert!(losses.go_on(begin) && losses.go_on(almost));
        losses.note(almost);
        assert!(losses.go_on(begin + QUIET));
        assert!(!losses.go_on(almost + QUIET));
    }
}
