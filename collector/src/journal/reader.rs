//! Reading a journal, from any thread, while it grows.
//!
//! Promises: sees durable records only; a damaged record is skipped, counted
//! and logged once, and never ends the reading. Open files are bounded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;

use super::segment::{self, HEADER_BYTES as SEGMENT_HEADER_BYTES, Segment};
use super::window::{SegmentWindow, Step};
use super::{JournalEntry, Position, segment_path};
use crate::metrics;

/// Segment files that stay open for reading.
const OPEN_FILES_MAX: usize = 16;
/// Damaged places that are remembered, so that each is counted once.
const DAMAGED_MAX: usize = 100_000;

/// What writer and readers share.
pub(super) struct Shared {
    dir: PathBuf,
    /// Oldest first, never empty; the last one is active.
    segments: RwLock<Vec<Segment>>,
    /// End of what is durable. Readers never look behind it.
    end: AtomicU64,
    damaged: Mutex<BTreeSet<u64>>,
    /// Last used last.
    files: Mutex<Vec<(u64, Arc<File>)>>,
    id: u64,
    syncs: Histogram,
}

impl Shared {
    pub(super) fn new(dir: &Path, segments: Vec<Segment>, end: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            id: segments.last().map_or(0, |s| s.salt),
            segments: RwLock::new(segments),
            end: AtomicU64::new(end),
            damaged: Mutex::default(),
            files: Mutex::default(),
            syncs: metrics::latency_seconds(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn path_of(&self, first: u64) -> PathBuf {
        segment_path(&self.dir, first)
    }

    pub(super) fn salt_of(&self, first: u64) -> u64 {
        self.with_segments(|all| all.iter().find(|s| s.first == first).map_or(0, |s| s.salt))
    }

    /// How long fdatasync takes, in seconds.
    pub(super) fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    pub(super) fn publish_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Closes the active segment at `end` and adds the next one.
    pub(super) fn begin_segment(&self, next: Segment, end: u64) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = segments.last_mut() {
            last.end = Some(end);
        }
        segments.push(next);
    }

    /// Takes closed segments that end at or before `position` off the list.
    pub(super) fn forget_segments_before(&self, position: u64) -> Vec<u64> {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let is_old = |s: &&Segment| s.end.is_some_and(|end| end <= position);
        let dropped: Vec<u64> = segments
            .iter()
            .take_while(is_old)
            .map(|s| s.first)
            .collect();
        segments.drain(..dropped.len());
        lock(&self.files).retain(|(first, _)| !dropped.contains(first));
        dropped
    }

    fn with_segments<R>(&self, look: impl FnOnce(&[Segment]) -> R) -> R {
        look(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The segment that holds `at`, or the next one that holds anything behind
    /// it, and the end of what may be read there. Counts what is missing in
    /// between.
    fn segment_at(&self, at: u64) -> Option<(Segment, u64)> {
        let durable = self.end.load(Ordering::Acquire);
        let (found, lost) = self.with_segments(|all| {
            let end_of = |s: &Segment| s.end.unwrap_or(durable).min(durable);
            let index = all.iter().position(|s| end_of(s) > at)?;
            let segment = *all.get(index)?;
            let begins = segment.first.saturating_sub(segment.cut_before);
            // In front of the oldest segment retention was at work: no loss.
            let lost = (index > 0 && begins > at).then_some(at);
            Some(((segment, end_of(&segment)), lost))
        })?;
        if let Some(at) = lost {
            self.count_damage(at, found.0.first);
        }
        Some(found)
    }

    fn open_file(&self, first: u64) -> io::Result<Arc<File>> {
        let mut files = lock(&self.files);
        if let Some(index) = files.iter().position(|(f, _)| *f == first) {
            let entry = files.remove(index);
            let file = Arc::clone(&entry.1);
            files.push(entry);
            return Ok(file);
        }
        let path = self.path_of(first);
        let file = File::open(&path).map_err(|e| segment::failed("read", &path, &e))?;
        let file = Arc::new(file);
        if files.len() >= OPEN_FILES_MAX {
            files.remove(0);
        }
        files.push((first, Arc::clone(&file)));
        Ok(file)
    }

    fn count_damage(&self, at: u64, next: u64) {
        let mut damaged = lock(&self.damaged);
        if damaged.len() < DAMAGED_MAX && damaged.insert(at) {
            tracing::error!(
                journal = %self.dir.display(),
                position = at,
                bytes = next.saturating_sub(at),
                "The journal is damaged here: went on at the next valid record.",
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a segment's records lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentSpan {
    pub(crate) first: Position,
    pub(crate) end: Position,
}

/// A segment file as it is to be copied.
pub(crate) struct SegmentPart {
    pub(crate) name: String,
    pub(crate) file: File,
    /// Up to the end of its last durable record.
    pub(crate) bytes: u64,
}

/// The reading end; cheap to clone, sees what is durable.
#[derive(Clone)]
pub(crate) struct JournalReader {
    shared: Arc<Shared>,
}

impl JournalReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The record at a position that a writer or reader returned.
    ///
    /// # Errors
    /// `NotFound` when retention dropped it, `InvalidData` when it is damaged.
    pub(crate) fn read_at(&self, position: Position) -> io::Result<Bytes> {
        let at = position.0;
        let gone = || {
            let text = format!("the journal holds nothing at position {at} any more");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        let (segment, limit) = self.shared.segment_at(at).ok_or_else(gone)?;
        if segment.first > at {
            return Err(gone());
        }
        let file = self.shared.open_file(segment.first)?;
        match SegmentWindow::exact(file, segment).step(at, limit)? {
            Step::Record(entry) => Ok(entry.payload),
            Step::Damaged { next } => {
                self.shared.count_damage(at, next);
                let text = format!("the journal is damaged at position {at}");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            Step::End => Err(gone()),
        }
    }

    /// Every durable record from `from` on, with its position and the position
    /// behind it; damaged ones are skipped and counted. Ends at the durable
    /// end; asked again later, it goes on from there.
    pub(crate) fn read_from(
        &self,
        from: Position,
    ) -> impl Iterator<Item = io::Result<JournalEntry>> + use<> {
        Entries {
            shared: Arc::clone(&self.shared),
            at: from.0,
            window: None,
            failed: false,
        }
    }

    /// End of what is durable.
    pub(crate) fn end(&self) -> Position {
        Position(self.shared.end.load(Ordering::Acquire))
    }

    /// Beginning of the oldest segment.
    pub(crate) fn begin(&self) -> Position {
        Position(
            self.shared
                .with_segments(|all| all.first().map_or(0, |s| s.first)),
        )
    }

    /// Beginning of the segment that is written to.
    pub(crate) fn active_first(&self) -> Position {
        Position(
            self.shared
                .with_segments(|all| all.last().map_or(0, |s| s.first)),
        )
    }

    /// How long each fdatasync took, in seconds.
    pub(crate) fn syncs(&self) -> Histogram {
        self.shared.syncs.clone()
    }

    /// A random number that tells this journal from every other.
    pub(crate) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Bytes on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        let durable = self.end().0;
        self.shared.with_segments(|all| {
            let bytes = |s: &Segment| s.end.unwrap_or(durable) - s.first + SEGMENT_HEADER_BYTES;
            all.iter().map(bytes).sum()
        })
    }

    /// Every segment, open, as durable at one moment. What retention drops
    /// from then on can still be read.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(crate) fn parts(&self) -> io::Result<Vec<SegmentPart>> {
        loop {
            let durable = self.end().0;
            let segments = self.shared.with_segments(<[Segment]>::to_vec);
            let open = |segment: &Segment| {
                let path = self.shared.path_of(segment.first);
                let file = File::open(&path).map_err(|e| segment::failed("read", &path, &e))?;
                let end = segment.end.unwrap_or(durable).min(durable);
                io::Result::Ok(SegmentPart {
                    name: segment::file_name(segment.first),
                    file,
                    bytes: SEGMENT_HEADER_BYTES + end.saturating_sub(segment.first),
                })
            };
            match segments.iter().map(open).collect() {
                // Dropped in this very moment: the list is shorter by now.
                Err(error)
                    if io::Error::kind(&error) == io::ErrorKind::NotFound
                        && self.begin().0 > segments.first().map_or(0, |s| s.first) => {}
                parts => return parts,
            }
        }
    }

    /// Segments that are not written to any more, oldest first.
    pub(crate) fn closed_segments(&self) -> Vec<SegmentSpan> {
        let span = |s: &Segment| {
            Some(SegmentSpan {
                first: Position(s.first),
                end: Position(s.end?),
            })
        };
        self.shared
            .with_segments(|all| all.iter().filter_map(span).collect())
    }

    /// Damaged places that readers met so far.
    pub(crate) fn damaged_records(&self) -> u64 {
        lock(&self.shared.damaged).len() as u64
    }
}

struct Entries {
    shared: Arc<Shared>,
    at: u64,
    window: Option<SegmentWindow>,
    failed: bool,
}

impl Entries {
    fn advance(&mut self) -> io::Result<Option<JournalEntry>> {
        loop {
            let Some((segment, limit)) = self.shared.segment_at(self.at) else {
                return Ok(None);
            };
            self.at = self.at.max(segment.first);
            let window = match &mut self.window {
                Some(window) if window.first() == segment.first => window,
                window => {
                    let file = self.shared.open_file(segment.first)?;
                    window.insert(SegmentWindow::new(file, segment))
                }
            };
            match window.step(self.at, limit)? {
                Step::End => self.at = limit,
                Step::Damaged { next } => {
                    self.shared.count_damage(self.at, next);
                    self.at = next;
                }
                Step::Record(entry) => {
                    self.at = entry.next.0;
                    return Ok(Some(entry));
                }
            }
        }
    }
}

impl Iterator for Entries {
    type Item = io::Result<JournalEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance();
        // A disk that cannot be read would give the same error for ever.
        self.failed = item.is_err();
        item.transpose()
    }
}
