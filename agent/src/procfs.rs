//! The way into /proc: lists processes and opens them. Only this file and
//! those below it use the procfs crate.
//!
//! Promises: every file of one process is opened through one handle of its
//! directory (dir.rs), reads are bounded (io.rs), and "vanished" is told apart
//! from every other failure. Never interprets what it reads (parse.rs does)
//! and never writes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use procwarden_common::id::BootId;
use rustix::io::Errno;

mod dir;
mod exe;
mod io;
#[cfg(test)]
pub(crate) mod live;
pub(crate) mod parse;
pub(crate) mod process;

pub(crate) use dir::ProcessDir;
pub(crate) use io::{each_entry, read_link};

/// Type of the proc file system (include/uapi/linux/magic.h).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Why something of a process could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The process, or this part of it, is gone: the normal weather of /proc.
    Vanished,
    /// Anything else: refused, out of descriptors, an I/O error. To be counted.
    Refused,
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Vanished,
            _ => Self::Refused,
        }
    }
}

impl From<::procfs::ProcError> for Failed {
    fn from(error: ::procfs::ProcError) -> Self {
        match error {
            ::procfs::ProcError::NotFound(_) => Self::Vanished,
            _ => Self::Refused,
        }
    }
}

fn is_proc(fs: &rustix::fs::StatFs) -> bool {
    u64::try_from(fs.f_type).is_ok_and(|kind| kind == PROC_SUPER_MAGIC)
}

/// `/proc`, or a tree that looks like it.
pub(crate) struct ProcRoot {
    dir: PathBuf,
    boot_id: BootId,
    ticks_per_second: u64,
    genuine: bool,
    own_pid: Option<u32>,
}

impl ProcRoot {
    /// Opens the tree.
    ///
    /// # Errors
    /// When it has no boot id: then it is no /proc, and nothing found in it
    /// could be told from what another boot shows.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: is {} a mounted /proc?",
                path.display(),
                dir.display()
            )
        })?;
        let boot_id = text
            .parse()
            .with_context(|| format!("in {}", path.display()))?;
        let genuine = rustix::fs::statfs(dir).is_ok_and(|fs| is_proc(&fs));
        let ticks_per_second = ::procfs::ticks_per_second().max(1);
        let own_pid = read_link(rustix::fs::CWD, dir.join("self")).ok();
        Ok(Self {
            dir: dir.to_owned(),
            boot_id,
            ticks_per_second,
            genuine,
            own_pid: own_pid.and_then(|link| parse::number(&link)),
        })
    }

    /// The boot that this tree shows.
    pub(crate) const fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// Whether this is the kernel's /proc.
    pub(crate) const fn is_genuine(&self) -> bool {
        self.genuine
    }

    /// Clock ticks in milliseconds.
    pub(crate) const fn ticks_to_millis(&self, ticks: u64) -> u64 {
        let (whole, rest) = (ticks / self.ticks_per_second, ticks % self.ticks_per_second);
        whole
            .saturating_mul(1000)
            .saturating_add(rest * 1000 / self.ticks_per_second)
    }

    /// Milliseconds since boot. Start times count on this clock, whereas
    /// `/proc/uptime` is often painted over in containers (lxcfs) and would
    /// make every process look too young; it serves for other trees only.
    pub(crate) fn uptime_millis(&self) -> u64 {
        if self.genuine {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let millis = now
                .tv_sec
                .saturating_mul(1000)
                .saturating_add(now.tv_nsec / 1_000_000);
            return u64::try_from(millis).unwrap_or(0);
        }
        let text = std::fs::read(self.dir.join("uptime")).unwrap_or_default();
        parse::uptime_millis(&text).unwrap_or(0)
    }

    /// Every process, one after the other. A failure of one is an item.
    ///
    /// # Errors
    /// When the directory itself cannot be listed.
    pub(crate) fn list(
        &self,
    ) -> Result<impl Iterator<Item = Result<ProcessDir, (Option<u32>, Failed)>>, Failed> {
        let listed = ::procfs::process::all_processes_with_root(&self.dir)?;
        Ok(listed.map(|item| {
            let process = item.map_err(|error| (None, Failed::from(error)))?;
            let pid = u32::try_from(process.pid).ok();
            ProcessDir::of(&process).map_err(|failed| (pid, failed))
        }))
    }

    /// One process.
    ///
    /// # Errors
    /// When there is none of this PID, or its directory cannot be opened.
    pub(crate) fn process(&self, pid: u32) -> Result<ProcessDir, Failed> {
        let process = ::procfs::process::Process::new_with_root(self.dir.join(pid.to_string()))?;
        ProcessDir::of(&process)
    }

    /// The agent's own PID as this tree shows it; nothing in a copy.
    pub(crate) const fn own_pid(&self) -> Option<u32> {
        self.own_pid
    }

    /// The name of this host, as the kernel knows it.
    pub(crate) fn host_name(&self) -> Option<String> {
        let text = std::fs::read(self.dir.join("sys/kernel/hostname")).ok()?;
        let name = procwarden_common::printable::printable(text.trim_ascii());
        (!name.is_empty()).then_some(name)
    }
}
