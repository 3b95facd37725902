//! A record of the findings journal without bulky evidence: what dedup, the
//! index and the alerts read of it. Pure.

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::FindingState;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::severity::Severity;
use procwarden_common::wire::{severity_from_wire, state_to_wire, subject_from_wire};
use procwarden_proto::v1;
use prost::Message as _;
use v1::compact_record::Change;

use super::sets::Set;
use crate::journal::Position;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompactRecord {
    id: FindingId,
    host_id: HostId,
    received_at: UnixMillis,
    alertable: bool,
    host_name: Bytes,
    first_seen: UnixMillis,
    /// In a report: when its finding had ended, if it had by then.
    ended_at: Option<UnixMillis>,
    change: Change,
}

/// What a record says, as far as dedup and alerts have to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordFacts {
    /// The finding that it is about.
    pub(crate) id: FindingId,
    pub(crate) host_id: HostId,
    pub(crate) received_at: UnixMillis,
    pub(crate) alertable: bool,
    /// In a report: what it has shown.
    pub(super) set: Option<Set>,
    /// In a report: when its finding had ended, if it had by then.
    pub(super) ended_at: Option<UnixMillis>,
}

impl RecordFacts {
    /// Of a payload.
    ///
    /// # Errors
    /// Why it is no record, in words.
    pub(super) fn read(payload: &Bytes) -> Result<Self, String> {
        CompactRecord::decode(payload.clone(), None)?.facts()
    }

    /// Of a report: the highest severity of its indicators.
    pub(crate) fn severity(&self) -> Option<Severity> {
        let set = self.set.as_ref()?;
        set.iter().map(|(_, severity)| *severity).max()
    }
}

impl CompactRecord {
    /// Reads the payload of a record. `id` is the finding that it is about,
    /// where that is known.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn decode(payload: Bytes, id: Option<FindingId>) -> Result<Self, String> {
        let record = v1::CompactRecord::decode(payload).map_err(|e| e.to_string())?;
        let change = record.change.ok_or("the record holds no change")?;
        let host_id = HostId::from_slice(&record.host_id).map_err(|e| e.to_string())?;
        let id = match id {
            Some(id) => id,
            None => id_of(host_id, &change)?,
        };
        Ok(Self {
            id,
            host_id,
            received_at: UnixMillis(record.received_at_ms),
            alertable: record.alertable,
            host_name: record.host_name,
            first_seen: UnixMillis(record.first_seen_ms),
            ended_at: record.ended_at_ms.map(UnixMillis),
            change,
        })
    }

    /// What dedup has to know.
    ///
    /// # Errors
    /// When an indicator has a name or a severity that none has.
    pub(super) fn facts(&self) -> Result<RecordFacts, String> {
        let (set, ended_at) = match &self.change {
            Change::Reported(finding) => (Some(set(finding)?), self.ended_at),
            Change::Ended(ended) => (None, Some(UnixMillis(ended.ended_at_ms))),
        };
        Ok(RecordFacts {
            id: self.id,
            host_id: self.host_id,
            received_at: self.received_at,
            alertable: self.alertable,
            set,
            ended_at,
        })
    }

    /// Whether it is a report, and of what the index keeps, or an end.
    pub(crate) fn indexed(self, position: Position) -> Indexed {
        match self.change {
            Change::Reported(finding) => Indexed::Report(Box::new(v1::CompactStoredFinding {
                id: Bytes::copy_from_slice(self.id.as_bytes()),
                host_id: Bytes::copy_from_slice(self.host_id.as_bytes()),
                host_name: self.host_name,
                finding: Some(finding),
                state: state_to_wire(match self.ended_at {
                    Some(_) => FindingState::Ended,
                    None => FindingState::Open,
                })
                .into(),
                first_seen_ms: self.first_seen.0,
                last_seen_ms: self.received_at.0,
                ended_at_ms: self.ended_at.map_or(0, |at| at.0),
                evidence_position: position.0,
            })),
            Change::Ended(ended) => Indexed::End(
                self.id,
                v1::BlockEnd {
                    position: 0,
                    ended_at_ms: ended.ended_at_ms,
                    last_seen_ms: self.received_at.0,
                    host_name: String::from_utf8_lossy(&self.host_name).into_owned(),
                },
            ),
        }
    }
}

/// What the index makes of a record.
pub(crate) enum Indexed {
    Report(Box<v1::CompactStoredFinding>),
    /// The end of a finding; the position of its report is not known here.
    End(FindingId, v1::BlockEnd),
}

fn id_of(host: HostId, change: &Change) -> Result<FindingId, String> {
    let subject = match change {
        Change::Reported(finding) => finding.subject.clone(),
        Change::Ended(ended) => ended.subject.clone(),
    };
    let subject = subject_from_wire(subject).map_err(|e| e.to_string())?;
    Ok(subject.finding_id(Some(host)))
}

fn set(finding: &v1::CompactFinding) -> Result<Set, String> {
    let pair = |indicator: &v1::CompactIndicator| {
        let id = std::str::from_utf8(&indicator.id).map_err(|e| e.to_string())?;
        let id = id.parse().map_err(|e| format!("{e}"))?;
        let severity = severity_from_wire(indicator.severity).map_err(|e| e.to_string())?;
        Ok((id, severity))
    };
    let pairs: Result<Vec<_>, String> = finding.indicators.iter().map(pair).collect();
    let mut pairs = pairs?;
    pairs.sort_unstable();
    Ok(pairs.into())
}

#[cfg(test)]
mod tests {
    use procwarden_common::finding::{
        ActionRecord, Ancestor, Container, Ended, ExeFile, Finding, ProcessFacts, Subject,
    };
    use procwarden_common::id::BootId;
    use procwarden_common::indicator::Indicator;
    use procwarden_common::process::{Cmdline, ProcessKey, Protocol, Socket, SocketState};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::findings::FindingEntry;

    const AT: Position = Position(4711);

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..9)
    }

    fn process() -> impl Strategy<Value = ProcessFacts> {
        let texts = (bytes(), bytes(), bytes(), bytes());
        let numbers = (any::<u32>(), any::<u64>(), any::<i64>(), any::<bool>());
        (texts, numbers, 0usize..4).prop_map(
            |((a, b, c, d), (small, large, time, is_so), count)| {
                let socket = Socket {
                    protocol: Protocol::Tcp6,
                    state: SocketState::Listen,
                    local: Some("[::1]:80".parse().unwrap()),
                    remote: None,
                    filter_len: None,
                };
                let ancestor = Ancestor {
                    pid: small,
                    exe: a.clone(),
                    cmdline: b.clone(),
                };
                ProcessFacts {
                    ppid: small,
                    parent_start_time: large,
                    started_at: UnixMillis(time),
                    age_secs: large,
                    comm: a.clone(),
                    exe: is_so.then(|| b.clone()),
                    exe_deleted: is_so,
                    exe_sha256: is_so.then_some([7; 32]),
                    exe_file: is_so.then_some(ExeFile {
                        device_major: 8,
                        device_minor: 1,
                        inode: large,
                        owner_uid: small,
                        mode: 0o100_755,
                        modified_at: UnixMillis(time),
                        size_bytes: large,
                    }),
                    cmdline: Cmdline {
                        raw: c,
                        truncated: is_so,
                    },
                    cwd: (!is_so).then(|| d.clone()),
                    cgroup: d.clone(),
                    container: Container::new("lxc", "x1").filter(|_| is_so),
                    session: small,
                    tty: "pts/1".into(),
                    loginuid: is_so.then_some(small),
                    vsz_bytes: large,
                    rss_bytes: large,
                    sockets: vec![socket; count],
                    files: vec![d; count],
                    ancestry: vec![ancestor; count],
                    maps: vec![a; count],
                    environment: Vec::new(),
                }
            },
        )
    }

    fn entries() -> impl Strategy<Value = FindingEntry> {
        let numbers = (any::<u32>(), 1..i64::MAX, any::<bool>(), 1usize..4);
        (process(), bytes(), numbers).prop_map(|(process, user, (small, time, is_so, count))| {
            let indicator = |n: usize| Indicator {
                id: format!("i{n}").parse().unwrap(),
                severity: Severity::ALL[n % Severity::ALL.len()],
                evidence: "seen".into(),
            };
            let finding = Finding {
                subject: Subject::Process(ProcessKey {
                    boot_id: BootId::from_uuid(Uuid::from_u128(9)),
                    pid: small.max(1),
                    start_time: 5,
                }),
                indicators: (0..count).map(indicator).collect(),
                observed_at: UnixMillis(time),
                uid: small,
                user,
                process: Some(process),
                host: None,
                actions: vec![ActionRecord::new(UnixMillis(time), "on_deleted", "killed"); count],
                quiet: is_so,
            };
            FindingEntry {
                host_id: HostId::from_uuid(Uuid::from_u128(u128::from(small))),
                host_name: "web1".into(),
                received_at: UnixMillis(time),
                first_seen: UnixMillis(time / 2),
                ended_at: is_so.then_some(UnixMillis(time)),
                alertable: !is_so,
                previous: is_so.then_some(Position(3)),
                change: procwarden_common::wire::Change::Reported(Box::new(finding)),
            }
        })
    }

    proptest! {
        /// What the index keeps is what the record says without what is bulky.
        #[test]
        fn a_record_is_indexed_as_if_it_had_been_read_whole(entry in entries()) {
            let record = CompactRecord::decode(entry.encode(), None).unwrap();
            let procwarden_common::wire::Change::Reported(finding) = &entry.change else {
                unreachable!("it is a report");
            };
            prop_assert_eq!(record.id, entry.id());
            let facts = record.facts().unwrap();
            prop_assert_eq!(facts.severity(), Some(finding.severity()));
            prop_assert_eq!(facts.alertable, entry.alertable);
            prop_assert_eq!(facts.set, Some(crate::findings::sets::set_of(&finding.indicators)));
            let stored = entry.stored(entry.id(), finding, AT);
            let expected = v1::StoredFinding::from(&stored).encode_to_vec();
            let Indexed::Report(indexed) = record.indexed(AT) else {
                unreachable!("it is a report");
            };
            prop_assert_eq!(indexed.encode_to_vec(), expected);
        }

        #[test]
        fn hostile_bytes_are_refused_in_words(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(record) = CompactRecord::decode(bytes.into(), None) {
                drop(record.facts());
                drop(record.indexed(AT));
            }
        }
    }

    #[test]
    fn an_end_says_which_finding_ended_and_when() {
        let ended = Ended {
            subject: Subject::Account {
                boot_id: BootId::from_uuid(Uuid::nil()),
                uid: 1,
                since: UnixMillis(2),
            },
            ended_at: UnixMillis(3),
        };
        let entry = FindingEntry {
            host_id: HostId::from_uuid(Uuid::nil()),
            host_name: "web1".into(),
            received_at: UnixMillis(4),
            first_seen: UnixMillis(0),
            ended_at: None,
            alertable: false,
            previous: None,
            change: procwarden_common::wire::Change::Ended(ended),
        };
        let record = CompactRecord::decode(entry.encode(), None).unwrap();
        let facts = record.facts().unwrap();
        assert_eq!((facts.set, facts.ended_at), (None, Some(UnixMillis(3))));
        let Indexed::End(id, end) = record.indexed(AT) else {
            panic!("it is an end");
        };
        assert_eq!(id, entry.id());
        assert_eq!((end.ended_at_ms, end.last_seen_ms), (3, 4));
        assert_eq!(end.host_name, "web1");
    }
}
