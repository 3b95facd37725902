//! The newest records, still in memory: who follows closely need not read and
//! decode them again. Bounded; who is further behind reads the journal.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::FindingEntry;
use crate::journal::Position;

/// Bytes of records that are kept, as they are in the journal.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Something that was recorded, with its place in the findings journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) position: Position,
    /// The position behind it.
    pub(crate) next: Position,
    pub(crate) entry: Arc<FindingEntry>,
}

impl Deref for Recorded {
    type Target = FindingEntry;

    fn deref(&self) -> &FindingEntry {
        &self.entry
    }
}

/// The newest records, without a gap.
#[derive(Clone, Default)]
pub(super) struct Recent {
    records: Arc<Mutex<VecDeque<Recorded>>>,
}

impl Recent {
    /// Adds records that are durable.
    pub(super) fn push(&self, new: Vec<Recorded>) {
        let mut records = self.lock();
        let follows = |old: &Recorded| new.first().is_some_and(|n| n.position == old.next);
        if !records.back().is_some_and(follows) {
            records.clear();
        }
        records.extend(new);
        let end = records.back().map_or(0, |last| last.next.0);
        let excess = records.partition_point(|r| end - r.position.0 > BYTES_MAX);
        let old: Vec<Recorded> = records.drain(..excess).collect();
        drop(records);
        drop(old);
    }

    /// Records from a position on, if the one at it is here.
    pub(super) fn from(&self, at: Position, records_max: usize) -> Vec<Recorded> {
        let records = self.lock();
        let index = records.partition_point(|r| r.position < at);
        match records.get(index) {
            Some(first) if first.position == at => {
                records.range(index..).take(records_max).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Recorded>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
