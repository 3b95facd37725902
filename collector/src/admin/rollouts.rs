//! Roll-outs: started, shown, paused, resumed, aborted.

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use tonic::Status;

use super::refusal::not_found;
use super::{AdminContext, Caller, messages};
use crate::policy::rollout::{self, Decision, Facts, Phase, Plan, Rollout, decide};
use crate::policy::union::{self, Change};
use crate::policy::{PolicyError, check_name};

impl AdminContext {
    /// Starts to bring a revision to the hosts of its policy; gives what is
    /// doubtful about it.
    pub(super) async fn start_rollout(
        &self,
        caller: &Caller,
        request: &v1::StartRolloutRequest,
    ) -> Result<Vec<v1::Diagnostic>, Status> {
        let (name, revision) = (request.policy.as_str(), request.revision);
        let plan = Plan::try_from(request.plan.clone().unwrap_or_default())?;
        let now = crate::clock::now();
        let heard = self.rollouts.hear(name, now);
        let document = self.ledger.read(|state| {
            let found = state.policies.get(name)?.revision(revision)?;
            Some(found.document.clone())
        });
        // A revision that is not there is refused below.
        let change = document.map(|document| Change::Document {
            document,
            groups: None,
        });
        let together = match &change {
            Some(change) => union::check(&self.ledger, change, now).await?,
            None => union::Checked::default(),
        };
        let commit = self.ledger.commit(now, caller.actor(), |state| {
            if let Some(change) = &change {
                union::still_holds(state, change, &together)?;
            }
            let is_excused = |host| heard.is_excused(state, host);
            rollout::start(state, name, revision, &plan, now, is_excused)
        });
        commit.await.map_err(PolicyError::from)?;
        let actor = caller.actor();
        tracing::info!(policy = name, revision, actor, "A roll-out was started.");
        Ok(messages(&together.warnings))
    }

    /// Pauses, resumes or aborts.
    pub(super) async fn move_rollout(
        &self,
        caller: &Caller,
        request: &v1::MoveRolloutRequest,
    ) -> Result<(), Status> {
        let (name, wanted) = (request.policy.as_str(), request.r#move());
        let now = crate::clock::now();
        let heard = self.rollouts.hear(name, now);
        let commit = self.ledger.commit(now, caller.actor(), |state| {
            let is_excused = |host| heard.is_excused(state, host);
            rollout::move_by_operator(state, name, wanted, &request.reason, is_excused)
        });
        commit.await.map_err(PolicyError::from)?;
        let actor = caller.actor();
        tracing::info!(policy = name, wanted = ?wanted, actor, "A roll-out was moved.");
        Ok(())
    }

    /// The last roll-out of a policy. Hashes: call it off the threads that
    /// serve.
    pub(super) fn show_rollout(&self, name: &str) -> Result<v1::RolloutInfo, Status> {
        check_name("policy name", name)?;
        if !self.ledger.read(|state| state.policies.contains_key(name)) {
            return Err(PolicyError::Unknown(name.to_owned()).into());
        }
        let now = crate::clock::now();
        let (rollout, facts) = self.rollouts.facts(name, now).ok_or_else(|| {
            not_found(format!(
                "policy {name} was never rolled out step by step; start with \
                 `procwarden policy rollout {name} REVISION`"
            ))
        })?;
        let former = self.ledger.read(|state| {
            let settled = state.policies.get(name).and_then(|p| p.settled());
            settled.map_or(0, |revision| revision.document.revision)
        });
        Ok(info(name, &rollout, &facts, former, now))
    }
}

fn info(
    name: &str,
    rollout: &Rollout,
    facts: &Facts,
    former: u64,
    now: UnixMillis,
) -> v1::RolloutInfo {
    let moved = rollout.moved.clone();
    let every = i64::try_from(rollout.plan.every_millis).unwrap_or(i64::MAX);
    let next = rollout.step_since.plus_millis(every).0;
    let waits_for = match decide(rollout, now, facts) {
        Decision::Wait(Some(what)) => what,
        _ => String::new(),
    };
    v1::RolloutInfo {
        policy: name.to_owned(),
        revision: rollout.revision,
        former_revision: former,
        plan: Some((&rollout.plan).into()),
        state: state_of(rollout.phase).into(),
        step: u32::try_from(rollout.step + 1).unwrap_or(u32::MAX),
        started_at_ms: rollout.started_at.0,
        started_by: rollout.started_by.clone(),
        step_since_ms: rollout.step_since.0,
        next_at_ms: if rollout.phase == Phase::Running {
            next
        } else {
            0
        },
        moved_at_ms: moved.as_ref().map_or(0, |moved| moved.at.0),
        moved_by: moved
            .as_ref()
            .map(|moved| moved.by.clone())
            .unwrap_or_default(),
        reason: moved.map(|moved| moved.reason).unwrap_or_default(),
        waits_for,
        hosts: facts.hosts,
        hosts_reached: facts.reached,
        hosts_applied: facts.applied,
        hosts_pending: facts.pending.hosts,
        hosts_refused: facts.refused.hosts,
        hosts_silent: facts.silent.hosts,
    }
}

const fn state_of(phase: Phase) -> v1::RolloutState {
    match phase {
        Phase::Running => v1::RolloutState::Running,
        Phase::Paused => v1::RolloutState::Paused,
        Phase::Held => v1::RolloutState::Held,
        Phase::Reverted => v1::RolloutState::Reverted,
        Phase::Aborted => v1::RolloutState::Aborted,
        Phase::Finished => v1::RolloutState::Finished,
    }
}
