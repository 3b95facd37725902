//! What of a look is kept until the next scan.
//!
//! A look adds processes to those that are known, so that the next scan does
//! not take one for ended that it cannot read. An account can start and end
//! hundreds per second meanwhile, each with the longest arguments that there
//! are. Pure. Promises: what looks add between two scans is bounded in number
//! and in bytes; the dead are not kept. What has no room is read by the scan
//! as if nobody had looked at it.

use std::sync::Arc;

use procwarden_common::process::Reading;

use super::known::Known;
use crate::procfs::process::{is_ending, kept_bytes};

/// Processes that looks add between two scans.
const ADDED_MAX: usize = 512;

/// For so many more than there are, room is made at a time.
const GROWTH: usize = 64;

/// Longer command lines and paths are not kept: the next scan reads them again.
const TEXT_KEPT_BYTES_MAX: usize = 512;

/// How much room is left for processes that looks add.
#[derive(Debug)]
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(ADDED_MAX)
    }
}

impl Room {
    /// Takes a process that was looked at over to those that are known, which
    /// are sorted by PID.
    pub(super) fn keep(&mut self, known: &mut Vec<Known>, looked: Known) {
        match known.binary_search_by_key(&looked.pid(), Known::pid) {
            Ok(at) => {
                if let Some(place) = known.get_mut(at) {
                    *place = slim(looked);
                }
            }
            Err(at) if self.0 > 0 && !is_ending(&looked.process) => {
                self.0 -= 1;
                // A vector that doubles would take for the room of a few what
                // all processes of the machine take.
                if known.len() == known.capacity() {
                    known.reserve_exact(GROWTH);
                }
                known.insert(at, slim(looked));
            }
            Err(_) => {}
        }
    }
}

/// Without what can be large. A scan attributes sockets anew anyhow, and reads
/// a process whole that has no command line or executable.
fn slim(mut looked: Known) -> Known {
    looked.set_sockets(Vec::new());
    if kept_bytes(&looked.process) > TEXT_KEPT_BYTES_MAX {
        let process = Arc::make_mut(&mut looked.process);
        (process.cmdline, process.exe) = (Reading::Absent, Reading::Absent);
    }
    looked
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use procwarden_common::process::Cmdline;

    use super::*;
    use crate::detect::sample;
    use crate::procfs::ProcRoot;
    use crate::procfs::process::Opened;

    fn looked(pid: u32, state: u8, cmdline_bytes: usize) -> Known {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut process = sample::of_account(1000, b"alice");
        (process.key.pid, process.state) = (pid, state);
        process.cmdline = Reading::Value(Cmdline {
            raw: vec![b'a'; cmdline_bytes],
            truncated: false,
        });
        let opened = Opened {
            process,
            dir: root.process(std::process::id()).unwrap(),
            layout: [0; 6],
            threads: 1,
            inode: None,
            is_withheld: false,
        };
        Known::new(opened, None, false, None)
    }

    fn pids(known: &[Known]) -> Vec<u32> {
        known.iter().map(Known::pid).collect()
    }

    #[test]
    fn only_the_living_are_kept_and_no_long_texts() {
        let (mut known, mut room) = (Vec::new(), Room::default());
        for (pid, state, bytes) in [(9, b'S', 10), (7, b'Z', 0), (8, b'R', 32_768), (6, b'X', 0)] {
            room.keep(&mut known, looked(pid, state, bytes));
        }
        assert_eq!(pids(&known), [8, 9]);
        let bytes: Vec<usize> = known.iter().map(|k| kept_bytes(&k.process)).collect();
        let short = "/usr/bin/sleep".len() + 10;
        assert_eq!(bytes, [0, short]);
        // Of what was known already, too.
        room.keep(&mut known, looked(9, b'S', 32_768));
        assert_eq!(kept_bytes(&known[1].process), 0);
    }

    #[test]
    fn a_flood_of_processes_is_kept_up_to_a_number() {
        let (mut known, mut room) = (vec![looked(1, b'S', 0)], Room(3));
        for pid in 2..10 {
            room.keep(&mut known, looked(pid, b'S', 0));
        }
        assert_eq!(pids(&known), [1, 2, 3, 4]);
        // Whoever is known needs no room.
        room.keep(&mut known, looked(1, b'R', 0));
        assert_eq!((known.len(), known[0].process.state), (4, b'R'));
    }
}
