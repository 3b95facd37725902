//! Bounded reads of files, links and directories below an open one.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use procwarden_common::limits::PATH_BYTES_MAX;
use rustix::io::Errno;

use super::Failed;

/// First read of a file; most fit, and one read then gets all.
const FIRST_READ_BYTES: usize = 4096;
/// Bytes of directory entries that are fetched at once.
const ENTRIES_BYTES: usize = 8192;

/// The target of a link below an open directory.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_link(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<Vec<u8>, Failed> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); PATH_BYTES_MAX];
    let (target, _) = rustix::fs::readlinkat_raw(dir, name, &mut buffer)?;
    Ok(target.to_vec())
}

/// Calls `visit` with the name of each entry until it says false; at most
/// `entries_max` entries. True when there were more than that.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn each_entry(
    dir: impl AsFd,
    entries_max: usize,
    mut visit: impl FnMut(&[u8]) -> bool,
) -> Result<bool, Failed> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); ENTRIES_BYTES];
    let mut entries = rustix::fs::RawDir::new(dir, &mut buffer);
    let mut seen = 0;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if seen == entries_max {
            return Ok(true);
        }
        seen += 1;
        if !visit(name) {
            break;
        }
    }
    Ok(false)
}

/// What ends a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The kernel hands the file over in one piece.
    ShortRead,
    /// It comes in pieces.
    End,
}

/// Reads at most `bytes_max` into `buffer`; true when there was more.
///
/// # Errors
/// When a read fails.
pub(super) fn read_bounded(
    fd: &OwnedFd,
    bytes_max: usize,
    until: Until,
    buffer: &mut Vec<u8>,
) -> Result<bool, Failed> {
    buffer.clear();
    while buffer.len() <= bytes_max {
        buffer.reserve(buffer.len().max(FIRST_READ_BYTES));
        let room = buffer.capacity() - buffer.len();
        let count = match rustix::io::read(fd, rustix::buffer::spare_capacity(buffer)) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if count == 0 || (until == Until::ShortRead && count < room) {
            break;
        }
    }
    let more = buffer.len() > bytes_max;
    buffer.truncate(bytes_max);
    Ok(more)
}
