//! Signals: stop (SIGTERM, SIGINT) and read the configuration again (SIGHUP).

use std::io;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use tokio::time::Instant;

/// Signals within this time are one wish: a terminal and a supervisor, or
/// timeout(1) with process and group, send two at once.
const TOGETHER: Duration = Duration::from_millis(500);

/// What the service manager or the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Stop,
    Reload,
}

/// Caught from the moment this is made: none is lost before it is asked for.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// The next signal that says stop.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }

    /// A second wish to stop, after the one that was just obeyed.
    pub(super) async fn stop_again(&mut self) {
        let first = Instant::now();
        while first.elapsed() < TOGETHER {
            self.stop().await;
        }
    }
}
