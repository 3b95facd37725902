//! The newest records, still in memory: who follows closely need not read them
//! again. Bounded; who is further behind reads the journal.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::compact::RecordFacts;
use super::entry::FindingEntry;
use crate::journal::Position;

/// Bytes of records that are kept, as they are in the journal.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A record of the findings journal with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) position: Position,
    /// The position behind it.
    pub(crate) next: Position,
    pub(crate) payload: Bytes,
    /// What it says, where that is known already.
    pub(crate) facts: Option<RecordFacts>,
}

/// A record as those see it who follow the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) position: Position,
    /// The position behind it.
    pub(crate) next: Position,
    facts: RecordFacts,
    payload: Bytes,
}

impl Recorded {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it makes no sense, in words.
    pub(crate) fn read(record: Record) -> Result<Self, String> {
        Ok(Self {
            position: record.position,
            next: record.next,
            facts: match record.facts {
                Some(facts) => facts,
                None => RecordFacts::read(&record.payload)?,
            },
            payload: record.payload,
        })
    }

    /// The whole record.
    ///
    /// # Errors
    /// Why it makes no sense, in words.
    pub(crate) fn entry(&self) -> Result<FindingEntry, String> {
        FindingEntry::decode(self.payload.clone())
    }
}

impl Deref for Recorded {
    type Target = RecordFacts;

    fn deref(&self) -> &RecordFacts {
        &self.facts
    }
}

/// The newest records, without a gap.
#[derive(Clone, Default)]
pub(super) struct Recent {
    records: Arc<Mutex<VecDeque<Record>>>,
}

impl Recent {
    /// Adds records that are durable.
    pub(super) fn push(&self, new: Vec<Record>) {
        let mut records = self.lock();
        let follows = |old: &Record| new.first().is_some_and(|n| n.position == old.next);
        if !records.back().is_some_and(follows) {
            records.clear();
        }
        records.extend(new);
        let end = records.back().map_or(0, |last| last.next.0);
        let excess = records.partition_point(|r| end - r.position.0 > BYTES_MAX);
        let old: Vec<Record> = records.drain(..excess).collect();
        drop(records);
        drop(old);
    }

    /// Records from a position on, if the one at it is here.
    pub(super) fn from(&self, at: Position, records_max: usize) -> Vec<Record> {
        let records = self.lock();
        let index = records.partition_point(|r| r.position < at);
        match records.get(index) {
            Some(first) if first.position == at => {
                records.range(index..).take(records_max).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
