//! What the hosts add up to: states, lost events, applied policies. Pure.
//!
//! Promises: bounded, whatever agents claim. A policy or revision counts under
//! its name only where the ledger has it.

use std::collections::BTreeMap;

use procwarden_common::id::HostId;
use procwarden_proto::v1::HostState;

use crate::hosts::{HostView, Moment};
use crate::ledger::LedgerState;
use crate::ledger::state::PolicyHistory;
use crate::sessions::SessionInfo;

/// Policies that have a name of their own; more count together.
const POLICIES_MAX: usize = 64;

/// Newest revisions of a policy that are told apart.
const REVISIONS_MAX: usize = 4;

/// Stands for what has no name of its own.
const OTHER: &str = "other";

/// Every state and its word, those without a host as well.
const STATES: [(HostState, &str); 5] = [
    (HostState::Enrolled, "enrolled"),
    (HostState::Connected, "connected"),
    (HostState::Away, "away"),
    (HostState::Silent, "silent"),
    (HostState::Revoked, "revoked"),
];

/// The hosts at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FleetFigures {
    pub(super) states: BTreeMap<&'static str, u64>,
    /// Policy, revision -> hosts that run it.
    pub(super) applied: BTreeMap<(String, String), u64>,
    /// Hosts that refused what they should run.
    pub(super) refused: u64,
    /// Events that agents lost because their spools were full, by their last
    /// word, since their state directories were made.
    pub(super) spool_dropped: u64,
    /// Events that wait in the agents' spools.
    pub(super) spool_events: u64,
    /// When the first certificate of a host that is not revoked ends, Unix
    /// milliseconds.
    pub(super) first_certificate_end: Option<i64>,
}

/// Adds up the hosts of the ledger with what their sessions said.
pub(super) fn figures(
    state: &LedgerState,
    session_of: impl Fn(HostId) -> Option<SessionInfo>,
    at: Moment,
) -> FleetFigures {
    let mut figures = FleetFigures::default();
    for (_, word) in STATES {
        figures.states.insert(word, 0);
    }
    for (name, history) in state.policies.iter().take(POLICIES_MAX) {
        if let Some(newest) = history.newest() {
            let key = (name.clone(), newest.document.revision.to_string());
            figures.applied.insert(key, 0);
        }
    }
    for (&id, record) in &state.hosts {
        let view = HostView {
            id,
            record,
            session: session_of(id),
            wanted_hash: [0; 32],
            findings_open: 0,
        };
        let word = STATES.iter().find(|(s, _)| *s == view.state(at));
        if let Some(count) = word.and_then(|(_, word)| figures.states.get_mut(word)) {
            *count += 1;
        }
        if record.revoked {
            continue;
        }
        let end = record.certificate_not_after.0;
        let first = figures.first_certificate_end.get_or_insert(end);
        *first = (*first).min(end);
        if let Some(session) = view.session {
            figures.add(&session, state);
        }
    }
    figures
}

impl FleetFigures {
    fn add(&mut self, session: &SessionInfo, state: &LedgerState) {
        for policy in &session.policy.applied {
            let key = key(&state.policies, &policy.name, policy.revision);
            *self.applied.entry(key).or_insert(0) += 1;
        }
        self.refused += u64::from(!session.policy.refused_hash.is_empty());
        if let Some(health) = &session.health {
            self.spool_dropped = self.spool_dropped.saturating_add(health.spool_dropped);
            self.spool_events = self.spool_events.saturating_add(health.spool_events);
        }
    }
}

/// The labels of what an agent says it runs.
fn key(policies: &BTreeMap<String, PolicyHistory>, name: &str, revision: u64) -> (String, String) {
    let known = policies
        .iter()
        .take(POLICIES_MAX)
        .find(|(known, _)| *known == name);
    let Some((name, history)) = known else {
        return (OTHER.into(), OTHER.into());
    };
    let mut newest = history.revisions.iter().rev().take(REVISIONS_MAX);
    let is_told_apart = newest.any(|known| known.document.revision == revision);
    let revision = match is_told_apart {
        true => revision.to_string(),
        false => OTHER.into(),
    };
    (name.clone(), revision)
}
