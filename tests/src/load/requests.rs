//! What the simulated hosts say: hello, heartbeats, and findings of realistic
//! size (about 1.5 KB), each about another process. Bodies are encoded once
//! and completed with what differs, as encoding every finding would cost the
//! generator as much as the collector.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use procwarden_proto::v1;
use procwarden_proto::v1::connect_request::Message;
use prost::Message as _;

use super::findings::{self, STARTED_AT, finding, key};
use super::stream::{framed, prefix};

/// Findings that are told apart by more than their process.
const KINDS: u64 = 64;

// The field numbers of the protocol with their wire types, as `fleet.proto`
// and `finding.proto` have them; a test reads the result with prost.
const REQUEST_BATCH: u8 = 0x12;
const BATCH_EVENT: u8 = 0x0a;
const EVENT_SEQUENCE: u8 = 0x08;
const EVENT_FINDING: u8 = 0x12;
const FINDING_SUBJECT: u8 = 0x0a;

/// Everything that one host says.
pub(super) struct Requests {
    number: usize,
    /// Findings without their subject, which is what differs.
    kinds: Arc<Vec<Bytes>>,
}

/// The bodies that all hosts share.
pub(super) fn kinds() -> Arc<Vec<Bytes>> {
    let encode = |kind| {
        let mut message = v1::Finding::from(&finding(0, kind));
        message.subject = None;
        Bytes::from(message.encode_to_vec())
    };
    Arc::new((0..KINDS).map(encode).collect())
}

impl Requests {
    pub(super) fn new(number: usize, kinds: Arc<Vec<Bytes>>) -> Self {
        Self { number, kinds }
    }

    pub(super) fn hello(&self) -> Bytes {
        framed(&findings::hello(self.number))
    }

    /// `count` findings with the sequence numbers from `first` on.
    pub(super) fn batch(&self, first: u64, count: usize) -> Bytes {
        let events: Vec<_> = (first..)
            .take(count)
            .map(|sequence| self.event(sequence))
            .collect();
        let field = |length: usize| 1 + prost::length_delimiter_len(length) + length;
        let batch: usize = events.iter().map(|event| field(event.length())).sum();
        let mut bytes = BytesMut::with_capacity(field(batch) + 5);
        prefix(&mut bytes, field(batch));
        open(&mut bytes, REQUEST_BATCH, batch);
        for event in &events {
            open(&mut bytes, BATCH_EVENT, event.length());
            open(
                &mut bytes,
                EVENT_SEQUENCE,
                usize::try_from(event.sequence).unwrap_or(0),
            );
            open(&mut bytes, EVENT_FINDING, event.finding_length());
            open(&mut bytes, FINDING_SUBJECT, event.subject.len());
            bytes.extend_from_slice(&event.subject);
            bytes.extend_from_slice(event.rest);
        }
        bytes.freeze()
    }

    fn event(&self, sequence: u64) -> Event<'_> {
        let key = key(self.number, sequence);
        let subject = v1::Subject {
            boot_id: Bytes::copy_from_slice(key.boot_id.as_bytes()),
            kind: Some(v1::subject::Kind::Process(v1::ProcessSubject {
                pid: key.pid,
                start_time: key.start_time,
            })),
        };
        let kind = usize::try_from(sequence % KINDS).unwrap_or(0);
        Event {
            sequence,
            subject: subject.encode_to_vec(),
            rest: self.kinds.get(kind).map_or(&[], |kind| kind),
        }
    }
}

/// One event in parts.
struct Event<'r> {
    sequence: u64,
    subject: Vec<u8>,
    rest: &'r [u8],
}

impl Event<'_> {
    fn finding_length(&self) -> usize {
        let subject = self.subject.len();
        1 + prost::length_delimiter_len(subject) + subject + self.rest.len()
    }

    fn length(&self) -> usize {
        let finding = self.finding_length();
        let sequence = usize::try_from(self.sequence).unwrap_or(0);
        1 + prost::length_delimiter_len(sequence)
            + 1
            + prost::length_delimiter_len(finding)
            + finding
    }
}

/// A field's key and the varint behind it: a length, or the value itself.
fn open(bytes: &mut BytesMut, key: u8, varint: usize) {
    bytes.extend_from_slice(&[key]);
    // It fails only where the buffer cannot grow.
    let _infallible = prost::encode_length_delimiter(varint, bytes).is_ok();
}

/// A heartbeat that says which policy runs; an empty hash is none.
#[allow(
    clippy::needless_update,
    reason = "a heartbeat may have more parts by now, which this one leaves out"
)]
pub(super) fn heartbeat(applied_hash: &[u8], applied: Vec<v1::AppliedPolicy>) -> Bytes {
    framed(&v1::ConnectRequest {
        message: Some(Message::Heartbeat(v1::Heartbeat {
            sent_at_ms: STARTED_AT.0,
            policy: Some(v1::PolicyState {
                applied_hash: Bytes::copy_from_slice(applied_hash),
                applied,
                ..Default::default()
            }),
            health: Some(v1::AgentHealth {
                scans: 1_000,
                processes: 1_000,
                last_scan_us: 15_000,
                rss_bytes: 9 << 20,
                cpu_us: 5_000_000,
                ..Default::default()
            }),
            ..Default::default()
        })),
    })
}

#[cfg(test)]
mod tests {
    use procwarden_common::wire::{Change, event_from_wire};

    use super::*;

    #[test]
    fn a_batch_put_together_from_parts_reads_as_findings_of_realistic_size() {
        let requests = Requests::new(3, kinds());
        for first in [1, 127, 16_380, 2_097_150] {
            let framed = requests.batch(first, 100);
            let message = v1::ConnectRequest::decode(framed.slice(5..)).unwrap();
            let Some(Message::Batch(batch)) = message.message else {
                panic!("no batch")
            };
            assert_eq!(batch.events.len(), 100);
            for (event, expected) in batch.events.into_iter().zip(first..) {
                let Ok((sequence, Change::Reported(found))) = event_from_wire(event) else {
                    panic!("no finding")
                };
                assert_eq!(sequence, expected);
                assert_eq!(found.subject, finding(3, expected).subject);
                assert_eq!(found.process, finding(3, expected % KINDS).process);
            }
            let each = framed.len() / 100;
            assert!((1_300..1_700).contains(&each), "{each} bytes per finding");
        }
    }
}
