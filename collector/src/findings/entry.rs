//! One record of the findings journal, and what records add up to. Pure.

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, FindingState, StoredFinding};
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::limits::HOST_NAME_BYTES_MAX;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use prost::Message as _;

use crate::journal::Position;

/// One record of the findings journal. It stands for itself: a report carries
/// every indicator so far, so older records of its finding are not needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FindingEntry {
    pub(crate) host_id: HostId,
    pub(crate) host_name: String,
    pub(crate) received_at: UnixMillis,
    /// When the finding was received for the first time.
    pub(crate) first_seen: UnixMillis,
    /// In a report: when its finding ended, if it had by then.
    pub(crate) ended_at: Option<UnixMillis>,
    pub(crate) alertable: bool,
    pub(crate) change: Change,
}

impl FindingEntry {
    /// The finding it is about.
    pub(crate) fn id(&self) -> FindingId {
        finding_id(self.host_id, &self.change)
    }

    /// The payload of the record.
    pub(crate) fn encode(&self) -> Bytes {
        let record = v1::FindingsRecord {
            received_at_ms: self.received_at.0,
            host_id: Bytes::copy_from_slice(self.host_id.as_bytes()),
            host_name: self.host_name.clone(),
            change: Some((&self.change).into()),
            alertable: self.alertable,
            first_seen_ms: match self.change {
                Change::Reported(_) => self.first_seen.0,
                Change::Ended(_) => 0,
            },
            ended_at_ms: match self.change {
                Change::Reported(_) => self.ended_at.map(|at| at.0),
                Change::Ended(_) => None,
            },
        };
        record.encode_to_vec().into()
    }

    /// The record of a payload.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn decode(payload: Bytes) -> Result<Self, String> {
        let record = v1::FindingsRecord::decode(payload).map_err(|e| e.to_string())?;
        let change = record.change.ok_or("the record holds no change")?;
        if record.host_name.len() > HOST_NAME_BYTES_MAX {
            return Err("the host's name is too long".into());
        }
        Ok(Self {
            host_id: HostId::from_slice(&record.host_id).map_err(|e| e.to_string())?,
            host_name: record.host_name,
            received_at: UnixMillis(record.received_at_ms),
            first_seen: UnixMillis(record.first_seen_ms),
            ended_at: record.ended_at_ms.map(UnixMillis),
            alertable: record.alertable,
            change: change.try_into().map_err(|e| format!("{e}"))?,
        })
    }
}

/// A host's name as a record can hold it.
pub(super) fn bounded_host_name(name: &str) -> String {
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= HOST_NAME_BYTES_MAX;
    name.char_indices()
        .take_while(fits)
        .map(|(_, c)| c)
        .collect()
}

/// The finding that a change of a host is about.
pub(crate) fn finding_id(host: HostId, change: &Change) -> FindingId {
    let subject = match change {
        Change::Reported(finding) => finding.subject,
        Change::Ended(ended) => ended.subject,
    };
    subject.finding_id(Some(host))
}

/// A finding after one more record; nothing when the record changes nothing,
/// because it is reflected already or because its finding is unknown.
pub(crate) fn fold(
    existing: Option<StoredFinding>,
    entry: FindingEntry,
    position: Position,
) -> Option<StoredFinding> {
    let id = entry.id();
    let old = existing.as_ref();
    if old.is_some_and(|old| old.evidence_position >= position.0) {
        return None;
    }
    match entry.change {
        Change::Reported(finding) => {
            let ended_at = entry.ended_at.or(old.and_then(|old| old.ended_at));
            let state = match ended_at {
                Some(_) => FindingState::Ended,
                None => old.map_or(FindingState::Open, |old| old.state),
            };
            Some(StoredFinding {
                id,
                host_id: entry.host_id,
                host_name: entry.host_name,
                finding: compact(*finding),
                state,
                first_seen: entry.first_seen,
                last_seen: entry.received_at,
                ended_at,
                evidence_position: position.0,
            })
        }
        Change::Ended(ended) => existing
            .filter(|old| old.state == FindingState::Open)
            .map(|old| StoredFinding {
                host_name: entry.host_name,
                state: FindingState::Ended,
                last_seen: entry.received_at,
                ended_at: Some(ended.ended_at),
                ..old
            }),
    }
}

/// A finding without its bulky evidence, which stays in the journal.
fn compact(mut finding: Finding) -> Finding {
    if let Some(process) = &mut finding.process {
        process.files = Vec::new();
        process.maps = Vec::new();
        process.ancestry = Vec::new();
        process.environment = Vec::new();
    }
    finding
}
