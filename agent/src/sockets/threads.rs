//! Sockets that single threads hold: a thread can have descriptors of its own
//! (`unshare(2)`, CLONE_FILES).
//!
//! Most threads share the descriptors of their process, but nothing cheap
//! tells so that an account could not make up, and each walk goes through all
//! of them again. Promises: a scan looks at [`SCAN_DESCRIPTORS_MAX`]
//! descriptors of threads, every account that is searched at an even share of
//! them; the next scans go on where one stopped.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rustix::fs::{Mode, OFlags};

use super::{Candidate, DESCRIPTORS_MAX, SocketTables};
use crate::procfs::{Failed, ProcRoot, ProcessDir, each_entry};

/// Descriptors of threads in one scan; each takes about 5 microseconds.
const SCAN_DESCRIPTORS_MAX: usize = 200_000;
/// Threads of one process that are listed. Not a bound for the search, which
/// goes on in the next scans, but for the list: more than a process is let have
/// where limits are set at all.
const THREADS_MAX: usize = 100_000;
/// Opening, listing and closing what a thread holds counts as so many.
const DESCRIPTORS_PER_THREAD: usize = 4;

/// What is remembered from scan to scan: the accounts that are not searched
/// to the end.
#[derive(Debug, Default)]
pub(super) struct Search {
    unfinished: BTreeMap<u32, Place>,
}

/// Where the search of an account goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    pid: u32,
    threads: usize,
    /// Something is missing that was not when the search began.
    again: bool,
}

/// The descriptors that the search of one account may look at in a scan.
struct Share {
    whole: usize,
    left: usize,
}

impl Search {
    /// Looks for what accounts miss in the threads of their processes.
    pub(super) fn go_on(
        &mut self,
        tables: &mut SocketTables,
        root: &ProcRoot,
        candidates: &mut [Candidate<'_>],
        missing: &HashSet<u32>,
        scan: u64,
    ) {
        let asked = candidates.iter().filter(|c| c.threads > 1).map(|c| c.uid);
        let asked = asked.filter(|uid| missing.contains(uid) || self.unfinished.contains_key(uid));
        let accounts: BTreeSet<u32> = asked.collect();
        self.unfinished.retain(|uid, _| accounts.contains(uid));
        let Some(whole) = SCAN_DESCRIPTORS_MAX.checked_div(accounts.len()) else {
            return;
        };
        // Should shares be used up to nothing, it is not always the same who waits.
        let first = usize::try_from(scan).unwrap_or(0) % accounts.len();
        for &uid in accounts.iter().cycle().skip(first).take(accounts.len()) {
            let mut from = self.unfinished.remove(&uid).unwrap_or_default();
            from.again |= from != Place::default() && missing.contains(&uid);
            let mut share = Share { whole, left: whole };
            let of_account = candidates.iter_mut().filter(|c| c.uid == uid);
            let stopped = search(tables, root, of_account, from, &mut share);
            let restart = from.again.then(Place::default);
            if let Some(place) = stopped.or(restart) {
                self.unfinished.insert(uid, place);
            }
        }
    }

    /// Whether the search of an account is not at its end.
    pub(super) fn is_searching(&self, uid: u32) -> bool {
        self.unfinished.contains_key(&uid)
    }

    /// What a scan left for the next, in words.
    pub(super) fn note(&self) -> Option<String> {
        let accounts = self.unfinished.len();
        (accounts > 0).then(|| {
            format!("some threads hold too much for one scan (accounts: {accounts}): the next ones go on searching them for sockets")
        })
    }
}

/// Searches the processes of an account; tells where it stopped, if it did.
fn search<'a, 'b: 'a>(
    tables: &mut SocketTables,
    root: &ProcRoot,
    candidates: impl Iterator<Item = &'a mut Candidate<'b>>,
    from: Place,
    share: &mut Share,
) -> Option<Place> {
    for candidate in candidates.filter(|c| c.threads > 1 && c.key.pid >= from.pid) {
        let pid = candidate.key.pid;
        let begun = if pid == from.pid { from.threads } else { 0 };
        let Some(held) = &mut candidate.holding.held else {
            continue;
        };
        let dir = root.reopen(candidate.key);
        let searched = dir.and_then(|dir| held_by_threads(tables, &dir, begun, share));
        match searched {
            Ok((found, stopped)) => {
                if begun == 0 && stopped.is_none() {
                    held.of_threads.clear();
                }
                held.of_threads.extend(found);
                tables.tidy(&mut held.of_threads);
                if let Some(threads) = stopped {
                    let again = from.again;
                    return Some(Place {
                        pid,
                        threads,
                        again,
                    });
                }
            }
            Err(failed) => tables.errors += u64::from(failed == Failed::Refused),
        }
    }
    None
}

/// The sockets that the threads of a process hold behind the first few, and
/// how many threads were looked at where the share did not suffice for all.
fn held_by_threads(
    tables: &mut SocketTables,
    dir: &ProcessDir,
    from: usize,
    share: &mut Share,
) -> Result<(Vec<u64>, Option<usize>), Failed> {
    let tasks = dir.open("task", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let (mut found, mut at, mut stopped) = (Vec::new(), 0, None);
    let is_cut = each_entry(&tasks, THREADS_MAX, |tid| {
        at += 1;
        if at <= from {
            return true;
        }
        if share.left <= DESCRIPTORS_PER_THREAD {
            stopped = Some(at - 1);
            return false;
        }
        // One that is larger than the whole share is seen in part only.
        let is_whole = share.left == share.whole;
        share.left -= DESCRIPTORS_PER_THREAD;
        let path = [tid, b"/fd"].concat();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(descriptors) = rustix::fs::openat(&tasks, path, flags, Mode::empty()) else {
            return true;
        };
        let entries_max = DESCRIPTORS_MAX.min(share.left);
        let Ok(walked) = tables.walk(&descriptors, entries_max) else {
            return true;
        };
        share.left = share.left.saturating_sub(walked.entries);
        found.extend(walked.inodes);
        if walked.is_cut && entries_max < DESCRIPTORS_MAX && !is_whole {
            stopped = Some(at - 1);
            return false;
        }
        true
    })?;
    tables.errors += u64::from(is_cut);
    Ok((found, stopped))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;
    use crate::sockets::Holding;
    use procwarden_common::process::ProcessKey;

    /// A process with threads that do nothing: this one.
    fn with_threads(count: usize, test: impl FnOnce()) {
        std::thread::scope(|scope| {
            let mut ends = Vec::new();
            for _ in 0..count {
                let (end, wait) = mpsc::channel::<()>();
                ends.push(end);
                scope.spawn(move || wait.recv());
            }
            test();
        });
    }

    fn own_key(root: &ProcRoot) -> ProcessKey {
        let dir = root.process(std::process::id()).unwrap();
        let start_time = dir.stat().unwrap().start_time;
        ProcessKey {
            boot_id: root.boot_id(),
            pid: std::process::id(),
            start_time,
        }
    }

    #[test]
    fn a_share_ends_and_the_next_one_goes_on_behind_it() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        with_threads(8, || {
            let dir = root.process(std::process::id()).unwrap();
            let mut tables = SocketTables::for_scan(Arc::default(), 7);
            let descriptors = dir.open("fd", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
            let each = tables.walk(&descriptors, DESCRIPTORS_MAX).unwrap().entries;
            // For two threads, and a part of the third one.
            let whole = 2 * (each + DESCRIPTORS_PER_THREAD) + DESCRIPTORS_PER_THREAD + 2;
            let (mut from, mut shares) = (0, 0);
            loop {
                let mut share = Share { whole, left: whole };
                let (_, stopped) = held_by_threads(&mut tables, &dir, from, &mut share).unwrap();
                shares += 1;
                match stopped {
                    Some(at) => assert!(at > from, "{at} {from}"),
                    None => break,
                }
                from = stopped.unwrap();
            }
            assert!(shares >= 3, "{shares}");
        });
    }

    #[test]
    fn the_last_of_many_threads_is_looked_at_too() {
        const MANY: usize = 300;
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        with_threads(MANY, || {
            let dir = root.process(std::process::id()).unwrap();
            let mut tables = SocketTables::for_scan(Arc::default(), 7);
            let whole = DESCRIPTORS_PER_THREAD + 1;
            let mut share = Share { whole, left: whole };
            let from = MANY - 1;
            let (_, stopped) = held_by_threads(&mut tables, &dir, from, &mut share).unwrap();
            assert!(stopped.is_some_and(|at| at >= MANY), "{stopped:?}");
        });
    }

    #[test]
    fn a_search_that_is_not_finished_goes_on_in_the_next_scan_though_nothing_new_is_missing() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        let mut tables = SocketTables::for_scan(Arc::default(), 7);
        tables.add_own_namespace(&root);
        let mut holding = Holding::walked();
        let mut search = Search::default();
        search.unfinished.insert(1001, Place::default());
        with_threads(1, || {
            let mut candidates = [Candidate {
                key: own_key(&root),
                uid: 1001,
                threads: 2,
                is_waiting: false,
                holding: &mut holding,
                dir: None,
            }];
            search.go_on(&mut tables, &root, &mut candidates, &HashSet::new(), 7);
        });
        assert_eq!(search.note(), None);
        assert!(holding.held.unwrap().of_threads.contains(&inode));
    }
}
