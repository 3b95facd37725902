//! `ignore`: from a finding to the rule that hides it, its preview, and a
//! revision with it.
//!
//! Promises: what is published is what was previewed, or nothing; a rule that
//! nobody should write is never published, and a doubtful one only by force.

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Level;
use procwarden_common::finding::StoredFinding;
use procwarden_common::policy::suggest::{Objection, Proposal, propose, rule_facts, with_rule};
use procwarden_common::policy::{
    EffectivePolicy, Policy, PolicyDocument, Rule, RuleFacts, RuleKey, RuleText, Verdict, judge,
};
use procwarden_proto::v1;
use tonic::Status;

use super::findings::show;
use super::refusal::{invalid, not_now};
use super::{AdminContext, Caller, messages};
use crate::ledger::LedgerState;
use crate::policy::{self, Draft, PolicyError, effective_for};

mod remarks;
#[cfg(test)]
mod tests;

/// Digits of a finding's id in the comment of a revision.
const ID_DIGITS_SHOWN: usize = 12;

/// What would be published, and what there is to say about it.
pub(super) struct Plan {
    stored: StoredFinding,
    proposal: Proposal,
    facts: RuleFacts,
    draft: Draft,
    notes: Vec<String>,
    preview: v1::PreviewPolicyResponse,
}

impl AdminContext {
    /// The safest rule for a finding, and what it would hide. Reads and
    /// compiles for seconds: call it off the threads that serve.
    pub(super) fn plan_ignore(
        &self,
        caller: &Caller,
        request: &v1::IgnoreFindingRequest,
    ) -> Result<Plan, Status> {
        let now = crate::clock::now();
        let by = (!request.by.is_empty())
            .then(|| key_of(&request.by))
            .transpose()?;
        let facts = facts_of(caller, request, now)?;
        let stored = show(&self.findings, &request.finding.trim().to_ascii_lowercase())?;
        let newest = self.ledger.read(|state| newest(state, &request.policy))?;
        let proposal =
            propose(&stored.finding, by).map_err(|refused| not_now(refused.to_string()))?;
        self.refuse_what_is_ignored(&stored, now)?;

        let files = newest.as_ref().map(|document| document.files.as_slice());
        let draft = Draft {
            name: request.policy.clone(),
            files: with_rule(files.unwrap_or_default(), &facts, &proposal.rule.line),
            settings: None,
            comment: comment_of(&stored, &request.reason),
            staged: false,
            groups: Vec::new(),
            base: Some(newest.as_ref().map_or(0, |document| document.revision)),
        };
        let mut preview = self.preview_draft(draft.clone(), request.since_ms)?;
        if preview.summary.is_some() {
            // Not what there is to say of the other rules.
            let (_, next) = policy::candidate(&self.ledger, draft.clone())?;
            let remarks = remarks::about_last_rule(files.unwrap_or_default(), next, now);
            preview.diagnostics = messages(&remarks);
        }
        let mut notes = vec![proposal.rule.note.to_owned()];
        notes.extend(self.out_of_reach(&stored, &request.policy));
        Ok(Plan {
            stored,
            proposal,
            facts,
            draft,
            notes,
            preview,
        })
    }

    /// Publishes the plan where that is wanted and may be.
    pub(super) async fn ignore_finding(
        &self,
        caller: &Caller,
        request: &v1::IgnoreFindingRequest,
        plan: Plan,
    ) -> Result<v1::IgnoreFindingResponse, Status> {
        let objections = &plan.proposal.objections;
        let can_be_forced = objections.iter().all(|objection| objection.can_be_forced);
        let mut answer = v1::IgnoreFindingResponse {
            facts: plan.facts.to_string(),
            rule: plan.proposal.rule.line.clone(),
            notes: plan.notes,
            objections: objections.iter().map(Objection::with_advice).collect(),
            can_be_forced,
            preview: Some(plan.preview),
            policy: None,
            published: false,
            diagnostics: Vec::new(),
        };
        if request.publish {
            refuse_objections(&answer, request.force)?;
            let now = crate::clock::now();
            let outcome = policy::publish(&self.ledger, caller.actor(), now, plan.draft).await?;
            answer.published = outcome.published;
            // What is doubtful about the other rules is not of interest here.
            let mut remarks = outcome.diagnostics;
            remarks.retain(|remark| remark.level == Level::Error || remark.line == 0);
            answer.diagnostics = messages(&remarks);
            if outcome.published {
                tracing::info!(
                    name = request.policy,
                    finding_id = %plan.stored.id,
                    actor = caller.actor(),
                    "A rule for a finding was published."
                );
            }
        }
        answer.policy = self.newest_of(&request.policy);
        Ok(answer)
    }

    /// A finding may be older than the rule that covers it by now.
    fn refuse_what_is_ignored(
        &self,
        stored: &StoredFinding,
        now: UnixMillis,
    ) -> Result<(), Status> {
        let effective = self
            .ledger
            .read(|state| effective_for(state, stored.host_id));
        let Some(rule) = effective.and_then(|effective| covering(&effective, stored, now)) else {
            return Ok(());
        };
        let (policy, line) = (&rule.origin.policy, rule.origin.line);
        let file = &rule.origin.file;
        Err(not_now(format!(
            "there is nothing to do: `{rule}` of policy {policy} ({file}:{line}) covers it already"
        )))
    }

    /// A word of warning when the rule would not reach the finding's host.
    fn out_of_reach(&self, stored: &StoredFinding, name: &str) -> Option<String> {
        let reaches = self.ledger.read(|state| {
            let (policy, host) = (state.policies.get(name)?, state.hosts.get(&stored.host_id)?);
            Some(policy.covers(stored.host_id, host))
        });
        (reaches != Some(true)).then(|| {
            format!(
                "host {} does not get policy {name}, so this rule would not ignore the finding \
                 there; `procwarden hosts show` says which policies it gets",
                stored.host_name
            )
        })
    }
}

fn covering(effective: &EffectivePolicy, stored: &StoredFinding, now: UnixMillis) -> Option<Rule> {
    let (policy, _) = Policy::compile(effective).ok()?;
    match judge(&policy, &RuleText::of_finding(&stored.finding), now) {
        Verdict::Ignored(rule) => Some(Rule::clone(&rule)),
        Verdict::Report => None,
    }
}

fn newest(state: &LedgerState, name: &str) -> Result<Option<PolicyDocument>, Status> {
    let unknown = || PolicyError::Unknown(name.to_owned());
    let policy = state.policies.get(name).ok_or_else(unknown)?;
    if let (Some(staying), Some(newest)) = (policy.staying, policy.newest()) {
        let newest = newest.document.revision;
        return Err(not_now(format!(
            "the hosts of policy {name} run revision {staying} and not the newest, {newest}: roll \
             that out, or publish what they shall run, before rules are added"
        )));
    }
    Ok(policy.newest().map(|revision| revision.document.clone()))
}

fn key_of(word: &str) -> Result<RuleKey, Status> {
    let found = RuleKey::ALL.iter().find(|(_, known)| *known == word);
    found
        .map(|(key, _)| *key)
        .ok_or_else(|| invalid("a rule looks at exe, pexe, user, puser, cmd or pcmd"))
}

/// Who answers for the rule is who asked.
fn facts_of(
    caller: &Caller,
    request: &v1::IgnoreFindingRequest,
    now: UnixMillis,
) -> Result<RuleFacts, Status> {
    if request.reason.trim().is_empty() {
        return Err(invalid("say why with --reason"));
    }
    let facts = rule_facts(&request.expires, caller.name(), request.reason.trim())
        .map_err(|error| invalid(error.to_string()))?;
    if !facts.in_force(now) {
        let day = &request.expires;
        return Err(invalid(format!("{day} is over: the rule would never hold")));
    }
    Ok(facts)
}

fn comment_of(stored: &StoredFinding, reason: &str) -> String {
    let id = stored.id.to_string();
    let shown = id.get(..ID_DIGITS_SHOWN).unwrap_or(&id);
    format!("ignore finding {shown}: {}", reason.trim())
}

fn refuse_objections(answer: &v1::IgnoreFindingResponse, force: bool) -> Result<(), Status> {
    if answer.objections.is_empty() || (force && answer.can_be_forced) {
        return Ok(());
    }
    let way_out = if answer.can_be_forced {
        "--force publishes it all the same"
    } else {
        "no --force publishes it; try another --by"
    };
    let why = answer.objections.join("; ");
    Err(not_now(format!("`{}`: {why}; {way_out}", answer.rule)))
}
