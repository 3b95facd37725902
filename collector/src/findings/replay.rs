//! From journal to whoever follows it: records in batches, from memory while
//! they are recent, else from the disk.

use std::io;

use super::recent::{Recent, Record};
use crate::journal::{JournalEntry, JournalReader, Position};

/// Records of one batch.
const BATCH_RECORDS: usize = 512;
/// Bytes of the records of one batch, about.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Reads the journal on from a position.
pub(super) struct Replay {
    journal: JournalReader,
    recent: Recent,
    /// Nothing while the records come from memory.
    entries: Option<Box<dyn Iterator<Item = io::Result<JournalEntry>> + Send>>,
    at: Position,
}

/// Records that belong together only because they were read together.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// Every durable record before it was returned.
    pub(super) upto: Position,
}

impl Replay {
    pub(super) fn new(journal: &JournalReader, recent: &Recent, from: Position) -> Self {
        Self {
            journal: journal.clone(),
            recent: recent.clone(),
            entries: None,
            at: from,
        }
    }

    /// The next records before a durable position; none when it is reached.
    pub(super) fn next_batch(&mut self, end: Position) -> io::Result<Batch> {
        let records = self.recent.from(self.at, BATCH_RECORDS);
        let Some(last) = records.last() else {
            return self.read_batch(end);
        };
        self.entries = None;
        self.at = last.next;
        Ok(Batch {
            upto: self.at,
            records,
        })
    }

    fn read_batch(&mut self, end: Position) -> io::Result<Batch> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let journal = &self.journal;
        let from = self.at;
        let records = self
            .entries
            .get_or_insert_with(|| Box::new(journal.read_from(from)));
        while self.at < end && found.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            let Some(record) = records.next() else {
                // What is left before the end is damage without a record.
                self.at = self.at.max(end);
                break;
            };
            let JournalEntry {
                position,
                next,
                payload,
            } = record?;
            self.at = next;
            bytes += payload.len();
            found.push(Record {
                position,
                next,
                payload,
                facts: None,
            });
        }
        Ok(Batch {
            records: found,
            upto: self.at,
        })
    }
}
