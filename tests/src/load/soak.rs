//! Mode `soak`: a fleet's ordinary life for a long time, with a storm in the
//! middle. What grows shows in the samples.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::drive::{Pace, drive, opened, requests_of};
use super::fleet::{Crowd, What};
use super::latency::percentiles;
use super::target::Target;
use super::{Plan, hosts_of, machine};
use crate::usage::rounded;

const AT_ONCE: usize = 64;

/// Hosts that send findings, beside those that are idle.
const SENDERS: usize = 64;

const SAMPLES: u32 = 20;

/// How long, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// How long.
    pub seconds: u64,
    /// Findings per second.
    pub rate: f64,
}

/// Keeps all hosts connected while some send findings, and prints what the
/// collector used meanwhile.
///
/// # Errors
/// When a host cannot enrol or connect, or a sender's stream breaks.
pub async fn soak(plan: &Plan, how: Soak) -> anyhow::Result<Value> {
    let target = Target::collector(&plan.target, plan.agents + SENDERS)?;
    let mut hosts = hosts_of(&target, plan.agents + SENDERS).await?;
    let senders = hosts.split_off(plan.agents);
    let mut crowd = Crowd::connect(&hosts, AT_ONCE);
    let connected = |what: &What| matches!(what, What::Connected);
    crowd.all("connected", connected).await?;

    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    let requests = requests_of(&senders);
    for (number, (host, requests)) in senders.into_iter().zip(requests).enumerate() {
        let interval = Duration::from_secs_f64(SENDERS as f64 / how.rate.max(0.001));
        let pace = Pace {
            batch: 1,
            in_flight: 64,
            interval,
            begin: begin + interval.mul_f64(number as f64 / SENDERS as f64),
            end: begin + Duration::from_secs(how.seconds),
        };
        tasks.spawn(async move {
            let stream = opened(&host, requests.hello()).await?;
            drive(stream, &requests, pace).await
        });
    }
    let mut samples = Vec::new();
    for sample in 1..=SAMPLES {
        if sample == SAMPLES / 2 {
            crowd.cut();
        }
        let due = begin + Duration::from_secs(how.seconds) / SAMPLES * sample;
        let lost = crowd
            .idle(due.saturating_duration_since(Instant::now()))
            .await;
        let usage = target.usage()?;
        samples.push(json!({
            "at_secs": rounded(begin.elapsed().as_secs_f64()),
            "rss_bytes": usage.map(|usage| usage.rss_bytes),
            "cpu_secs": usage.map(|usage| usage.cpu_secs),
            "attempts_failed": lost,
        }));
    }
    sleep_until(begin + Duration::from_secs(how.seconds)).await;
    let mut latencies = Vec::new();
    while let Some(sent) = tasks.join_next().await {
        latencies.extend(sent??);
    }
    Ok(json!({
        "mode": "soak",
        "agents": plan.agents,
        "senders": SENDERS,
        "rate": how.rate,
        "seconds": how.seconds,
        "ack_ms": percentiles(latencies),
        "samples": samples,
        "machine": machine(),
    }))
}
