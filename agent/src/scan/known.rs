//! What is known of a process from earlier scans, and when it is read again.
//!
//! Every scan asks about every process. One that used no processor time since
//! it was looked at has done nothing (procfs/pulse.rs) and is passed over; at
//! every other there is a glance: name, parent, state, memory, terminal and
//! effective uid are never older than the scan, but for a process that
//! gives up root later than a minute after its start and cannot be traced then:
//! its uid is seen by an event or on its turn. A process is read whole,
//! arguments and executable included, when
//!
//! - it is new, or its PID belongs to another process now;
//! - name, uid or memory layout changed: it runs another program, or might;
//! - its executable was not a live file, something of it was missing, or it
//!   was not asked for its arguments (procfs/patience.rs);
//! - the scan before saw something that this one has to confirm;
//! - it is its turn: every process once within [`SCANS_PER_TURN`] scans. Of one
//!   that did nothing since it was read, only the link of its executable is,
//!   and the rest once within [`SCANS_PER_LONG_TURN`] scans.
//!
//! So arguments that a process rewrote in place, an executable that was
//! deleted or replaced, and a program that was started over the former one
//! with the same name at the same addresses are seen after the scans of a turn
//! at the latest. What others do to a process that does nothing itself, which
//! is to take its parent, its terminal and its memory away or to write into
//! that, is seen after those of a long turn. Whoever is read whole for what is
//! known already is spared the glance. Pure: decides, and reads nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use procwarden_common::process::{ExeState, Process, ProcessKey, Reading, Socket};

use crate::procfs::parse::Layout;
use crate::procfs::process::{Opened, is_ending, is_seen_through_a_thread};
use crate::procfs::{Glance, Place, ProcessDir};
use crate::sockets::Holding;

/// Within so many scans every process is read whole once.
pub(crate) const SCANS_PER_TURN: u64 = 8;
/// Within so many scans it is, even if it does nothing.
pub(crate) const SCANS_PER_LONG_TURN: u64 = 4 * SCANS_PER_TURN;

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
    /// What it had used when it was looked at.
    cpu_time: Option<Duration>,
    /// Of its directory in /proc.
    inode: Option<u64>,
    /// It may have done something since it was read whole.
    is_active: bool,
    /// It was not asked for its arguments.
    is_withheld: bool,
}

impl Known {
    /// What was read just now, and what was known of the same process. Its
    /// processor time was asked for before.
    pub(super) fn new(
        opened: Opened,
        before: Option<Self>,
        wants_sockets: bool,
        cpu_time: Option<Duration>,
    ) -> Self {
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
            cpu_time,
            inode: opened.inode,
            is_active: false,
            is_withheld: opened.is_withheld,
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
    pub(super) fn set_sockets(&mut self, sockets: Vec<Socket>) {
        if self.process.sockets != sockets {
            Arc::make_mut(&mut self.process).sockets = sockets;
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

    /// Whether it may have done nothing since it was looked at: it used no
    /// processor time. Then its place says whether it is the same process.
    pub(super) fn seems_still(&self, cpu_time: Option<Duration>) -> bool {
        cpu_time.is_some() && self.cpu_time == cpu_time
    }

    /// Whether a place shows the process that is known, as it was.
    pub(super) fn is_at(&self, place: Place) -> bool {
        self.inode == Some(place.inode) && self.process.uid == place.uid
    }

    /// Takes over what a glance showed of a process that goes on as it was.
    pub(super) fn glanced(
        &mut self,
        threads: u64,
        cpu_time: Option<Duration>,
        place: Option<Place>,
    ) {
        self.threads = threads;
        self.cpu_time = cpu_time;
        self.is_active = true;
        // The kernel forgets inodes when memory is short, and makes new ones.
        self.inode = place.map_or(self.inode, |place| Some(place.inode));
    }

    /// Whether it has to be read whole in this scan, whatever a glance shows.
    /// Still is one that did nothing since it was looked at.
    pub(super) fn is_due(&self, scan: u64, waiting: &HashSet<ProcessKey>, is_still: bool) -> bool {
        let process = &self.process;
        if self.is_unread {
            return true;
        }
        // These have nothing to read.
        if process.kernel_thread || is_ending(process) {
            return false;
        }
        let scans = if is_still && !self.is_active {
            SCANS_PER_LONG_TURN
        } else {
            SCANS_PER_TURN
        };
        is_turn(process.key.pid, scan, scans)
            || has_gaps(process)
            || self.is_withheld
            || waiting.contains(&process.key)
    }

    /// Whether a still process is asked for its executable in this scan.
    pub(super) fn shows_its_file(&self, scan: u64) -> bool {
        is_turn(self.pid(), scan, SCANS_PER_TURN) && self.process.exe.value().is_some()
    }

    /// Whether the link of its executable is what it was.
    pub(super) fn runs(&self, link: &[u8]) -> bool {
        self.process.exe.value().is_some_and(|exe| exe.link == link)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::detect::sample;
    use crate::procfs::ProcRoot;

    /// Known of process 8, which had used a second, with its directory.
    fn known() -> Known {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut process = sample::of_account(1000, b"alice");
        process.key.pid = 8;
        let opened = Opened {
            process,
            dir: root.process(std::process::id()).unwrap(),
            layout: [0; 6],
            threads: 1,
            inode: Some(4711),
            is_withheld: false,
        };
        Known::new(opened, None, false, Some(Duration::from_secs(1)))
    }

    #[test]
    fn still_is_who_used_no_time_and_is_where_it_was() {
        let known = known();
        let a_bit_later = Duration::new(1, 1);
        assert!(known.seems_still(Some(Duration::from_secs(1))));
        assert!(!known.seems_still(Some(a_bit_later)) && !known.seems_still(None));
        // Nothing is known of a time that could not be asked for.
        let unasked = Known {
            cpu_time: None,
            ..known
        };
        assert!(!unasked.seems_still(None));
        // Another process of the same PID, and another account.
        for (inode, uid, is_at) in [(4711, 1000, true), (4712, 1000, false), (4711, 0, false)] {
            assert_eq!(unasked.is_at(Place { inode, uid }), is_at);
        }
    }

    #[test]
    fn only_who_did_nothing_since_it_was_read_waits_for_the_long_turn() {
        let mut known = known();
        let waiting = HashSet::new();
        let due = |known: &Known, is_still| -> Vec<u64> {
            let scans = 0..SCANS_PER_LONG_TURN;
            let due = scans.filter(|scan| known.is_due(*scan, &waiting, is_still));
            due.collect()
        };
        assert_eq!(due(&known, true), [24]);
        assert_eq!(due(&known, false), [0, 8, 16, 24]);
        let asked = (0..16).filter(|scan| known.shows_its_file(*scan));
        assert_eq!(asked.collect::<Vec<_>>(), [0, 8]);
        known.glanced(1, Some(Duration::from_secs(2)), None);
        assert_eq!(due(&known, true), [0, 8, 16, 24]);
        known.is_withheld = true;
        assert_eq!(due(&known, true).len(), 32);
    }
}
