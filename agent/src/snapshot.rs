//! One pass over /proc as values: what detectors look at.
//!
//! Pure: filled in by scan/read.rs, never changed afterwards.

use std::collections::HashSet;

use procwarden_common::process::{Process, ProcessKey};

/// Every process of one pass.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// By PID.
    processes: Vec<Process>,
    /// Keys of those that were listed but could not be read this time.
    unread: HashSet<ProcessKey>,
}

impl Snapshot {
    /// Takes what was read.
    pub(crate) fn new(mut processes: Vec<Process>, unread: HashSet<ProcessKey>) -> Self {
        processes.sort_unstable_by_key(|process| process.key.pid);
        Self { processes, unread }
    }

    /// Every process that was read, by PID.
    pub(crate) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The process of a PID.
    pub(crate) fn of_pid(&self, pid: u32) -> Option<&Process> {
        let at = self
            .processes
            .binary_search_by_key(&pid, |process| process.key.pid)
            .ok()?;
        self.processes.get(at)
    }

    /// Every process that exists, as far as is known: one that could not be
    /// read has not ended.
    pub(crate) fn alive(&self) -> HashSet<ProcessKey> {
        self.processes
            .iter()
            .map(|process| process.key)
            .chain(self.unread.iter().copied())
            .collect()
    }
}
