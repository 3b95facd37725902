//! What becomes of each change, before anything is written.

use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::FindingId;

use super::super::facts::Fact;
use super::super::incoming::{Incoming, Said};
use super::super::lookup;
use super::{Committer, Group};
use crate::dedup::{self, Decision};

/// What becomes of one change.
pub(super) enum Plan {
    Record {
        incoming: Incoming,
        /// What was known before.
        fact: Option<Fact>,
        alertable: bool,
        first_seen: UnixMillis,
        ended_at: Option<UnixMillis>,
    },
    /// The journal holds it already.
    Duplicate,
    /// The end of a finding that nobody reported.
    UnknownEnd,
}

impl Committer {
    /// Whether a report says more than a record of the group about the same
    /// finding.
    pub(super) fn outgrows(&self, incoming: &Incoming, group: &Group) -> bool {
        match (&incoming.said, group.held.get(&incoming.id)) {
            (
                Said::Reported {
                    set, has_actions, ..
                },
                Some(held),
            ) => *has_actions || self.past.facts.covers(held.set, set) != Some(true),
            (Said::Reported { .. } | Said::Ended { .. }, _) => false,
        }
    }

    /// Most changes are decided from what is in memory; the record is read when
    /// a finding grows or the host acted upon it.
    pub(super) fn decide(
        &self,
        incoming: Incoming,
        received_at: UnixMillis,
        group: &Group,
    ) -> Plan {
        let facts = &self.past.facts;
        let held = group.held.get(&incoming.id);
        let fact = facts.get(incoming.id);
        let known = held
            .map(|h| (h.set, h.ended))
            .or(fact.map(|f| (f.set, f.ended)));
        match (&incoming.said, known) {
            (Said::Reported { is_quiet, .. }, None) => Plan::Record {
                alertable: !is_quiet,
                first_seen: received_at,
                ended_at: None,
                incoming,
                fact,
            },
            (Said::Ended { .. }, None) => Plan::UnknownEnd,
            (Said::Ended { .. }, Some((_, true))) => Plan::Duplicate,
            (Said::Ended { at }, Some((_, false))) => Plan::Record {
                alertable: false,
                first_seen: received_at,
                ended_at: Some(*at),
                incoming,
                fact,
            },
            (
                Said::Reported {
                    set, has_actions, ..
                },
                Some((known, _)),
            ) if !has_actions && facts.covers(known, set) == Some(true) => Plan::Duplicate,
            (Said::Reported { .. }, Some(_)) => self.grow(incoming, fact, received_at),
        }
    }

    /// Merges a report into what is recorded of its finding.
    fn grow(&self, incoming: Incoming, fact: Option<Fact>, received_at: UnixMillis) -> Plan {
        let (id, host_id) = (incoming.id, incoming.host_id);
        let change = match incoming.change() {
            Ok(change) => change,
            Err(error) => {
                tracing::error!(finding = %id, %error, "A report cannot be read again: left out.");
                return Plan::Duplicate;
            }
        };
        let known = fact.and_then(|fact| self.known(id, fact));
        match dedup::decide(known.as_ref(), change, received_at) {
            Decision::Duplicate => Plan::Duplicate,
            Decision::UnknownEnd => Plan::UnknownEnd,
            Decision::Record {
                change,
                alertable,
                first_seen,
                ended_at,
            } => Plan::Record {
                incoming: Incoming::new(host_id, change),
                fact,
                alertable,
                first_seen,
                ended_at,
            },
        }
    }

    fn known(&self, id: FindingId, fact: Fact) -> Option<dedup::Known> {
        match lookup::finding(&self.index, &self.past, id, fact, Duration::ZERO) {
            Ok(stored) => Some(dedup::Known {
                indicators: stored.finding.indicators,
                actions: stored.finding.actions,
                process: stored.finding.process,
                first_seen: stored.first_seen,
                ended_at: stored.ended_at,
            }),
            Err(error) => {
                tracing::error!(finding = %id, %error, "A finding that grew cannot be read: recorded as a new one.");
                None
            }
        }
    }
}
