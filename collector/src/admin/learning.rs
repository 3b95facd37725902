//! Learn mode: started for a group, listed, ended, and what it proposes.

use std::collections::HashMap;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::{EffectivePolicy, Policy, RuleText, Verdict, judge};
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tonic::Status;

use super::refusal::{invalid, not_found, not_now};
use super::{AdminContext, Caller};
use crate::findings::FindingFilter;
use crate::ledger::LedgerState;
use crate::policy::learn::{Learner, Learning};
use crate::policy::{check_name, documents_for};

/// Longest time: who has not looked by then has forgotten it.
const MILLIS_MAX: u64 = 90 * 24 * 60 * 60 * 1000;

impl AdminContext {
    /// Alerts of a group's hosts come only from severity high up, for a while.
    pub(super) async fn start_learning(
        &self,
        caller: &Caller,
        request: v1::StartLearningRequest,
    ) -> Result<v1::StartLearningResponse, Status> {
        check_name("group", &request.group)?;
        if !(1..=MILLIS_MAX).contains(&request.for_ms) {
            return Err(invalid("learn for up to 90 days"));
        }
        let now = crate::clock::now();
        let until = now.plus_millis(i64::try_from(request.for_ms).unwrap_or(i64::MAX));
        let group = request.group;
        self.commit(caller, |state| {
            let open = state.learning.get(&group).filter(|open| open.covers(now));
            if let Some(open) = open {
                let until = open.until;
                return Err(not_now(format!(
                    "group {group} is learned from until {until}; end that first with \
                     `procwarden policy learn end {group}`"
                )));
            }
            let (group, until_ms) = (group.clone(), until.0);
            Ok(Entry::LearningStarted(v1::LearningStarted {
                group,
                until_ms,
            }))
        })
        .await?;
        let learning = self.learning_info(&group)?;
        Ok(v1::StartLearningResponse {
            learning: Some(learning),
        })
    }

    /// Ends it before its time.
    pub(super) async fn end_learning(
        &self,
        caller: &Caller,
        request: v1::EndLearningRequest,
    ) -> Result<v1::EndLearningResponse, Status> {
        let (group, now) = (request.group, crate::clock::now());
        self.commit(caller, |state| {
            if !learning_of(state, &group)?.covers(now) {
                return Err(not_now(format!(
                    "group {group} is not learned from any more"
                )));
            }
            let group = group.clone();
            Ok(Entry::LearningEnded(v1::LearningEnded { group }))
        })
        .await?;
        let learning = self.learning_info(&group)?;
        Ok(v1::EndLearningResponse {
            learning: Some(learning),
        })
    }

    /// Every group that is or was learned from.
    pub(super) fn list_learning(&self) -> v1::ListLearningResponse {
        let now = crate::clock::now();
        let learning = self.ledger.read(|state| {
            let groups = state.learning.iter();
            groups
                .map(|(group, l)| info(state, group, l, now))
                .collect()
        });
        v1::ListLearningResponse { learning }
    }

    /// The file that a group's time of learning comes to. Reads the history:
    /// call it off the threads that serve.
    pub(super) fn propose_policy(
        &self,
        request: &v1::ProposePolicyRequest,
    ) -> Result<v1::ProposePolicyResponse, Status> {
        let (group, now) = (request.group.as_str(), crate::clock::now());
        let (learning, (hosts, policies)) = self.ledger.read(|state| {
            let learning = learning_of(state, group)?.clone();
            Ok::<_, Status>((learning, policies_of_group(state, group)))
        })?;
        // What does not compile here ignores nothing.
        let compiled = policies.iter().filter_map(|(revisions, effective)| {
            Some((revisions, Policy::compile(effective).ok()?.0))
        });
        let policies: HashMap<&Revisions, Policy> = compiled.collect();
        let during = FindingFilter {
            since: Some(learning.since),
            until: Some(learning.until),
            ..FindingFilter::default()
        };
        let mut learner = Learner::default();
        for filter in during.and_open_from_before() {
            self.each_finding(&filter, |stored| {
                let Some(revisions) = hosts.get(&stored.host_id) else {
                    return;
                };
                let text = RuleText::of_finding(&stored.finding);
                let is_reported = |policy| judge(policy, &text, now) == Verdict::Report;
                // Else somebody wrote a rule for it by now.
                if policies.get(revisions).is_none_or(is_reported) {
                    learner.add(stored);
                }
            })?;
        }
        let proposed = learner.finish(group, &learning, now);
        Ok(v1::ProposePolicyResponse {
            text: proposed.text,
            rules: proposed.rules,
            left_out: proposed.left_out,
            learning: Some(self.learning_info(group)?),
        })
    }

    fn learning_info(&self, group: &str) -> Result<v1::LearningInfo, Status> {
        let now = crate::clock::now();
        self.ledger
            .read(|state| Ok(info(state, group, learning_of(state, group)?, now)))
    }
}

fn learning_of<'a>(state: &'a LedgerState, group: &str) -> Result<&'a Learning, Status> {
    check_name("group", group)?;
    state.learning.get(group).ok_or_else(|| {
        not_found(format!(
            "group {group} was never learned from; start with \
             `procwarden policy learn {group} --for 7d`"
        ))
    })
}

/// Names and numbers of revisions: what makes the policies of two hosts one.
type Revisions = Vec<(String, u64)>;

/// The hosts of a group by what they run. Many run the same, and it is copied
/// once.
fn policies_of_group(
    state: &LedgerState,
    group: &str,
) -> (
    HashMap<HostId, Revisions>,
    HashMap<Revisions, EffectivePolicy>,
) {
    let (mut hosts, mut policies) = (HashMap::new(), HashMap::new());
    for (id, host) in &state.hosts {
        if host.revoked || !host.is_in(group) {
            continue;
        }
        let documents = documents_for(state, *id, host);
        let revisions = documents.iter().map(|d| (d.name.clone(), d.revision));
        let revisions: Revisions = revisions.collect();
        policies
            .entry(revisions.clone())
            .or_insert_with(|| EffectivePolicy {
                documents: documents.into_iter().cloned().collect(),
            });
        hosts.insert(*id, revisions);
    }
    (hosts, policies)
}

fn info(
    state: &LedgerState,
    group: &str,
    learning: &Learning,
    now: UnixMillis,
) -> v1::LearningInfo {
    let hosts = state.hosts.values();
    let members = hosts.filter(|host| !host.revoked && host.is_in(group));
    v1::LearningInfo {
        group: group.to_owned(),
        since_ms: learning.since.0,
        until_ms: learning.until.0,
        started_by: learning.started_by.clone(),
        ended_by: learning.ended_by.clone().unwrap_or_default(),
        running: learning.covers(now),
        hosts: members.count() as u64,
    }
}
