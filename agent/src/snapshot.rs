//! One pass over /proc as values: what detectors look at.
//!
//! Pure: filled in by scan/machine.rs, never changed afterwards. What did not
//! change since the pass before is shared with it, not copied.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use procwarden_common::process::{Process, ProcessKey};

use crate::procfs::Hung;

/// Every process of one pass.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// By PID.
    processes: Vec<Arc<Process>>,
    /// Keys of those that were listed but could not be read this time.
    unread: HashSet<ProcessKey>,
    /// Reads that hang.
    hung: HashMap<ProcessKey, Hung>,
}

impl Snapshot {
    /// Takes what was read.
    pub(crate) fn new(mut processes: Vec<Arc<Process>>, unread: HashSet<ProcessKey>) -> Self {
        processes.sort_unstable_by_key(|process| process.key.pid);
        Self {
            processes,
            unread,
            hung: HashMap::new(),
        }
    }

    /// The same, with what hangs.
    pub(crate) fn with_hung(self, hung: HashMap<ProcessKey, Hung>) -> Self {
        Self { hung, ..self }
    }

    /// Processes whose reading hangs.
    pub(crate) const fn hung(&self) -> &HashMap<ProcessKey, Hung> {
        &self.hung
    }

    /// Every process that was read, by PID.
    pub(crate) fn processes(&self) -> &[Arc<Process>] {
        &self.processes
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
