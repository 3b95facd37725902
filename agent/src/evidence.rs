//! Evidence about a suspect, for whoever has to decide: where it works, what
//! it holds open, whose child it is, what exactly it runs.
//!
//! Gathered only for what is reported, because it costs more than the scan.
//! Promises: bounded in every direction, for one suspect and for thousands in
//! one scan; facts of two processes never mix,
//! because all is read through one handle whose start time was checked.
//! Never changes what the scan itself saw.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use procwarden_common::finding::{Ancestor, EnvironmentEntry, Finding, ProcessFacts, Subject};
use procwarden_common::limits::{
    ANCESTOR_CMDLINE_BYTES_MAX, ANCESTRY_MAX, FILES_MAX, MAP_LINE_BYTES_MAX, MAPS_MAX,
    PATH_BYTES_MAX, SOCKETS_MAX,
};
use procwarden_common::process::{ProcessKey, Socket};
use procwarden_common::severity::Severity;
use rustix::fs::{Mode, OFlags};

use crate::procfs::parse::bracketed_inode;
use crate::procfs::{Failed, ProcRoot, ProcessDir, What, each_entry, parse, read_link};
use crate::sockets::{Known, SocketTables};

mod container;
mod digest;
mod environment;

use digest::Digests;
use environment::ENVIRON_BYTES_MAX;

/// Maps are long, and tell something about code that hides in a process.
const MAPS_FROM: Severity = Severity::High;

/// Bytes of `/proc/PID/maps` that are read: with more, the finding would be
/// too long for an event, which then lost the whole map.
const MAPS_BYTES_MAX: usize = 128 * 1024;
/// Descriptors that are looked at for the list of files.
const DESCRIPTORS_MAX: usize = 4096;
/// Bytes of small files such as cgroup.
const SMALL_FILE_BYTES_MAX: usize = 64 * 1024;

/// The kernel's words for kinds of sockets are shorter.
const SOCKET_KIND_BYTES_MAX: usize = 64;
/// How the words begin for sockets that are evidence with their addresses.
const LISTED_KINDS: [&[u8]; 5] = [b"TCP", b"UDP", b"RAW", b"PACKET", b"SCTP"];

/// How much is gathered about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What costs next to nothing, whatever the process is like: where it
    /// works, its container, who logged in, its ancestry.
    Brief,
    /// Everything.
    Whole,
}

/// Gathers for the suspects of one scan.
pub(crate) struct Gatherer<'a> {
    root: &'a ProcRoot,
    /// Read once for all of them: a table can hold 100,000 sockets.
    tables: SocketTables,
    digests: Digests,
}

impl<'a> Gatherer<'a> {
    /// Takes what the scan found in the network namespaces of others: that is
    /// not read again.
    pub(crate) fn new(root: &'a ProcRoot, known: Arc<Known>) -> Self {
        Self {
            root,
            tables: SocketTables::for_evidence(known),
            digests: Digests::default(),
        }
    }

    /// Fills in, as deep as is asked for, cwd, cgroup, container, files, maps (of
    /// what is severe), environment, ancestry, the file that runs and its digest,
    /// ... The start time is checked again: false when the process is gone, and
    /// then the finding keeps the facts it has.
    pub(crate) fn gather(&mut self, finding: &mut Finding, depth: Depth) -> bool {
        let severity = finding.severity();
        match (finding.subject, &mut finding.process) {
            (Subject::Process(key), Some(facts)) => {
                self.gather_process(key, facts, depth, severity)
            }
            _ => true,
        }
    }

    fn gather_process(
        &mut self,
        key: ProcessKey,
        facts: &mut ProcessFacts,
        depth: Depth,
        severity: Severity,
    ) -> bool {
        let Ok(dir) = self.root.reopen(key) else {
            return false;
        };
        if let Ok(stat) = dir.stat() {
            // Scans ask about a process that does nothing only now and then.
            facts.ppid = stat.ppid;
        }
        facts.cwd = dir.link("cwd").ok();
        facts.cgroup = small_file(&dir, "cgroup")
            .map(|bytes| parse::cgroup(&bytes))
            .unwrap_or_default();
        facts.cgroup.truncate(PATH_BYTES_MAX);
        facts.container = container::of_cgroup(&facts.cgroup);
        facts.loginuid = small_file(&dir, "loginuid").and_then(|bytes| parse::loginuid(&bytes));
        if depth == Depth::Whole {
            self.gather_bulk(&dir, key, facts, severity);
        }
        (facts.ancestry, facts.parent_start_time) = ancestry(self.root, facts.ppid, key.start_time);
        dir.stat().is_ok_and(|stat| !stat.is_ending())
    }

    /// What a process can make dear, within bounds.
    fn gather_bulk(
        &mut self,
        dir: &ProcessDir,
        key: ProcessKey,
        facts: &mut ProcessFacts,
        severity: Severity,
    ) {
        facts.files = files(dir).unwrap_or_default();
        self.gather_slowly(key, facts, severity >= MAPS_FROM);
        if facts.sockets.is_empty() {
            facts.sockets = self.sockets(dir).unwrap_or_default();
        }
    }

    /// What a process can hold back for good.
    fn gather_slowly(&mut self, key: ProcessKey, facts: &mut ProcessFacts, wants_maps: bool) {
        if let Ok(dir) = self.root.reopen(key) {
            let read = move || {
                let maps = wants_maps.then(|| maps(&dir).unwrap_or_default());
                (maps, environment(&dir).unwrap_or_default())
            };
            let (maps, environment) = self.root.ask(key, What::Memory, read).unwrap_or_default();
            (facts.maps, facts.environment) = (maps.unwrap_or_default(), environment);
        }
        if let Ok(dir) = self.root.reopen(key) {
            // The bounds begin anew should they be lost with it: hangs have a
            // bound, too.
            let mut digests = std::mem::take(&mut self.digests);
            let read = move || {
                let of_exe = digests.of_exe(&dir);
                (digests, of_exe)
            };
            if let Some((digests, of_exe)) = self.root.ask(key, What::Content, read) {
                self.digests = digests;
                (facts.exe_file, facts.exe_sha256) = of_exe;
            }
        }
    }

    /// Its sockets, where the scan had no reason to look for them.
    fn sockets(&mut self, dir: &ProcessDir) -> Result<Vec<Socket>, Failed> {
        let mut sockets = self.tables.sockets_of(self.root, dir)?;
        sockets.truncate(SOCKETS_MAX);
        Ok(sockets)
    }
}

fn small_file(dir: &ProcessDir, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    dir.read(name, SMALL_FILE_BYTES_MAX, &mut bytes).ok()?;
    Some(bytes)
}

/// The telling part of its environment; what is beyond the limit is not seen.
fn environment(dir: &ProcessDir) -> Option<Vec<EnvironmentEntry>> {
    let environ = dir.read_pieces("environ", ENVIRON_BYTES_MAX).ok()?;
    Some(environment::telling(&environ))
}

/// Targets of its descriptors, each once, in the kernel's order; a socket that
/// is in no table with what it is.
fn files(dir: &ProcessDir) -> Result<Vec<Vec<u8>>, Failed> {
    let descriptors = dir.open("fd", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let (mut targets, mut kinds) = (Vec::new(), Vec::new());
    each_entry(&descriptors, DESCRIPTORS_MAX, |name| {
        if let Ok(target) = read_link(&descriptors, name)
            && !targets.contains(&target)
        {
            kinds.push(socket_kind(&descriptors, name, &target));
            targets.push(target);
        }
        targets.len() < FILES_MAX
    })?;
    let named = |(target, kind): (Vec<u8>, Option<Vec<u8>>)| match kind {
        Some(kind) => [&target[..], b" ", &kind].concat(),
        None => target,
    };
    Ok(targets.into_iter().zip(kinds).map(named).collect())
}

/// The kernel's word for what kind of socket a descriptor is, such as
/// `UNIX-STREAM`, `NETLINK` or `AF_VSOCK` (sockfs, the attribute
/// `system.sockprotoname`); nothing for what is listed with its addresses.
fn socket_kind(descriptors: &OwnedFd, name: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    bracketed_inode(target, b"socket")?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(descriptors, name, flags, Mode::empty()).ok()?;
    // The kernel has the attribute behind a path only, and this is the handle's.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut kind = [0; SOCKET_KIND_BYTES_MAX];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut kind[..]).ok()?;
    let kind = kind.get(..length)?;
    let kind = kind.strip_suffix(b"\0").unwrap_or(kind);
    let is_listed = LISTED_KINDS.iter().any(|listed| kind.starts_with(listed));
    (!is_listed && !kind.is_empty()).then(|| kind.to_vec())
}

/// The first lines of its memory map, raw: mapped paths can hold any byte.
fn maps(dir: &ProcessDir) -> Result<Vec<Vec<u8>>, Failed> {
    let bytes = dir.read_pieces("maps", MAPS_BYTES_MAX)?;
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    Ok(lines
        .take(MAPS_MAX)
        .map(|line| line.get(..MAP_LINE_BYTES_MAX).unwrap_or(line).to_vec())
        .collect())
}

/// Its parents, nearest first, and the start time of the nearest. A parent is
/// never younger than its child, so a reused PID, and with it any circle, ends
/// the list.
fn ancestry(root: &ProcRoot, ppid: u32, child_start_time: u64) -> (Vec<Ancestor>, u64) {
    let mut ancestors = Vec::new();
    let (mut pid, mut younger, mut parent_start_time) = (ppid, child_start_time, 0);
    while pid != 0 && ancestors.len() < ANCESTRY_MAX {
        let Ok(dir) = root.process(pid) else { break };
        let Ok(stat) = dir.stat() else { break };
        if stat.start_time > younger {
            break;
        }
        if ancestors.is_empty() {
            parent_start_time = stat.start_time;
        }
        let key = ProcessKey {
            boot_id: root.boot_id(),
            pid,
            start_time: stat.start_time,
        };
        let exe = dir.link("exe").unwrap_or_default();
        let cmdline = root.ask(key, What::Memory, move || {
            dir.read_whole("cmdline", ANCESTOR_CMDLINE_BYTES_MAX)
        });
        ancestors.push(Ancestor {
            pid,
            exe,
            cmdline: cmdline.and_then(Result::ok).unwrap_or_default(),
        });
        (pid, younger) = (stat.ppid, stat.start_time);
    }
    (ancestors, parent_start_time)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;

    #[test]
    fn sockets_that_no_table_lists_are_named_by_their_kind() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let own = root.process(std::process::id()).unwrap();
        let unix = UnixDatagram::unbound().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let descriptors = own.open("fd", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        let kind = |socket: &dyn AsFd| {
            let name = socket.as_fd().as_raw_fd().to_string().into_bytes();
            let target = read_link(&descriptors, &name[..]).unwrap();
            assert!(target.starts_with(b"socket:["));
            socket_kind(&descriptors, &name, &target)
        };
        // Kernels before 6.3 know no more than the family's name.
        assert!(kind(&unix).unwrap().starts_with(b"UNIX"));
        assert_eq!(kind(&tcp), None);
        assert_eq!(socket_kind(&descriptors, b"0", b"/dev/null"), None);
    }
}
