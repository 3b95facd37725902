//! Policies: published, listed, shown, assigned, and where they run.

use std::collections::BTreeSet;

use procwarden_common::id::HostId;
use procwarden_common::policy::PolicyFile;
use procwarden_proto::v1;
use tonic::Status;

use super::refusal::{invalid, not_found};
use super::{AdminContext, Caller, messages};
use crate::ledger::LedgerState;
use crate::ledger::state::{PolicyHistory, PolicyRevision, group_of_host};
use crate::policy::{self, Draft, PolicyError, check_name};

impl AdminContext {
    /// Checks a draft and publishes it; the sessions push it from there.
    pub(super) async fn publish_policy(
        &self,
        caller: &Caller,
        request: v1::PublishPolicyRequest,
    ) -> Result<v1::PublishPolicyResponse, Status> {
        let files = request
            .files
            .into_iter()
            .map(PolicyFile::try_from)
            .collect::<Result<_, _>>();
        let draft = Draft {
            name: request.name.clone(),
            files: files.map_err(|error| invalid(error.to_string()))?,
            settings: request.settings,
            comment: request.comment,
            base: request.base_revision,
            staged: request.staged,
            groups: request.groups,
        };
        let outcome =
            policy::publish(&self.ledger, caller.actor(), crate::clock::now(), draft).await?;
        let policy = self.newest_of(&request.name);
        if let (true, Some(policy)) = (outcome.published, &policy) {
            let (name, revision) = (&policy.name, policy.revision);
            tracing::info!(
                name,
                revision,
                actor = caller.actor(),
                "A policy was published."
            );
        }
        Ok(v1::PublishPolicyResponse {
            policy,
            published: outcome.published,
            diagnostics: messages(&outcome.diagnostics),
        })
    }

    /// Publishes the content of an older revision as the next one.
    pub(super) async fn rollback_policy(
        &self,
        caller: &Caller,
        request: v1::RollbackPolicyRequest,
    ) -> Result<v1::RollbackPolicyResponse, Status> {
        let (name, revision) = (request.name.as_str(), request.revision);
        let (actor, now) = (caller.actor(), crate::clock::now());
        let outcome =
            policy::rollback(&self.ledger, actor, now, name, revision, &request.comment).await?;
        if outcome.published {
            tracing::info!(name, revision, actor, "A policy was rolled back.");
        }
        Ok(v1::RollbackPolicyResponse {
            policy: self.newest_of(name),
            published: outcome.published,
            diagnostics: messages(&outcome.diagnostics),
        })
    }

    pub(super) fn newest_of(&self, name: &str) -> Option<v1::PolicyInfo> {
        self.ledger
            .read(|state| Some(newest_info(name, history(state, name).ok()?)))
    }

    /// The newest revision of every policy.
    pub(super) fn list_policies(&self) -> v1::ListPoliciesResponse {
        let infos = |state: &LedgerState| {
            state
                .policies
                .iter()
                .map(|(name, policy)| newest_info(name, policy))
                .collect()
        };
        v1::ListPoliciesResponse {
            policies: self.ledger.read(infos),
        }
    }

    /// The text of one revision.
    pub(super) fn show_policy(
        &self,
        request: &v1::ShowPolicyRequest,
    ) -> Result<v1::ShowPolicyResponse, Status> {
        self.ledger.read(|state| {
            let policy = history(state, &request.name)?;
            let revision = find_revision(policy, &request.name, request.revision)?;
            Ok(v1::ShowPolicyResponse {
                policy: Some(revision_info(policy, revision)),
                document: Some(v1::PolicyDocument::from(&revision.document)),
            })
        })
    }

    /// Every revision, newest first.
    pub(super) fn log_policy(
        &self,
        request: &v1::LogPolicyRequest,
    ) -> Result<v1::LogPolicyResponse, Status> {
        self.ledger.read(|state| {
            let policy = history(state, &request.name)?;
            let newest_first = policy.revisions.iter().rev();
            let revisions = newest_first
                .map(|revision| revision_info(policy, revision))
                .collect();
            Ok(v1::LogPolicyResponse { revisions })
        })
    }

    /// Replaces the groups that run a policy.
    pub(super) async fn assign_policy(
        &self,
        caller: &Caller,
        request: v1::AssignPolicyRequest,
    ) -> Result<v1::AssignPolicyResponse, Status> {
        let name = request.name.clone();
        let now = crate::clock::now();
        let mut groups = request.groups;
        for host in &request.hosts {
            groups.push(group_of_host(self.find_host(host)?));
        }
        let remarks =
            policy::assign(&self.ledger, caller.actor(), now, request.name, groups).await?;
        let policy = self
            .ledger
            .read(|state| Ok::<_, Status>(newest_info(&name, history(state, &name)?)))?;
        Ok(v1::AssignPolicyResponse {
            policy: Some(policy),
            diagnostics: messages(&remarks),
        })
    }

    /// What the hosts that should run a policy say about it.
    pub(super) fn policy_status(
        &self,
        request: &v1::PolicyStatusRequest,
    ) -> Result<v1::PolicyStatusResponse, Status> {
        let name = request.name.as_str();
        let (policy, covered) = self.ledger.read(|state| {
            let policy = history(state, name)?;
            let hosts = state.hosts.iter();
            let runs = hosts.filter(|(id, host)| !host.revoked && policy.covers(**id, host));
            let covered: BTreeSet<HostId> = runs.map(|(id, _)| *id).collect();
            Ok::<_, Status>((newest_info(name, policy), covered))
        })?;
        let at = self.moment();
        let wanted = |id: HostId| {
            self.ledger.read(|state| {
                let policy = state.policies.get(name)?;
                let revision = policy::rollout::revision_for(name, policy, id)?;
                Some(revision.document.revision)
            })
        };
        let known = self.known_hosts(|id, _| covered.contains(&id));
        let mut hosts: Vec<_> = known
            .iter()
            .map(|known| v1::PolicyHost {
                wanted_revision: wanted(known.0).unwrap_or(0),
                ..self.view(known).policy_status(name, at)
            })
            .collect();
        hosts.sort_by(|a, b| (&a.host_name, &a.host_id).cmp(&(&b.host_name, &b.host_id)));
        Ok(v1::PolicyStatusResponse {
            policy: Some(policy),
            hosts,
        })
    }
}

pub(super) fn history<'a>(state: &'a LedgerState, name: &str) -> Result<&'a PolicyHistory, Status> {
    check_name("policy name", name)?;
    Ok(state
        .policies
        .get(name)
        .ok_or_else(|| PolicyError::Unknown(name.to_owned()))?)
}

/// The revision of this number; 0 is the newest.
pub(super) fn find_revision<'a>(
    policy: &'a PolicyHistory,
    name: &str,
    wanted: u64,
) -> Result<&'a PolicyRevision, Status> {
    let Some(newest) = policy.newest() else {
        return Err(not_found(format!(
            "policy {name} has no revision yet: nothing is ignored by it"
        )));
    };
    if wanted == 0 {
        return Ok(newest);
    }
    policy.revision(wanted).ok_or_else(|| {
        let last = newest.document.revision;
        not_found(format!(
            "policy {name} has no revision {wanted}; the newest is {last}"
        ))
    })
}

/// The newest revision, or the bare policy when it has none.
fn newest_info(name: &str, policy: &PolicyHistory) -> v1::PolicyInfo {
    policy.newest().map_or_else(
        || v1::PolicyInfo {
            name: name.to_owned(),
            groups: policy.groups.clone(),
            ..v1::PolicyInfo::default()
        },
        |revision| revision_info(policy, revision),
    )
}

fn revision_info(policy: &PolicyHistory, revision: &PolicyRevision) -> v1::PolicyInfo {
    let document = &revision.document;
    v1::PolicyInfo {
        name: document.name.clone(),
        revision: document.revision,
        published_at_ms: revision.published_at.0,
        author: revision.author.clone(),
        comment: revision.comment.clone(),
        rules: revision.rules,
        hash: policy::revision_hash(document).to_vec().into(),
        groups: policy.groups.clone(),
        running: policy.staying,
    }
}
