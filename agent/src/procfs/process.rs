//! Reads one process: stat, status, cmdline, exe, and no more.
//!
//! Promises: a process that can be listed and has a start time is returned,
//! whatever else of it cannot be read; each such failure is counted.
//! Kernel threads cost one file, everything else four.

use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::limits::{CMDLINE_BYTES_MAX, COMM_BYTES_MAX};
use procwarden_common::process::{Cmdline, Exe, Process, ProcessKey, Reading};

use super::exe::{self, OwnView};
use super::parse::Stat;
use super::{Failed, ProcRoot, ProcessDir};

/// System calls that a kernel thread saves: three files of three calls less
/// the close, and one link.
const CALLS_SKIPPED_PER_KERNEL_THREAD: u64 = 8;

/// Command lines of this length are always kept whole.
const CMDLINE_SHORT_BYTES: usize = 512;
/// Bytes of all command lines of one scan that are kept whole. An account may
/// run thousands of processes with the longest arguments that there are.
const CMDLINES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What went wrong and what was saved during one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReadCounts {
    /// Reads that failed although the process was there.
    pub(crate) errors: u64,
    /// System calls that were not needed.
    pub(crate) skipped: u64,
    /// Command lines that are cut because all of them together are too long.
    pub(crate) cmdlines_cut: u64,
    /// Directories in /proc that something else was mounted over.
    pub(crate) covered: u64,
}

/// The moment of a scan, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Milliseconds since boot.
    pub(crate) uptime_millis: u64,
    /// The wall clock's time of the boot.
    pub(crate) booted_at: UnixMillis,
}

/// Reads processes, and keeps what every read needs.
pub(crate) struct ProcessReader {
    own: OwnView,
    buffer: Vec<u8>,
    cmdline_bytes_left: usize,
    /// Of this scan.
    pub(crate) counts: ReadCounts,
}

/// A process, and the directory through which more of it can be read.
pub(crate) struct Opened {
    pub(crate) process: Process,
    pub(crate) dir: ProcessDir,
}

impl ProcessReader {
    pub(crate) fn new() -> Self {
        Self {
            own: OwnView::look(),
            buffer: Vec::new(),
            cmdline_bytes_left: CMDLINES_BYTES_MAX,
            counts: ReadCounts::default(),
        }
    }

    /// Counts and bounds begin anew.
    pub(crate) fn begin_scan(&mut self) {
        self.counts = ReadCounts::default();
        self.cmdline_bytes_left = CMDLINES_BYTES_MAX;
    }

    /// Reads one process.
    ///
    /// # Errors
    /// When its stat, and with it its start time, cannot be read.
    pub(crate) fn read(
        &mut self,
        root: &ProcRoot,
        dir: ProcessDir,
        moment: Moment,
        user: &mut dyn FnMut(u32) -> Arc<[u8]>,
    ) -> Result<Opened, Failed> {
        let stat = self.read_stat(root, &dir)?;
        let (dir, stat) = living(dir, stat);
        let mut process = blank(root, dir.pid(), stat, moment);
        if process.kernel_thread {
            self.counts.skipped += CALLS_SKIPPED_PER_KERNEL_THREAD;
            process.user = user(0);
            return Ok(Opened { process, dir });
        }
        self.read_status(&mut process, &dir);
        process.user = user(process.uid);
        if !is_ending(&process) {
            process.cmdline = self.read_cmdline(&dir);
            process.exe = self.read_exe(&dir);
            if process
                .cmdline
                .value()
                .is_some_and(|cmdline| cmdline.raw.is_empty())
            {
                // For a moment within execve(2) there are no arguments yet,
                // and rules about them would not match.
                process.cmdline = self.read_cmdline(&dir);
            }
            if process.exe == Reading::Absent {
                recheck(&mut process, &dir);
            }
        }
        Ok(Opened { process, dir })
    }

    /// The stat of this very process. With another one's directory or a file
    /// system mounted over its own, a process hides from every other program.
    fn read_stat(&mut self, root: &ProcRoot, dir: &ProcessDir) -> Result<Stat, Failed> {
        let covered = match dir.stat() {
            Ok(stat) if stat.pid == dir.pid() => return Ok(stat),
            Ok(_) => true,
            Err(_) => root.is_genuine() && !dir.is_in_proc(),
        };
        if covered {
            self.counts.covered += 1;
            return Err(Failed::Refused);
        }
        dir.stat()
    }

    fn read_status(&mut self, process: &mut Process, dir: &ProcessDir) {
        match dir.status(&mut self.buffer) {
            Ok(status) => {
                process.uid = status.uid;
                process.vsz_bytes = status.vsz_bytes;
                process.rss_bytes = status.rss_bytes;
            }
            Err(failed) => {
                self.count(failed);
                process.uid = dir.owner_uid().unwrap_or(u32::MAX);
                if failed == Failed::Vanished {
                    process.state = b'X';
                }
            }
        }
    }

    fn read_cmdline(&mut self, dir: &ProcessDir) -> Reading<Cmdline> {
        match dir.read("cmdline", CMDLINE_BYTES_MAX, &mut self.buffer) {
            Ok(truncated) => Reading::Value(self.bounded_cmdline(truncated)),
            Err(failed) => self.missing(failed),
        }
    }

    /// The command line in the buffer, or its beginning.
    fn bounded_cmdline(&mut self, truncated: bool) -> Cmdline {
        let bytes = self.buffer.len();
        let fits = bytes <= CMDLINE_SHORT_BYTES || bytes <= self.cmdline_bytes_left;
        let kept = if fits { bytes } else { CMDLINE_SHORT_BYTES };
        self.cmdline_bytes_left = self.cmdline_bytes_left.saturating_sub(kept);
        self.counts.cmdlines_cut += u64::from(!fits);
        Cmdline {
            raw: self.buffer.get(..kept).unwrap_or_default().to_vec(),
            truncated: truncated || !fits,
        }
    }

    fn read_exe(&mut self, dir: &ProcessDir) -> Reading<Exe> {
        match exe::read(dir, &self.own) {
            Ok(exe) => Reading::Value(exe),
            Err(failed) => self.missing(failed),
        }
    }

    fn missing<T>(&mut self, failed: Failed) -> Reading<T> {
        self.count(failed);
        match failed {
            Failed::Vanished => Reading::Absent,
            Failed::Refused => Reading::Unreadable,
        }
    }

    /// Counts a failure that is not the end of a process.
    pub(crate) fn count(&mut self, failed: Failed) {
        if failed == Failed::Refused {
            self.counts.errors += 1;
        }
    }
}

/// The process through its first thread, or through another one that outlives
/// it. Identity stays that of the process.
fn living(dir: ProcessDir, stat: Stat) -> (ProcessDir, Stat) {
    if stat.is_ending()
        && stat.threads > 1
        && let Some((thread, mut of_thread)) = dir.through_a_living_thread()
    {
        of_thread.start_time = stat.start_time;
        return (thread, of_thread);
    }
    (dir, stat)
}

/// It has ended or is about to: nothing is left to look at.
pub(crate) const fn is_ending(process: &Process) -> bool {
    matches!(process.state, b'Z' | b'X' | b'x')
}

/// No executable: most likely the process ended between two reads. Judging it
/// without its executable would miss the rules that cover it.
fn recheck(process: &mut Process, dir: &ProcessDir) {
    match dir.stat() {
        Ok(stat) if stat.is_ending() => process.state = b'X',
        Err(Failed::Vanished) => process.state = b'X',
        Ok(_) | Err(Failed::Refused) => {}
    }
}

fn blank(root: &ProcRoot, pid: u32, stat: Stat, moment: Moment) -> Process {
    let started_millis = root.ticks_to_millis(stat.start_time);
    let ending = stat.is_ending();
    let kernel_thread = stat.is_kernel_thread();
    let mut comm = stat.comm;
    comm.truncate(COMM_BYTES_MAX);
    Process {
        key: ProcessKey {
            boot_id: root.boot_id(),
            pid,
            start_time: stat.start_time,
        },
        ppid: stat.ppid,
        pgrp: stat.pgrp,
        session: stat.session,
        state: if ending && stat.state != b'Z' {
            b'X'
        } else {
            stat.state
        },
        kernel_thread,
        uid: 0,
        user: Arc::from(&b""[..]),
        comm,
        started_at: moment
            .booted_at
            .plus_millis(i64::try_from(started_millis).unwrap_or(i64::MAX)),
        age_secs: moment.uptime_millis.saturating_sub(started_millis) / 1000,
        exe: Reading::Absent,
        cmdline: Reading::Absent,
        vsz_bytes: 0,
        rss_bytes: 0,
        tty_nr: stat.tty_nr,
        sockets: Vec::new(),
        sockets_unreadable: false,
    }
}

#[cfg(test)]
mod tests;
