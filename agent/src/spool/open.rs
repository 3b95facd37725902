//! Opening a spool: reads every segment once and builds the index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use procwarden_proto::v1;
use prost::Message as _;

use super::owed::Owed;
use super::record::{self, HEADER_BYTES, Met};
use super::segment::{self, Active, SegmentId};
use super::state::State;
use super::{Entry, Place, SaltSource, SegmentFacts, Spool, event};
use crate::files::{self, FileError};

/// A spool, and what was noticed while it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) spool: Spool,
    /// Places with bytes that are no record, cut ends not counted.
    pub(crate) damaged: u64,
    /// Bytes of a cut end: the trace of a power loss or a kill.
    pub(crate) torn_bytes: u64,
    /// The small file could not be read: what was sent is sent again.
    pub(crate) state_lost: bool,
    /// What is owed could not be read: those ends are never told, and whatever
    /// was reported is reported anew. It is noticed once.
    pub(crate) owed_lost: bool,
}

/// What one segment holds.
#[derive(Default)]
struct Read {
    events: Vec<(u64, Entry)>,
    damaged: u64,
    /// Where whole records end.
    end: u64,
    torn_bytes: u64,
}

impl Spool {
    /// Opens the spool in `dir`; makes it where it is missing.
    ///
    /// # Errors
    /// When something cannot be read. A passing error leaves the files as they
    /// are, and takes none for damaged: the next start goes on with them.
    pub(crate) fn open(
        dir: &Path,
        max_bytes: u64,
        new_salt: SaltSource,
    ) -> Result<Opened, FileError> {
        files::make_dir(dir)?;
        let state = State::load(dir)?;
        let owed = Owed::load(dir)?;
        let owed_lost = owed.is_none();
        let mut spool = Self {
            dir: dir.to_owned(),
            max_bytes,
            new_salt,
            active: None,
            segments: BTreeMap::new(),
            index: BTreeMap::new(),
            index_bytes: 0,
            next: 1,
            state: state.unwrap_or_default(),
            saved_state: state.unwrap_or_default(),
            owed: owed.unwrap_or_else(Owed::in_place_of_lost),
            tainted: BTreeSet::new(),
            damaged: 0,
            lost_ends: u64::from(owed_lost),
        };
        // A killed agent may have made names that it did not wait for.
        if let Err(error) = files::sync_dir(dir) {
            tracing::warn!(%error, "The spool's directory is not safe from a power loss yet.");
        }
        if let Err(error) = spool.owed.save(dir) {
            tracing::warn!(%error, "The next append tries again to replace the list of dropped ends.");
        }
        let torn_bytes = spool.read_segments()?;
        // Before any end is struck out.
        let owed_next = spool.owed.next();
        spool.disown_undropped();
        let used = spool.state.acked.max(spool.state.given);
        spool.next = spool.next.max(used.saturating_add(1)).max(owed_next);
        spool.begin_segment();
        spool.remove_dead_segments()?;
        Ok(Opened {
            damaged: spool.damaged,
            torn_bytes,
            state_lost: state.is_none(),
            owed_lost,
            spool,
        })
    }

    fn read_segments(&mut self) -> Result<u64, FileError> {
        let ids = segment::list(&self.dir)?;
        let newest = ids.last().copied();
        let mut torn_bytes = 0;
        for id in ids {
            let bytes = segment::read(&self.dir, id)?;
            let read = read(id, &bytes, self.next);
            self.damaged += read.damaged;
            torn_bytes += read.torn_bytes;
            self.next = self.next.max(id.first);
            let mut facts = SegmentFacts {
                bytes: bytes.len() as u64,
                live_bytes: 0,
            };
            for (sequence, entry) in read.events {
                self.next = sequence + 1;
                if sequence > self.state.acked {
                    facts.live_bytes += entry.record_bytes();
                    self.remember(sequence, entry);
                }
            }
            if Some(id) == newest {
                facts.bytes = read.end;
                self.active = reopened(&self.dir, id, read.end);
            }
            self.segments.insert(id, facts);
        }
        Ok(torn_bytes)
    }

    /// A fresh spool gets its first segment; a disk that refuses is met again
    /// at the first append.
    fn begin_segment(&mut self) {
        if self.active.is_some() {
            return;
        }
        let id = SegmentId {
            first: self.next,
            salt: (self.new_salt)(),
        };
        match Active::create(&self.dir, id) {
            Ok(active) => {
                self.segments.insert(id, SegmentFacts::default());
                self.active = Some(active);
            }
            Err(error) => {
                tracing::error!(%error, "The spool cannot be written; events wait in memory.")
            }
        }
    }
}

fn reopened(dir: &Path, id: SegmentId, end: u64) -> Option<Active> {
    match Active::reopen(dir, id, end) {
        Ok(active) => Some(active),
        Err(error) => {
            tracing::error!(%error, "The newest segment of the spool cannot be written; a new one is begun.");
            None
        }
    }
}

/// Reads a segment's records; a number below `next` was seen before.
fn read(id: SegmentId, bytes: &[u8], mut next: u64) -> Read {
    let mut read = Read::default();
    for met in record::scan(id.salt, bytes) {
        match met {
            Met::Record(at, payload) => {
                read.end = (at + HEADER_BYTES + payload.len()) as u64;
                match v1::Event::decode(payload) {
                    Ok(event) if event.sequence >= next => {
                        next = event.sequence + 1;
                        let place = Place::Disk {
                            segment: id,
                            offset: at as u64,
                        };
                        let severity = event::severity_of(&event);
                        let entry = Entry {
                            severity,
                            is_end: matches!(event.event, Some(v1::event::Event::Ended(_))),
                            payload_bytes: payload.len(),
                            place,
                        };
                        read.events.push((event.sequence, entry));
                    }
                    // Written again after an append that failed half-way.
                    Ok(_) => {}
                    Err(_) => read.damaged += 1,
                }
            }
            Met::Damage(range) => {
                read.damaged += 1;
                read.end = range.end as u64;
            }
            Met::Torn(range) => read.torn_bytes += range.len() as u64,
        }
    }
    read
}
