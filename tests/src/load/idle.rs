//! Mode `connect`: what ten thousand idle agents cost.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::fleet::{Crowd, What};
use super::target::Target;
use super::{Plan, beside, hosts_of, machine};
use crate::usage::rounded;

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;

/// Until what connecting left behind is done with.
const SETTLE: Duration = Duration::from_secs(5);

/// Connects all hosts, leaves them idle for `seconds`, and prints memory and
/// CPU.
///
/// # Errors
/// When a host cannot enrol or connect.
pub async fn connect(plan: &Plan, seconds: u64) -> anyhow::Result<Value> {
    let target = Target::collector(&plan.target, plan.agents)?;
    let result = idle(&target, plan.agents, seconds).await?;
    drop(target);
    let floor = match plan.floor {
        true => Some(idle(&Target::floor()?, plan.agents, seconds).await?),
        false => None,
    };
    let mut result = beside(result, "floor_bare", floor);
    result["mode"] = json!("connect");
    result["machine"] = machine();
    Ok(result)
}

async fn idle(target: &Target, agents: usize, seconds: u64) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let hosts = hosts_of(target, agents).await?;
    let enroll_secs = begin.elapsed().as_secs_f64();
    let before = target.usage()?;
    let begin = Instant::now();
    let mut crowd = Crowd::connect(&hosts, AT_ONCE);
    let connected = |what: &What| matches!(what, What::Connected);
    let (_, failures) = crowd.all("connected", connected).await?;
    let connect_secs = begin.elapsed().as_secs_f64();
    let lost_settling = crowd.idle(SETTLE).await;
    let settled = target.usage()?;
    let lost = crowd.idle(Duration::from_secs(seconds)).await;
    let after = target.usage()?;
    let per_agent = before
        .zip(after)
        .map(|(before, after)| after.rss_bytes.saturating_sub(before.rss_bytes) / agents as u64);
    let cores = settled
        .zip(after)
        .map(|(from, to)| rounded((to.cpu_secs - from.cpu_secs) / seconds.max(1) as f64));
    Ok(json!({
        "agents": agents,
        "enroll_secs": rounded(enroll_secs),
        "connect_secs": rounded(connect_secs),
        "attempts_failed": failures.len(),
        "streams_lost": lost_settling + lost,
        "rss_bytes_before": before.map(|usage| usage.rss_bytes),
        "rss_bytes": after.map(|usage| usage.rss_bytes),
        "rss_bytes_per_agent": per_agent,
        "idle_secs": seconds,
        "idle_cores": cores,
    }))
}
