//! `procwarden policy rollout`: a revision goes from a few hosts to all.
//! `status` has exit code 2 when the roll-out stopped by itself.

use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use serde::Serialize;

use crate::cli::{MoveArgs, OnStop, RolloutArgs, RolloutCommand, StartArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::json::{shown, shown_unless_empty, when};
use crate::table::Table;

/// One roll-out.
#[derive(Debug, Serialize)]
struct RolloutObject {
    policy: String,
    revision: u64,
    former_revision: u64,
    state: &'static str,
    /// From 1.
    step: u32,
    steps_percent: Vec<u32>,
    every_secs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    started_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_step_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    hosts: u32,
    hosts_reached: u32,
    hosts_applied: u32,
    hosts_pending: u32,
    hosts_refused: u32,
    hosts_silent: u32,
}

pub(super) async fn run(args: RolloutArgs, context: &mut Context) -> Result<(), Failure> {
    use v1::RolloutMove::{Abort, Pause, Resume};
    let info = match (args.command, args.start) {
        (Some(RolloutCommand::Status { name }), _) => {
            let request = v1::ShowRolloutRequest { policy: name };
            let answer = context.admin().await?.show_rollout(request).await;
            let answer = answer.map_err(|status| context.refused("show the roll-out", &status))?;
            let info = answer.into_inner().rollout.unwrap_or_default();
            show(&info, context)?;
            return outcome(&info);
        }
        (Some(RolloutCommand::Pause(args)), _) => step(Pause, args, context).await?,
        (Some(RolloutCommand::Resume(args)), _) => step(Resume, args, context).await?,
        (Some(RolloutCommand::Abort(args)), _) => step(Abort, args, context).await?,
        (None, Some(args)) => start(args, context).await?,
        (None, None) => {
            let usage = "say what to roll out: procwarden policy rollout POLICY N";
            return Err(Failure::Usage(usage.into()));
        }
    };
    show(&info, context)
}

/// Agents scan once a minute unless a policy says otherwise, and tell what
/// their rules ignored with the next heartbeat.
const TELLING_STEP: Duration = Duration::from_secs(120);

async fn start(args: StartArgs, context: &mut Context) -> Result<v1::RolloutInfo, Failure> {
    if args.every < TELLING_STEP {
        context.out.remark(
            "steps shorter than 2 minutes may end before agents have scanned with the revision \
             and told what it hides",
        );
    }
    let plan = v1::RolloutPlan {
        steps: args.steps.0,
        every_ms: u64::try_from(args.every.as_millis()).unwrap_or(u64::MAX),
        refused: args.stop_if.refused,
        silent: args.stop_if.silent,
        severity: args.stop_if.severity.into(),
        hold: args.on_stop == OnStop::Hold,
    };
    let request = v1::StartRolloutRequest {
        policy: args.name,
        revision: args.revision,
        plan: Some(plan),
    };
    let answer = context.admin().await?.start_rollout(request).await;
    let answer = answer.map_err(|status| context.judged("start the roll-out", &status))?;
    let answer = answer.into_inner();
    super::remarks::say_of_collector(answer.diagnostics, &context.out);
    Ok(answer.rollout.unwrap_or_default())
}

async fn step(
    wanted: v1::RolloutMove,
    args: MoveArgs,
    context: &mut Context,
) -> Result<v1::RolloutInfo, Failure> {
    let request = v1::MoveRolloutRequest {
        policy: args.name,
        r#move: wanted.into(),
        reason: args.reason,
    };
    let answer = context.admin().await?.move_rollout(request).await;
    let answer = answer.map_err(|status| context.judged("move the roll-out", &status))?;
    Ok(answer.into_inner().rollout.unwrap_or_default())
}

fn show(info: &v1::RolloutInfo, context: &mut Context) -> Result<(), Failure> {
    let object = object(info);
    if context.out.json() {
        return context.out.object(&object);
    }
    let mut table = Table::list();
    let steps: Vec<String> = object
        .steps_percent
        .iter()
        .map(|p| format!("{p}%"))
        .collect();
    table.fact("policy", format!("{} r{}", object.policy, object.revision));
    let former = super::revision_words(object.former_revision);
    table.fact("others run", former);
    table.fact("state", object.state);
    table.fact(
        "step",
        format!("{} of {} ({})", object.step, steps.len(), steps.join(", ")),
    );
    let started_at = UnixMillis(info.started_at_ms).to_string();
    table.fact("started", format!("{started_at} by {}", object.started_by));
    for (name, value) in [
        ("next step", object.next_step_at),
        ("waits for", object.waits_for),
        ("last moved", object.moved_at),
        ("by", object.moved_by),
        ("reason", object.reason),
    ] {
        if let Some(value) = value {
            table.fact(name, value);
        }
    }
    let hosts = format!(
        "{} of {} reached: {} applied, {} pending, {} refused, {} silent",
        info.hosts_reached,
        info.hosts,
        info.hosts_applied,
        info.hosts_pending,
        info.hosts_refused,
        info.hosts_silent
    );
    table.fact("hosts", hosts);
    context.out.table(&table)
}

fn object(info: &v1::RolloutInfo) -> RolloutObject {
    let plan = info.plan.clone().unwrap_or_default();
    RolloutObject {
        policy: shown(&info.policy),
        revision: info.revision,
        former_revision: info.former_revision,
        state: state_word(info.state()),
        step: info.step,
        steps_percent: plan.steps,
        every_secs: plan.every_ms / 1000,
        started_at: when(info.started_at_ms),
        started_by: shown(&info.started_by),
        next_step_at: when(info.next_at_ms),
        moved_at: when(info.moved_at_ms),
        moved_by: shown_unless_empty(&info.moved_by),
        reason: shown_unless_empty(&info.reason),
        waits_for: shown_unless_empty(&info.waits_for),
        hosts: info.hosts,
        hosts_reached: info.hosts_reached,
        hosts_applied: info.hosts_applied,
        hosts_pending: info.hosts_pending,
        hosts_refused: info.hosts_refused,
        hosts_silent: info.hosts_silent,
    }
}

fn outcome(info: &v1::RolloutInfo) -> Result<(), Failure> {
    use v1::RolloutState::{Held, Reverted};
    if matches!(info.state(), Held | Reverted) {
        let revision = info.revision;
        return Err(Failure::Negative(format!(
            "the roll-out of revision {revision} stopped by itself"
        )));
    }
    Ok(())
}

const fn state_word(state: v1::RolloutState) -> &'static str {
    match state {
        v1::RolloutState::Running => "running",
        v1::RolloutState::Paused => "paused",
        v1::RolloutState::Held => "held",
        v1::RolloutState::Reverted => "reverted",
        v1::RolloutState::Aborted => "aborted",
        v1::RolloutState::Finished => "finished",
        v1::RolloutState::Unspecified => "unknown",
    }
}
