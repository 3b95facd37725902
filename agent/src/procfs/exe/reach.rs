//! Whether the path of an executable leads to it for others than the process.
//!
//! The kernel writes a path as the mounts make it, and in a user namespace of
//! its own every account may mount its file over `/usr/sbin/anything`. What it
//! mounted there can be run from outside as well, through `/proc/PID/root` or
//! a descriptor that was handed over, so the namespaces of a process alone
//! prove nothing. A path is believed where it leads to the very file in the
//! agent's own root, or in the root of a process in the agent's user
//! namespace: nobody but root puts one there. So containers of root keep
//! their paths, and those of ordinary accounts do not.

use std::os::fd::OwnedFd;

use procwarden_common::process::{DELETED_SUFFIX, Exe, ExeState};
use rustix::fs::{OFlags, Stat};

use super::{FileId, OwnView, file_at, is_file_at};
use crate::procfs::ProcessDir;

/// Types of file systems in memory (include/uapi/linux/magic.h).
const MEMORY_MAGIC: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether the path leads to the file.
pub(super) fn is_at(dir: &ProcessDir, own: &OwnView, path: &[u8], running: FileId) -> bool {
    is_in_own_root(own, path, running)
        || (is_in_own_user_namespace(dir, own) && is_in_its_root(dir, path, running))
}

/// Whether the path of a file that the kernel calls unlinked may have led to
/// it. Then there is nothing to compare with but the owner: who replaces a
/// file in its place has the same one, or it was root's before.
pub(super) fn was_at(dir: &ProcessDir, own: &OwnView, exe: &Exe, file: &Stat) -> bool {
    let path = exe.link.strip_suffix(DELETED_SUFFIX).unwrap_or(&exe.link);
    if !is_in_own_user_namespace(dir, own) {
        let running = (file.st_dev, file.st_ino);
        return is_in_own_root(own, &exe.link, running) || is_in_own_root(own, path, running);
    }
    if exe.state != ExeState::Replaced || file.st_uid == 0 {
        return true;
    }
    let ours = own.root.as_ref().map(|root| file_at(root, path));
    !matches!(ours, Some(Ok(Some(now))) if now.st_uid != file.st_uid)
}

/// Whether a file lies on a file system in memory.
pub(super) fn is_in_memory(file: &OwnedFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| {
        let kind = u64::try_from(fs.f_type).unwrap_or(0) & u64::from(u32::MAX);
        MEMORY_MAGIC.contains(&kind)
    })
}

fn is_in_own_root(own: &OwnView, path: &[u8], running: FileId) -> bool {
    own.root
        .as_ref()
        .is_some_and(|root| is_file_at(root, path, running))
}

fn is_in_its_root(dir: &ProcessDir, path: &[u8], running: FileId) -> bool {
    dir.open("root", OFlags::PATH | OFlags::DIRECTORY)
        .is_ok_and(|root| is_file_at(&root, path, running))
}

/// A kernel without user namespaces has a link for nobody.
fn is_in_own_user_namespace(dir: &ProcessDir, own: &OwnView) -> bool {
    dir.link("ns/user").ok() == own.user_namespace
}
