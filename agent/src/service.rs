//! What the agent says to the service manager: that it is ready, that it
//! stops, and, while its loops get anywhere, that it lives.
//!
//! Promises: without a service manager nothing happens; one that cannot be
//! reached is no reason to stop.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::health::{Board, Part};

/// How often the agent looks around when no watchdog wants it more often.
const LOOK_AROUND: Duration = Duration::from_secs(15);

/// A scanner that is not heard of for this many intervals is said to be stuck,
/// long before the watchdog bites.
const SILENT_INTERVALS: u32 = 2;
/// However short the interval, a scan may take this long.
const SILENCE_MIN: Duration = Duration::from_secs(30);

/// The watchdog of the service manager.
#[derive(Debug)]
pub(crate) struct Watchdog {
    is_wanted: bool,
    /// How often to call [`Watchdog::feed`].
    pub(crate) interval: Duration,
    was_stuck: bool,
}

impl Watchdog {
    /// As the service manager asks for it in the environment.
    pub(crate) fn of_environment() -> Self {
        let wanted = sd_notify::watchdog_enabled();
        Self {
            is_wanted: wanted.is_some(),
            interval: wanted.map_or(LOOK_AROUND, interval),
            was_stuck: false,
        }
    }

    /// Feeds it, unless a loop is stuck: then it shall bite. A scanner that
    /// gets nowhere is a note before.
    pub(crate) fn feed(&mut self, board: &Board, now: Instant) {
        note_silence(board, now);
        let stuck = board.progress.stuck(now);
        if let Some(which) = stuck.filter(|_| !self.was_stuck) {
            tracing::error!(?which, "A part of the agent gets nowhere.");
        }
        self.was_stuck = stuck.is_some();
        if self.is_wanted && stuck.is_none() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Says in the host's status that the scanner gets nowhere. It cannot itself.
fn note_silence(board: &Board, now: Instant) {
    let silence_max = (board.scan_interval() * SILENT_INTERVALS).max(SILENCE_MIN);
    let is_silent = (board.progress.scanner_busy(now)).is_some_and(|busy| busy > silence_max);
    let note = "the scanner gets nowhere since more than two intervals between scans: nothing new \
                is found";
    let notes = is_silent.then(|| note.to_owned()).into_iter().collect();
    board.set_notes(Part::Scanner, notes);
}

/// Three times within the timeout, and no less often than the agent looks
/// around anyhow.
fn interval(timeout: Duration) -> Duration {
    (timeout / 3).clamp(Duration::from_millis(100), LOOK_AROUND)
}

/// Everything runs.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent was told to stop.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "The service manager cannot be told.");
    }
}

#[cfg(test)]
mod tests;
