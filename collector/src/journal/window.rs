//! A segment file, looked at through a window of memory: one record after the
//! other, and over damage to the next valid one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, HEADER_BYTES as RECORD_HEADER_BYTES};
use super::segment::{HEADER_BYTES as SEGMENT_HEADER_BYTES, Segment};
use super::{JournalEntry, Position};

/// Bytes that are read ahead.
const WINDOW_BYTES: usize = 256 * 1024;
/// Bytes that are read for a single record, unless it is longer.
const SINGLE_BYTES: usize = 4096;

/// What lies at a position of a segment.
pub(super) enum Step {
    Record(JournalEntry),
    /// Nothing valid up to `next`.
    Damaged {
        next: u64,
    },
    End,
}

/// A segment file with a part of it in memory.
pub(super) struct SegmentWindow {
    file: Arc<File>,
    segment: Segment,
    read_ahead: usize,
    /// Position of the first byte of `bytes`.
    at: u64,
    bytes: Vec<u8>,
}

impl SegmentWindow {
    /// For reading one record after the other.
    pub(super) fn new(file: Arc<File>, segment: Segment) -> Self {
        Self {
            file,
            segment,
            read_ahead: WINDOW_BYTES,
            at: 0,
            bytes: Vec::new(),
        }
    }

    /// For reading a single record.
    pub(super) fn exact(file: Arc<File>, segment: Segment) -> Self {
        Self {
            read_ahead: SINGLE_BYTES,
            ..Self::new(file, segment)
        }
    }

    /// Position of the segment's first record.
    pub(super) fn first(&self) -> u64 {
        self.segment.first
    }

    /// Looks at `at`; nothing at or behind `limit` is read.
    pub(super) fn step(&mut self, at: u64, limit: u64) -> io::Result<Step> {
        if at >= limit {
            return Ok(Step::End);
        }
        let salt = self.segment.salt;
        let header = self.slice(at, RECORD_HEADER_BYTES, limit)?;
        let Some(header) = header.and_then(|bytes| record::parse_header(salt, at, bytes)) else {
            return Ok(Step::Damaged {
                next: self.find_record(at + 1, limit)?,
            });
        };
        let payload_at = at + RECORD_HEADER_BYTES as u64;
        let Some(payload) = self.slice(payload_at, header.length, limit)? else {
            return Ok(Step::Damaged { next: limit });
        };
        let next = at + header.record_bytes();
        if !header.covers(payload) {
            return Ok(Step::Damaged { next });
        }
        let payload = Bytes::copy_from_slice(payload);
        Ok(Step::Record(JournalEntry {
            position: Position(at),
            next: Position(next),
            payload,
        }))
    }

    /// The next place that holds the header of a record, or `limit`.
    fn find_record(&mut self, from: u64, limit: u64) -> io::Result<u64> {
        let salt = self.segment.salt;
        for at in from..limit {
            match self.slice(at, RECORD_HEADER_BYTES, limit)? {
                None => break,
                Some(bytes) if record::parse_header(salt, at, bytes).is_some() => return Ok(at),
                Some(_) => {}
            }
        }
        Ok(limit)
    }

    /// Bytes of the segment; nothing when they reach behind `limit` or the end
    /// of the file.
    fn slice(&mut self, at: u64, length: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        if at + length as u64 > limit {
            return Ok(None);
        }
        let held = self.at..self.at + self.bytes.len() as u64;
        if at < held.start || at + length as u64 > held.end {
            self.load(at, length, limit)?;
        }
        let start = usize::try_from(at - self.at).unwrap_or(usize::MAX);
        Ok(self.bytes.get(start..).and_then(|rest| rest.get(..length)))
    }

    fn load(&mut self, at: u64, length: usize, limit: u64) -> io::Result<()> {
        let room = usize::try_from(limit - at).unwrap_or(usize::MAX);
        self.bytes.resize(length.max(self.read_ahead).min(room), 0);
        self.at = at;
        let offset = SEGMENT_HEADER_BYTES + (at - self.segment.first);
        let mut filled = 0;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}
