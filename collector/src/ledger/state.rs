//! What the ledger's records add up to. Pure: the types of the state, and
//! small questions about it. How a record changes it is in `apply`.
//!
//! Promises: the same records in the same order give the same state. Never
//! reads a clock, a file or a random number.

use std::collections::{BTreeMap, BTreeSet};

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FindingId, HostId};
use procwarden_common::policy::{PolicyDocument, RuleId};

use crate::journal::Position;
use crate::policy::learn::Learning;
use crate::policy::rollout::Rollout;

/// The group every host belongs to.
pub(crate) const GROUP_ALL: &str = "all";

/// The group that one host has for itself. Its colon keeps it apart from every
/// group that an operator can name.
pub(crate) fn group_of_host(id: HostId) -> String {
    format!("{GROUP_OF_HOST}{id}")
}

/// Before the host's id in the name of its own group.
pub(crate) const GROUP_OF_HOST: &str = "host:";

/// The policy that exists from the start, assigned to every host.
pub(crate) const POLICY_DEFAULT: &str = "default";

/// Sent alerts that are remembered; older ones are in the journal only.
pub(crate) const ALERTS_KEPT_MAX: usize = 10_000;

/// Tokens, hosts, policies and alerts of the fleet, as decided so far.
#[derive(Debug)]
pub(crate) struct LedgerState {
    pub(crate) tokens: BTreeMap<String, TokenRecord>,
    pub(crate) hosts: BTreeMap<HostId, HostRecord>,
    pub(crate) policies: BTreeMap<String, PolicyHistory>,
    pub(crate) alerts: AlertState,
    /// By group: the last time of learning of each.
    pub(crate) learning: BTreeMap<String, Learning>,
}

impl LedgerState {
    /// Whether a host was learned from at this time.
    pub(crate) fn is_learned_from(&self, host: &HostRecord, at: UnixMillis) -> bool {
        let mut learning = self.learning.iter();
        learning.any(|(group, learning)| learning.covers(at) && host.is_in(group))
    }
}

/// One enrolment token; of its secret only the digest is known.
#[derive(Debug)]
pub(crate) struct TokenRecord {
    pub(crate) secret_sha256: [u8; 32],
    pub(crate) groups: Vec<String>,
    pub(crate) created_at: UnixMillis,
    pub(crate) expires_at: UnixMillis,
    pub(crate) uses: u32,
    pub(crate) used: u32,
    pub(crate) revoked: bool,
}

/// One enrolled host.
#[derive(Debug, Clone)]
pub(crate) struct HostRecord {
    pub(crate) name: String,
    /// As the token or the operator said; every host is in `all` besides.
    pub(crate) groups: Vec<String>,
    pub(crate) enrolled_at: UnixMillis,
    pub(crate) certificate_not_after: UnixMillis,
    pub(crate) revoked: bool,
}

impl HostRecord {
    /// Whether the host belongs to a group; every host belongs to `all`.
    pub(crate) fn is_in(&self, group: &str) -> bool {
        group == GROUP_ALL || self.groups.iter().any(|own| own == group)
    }
}

/// Every revision of one policy, and the groups that run it.
#[derive(Debug, Default)]
pub(crate) struct PolicyHistory {
    /// Oldest first, in rising numbers; one that was damaged is missing.
    pub(crate) revisions: Vec<PolicyRevision>,
    pub(crate) groups: Vec<String>,
    /// What hosts stay on while newer revisions are staged, 0 for none; nothing
    /// when they run the newest one.
    pub(crate) staying: Option<u64>,
    /// The last roll-out.
    pub(crate) rollout: Option<Rollout>,
}

impl PolicyHistory {
    /// The revision that was published last, be it staged.
    pub(crate) fn newest(&self) -> Option<&PolicyRevision> {
        self.revisions.last()
    }

    /// What every host runs that no roll-out has reached. A revision that was
    /// damaged leaves the one before it.
    pub(crate) fn settled(&self) -> Option<&PolicyRevision> {
        let Some(staying) = self.staying else {
            return self.newest();
        };
        let mut revisions = self.revisions.iter().rev();
        revisions.find(|revision| revision.document.revision <= staying)
    }

    /// The revision of this number.
    pub(crate) fn revision(&self, number: u64) -> Option<&PolicyRevision> {
        self.revisions
            .iter()
            .find(|revision| revision.document.revision == number)
    }

    /// The roll-out that says what hosts run.
    pub(crate) fn open_rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref().filter(|rollout| rollout.is_open())
    }

    /// The revision that an open roll-out brings.
    pub(crate) fn rolled_out(&self) -> Option<&PolicyRevision> {
        self.revision(self.open_rollout()?.revision)
    }

    /// Whether hosts run this revision only where a roll-out has brought it.
    pub(crate) fn is_rolling_out(&self, revision: u64) -> bool {
        let open = self.open_rollout();
        open.is_some_and(|rollout| rollout.revision == revision)
    }

    /// The groups by which a host runs this policy; none when it does not.
    pub(crate) fn groups_of(&self, id: HostId, host: &HostRecord) -> Vec<&str> {
        let own = group_of_host(id);
        let groups = self.groups.iter().map(String::as_str);
        groups
            .filter(|&group| group == own || host.is_in(group))
            .collect()
    }

    /// Whether a host runs this policy.
    pub(crate) fn covers(&self, id: HostId, host: &HostRecord) -> bool {
        !self.groups_of(id, host).is_empty()
    }
}

/// One revision; it never changes.
#[derive(Debug)]
pub(crate) struct PolicyRevision {
    pub(crate) document: PolicyDocument,
    pub(crate) published_at: UnixMillis,
    pub(crate) author: String,
    pub(crate) comment: String,
    pub(crate) rules: u64,
}

/// The outbox and its place in the findings journal.
#[derive(Debug, Default)]
pub(crate) struct AlertState {
    /// Findings before this position are dealt with.
    pub(crate) upto: Position,
    /// In the order they were queued.
    pub(crate) alerts: BTreeMap<u64, AlertRecord>,
    /// Which recipients were told of which ends of rules, until those are
    /// over.
    pub(super) told: BTreeMap<Vec<String>, BTreeSet<(UnixMillis, RuleId)>>,
}

impl AlertState {
    /// Whether these recipients were told that a rule ends then.
    pub(crate) fn has_told(&self, to: &[String], rule: RuleId, end: UnixMillis) -> bool {
        self.told
            .get(to)
            .is_some_and(|told| told.contains(&(end, rule)))
    }
}

/// One alert, waiting or sent.
#[derive(Debug, Clone)]
pub(crate) struct AlertRecord {
    pub(crate) id: [u8; 16],
    pub(crate) to: Vec<String>,
    pub(crate) finding_ids: Vec<FindingId>,
    pub(crate) queued_at: UnixMillis,
    pub(crate) sent_at: Option<UnixMillis>,
    /// Rules of which its mail says that they end soon.
    pub(crate) expiring: Vec<ExpiringRule>,
}

/// A rule that comes to its end, as it was when the mail was queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpiringRule {
    pub(crate) id: RuleId,
    pub(crate) policy: String,
    pub(crate) rule: String,
    pub(crate) file: String,
    pub(crate) line: u32,
    /// Empty when nobody is named.
    pub(crate) owner: String,
    pub(crate) end: UnixMillis,
}

/// A ledger without records: nothing but the policy `default`, which has no
/// revision yet, so nothing is ignored anywhere.
impl Default for LedgerState {
    fn default() -> Self {
        let default = PolicyHistory {
            revisions: Vec::new(),
            groups: vec![GROUP_ALL.into()],
            ..PolicyHistory::default()
        };
        Self {
            tokens: BTreeMap::new(),
            hosts: BTreeMap::new(),
            policies: BTreeMap::from([(POLICY_DEFAULT.into(), default)]),
            alerts: AlertState::default(),
            learning: BTreeMap::new(),
        }
    }
}
