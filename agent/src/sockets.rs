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
//! walked is decided in attribution.rs.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procwarden_common::process::{Protocol, Socket, SocketState};
use rustix::fs::{Mode, OFlags};

use crate::procfs::parse::bracketed_inode;
use crate::procfs::{Failed, ProcRoot, ProcessDir, each_entry, read_link};

mod attribution;
mod diag;
mod namespaces;
mod packet;
mod parse;
mod sctp;
mod table;
mod threads;
mod unheld;

pub(crate) use attribution::{Attribution, Candidate, Holding};
pub(crate) use namespaces::Known;
use namespaces::Namespaces;
use table::{SOCKETS_MAX, Table};

/// Descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 100_000;
/// Descriptors of all processes of one scan: behind that many, only the first
/// of each further process. Copies of a descriptor cost their owner nothing.
const SCAN_DESCRIPTORS_MAX: usize = 2_000_000;
const DESCRIPTORS_MIN: usize = 1024;
/// Bytes of one line; the kernel's are about 150.
const LINE_BYTES_MAX: u64 = 1024;
/// Sockets of one process that are kept for the detectors, the telling ones
/// first: a thousand children can share a thousand sockets.
const PROCESS_SOCKETS_MAX: usize = 64;
/// Sockets of one process that are remembered.
const HELD_MAX: usize = 4096;
/// The files of `/proc/PID/net`, with what they are about. Those come first
/// that few sockets are about; those of SCTP hold both families.
const TABLES: [(Protocol, &str); 11] = [
    (Protocol::Packet, "packet"),
    (Protocol::Raw, "raw"),
    (Protocol::Raw6, "raw6"),
    (Protocol::Tcp, "tcp"),
    (Protocol::Tcp6, "tcp6"),
    (Protocol::Udp, "udp"),
    (Protocol::Udp6, "udp6"),
    (Protocol::Udp, "udplite"),
    (Protocol::Udp6, "udplite6"),
    (Protocol::Sctp, "sctp/eps"),
    (Protocol::Sctp, "sctp/assocs"),
];
/// Opening, listing and closing the descriptors of one process, and finding
/// out its namespace; the descriptors themselves come on top.
const CALLS_SKIPPED_PER_WALK: u64 = 5;
/// Sending a question, and hearing that there is nothing.
const CALLS_SKIPPED_PER_QUESTION: u64 = 2;
/// `sockstat` and `sockstat6` together have a dozen short lines.
const COUNTS_BYTES_MAX: usize = 4096;
/// The tables of the agent's own namespace are given up behind that much
/// where they are read from /proc; the kernel's answers take no such time.
const OWN_TIME_MAX: Duration = Duration::from_secs(5);
/// Stands for the namespace of a process in a tree that shows none.
const NO_NAMESPACE: u64 = 0;

/// The socket tables of a scan, of every network namespace met so far.
pub(crate) struct SocketTables {
    table: Table,
    /// Those whose sockets are in the table.
    namespaces: HashSet<u64>,
    others: Namespaces,
    descriptors_left: usize,
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

/// The sockets among the descriptors of a process, by inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    inodes: Vec<u64>,
    /// Those that single threads hold, as they were when last searched.
    of_threads: Vec<u64>,
}

impl Held {
    fn all(&self) -> impl Iterator<Item = u64> {
        self.inodes.iter().chain(&self.of_threads).copied()
    }
}

/// What one walk of descriptors found.
struct Walked {
    /// Of sockets, each once.
    inodes: Vec<u64>,
    entries: usize,
    /// There are more than were looked at.
    is_cut: bool,
}

impl SocketTables {
    /// For a scan that knows what the one before it found in the namespaces of
    /// others.
    pub(crate) fn for_scan(known: Arc<Known>, scan: u64) -> Self {
        Self::new(Namespaces::for_scan(known, scan))
    }

    /// For a look between two scans.
    pub(crate) fn for_look(known: Arc<Known>) -> Self {
        Self::new(Namespaces::for_look(known))
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

    /// Adds the agent's own namespace: a process can hold a socket of it and
    /// have left it.
    pub(crate) fn add_own_namespace(&mut self, root: &ProcRoot) {
        let Some(dir) = root.own_pid().and_then(|pid| root.process(pid).ok()) else {
            return;
        };
        let added = namespace_of(&dir).and_then(|namespace| {
            if self.namespaces.contains(&namespace) {
                return Ok(());
            }
            // In a copy of /proc the kernel's answer would be about others.
            let answered = root.is_genuine() && self.ask_kernel(&counts(&dir));
            let tables = TABLES.into_iter().filter(|(_, name)| {
                let is_asked = diag::QUESTIONS.iter().any(|q| q.table == *name);
                !(answered && is_asked) || self.unanswered.contains(name)
            });
            let tables: Vec<_> = tables.collect();
            let deadline = Instant::now() + OWN_TIME_MAX;
            let (any, _) = self.read_tables(&dir, &tables, deadline)?;
            if Instant::now() >= deadline {
                let note = "the sockets in /proc/net take too long to read: some are not seen";
                self.more_notes.push(note.to_owned());
            }
            self.end_namespace(namespace, answered || any)
        });
        if added.is_err() {
            self.errors += 1;
        }
    }

    /// Asks sock_diag; false when it cannot be asked at all. A table that the
    /// kernel counts no sockets for is not asked for: it would look through
    /// all of its buckets, which takes as long as glancing at fifty processes.
    fn ask_kernel(&mut self, counts: &[u8]) -> bool {
        let Ok(mut diag) = diag::Diag::open() else {
            self.is_refused = true;
            return false;
        };
        for question in &diag::QUESTIONS {
            if parse::is_counted_empty(counts, question.table) {
                self.skipped += CALLS_SKIPPED_PER_QUESTION;
                continue;
            }
            if diag.ask(question, &mut self.table).is_err() {
                self.unanswered.push(question.table);
                // What is left of a broken answer must not be taken for the
                // next one.
                match diag::Diag::open() {
                    Ok(fresh) => diag = fresh,
                    Err(_) => return false,
                }
            }
        }
        true
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
    fn tidy(&self, inodes: &mut Vec<u64>) {
        inodes.retain(|inode| self.table.contains(*inode));
        // The same socket under several descriptors is one socket.
        inodes.sort_unstable();
        inodes.dedup();
        inodes.truncate(HELD_MAX);
        inodes.shrink_to_fit();
    }

    /// Walks descriptors of a process, within what is left for the scan.
    fn held_at(&mut self, descriptors: &OwnedFd) -> Result<Held, Failed> {
        let entries_max = DESCRIPTORS_MAX.min(self.descriptors_left.max(DESCRIPTORS_MIN));
        let walked = self.walk(descriptors, entries_max)?;
        self.descriptors_left = self.descriptors_left.saturating_sub(walked.entries);
        Ok(Held {
            inodes: walked.inodes,
            of_threads: Vec::new(),
        })
    }

    fn walk(&mut self, descriptors: &OwnedFd, entries_max: usize) -> Result<Walked, Failed> {
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

    /// Reads every table of a namespace that has sockets, through a process in
    /// it, or takes what is known of it where there is no time.
    fn add_namespace(&mut self, namespace: u64, dir: &ProcessDir) -> Result<(), Failed> {
        if self.namespaces.contains(&namespace) {
            return Ok(());
        }
        if !self.others.is_due(namespace) {
            self.put_off(namespace);
            return Ok(());
        }
        let began = Instant::now();
        let counts = counts(dir);
        // Of an empty table too the kernel goes through every bucket.
        let (empty, tables): (Vec<_>, Vec<_>) = TABLES
            .into_iter()
            .partition(|(_, name)| parse::is_counted_empty(&counts, name));
        self.skipped += CALLS_SKIPPED_PER_QUESTION * empty.len() as u64;
        let (any, inodes) = self.read_tables(dir, &tables, self.others.deadline(began))?;
        self.end_namespace(namespace, any || !empty.is_empty())?;
        self.others.read(namespace, inodes, began.elapsed());
        Ok(())
    }

    /// Takes what is known of a namespace, and leaves it to another scan.
    fn put_off(&mut self, namespace: u64) {
        self.others.put_off(namespace, &mut self.table);
        self.namespaces.insert(namespace);
    }

    /// Reads tables through a process; whether it shows any of them, and which
    /// sockets they list. Of what is not done by the deadline, a part.
    fn read_tables(
        &mut self,
        dir: &ProcessDir,
        tables: &[(Protocol, &'static str)],
        deadline: Instant,
    ) -> Result<(bool, Vec<u64>), Failed> {
        let net = dir.open("net", OFlags::PATH | OFlags::DIRECTORY)?;
        let mut any = false;
        let mut inodes = Vec::new();
        for &(protocol, name) in tables {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&net, name, flags, Mode::empty());
            match opened.map_err(Failed::from) {
                Ok(fd) => {
                    any = true;
                    let read = read_table(std::fs::File::from(fd), protocol, |inode, entry| {
                        self.table.insert(inode, entry);
                        inodes.push(inode);
                        Instant::now() < deadline
                    });
                    self.errors += u64::from(read.is_err());
                }
                // A kernel without IPv6 or packet sockets has no such file.
                Err(Failed::Vanished) => {}
                Err(Failed::Refused) => self.errors += 1,
            }
        }
        Ok((any, inodes))
    }

    fn end_namespace(&mut self, namespace: u64, is_read: bool) -> Result<(), Failed> {
        if !is_read {
            // Not marked as read: the next process met there may be luckier.
            return Err(Failed::Refused);
        }
        self.namespaces.insert(namespace);
        Ok(())
    }
}

/// How many sockets of each protocol a process's namespace has, in the
/// kernel's words; what cannot be read is left out.
fn counts(dir: &ProcessDir) -> Vec<u8> {
    let files = ["net/sockstat", "net/sockstat6"];
    let texts = files.map(|name| dir.read_pieces(name, COUNTS_BYTES_MAX).unwrap_or_default());
    texts.concat()
}

/// The network namespace that a process is in.
fn namespace_of(dir: &ProcessDir) -> Result<u64, Failed> {
    match dir.link("ns/net") {
        Ok(link) => bracketed_inode(&link, b"net").ok_or(Failed::Refused),
        Err(Failed::Vanished) => Ok(NO_NAMESPACE),
        Err(Failed::Refused) => Err(Failed::Refused),
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

/// Hands on every socket of a table, until that is no longer wanted.
fn read_table(
    file: impl Read,
    protocol: Protocol,
    mut take: impl FnMut(u64, Entry) -> bool,
) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = reader.by_ref().take(LINE_BYTES_MAX);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if let Some((inode, entry)) = parse::line(protocol, &line)
            && !take(inode, entry)
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> SocketTables {
        SocketTables::for_scan(Arc::default(), 1)
    }

    fn read_into(table: &mut Table, text: &str, protocol: Protocol) {
        let insert = |inode, entry| {
            table.insert(inode, entry);
            true
        };
        read_table(text.as_bytes(), protocol, insert).unwrap();
    }

    fn of_alice(socket: Socket) -> Entry {
        Entry { socket, uid: 1000 }
    }

    #[test]
    fn the_kernel_and_the_tables_name_the_same_sockets() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        let (mut asked, mut read) = (fresh(), fresh());
        asked.add_own_namespace(&root);
        assert!(!asked.is_refused && asked.errors == 0);
        let own = root.process(std::process::id()).unwrap();
        read.add_namespace(namespace_of(&own).unwrap(), &own)
            .unwrap();
        assert_eq!(asked.table.get(inode), read.table.get(inode));
        assert!(asked.table.contains(inode));
        // A second process of the namespace costs nothing more.
        assert_eq!(asked.namespaces, read.namespaces);
    }

    #[test]
    fn raw_sockets_are_seen_whether_or_not_the_kernel_lists_them_by_sock_diag() {
        use socket2::{Domain, Type};
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        // As no account but root may.
        let icmp = Some(socket2::Protocol::ICMPV4);
        let Ok(raw) = socket2::Socket::new(Domain::IPV4, Type::RAW, icmp) else {
            return;
        };
        let mut tables = fresh();
        tables.add_own_namespace(&root);
        let inode = rustix::fs::fstat(&raw).unwrap().st_ino;
        let entry = tables.table.get(inode).unwrap();
        assert_eq!(entry.socket.protocol, Protocol::Raw);
        assert_eq!(entry.uid, rustix::process::geteuid().as_raw());
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
    fn one_bad_line_does_not_hide_the_others() {
        let good = "0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 1000 0 4711 1";
        let text = format!("heading\n\u{fffd}\0 {}\n{good}\n", "x".repeat(5000));
        let mut table = Table::default();
        read_into(&mut table, &text, Protocol::Tcp);
        assert_eq!(
            table.iter().map(|(inode, _)| inode).collect::<Vec<_>>(),
            [4711]
        );
    }

    #[test]
    fn a_socket_that_waits_for_connections_is_a_listener_though_it_has_some() {
        let eps = "0 0 1 10 1 9899 1000 4711 0.0.0.0 \n0 0 1 7 2 5000 1000 4712 10.0.0.1 \n";
        let to = |inode| format!("0 0 1 10 3 0 1 0 0 1000 {inode} 9 9 10.0.0.1 <-> *10.0.0.2 1\n");
        let mut table = Table::default();
        read_into(&mut table, eps, Protocol::Sctp);
        for inode in [4711, 4712] {
            read_into(&mut table, &to(inode), Protocol::Sctp);
        }
        let state = |inode| table.get(inode).map(|entry| entry.socket.state);
        assert_eq!(state(4711), Some(SocketState::Listen));
        assert_eq!(state(4712), Some(SocketState::Established));
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
