//! What is known of a process from earlier scans, and when it is read again.
//!
//! Every scan glances at every process: name, parent, state, memory, terminal
//! and effective uid are never older than the scan, but for a process that
//! gives up root later than a minute after its start and cannot be traced then:
//! its uid is seen by an event or on its turn. A process is read whole,
//! arguments and executable included, when
//!
//! - it is new, or its PID belongs to another process now;
//! - name, uid or memory layout changed: it runs another program, or might;
//! - its executable was not a live file, or something of it was missing;
//! - the scan before saw something that this one has to confirm;
//! - it is its turn: every process once within [`SCANS_PER_TURN`] scans.
//!
//! So arguments that a process rewrote in place, an executable that was
//! deleted or replaced, and a program that was started over the former one
//! with the same name at the same addresses are seen after that many scans at
//! the latest. Whoever is read whole for what is known already is spared the
//! glance. Pure: decides, and reads nothing.

use std::collections::HashSet;
use std::sync::Arc;

use procwarden_common::process::{ExeState, Process, ProcessKey, Reading, Socket};

use crate::procfs::parse::Layout;
use crate::procfs::process::{Opened, is_ending, is_seen_through_a_thread};
use crate::procfs::{Glance, ProcessDir};
use crate::sockets::Holding;

/// Within so many scans every process is read whole once.
pub(crate) const SCANS_PER_TURN: u64 = 8;

/// A process that an earlier scan, or look, has read.
pub(super) struct Known {
    pub(super) process: Arc<Process>,
    pub(super) threads: u64,
    /// Sockets, as far as they were looked for.
    pub(super) holding: Holding,
    /// A detector wants to know them.
    pub(super) wants_sockets: bool,
    /// It was listed but could not be read the last time.
    pub(super) is_unread: bool,
    /// Its directory, from where it was read to where its descriptors are
    /// walked in the same scan; nothing between two scans.
    pub(super) dir: Option<ProcessDir>,
    layout: Layout,
}

impl Known {
    /// What was read just now, and what was known of the same process.
    pub(super) fn new(opened: Opened, before: Option<Self>, wants_sockets: bool) -> Self {
        let before = before.filter(|before| before.key() == opened.process.key);
        let mut holding = before.map(|before| before.holding).unwrap_or_default();
        if wants_sockets {
            holding.set_namespace_of(&opened.dir);
        }
        Self {
            process: Arc::new(opened.process),
            threads: opened.threads,
            holding,
            wants_sockets,
            is_unread: false,
            dir: wants_sockets.then_some(opened.dir),
            layout: opened.layout,
        }
    }

    /// Whether its descriptors are about to be walked, as far as is known
    /// before the sockets are.
    pub(super) fn expects_walk(&self, scan: u64) -> bool {
        self.wants_sockets && self.holding.expects_walk(self.pid(), scan)
    }

    /// It is still there, but cannot be read.
    pub(super) fn unread(self) -> Self {
        Self {
            is_unread: true,
            ..self
        }
    }

    /// The sockets as they are now; nothing is copied when they are the same.
    pub(super) fn set_sockets(&mut self, sockets: Vec<Socket>, unreadable: bool) {
        if self.process.sockets != sockets || self.process.sockets_unreadable != unreadable {
            let process = Arc::make_mut(&mut self.process);
            (process.sockets, process.sockets_unreadable) = (sockets, unreadable);
        }
    }

    pub(super) fn key(&self) -> ProcessKey {
        self.process.key
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.key.pid
    }

    /// Whether a glance shows the process that is known.
    pub(super) fn is_same(&self, glance: &Glance) -> bool {
        glance.stat.start_time == self.process.key.start_time
    }

    /// Whether it has to be read whole in this scan, whatever a glance shows.
    pub(super) fn is_due(&self, scan: u64, waiting: &HashSet<ProcessKey>) -> bool {
        let process = &self.process;
        if self.is_unread {
            return true;
        }
        // These have nothing to read.
        if process.kernel_thread || is_ending(process) {
            return false;
        }
        is_turn(process.key.pid, scan, SCANS_PER_TURN)
            || has_gaps(process)
            || waiting.contains(&process.key)
    }

    /// Whether it has to be read whole because of what a glance shows.
    pub(super) fn is_changed(&self, glance: &Glance) -> bool {
        let (process, stat) = (&self.process, &glance.stat);
        if is_seen_through_a_thread(stat) {
            return true;
        }
        if process.kernel_thread || stat.is_ending() {
            return stat.is_kernel_thread() != process.kernel_thread;
        }
        is_ending(process)
            || process.comm != stat.comm
            || self.layout != stat.layout
            || glance.uid.is_some_and(|uid| uid != process.uid)
    }
}

/// Whether a process is due in this scan when each is once in `scans`.
pub(crate) fn is_turn(pid: u32, scan: u64, scans: u64) -> bool {
    (u64::from(pid) + scan).is_multiple_of(scans)
}

/// Nothing that can change by itself is missing. What is refused stays so
/// until its turn.
fn has_gaps(process: &Process) -> bool {
    let exe = match &process.exe {
        Reading::Value(exe) => exe.state != ExeState::Live,
        Reading::Absent => true,
        Reading::Unreadable => false,
    };
    let cmdline = match &process.cmdline {
        Reading::Value(cmdline) => cmdline.raw.is_empty(),
        Reading::Absent => true,
        Reading::Unreadable => false,
    };
    exe || cmdline
}
