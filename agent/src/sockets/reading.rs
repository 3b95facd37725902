//! Reads the sockets of a network namespace into the table: those of the
//! agent's own are asked of the kernel (diag.rs), and what it does not answer
//! for, and those of others, are read from `/proc/PID/net` of a process there.
//!
//! Promises: each namespace is read once; bounded time; a kernel that refuses,
//! or does not know a table, costs that table's answer alone.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use procwarden_common::process::Protocol;
use rustix::fs::{Mode, OFlags};

use super::{Entry, SocketTables, diag, parse};
use crate::procfs::parse::bracketed_inode;
use crate::procfs::{Failed, ProcRoot, ProcessDir};

/// Bytes of one line; the kernel's are about 150.
const LINE_BYTES_MAX: u64 = 1024;
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
/// Sending a question, and hearing that there is nothing.
const CALLS_SKIPPED_PER_QUESTION: u64 = 2;
/// `sockstat` and `sockstat6` together have a dozen short lines.
const COUNTS_BYTES_MAX: usize = 4096;
/// The tables of the agent's own namespace are given up behind that much
/// where they are read from /proc; the kernel's answers take no such time.
const OWN_TIME_MAX: Duration = Duration::from_secs(5);
/// Stands for the namespace of a process in a tree that shows none.
const NO_NAMESPACE: u64 = 0;

impl SocketTables {
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

    /// Reads every table of a namespace that has sockets, through a process in
    /// it, or takes what is known of it where there is no time.
    pub(super) fn add_namespace(&mut self, namespace: u64, dir: &ProcessDir) -> Result<(), Failed> {
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
    pub(super) fn put_off(&mut self, namespace: u64) {
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
pub(super) fn namespace_of(dir: &ProcessDir) -> Result<u64, Failed> {
    match dir.link("ns/net") {
        Ok(link) => bracketed_inode(&link, b"net").ok_or(Failed::Refused),
        Err(Failed::Vanished) => Ok(NO_NAMESPACE),
        Err(Failed::Refused) => Err(Failed::Refused),
    }
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
    use std::sync::Arc;

    use procwarden_common::process::SocketState;

    use super::*;
    use crate::sockets::table::Table;

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
}
