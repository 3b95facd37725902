//! What each host shall run, computed once per set of revisions and version of
//! the ledger, however many hosts ask: after a publish all sessions ask at
//! once, and they share the bytes of the policies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use procwarden_common::id::HostId;
use procwarden_common::limits::MESSAGE_BYTES_MAX;
use procwarden_common::wire::policy_hash;
use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;
use prost::Message as _;

use super::outgoing::framed;
use crate::fleet::admission::{self, AdmissionRefusal};
use crate::ledger::{Ledger, LedgerState};
use crate::policy;

/// Room for the message around the policy.
const ENVELOPE_BYTES: usize = 1024;

/// Sets of revisions that are remembered for one version.
const SETS_MAX: usize = 4096;

/// A policy, ready to be sent.
pub(super) struct Prepared {
    pub(super) hash: [u8; 32],
    /// As it goes over the wire; all sessions that send it share the bytes.
    pub(super) message: Bytes,
}

/// The shared memory.
#[derive(Default)]
pub(crate) struct WantedPolicies {
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    version: u64,
    by_revisions: HashMap<Vec<(String, u64)>, Option<Arc<Prepared>>>,
}

impl WantedPolicies {
    /// What `host` shall run; nothing when it cannot be sent. `version` is the
    /// ledger's when the caller last looked: the answer is at least as new.
    ///
    /// # Errors
    /// When the host may not talk to the collector any more.
    pub(super) fn of(
        &self,
        ledger: &Ledger,
        version: u64,
        host: HostId,
    ) -> Result<Option<Arc<Prepared>>, AdmissionRefusal> {
        ledger.read(|state| self.of_state(state, version, host))
    }

    fn of_state(
        &self,
        state: &LedgerState,
        version: u64,
        host: HostId,
    ) -> Result<Option<Arc<Prepared>>, AdmissionRefusal> {
        admission::name_of(state, host)?;
        // A revision never changes, so hosts with the same ones share the text.
        let revisions = state
            .hosts
            .get(&host)
            .map(|record| policy::documents_for(state, host, record))
            .unwrap_or_default()
            .into_iter()
            .map(|document| (document.name.clone(), document.revision))
            .collect();
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.version < version || remembered.by_revisions.len() >= SETS_MAX {
            *remembered = Remembered {
                version,
                by_revisions: HashMap::new(),
            };
        }
        let prepared = remembered
            .by_revisions
            .entry(revisions)
            .or_insert_with(|| prepare(state, host));
        Ok(prepared.clone())
    }
}

fn prepare(state: &LedgerState, host: HostId) -> Option<Arc<Prepared>> {
    let effective = policy::effective_for(state, host)?;
    let message = v1::EffectivePolicy::from(&effective);
    let bytes = message.encoded_len();
    if bytes > MESSAGE_BYTES_MAX - ENVELOPE_BYTES {
        tracing::error!(
            host = %host, bytes, bytes_max = MESSAGE_BYTES_MAX,
            "The policies of a host's groups are too large together and were not sent: \
             assign fewer to them, or shorten them."
        );
        return None;
    }
    Some(Arc::new(Prepared {
        hash: policy_hash(&effective),
        message: framed(Message::Policy(message)),
    }))
}

#[cfg(test)]
mod tests {
    use procwarden_common::clock::UnixMillis;
    use procwarden_common::policy::{PolicyDocument, PolicyFile};

    use super::*;
    use crate::ledger::state::{HostRecord, PolicyHistory, PolicyRevision, group_of_host};
    use crate::session::requests::PREFIX_BYTES;
    use crate::tls::testing::host_id;

    fn host(groups: &[&str], revoked: bool) -> HostRecord {
        HostRecord {
            name: "web1".into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            enrolled_at: UnixMillis(0),
            certificate_not_after: UnixMillis(0),
            revoked,
        }
    }

    fn publish(state: &mut LedgerState, bytes: usize) {
        let history = state
            .policies
            .entry("web".into())
            .or_insert_with(|| PolicyHistory {
                revisions: Vec::new(),
                groups: vec!["web".into()],
                ..PolicyHistory::default()
            });
        let file = PolicyFile {
            path: "csf.pignore".into(),
            content: vec![b'#'; bytes],
        };
        let document = PolicyDocument {
            name: "web".into(),
            revision: history.revisions.len() as u64 + 1,
            files: vec![file],
            settings: String::new(),
        };
        history.revisions.push(PolicyRevision {
            document,
            published_at: UnixMillis(0),
            author: String::new(),
            comment: String::new(),
            rules: 0,
        });
    }

    fn state() -> LedgerState {
        let mut state = LedgerState::default();
        state.hosts.insert(host_id(1), host(&["web"], false));
        state.hosts.insert(host_id(2), host(&["web"], false));
        state.hosts.insert(host_id(3), host(&["db"], false));
        state.hosts.insert(host_id(4), host(&["web"], true));
        publish(&mut state, 10);
        state
    }

    #[test]
    fn hosts_of_the_same_groups_share_one_policy_until_the_ledger_changes() {
        let (wanted, mut state) = (WantedPolicies::default(), state());
        let of = |state: &LedgerState, version, number| {
            wanted
                .of_state(state, version, host_id(number))
                .unwrap()
                .unwrap()
        };
        let first = of(&state, 1, 1);
        assert!(Arc::ptr_eq(&first, &of(&state, 1, 2)));
        assert_ne!(first.hash, of(&state, 1, 3).hash);
        publish(&mut state, 20);
        let second = of(&state, 2, 2);
        assert_ne!(first.hash, second.hash);
        assert!(
            Arc::ptr_eq(&second, &of(&state, 1, 1)),
            "newer than asked for is fine"
        );
    }

    #[test]
    fn a_host_with_a_policy_of_its_own_shares_with_nobody() {
        let (wanted, mut state) = (WantedPolicies::default(), state());
        let web = state.policies.get_mut("web").unwrap();
        web.groups = vec![group_of_host(host_id(1))];
        let documents = |number| {
            let prepared = wanted.of_state(&state, 1, host_id(number)).unwrap();
            let message = prepared.unwrap().message.slice(PREFIX_BYTES..);
            match v1::ConnectResponse::decode(message).unwrap().message {
                Some(Message::Policy(policy)) => policy.documents.len(),
                other => panic!("no policy: {other:?}"),
            }
        };
        assert_eq!((documents(2), documents(1), documents(2)), (0, 1, 0));
    }

    #[test]
    fn hosts_that_may_not_talk_get_the_reason() {
        let (wanted, state) = (WantedPolicies::default(), state());
        let refusal = |number| wanted.of_state(&state, 1, host_id(number)).err();
        assert_eq!(refusal(4), Some(AdmissionRefusal::Revoked));
        assert_eq!(refusal(9), Some(AdmissionRefusal::Unknown));
    }

    #[test]
    fn a_policy_that_no_message_can_carry_is_not_sent() {
        let (wanted, mut state) = (WantedPolicies::default(), state());
        publish(&mut state, MESSAGE_BYTES_MAX);
        assert!(wanted.of_state(&state, 1, host_id(1)).unwrap().is_none());
    }
}
