//! When the kernel is asked for events, and asked again. Pure: where the
//! switch stands, times and failures in, what to do out.
//!
//! Promises: a turn of the switch is followed at once; what failed is tried
//! again after a pause, never sooner by itself, and for ever. That events are
//! off is said once per time that they are.

use std::time::{Duration, Instant};

use super::Mode;

/// Where there are no events, or none any more, the agent tries again after
/// this long: memory is short for a while only.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(180);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the kernel for events.
    Ask,
    /// Rest until the switch is turned, or for as long as is said.
    Rest(Option<Duration>),
    /// As [`Step::Rest`] without an end, and say that events are off.
    RestOff,
}

/// What is remembered from one step to the next.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// After a failure: not before.
    not_before: Option<Instant>,
    is_off_said: bool,
}

impl Retry {
    /// The next step.
    pub(super) fn step(&mut self, mode: Mode, now: Instant) -> Step {
        if mode == Mode::Off {
            self.not_before = None;
            if std::mem::replace(&mut self.is_off_said, true) {
                return Step::Rest(None);
            }
            return Step::RestOff;
        }
        self.is_off_said = false;
        let not_before = self.not_before.unwrap_or(now);
        match not_before.saturating_duration_since(now) {
            Duration::ZERO => Step::Ask,
            pause => Step::Rest(Some(pause)),
        }
    }

    /// The kernel refused, or a stream of events broke.
    pub(super) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + RETRY_PAUSE);
    }

    /// The switch was turned, if only to where it stood.
    pub(super) fn turned(&mut self) {
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_after_the_pause_and_whoever_wakes_it_before_changes_nothing() {
        let begin = Instant::now();
        let mut retry = Retry::default();
        assert_eq!(retry.step(Mode::Auto, begin), Step::Ask);
        for round in 0..3 {
            let now = begin + RETRY_PAUSE * round;
            retry.failed(now);
            assert_eq!(retry.step(Mode::Auto, now), Step::Rest(Some(RETRY_PAUSE)));
            let second = Duration::from_secs(1);
            let almost = now + RETRY_PAUSE - second;
            assert_eq!(retry.step(Mode::Auto, almost), Step::Rest(Some(second)));
            assert_eq!(retry.step(Mode::Auto, now + RETRY_PAUSE), Step::Ask);
        }
    }

    #[test]
    fn a_turn_is_followed_at_once_and_off_is_said_once() {
        let now = Instant::now();
        let mut retry = Retry::default();
        retry.failed(now);
        retry.turned();
        assert_eq!(retry.step(Mode::Auto, now), Step::Ask);
        retry.failed(now);
        assert_eq!(retry.step(Mode::Off, now), Step::RestOff);
        assert_eq!(retry.step(Mode::Off, now), Step::Rest(None));
        assert_eq!(retry.step(Mode::Auto, now), Step::Ask);
        assert_eq!(retry.step(Mode::Off, now), Step::RestOff);
    }
}
