//! The audit trail: every decision with who, when and on what.

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use tonic::Status;

use super::AdminContext;
use super::refusal::{internal, invalid};
use crate::journal::Position;

mod words;
pub(crate) use words::entry as audit_entry;

/// Decisions of one answer when no number is asked for.
const ENTRIES_DEFAULT: u32 = 100;
/// Decisions of one answer.
const ENTRIES_MAX: u32 = 500;

impl AdminContext {
    /// One page of the ledger, newest first.
    pub(super) fn list_audit(
        &self,
        request: &v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse, Status> {
        let before = position_of(&request.cursor)?;
        let limit = match request.limit {
            0 => ENTRIES_DEFAULT,
            limit => limit.min(ENTRIES_MAX),
        };
        let since = UnixMillis(match request.since_ms {
            0 => i64::MIN,
            since => since,
        });
        let tell = |record| self.ledger.read(|state| words::entry(state, record));
        let page = self.ledger.audit(since, before, limit as usize, tell);
        let page = page.map_err(|error| internal(format!("cannot read the ledger: {error}")))?;
        let next_cursor = page
            .more_before
            .map(|before| before.0.to_be_bytes().to_vec());
        Ok(v1::ListAuditResponse {
            entries: page.entries,
            next_cursor: next_cursor.unwrap_or_default().into(),
        })
    }
}

fn position_of(cursor: &[u8]) -> Result<Option<Position>, Status> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let bytes = cursor
        .try_into()
        .map_err(|_| invalid("the cursor is not one that this collector gave"))?;
    Ok(Some(Position(u64::from_be_bytes(bytes))))
}
