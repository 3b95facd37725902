//! What suspects run: identity of the file, and its SHA-256.
//!
//! Promises: a file is read once, however many processes run it, and all of
//! them together cost bounded time: an account can start a thousand copies of
//! a file that is big and full of holes. What is over a bound has no digest.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::ExeFile;
use rustix::fs::{OFlags, Stat};
use sha2::{Digest, Sha256};

use crate::procfs::ProcessDir;

/// Bytes of one file that are read.
const EXE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of all files of one scan that are read.
const SCAN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One content of one file: device, inode, size, times of its last changes.
type Version = (u64, u64, i64, (i64, i64), (i64, i64));

/// The digests of one scan.
pub(super) struct Digests {
    known: HashMap<Version, Option<[u8; 32]>>,
    bytes_left: u64,
}

impl Default for Digests {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            bytes_left: SCAN_BYTES_MAX,
        }
    }
}

impl Digests {
    /// The file that a process runs, deleted or not, and its digest: both
    /// through one descriptor, so they are of the same file.
    pub(super) fn of_exe(&mut self, dir: &ProcessDir) -> (Option<ExeFile>, Option<[u8; 32]>) {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let Ok(fd) = dir.open("exe", flags) else {
            return (None, None);
        };
        let file = rustix::fs::fstat(&fd).ok().map(|stat| exe_file(&stat));
        (file, self.of(fd))
    }

    fn of(&mut self, fd: OwnedFd) -> Option<[u8; 32]> {
        let stat = rustix::fs::fstat(&fd).ok()?;
        let version = version(&stat);
        if let Some(known) = self.known.get(&version) {
            return *known;
        }
        let size = u64::try_from(stat.st_size).ok()?;
        if size > EXE_BYTES_MAX || size > self.bytes_left {
            return None;
        }
        self.bytes_left -= size;
        let digest = read(fd, size);
        self.known.insert(version, digest);
        digest
    }
}

fn exe_file(stat: &Stat) -> ExeFile {
    let millis = i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1_000_000;
    ExeFile {
        device_major: rustix::fs::major(stat.st_dev),
        device_minor: rustix::fs::minor(stat.st_dev),
        inode: stat.st_ino,
        owner_uid: stat.st_uid,
        mode: stat.st_mode,
        modified_at: UnixMillis(stat.st_mtime.saturating_mul(1000).saturating_add(millis)),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

fn version(stat: &Stat) -> Version {
    // Its type differs between architectures.
    let nanos = |nanos| i64::try_from(nanos).unwrap_or(0);
    (
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        (stat.st_mtime, nanos(stat.st_mtime_nsec)),
        (stat.st_ctime, nanos(stat.st_ctime_nsec)),
    )
}

/// Nothing when the file is not what it was when its size was asked for.
fn read(fd: OwnedFd, size: u64) -> Option<[u8; 32]> {
    let mut file = std::fs::File::from(fd).take(size.saturating_add(1));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(buffer.get(..count)?),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    (file.limit() > 0).then(|| hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_file_is_read_once_and_all_files_together_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "content").unwrap();
        std::fs::write(&two, "more content").unwrap();
        let mut digests = Digests {
            bytes_left: 10,
            ..Digests::default()
        };
        let expected: [u8; 32] = Sha256::digest("content").into();
        for _ in 0..3 {
            assert_eq!(digests.of(open(&one)), Some(expected));
        }
        assert_eq!(digests.bytes_left, 3);
        assert_eq!(digests.of(open(&two)), None);
    }

    #[test]
    fn a_big_file_full_of_holes_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holes");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(EXE_BYTES_MAX + 1).unwrap();
        let mut digests = Digests::default();
        assert_eq!(digests.of(open(&path)), None);
        assert_eq!(digests.bytes_left, SCAN_BYTES_MAX);
    }
}
