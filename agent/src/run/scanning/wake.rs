//! Wakes the scanner's thread.
//!
//! Promises: no wish is lost, and each kind waits at most once. A collector
//! that asks for a scan a million times is asking for one scan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Why the thread is woken before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody wants a scan.
    ScanNow,
    /// The interval, or the share of a processor, may be another one.
    PaceChanged,
    /// Processes are marked for a look.
    Look,
    /// The agent stops.
    Stop,
}

/// Which kinds wait to be received.
#[derive(Debug, Default)]
struct Waiting {
    scan_now: AtomicBool,
    pace_changed: AtomicBool,
    look: AtomicBool,
    stop: AtomicBool,
}

impl Waiting {
    const fn of(&self, wake: Wake) -> &AtomicBool {
        match wake {
            Wake::ScanNow => &self.scan_now,
            Wake::PaceChanged => &self.pace_changed,
            Wake::Look => &self.look,
            Wake::Stop => &self.stop,
        }
    }
}

/// Wakes the thread.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    wakes: Sender<Wake>,
    waiting: Arc<Waiting>,
}

/// What the thread waits for.
#[derive(Debug)]
pub(crate) struct Wakes {
    wakes: Receiver<Wake>,
    waiting: Arc<Waiting>,
}

/// A pair of waker and what it wakes.
pub(crate) fn waker() -> (Waker, Wakes) {
    let (sender, wakes) = channel();
    let waiting = Arc::new(Waiting::default());
    let waker = Waker {
        wakes: sender,
        waiting: Arc::clone(&waiting),
    };
    (waker, Wakes { wakes, waiting })
}

impl Waker {
    pub(crate) fn wake(&self, wake: Wake) {
        if self.waiting.of(wake).swap(true, Ordering::AcqRel) {
            return;
        }
        if self.wakes.send(wake).is_err() {
            tracing::debug!(?wake, "The scanner has stopped already.");
        }
    }
}

impl Wakes {
    /// The next wish, if one comes in time.
    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<Wake, RecvTimeoutError> {
        let wake = self.wakes.recv_timeout(timeout)?;
        self.waiting.of(wake).store(false, Ordering::Release);
        Ok(wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_waits_is_not_repeated_and_none_is_lost() {
        let (waker, wakes) = waker();
        for _ in 0..1000 {
            waker.wake(Wake::ScanNow);
            waker.wake(Wake::PaceChanged);
        }
        waker.wake(Wake::Stop);
        let received = || wakes.recv_timeout(Duration::ZERO);
        assert_eq!(received(), Ok(Wake::ScanNow));
        waker.wake(Wake::ScanNow);
        for wake in [Wake::PaceChanged, Wake::Stop, Wake::ScanNow] {
            assert_eq!(received(), Ok(wake));
        }
        assert_eq!(received(), Err(RecvTimeoutError::Timeout));
    }
}
