//! The store: the history of findings, ready to be listed, in product words.
//!
//! It follows the journal and can always be made again from it. A store is
//! never the truth: what it says about a finding came from a record, and it
//! says up to which position of the journal it speaks. It is ordered as the
//! journal is, by the newest report of each finding, whatever clocks said.

use procwarden_common::finding::StoredFinding;
use procwarden_common::id::FindingId;

use crate::findings::{FindingFilter, FindingPage, Record};
use crate::journal::Position;

mod block;
mod closing;
mod generations;
mod keeper;
mod key;
mod listing;
mod schema;
mod sled;
mod state;
mod zone;

pub(crate) use keeper::{Keeper, Opened};

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

/// What the journal knows of a finding and a store does not.
pub(crate) trait History {
    /// Where its newest report is; nothing for a finding that is not kept.
    fn newest(&self, id: FindingId) -> Option<Position>;

    /// Where its newest report before a position is.
    fn newest_before(&self, id: FindingId, position: Position) -> Option<Position>;
}

/// Keeps findings. One writer at a time; any number of readers.
pub(crate) trait Store: Send + Sync {
    /// Records before this position are reflected.
    fn position(&self) -> Position;

    /// Takes records in the order of the journal and moves the position to
    /// `upto`. Records that are reflected already change nothing.
    fn apply(
        &self,
        records: &[Record],
        upto: Position,
        history: &dyn History,
    ) -> Result<(), StoreError>;

    /// Gives up what lies before a position of the journal, as far as nothing
    /// else lies with it.
    fn drop_before(&self, position: Position) -> Result<(), StoreError>;

    /// The finding of the report at a position, without files, maps and
    /// ancestry.
    fn finding(&self, position: Position) -> Result<Option<StoredFinding>, StoreError>;

    /// Findings without files, maps and ancestry, newest report first.
    fn list(
        &self,
        filter: &FindingFilter,
        cursor: Option<&[u8]>,
        limit: usize,
        history: &dyn History,
    ) -> Result<FindingPage, StoreError>;

    /// Reports that it holds.
    fn reports(&self) -> u64;

    /// Reads everything and compares it with what was written, until `stop`
    /// says so.
    fn verify(&self, stop: &dyn Fn() -> bool) -> Result<(), StoreError>;

    /// Writes what is in memory to the disk.
    fn flush(&self) -> Result<(), StoreError>;
}
