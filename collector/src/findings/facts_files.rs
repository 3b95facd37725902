//! The files with the facts of closed segments, in `facts/`, and the start that
//! reads them.
//!
//! Promises: what is told at the start is what the journal says. A file that is
//! missing or damaged costs the reading of its segment, and is made again. A
//! file that cannot be written costs the next start some time and nothing else.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::FindingId;

use super::compact::RecordFacts;
use super::facts::{Facts, Half};
use super::progress::Progress;
use super::segment_facts::SegmentFacts;
use crate::journal::{JournalReader, Position, SegmentSpan};

/// A finding of the journal is about so long: only to make room at once.
const RECORD_BYTES: u64 = 1024;

/// Segments that were read and not told yet.
const SEGMENTS_AHEAD: usize = 2;

/// Reads and writes the files of one journal.
#[derive(Clone)]
pub(super) struct FactsFiles {
    dir: PathBuf,
    journal: JournalReader,
}

impl FactsFiles {
    pub(super) fn new(data_dir: &Path, journal: JournalReader) -> Self {
        Self {
            dir: data_dir.join("facts"),
            journal,
        }
    }

    /// Everything that dedup has to know, and what is known of the segment
    /// that is written to.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) fn load(&self) -> io::Result<(Facts, SegmentFacts)> {
        let facts = Facts::default();
        let closed = self.journal.closed_segments();
        let bytes: u64 = closed.iter().map(|s| s.end.0 - s.first.0).sum();
        facts.reserve(usize::try_from(bytes / RECORD_BYTES).unwrap_or(0));
        let mut progress = Progress::new("Reading the findings journal", bytes);
        let active = tell_while(&facts, |tell| -> io::Result<_> {
            for span in closed {
                tell(Arc::new(self.of_closed(span)?));
                progress.advance(span.end.0 - span.first.0);
            }
            let active = self.read(self.journal.active_first(), self.journal.end())?;
            let active = Arc::new(active);
            tell(Arc::clone(&active));
            Ok(active)
        })?;
        Ok((facts, Arc::unwrap_or_clone(active)))
    }

    /// The facts of a closed segment.
    pub(super) fn of_closed(&self, span: SegmentSpan) -> io::Result<SegmentFacts> {
        let file = fs::read(self.path(span)).unwrap_or_default();
        if let Some(facts) = SegmentFacts::decode(&file, self.journal.id(), span) {
            return Ok(facts);
        }
        let facts = self.read(span.first, span.end)?;
        self.write(&facts, span);
        Ok(facts)
    }

    fn read(&self, first: Position, end: Position) -> io::Result<SegmentFacts> {
        let mut facts = SegmentFacts::new(first);
        for record in self.journal.read_from(first) {
            let record = record?;
            if record.position >= end {
                break;
            }
            // What makes no sense is said where the index is made.
            if let Ok(read) = RecordFacts::read(&record.payload) {
                facts.add(record.position, &read);
            }
        }
        Ok(facts)
    }

    /// Keeps the facts of a segment that was closed.
    pub(super) fn write(&self, facts: &SegmentFacts, span: SegmentSpan) {
        let path = self.path(span);
        let written = || -> io::Result<()> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.dir)?;
            let new = path.with_extension("new");
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            // Not synced: what a power cut leaves of it fails its checksum.
            options
                .open(&new)?
                .write_all(&facts.encode(self.journal.id(), span))?;
            fs::rename(&new, &path)
        };
        if let Err(error) = written() {
            tracing::warn!(
                file = %path.display(), %error,
                "The facts of a segment could not be kept: the next start reads the segment.",
            );
        }
    }

    /// Removes the files of segments that are gone.
    pub(super) fn remove_before(&self, position: Position) {
        let Ok(files) = fs::read_dir(&self.dir) else {
            return;
        };
        for file in files.filter_map(Result::ok) {
            let name = file.file_name();
            let digits = name.to_str().and_then(|n| n.strip_suffix(".facts"));
            let first = digits.and_then(|d| u64::from_str_radix(d, 16).ok());
            if first.is_some_and(|first| first < position.0)
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::debug!(file = %file.path().display(), %error, "Could not be removed.");
            }
        }
    }

    /// When a finding ended, looked for from the newest segment on.
    pub(super) fn end_of(&self, id: FindingId) -> io::Result<Option<UnixMillis>> {
        for span in self.journal.closed_segments().into_iter().rev() {
            if let Some(at) = self.of_closed(span)?.end_of(id) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn path(&self, span: SegmentSpan) -> PathBuf {
        self.dir.join(format!("{:016x}.facts", span.first.0))
    }
}

/// Tells what is read while the next is read: millions of facts are as many
/// misses of the processor's caches.
fn tell_while<R>(facts: &Facts, read: impl FnOnce(&dyn Fn(Arc<SegmentFacts>)) -> R) -> R {
    thread::scope(|scope| {
        let listeners = [Half::First, Half::Second].map(|half| {
            let (sender, segments) = mpsc::sync_channel::<Arc<SegmentFacts>>(SEGMENTS_AHEAD);
            scope.spawn(move || segments.iter().for_each(|s| s.tell(facts, half)));
            sender
        });
        read(&|segment| {
            for listener in &listeners {
                // It listens until nothing more can come.
                drop(listener.send(Arc::clone(&segment)));
            }
        })
    })
}
