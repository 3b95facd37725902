//! A change of a host on its way into the journal. Pure.
//!
//! What dedup decides by is read once, where the change was received; from
//! there on a finding travels as the bytes that its record will hold. Only one
//! that grows is looked into again.

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::Finding;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::wire::{Change, InvalidMessage};
use procwarden_proto::v1;
use prost::Message as _;

use super::finding_id;
use super::sets::{Set, set_of};
use crate::dedup;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(super) host_id: HostId,
    pub(super) id: FindingId,
    pub(super) said: Said,
    /// A `v1::Finding`, or a `v1::FindingEnded`.
    pub(super) encoded: Bytes,
}

/// What a change says, as far as dedup has to know.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Reported {
        set: Set,
        has_actions: bool,
        is_quiet: bool,
    },
    Ended {
        at: UnixMillis,
    },
}

impl Incoming {
    /// A change of a host.
    pub(crate) fn new(host: HostId, change: Change) -> Self {
        Self::of(host, change, None)
    }

    /// What an event of a host carries, checked.
    ///
    /// # Errors
    /// When it carries nothing, or something that is out of bounds.
    pub(crate) fn receive(host: HostId, event: &v1::ReceivedEvent) -> Result<Self, InvalidMessage> {
        let broken = |error| InvalidMessage::new("event", format!("cannot be decoded: {error}"));
        match (&event.finding, &event.ended) {
            (Some(bytes), None) => {
                let message = v1::Finding::decode(bytes.clone()).map_err(broken)?;
                // A journal holds what its collector understands, not what a
                // message may be padded with.
                let is_plain = message.encoded_len() == bytes.len();
                let change = Change::Reported(Box::new(message.try_into()?));
                Ok(Self::of(host, change, is_plain.then(|| bytes.clone())))
            }
            (None, Some(bytes)) => {
                let message = v1::FindingEnded::decode(bytes.clone()).map_err(broken)?;
                Ok(Self::of(host, Change::Ended(message.try_into()?), None))
            }
            (None, None) => Err(InvalidMessage::new("event", "is missing")),
            (Some(_), Some(_)) => Err(InvalidMessage::new("event", "is given twice")),
        }
    }

    /// `encoded` is the finding as it was received.
    fn of(host: HostId, change: Change, encoded: Option<Bytes>) -> Self {
        let id = finding_id(host, &change);
        match change {
            Change::Reported(mut finding) => {
                let is_changed = dedup::unite(&mut finding.indicators);
                let encoded = encoded.filter(|_| !is_changed);
                Self {
                    host_id: host,
                    id,
                    said: Said::of(&finding),
                    encoded: encoded.unwrap_or_else(|| encode(&v1::Finding::from(&*finding))),
                }
            }
            Change::Ended(ended) => Self {
                host_id: host,
                id,
                said: Said::Ended { at: ended.ended_at },
                encoded: encode(&v1::FindingEnded::from(&ended)),
            },
        }
    }

    /// The change itself.
    ///
    /// # Errors
    /// Never for one that was received here; why not, in words.
    pub(super) fn change(&self) -> Result<Change, String> {
        let bytes = self.encoded.clone();
        let change = match self.said {
            Said::Reported { .. } => {
                let message = v1::Finding::decode(bytes).map_err(|e| e.to_string())?;
                message.try_into().map(|f| Change::Reported(Box::new(f)))
            }
            Said::Ended { .. } => {
                let message = v1::FindingEnded::decode(bytes).map_err(|e| e.to_string())?;
                message.try_into().map(Change::Ended)
            }
        };
        change.map_err(|error: InvalidMessage| error.to_string())
    }
}

impl Said {
    fn of(finding: &Finding) -> Self {
        Self::Reported {
            set: set_of(&finding.indicators),
            has_actions: !finding.actions.is_empty(),
            is_quiet: finding.quiet,
        }
    }
}

fn encode(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use procwarden_common::finding::{Ended, Subject};
    use procwarden_common::id::BootId;
    use procwarden_common::indicator::Indicator;
    use procwarden_common::severity::Severity;
    use uuid::Uuid;

    use super::*;

    const HOST: HostId = HostId::from_uuid(Uuid::nil());
    const SUBJECT: Subject = Subject::Account {
        boot_id: BootId::from_uuid(Uuid::nil()),
        uid: 7,
        since: UnixMillis(8),
    };

    fn finding(indicators: &[(&str, Severity)]) -> Finding {
        let indicator = |(id, severity): &(&str, Severity)| Indicator {
            id: id.parse().unwrap(),
            severity: *severity,
            evidence: "seen".to_owned(),
        };
        Finding {
            subject: SUBJECT,
            indicators: indicators.iter().map(indicator).collect(),
            observed_at: UnixMillis(1),
            uid: 7,
            user: b"alice".to_vec(),
            process: None,
            host: None,
            actions: Vec::new(),
            quiet: false,
        }
    }

    fn event(finding: Option<Vec<u8>>, ended: Option<Vec<u8>>) -> v1::ReceivedEvent {
        v1::ReceivedEvent {
            sequence: 1,
            finding: finding.map(Into::into),
            ended: ended.map(Into::into),
        }
    }

    fn bytes(finding: &Finding) -> Vec<u8> {
        v1::Finding::from(finding).encode_to_vec()
    }

    #[test]
    fn a_finding_stays_as_it_was_encoded() {
        let sent = finding(&[("a", Severity::Low), ("b", Severity::High)]);
        let received = event(Some(bytes(&sent)), None);
        let incoming = Incoming::receive(HOST, &received).unwrap();
        assert_eq!(Some(&incoming.encoded), received.finding.as_ref());
        assert_eq!(incoming.id, SUBJECT.finding_id(Some(HOST)));
        assert_eq!(incoming.change(), Ok(Change::Reported(Box::new(sent))));
    }

    #[test]
    fn what_a_message_is_padded_with_goes_nowhere() {
        let sent = finding(&[("a", Severity::Low)]);
        let mut padded = bytes(&sent);
        // Field 1000, two bytes long.
        padded.extend_from_slice(&[0xc2, 0x3e, 2, 0, 0]);
        let incoming = Incoming::receive(HOST, &event(Some(padded), None)).unwrap();
        assert_eq!(incoming.encoded, bytes(&sent));
    }

    #[test]
    fn an_indicator_that_is_named_twice_counts_once_with_the_higher_severity() {
        let sent = finding(&[("a", Severity::Low), ("a", Severity::High)]);
        let incoming = Incoming::receive(HOST, &event(Some(bytes(&sent)), None)).unwrap();
        let united = finding(&[("a", Severity::High)]);
        assert_eq!(incoming.encoded, bytes(&united));
    }

    #[test]
    fn an_end_is_read_and_everything_else_is_refused() {
        let ended = Ended {
            subject: SUBJECT,
            ended_at: UnixMillis(9),
        };
        let end = v1::FindingEnded::from(&ended).encode_to_vec();
        let incoming = Incoming::receive(HOST, &event(None, Some(end.clone()))).unwrap();
        assert_eq!(incoming.change(), Ok(Change::Ended(ended)));
        for bad in [
            event(None, None),
            event(Some(bytes(&finding(&[("a", Severity::Low)]))), Some(end)),
            event(Some(vec![0xff; 9]), None),
            event(Some(Vec::new()), None),
            event(None, Some(vec![0x0a])),
        ] {
            assert!(Incoming::receive(HOST, &bad).is_err(), "{bad:?}");
        }
    }
}
