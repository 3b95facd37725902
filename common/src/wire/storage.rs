//! Findings as the collector keeps and lists them.

use procwarden_proto::v1;
use v1::findings_record::Change as RecordedChange;

use super::{Change, InvalidMessage, bounded_size, to_bytes};
use crate::clock::UnixMillis;
use crate::finding::{FindingState, StoredFinding};
use crate::id::{FindingId, HostId};
use crate::limits;

impl TryFrom<v1::StoredFinding> for StoredFinding {
    type Error = InvalidMessage;

    fn try_from(message: v1::StoredFinding) -> Result<Self, InvalidMessage> {
        bounded_size(
            "host_name",
            message.host_name.len(),
            limits::HOST_NAME_BYTES_MAX,
        )?;
        let finding = message.finding.ok_or(InvalidMessage::missing("finding"))?;
        Ok(Self {
            id: FindingId::from_slice(&message.id)
                .map_err(|error| InvalidMessage::new("id", error))?,
            host_id: HostId::from_slice(&message.host_id)
                .map_err(|error| InvalidMessage::new("host_id", error))?,
            host_name: message.host_name,
            finding: finding.try_into()?,
            state: state_from_wire(message.state)?,
            first_seen: UnixMillis(message.first_seen_ms),
            last_seen: UnixMillis(message.last_seen_ms),
            ended_at: (message.ended_at_ms != 0).then_some(UnixMillis(message.ended_at_ms)),
            evidence_position: message.evidence_position,
        })
    }
}

impl From<&StoredFinding> for v1::StoredFinding {
    fn from(stored: &StoredFinding) -> Self {
        Self {
            id: to_bytes(stored.id.as_bytes()),
            host_id: to_bytes(stored.host_id.as_bytes()),
            host_name: stored.host_name.clone(),
            finding: Some((&stored.finding).into()),
            state: state_to_wire(stored.state).into(),
            first_seen_ms: stored.first_seen.0,
            last_seen_ms: stored.last_seen.0,
            ended_at_ms: stored.ended_at.map_or(0, |at| at.0),
            evidence_position: stored.evidence_position,
        }
    }
}

/// The change that a record of the findings journal carries.
impl TryFrom<RecordedChange> for Change {
    type Error = InvalidMessage;

    fn try_from(message: RecordedChange) -> Result<Self, InvalidMessage> {
        match message {
            RecordedChange::Reported(finding) => Ok(Self::Reported(Box::new(finding.try_into()?))),
            RecordedChange::Ended(ended) => Ok(Self::Ended(ended.try_into()?)),
        }
    }
}

impl From<&Change> for RecordedChange {
    fn from(change: &Change) -> Self {
        match change {
            Change::Reported(finding) => Self::Reported(finding.as_ref().into()),
            Change::Ended(ended) => Self::Ended(ended.into()),
        }
    }
}

/// The state that a number of the protocol stands for.
///
/// # Errors
/// When it stands for none.
pub fn state_from_wire(number: i32) -> Result<FindingState, InvalidMessage> {
    match v1::FindingState::try_from(number) {
        Ok(v1::FindingState::Open) => Ok(FindingState::Open),
        Ok(v1::FindingState::Ended) => Ok(FindingState::Ended),
        Ok(v1::FindingState::Resolved) => Ok(FindingState::Resolved),
        Ok(v1::FindingState::Unspecified) | Err(_) => Err(InvalidMessage::new(
            "state",
            format!("is {number}, which is unknown"),
        )),
    }
}

/// The state in the protocol.
#[must_use]
pub const fn state_to_wire(state: FindingState) -> v1::FindingState {
    match state {
        FindingState::Open => v1::FindingState::Open,
        FindingState::Ended => v1::FindingState::Ended,
        FindingState::Resolved => v1::FindingState::Resolved,
    }
}
