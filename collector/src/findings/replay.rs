//! From journal to index: reads records in batches and applies them.

use std::io;

use super::entry::FindingEntry;
use crate::journal::{JournalEntry, JournalReader, Position};
use crate::store::{Store, StoreError};

/// Records of one batch of the index.
const BATCH_RECORDS: usize = 512;
/// Bytes of the records of one batch, about.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A replay longer than this says how far it is, each time it got so far.
const PROGRESS_BYTES: u64 = 256 * 1024 * 1024;

/// Reads the journal on from a position.
pub(super) struct Replay {
    journal: JournalReader,
    entries: Box<dyn Iterator<Item = io::Result<JournalEntry>> + Send>,
    at: Position,
}

/// Records that belong together only because they were read together.
pub(super) struct Batch {
    pub(super) entries: Vec<(Position, FindingEntry)>,
    /// The positions behind them.
    pub(super) nexts: Vec<Position>,
    /// Every durable record before it was returned.
    pub(super) upto: Position,
}

impl Replay {
    pub(super) fn new(journal: &JournalReader, from: Position) -> Self {
        let entries = Box::new(journal.read_from(from));
        Self {
            journal: journal.clone(),
            entries,
            at: from,
        }
    }

    pub(super) fn position(&self) -> Position {
        self.at
    }

    /// The next records; none when the durable end is reached.
    pub(super) fn next_batch(&mut self) -> io::Result<Batch> {
        let end = self.journal.end();
        let (mut entries, mut nexts, mut bytes) = (Vec::new(), Vec::new(), 0);
        while entries.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            let Some(record) = self.entries.next() else {
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
            match FindingEntry::decode(payload) {
                Ok(entry) => {
                    entries.push((position, entry));
                    nexts.push(next);
                }
                Err(error) => tracing::error!(
                    position = position.0,
                    %error,
                    "A record of the findings journal makes no sense: skipped.",
                ),
            }
        }
        Ok(Batch {
            entries,
            nexts,
            upto: self.at,
        })
    }
}

/// Applies everything that is durable by now.
pub(super) fn catch_up(
    store: &dyn Store,
    replay: &mut Replay,
    journal: &JournalReader,
) -> Result<(), StoreError> {
    let (begin, end) = (replay.position().max(journal.begin()), journal.end());
    let total = end.0.saturating_sub(begin.0);
    let mut next_report = begin.0 + PROGRESS_BYTES;
    while replay.position() < end {
        let batch = replay
            .next_batch()
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        store.apply(batch.entries, batch.upto)?;
        if batch.upto.0 >= next_report {
            next_report = batch.upto.0 + PROGRESS_BYTES;
            store.flush()?;
            let done_percent = (batch.upto.0 - begin.0) * 100 / total.max(1);
            tracing::info!(
                done_percent,
                "Bringing the index up to date with the journal."
            );
        }
    }
    if total > 0 {
        store.flush()?;
        let findings = store.counts().findings;
        tracing::info!(
            bytes = total,
            findings,
            "Brought the index up to date with the journal."
        );
    }
    Ok(())
}
