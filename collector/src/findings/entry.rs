//! One record of the findings journal, and the finding after it. Pure.

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, FindingState, ProcessFacts, StoredFinding};
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::limits::HOST_NAME_BYTES_MAX;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use prost::Message as _;

use super::incoming::{Incoming, Said};
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
    /// In a report: where the journal holds the one before of its finding.
    pub(crate) previous: Option<Position>,
    pub(crate) change: Change,
}

impl FindingEntry {
    /// The finding it is about.
    pub(crate) fn id(&self) -> FindingId {
        finding_id(self.host_id, &self.change)
    }

    /// The payload of the record.
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Bytes {
        let head = Head {
            host_id: self.host_id,
            host_name: Bytes::copy_from_slice(self.host_name.as_bytes()),
            received_at: self.received_at,
            first_seen: self.first_seen,
            ended_at: self.ended_at,
            alertable: self.alertable,
            previous: self.previous,
        };
        head.encode(&Incoming::new(self.host_id, self.change.clone()))
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
            previous: record.previous_position.map(Position),
            change: change.try_into().map_err(|e| format!("{e}"))?,
        })
    }
}

/// What a record says besides the change. See [`FindingEntry`].
pub(super) struct Head {
    pub(super) host_id: HostId,
    pub(super) host_name: Bytes,
    pub(super) received_at: UnixMillis,
    pub(super) first_seen: UnixMillis,
    pub(super) ended_at: Option<UnixMillis>,
    pub(super) alertable: bool,
    pub(super) previous: Option<Position>,
}

impl Head {
    /// The payload of the record about a change.
    pub(super) fn encode(self, incoming: &Incoming) -> Bytes {
        let is_report = matches!(incoming.said, Said::Reported { .. });
        let encoded = Some(incoming.encoded.clone());
        let (reported, ended) = match is_report {
            true => (encoded, None),
            false => (None, encoded),
        };
        let record = v1::EncodedRecord {
            received_at_ms: self.received_at.0,
            host_id: Bytes::copy_from_slice(self.host_id.as_bytes()),
            host_name: self.host_name,
            reported,
            ended,
            alertable: self.alertable,
            first_seen_ms: if is_report { self.first_seen.0 } else { 0 },
            ended_at_ms: self.ended_at.filter(|_| is_report).map(|at| at.0),
            previous_position: self.previous.filter(|_| is_report).map(|at| at.0),
        };
        record.encode_to_vec().into()
    }
}

/// A host's name as a record can hold it.
pub(super) fn bounded_host_name(name: &str) -> Bytes {
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= HOST_NAME_BYTES_MAX;
    let bounded: String = name
        .char_indices()
        .take_while(fits)
        .map(|(_, c)| c)
        .collect();
    bounded.into()
}

/// The finding that a change of a host is about.
pub(crate) fn finding_id(host: HostId, change: &Change) -> FindingId {
    let subject = match change {
        Change::Reported(finding) => finding.subject,
        Change::Ended(ended) => ended.subject,
    };
    subject.finding_id(Some(host))
}

impl FindingEntry {
    /// The finding after this report, without what is bulky.
    pub(crate) fn stored(&self, id: FindingId, finding: &Finding, at: Position) -> StoredFinding {
        StoredFinding {
            id,
            host_id: self.host_id,
            host_name: self.host_name.clone(),
            finding: compact(finding),
            state: match self.ended_at {
                Some(_) => FindingState::Ended,
                None => FindingState::Open,
            },
            first_seen: self.first_seen,
            last_seen: self.received_at,
            ended_at: self.ended_at,
            evidence_position: at.0,
        }
    }
}

/// A finding without its bulky evidence, which stays in the journal.
fn compact(finding: &Finding) -> Finding {
    let process = finding.process.as_ref().map(|facts| ProcessFacts {
        comm: facts.comm.clone(),
        exe: facts.exe.clone(),
        cmdline: facts.cmdline.clone(),
        cwd: facts.cwd.clone(),
        cgroup: facts.cgroup.clone(),
        tty: facts.tty.clone(),
        container: facts.container.clone(),
        sockets: facts.sockets.clone(),
        files: Vec::new(),
        ancestry: Vec::new(),
        maps: Vec::new(),
        environment: Vec::new(),
        ..*facts
    });
    Finding {
        subject: finding.subject,
        indicators: finding.indicators.clone(),
        observed_at: finding.observed_at,
        uid: finding.uid,
        user: finding.user.clone(),
        process,
        host: finding.host.clone(),
        actions: finding.actions.clone(),
        quiet: finding.quiet,
    }
}
