//! Child processes for live tests: harmless, and ended with their test.

use std::io::ErrorKind;
use std::process::{Child, Command};

/// A running child.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program and waits until it shows its arguments.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = loop {
            match command.spawn() {
                Ok(child) => break Self(child),
                // A test on another thread forked while this program's file
                // was being written, and has not reached its own exec yet.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("cannot start {command:?}: {error}"),
            }
        };
        // spawn can return before the kernel has put the arguments in place.
        let cmdline = format!("/proc/{}/cmdline", child.pid());
        while std::fs::read(&cmdline).unwrap().is_empty() {
            std::thread::yield_now();
        }
        child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself: neither failure matters.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
