//! What was recorded, as the parts of this module share it: the journal, its
//! newest records, and what dedup knows.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::StoredFinding;
use procwarden_common::id::FindingId;
use procwarden_common::wire::Change;

use super::entry::FindingEntry;
use super::facts::{Fact, Facts};
use super::facts_files::FactsFiles;
use super::recent::Recent;
use super::segment_facts::SegmentFacts;
use crate::journal::{JournalReader, Position};
use crate::store::History;

/// What was recorded.
#[derive(Clone)]
pub(super) struct Past {
    pub(super) journal: JournalReader,
    pub(super) recent: Recent,
    pub(super) facts: Arc<Facts>,
    pub(super) files: FactsFiles,
    active: Arc<Mutex<SegmentFacts>>,
}

impl Past {
    /// Of a journal in a data directory.
    pub(super) fn load(data_dir: &Path, journal: JournalReader) -> io::Result<Self> {
        let files = FactsFiles::new(data_dir, journal.clone());
        let (facts, active) = files.load()?;
        Ok(Self {
            journal,
            recent: Recent::default(),
            facts: Arc::new(facts),
            files,
            active: Arc::new(Mutex::new(active)),
        })
    }

    /// The facts of the segment that is written to.
    pub(super) fn active(&self) -> MutexGuard<'_, SegmentFacts> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record at a position.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn entry(&self, position: Position) -> Result<FindingEntry, String> {
        let payload = match self.recent.from(position, 1).pop() {
            Some(record) => record.payload,
            None => self.journal.read_at(position).map_err(|e| e.to_string())?,
        };
        FindingEntry::decode(payload)
    }

    /// The finding as its newest report left it, with all its evidence.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn report(&self, id: FindingId, fact: Fact) -> Result<StoredFinding, String> {
        let entry = self.entry(fact.position)?;
        let Change::Reported(finding) = &entry.change else {
            return Err("the journal holds something else there".into());
        };
        if entry.id() != id {
            return Err("the journal holds another finding there".into());
        }
        Ok(StoredFinding {
            finding: finding.as_ref().clone(),
            ..entry.stored(id, finding, fact.position)
        })
    }

    /// When a finding ended, from the records since.
    pub(super) fn end_of(&self, id: FindingId) -> Option<UnixMillis> {
        let active = self.active().end_of(id);
        active.or_else(|| {
            let found = self.files.end_of(id);
            found.unwrap_or_else(|error| {
                tracing::warn!(finding = %id, %error, "When a finding ended cannot be read.");
                None
            })
        })
    }
}

impl History for Past {
    fn newest(&self, id: FindingId) -> Option<Position> {
        self.facts.get(id).map(|fact| fact.position)
    }

    fn newest_before(&self, id: FindingId, position: Position) -> Option<Position> {
        let mut at = self.newest(id)?;
        // Each step goes back in the journal.
        while at >= position {
            at = self
                .entry(at)
                .ok()?
                .previous
                .filter(|previous| *previous < at)?;
        }
        Some(at)
    }
}
