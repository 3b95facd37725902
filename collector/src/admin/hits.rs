//! What the rules of a policy ignored over the fleet.

use std::collections::HashMap;

use bytes::Bytes;
use procwarden_common::id::HostId;
use procwarden_common::policy::{RuleId, RuleText, rules_of};
use procwarden_proto::v1;
use prost::Message as _;
use tonic::Status;

use super::AdminContext;
use super::policies::{find_revision, history};
use super::preview::sample_message;
use crate::policy::hits::{HitSample, RuleSum};
use crate::policy::preview::Sample;

/// Bytes of an answer, below the limit of a message. Samples go first.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
const SAMPLE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The hosts that are of interest when a policy is looked at.
pub(super) struct CountedHosts {
    names: HashMap<HostId, String>,
    /// They are those of the policy's groups; else the policy has none, and
    /// they are all that are not shut out.
    pub(super) of_groups: bool,
}

impl CountedHosts {
    pub(super) fn has(&self, host: HostId) -> bool {
        self.names.contains_key(&host)
    }

    /// A host's name; empty when it is not one of them.
    pub(super) fn name(&self, host: HostId) -> &str {
        self.names.get(&host).map_or("", String::as_str)
    }
}

impl AdminContext {
    /// What each rule of a revision ignored.
    pub(super) fn policy_hits(
        &self,
        request: &v1::PolicyHitsRequest,
    ) -> Result<v1::PolicyHitsResponse, Status> {
        let name = request.name.as_str();
        let document = self.ledger.read(|state| {
            let revision = find_revision(history(state, name)?, name, request.revision)?;
            Ok::<_, Status>(revision.document.clone())
        })?;
        let hosts = self.counted_hosts(name);
        let mut rules: Vec<RuleId> = rules_of(&document).iter().map(|rule| rule.id()).collect();
        rules.sort_unstable();
        rules.dedup();
        let hits = self.sessions.rule_hits();
        let counts = |host| hosts.has(host);
        let sums = hits.of_rules(&rules, counts);
        // What ran something else, or did not look yet, says nothing about a
        // rule.
        let judged = self.sessions.judged_under(name, document.revision);
        let mut answer = v1::PolicyHitsResponse {
            hosts: hosts.names.len() as u64,
            hosts_known: judged.into_iter().filter(|host| counts(*host)).count() as u64,
            too_low: hits.too_low(counts),
            ..v1::PolicyHitsResponse::default()
        };
        fill(&mut answer, rules.iter().zip(&sums), &hosts);
        Ok(answer)
    }

    /// Hosts that run a policy; every host when it has no group. Those that
    /// were shut out run nothing.
    pub(super) fn counted_hosts(&self, policy: &str) -> CountedHosts {
        self.ledger.read(|state| {
            let policy = state.policies.get(policy);
            let policy = policy.filter(|policy| !policy.groups.is_empty());
            let runs = |id, host| policy.is_none_or(|policy| policy.covers(id, host));
            let hosts = state.hosts.iter();
            let counted = hosts.filter(|(id, host)| !host.revoked && runs(**id, host));
            CountedHosts {
                names: counted.map(|(id, host)| (*id, host.name.clone())).collect(),
                of_groups: policy.is_some(),
            }
        })
    }
}

fn fill<'a>(
    answer: &mut v1::PolicyHitsResponse,
    sums: impl Iterator<Item = (&'a RuleId, &'a RuleSum)>,
    hosts: &CountedHosts,
) {
    let mut bytes = 0;
    for (rule, sum) in sums.filter(|(_, sum)| sum.hosts > 0) {
        let mut message = sum_message(*rule, sum, hosts);
        if bytes + message.encoded_len() > SAMPLE_BYTES_MAX {
            message.samples = Vec::new();
        }
        bytes += message.encoded_len();
        if bytes > ANSWER_BYTES_MAX {
            answer.rules_left_out += 1;
        } else {
            answer.rules.push(message);
        }
    }
}

fn sum_message(rule: RuleId, sum: &RuleSum, hosts: &CountedHosts) -> v1::RuleHitSum {
    let names = sum.host_ids.iter().map(|id| hosts.name(*id).to_owned());
    v1::RuleHitSum {
        rule_id: Bytes::copy_from_slice(rule.as_bytes()),
        processes: sum.processes,
        severe: sum.severe,
        hosts: sum.hosts,
        host_names: names.collect(),
        first_ms: sum.first.map_or(0, |at| at.0),
        last_ms: sum.last.map_or(0, |at| at.0),
        samples: sum.samples.iter().map(|s| hit_message(s, hosts)).collect(),
    }
}

/// A sample in one line.
fn hit_message(sample: &HitSample, hosts: &CountedHosts) -> v1::PreviewSample {
    let name = hosts.name(sample.host);
    let text = RuleText::of_finding(&sample.finding);
    sample_message(&Sample::new((sample.host, name), &sample.finding, &text))
}
