//! The sockets that one process holds: its descriptors are walked, and those
//! of its sockets that tell most are kept.
//!
//! Promises: bounded walks, per process and per scan; what could not be read
//! or lay beyond a bound is counted.

use std::os::fd::OwnedFd;

use procwarden_common::process::{Socket, SocketState};
use rustix::fs::OFlags;

use super::{SocketTables, namespace_of};
use crate::procfs::parse::bracketed_inode;
use crate::procfs::{Failed, ProcRoot, ProcessDir, each_entry, read_link};

/// Descriptors of one process that are looked at.
pub(super) const DESCRIPTORS_MAX: usize = 100_000;
/// Descriptors of all processes of one scan: behind that many, only the first
/// of each further process. Copies of a descriptor cost their owner nothing.
pub(super) const SCAN_DESCRIPTORS_MAX: usize = 2_000_000;
pub(super) const DESCRIPTORS_MIN: usize = 1024;
/// The same for the processes of one look, and of each further one: hundreds
/// with hundreds each would keep everybody behind them waiting for minutes.
/// Scans see what lies beyond.
pub(super) const LOOK_DESCRIPTORS_MAX: usize = 2048;
pub(super) const LOOK_DESCRIPTORS_MIN: usize = 64;
/// Sockets of one process that are kept for the detectors, the telling ones
/// first: a thousand children can share a thousand sockets.
const PROCESS_SOCKETS_MAX: usize = 64;
/// Sockets of one process that are remembered.
const HELD_MAX: usize = 4096;

/// The sockets among the descriptors of a process, by inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(super) inodes: Vec<u64>,
    /// Those that single threads hold, as they were when last searched.
    pub(super) of_threads: Vec<u64>,
}

impl Held {
    pub(super) fn all(&self) -> impl Iterator<Item = u64> {
        self.inodes.iter().chain(&self.of_threads).copied()
    }
}

/// What one walk of descriptors found.
pub(super) struct Walked {
    /// Of sockets, each once.
    pub(super) inodes: Vec<u64>,
    pub(super) entries: usize,
    /// There are more than were looked at.
    pub(super) is_cut: bool,
}

impl SocketTables {
    /// Walks the descriptors of a process, and reads the tables of its
    /// namespace if it is the first one met there; tells the namespace too.
    ///
    /// # Errors
    /// When its descriptors or those tables cannot be read.
    pub(crate) fn held_by(&mut self, dir: &ProcessDir) -> Result<(Held, u64), Failed> {
        let descriptors = dir.open("fd", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let namespace = namespace_of(dir)?;
        self.add_namespace(namespace, dir)?;
        Ok((self.held_at(&descriptors)?, namespace))
    }

    /// The sockets of one process. Most programs
    /// begin without any: the tables, whose thousands of buckets the kernel
    /// would go through for each, are asked only about those that hold some.
    ///
    /// # Errors
    /// When its descriptors or those tables cannot be read.
    pub(crate) fn sockets_of(
        &mut self,
        root: &ProcRoot,
        dir: &ProcessDir,
    ) -> Result<Vec<Socket>, Failed> {
        let held = self.held_at(&dir.open("fd", OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        if !held.inodes.is_empty() {
            // The agent's own first: the kernel answers for it at once.
            self.add_own_namespace(root);
            self.add_namespace(namespace_of(dir)?, dir)?;
        }
        Ok(self.resolve(&held))
    }

    /// The sockets behind what a process holds, the telling ones where there
    /// are many. To be asked once every process has been walked.
    pub(crate) fn resolve(&self, held: &Held) -> Vec<Socket> {
        let found = held.all().filter_map(|inode| self.table.get(inode));
        let mut found: Vec<&Socket> = found.map(|entry| &entry.socket).collect();
        found.sort_unstable_by_key(|socket| (dullness(socket), *socket));
        let kept = found.into_iter().take(PROCESS_SOCKETS_MAX);
        kept.cloned().collect()
    }

    /// Drops what is no socket of the tables, and all beyond a bound.
    pub(super) fn tidy(&self, inodes: &mut Vec<u64>) {
        inodes.retain(|inode| self.table.contains(*inode));
        // The same socket under several descriptors is one socket.
        inodes.sort_unstable();
        inodes.dedup();
        inodes.truncate(HELD_MAX);
        inodes.shrink_to_fit();
    }

    /// Walks descriptors of a process, within what is left for the scan.
    fn held_at(&mut self, descriptors: &OwnedFd) -> Result<Held, Failed> {
        let entries_max = DESCRIPTORS_MAX.min(self.descriptors_left.max(self.descriptors_min));
        let walked = self.walk(descriptors, entries_max)?;
        self.descriptors_left = self.descriptors_left.saturating_sub(walked.entries);
        Ok(Held {
            inodes: walked.inodes,
            of_threads: Vec::new(),
        })
    }

    pub(super) fn walk(
        &mut self,
        descriptors: &OwnedFd,
        entries_max: usize,
    ) -> Result<Walked, Failed> {
        let mut inodes = Vec::new();
        let mut refused = 0;
        let mut entries = 0;
        let is_cut = each_entry(descriptors, entries_max, |name| {
            entries += 1;
            match read_link(descriptors, name) {
                Ok(link) => inodes.extend(bracketed_inode(&link, b"socket")),
                Err(Failed::Vanished) => {}
                Err(Failed::Refused) => refused += 1,
            }
            true
        })?;
        inodes.sort_unstable();
        inodes.dedup();
        self.errors += refused + u64::from(is_cut);
        Ok(Walked {
            inodes,
            entries,
            is_cut,
        })
    }
}

/// How little a socket tells: peers and listeners of the network come before
/// loopback, and what `skip_http` clears comes last.
fn dullness(socket: &Socket) -> (bool, bool) {
    let telling = match socket.state {
        SocketState::Listen => socket.local,
        _ => socket.remote.or(socket.local),
    };
    let is_loopback = telling.is_some_and(|address| address.ip().to_canonical().is_loopback());
    let is_web = socket
        .local
        .is_some_and(|address| matches!(address.port(), 80 | 443));
    (is_web, is_loopback)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use procwarden_common::process::Protocol;

    use super::*;
    use crate::sockets::Entry;

    fn fresh() -> SocketTables {
        SocketTables::for_scan(Arc::default(), 1)
    }

    fn of_alice(socket: Socket) -> Entry {
        Entry { socket, uid: 1000 }
    }

    #[test]
    fn tables_are_asked_only_about_a_process_that_holds_sockets() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let mut tables = fresh();
        let mut command = std::process::Command::new("/bin/sleep");
        command.arg("600").stdin(std::process::Stdio::null());
        let child = crate::procfs::live::Running::start(&mut command);
        let dir = root.process(child.pid()).unwrap();
        assert_eq!(tables.sockets_of(&root, &dir).unwrap(), Vec::new());
        assert!(tables.namespaces.is_empty());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = root.process(std::process::id()).unwrap();
        let sockets = tables.sockets_of(&root, &own).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(sockets.iter().any(|s| s.local == Some(address)));
        assert!(!tables.namespaces.is_empty());
    }

    #[test]
    fn a_look_sees_many_descriptors_of_the_first_processes_and_some_of_all() {
        let files: Vec<_> = (0..200)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let dir = root.process(std::process::id()).unwrap();
        let mut tables = SocketTables::for_look(Arc::default());
        let mut entries = || {
            let before = tables.descriptors_left;
            tables.sockets_of(&root, &dir).unwrap();
            before - tables.descriptors_left
        };
        assert!(entries() > files.len());
        tables.descriptors_left = 70;
        let mut entries = || {
            let errors = tables.errors;
            tables.sockets_of(&root, &dir).unwrap();
            tables.errors - errors
        };
        // Both are cut, the second one with nothing left.
        assert_eq!((entries(), entries()), (1, 1));
        assert_eq!(tables.descriptors_left, 0);
    }

    #[test]
    fn of_many_sockets_the_telling_ones_are_kept() {
        use crate::detect::sample::{connection, listener};
        let mut tables = fresh();
        for inode in 1..1000u16 {
            let dull = connection(Protocol::Tcp, "127.0.0.1:9", &format!("127.0.0.1:{inode}"));
            tables.table.insert(u64::from(inode), of_alice(dull));
        }
        let telling = [
            connection(Protocol::Tcp, "10.0.0.1:9", "203.0.113.1:22"),
            listener("0.0.0.0:39001"),
        ];
        for (inode, socket) in (1000..).zip(&telling) {
            tables.table.insert(inode, of_alice(socket.clone()));
        }
        let held = Held {
            inodes: (1..2000).collect(),
            of_threads: Vec::new(),
        };
        let sockets = tables.resolve(&held);
        assert_eq!(sockets.len(), PROCESS_SOCKETS_MAX);
        assert!(telling.iter().all(|socket| sockets.contains(socket)));
    }
}
