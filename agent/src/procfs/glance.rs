//! The cheapest look at a process: is it the one that was read before, and
//! has anything about it changed?
//!
//! Four system calls: open `stat`, ask for its owner, read, close. The owner is
//! the effective uid of the process, or the root of its user namespace where
//! it cannot be traced (task_dump_owner in fs/proc/base.c), as one is that has
//! just become another account. So an owner that does not settle it has the
//! directory asked, whose owner is the effective uid whatever the process
//! hides. Either belongs to the process that `stat` shows: the handle was open
//! before the question and still gave something to read after it.
//! Never looks at arguments, executable or descriptors.

use std::fmt::Write as _;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::io::{Until, read_bounded};
use super::{Failed, ProcRoot, parse};

/// `/proc/PID/stat` is shorter than this on every kernel.
const STAT_BYTES_MAX: usize = 16 * 1024;

/// What a glance shows.
pub(crate) struct Glance {
    pub(crate) stat: parse::Stat,
    /// Effective uid; nothing in a copy of /proc, whose files belong to
    /// whoever made it.
    pub(crate) uid: Option<u32>,
}

/// Glances at one process after the other, with the same buffers.
#[derive(Default)]
pub(crate) struct Glancer {
    path: String,
    buffer: Vec<u8>,
}

impl Glancer {
    /// Glances at a process. An owner of `stat` that is `expected` is believed
    /// without a look at the directory.
    ///
    /// # Errors
    /// When it is gone, cannot be read, or something lies over its directory.
    pub(crate) fn glance(
        &mut self,
        root: &ProcRoot,
        pid: u32,
        expected: Option<u32>,
    ) -> Result<Glance, Failed> {
        let digits = self.set_path(pid)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&root.fd, self.path.as_str(), flags, Mode::empty())?;
        let mut owner = rustix::fs::fstat(&fd)?;
        if expected != Some(owner.st_uid) && root.is_own(&owner) {
            let dir = self.path.get(..digits).unwrap_or_default();
            owner = rustix::fs::statat(&root.fd, dir, AtFlags::empty())?;
        }
        if !root.is_own(&owner) {
            return Err(Failed::Refused);
        }
        read_bounded(&fd, STAT_BYTES_MAX, Until::ShortRead, &mut self.buffer)?;
        let stat = parse::stat(&self.buffer)
            .filter(|stat| stat.pid == pid)
            .ok_or(Failed::Refused)?;
        Ok(Glance {
            stat,
            uid: root.genuine.then_some(owner.st_uid),
        })
    }

    /// Puts `PID/stat` into the path; the length of the PID.
    fn set_path(&mut self, pid: u32) -> Result<usize, Failed> {
        self.path.clear();
        write!(self.path, "{pid}").map_err(|_| Failed::Refused)?;
        let digits = self.path.len();
        self.path.push_str("/stat");
        Ok(digits)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::procfs::live::Running;

    #[test]
    fn a_glance_shows_a_process_until_it_ends() {
        let mut command = Command::new("/bin/sleep");
        let child = Running::start(command.arg("600").stdin(Stdio::null()));
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut glancer = Glancer::default();
        let own = rustix::process::geteuid().as_raw();
        for expected in [None, Some(own), Some(own + 1)] {
            let seen = glancer.glance(&root, child.pid(), expected).unwrap();
            assert_eq!(seen.uid, Some(own));
        }
        let seen = glancer.glance(&root, child.pid(), None).unwrap();
        assert_eq!(
            (seen.stat.pid, &seen.stat.comm[..]),
            (child.pid(), &b"sleep"[..])
        );
        let again = root.process(child.pid()).unwrap().stat().unwrap();
        assert_eq!(seen.stat.start_time, again.start_time);
        let pid = child.pid();
        drop(child);
        assert_eq!(
            glancer.glance(&root, pid, None).err(),
            Some(Failed::Vanished)
        );
    }
}
