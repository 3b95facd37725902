//! Mode `storm`: every host loses its connection at the same moment and comes
//! back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::fleet::{Crowd, What};
use super::latency::percentiles;
use super::target::Target;
use super::{Plan, beside, hosts_of, machine};
use crate::usage::{Usage, rounded};

const AT_ONCE: usize = 64;
const SETTLE: Duration = Duration::from_secs(5);

/// What breaks the connections.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// The collector stops and starts again, and hosts wait as agents do;
    /// otherwise all hosts come back at once, without a wait: the worst case.
    pub restart: bool,
}

/// Connects all hosts, breaks every connection, and prints when the last host
/// was back.
///
/// # Errors
/// When a host does not come back at all.
pub async fn storm(plan: &Plan, how: Storm) -> anyhow::Result<Value> {
    let mut target = Target::collector(&plan.target, plan.agents)?;
    let result = break_all(&mut target, plan.agents, how).await?;
    drop(target);
    let floor = match plan.floor && !how.restart {
        true => Some(break_all(&mut Target::floor()?, plan.agents, how).await?),
        false => None,
    };
    let mut result = beside(result, "floor_bare", floor);
    result["mode"] = json!("storm");
    result["machine"] = machine();
    Ok(result)
}

async fn break_all(target: &mut Target, agents: usize, how: Storm) -> anyhow::Result<Value> {
    let hosts = hosts_of(target, agents).await?;
    // The first time in turns; when all come back, nobody waits for a turn.
    let mut crowd = Crowd::connect(&hosts, AT_ONCE);
    let connected = |what: &What| matches!(what, What::Connected);
    crowd.all("connected", connected).await?;
    crowd.idle(SETTLE).await;
    crowd.lift_turns(agents);
    let mut before = target.usage()?;
    let begin = match how.restart {
        true => {
            restart(target)?;
            before = target.usage()?;
            Instant::now()
        }
        false => {
            let begin = Instant::now();
            crowd.cut();
            begin
        }
    };
    let (times, failures) = crowd.all("back", connected).await?;
    let back = times.iter().max().copied().unwrap_or(begin) - begin;
    let after = target.usage()?;
    Ok(json!({
        "agents": agents,
        "restart": how.restart,
        "all_back_secs": rounded(back.as_secs_f64()),
        "back_ms": percentiles(times.iter().map(|at| at.saturating_duration_since(begin)).collect()),
        "attempts_failed": failures.len(),
        "last_failure": failures.last(),
        "server": used(before, after),
    }))
}

/// After a restart the process is another one, and began at nothing.
fn used(before: Option<Usage>, after: Option<Usage>) -> Option<Value> {
    before
        .zip(after)
        .map(|(before, after)| after.since(&before))
}

fn restart(target: &mut Target) -> anyhow::Result<()> {
    let collector = target.own_collector()?;
    tokio::task::block_in_place(|| {
        collector.stop();
        collector.start();
    });
    Ok(())
}
