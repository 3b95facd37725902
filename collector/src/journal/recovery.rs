//! Opening a journal: what is on the disk after whatever happened to it, and
//! which of it is the torn tail.
//!
//! Only the last segment is read as a whole: the others were synced before
//! their successor was made.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::segment::{self, HEADER_BYTES, HeaderReading, Segment};
use super::window::{SegmentWindow, Step};
use super::{OpenReport, UNSYNCED_BYTES_MAX, segment_path};

/// A journal that is ready to be written to.
pub(super) struct Recovered {
    /// Oldest first; the last one is active.
    pub(super) segments: Vec<Segment>,
    /// The active segment.
    pub(super) file: File,
    /// Position of its first record.
    pub(super) first: u64,
    /// Where the next record goes.
    pub(super) end: u64,
    pub(super) report: OpenReport,
}

/// A segment file and whether its header can be trusted.
struct Found {
    segment: Segment,
    header_good: bool,
}

/// Reads the segments of a directory, cuts a torn tail, and leaves a segment
/// to append to.
pub(super) fn recover(dir: &Path) -> io::Result<Recovered> {
    let found = read_segments(dir)?;
    let salt = found
        .iter()
        .rev()
        .find(|f| f.header_good)
        .map(|f| f.segment.salt);
    let salt = salt.map_or_else(new_salt, Ok)?;
    let Some((last, closed)) = found.split_last() else {
        return begin(
            dir,
            Vec::new(),
            Segment {
                first: 0,
                salt,
                cut_before: 0,
                end: None,
            },
        );
    };
    let mut segments: Vec<Segment> = closed.iter().map(|f| with_salt(f, salt)).collect();
    close_segments(&mut segments, &last.segment);
    let segment = with_salt(last, salt);
    let tail = examine(dir, &segment)?;
    let report = OpenReport {
        cut_bytes: 0,
        damaged_records: tail.damaged,
    };
    if tail.file_end <= segment.first && !last.header_good {
        // Not one record in it: made anew under the same name.
        return begin(
            dir,
            segments,
            Segment {
                end: None,
                ..segment
            },
        );
    }
    if last.header_good && tail.torn_bytes() == 0 {
        let file = make_durable(dir, &segment, tail.file_end)?;
        segments.push(Segment {
            end: None,
            ..segment
        });
        return Ok(Recovered {
            segments,
            file,
            first: segment.first,
            end: tail.file_end,
            report,
        });
    }
    give_up_tail(dir, segments, segment, last.header_good, &tail, report)
}

/// Closes a segment with a bad tail and begins the next one behind it, so that
/// no position is given twice.
fn give_up_tail(
    dir: &Path,
    mut segments: Vec<Segment>,
    segment: Segment,
    header_good: bool,
    tail: &Tail,
    report: OpenReport,
) -> io::Result<Recovered> {
    let is_torn = header_good && tail.torn_bytes() <= UNSYNCED_BYTES_MAX;
    let cut = if is_torn { tail.torn_bytes() } else { 0 };
    let damage = u64::from(!is_torn && tail.torn_bytes() > 0);
    let file = make_durable(dir, &segment, tail.file_end)?;
    let next = Segment {
        first: tail.file_end,
        salt: segment.salt,
        cut_before: cut,
        end: None,
    };
    segments.push(Segment {
        end: Some(tail.file_end - cut),
        ..segment
    });
    let mut recovered = begin(dir, segments, next)?;
    if cut > 0 {
        // The new segment's header already says so; this returns the room.
        let path = segment_path(dir, segment.first);
        let shorter = HEADER_BYTES + (tail.good_end - segment.first);
        file.set_len(shorter)
            .map_err(|e| segment::failed("shorten", &path, &e))?;
    }
    recovered.report = OpenReport {
        cut_bytes: cut,
        damaged_records: report.damaged_records + damage,
    };
    Ok(recovered)
}

fn begin(dir: &Path, mut segments: Vec<Segment>, next: Segment) -> io::Result<Recovered> {
    let file = segment::create(dir, &next)?;
    segments.push(next);
    let report = OpenReport::default();
    Ok(Recovered {
        segments,
        file,
        first: next.first,
        end: next.first,
        report,
    })
}

fn with_salt(found: &Found, salt: u64) -> Segment {
    match found.header_good {
        true => found.segment,
        false => Segment {
            salt,
            ..found.segment
        },
    }
}

/// Each closed segment ends where its file ends, where its successor begins,
/// or where a tail was given up.
fn close_segments(closed: &mut [Segment], last: &Segment) {
    let mut next = *last;
    for segment in closed.iter_mut().rev() {
        let limit = next
            .first
            .saturating_sub(next.cut_before)
            .max(segment.first);
        segment.end = Some(segment.end.unwrap_or(limit).min(limit));
        next = *segment;
    }
}

fn read_segments(dir: &Path) -> io::Result<Vec<Found>> {
    segment::list(dir)?
        .into_iter()
        .map(|first| read_segment(dir, first))
        .collect()
}

fn read_segment(dir: &Path, first: u64) -> io::Result<Found> {
    let path = segment_path(dir, first);
    let failed = |e: io::Error| segment::failed("read", &path, &e);
    let file = File::open(&path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut header = [0; HEADER_BYTES as usize];
    let present = usize::try_from(bytes.min(HEADER_BYTES)).unwrap_or(header.len());
    let header = header.get_mut(..present).unwrap_or_default();
    file.read_exact_at(header, 0).map_err(failed)?;
    let end = Some(first + bytes.saturating_sub(HEADER_BYTES));
    match segment::parse_header(header) {
        HeaderReading::Good {
            first: written,
            salt,
            cut_before,
        } if written == first => Ok(Found {
            segment: Segment {
                first,
                salt,
                cut_before,
                end,
            },
            header_good: true,
        }),
        HeaderReading::Newer(version) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{} has version {version}: start the collector that wrote it",
                path.display()
            ),
        )),
        HeaderReading::Good { .. } | HeaderReading::Damaged => {
            tracing::warn!(segment = %path.display(), "The header of a journal segment is damaged.");
            Ok(Found {
                segment: Segment {
                    first,
                    salt: 0,
                    cut_before: 0,
                    end,
                },
                header_good: false,
            })
        }
    }
}

/// What lies in the segment that was written last.
struct Tail {
    /// End of the last valid record.
    good_end: u64,
    file_end: u64,
    /// Damaged places with a valid record behind them.
    damaged: u64,
}

impl Tail {
    fn torn_bytes(&self) -> u64 {
        self.file_end - self.good_end
    }
}

fn examine(dir: &Path, segment: &Segment) -> io::Result<Tail> {
    let path = segment_path(dir, segment.first);
    let file = File::open(&path).map_err(|e| segment::failed("read", &path, &e))?;
    let file_end = segment.end.unwrap_or(segment.first);
    let mut window = SegmentWindow::new(Arc::new(file), *segment);
    let mut tail = Tail {
        good_end: segment.first,
        file_end,
        damaged: 0,
    };
    let (mut at, mut damaged) = (segment.first, 0);
    loop {
        let step = window.step(at, file_end);
        match step.map_err(|e| segment::failed("read", &path, &e))? {
            Step::End => return Ok(tail),
            Step::Damaged { next } => {
                damaged += 1;
                at = next;
            }
            Step::Record(entry) => {
                at = entry.next.0;
                tail.good_end = at;
                tail.damaged = damaged;
            }
        }
    }
}

/// Makes sure that what was read is on the disk, not in the page cache alone:
/// the process before may have died between write and fdatasync, or because an
/// fdatasync failed, after which the kernel takes lost pages for clean. So what
/// may never have been synced is written again, byte for byte.
fn make_durable(dir: &Path, segment: &Segment, end: u64) -> io::Result<File> {
    let path = segment_path(dir, segment.first);
    let rewrite = || -> io::Result<File> {
        let file = File::options().read(true).write(true).open(&path)?;
        let end = HEADER_BYTES + (end - segment.first);
        let start = end
            .saturating_sub(UNSYNCED_BYTES_MAX)
            .max(HEADER_BYTES)
            .min(end);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or_default()];
        file.read_exact_at(&mut bytes, start)?;
        file.write_all_at(&bytes, start)?;
        file.sync_all()?;
        Ok(file)
    };
    let file = rewrite().map_err(|e| segment::failed("make durable", &path, &e))?;
    segment::sync_dir(dir)?;
    Ok(file)
}

fn new_salt() -> io::Result<u64> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(|e| io::Error::other(format!("no random numbers: {e}")))?;
    Ok(u64::from_le_bytes(salt))
}
