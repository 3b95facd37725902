//! The load generator's work: simulated hosts against a real collector.
//!
//! Each host enrolls for itself and keeps a stream of its own; findings are
//! of realistic size and never repeat, so none is answered from deduplication.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use procwarden_common::token::Token;
use procwarden_proto::v1;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::{Barrier, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) mod connect;
pub(crate) mod findings;
mod server;

/// What to do.
pub struct Plan {
    /// File with the enrolment token.
    pub token_file: PathBuf,
    /// PEM of the fleet's CA.
    pub ca_file: PathBuf,
    /// Hosts to simulate.
    pub agents: usize,
    /// Findings of one batch.
    pub batch: usize,
    /// Batches on their way per host.
    pub in_flight: usize,
    /// How long to send.
    pub seconds: u64,
    /// The collector, to measure it as well.
    pub server_pid: Option<u32>,
}

/// Sends findings for as long as the plan says, and reports what came of it.
///
/// # Errors
/// When a host cannot enroll or connect, or its stream breaks.
pub async fn ingest(plan: &Plan) -> anyhow::Result<Value> {
    let token = std::fs::read_to_string(&plan.token_file).context("cannot read the token")?;
    let token = Token::parse(token.trim())?;
    let ca = CertificateDer::from_pem_file(&plan.ca_file).context("cannot read the CA")?;
    let begin = Instant::now();
    let mut hosts = Vec::with_capacity(plan.agents);
    for number in 0..plan.agents {
        hosts.push(connect::enroll(&token, &ca, number).await?);
    }
    let enrolled_secs = begin.elapsed().as_secs_f64();

    let start = Arc::new(Barrier::new(plan.agents + 1));
    let sending = Duration::from_secs(plan.seconds);
    let (batch, in_flight) = (plan.batch, plan.in_flight);
    let tasks: Vec<_> = hosts
        .into_iter()
        .enumerate()
        .map(|(number, host)| {
            let start = Arc::clone(&start);
            tokio::spawn(send(host, number, start, sending, batch, in_flight))
        })
        .collect();
    start.wait().await;
    let before = plan.server_pid.map(server::Usage::of).transpose()?;
    let begin = Instant::now();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let after = plan.server_pid.map(server::Usage::of).transpose()?;
    Ok(report(
        plan,
        enrolled_secs,
        elapsed,
        latencies,
        before.zip(after),
    ))
}

/// One host: batches out, acknowledgements in, until the time is over and
/// everything is acknowledged. Returns how long each batch took.
async fn send(
    host: connect::Host,
    number: usize,
    start: Arc<Barrier>,
    sending: Duration,
    batch: usize,
    in_flight: usize,
) -> anyhow::Result<Vec<Duration>> {
    let (outgoing, receiver) = mpsc::channel(in_flight + 2);
    let mut client = connect::fleet_client(&host).await?;
    outgoing.send(findings::hello(number)).await?;
    let answers = client.connect(ReceiverStream::new(receiver)).await?;
    let mut answers = answers.into_inner();
    start.wait().await;

    let begin = Instant::now();
    let mut waiting = std::collections::VecDeque::new();
    let mut latencies = Vec::new();
    let mut sequence = 0;
    loop {
        while waiting.len() < in_flight && begin.elapsed() < sending {
            let message = findings::batch(number, sequence, batch);
            sequence += batch as u64;
            outgoing.send(message).await.context("the stream broke")?;
            waiting.push_back((sequence, Instant::now()));
        }
        if waiting.is_empty() {
            return Ok(latencies);
        }
        let Some(answer) = answers.next().await else {
            bail!("the collector ended the stream")
        };
        if let Some(v1::connect_response::Message::Ack(ack)) = answer?.message {
            while waiting
                .front()
                .is_some_and(|(last, _)| *last <= ack.sequence)
            {
                latencies.extend(waiting.pop_front().map(|(_, sent)| sent.elapsed()));
            }
        }
    }
}

fn report(
    plan: &Plan,
    enrolled_secs: f64,
    elapsed: f64,
    mut latencies: Vec<Duration>,
    server: Option<(server::Usage, server::Usage)>,
) -> Value {
    latencies.sort_unstable();
    let findings = latencies.len() * plan.batch;
    let percentile = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        let latency = latencies.get(place.min(latencies.len().saturating_sub(1)));
        latency.map(|latency| latency.as_secs_f64() * 1000.0)
    };
    json!({
        "mode": "ingest",
        "agents": plan.agents,
        "batch": plan.batch,
        "in_flight": plan.in_flight,
        "enroll_secs": enrolled_secs,
        "seconds": elapsed,
        "findings": findings,
        "findings_per_sec": (findings as f64 / elapsed).round(),
        "ack_p50_ms": percentile(0.5),
        "ack_p99_ms": percentile(0.99),
        "server_cpu_secs": server.as_ref().map(|(before, after)| after.cpu_secs - before.cpu_secs),
        "server_rss_bytes": server.as_ref().map(|(_, after)| after.rss_bytes),
    })
}
