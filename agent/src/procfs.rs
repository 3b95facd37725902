//! The way into /proc: lists processes and opens them. Only this file and
//! those below it use the procfs crate.
//!
//! Promises: every file of one process is opened through one handle of its
//! directory (dir.rs), reads are bounded (io.rs), and "vanished" is told apart
//! from every other failure. Never interprets what it reads (parse.rs does)
//! and never writes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use procwarden_common::id::BootId;
use procwarden_common::process::ProcessKey;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use patience::{Answer, Owner, Patience};

mod dir;
mod exe;
mod glance;
mod io;
#[cfg(test)]
pub(crate) mod live;
pub(crate) mod parse;
mod patience;
pub(crate) mod process;
mod pulse;

pub(crate) use dir::ProcessDir;
pub(crate) use exe::{OwnView, read as read_exe};
pub(crate) use glance::{Glance, Glancer};
pub(crate) use io::{each_entry, read_link};
pub(crate) use patience::{Hung, Side, What, thread_cpu_micros};
pub(crate) use pulse::Place;

/// Type of the proc file system (include/uapi/linux/magic.h).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The kernel gives out no more PIDs than this (PID_MAX_LIMIT); a tree with
/// more names than that is none of its.
const PIDS_MAX: usize = 4 * 1024 * 1024 + 1024;

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

fn is_proc(fs: &rustix::fs::StatFs) -> bool {
    u64::try_from(fs.f_type).is_ok_and(|kind| kind == PROC_SUPER_MAGIC)
}

/// `/proc`, or a tree that looks like it.
pub(crate) struct ProcRoot {
    dir: PathBuf,
    fd: OwnedFd,
    dev: u64,
    boot_id: BootId,
    ticks_per_second: u64,
    genuine: bool,
    own_pid: Option<u32>,
    has_clocks: bool,
    user_namespace: Option<Vec<u8>>,
    patience: Patience,
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
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(rustix::fs::CWD, dir, flags, Mode::empty())
            .with_context(|| format!("cannot open {}", dir.display()))?;
        let dev = rustix::fs::fstat(&fd).map_or(0, |stat| stat.st_dev);
        let genuine = rustix::fs::fstatfs(&fd).is_ok_and(|fs| is_proc(&fs));
        let ticks_per_second = ::procfs::ticks_per_second().max(1);
        let own_pid = read_link(rustix::fs::CWD, dir.join("self")).ok();
        let own_status = std::fs::read(dir.join("self/status")).unwrap_or_default();
        Ok(Self {
            dir: dir.to_owned(),
            fd,
            dev,
            boot_id,
            ticks_per_second,
            genuine,
            own_pid: own_pid.and_then(|link| parse::number(&link)),
            has_clocks: pulse::has_clocks(genuine, &own_status),
            user_namespace: read_link(rustix::fs::CWD, dir.join("self/ns/user")).ok(),
            patience: Patience::default(),
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

    /// The PIDs of every process, in order, into `pids`, which is emptied
    /// first.
    ///
    /// # Errors
    /// When the directory itself cannot be listed.
    pub(crate) fn list(&self, pids: &mut Vec<u32>) -> Result<(), Failed> {
        pids.clear();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?;
        each_entry(&listing, PIDS_MAX, |name| {
            pids.extend(parse::number::<u32>(name));
            true
        })?;
        // The kernel lists them in order; a copy of its tree need not.
        pids.sort_unstable();
        Ok(())
    }

    /// One process.
    ///
    /// # Errors
    /// When there is none of this PID, or its directory cannot be opened.
    pub(crate) fn process(&self, pid: u32) -> Result<ProcessDir, Failed> {
        ProcessDir::open_at(&self.fd, pid)
    }

    /// The same process as then, through a thread that lives. The handle stays
    /// with it: another process that gets its PID later is not shown.
    ///
    /// # Errors
    /// When it is gone or cannot be opened.
    pub(crate) fn reopen(&self, key: ProcessKey) -> Result<ProcessDir, Failed> {
        let dir = self.process(key.pid)?;
        let stat = dir.stat()?;
        if stat.start_time != key.start_time {
            return Err(Failed::Vanished);
        }
        if stat.is_ending() {
            let living = dir.through_a_living_thread();
            return living.map(|(thread, _)| thread).ok_or(Failed::Vanished);
        }
        Ok(dir)
    }

    /// Reads something of a process that may last forever; nothing when it
    /// takes too long. On another thread, so the job owns what it needs.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        key: ProcessKey,
        what: What,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = self.process(key.pid).and_then(|dir| dir.owner(self));
        let uid = place.ok().and_then(|(_, place)| place);
        // Of a process that is gone nobody has to answer for.
        let uid = uid.map_or(u32::MAX, |place| place.uid);
        let owner = Owner { key, uid };
        self.patience.ask(owner, what, || self.side_of(key), job)
    }

    /// The same of several processes, each with its own patience.
    fn ask_each<Q: Send + 'static, T: Send + 'static>(
        &self,
        questions: Vec<(Owner, Q)>,
        what: What,
        job: impl FnMut(Q) -> T + Send + 'static,
    ) -> Vec<Answer<T>> {
        let side = |key: ProcessKey| self.side_of(key);
        self.patience.ask_each(questions, what, side, job)
    }

    /// Which processes cannot be read because that hangs, in words.
    pub(crate) fn note_on_hangs(&self) -> Option<String> {
        self.patience.note()
    }

    /// Processes of which to tell that reading them hangs: their own reads did,
    /// and are no accident.
    pub(crate) fn hung(&self) -> HashMap<ProcessKey, Hung> {
        self.patience.hung()
    }

    fn side_of(&self, key: ProcessKey) -> Side {
        let Ok(dir) = self.reopen(key) else {
            return Side::Namespaces;
        };
        if dir.link("ns/user").ok() != self.user_namespace {
            return Side::Namespaces;
        }
        let place = dir.owner(self).ok().and_then(|(_, place)| place);
        place.map_or(Side::Namespaces, |place| Side::Account(place.uid))
    }

    /// False when another file system lies over the directory of a process.
    fn is_own(&self, stat: &rustix::fs::Stat) -> bool {
        !self.genuine || stat.st_dev == self.dev
    }

    /// A file at the top of the tree, up to a limit.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read_file(&self, name: &str, bytes_max: u64) -> std::io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(self.dir.join(name))?;
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
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
