//! The journal: append-only segment files that are the truth.
//!
//! **On disk.** A directory with a `lock` file and segments named by the
//! position of their first record, `<16 hex digits>.seg`. A segment begins with
//! its header, twice ([`segment`]), then records follow without a gap
//! ([`record`]): length, kind, checksum of the payload, checksum of the record's
//! own header, payload. Every checksum is a CRC-32C. The header's checksum
//! covers the record's position and the journal's random salt besides: bytes
//! that an agent sent can never be taken for a record, wherever they lie.
//!
//! **Positions** count record bytes over all segments. A position is never
//! given to two records, not even where a torn tail was cut in between.
//!
//! **Promises**
//! - What [`Journal::append_durably`] returned for survives kill -9 and power
//!   loss: one fdatasync covers every batch, a new segment is complete, synced
//!   and renamed into place before a record goes there, and its directory is
//!   synced too.
//! - A tail torn by a crash is cut at open and reported. It is a torn tail only
//!   if nothing valid follows it in the last segment and it is no longer than
//!   what a batch can leave behind.
//! - Damage anywhere else (bit rot) costs the records it touches and no other:
//!   readers go on at the next valid record, count the damage and log it once.
//!   Damaged bytes stay on the disk.
//! - Two processes never write: the lock is held while the journal is open.
//!
//! - Room is reserved before anything is written. Where there is none, the
//!   append fails with nothing done, [`Journal::can_wait`] says so, and it can be
//!   tried again.
//!
//! **Never** retries a failed write or fdatasync: the kernel may have dropped
//! the pages. The journal is poisoned, every later append fails, and the caller
//! ends the process. The next open writes the tail anew before it trusts it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

mod reader;
mod record;
mod recovery;
mod room;
mod segment;
#[cfg(test)]
mod tests;
mod window;

use reader::Shared;
pub(crate) use reader::{JournalReader, SegmentSpan};
pub(crate) use room::append_patiently;
use segment::Segment;

/// A segment that has grown to this size is closed.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Written between two fdatasyncs at most, but for the record that crosses it.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest payload of a record.
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a crash can leave unsynced: a longer bad tail is damage, not a torn tail.
const UNSYNCED_BYTES_MAX: u64 = (BATCH_BYTES_MAX + RECORD_BYTES_MAX + record::HEADER_BYTES) as u64;

/// A place in a journal: bytes of records since its beginning, over all
/// segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position(pub(crate) u64);

/// What `Journal::open` found in the segment that was written last. Older
/// segments are looked at when they are read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenReport {
    /// Bytes of a torn tail that were cut.
    pub(crate) cut_bytes: u64,
    /// Places that are damaged and are skipped by readers.
    pub(crate) damaged_records: u64,
}

/// One record of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) position: Position,
    pub(crate) next: Position,
    pub(crate) payload: Bytes,
}

/// The writing end: one per directory, guarded by a lock file.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    file: File,
    /// Position of the active segment's first record.
    first: u64,
    end: u64,
    segment_bytes: u64,
    buffer: Vec<u8>,
    /// Room in the active segment is reserved up to this position.
    reserved: u64,
    poison: Option<String>,
    /// Held, never read: its flock says that this journal has its writer.
    _lock: File,
}

impl Journal {
    /// Opens the journal of a directory, and makes both where they are missing.
    ///
    /// # Errors
    /// When another process has it open, when it was written by a newer
    /// version, or when the disk refuses.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, OpenReport)> {
        Self::open_with(dir, SEGMENT_BYTES)
    }

    /// [`Self::open`] with another size of segments.
    pub(crate) fn open_with(dir: &Path, segment_bytes: u64) -> io::Result<(Self, OpenReport)> {
        let lock = segment::lock(dir)?;
        let recovered = recovery::recover(dir)?;
        let report = recovered.report;
        if report.cut_bytes > 0 {
            tracing::warn!(
                journal = %dir.display(),
                bytes = report.cut_bytes,
                "Cut the torn tail of the journal: nothing in it had been confirmed.",
            );
        }
        let journal = Self {
            first: recovered.first,
            end: recovered.end,
            file: recovered.file,
            shared: Arc::new(Shared::new(dir, recovered.segments, recovered.end)),
            segment_bytes,
            buffer: Vec::new(),
            reserved: recovered.end,
            poison: None,
            _lock: lock,
        };
        Ok((journal, report))
    }

    /// Appends records, then makes them durable; several calls' worth of
    /// records in one call cost one fdatasync. Returns where each went.
    ///
    /// # Errors
    /// A payload that is empty or too long is refused and nothing is written;
    /// the same where there is no room, which [`Self::can_wait`] tells. After
    /// any other error the journal is poisoned: the process must end.
    pub(crate) fn append_durably(&mut self, payloads: &[Bytes]) -> io::Result<Vec<Position>> {
        if let Some(reason) = &self.poison {
            return Err(io::Error::other(format!(
                "the journal failed before: {reason}"
            )));
        }
        if let Some(bad) = payloads
            .iter()
            .find(|p| p.is_empty() || p.len() > RECORD_BYTES_MAX)
        {
            let text = format!("a record of {} bytes does not fit a journal", bad.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let begin = self.end;
        if let Err(error) = self.make_room(payloads) {
            return Err(self.refused(error));
        }
        self.append_all(payloads).inspect_err(|error| {
            let nothing_done = self.end == begin && error.kind() == ErrorKind::ReadOnlyFilesystem;
            self.buffer.clear();
            if !nothing_done {
                self.poison = Some(error.to_string());
            }
        })
    }

    fn append_all(&mut self, payloads: &[Bytes]) -> io::Result<Vec<Position>> {
        let mut positions = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let position = self.written_end();
            record::encode(
                self.shared.salt_of(self.first),
                position,
                payload,
                &mut self.buffer,
            );
            positions.push(Position(position));
            if self.buffer.len() >= BATCH_BYTES_MAX {
                self.write_buffer()?;
            }
        }
        self.write_buffer()?;
        Ok(positions)
    }

    /// Begins a new segment where one is due, and reserves the room that the
    /// records take. What is written together lies in one segment.
    fn make_room(&mut self, payloads: &[Bytes]) -> io::Result<()> {
        if !payloads.is_empty() && self.segment_is_full() {
            self.rotate()?;
        }
        let bytes: usize = payloads
            .iter()
            .map(|p| record::HEADER_BYTES + p.len())
            .sum();
        let needed = self.end + bytes as u64;
        if needed <= self.reserved {
            return Ok(());
        }
        let from = segment::HEADER_BYTES + (self.end - self.first);
        let path = || self.shared.path_of(self.first);
        let reserved = room::reserve(&self.file, from, bytes as u64)
            .map_err(|e| segment::failed("reserve room in", &path(), &e))?;
        self.reserved = self.end + reserved;
        Ok(())
    }

    /// An error before anything was written: only one that may pass does no
    /// harm.
    fn refused(&mut self, error: io::Error) -> io::Error {
        if !room::may_pass(&error) {
            self.poison = Some(error.to_string());
        }
        error
    }

    /// Whether an append that failed so did nothing, for want of room.
    pub(crate) fn can_wait(&self, error: &io::Error) -> bool {
        self.poison.is_none() && room::may_pass(error)
    }

    /// Where the next record goes, once what is buffered is written.
    fn written_end(&self) -> u64 {
        self.end + self.buffer.len() as u64
    }

    fn segment_is_full(&self) -> bool {
        self.written_end() - self.first >= self.segment_bytes
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let path = || self.shared.path_of(self.first);
        let offset = segment::HEADER_BYTES + (self.end - self.first);
        self.file
            .write_all_at(&self.buffer, offset)
            .map_err(|e| segment::failed("write to", &path(), &e))?;
        let begin = Instant::now();
        self.file
            .sync_data()
            .map_err(|e| segment::failed("sync", &path(), &e))?;
        self.shared.syncs().observe(begin.elapsed().as_secs_f64());
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BATCH_BYTES_MAX);
        self.shared.publish_end(self.end);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = Segment {
            first: self.end,
            salt: self.shared.id(),
            cut_before: 0,
            end: None,
        };
        let file = segment::create(self.shared.dir(), &next)?;
        room::give_back(&self.file);
        self.file = file;
        self.shared.begin_segment(next, self.end);
        self.first = self.end;
        self.reserved = self.end;
        Ok(())
    }

    /// Removes the closed segments that lie before a position as a whole.
    /// Returns how many.
    pub(crate) fn drop_segments_before(&mut self, position: Position) -> io::Result<usize> {
        let dropped = self.shared.forget_segments_before(position.0);
        for first in &dropped {
            let path = self.shared.path_of(*first);
            std::fs::remove_file(&path).map_err(|e| segment::failed("remove", &path, &e))?;
        }
        if !dropped.is_empty() {
            segment::sync_dir(self.shared.dir())?;
        }
        Ok(dropped.len())
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> Position {
        Position(self.end)
    }

    /// A reading end for other threads.
    pub(crate) fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.shared))
    }

    /// Makes every later write fail, as a full disk does.
    #[cfg(test)]
    pub(crate) fn fail_writes(&mut self) {
        self.file = File::options().write(true).open("/dev/full").unwrap();
    }
}

/// Path of the segment that begins at a position.
fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(segment::file_name(first))
}
