//! What a process runs, and what became of that file.
//!
//! Decided from device and inode, looked up in the process's own root. The
//! link's text only says where to look: anybody can name a file
//! `x (deleted)`, and link counts say nothing while another hard link exists.
//! Nor does the text prove where the file lies (exe/reach.rs).
//! Never opens the file itself and never follows a link out of that root.

use std::os::fd::{AsFd, OwnedFd};

use procwarden_common::limits::PATH_BYTES_MAX;
use procwarden_common::process::{DELETED_SUFFIX, Exe, ExeState, UNREACHABLE_PREFIX};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::parse::words;
use super::{Failed, ProcessDir, parse};

pub(super) use lookups::Lookups;

mod lookups;
mod reach;

/// What the kernel puts before the name of a memory file.
const MEMFD_PREFIX: &[u8] = b"/memfd:";

/// Bytes of a memory map that are read for a path.
const MAPS_BYTES_MAX: usize = 128 * 1024;
/// The kernel shows shorter paths by the link.
const LONG_PATH_BYTES_MIN: usize = 3000;
/// What ends a path that is cut.
const CUT: &[u8] = b"/...";

/// A file can be replaced between two questions about it, and the kernel marks
/// its link then: so often the link is read again.
const READINGS_MAX: usize = 3;

/// Device and inode.
type FileId = (u64, u64);

/// The agent's own place, for comparison.
pub(crate) struct OwnView {
    /// Device of the kernel's mount for memory files, where known.
    memfd_dev: Option<u64>,
    root: Option<OwnedFd>,
    root_id: Option<FileId>,
    mount_namespace: Option<Vec<u8>>,
    user_namespace: Option<Vec<u8>>,
}

impl OwnView {
    /// Looks at the agent's own surroundings, once.
    pub(crate) fn look() -> Self {
        // All memory files of a kernel lie on one hidden mount: an own one
        // tells its device.
        let memfd_dev = rustix::fs::memfd_create("procwarden", rustix::fs::MemfdFlags::CLOEXEC)
            .and_then(rustix::fs::fstat)
            .ok()
            .map(|stat| stat.st_dev);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, "/", flags, Mode::empty()).ok();
        let root_id = root
            .as_ref()
            .and_then(|fd| rustix::fs::fstat(fd).ok())
            .map(|s| file_id(&s));
        let mount_namespace = super::read_link(CWD, "/proc/self/ns/mnt").ok();
        let user_namespace = super::read_link(CWD, "/proc/self/ns/user").ok();
        Self {
            memfd_dev,
            root,
            root_id,
            mount_namespace,
            user_namespace,
        }
    }
}

/// Reads the executable of a process.
///
/// # Errors
/// `Vanished` when there is none, `Refused` when the link cannot be read.
pub(crate) fn read(dir: &ProcessDir, own: &OwnView) -> Result<Exe, Failed> {
    read_next(dir, own, &mut Lookups::default())
}

/// As [`read`], with what was looked up for the processes just before.
///
/// # Errors
/// As [`read`].
pub(super) fn read_next(
    dir: &ProcessDir,
    own: &OwnView,
    lookups: &mut Lookups,
) -> Result<Exe, Failed> {
    let mut link = match dir.link("exe") {
        Err(Failed::Refused) => return read_long(dir),
        link => link?,
    };
    for _ in 1..READINGS_MAX {
        let exe = read_file(dir, own, lookups, link)?;
        if !exe.link.starts_with(UNREACHABLE_PREFIX) {
            return Ok(exe);
        }
        link = dir.link("exe")?;
        if exe.link == unreachable(&link) {
            return Ok(exe);
        }
    }
    read_file(dir, own, lookups, link)
}

/// The link alone, where looking at the file takes forever: then nothing says
/// that it leads there.
///
/// # Errors
/// As [`read`].
pub(super) fn read_link_only(dir: &ProcessDir) -> Result<Exe, Failed> {
    let link = dir.link("exe")?;
    let is_marked = link.ends_with(DELETED_SUFFIX);
    let exe = Exe {
        link,
        state: if is_marked {
            ExeState::Deleted
        } else {
            ExeState::Unknown
        },
        dev: 0,
        inode: 0,
        owner_uid: None,
        in_memory: false,
    };
    Ok(elsewhere(exe, None))
}

/// The file behind a link that was read just now. Most lead to their file in
/// the agent's own root, and then it need not be opened.
fn read_file(
    dir: &ProcessDir,
    own: &OwnView,
    lookups: &mut Lookups,
    link: Vec<u8>,
) -> Result<Exe, Failed> {
    if !link.ends_with(DELETED_SUFFIX)
        && let Ok(file) = dir.stat_of_target("exe")
        && lookups.lead_to(own, &link, &file)
    {
        return Ok(Exe {
            link,
            state: ExeState::Live,
            dev: file.st_dev,
            inode: file.st_ino,
            owner_uid: Some(file.st_uid),
            in_memory: false,
        });
    }
    read_opened(dir, own, link)
}

/// The same of a file that is held meanwhile.
fn read_opened(dir: &ProcessDir, own: &OwnView, link: Vec<u8>) -> Result<Exe, Failed> {
    let is_marked = link.ends_with(DELETED_SUFFIX);
    let mut exe = Exe {
        link,
        state: ExeState::Live,
        dev: 0,
        inode: 0,
        owner_uid: None,
        in_memory: false,
    };
    let fd = match dir.open("exe", OFlags::PATH) {
        Ok(fd) => fd,
        // The thread that showed the link has ended since: nothing says any
        // more that it leads there.
        Err(Failed::Vanished) if dir.is_of_the_kernel() => return Err(Failed::Vanished),
        // In a copy of /proc there is no such file.
        Err(Failed::Vanished) if !is_marked => return Ok(exe),
        Err(Failed::Vanished) if exe.link.starts_with(MEMFD_PREFIX) => {
            exe.state = ExeState::Memfd;
            return Ok(exe);
        }
        Err(Failed::Vanished) => {
            exe.state = ExeState::Deleted;
            return Ok(exe);
        }
        Err(Failed::Refused) => return Ok(elsewhere(exe, None)),
    };
    // A file system of an account (FUSE) tells root nothing.
    let Ok(file) = rustix::fs::fstat(&fd) else {
        return Ok(elsewhere(exe, Some(&fd)));
    };
    (exe.dev, exe.inode, exe.owner_uid) = (file.st_dev, file.st_ino, Some(file.st_uid));
    let is_reached = if is_marked {
        exe.state = state_of(dir, own, &exe.link, &file);
        exe.state == ExeState::Memfd || reach::was_at(dir, own, &exe, &file)
    } else {
        reach::is_at(dir, own, &exe.link, file_id(&file))
    };
    if is_reached {
        return Ok(exe);
    }
    if is_marked && file.st_nlink == 0 {
        // Its own mounts may lead there still.
        exe.state = ExeState::Deleted;
    }
    Ok(elsewhere(exe, Some(&fd)))
}

/// The same under a name that no rule about a path covers.
fn elsewhere(mut exe: Exe, file: Option<&OwnedFd>) -> Exe {
    exe.state = match exe.state {
        ExeState::Deleted | ExeState::Replaced => ExeState::Deleted,
        _ => ExeState::Unknown,
    };
    exe.link = unreachable(&exe.link);
    exe.in_memory = file.is_some_and(reach::is_in_memory);
    exe
}

/// The kernel's word for a path that leads nowhere, before what the process
/// calls it.
fn unreachable(path: &[u8]) -> Vec<u8> {
    let whole = [UNREACHABLE_PREFIX, path].concat();
    if whole.len() <= PATH_BYTES_MAX {
        return whole;
    }
    head(&whole, PATH_BYTES_MAX)
}

/// The head of a path, with what says that it was cut.
fn head(path: &[u8], bytes_max: usize) -> Vec<u8> {
    let head_bytes = bytes_max.saturating_sub(CUT.len());
    [path.get(..head_bytes).unwrap_or(path), CUT].concat()
}

/// The same with the beginning of its path alone, as of a path that is longer
/// than a page: its head says where the file lies, and no rule covers it.
pub(super) fn cut(exe: Exe, bytes_max: usize) -> Exe {
    let mut exe = if exe.link.starts_with(UNREACHABLE_PREFIX) {
        exe
    } else {
        elsewhere(exe, None)
    };
    exe.link = head(&exe.link, bytes_max);
    exe
}

/// The link shows no path that is longer than a page, and anybody can make
/// such a path; the memory map shows it. Its head says where the file lies,
/// and the end that is put to it keeps rules about file names from matching.
/// Nobody can look it up, so it counts as one that leads nowhere.
fn read_long(dir: &ProcessDir) -> Result<Exe, Failed> {
    let fd = dir.open("exe", OFlags::PATH)?;
    let file = rustix::fs::fstat(&fd)?;
    let maps = dir.read_pieces("maps", MAPS_BYTES_MAX)?;
    let lines = maps.split(|&b| b == b'\n');
    let path = lines
        .filter_map(|line| mapped_file(line, file.st_ino))
        .find(|path| path.len() >= LONG_PATH_BYTES_MIN)
        .ok_or(Failed::Refused)?;
    let state = if file.st_nlink == 0 {
        ExeState::Deleted
    } else {
        ExeState::Live
    };
    let exe = Exe {
        link: head(path, PATH_BYTES_MAX),
        state,
        dev: file.st_dev,
        inode: file.st_ino,
        owner_uid: Some(file.st_uid),
        in_memory: false,
    };
    Ok(elsewhere(exe, Some(&fd)))
}

/// The path of a line of a memory map, if the line is about this inode.
fn mapped_file(line: &[u8], inode: u64) -> Option<&[u8]> {
    // Addresses, rights, offset and device come before the inode.
    let number = words(line).nth(4)?;
    let path = line.get(line.iter().position(|&b| b == b'/')?..)?;
    (parse::number(number) == Some(inode)).then_some(path)
}

fn state_of(dir: &ProcessDir, own: &OwnView, link: &[u8], file: &Stat) -> ExeState {
    let running = file_id(file);
    let path = link.strip_suffix(DELETED_SUFFIX).unwrap_or(link);
    if path.starts_with(MEMFD_PREFIX)
        && own
            .memfd_dev
            .map_or(file.st_nlink == 0, |dev| dev == running.0)
    {
        return ExeState::Memfd;
    }
    let root = dir.open("root", OFlags::PATH | OFlags::DIRECTORY).ok();
    let root_id = root
        .as_ref()
        .and_then(|fd| rustix::fs::fstat(fd).ok())
        .map(|s| file_id(&s));
    let theirs = root.map(|fd| look_up(&fd, link, path, running));
    if theirs.is_some() && root_id.is_some() && root_id == own.root_id {
        return theirs.unwrap_or(ExeState::Unknown);
    }
    // Another root, or one that cannot be opened. The kernel gives the path
    // as the agent would write it, so for a process that changed its root
    // within the agent's mount namespace the agent's view is the right one.
    let ours = own.root.as_ref().map(|fd| look_up(fd, link, path, running));
    let same_mounts =
        own.mount_namespace.is_some() && dir.link("ns/mnt").ok() == own.mount_namespace;
    decide(theirs, ours, same_mounts)
}

/// Joins what the process's root and the agent's own view say. The same inode
/// is proof wherever it is found; otherwise the view that the path is
/// written for has the word.
fn decide(theirs: Option<ExeState>, ours: Option<ExeState>, same_mounts: bool) -> ExeState {
    if theirs == Some(ExeState::Live) || ours == Some(ExeState::Live) {
        return ExeState::Live;
    }
    let (first, second) = if same_mounts {
        (ours, theirs)
    } else {
        (theirs, ours)
    };
    match first {
        Some(state) if state != ExeState::Unknown => state,
        _ => second.unwrap_or(ExeState::Unknown),
    }
}

/// The state as one root shows it: the literal path with the suffix, then
/// without it.
fn look_up(root: &OwnedFd, link: &[u8], path: &[u8], running: FileId) -> ExeState {
    if is_file_at(root, link, running) {
        return ExeState::Live;
    }
    match file_at(root, path) {
        Ok(Some(file)) if file_id(&file) == running => ExeState::Live,
        Ok(Some(_)) => ExeState::Replaced,
        Ok(None) => ExeState::Deleted,
        Err(_) => ExeState::Unknown,
    }
}

/// Whether a path below `root` is this file.
fn is_file_at(root: &OwnedFd, path: &[u8], wanted: FileId) -> bool {
    matches!(file_at(root, path), Ok(Some(file)) if file_id(&file) == wanted)
}

/// The file of a path below `root`; nothing when there is no such file.
fn file_at(root: &OwnedFd, path: &[u8]) -> Result<Option<Stat>, Errno> {
    let relative = path
        .iter()
        .position(|&b| b != b'/')
        .map_or(&b""[..], |at| path.get(at..).unwrap_or_default());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(root.as_fd(), relative, flags, Mode::empty(), resolve);
    let found = match opened {
        Ok(fd) => rustix::fs::fstat(fd),
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            rustix::fs::statat(root.as_fd(), relative, AtFlags::SYMLINK_NOFOLLOW)
        }
        Err(errno) => Err(errno),
    };
    match found {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn file_id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_that_the_path_is_written_for_decides() {
        use ExeState::{Deleted, Live, Replaced, Unknown};
        let table = [
            (Some(Deleted), Some(Live), false, Live),
            (Some(Live), Some(Deleted), true, Live),
            (Some(Deleted), Some(Replaced), false, Deleted),
            (Some(Deleted), Some(Replaced), true, Replaced),
            (Some(Unknown), Some(Replaced), false, Replaced),
            (None, Some(Deleted), false, Deleted),
            (None, None, true, Unknown),
        ];
        for (theirs, ours, same_mounts, expected) in table {
            assert_eq!(
                decide(theirs, ours, same_mounts),
                expected,
                "{theirs:?} {ours:?} {same_mounts}"
            );
        }
    }
}
