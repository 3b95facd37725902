//! The directory of one process, and the files in it.
//!
//! Promises: the handle belongs to one process for good. When that ends and
//! its PID is used again, reads through the handle fail, so facts of two
//! processes never mix.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::path::DecInt;

use super::io::{Until, each_entry, read_bounded, read_link};
use super::{Failed, Place, ProcRoot, parse};

/// `/proc/PID/stat` and `status` are shorter than this on every kernel.
const SMALL_FILE_BYTES_MAX: usize = 16 * 1024;
/// Threads that are tried until one is found alive. A debugger can keep dead
/// ones around, so a few would not do to find the living one behind them.
const THREADS_TRIED_MAX: usize = 32_768;

/// The directory of one process.
pub(crate) struct ProcessDir {
    fd: OwnedFd,
    pid: u32,
}

impl ProcessDir {
    pub(super) fn open_at(proc: &OwnedFd, pid: u32) -> Result<Self, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(proc, DecInt::new(pid), flags, Mode::empty())?;
        Ok(Self { fd, pid })
    }

    /// The process.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it lies in the kernel's /proc, and not in a copy of it.
    pub(super) fn is_of_the_kernel(&self) -> bool {
        rustix::fs::fstatfs(&self.fd).is_ok_and(|fs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC)
    }

    /// The same process seen through one of its threads: where the first
    /// thread has ended and others go on, only they still show the
    /// executable, the arguments and the descriptors.
    pub(crate) fn through_a_living_thread(&self) -> Option<(Self, parse::Stat)> {
        let tasks = self.open("task", OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
        let mut found = None;
        each_entry(&tasks, THREADS_TRIED_MAX, |name| {
            let Some(tid) = parse::number::<u32>(name) else {
                return true;
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&tasks, tid.to_string(), flags, Mode::empty());
            let Ok(fd) = opened else { return true };
            let thread = Self { fd, pid: self.pid };
            match thread.stat() {
                Ok(stat) if !stat.is_ending() => found = Some((thread, stat)),
                _ => return true,
            }
            false
        })
        .ok()?;
        found
    }

    /// Opens one of its files.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn open(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Failed> {
        Ok(rustix::fs::openat(
            &self.fd,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    /// What one of its links leads to, without opening it. Of a file system
    /// that does not answer this lasts forever.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn stat_of_target(&self, name: &str) -> Result<Stat, Failed> {
        Ok(rustix::fs::statat(&self.fd, name, AtFlags::empty())?)
    }

    /// Reads at most `bytes_max` of a file into `buffer`, which is emptied
    /// first; true when there was more. Meant for files that the kernel
    /// hands over in one piece: a short read ends it.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(crate) fn read(
        &self,
        name: &str,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, Failed> {
        let fd = self.open(name, OFlags::RDONLY)?;
        read_bounded(&fd, bytes_max, Until::ShortRead, buffer)
    }

    /// As [`ProcessDir::read`], into a buffer of its own.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(crate) fn read_whole(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        self.read(name, bytes_max, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a file that comes in pieces (`maps`), up to `bytes_max`.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(crate) fn read_pieces(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let fd = self.open(name, OFlags::RDONLY)?;
        let mut bytes = Vec::new();
        read_bounded(&fd, bytes_max, Until::End, &mut bytes)?;
        Ok(bytes)
    }

    /// The target of one of its links.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn link(&self, name: &str) -> Result<Vec<u8>, Failed> {
        read_link(&self.fd, name)
    }

    /// Its `stat`, parsed.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub(crate) fn stat(&self) -> Result<parse::Stat, Failed> {
        let mut bytes = Vec::with_capacity(512);
        self.read("stat", SMALL_FILE_BYTES_MAX, &mut bytes)?;
        parse::stat(&bytes).ok_or(Failed::Refused)
    }

    /// Its `status`, parsed.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub(crate) fn status(&self, buffer: &mut Vec<u8>) -> Result<parse::Status, Failed> {
        self.read("status", SMALL_FILE_BYTES_MAX, buffer)?;
        parse::status(buffer).ok_or(Failed::Refused)
    }

    /// False when another file system lies over the process's directory; and
    /// whom the directory shows. Nobody in a copy of /proc, whose files belong
    /// to whoever made it.
    ///
    /// # Errors
    /// When the process is hidden from this one.
    pub(super) fn owner(&self, root: &ProcRoot) -> Result<(bool, Option<Place>), Failed> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let place = root.genuine.then(|| Place::of(&stat));
        Ok((root.is_own(&stat), place))
    }
}
