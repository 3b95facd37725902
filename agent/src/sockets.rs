//! Which process holds which socket.
//!
//! The sockets of a network namespace are asked for once per scan: those of
//! the agent's own through sock_diag (diag.rs), those of others, and what
//! sock_diag does not show, through `/proc/PID/net` of the first process met
//! there, so sockets in containers and cages are seen too. Socket inodes are
//! unique over all namespaces: a process that moved to an empty namespace
//! after it had opened a socket is found out all the same.
//! Promises: bounded tables (table.rs), bounded walks, bounded time for the
//! namespaces of others (namespaces.rs); what could not be read or lay beyond a
//! bound is said. Never judges a socket; whose descriptors are
//! walked is decided in attribution.rs. Namespaces are read in reading.rs,
//! descriptors in held.rs.

use std::collections::HashSet;
use std::sync::Arc;

use procwarden_common::process::Socket;

mod attribution;
mod diag;
mod held;
mod namespaces;
mod packet;
mod parse;
mod reading;
mod sctp;
mod table;
mod threads;
mod unheld;

pub(crate) use attribution::{Attribution, Candidate, Holding};
pub(crate) use held::Held;
use held::{
    DESCRIPTORS_MAX, DESCRIPTORS_MIN, LOOK_DESCRIPTORS_MAX, LOOK_DESCRIPTORS_MIN,
    SCAN_DESCRIPTORS_MAX,
};
pub(crate) use namespaces::Known;
use namespaces::Namespaces;
use reading::namespace_of;
use table::{SOCKETS_MAX, Table};

/// Opening, listing and closing the descriptors of one process, and finding
/// out its namespace; the descriptors themselves come on top.
const CALLS_SKIPPED_PER_WALK: u64 = 5;

/// The socket tables of a scan, of every network namespace met so far.
pub(crate) struct SocketTables {
    table: Table,
    /// Those whose sockets are in the table.
    namespaces: HashSet<u64>,
    others: Namespaces,
    descriptors_left: usize,
    /// Of each further process, once none are left.
    descriptors_min: usize,
    /// sock_diag cannot be asked.
    is_refused: bool,
    /// Tables that sock_diag does not stand in for on this kernel.
    unanswered: Vec<&'static str>,
    /// What else is to be said about them.
    more_notes: Vec<String>,
    /// Reads that failed although the process was there.
    pub(crate) errors: u64,
    /// System calls that were not needed.
    pub(crate) skipped: u64,
}

/// A socket, and the account that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    socket: Socket,
    uid: u32,
}

impl SocketTables {
    /// For a scan that knows what the one before it found in the namespaces of
    /// others.
    pub(crate) fn for_scan(known: Arc<Known>, scan: u64) -> Self {
        Self::new(Namespaces::for_scan(known, scan))
    }

    /// For a look between two scans.
    pub(crate) fn for_look(known: Arc<Known>) -> Self {
        Self {
            descriptors_left: LOOK_DESCRIPTORS_MAX,
            descriptors_min: LOOK_DESCRIPTORS_MIN,
            ..Self::new(Namespaces::for_look(known))
        }
    }

    /// For evidence about what a scan has just seen.
    pub(crate) fn for_evidence(known: Arc<Known>) -> Self {
        Self::new(Namespaces::for_evidence(known))
    }

    fn new(others: Namespaces) -> Self {
        Self {
            table: Table::default(),
            namespaces: HashSet::new(),
            others,
            descriptors_left: SCAN_DESCRIPTORS_MAX,
            descriptors_min: DESCRIPTORS_MIN,
            is_refused: false,
            unanswered: Vec::new(),
            more_notes: Vec::new(),
            errors: 0,
            skipped: 0,
        }
    }

    /// What the next scan is to know.
    fn known(&self) -> Arc<Known> {
        self.others.known(&self.table)
    }

    /// What is wrong with them, in words.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.more_notes.clone();
        if self.table.is_full() {
            notes.push(format!(
                "there is no room for more than {SOCKETS_MAX} sockets, of one account for half as many: some are not seen"
            ));
        }
        if self.is_refused {
            notes.push(
                "the kernel's sock_diag cannot be asked: sockets are read from /proc/net, which costs more"
                    .to_owned(),
            );
        }
        notes.extend(self.others.notes());
        notes
    }

    /// A process whose descriptors need no look.
    pub(crate) const fn skip(&mut self) {
        self.skipped += CALLS_SKIPPED_PER_WALK;
    }
}
