//! Mode `ingest`: findings per second, and how long an ack takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::append::append;
use super::drive::{Pace, drive, opened, requests_of};
use super::host::Host;
use super::latency::percentiles;
use super::requests::Requests;
use super::stream::Stream;
use super::target::{Target, Where};
use super::{Plan, beside, hosts_of, machine};
use crate::usage::{Usage, rounded};

const CONNECT_AT_ONCE: usize = 64;

/// How long the index may take to catch up afterwards, and how often it is
/// asked.
const INDEX_MAX: Duration = Duration::from_secs(300);
const INDEX_PAUSE: Duration = Duration::from_millis(100);

/// Until every host has its first batch ready.
const HEAD_START: Duration = Duration::from_millis(500);

/// How to send.
#[derive(Debug, Clone, Copy)]
pub struct Ingest {
    /// Findings of one batch.
    pub batch: usize,
    /// Batches on their way per host.
    pub in_flight: usize,
    /// Findings per second of all hosts together; none is as many as are
    /// acknowledged.
    pub rate: Option<f64>,
    /// How long to send.
    pub seconds: u64,
}

/// Sends findings, and prints throughput and latency; with the floors beside
/// it when the plan says so.
///
/// # Errors
/// When a host cannot enrol or connect, or its stream breaks.
pub async fn ingest(plan: &Plan, how: Ingest) -> anyhow::Result<Value> {
    let target = Target::collector(&plan.target, plan.agents)?;
    let mut result = send(&target, plan.agents, how).await?;
    let behind = tokio::task::spawn_blocking(move || index_behind(&target)).await??;
    result = beside(result, "index_behind", behind);
    if plan.floor {
        let floor = Target::floor()?;
        let null = send(&floor, plan.agents, how).await?;
        drop(floor);
        result = beside(result, "floor_null", Some(null));
        let (directory, group) = (directory_of(&plan.target), group_of(plan.agents, how));
        let seconds = Duration::from_secs(how.seconds);
        let appended =
            tokio::task::spawn_blocking(move || append(&directory, group, seconds)).await??;
        result = beside(result, "floor_append", Some(appended));
    }
    result["mode"] = json!("ingest");
    result["machine"] = machine();
    Ok(result)
}

/// What listings do not show yet when the last finding is acknowledged, and how
/// long it takes until they show everything.
fn index_behind(target: &Target) -> anyhow::Result<Option<Value>> {
    let begin = Instant::now();
    let Some(bytes) = target.index_lag()? else {
        return Ok(None);
    };
    while target.index_lag()?.is_some_and(|lag| lag > 0) {
        ensure!(
            begin.elapsed() < INDEX_MAX,
            "the index does not catch up with the journal"
        );
        std::thread::sleep(INDEX_PAUSE);
    }
    let secs = rounded(begin.elapsed().as_secs_f64());
    Ok(Some(json!({"bytes": bytes, "secs": secs})))
}

fn directory_of(target: &Where) -> PathBuf {
    match target {
        Where::Own(below) => below.clone(),
        Where::Given { .. } => std::env::temp_dir(),
    }
}

/// What is on its way at once may become durable together.
fn group_of(agents: usize, how: Ingest) -> usize {
    (agents * how.in_flight * how.batch).clamp(1, 4096)
}

async fn send(target: &Target, agents: usize, how: Ingest) -> anyhow::Result<Value> {
    let hosts = hosts_of(target, agents).await?;
    let requests = requests_of(&hosts);
    let streams = connect_all(&hosts, &requests).await?;
    let mut tasks = JoinSet::new();
    let before = target.usage()?;
    let own_before = Usage::of(std::process::id())?;
    let begin = Instant::now() + HEAD_START;
    for (number, (stream, requests)) in streams.into_iter().zip(requests).enumerate() {
        let pace = pace_of(number, agents, how, begin);
        tasks.spawn(async move { drive(stream, &requests, pace).await });
    }
    let mut latencies = Vec::new();
    let finishing = async {
        while let Some(sent) = tasks.join_next().await {
            latencies.extend(sent??);
        }
        anyhow::Ok(())
    };
    let patience = Duration::from_secs(how.seconds) + super::STEP_MAX;
    timeout(patience, finishing)
        .await
        .context("not everything was acknowledged in time")??;
    let elapsed = begin.elapsed().as_secs_f64();
    let findings = latencies.len() * how.batch;
    let server = target.usage()?.zip(before);
    Ok(json!({
        "agents": agents,
        "batch": how.batch,
        "in_flight": how.in_flight,
        "rate": how.rate,
        "seconds": rounded(elapsed),
        "findings": findings,
        "findings_per_sec": (findings as f64 / elapsed).round(),
        "ack_ms": percentiles(latencies),
        "server": server.map(|(after, before)| after.since(&before)),
        "generator_cpu_secs": rounded(Usage::of(std::process::id())?.cpu_secs - own_before.cpu_secs),
    }))
}

async fn connect_all(hosts: &[Arc<Host>], requests: &[Requests]) -> anyhow::Result<Vec<Stream>> {
    let opening = hosts
        .iter()
        .zip(requests)
        .map(|(host, requests)| opened(host, requests.hello()));
    stream::iter(opening)
        .buffered(CONNECT_AT_ONCE)
        .try_collect()
        .await
}

/// With a rate, hosts take turns, so that load is even.
fn pace_of(number: usize, agents: usize, how: Ingest, begin: Instant) -> Pace {
    let interval = how.rate.map_or(Duration::ZERO, |rate| {
        Duration::from_secs_f64((how.batch * agents) as f64 / rate.max(0.001))
    });
    Pace {
        batch: how.batch,
        in_flight: how.in_flight,
        interval,
        begin: begin + interval.mul_f64(number as f64 / agents.max(1) as f64),
        end: begin + Duration::from_secs(how.seconds),
    }
}
