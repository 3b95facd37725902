//! One file of the spool: names, reading, appending, rewriting.
//!
//! A segment is named `<first sequence>-<salt>.pws1` (20 decimal and 16
//! hexadecimal digits) and holds nothing but records (see `record.rs`), in
//! rising order of their sequence numbers.
//!
//! Promises: an append that returned is on the disk (fdatasync); one that
//! failed leaves the file as it was, or says that the file must not be
//! appended to any more. A rewrite replaces the file whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::{self, Salt};
use crate::files::{self, FileError};

const SUFFIX: &str = ".pws1";

/// What identifies a segment: everything its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    /// No record in it has a lower sequence number.
    pub(crate) first: u64,
    /// What its checksums begin with.
    pub(crate) salt: Salt,
}

impl SegmentId {
    /// Its file.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}-{:016x}{SUFFIX}", self.first, self.salt))
    }

    /// The segment that a file name names.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (first, salt) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        if first.len() != 20 || salt.len() != 16 {
            return None;
        }
        Some(Self {
            first: first.parse().ok()?,
            salt: Salt::from_str_radix(salt, 16).ok()?,
        })
    }
}

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: SegmentId,
    /// Bytes of whole records.
    pub(crate) bytes: u64,
    file: File,
    path: PathBuf,
    /// A failed write could not be undone: what lies behind `bytes` is
    /// unknown, and nothing may be written behind it.
    pub(crate) spoilt: bool,
}

impl Active {
    /// Makes an empty segment; its name is durable when this returns.
    pub(crate) fn create(dir: &Path, id: SegmentId) -> Result<Self, FileError> {
        let path = id.path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| FileError::new("create", &path, e))?;
        files::sync_dir(dir)?;
        Ok(Self {
            id,
            bytes: 0,
            file,
            path,
            spoilt: false,
        })
    }

    /// Opens a segment to go on behind its last whole record. What was read
    /// from it is on the disk when this returns: an agent that was killed
    /// before its fdatasync leaves records in the page cache alone.
    pub(crate) fn reopen(dir: &Path, id: SegmentId, bytes: u64) -> Result<Self, FileError> {
        let path = id.path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| FileError::new("open", &path, e))?;
        let active = Self {
            id,
            bytes,
            file,
            path,
            spoilt: false,
        };
        active
            .cut()
            .and_then(|()| active.file.sync_data())
            .map_err(|e| FileError::new("keep the whole records of", &active.path, e))?;
        Ok(active)
    }

    /// Appends whole records and waits for the disk. Returns the offset of
    /// the first byte.
    pub(crate) fn append(&mut self, records: &[u8]) -> Result<u64, FileError> {
        let at = self.bytes;
        let written = self
            .file
            .write_all_at(records, at)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += records.len() as u64;
                Ok(at)
            }
            Err(e) => {
                self.spoilt = self.cut().is_err();
                Err(FileError::new("append to", &self.path, e))
            }
        }
    }

    fn cut(&self) -> io::Result<()> {
        if self.file.metadata()?.len() == self.bytes {
            return Ok(());
        }
        self.file.set_len(self.bytes)?;
        self.file.sync_all()
    }
}

/// Every segment in the directory, oldest first. Left-overs of interrupted
/// rewrites are removed.
pub(crate) fn list(dir: &Path) -> Result<Vec<SegmentId>, FileError> {
    let failed = |e| FileError::new("list", dir, e);
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(id) = SegmentId::of_name(name) {
            ids.push(id);
        } else if name.ends_with(".new") {
            remove_file(&dir.join(name))?;
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// All bytes of a segment.
pub(crate) fn read(dir: &Path, id: SegmentId) -> Result<Vec<u8>, FileError> {
    let path = id.path(dir);
    let mut bytes = Vec::new();
    open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|e| FileError::new("read", &path, e))?;
    Ok(bytes)
}

/// Reads records here and there. The file that was read last stays open:
/// whoever reads in the order of sequences opens each segment once.
pub(crate) struct Reader<'d> {
    dir: &'d Path,
    open: Option<(SegmentId, File)>,
}

impl<'d> Reader<'d> {
    pub(crate) const fn new(dir: &'d Path) -> Self {
        Self { dir, open: None }
    }

    /// `bytes` bytes of a segment from `offset`.
    pub(crate) fn read_at(
        &mut self,
        id: SegmentId,
        offset: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, FileError> {
        let path = id.path(self.dir);
        let failed = |e| FileError::new("read", &path, e);
        let mut out = vec![0; bytes];
        let file = match self.open.take() {
            Some((open, file)) if open == id => file,
            Some(_) | None => open(&path).map_err(failed)?,
        };
        let (_, file) = self.open.insert((id, file));
        file.read_exact_at(&mut out, offset).map_err(failed)?;
        Ok(out)
    }
}

#[cfg(test)]
thread_local! {
    /// As if the host had no descriptor to spare.
    pub(super) static IS_WITHOUT_DESCRIPTORS: std::cell::Cell<bool> =
        const { std::cell::Cell::new(false) };
}

fn open(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    if IS_WITHOUT_DESCRIPTORS.get() {
        return Err(rustix::io::Errno::MFILE.into());
    }
    File::open(path)
}

/// Puts other records in the place of a segment's, whole or not at all.
pub(crate) fn rewrite<'a>(
    dir: &Path,
    id: SegmentId,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u64>, FileError> {
    let mut bytes = Vec::new();
    let mut offsets = Vec::new();
    for payload in payloads {
        offsets.push(bytes.len() as u64);
        record::encode(id.salt, payload, &mut bytes);
    }
    files::replace(&id.path(dir), &bytes)?;
    Ok(offsets)
}

/// Removes a segment. Not waiting for the disk is harmless: after a power
/// loss its records are there again, and are removed again.
pub(crate) fn remove(dir: &Path, id: SegmentId) -> Result<(), FileError> {
    remove_file(&id.path(dir))
}

fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(FileError::new("remove", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_first_sequence_and_salt() {
        let id = SegmentId {
            first: 17,
            salt: 0xab,
        };
        let path = id.path(Path::new("/s"));
        assert_eq!(
            path,
            Path::new("/s/00000000000000000017-00000000000000ab.pws1")
        );
        assert_eq!(
            SegmentId::of_name(path.file_name().unwrap().to_str().unwrap()),
            Some(id)
        );
        for other in [
            "x",
            "17-ab.pws1",
            "00000000000000000017-00000000000000ab.pws1.new",
            "-.pws1",
        ] {
            assert_eq!(SegmentId::of_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_failed_append_leaves_the_file_or_spoils_it() {
        let dir = tempfile::tempdir().unwrap();
        let id = SegmentId { first: 1, salt: 2 };
        let mut active = Active::create(dir.path(), id).unwrap();
        assert_eq!(active.append(b"abc").unwrap(), 0);
        active.file = File::open(id.path(dir.path())).unwrap();
        assert!(active.append(b"def").is_err());
        assert!(!active.spoilt);
        assert_eq!(active.bytes, 3);
        assert_eq!(read(dir.path(), id).unwrap(), b"abc");
    }
}
