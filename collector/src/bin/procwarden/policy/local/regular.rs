//! Files that others name: an Include line can name a FIFO, which has the
//! reader wait for a writer, or a device without an end.
//!
//! Promises: opening waits for nobody, and what is no regular file is not read.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// For opening what may be a FIFO or a terminal.
pub(super) const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Opens a file when it is a regular one.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let opened = rustix::fs::open(path, FLAGS, Mode::empty());
    only(opened.map_err(reason)?.into())
}

/// Gives an open file back when it is a regular one.
pub(super) fn only(file: File) -> io::Result<File> {
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(irregular()),
    }
}

/// Why a file could not be opened with [`FLAGS`]. Sockets, and devices without
/// a driver, cannot be opened at all.
pub(super) fn reason(errno: Errno) -> io::Error {
    match errno {
        Errno::NXIO | Errno::NODEV => irregular(),
        errno => errno.into(),
    }
}

fn irregular() -> io::Error {
    io::Error::other("it is a directory, FIFO, socket or device; name a regular file")
}
