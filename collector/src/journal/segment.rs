//! Segment files: their names, headers, creation and the directory's lock.
//!
//! ```text
//! magic 8 | version u32 | 0 u32 | first position u64 | salt u64 | cut before u64 | 0 .. | CRC u32
//! ```
//!
//! 64 bytes, little-endian, written twice in a row: one damaged copy is no
//! loss. `cut before` counts the positions in front of this segment that were
//! given up with a torn tail.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::record::{u32_at, u64_at};
use super::segment_path;

const MAGIC: &[u8; 8] = b"PWJRNL\r\n";
const VERSION: u32 = 1;
const COPY_BYTES: usize = 64;

/// Bytes in front of the first record.
pub(super) const HEADER_BYTES: u64 = 2 * COPY_BYTES as u64;

/// What is known of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Position of its first record.
    pub(super) first: u64,
    /// Random number of the journal that made it.
    pub(super) salt: u64,
    /// Positions in front of it that hold nothing by design.
    pub(super) cut_before: u64,
    /// End of its records; nothing while it is written to.
    pub(super) end: Option<u64>,
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderReading {
    /// One copy or both are good.
    Good {
        first: u64,
        salt: u64,
        cut_before: u64,
    },
    /// A later version of this program wrote it.
    Newer(u32),
    /// Both copies are damaged.
    Damaged,
}

/// Name of the file of a segment.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:016x}.seg")
}

/// First position of the segment that a file name names.
fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (file_name(first) == name).then_some(first)
}

fn encode_header(segment: &Segment) -> Vec<u8> {
    let mut copy = Vec::with_capacity(COPY_BYTES);
    copy.extend_from_slice(MAGIC);
    copy.extend_from_slice(&VERSION.to_le_bytes());
    copy.extend_from_slice(&[0; 4]);
    copy.extend_from_slice(&segment.first.to_le_bytes());
    copy.extend_from_slice(&segment.salt.to_le_bytes());
    copy.extend_from_slice(&segment.cut_before.to_le_bytes());
    copy.resize(COPY_BYTES - 4, 0);
    copy.extend_from_slice(&crc32c::crc32c(&copy).to_le_bytes());
    copy.repeat(2)
}

/// Reads the header in the first [`HEADER_BYTES`] of a file.
pub(super) fn parse_header(bytes: &[u8]) -> HeaderReading {
    bytes
        .chunks(COPY_BYTES)
        .take(2)
        .find_map(parse_copy)
        .unwrap_or(HeaderReading::Damaged)
}

fn parse_copy(copy: &[u8]) -> Option<HeaderReading> {
    let (fields, crc) = copy.split_at_checked(COPY_BYTES - 4)?;
    if !fields.starts_with(MAGIC) || u32_at(crc, 0)? != crc32c::crc32c(fields) {
        return None;
    }
    let version = u32_at(fields, 8)?;
    if version != VERSION {
        return Some(HeaderReading::Newer(version));
    }
    Some(HeaderReading::Good {
        first: u64_at(fields, 16)?,
        salt: u64_at(fields, 24)?,
        cut_before: u64_at(fields, 32)?,
    })
}

/// First positions of the segments of a directory, oldest first. What an
/// interrupted creation left is removed.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| failed("list", dir, &e))? {
        let entry = entry.map_err(|e| failed("list", dir, &e))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if name.ends_with(".seg.new") {
            std::fs::remove_file(entry.path()).map_err(|e| failed("remove", &entry.path(), &e))?;
        } else if let Some(first) = parse_file_name(&name) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes an empty segment: it appears under its name complete and durable.
pub(super) fn create(dir: &Path, segment: &Segment) -> io::Result<File> {
    let path = segment_path(dir, segment.first);
    let new = path.with_extension("seg.new");
    let made = || -> io::Result<File> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&encode_header(segment))?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        Ok(file)
    };
    let file = made().map_err(|e| failed("create", &path, &e))?;
    sync_dir(dir)?;
    Ok(file)
}

/// Makes the directory where it is missing and takes its lock.
pub(super) fn lock(dir: &Path) -> io::Result<File> {
    if !dir.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| failed("create", dir, &e))?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
    }
    let path = dir.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(|e| failed("open", &path, &e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!(
                "{} is in use by another collector: stop it first",
                dir.display()
            ),
        )),
        Err(error) => Err(failed("lock", &path, &error.into())),
    }
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| failed("sync", dir, &e))
}

/// An error that names the file and, for a full disk, the next step.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": make room on that file system"
        }
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot {what} {}: {error}{hint}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Segment = Segment {
        first: 0xabc,
        salt: 5,
        cut_before: 3,
        end: None,
    };

    #[test]
    fn either_copy_of_the_header_is_enough() {
        let good = HeaderReading::Good {
            first: 0xabc,
            salt: 5,
            cut_before: 3,
        };
        let bytes = encode_header(&SEGMENT);
        assert_eq!(bytes.len() as u64, HEADER_BYTES);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert_eq!(parse_header(&bad), good, "byte {at}");
        }
        assert_eq!(parse_header(&[0; 128]), HeaderReading::Damaged);
        assert_eq!(parse_header(&bytes[..60]), HeaderReading::Damaged);
    }

    #[test]
    fn file_names_parse_from_the_form_they_are_made_in() {
        assert_eq!(parse_file_name(&file_name(0xabc)), Some(0xabc));
        for name in [
            "abc.seg",
            "0000000000000ABC.seg",
            "0000000000000abc.seg.new",
            "lock",
            ".seg",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
