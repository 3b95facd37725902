//! The store: the history of findings, ready to be listed, in product words.
//!
//! It follows the journal and can always be made again from it. A store is
//! never the truth: what it says about a finding came from a record, and it
//! says up to which position of the journal it speaks.

use procwarden_common::finding::StoredFinding;
use procwarden_common::id::{FindingId, HostId};

use crate::dedup::Known;
use crate::findings::{FindingEntry, FindingFilter, FindingPage};
use crate::journal::Position;

mod changes;
mod keeper;
mod key;
mod schema;
mod sled;

pub(crate) use keeper::Keeper;

/// Why a store gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// What it holds cannot be trusted: rebuild it.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The disk refuses, or something else that may pass.
    #[error("the index is not available: {0}")]
    Unavailable(String),
    /// A cursor that no answer gave.
    #[error("not a cursor of this collector")]
    InvalidCursor,
}

/// How many findings there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) findings: u64,
    pub(crate) open: u64,
}

/// Keeps findings. One writer at a time; any number of readers.
pub(crate) trait Store: Send + Sync {
    /// Records before this position are reflected.
    fn position(&self) -> Position;

    /// Takes records in the order of the journal and moves the position to
    /// `upto`, all or nothing. Records that are reflected already change
    /// nothing.
    fn apply(
        &self,
        entries: Vec<(Position, FindingEntry)>,
        upto: Position,
    ) -> Result<(), StoreError>;

    /// Removes those of `ids` whose newest full report lies before a position.
    /// Returns how many.
    fn forget(&self, ids: &[FindingId], before: Position) -> Result<u64, StoreError>;

    /// What dedup has to know of a finding.
    fn known(&self, id: FindingId) -> Result<Option<Known>, StoreError>;

    /// A finding without files, maps and ancestry.
    fn finding(&self, id: FindingId) -> Result<Option<StoredFinding>, StoreError>;

    /// Findings without files, maps and ancestry, newest first.
    fn list(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<FindingPage, StoreError>;

    /// Ids whose hexadecimal form begins so.
    fn find_prefix(&self, hex: &str, limit: usize) -> Result<Vec<FindingId>, StoreError>;

    /// How many findings there are.
    fn counts(&self) -> Counts;

    /// Open findings of one host.
    fn open_count(&self, host: HostId) -> Result<u64, StoreError>;

    /// Reads everything and compares it with what was written.
    fn verify(&self) -> Result<(), StoreError>;

    /// Writes what is in memory to the disk.
    fn flush(&self) -> Result<(), StoreError>;
}
