//! Switches events on and off while the agent runs.
//!
//! Promises: whoever waits on it is woken by every turn, also by one to where
//! it stands, and no turn is lost. Never waits itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::Mode;

/// The switch.
#[derive(Debug)]
pub(crate) struct Switch {
    is_on: AtomicBool,
    /// Can be read once it was turned.
    turned: OwnedFd,
}

impl Switch {
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn new(mode: Mode) -> anyhow::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            is_on: AtomicBool::new(mode == Mode::Auto),
            turned: eventfd(0, flags).context("cannot open the switch of events")?,
        })
    }

    /// Turns it, and wakes whoever waits.
    pub(crate) fn turn(&self, mode: Mode) {
        self.is_on.store(mode == Mode::Auto, Ordering::Release);
        // It fails only when it was turned 2^64 times without being looked at.
        if let Err(error) = rustix::io::write(&self.turned, &1_u64.to_ne_bytes()) {
            tracing::debug!(%error, "Nobody looks at the switch of events.");
        }
    }

    /// Where it stands; turns until now are seen.
    pub(super) fn look(&self) -> Mode {
        let mut turns = [0; size_of::<u64>()];
        // Before the look, so that a turn in between is seen the next time.
        let _none = rustix::io::read(&self.turned, &mut turns).is_err();
        self.mode()
    }

    /// Where it stands, with no turn taken for seen.
    pub(crate) fn mode(&self) -> Mode {
        if self.is_on.load(Ordering::Acquire) {
            Mode::Auto
        } else {
            Mode::Off
        }
    }

    /// Waits until it is turned, or was since it was looked at, and no longer
    /// than is said; whether it was.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Result<bool, Errno> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut turned = [PollFd::new(&self.turned, PollFlags::IN)];
        match poll(&mut turned, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Switch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.turned.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_turn_wakes_and_is_seen_once() {
        let switch = Arc::new(Switch::new(Mode::Off).unwrap());
        assert_eq!(switch.look(), Mode::Off);
        let turner = Arc::clone(&switch);
        let turning = std::thread::spawn(move || turner.turn(Mode::Auto));
        assert!(switch.wait(None).unwrap());
        assert_eq!(switch.look(), Mode::Auto);
        turning.join().unwrap();
        // Turned twice, the last word counts.
        switch.turn(Mode::Off);
        switch.turn(Mode::Auto);
        assert!(switch.wait(None).unwrap());
        assert_eq!(switch.look(), Mode::Auto);
        let mut turned = [PollFd::new(&*switch, PollFlags::IN)];
        // Nobody turns it: the wait ends by itself.
        assert!(!switch.wait(Some(Duration::from_millis(1))).unwrap());
        let nothing = poll(&mut turned, Some(&rustix::time::Timespec::default()));
        assert_eq!(nothing, Ok(0));
    }
}
