//! A block: findings whose newest report was written one after the other, and
//! what ended of them since. Pure.

use std::ops::ControlFlow;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{FindingState, StoredFinding};
use procwarden_proto::v1;
use prost::Message as _;

use super::StoreError;

/// Findings of a full block. Small enough, packed, that sled keeps sixteen of
/// them on one page and the page in its own file; large enough that five
/// million findings are few keys.
pub(super) const BLOCK_FINDINGS: usize = 64;

/// A block as it is read.
pub(super) struct Block {
    pub(super) findings: Vec<v1::IndexedFinding>,
    pub(super) ends: Vec<v1::BlockEnd>,
}

/// Looks at a finding of a block; gets what ended of the block as well, first
/// what is not written yet. Says whether to go on.
pub(super) type Take<'t> = &'t mut dyn FnMut(
    &v1::IndexedFinding,
    &[v1::BlockEnd],
    &[v1::BlockEnd],
) -> Result<ControlFlow<()>, StoreError>;

/// A finding as a block holds it.
pub(super) fn indexed(stored: &v1::CompactStoredFinding) -> v1::IndexedFinding {
    v1::IndexedFinding {
        position: stored.evidence_position,
        id: stored.id.clone(),
        stored: stored.encode_to_vec().into(),
    }
}

/// The finding that was reported there, as it is by now.
pub(super) fn stored<'e>(
    indexed: &v1::IndexedFinding,
    ends: impl IntoIterator<Item = &'e v1::BlockEnd>,
) -> Result<StoredFinding, StoreError> {
    let message = v1::StoredFinding::decode(indexed.stored.clone()).map_err(|e| damaged(&e))?;
    let mut stored = StoredFinding::try_from(message).map_err(|e| damaged(&e))?;
    let is_of_it = |end: &&v1::BlockEnd| end.position == indexed.position;
    if stored.state == FindingState::Open
        && let Some(end) = ends.into_iter().find(is_of_it)
    {
        stored.state = FindingState::Ended;
        stored.ended_at = Some(UnixMillis(end.ended_at_ms));
        stored.last_seen = UnixMillis(end.last_seen_ms);
        stored.host_name.clone_from(&end.host_name);
    }
    Ok(stored)
}

fn damaged(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a finding cannot be decoded: {error}"))
}
