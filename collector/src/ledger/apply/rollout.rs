//! Roll-outs: how their records change the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use procwarden_common::policy::RuleId;
use procwarden_proto::v1;

use super::{Step, host_id};
use crate::ledger::LedgerState;
use crate::ledger::state::PolicyHistory;
use crate::policy::hits::{Mark, Marks};
use crate::policy::rollout::{Baseline, Moved, Phase, Plan, Rollout};

impl LedgerState {
    pub(super) fn rollout_started(
        &self,
        at: UnixMillis,
        actor: String,
        entry: v1::RolloutStarted,
    ) -> Result<Step, String> {
        let (name, revision) = (entry.policy, entry.revision);
        let policy = self.policies.get(&name);
        let policy = policy.ok_or_else(|| format!("policy {name} is not known"))?;
        if policy.revision(revision).is_none() {
            return Err(format!("policy {name} has no revision {revision}"));
        }
        let plan = entry.plan.ok_or("the record has no plan")?;
        let hosts = entry.hosts.unwrap_or_default();
        let rollout = Rollout {
            revision,
            plan: Plan::try_from(plan).map_err(|error| error.to_string())?,
            started_at: at,
            started_by: actor,
            step: 0,
            step_since: at,
            limit: hosts.limit,
            excused: host_ids(&hosts.excused)?,
            phase: Phase::Running,
            moved: None,
            told: false,
            baseline: None,
        };
        Ok(Box::new(move |state| {
            if let Some(policy) = state.policies.get_mut(&name) {
                // An older revision may be the one that is rolled out.
                let settled = policy.settled().map_or(0, |r| r.document.revision);
                policy.staying = Some(settled);
                policy.rollout = Some(rollout);
            }
        }))
    }

    /// Refuses what is about a roll-out that another one has followed.
    fn must_be_last_rollout(
        &self,
        name: &str,
        revision: u64,
        started_at_ms: i64,
    ) -> Result<(), String> {
        let rollout = self.policies.get(name).and_then(|p| p.rollout.as_ref());
        let is_this = |rollout: &Rollout| {
            (rollout.revision, rollout.started_at.0) == (revision, started_at_ms)
        };
        if rollout.is_some_and(is_this) {
            return Ok(());
        }
        Err(format!(
            "that roll-out of policy {name} is not the last one"
        ))
    }

    pub(super) fn rollout_told(&self, entry: v1::RolloutTold) -> Result<Step, String> {
        let name = entry.policy;
        self.must_be_last_rollout(&name, entry.revision, entry.started_at_ms)?;
        Ok(Box::new(move |state| {
            let policy = state.policies.get_mut(&name);
            if let Some(rollout) = policy.and_then(|policy| policy.rollout.as_mut()) {
                rollout.told = true;
            }
        }))
    }

    pub(super) fn rollout_baseline(&self, entry: v1::RolloutBaseline) -> Result<Step, String> {
        let name = entry.policy;
        self.must_be_last_rollout(&name, entry.revision, entry.started_at_ms)?;
        let marks: Result<Marks, String> = entry.marks.iter().map(mark).collect();
        let baseline = Baseline {
            since: UnixMillis(entry.since_ms),
            marks: Arc::new(marks?),
        };
        Ok(Box::new(move |state| {
            let policy = state.policies.get_mut(&name);
            if let Some(rollout) = policy.and_then(|policy| policy.rollout.as_mut()) {
                rollout.baseline = Some(baseline);
            }
        }))
    }

    pub(super) fn rollout_moved(
        &self,
        at: UnixMillis,
        actor: String,
        entry: v1::RolloutMoved,
    ) -> Result<Step, String> {
        let name = entry.policy.clone();
        let policy = self.policies.get(&name);
        let open = policy.and_then(|policy| policy.open_rollout());
        if open.is_none_or(|open| open.revision != entry.revision) {
            let revision = entry.revision;
            return Err(format!("revision {revision} of {name} is not rolled out"));
        }
        let wanted = entry.r#move();
        let hosts = entry.hosts.unwrap_or_default();
        let excused = host_ids(&hosts.excused)?;
        let moved = Moved {
            at,
            by: actor,
            reason: entry.reason,
        };
        Ok(Box::new(move |state| {
            if let Some(policy) = state.policies.get_mut(&name) {
                apply_move(policy, wanted, moved, (hosts.limit, excused));
            }
        }))
    }
}

fn apply_move(
    policy: &mut PolicyHistory,
    wanted: v1::RolloutMove,
    moved: Moved,
    (limit, excused): (u64, BTreeSet<HostId>),
) {
    use v1::RolloutMove::{Abort, Advance, Finish, Pause, Resume, Stop, Unspecified};
    let newest = policy.newest().map(|revision| revision.document.revision);
    let Some(rollout) = &mut policy.rollout else {
        return;
    };
    rollout.phase = match wanted {
        Advance => {
            rollout.step = rollout.step.saturating_add(1);
            rollout.step_since = moved.at;
            rollout.limit = rollout.limit.max(limit);
            rollout.excused.extend(excused);
            return;
        }
        Finish => {
            let revision = rollout.revision;
            policy.staying = (newest != Some(revision)).then_some(revision);
            Phase::Finished
        }
        Pause => Phase::Paused,
        Resume => {
            rollout.told = false;
            rollout.excused.extend(excused);
            // The step begins anew: what was paused was not watched.
            rollout.step_since = moved.at;
            Phase::Running
        }
        Abort => Phase::Aborted,
        Stop if rollout.plan.hold => Phase::Held,
        Stop => Phase::Reverted,
        Unspecified => return,
    };
    if !rollout.is_open() {
        // Nobody compares with it any more.
        rollout.baseline = None;
    }
    rollout.moved = Some(moved);
}

fn mark(message: &v1::RolloutMark) -> Result<((RuleId, HostId), Mark), String> {
    let rule = RuleId::from_slice(&message.rule_id).ok_or("the id of a rule has 16 bytes")?;
    let mark = Mark {
        fresh: message.fresh,
        unseen: message.unseen,
        newest: UnixMillis(message.newest_ms),
    };
    Ok(((rule, host_id(&message.host_id)?), mark))
}

fn host_ids(ids: &[bytes::Bytes]) -> Result<BTreeSet<HostId>, String> {
    ids.iter().map(|id| host_id(id)).collect()
}
