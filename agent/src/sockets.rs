//! Which process holds which socket.
//!
//! The tables of a network namespace are read once per scan, through the
//! first process met in it, so sockets in containers and cages are seen too.
//! Socket inodes are unique over all namespaces: a process that moved to an
//! empty namespace after it had opened a socket is found out all the same.
//! Promises: bounded tables, bounded walks; what could not be read or lay
//! beyond a bound is said. Never judges a socket.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use procwarden_common::process::{Protocol, Socket};
use rustix::fs::{Mode, OFlags};

use crate::procfs::parse::bracketed_inode;
use crate::procfs::{Failed, ProcRoot, ProcessDir, each_entry, read_link};

mod parse;

/// Descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 100_000;
/// Sockets of one table that are kept.
const TABLE_SOCKETS_MAX: usize = 500_000;
/// Bytes of one line; the kernel's are about 150.
const LINE_BYTES_MAX: u64 = 1024;
/// Sockets of one process that are kept for the detectors.
const PROCESS_SOCKETS_MAX: usize = 4096;
/// Opening, listing and closing the descriptors of one process.
const CALLS_SKIPPED_PER_WALK: u64 = 4;
/// Stands for the namespace of a process in a tree that shows none.
const NO_NAMESPACE: u64 = 0;

/// The socket tables of a scan, of every network namespace met so far.
#[derive(Default)]
pub(crate) struct SocketTables {
    by_inode: HashMap<u64, Socket>,
    namespaces: HashSet<u64>,
    /// Reads that failed although the process was there.
    pub(crate) errors: u64,
    /// System calls that were not needed.
    pub(crate) skipped: u64,
}

/// The sockets among the descriptors of a process, by inode.
pub(crate) struct Held {
    inodes: Vec<u64>,
    complete: bool,
}

impl SocketTables {
    /// A process whose descriptors need no look.
    pub(crate) const fn skip(&mut self) {
        self.skipped += CALLS_SKIPPED_PER_WALK;
    }

    /// Walks the descriptors of a process, and reads the tables of its
    /// namespace if it is the first one met there.
    ///
    /// # Errors
    /// When its descriptors or those tables cannot be read.
    pub(crate) fn held_by(&mut self, dir: &ProcessDir) -> Result<Held, Failed> {
        let descriptors = dir.open("fd", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let namespace = match read_link(&descriptors, "../ns/net") {
            Ok(link) => bracketed_inode(&link, b"net").ok_or(Failed::Refused)?,
            Err(Failed::Vanished) => NO_NAMESPACE,
            Err(Failed::Refused) => return Err(Failed::Refused),
        };
        self.add_namespace(namespace, dir)?;
        self.walk(&descriptors)
    }

    /// Adds the agent's own namespace: a process can hold a socket of it and
    /// have left it.
    pub(crate) fn add_own_namespace(&mut self, root: &ProcRoot) {
        let Some(dir) = root.own_pid().and_then(|pid| root.process(pid).ok()) else {
            return;
        };
        let link = dir.link("ns/net").ok();
        let namespace = link.and_then(|link| bracketed_inode(&link, b"net"));
        if let Some(namespace) = namespace
            && self.add_namespace(namespace, &dir).is_err()
        {
            self.errors += 1;
        }
    }

    /// The sockets behind what a process holds, and whether these are all.
    /// To be asked once every process has been walked.
    pub(crate) fn resolve(&self, held: &Held) -> (Vec<Socket>, bool) {
        let found = held
            .inodes
            .iter()
            .filter_map(|inode| self.by_inode.get(inode));
        let mut sockets: Vec<Socket> = found.take(PROCESS_SOCKETS_MAX + 1).cloned().collect();
        let all = sockets.len() <= PROCESS_SOCKETS_MAX;
        sockets.truncate(PROCESS_SOCKETS_MAX);
        (sockets, held.complete && all)
    }

    fn walk(&mut self, descriptors: &OwnedFd) -> Result<Held, Failed> {
        let mut inodes = Vec::new();
        let mut refused = 0;
        let more = each_entry(descriptors, DESCRIPTORS_MAX, |name| {
            match read_link(descriptors, name) {
                Ok(link) => inodes.extend(bracketed_inode(&link, b"socket")),
                Err(Failed::Vanished) => {}
                Err(Failed::Refused) => refused += 1,
            }
            true
        })?;
        // The same socket under several descriptors is one socket.
        inodes.sort_unstable();
        inodes.dedup();
        self.errors += refused + u64::from(more);
        let complete = refused == 0 && !more;
        Ok(Held { inodes, complete })
    }

    /// Reads every table of a namespace, through a process in it.
    fn add_namespace(&mut self, namespace: u64, dir: &ProcessDir) -> Result<(), Failed> {
        if self.namespaces.contains(&namespace) {
            return Ok(());
        }
        let net = dir.open("net", OFlags::PATH | OFlags::DIRECTORY)?;
        let mut any = false;
        for (protocol, name) in Protocol::ALL {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&net, name, flags, Mode::empty());
            match opened.map_err(Failed::from) {
                Ok(fd) => {
                    any = true;
                    let read = read_table(std::fs::File::from(fd), protocol, &mut self.by_inode);
                    self.errors += u64::from(read.is_err());
                }
                // A kernel without IPv6 or packet sockets has no such file.
                Err(Failed::Vanished) => {}
                Err(Failed::Refused) => self.errors += 1,
            }
        }
        if !any {
            // Not marked as read: the next process met there may be luckier.
            return Err(Failed::Refused);
        }
        self.namespaces.insert(namespace);
        Ok(())
    }
}

fn read_table(
    file: impl Read,
    protocol: Protocol,
    table: &mut HashMap<u64, Socket>,
) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut line = Vec::new();
    let mut kept = 0;
    while kept < TABLE_SOCKETS_MAX {
        line.clear();
        if reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        if let Some((inode, socket)) = parse::line(protocol, &line) {
            table.insert(inode, socket);
            kept += 1;
        }
    }
    Err(std::io::Error::other(
        "the table has more sockets than are kept",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_line_does_not_hide_the_others() {
        let good = "0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 1000 0 4711 1";
        let text = format!("heading\n\u{fffd}\0 {}\n{good}\n", "x".repeat(5000));
        let mut table = HashMap::new();
        read_table(text.as_bytes(), Protocol::Tcp, &mut table).unwrap();
        assert_eq!(table.keys().collect::<Vec<_>>(), [&4711]);
    }
}
