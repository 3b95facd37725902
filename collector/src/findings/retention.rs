//! Retention: drops what is too old, by whole segments of the journal.
//!
//! A segment goes when its newest record is older than the cutoff and every
//! segment before it went. With it go the findings whose newest full report it
//! holds, open ones included: a process that has run for longer than the
//! retention without anything new to say is reported anew when it has.

use std::io;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::FindingId;
use procwarden_common::wire::Change;

use super::entry::FindingEntry;
use crate::journal::{JournalReader, Position, SegmentSpan};

/// Findings that are taken out of the index in one batch.
pub(super) const FORGET_AT_ONCE: usize = 512;

/// What is known of the oldest segment, so that it is not read every time.
pub(super) type Oldest = Option<(Position, UnixMillis)>;

/// A segment that may go.
pub(super) struct OldSegment {
    pub(super) end: Position,
    /// Findings with a full report in it.
    pub(super) ids: Vec<FindingId>,
}

/// Looks at the oldest closed segment; nothing when it has to stay.
pub(super) fn examine(
    journal: &JournalReader,
    cutoff: UnixMillis,
    oldest: &mut Oldest,
) -> io::Result<Option<OldSegment>> {
    let Some(span) = journal.closed_segments().first().copied() else {
        return Ok(None);
    };
    if oldest.is_some_and(|(first, newest)| first == span.first && newest >= cutoff) {
        return Ok(None);
    }
    let (ids, newest) = read(journal, span)?;
    *oldest = Some((span.first, newest));
    Ok((newest < cutoff).then_some(OldSegment { end: span.end, ids }))
}

fn read(journal: &JournalReader, span: SegmentSpan) -> io::Result<(Vec<FindingId>, UnixMillis)> {
    let (mut ids, mut newest) = (Vec::new(), UnixMillis(i64::MIN));
    for record in journal.read_from(span.first) {
        let record = record?;
        if record.position >= span.end {
            break;
        }
        let Ok(entry) = FindingEntry::decode(record.payload) else {
            continue;
        };
        newest = newest.max(entry.received_at);
        if matches!(entry.change, Change::Reported(_)) {
            ids.push(entry.id());
        }
    }
    Ok((ids, newest))
}
