//! Whose descriptors are walked in a scan.
//!
//! A walk is the dearest part of a scan, so it is made only when there are
//! sockets at all, and then for a process
//!
//! - of an account that has a socket nobody is known to hold and that was not
//!   searched for before: all processes of the account, and, if the socket is
//!   still not found, the descriptors of their single threads (threads.rs);
//! - that the scan before saw something about that this one confirms;
//! - that was never walked: a child has the sockets of its parent. At most
//!   [`FIRST_WALKS_MAX`] such walks per scan, so that the first scan of a
//!   machine is not far dearer than all others; without a bound where there
//!   will be no other scan;
//! - whose turn it is: once within [`SCANS_PER_WALK`] scans, which finds
//!   sockets of other accounts that it was handed over a Unix socket.
//!
//! A socket that is gone is taken from its holders in the same scan. So a new
//! socket of the process's own account is seen at once, and anything else
//! after [`SCANS_PER_WALK`] scans at the latest.

use std::collections::HashSet;
use std::sync::Arc;

use procwarden_common::process::{ProcessKey, Socket};

use super::threads::Search;
use super::unheld::Unheld;
use super::{Held, Known, SocketTables, namespace_of};
use crate::procfs::{Failed, ProcRoot, ProcessDir};
use crate::scan::is_turn;

/// Within so many scans the descriptors of every process are walked once.
const SCANS_PER_WALK: u64 = 32;
/// Processes without sockets of their account that are walked for the first
/// time in one scan.
const FIRST_WALKS_MAX: usize = 250;

/// What is remembered of a process.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    pub(super) held: Option<Held>,
    namespace: Option<u64>,
}

impl Holding {
    #[cfg(test)]
    pub(super) fn walked() -> Self {
        Self {
            held: Some(Held::default()),
            namespace: None,
        }
    }

    /// Takes the namespace that a process is in now.
    pub(crate) fn set_namespace_of(&mut self, dir: &ProcessDir) {
        self.namespace = namespace_of(dir).ok();
    }

    /// Whether the process is walked, should there be any sockets.
    pub(crate) fn expects_walk(&self, pid: u32, scan: u64) -> bool {
        self.held.is_none() || is_turn(pid, scan, SCANS_PER_WALK)
    }
}

/// A process whose sockets a detector wants to know.
pub(crate) struct Candidate<'a> {
    pub(crate) key: ProcessKey,
    pub(crate) uid: u32,
    pub(crate) threads: u64,
    /// What it showed in the last scan has to be confirmed.
    pub(crate) is_waiting: bool,
    pub(crate) holding: &'a mut Holding,
    /// Its directory, where this scan has it open.
    pub(crate) dir: Option<ProcessDir>,
}

/// What is remembered from scan to scan.
#[derive(Debug)]
pub(crate) struct Attribution {
    first_walks_max: usize,
    /// Sockets that were searched for and not found: they belong to processes
    /// nobody asks about, or are on their way through a Unix socket.
    searched: HashSet<u64>,
    in_threads: Search,
    unheld: Unheld,
    /// What the last scan found in the network namespaces of others.
    known: Arc<Known>,
}

impl Default for Attribution {
    fn default() -> Self {
        Self {
            first_walks_max: FIRST_WALKS_MAX,
            searched: HashSet::new(),
            in_threads: Search::default(),
            unheld: Unheld::default(),
            known: Arc::default(),
        }
    }
}

impl Attribution {
    /// No other scan will follow: what would wait for one is done at once.
    pub(crate) const fn put_nothing_off(&mut self) {
        self.first_walks_max = usize::MAX;
    }

    /// What the last scan found in the network namespaces of others.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// The sockets of each candidate, in their order.
    pub(crate) fn attribute(
        &mut self,
        tables: &mut SocketTables,
        root: &ProcRoot,
        candidates: &mut [Candidate<'_>],
        scan: u64,
    ) -> Vec<Vec<Socket>> {
        self.known = Arc::default();
        if candidates.is_empty() {
            return Vec::new();
        }
        tables.add_own_namespace(root);
        add_namespaces(tables, root, candidates);
        let wanted = self.wanted(tables, candidates);
        let mut first_walks = self.first_walks_max;
        for candidate in candidates.iter_mut() {
            if is_walked(candidate, &wanted, tables, scan, &mut first_walks) {
                walk(tables, root, candidate, scan);
            } else {
                tables.skip();
            }
        }
        // Whatever an account's processes do not show, one of their threads may.
        let missing = self.wanted(tables, candidates);
        self.in_threads
            .go_on(tables, root, candidates, &missing, scan);
        tables.more_notes.extend(self.in_threads.note());
        self.remember(tables, candidates, scan);
        self.known = tables.known();
        let held = candidates.iter().map(|c| c.holding.held.as_ref());
        held.map(|held| held.map_or_else(Vec::new, |held| tables.resolve(held)))
            .collect()
    }

    /// The accounts that have a socket which nobody is known to hold and
    /// which was not searched for.
    fn wanted(&self, tables: &SocketTables, candidates: &[Candidate<'_>]) -> HashSet<u32> {
        let held = held(candidates);
        let unknown = tables
            .table
            .iter()
            .filter(|(inode, _)| !held.contains(inode) && !self.searched.contains(inode));
        unknown.map(|(_, entry)| entry.uid).collect()
    }

    fn remember(&mut self, tables: &mut SocketTables, candidates: &[Candidate<'_>], scan: u64) {
        let held = held(candidates);
        let inodes = tables.table.iter().map(|(inode, _)| inode);
        self.searched = inodes.filter(|inode| !held.contains(inode)).collect();
        // Few processes of root are asked, so most of its sockets are unheld.
        let accounts = candidates.iter().map(|c| c.uid).filter(|uid| *uid != 0);
        let accounts = accounts.filter(|uid| !self.in_threads.is_searching(*uid));
        let note = self
            .unheld
            .note(&tables.table, &held, &accounts.collect(), scan);
        tables.more_notes.extend(note);
    }
}

fn held(candidates: &[Candidate<'_>]) -> HashSet<u64> {
    let held = candidates.iter().filter_map(|c| c.holding.held.as_ref());
    held.flat_map(Held::all).collect()
}

/// The tables of every namespace that candidates are in, those first that
/// were read longest ago.
fn add_namespaces(tables: &mut SocketTables, root: &ProcRoot, candidates: &mut [Candidate<'_>]) {
    let mut order: Vec<&mut Candidate<'_>> = candidates.iter_mut().collect();
    order.sort_by_key(|candidate| tables.others.turn(candidate.holding.namespace));
    for candidate in order {
        add_namespace_of(tables, root, candidate);
    }
}

/// The tables of the namespace that a process was in when it was last asked.
fn add_namespace_of(tables: &mut SocketTables, root: &ProcRoot, candidate: &mut Candidate<'_>) {
    if let Some(known) = candidate.holding.namespace {
        if tables.namespaces.contains(&known) {
            return;
        }
        if !tables.others.is_due(known) {
            return tables.put_off(known);
        }
    }
    let Ok(dir) = root.reopen(candidate.key) else {
        return;
    };
    candidate.holding.set_namespace_of(&dir);
    let Some(namespace) = candidate.holding.namespace else {
        tables.errors += 1;
        return;
    };
    let added = tables.add_namespace(namespace, &dir);
    tables.errors += u64::from(added == Err(Failed::Refused));
}

fn is_walked(
    candidate: &Candidate<'_>,
    wanted: &HashSet<u32>,
    tables: &SocketTables,
    scan: u64,
    first_walks: &mut usize,
) -> bool {
    if tables.table.is_empty() {
        return false;
    }
    if wanted.contains(&candidate.uid)
        || candidate.is_waiting
        || is_turn(candidate.key.pid, scan, SCANS_PER_WALK)
    {
        return true;
    }
    if candidate.holding.held.is_some() || *first_walks == 0 {
        return false;
    }
    *first_walks -= 1;
    true
}

/// Walks the descriptors of a process. What its threads hold stays as it was
/// until its turn comes, and is searched for anew if it is missing then.
fn walk(tables: &mut SocketTables, root: &ProcRoot, candidate: &mut Candidate<'_>, scan: u64) {
    let dir = candidate.dir.take();
    let dir = dir.map_or_else(|| root.reopen(candidate.key), Ok);
    match dir.and_then(|dir| tables.held_by(&dir)) {
        Ok((mut held, namespace)) => {
            candidate.holding.namespace = Some(namespace);
            tables.tidy(&mut held.inodes);
            let before = candidate.holding.held.take().unwrap_or_default();
            if !is_turn(candidate.key.pid, scan, SCANS_PER_WALK) {
                held.of_threads = before.of_threads;
                tables.tidy(&mut held.of_threads);
            }
            candidate.holding.held = Some(held);
        }
        Err(failed) => {
            candidate.holding.held = None;
            tables.errors += u64::from(failed == Failed::Refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use procwarden_common::id::BootId;

    use super::*;

    #[test]
    fn a_first_walk_waits_when_a_scan_has_made_enough_of_them_but_not_past_its_turn() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tables = SocketTables::for_scan(Arc::default(), 7);
        tables.add_own_namespace(&root);
        let (pid, turn) = (
            1000,
            (0..).find(|scan| is_turn(1000, *scan, SCANS_PER_WALK)),
        );
        let turn = turn.unwrap();
        let mut holding = Holding::default();
        let candidate = Candidate {
            key: ProcessKey {
                boot_id: BootId::from_slice(&[1; 16]).unwrap(),
                pid,
                start_time: 1,
            },
            uid: 4_000_000_000,
            threads: 1,
            is_waiting: false,
            holding: &mut holding,
            dir: None,
        };
        let mut left = 1;
        let mut walks = |scan| is_walked(&candidate, &HashSet::new(), &tables, scan, &mut left);
        assert!(walks(turn + 1), "there is one left");
        assert!(!walks(turn + 1), "there is none left");
        assert!(walks(turn + SCANS_PER_WALK), "its turn has come");
    }

    #[test]
    fn where_no_scan_follows_nothing_waits_for_it() {
        let mut attribution = Attribution::default();
        assert_eq!(attribution.first_walks_max, FIRST_WALKS_MAX);
        attribution.put_nothing_off();
        assert_eq!(attribution.first_walks_max, usize::MAX);
    }
}
