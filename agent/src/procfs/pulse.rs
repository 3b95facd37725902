//! Whether a process has done anything since it was looked at.
//!
//! The kernel tells the processor time that all threads of a process have used
//! so far, in nanoseconds, for one system call that opens nothing. Whatever
//! changes the name, the account, the program, the memory or the descriptors of
//! a process is done by one of its own threads, and takes time. So the same
//! time means the same process as before, which has done nothing.
//!
//! The time is asked for before the process is looked at: what it does during
//! the look shows in the time that is asked for next. The kernel adds up what a
//! thread used when that leaves its processor, and at every tick: a thread that
//! runs at this moment may have done something within the last tick (10 ms, or a
//! second on a processor without ticks) that does not show yet. It shows at the
//! next scan, as if this one had begun that much earlier.
//! Which process it is, and whether something lies over its directory, the
//! directory says: its inode belongs to one process for good.
//! What is done to a process from outside is left to its turn (scan/known.rs).

use std::time::Duration;

use nix::time::ClockId;
use rustix::fs::AtFlags;
use rustix::path::DecInt;

use super::{Failed, ProcRoot, parse, read_link};

/// The clock of all threads of a process is made of its PID and this kind,
/// CPUCLOCK_SCHED (include/linux/posix-timers_types.h). clock_getcpuclockid(3)
/// would ask the kernel whether the process exists, and so would cost twice.
const CLOCK_KIND: i32 = 2;
/// How often the agent's own clock is asked, one call right after the other:
/// a fine one goes on every time.
const CLOCK_TRIES: usize = 64;
/// The kernel's PIDs are smaller (include/linux/threads.h).
const PID_MAX_LIMIT: i32 = 4 * 1024 * 1024;

/// Who a directory of /proc shows, without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of this process for good.
    pub(crate) inode: u64,
    /// Effective uid.
    pub(crate) uid: u32,
}

impl Place {
    pub(super) const fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            inode: stat.st_ino,
            uid: stat.st_uid,
        }
    }
}

impl ProcRoot {
    /// Processor time that a process has used; nothing when there is none, or
    /// when this tree counts PIDs of another namespace than the kernel does for
    /// the agent.
    pub(crate) fn cpu_time(&self, pid: u32) -> Option<Duration> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid < PID_MAX_LIMIT)?;
        if !self.has_clocks {
            return None;
        }
        let clock = ClockId::from_raw((!pid << 3) | CLOCK_KIND);
        clock.now().ok().map(Duration::from)
    }

    /// Whom the directory of a PID shows; nothing when it is gone or something
    /// lies over it.
    pub(crate) fn place(&self, pid: u32) -> Option<Place> {
        let stat = rustix::fs::statat(&self.fd, DecInt::new(pid), AtFlags::empty()).ok()?;
        self.is_own(&stat).then(|| Place::of(&stat))
    }

    /// The link of the executable of whatever has this PID now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn exe(&self, pid: u32) -> Result<Vec<u8>, Failed> {
        read_link(&self.fd, format!("{pid}/exe"))
    }
}

/// Whether a tree is the kernel's own and shows its PIDs as the agent knows
/// them: of several namespaces, `NSpid` would count each. Where it says
/// nothing, as before Linux 4.1, neither is known.
pub(super) fn has_clocks(is_genuine: bool, own_status: &[u8]) -> bool {
    is_genuine && parse::namespaces(own_status) == Some(1) && is_fine()
}

/// Whether this kernel counts processor time finely. Where a machine has no
/// clock but the tick, a process could run in between and use no time.
fn is_fine() -> bool {
    let time = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let mut times: Vec<_> = (0..CLOCK_TRIES).map(|_| time()).collect();
    times.dedup();
    times.len() > CLOCK_TRIES / 2
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::procfs::live::Running;

    fn proc() -> ProcRoot {
        ProcRoot::open(Path::new("/proc")).unwrap()
    }

    #[test]
    fn who_does_nothing_uses_no_time_and_who_does_something_uses_some() {
        let mut shell = Command::new("/bin/sh");
        // Each line is something to do, and then it waits for the next.
        let command = shell.args(["-c", "while read -r line; do :; done"]);
        let root = proc();
        let (held, mut line) = std::io::pipe().unwrap();
        let child = Running::start(command.stdin(held).stdout(Stdio::null()));
        let time = || {
            std::thread::sleep(Duration::from_millis(50));
            root.cpu_time(child.pid()).unwrap()
        };
        let rest = || {
            let mut last = time();
            loop {
                let now = time();
                if now == last {
                    return now;
                }
                last = now;
            }
        };
        let before = rest();
        line.write_all(b"x\n").unwrap();
        // On a busy machine it may take a while until it gets to it.
        assert!((0..200).any(|_| time() > before));
    }

    #[test]
    fn the_clock_of_a_pid_is_that_of_its_process() {
        let root = proc();
        let own = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let nanos = |time: rustix::time::Timespec| {
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
        };
        let (before, seen) = (nanos(own()), root.cpu_time(std::process::id()));
        // Of other threads that run at this moment a tick may be missing.
        assert!(seen.unwrap() + Duration::from_millis(50) >= before);
        assert!(seen.unwrap() <= nanos(own()));
        let none = [u32::MAX, i32::MAX as u32];
        assert_eq!(none.map(|pid| root.cpu_time(pid)), [None, None]);
    }

    #[test]
    fn a_place_is_that_of_the_open_directory() {
        let root = proc();
        let pid = std::process::id();
        let place = root.place(pid).unwrap();
        let opened = root.process(pid).unwrap().owner(&root).unwrap();
        assert_eq!(opened, (true, Some(place)));
        assert_eq!(place.uid, rustix::process::geteuid().as_raw());
        assert_eq!(root.place(u32::MAX), None);
    }

    #[test]
    fn clocks_are_asked_only_about_pids_that_are_the_kernel_s_own() {
        let table: [(bool, &[u8], bool); 4] = [
            (true, b"Name:\tx\nNSpid:\t17\nVmPeak:\t1 kB\n", true),
            (true, b"Name:\tx\nNSpid:\t17\t1\n", false),
            (true, b"Name:\tx\n", false),
            (false, b"NSpid:\t17\n", false),
        ];
        for (is_genuine, status, has) in table {
            assert_eq!(has_clocks(is_genuine, status), has);
        }
    }
}
