//! A child process that never outlives its test, and whose words are kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// A running program with its log on disk.
pub struct Guarded {
    child: Child,
    log: PathBuf,
}

impl Guarded {
    /// Starts `command`; standard error goes to the end of `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log);
        let stderr = file.unwrap_or_else(|e| panic!("cannot open {}: {e}", log.display()));
        let child = command.stderr(Stdio::from(stderr)).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// What it logged so far, over restarts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // A child that just ended cannot be signalled: that is no fault.
            let _ended = kill_process(pid, signal).is_err();
        }
    }

    /// Asks it to stop and waits until it did.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    /// Ends it the hard way.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        // Nothing but the kernel stands between the signal and the end.
        let ended = self.child.wait();
        ended.unwrap_or_else(|e| panic!("cannot wait for process {}: {e}", self.pid()));
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let pid = self.pid();
        eventually(&format!("the end of process {pid}"), || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(format!("it still runs; its log:\n{}", self.log())),
                Err(e) => Err(e.to_string()),
            }
        })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ended = self.child.kill().is_err();
            let _gone = self.child.wait().is_err();
        }
    }
}
