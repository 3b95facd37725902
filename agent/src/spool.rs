//! The spool: what was reported and is not yet durable on the collector.
//!
//! On disk, in a directory of its own:
//! - segments (`spool/segment.rs`): files of records (`spool/record.rs`),
//!   each with a length, a CRC-32C and an encoded `v1::Event`;
//! - `state` (`spool/state.rs`): the newest ack, the count of drops, and the
//!   newest number that was given when something was dropped;
//! - `owed` (`spool/owed.rs`): what was dropped and is still to be told.
//!
//! Writing: an append goes to the end of the newest segment, in one write and
//! one fdatasync. A segment that reached its size is followed by a new one,
//! whose name is durable (fsync of the directory) before it is written to.
//! Reading: the index in memory knows where each event lies; the checksum is
//! verified again at every read. Deleting: a segment goes once each of its
//! events is acknowledged; the newest stays, because its name and content
//! carry the sequence numbers over a restart; so do the ack and the ends that
//! are owed, some of which never reached a segment.
//!
//! Full: events of the lowest severity go first, the oldest among equals, the
//! new event itself if it is the least, and with them up to a segment's worth
//! of the same severity, so that the next events find room; each is counted,
//! and the count is on the disk before the event is gone. Their segments are
//! rewritten, so for that moment one segment more lies on the disk.
//! Ends that were dropped are remembered beside the segments, up to the size
//! of one, and appended again as soon as half of the spool is free: a finding
//! whose process is gone must not stay open on the collector. So are the
//! findings of which a report was dropped, by their subjects alone: they are
//! reported anew then (`spool/anew.rs`).
//! Power loss: what an append, an ack or a drop returned from is on the disk.
//! The orders that make it so: a directory's name is durable before the
//! directory is used, a segment's name before its first record; a file that
//! is replaced (`state`, a rewritten segment) is written beside it, fsynced,
//! renamed, and the directory fsynced; a count, and what is owed, are
//! durable before their events leave (as long as they cannot be written, no
//! segment that holds these is removed or rewritten, and no ack is kept), and
//! an owed end is durable in a segment before it leaves `owed`; a removal is
//! not waited for, because what comes back lies at or below the ack and goes
//! again, or was counted as dropped and is delivered all the same. What a killed agent wrote and did not wait for is made
//! durable when the spool is opened.
//! Disk refuses: events wait in memory (bounded, dropped by the same order),
//! can be sent from there, and are written as soon as the disk takes them.
//!
//! Promises: an event that is durable is delivered until it is acknowledged
//! or counted as dropped; an end that was dropped is told later, or counted as
//! lost; a finding whose report was dropped is reported anew; sequence numbers
//! rise, and none that was called durable or dropped is given twice; what is
//! delivered is what was appended. Never: delivers bytes whose checksum does
//! not fit; lets one damaged record cost another; grows past its limit, beside
//! which `owed` may take as much again, and 6 MB at most.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use prost::Message as _;

use crate::files::FileError;
use owed::Owed;
use record::{HEADER_BYTES, Salt};
use segment::{Active, SegmentId};

mod anew;
pub(crate) mod event;
mod open;
mod owed;
mod record;
mod room;
mod segment;
mod shared;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use anew::DroppedReports;
pub(crate) use shared::SharedSpool;

/// A segment is this part of the whole spool, within the two limits below.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 4 * 1024;
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What waits in memory while the disk refuses.
const MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where new segments get their salt from: randomness is an argument.
pub(crate) type SaltSource = fn() -> Salt;

/// The queue. See the head of this file.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    max_bytes: u64,
    new_salt: SaltSource,
    /// Nothing while no segment could be made.
    active: Option<Active>,
    segments: BTreeMap<SegmentId, SegmentFacts>,
    /// Every event that is neither acknowledged nor dropped, by sequence.
    /// Grows by [`Spool::remember`] and shrinks by [`Spool::forget`] only.
    index: BTreeMap<u64, Entry>,
    /// Bytes of all records in the index: tens of thousands can wait, so
    /// nobody adds them up at each ack.
    index_bytes: u64,
    next: u64,
    state: state::State,
    /// As it is on the disk.
    saved_state: state::State,
    /// What was dropped and is to be told again.
    owed: Owed,
    /// Segments that still hold dropped events, which would come back at the
    /// next start: to be rewritten.
    tainted: BTreeSet<SegmentId>,
    damaged: u64,
    lost_ends: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct SegmentFacts {
    /// Size of the file.
    bytes: u64,
    /// Bytes of records that the index knows.
    live_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    severity: Severity,
    /// The end of a finding.
    is_end: bool,
    payload_bytes: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Disk { segment: SegmentId, offset: u64 },
    Memory(Bytes),
}

/// How the spool stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Events that wait.
    pub(crate) events: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Events dropped because the spool was full, ever.
    pub(crate) dropped: u64,
    /// Events lost to damage, since the start.
    pub(crate) damaged: u64,
    /// Events that wait in memory because the disk refused them.
    pub(crate) in_memory: u64,
    /// Ends that were dropped and will not be told, since the start: at
    /// least so many, as a list of them that is damaged counts as one.
    pub(crate) lost_ends: u64,
}

impl Entry {
    fn record_bytes(&self) -> u64 {
        (HEADER_BYTES + self.payload_bytes) as u64
    }
}

impl Spool {
    /// Takes over what was reported. On an error the events wait in memory;
    /// each later append, an empty one too, tries the disk again.
    pub(crate) fn append(&mut self, changes: &[Change]) -> Result<(), FileError> {
        for change in changes {
            let (severity, event) = event::of_change(change, self.event_bytes_max());
            self.enqueue(severity, event);
        }
        let written = self.write_in_limit();
        if self.first_waiting().is_some() {
            self.bound_memory();
        }
        written.and_then(|()| self.tell_owed())
    }

    /// Whether all that it took over outlives a power loss, or was counted.
    pub(crate) fn is_durable(&self) -> bool {
        self.waiting().next().is_none() && self.are_books_saved()
    }

    /// Puts an event behind all others, into memory.
    fn enqueue(&mut self, severity: Severity, event: v1::event::Event) -> u64 {
        let sequence = self.next;
        let is_end = matches!(event, v1::event::Event::Ended(_));
        let event = Some(event);
        let payload = v1::Event { sequence, event }.encode_to_vec();
        let entry = Entry {
            severity,
            is_end,
            payload_bytes: payload.len(),
            place: Place::Memory(payload.into()),
        };
        self.remember(sequence, entry);
        self.next += 1;
        sequence
    }

    /// Events behind sequence `after`, oldest first: at most `events_max`, and
    /// as many as `bytes_max` holds, but at least one.
    pub(crate) fn read_batch(
        &mut self,
        after: u64,
        events_max: usize,
        bytes_max: usize,
    ) -> Vec<v1::Event> {
        let mut batch = Vec::new();
        let mut lost = Vec::new();
        let mut bytes = 0;
        let mut segments = segment::Reader::new(&self.dir);
        for (&sequence, entry) in self.index.range(after.saturating_add(1)..) {
            if batch.len() >= events_max || (bytes + entry.payload_bytes > bytes_max && bytes > 0) {
                break;
            }
            match read_event(&mut segments, sequence, entry) {
                Ok(event) => {
                    bytes += entry.payload_bytes;
                    batch.push(event);
                }
                // It is there, and is read at the next attempt.
                Err(Unread::NotNow(error)) => {
                    tracing::warn!(%error, "The spool cannot be read at this moment.");
                    break;
                }
                Err(Unread::Lost(reason)) => {
                    tracing::error!(
                        sequence,
                        reason,
                        "A reported event could not be read back and is lost."
                    );
                    lost.push(sequence);
                }
            }
        }
        for sequence in lost {
            self.forget(sequence);
            self.damaged += 1;
        }
        batch
    }

    /// Every event up to `sequence` is durable on the collector.
    pub(crate) fn ack(&mut self, sequence: u64) -> Result<(), FileError> {
        let sequence = sequence.min(self.next.saturating_sub(1));
        if sequence <= self.state.acked {
            return Ok(());
        }
        while let Some((&first, _)) = self.index.first_key_value() {
            if first > sequence {
                break;
            }
            self.forget(first);
        }
        self.state.acked = sequence;
        // Losing the cursor only sends again; deleting first could not lose
        // an event either, but would leave a wrong count behind.
        self.save_books()?;
        self.remove_dead_segments()
    }

    /// Another limit; takes effect at once.
    pub(crate) fn set_max_bytes(&mut self, max_bytes: u64) -> Result<(), FileError> {
        self.max_bytes = max_bytes;
        self.make_room()
    }

    /// How it stands.
    pub(crate) fn figures(&self) -> Figures {
        let in_memory = self.waiting().count() as u64;
        Figures {
            events: self.index.len() as u64,
            bytes: self.index_bytes,
            dropped: self.state.dropped,
            damaged: self.damaged,
            in_memory,
            lost_ends: self.lost_ends,
        }
    }

    /// Sequence of the newest event, 0 when there never was one.
    #[cfg(test)]
    fn newest(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    fn event_bytes_max(&self) -> usize {
        let half = usize::try_from(self.max_bytes / 2).unwrap_or(usize::MAX);
        half.min(event::EVENT_BYTES_MAX)
    }

    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// Events that are not on the disk, newest first: always the newest ones.
    fn waiting(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let all = self
            .index
            .iter()
            .rev()
            .map(|(&sequence, entry)| (sequence, entry));
        all.take_while(|(_, entry)| matches!(entry.place, Place::Memory(_)))
    }

    fn first_waiting(&self) -> Option<u64> {
        self.waiting().last().map(|(sequence, _)| sequence)
    }

    /// Makes room and writes what waits in memory. Where no room came back,
    /// it is written as far as the limit bears it: the disk is safer.
    fn write_in_limit(&mut self) -> Result<(), FileError> {
        let made_room = self.make_room();
        if made_room.is_err() && !self.is_within_margin() {
            return made_room;
        }
        made_room.and(self.write_waiting())
    }

    /// Writes what waits in memory, one segment's share at a time.
    fn write_waiting(&mut self) -> Result<(), FileError> {
        while let Some(first) = self.first_waiting() {
            self.prepare_active(first)?;
            let limit = self.segment_bytes();
            let Some(active) = self.active.as_mut() else {
                return Ok(());
            };
            let mut records = Vec::new();
            let mut places = Vec::new();
            for (&sequence, entry) in self.index.range(first..) {
                let Place::Memory(payload) = &entry.place else {
                    continue;
                };
                if !places.is_empty() && active.bytes + records.len() as u64 >= limit {
                    break;
                }
                places.push((sequence, records.len() as u64));
                record::encode(active.id.salt, payload, &mut records);
            }
            let (segment, start) = (active.id, active.append(&records)?);
            let facts = self.segments.entry(segment).or_default();
            facts.bytes += records.len() as u64;
            facts.live_bytes += records.len() as u64;
            for (sequence, offset) in places {
                if let Some(entry) = self.index.get_mut(&sequence) {
                    entry.place = Place::Disk {
                        segment,
                        offset: start + offset,
                    };
                }
            }
        }
        Ok(())
    }

    /// Sees to a segment that may be appended to, from sequence `first` on.
    fn prepare_active(&mut self, first: u64) -> Result<(), FileError> {
        let limit = self.segment_bytes();
        if self
            .active
            .as_ref()
            .is_some_and(|a| !a.spoilt && a.bytes < limit)
        {
            return Ok(());
        }
        let id = SegmentId {
            first,
            salt: (self.new_salt)(),
        };
        self.active = Some(Active::create(&self.dir, id)?);
        self.segments.insert(id, SegmentFacts::default());
        self.remove_dead_segments()
    }

    fn remember(&mut self, sequence: u64, entry: Entry) {
        self.index_bytes += entry.record_bytes();
        self.index.insert(sequence, entry);
    }

    /// Takes an event out of the index.
    fn forget(&mut self, sequence: u64) {
        let Some(entry) = self.index.remove(&sequence) else {
            return;
        };
        self.index_bytes = self.index_bytes.saturating_sub(entry.record_bytes());
        if let Place::Disk { segment, .. } = entry.place
            && let Some(facts) = self.segments.get_mut(&segment)
        {
            facts.live_bytes = facts.live_bytes.saturating_sub(entry.record_bytes());
        }
    }

    /// Removes what holds acknowledged events alone; with dropped ones only
    /// when they are written down, because a crash brings them back.
    fn remove_dead_segments(&mut self) -> Result<(), FileError> {
        let are_saved = self.are_books_saved();
        let newest = self.active.as_ref().map(|a| a.id);
        let keep = newest.or_else(|| self.segments.last_key_value().map(|(id, _)| *id));
        let dead: Vec<SegmentId> = self
            .segments
            .iter()
            .filter(|(id, facts)| facts.live_bytes == 0 && Some(**id) != keep)
            .map(|(id, _)| *id)
            .filter(|id| are_saved || !self.tainted.contains(id))
            .collect();
        for id in dead {
            segment::remove(&self.dir, id)?;
            self.segments.remove(&id);
            self.tainted.remove(&id);
        }
        Ok(())
    }
}

/// Why an event was not read.
#[derive(Debug)]
enum Unread {
    /// The host is short of something; the event is where it was.
    NotNow(FileError),
    /// It is damaged.
    Lost(String),
}

impl From<FileError> for Unread {
    fn from(error: FileError) -> Self {
        if error.is_passing() {
            Self::NotNow(error)
        } else {
            Self::Lost(error.to_string())
        }
    }
}

/// The payload of an event, verified once more.
fn read_payload(segments: &mut segment::Reader<'_>, entry: &Entry) -> Result<Bytes, Unread> {
    match &entry.place {
        Place::Memory(payload) => Ok(payload.clone()),
        Place::Disk { segment, offset } => {
            let bytes = HEADER_BYTES + entry.payload_bytes;
            let bytes = segments.read_at(*segment, *offset, bytes)?;
            let payload = record::decode(segment.salt, &bytes)
                .ok_or_else(|| Unread::Lost("its checksum does not fit".to_owned()))?;
            Ok(Bytes::copy_from_slice(payload))
        }
    }
}

fn read_event(
    segments: &mut segment::Reader<'_>,
    sequence: u64,
    entry: &Entry,
) -> Result<v1::Event, Unread> {
    let event = v1::Event::decode(read_payload(segments, entry)?)
        .map_err(|error| Unread::Lost(error.to_string()))?;
    if event.sequence == sequence {
        Ok(event)
    } else {
        Err(Unread::Lost("it is another event".to_owned()))
    }
}
