//! Hosts as the operator sees them: what the ledger knows, what their session
//! says, and what the clock makes of both.
//!
//! Pure: state, session and time are arguments. Never decides anything about
//! a host, only names where it stands.

use std::collections::BTreeMap;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::EffectivePolicy;
use procwarden_common::printable::printable;
use procwarden_common::wire::policy_hash;
use procwarden_proto::v1;

use crate::ledger::LedgerState;
use crate::ledger::state::HostRecord;
use crate::policy::{Revisions, documents_for, revisions_of};
use crate::sessions::SessionInfo;

/// A host without a heartbeat for this long is silent.
pub(crate) const SILENT_AFTER_MILLIS: u64 = 5 * 60 * 1000;

/// Ids named when a host's name is not unique.
const AMBIGUOUS_NAMED_MAX: usize = 10;

/// One host with everything that is known of it at one moment.
pub(crate) struct HostView<'a> {
    pub(crate) id: HostId,
    pub(crate) record: &'a HostRecord,
    pub(crate) session: Option<SessionInfo>,
    /// Hash of what it should run.
    pub(crate) wanted_hash: [u8; 32],
    pub(crate) findings_open: u64,
}

/// The moments that states are judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: UnixMillis,
    /// What happened before the collector started is not remembered.
    pub(crate) collector_started_at: UnixMillis,
}

/// Why no single host was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostLookupError {
    #[error("there is no host {0}; `procwarden hosts list` shows what there is")]
    Unknown(String),
    #[error("{name} is the name of several hosts, so use an id: {ids}")]
    Ambiguous { name: String, ids: String },
}

/// Finds a host by id, or by name where it is unique. A host that was enrolled
/// anew under its old name hides the revoked ones of that name.
pub(crate) fn find(state: &LedgerState, id_or_name: &str) -> Result<HostId, HostLookupError> {
    let wanted = id_or_name.trim();
    if let Ok(id) = wanted.parse::<HostId>()
        && state.hosts.contains_key(&id)
    {
        return Ok(id);
    }
    let named = || state.hosts.iter().filter(|(_, host)| host.name == wanted);
    let live: Vec<HostId> = named()
        .filter(|(_, host)| !host.revoked)
        .map(|(id, _)| *id)
        .collect();
    let all = || named().map(|(id, _)| *id).collect();
    let candidates: Vec<HostId> = if live.is_empty() { all() } else { live };
    match candidates.as_slice() {
        [] => Err(HostLookupError::Unknown(printable(wanted.as_bytes()))),
        [only] => Ok(*only),
        several => {
            let ids: Vec<String> = several
                .iter()
                .take(AMBIGUOUS_NAMED_MAX)
                .map(HostId::to_string)
                .collect();
            let name = printable(wanted.as_bytes());
            Err(HostLookupError::Ambiguous {
                name,
                ids: ids.join(", "),
            })
        }
    }
}

/// Hashes of what hosts should run. Hosts with the same policies share one, so
/// a listing of the whole fleet hashes each combination once.
#[derive(Default)]
pub(crate) struct WantedHashes {
    by_revisions: BTreeMap<Revisions, [u8; 32]>,
}

impl WantedHashes {
    /// The hash of what this host should run.
    pub(crate) fn of(&mut self, state: &LedgerState, id: HostId, host: &HostRecord) -> [u8; 32] {
        let documents = documents_for(state, id, host);
        let revisions = revisions_of(&documents);
        *self.by_revisions.entry(revisions).or_insert_with(|| {
            policy_hash(&EffectivePolicy {
                documents: documents.into_iter().cloned().collect(),
            })
        })
    }
}

impl HostView<'_> {
    /// Where the host stands.
    pub(crate) fn state(&self, at: Moment) -> v1::HostState {
        if self.record.revoked {
            return v1::HostState::Revoked;
        }
        let connected = self
            .session
            .as_ref()
            .is_some_and(|session| session.connected);
        let heard = self.heard();
        let not_before = self.record.enrolled_at.max(at.collector_started_at);
        let quiet_millis = at.now.millis_since(heard.unwrap_or(not_before));
        if connected && heard.is_none() {
            // The hello was heard just now; heartbeats follow.
            return v1::HostState::Connected;
        }
        if quiet_millis >= SILENT_AFTER_MILLIS {
            return v1::HostState::Silent;
        }
        if connected {
            v1::HostState::Connected
        } else if self.session.is_none() && self.record.enrolled_at >= at.collector_started_at {
            v1::HostState::Enrolled
        } else {
            v1::HostState::Away
        }
    }

    /// When the host was heard of last since the collector started.
    pub(crate) fn heard(&self) -> Option<UnixMillis> {
        self.session.as_ref()?.last_heartbeat
    }

    /// The host as a message.
    pub(crate) fn info(&self, at: Moment) -> v1::HostInfo {
        let session = self.session.clone();
        let heard = session.as_ref().and_then(|s| s.last_heartbeat);
        let mut info = v1::HostInfo {
            id: self.id.as_bytes().to_vec().into(),
            name: self.record.name.clone(),
            groups: self.record.groups.clone(),
            state: self.state(at).into(),
            enrolled_at_ms: self.record.enrolled_at.0,
            last_heartbeat_ms: heard.map_or(0, |time| time.0),
            wanted_hash: self.wanted_hash.to_vec().into(),
            certificate_not_after_ms: self.record.certificate_not_after.0,
            findings_open: self.findings_open,
            ..v1::HostInfo::default()
        };
        if let Some(session) = session {
            info.agent_version = session.agent_version;
            info.kernel = session.kernel;
            info.policy = Some(session.policy);
            info.health = session.health;
            info.held_back = Some(session.held_back);
        }
        info
    }

    /// How the host stands to the policy `name`.
    pub(crate) fn policy_status(&self, name: &str, at: Moment) -> v1::PolicyHost {
        let (state, reason) = self.policy_state(at);
        let applied = self
            .session
            .iter()
            .flat_map(|session| &session.policy.applied);
        v1::PolicyHost {
            host_id: self.id.as_bytes().to_vec().into(),
            host_name: self.record.name.clone(),
            state: state.into(),
            applied_revision: applied
                .filter(|p| p.name == name)
                .map(|p| p.revision)
                .max()
                .unwrap_or(0),
            reason,
            ..v1::PolicyHost::default()
        }
    }

    /// How the host stands to what it should run.
    pub(crate) fn policy_state(&self, at: Moment) -> (v1::PolicyHostState, String) {
        use v1::PolicyHostState::{Applied, Pending, Refused, Silent};
        if self.state(at) == v1::HostState::Silent {
            return (Silent, "no heartbeat for 5 minutes".into());
        }
        let Some(session) = &self.session else {
            return (Pending, "not connected since the collector started".into());
        };
        let wanted = self.wanted_hash.as_slice();
        if session.policy.applied_hash == wanted {
            (Applied, String::new())
        } else if session.policy.refused_hash == wanted {
            (Refused, session.policy.refused_reason.clone())
        } else if session.connected {
            (Pending, String::new())
        } else {
            (Pending, "not connected".into())
        }
    }
}

#[cfg(test)]
mod tests;
