//! How fast a spool drains after an outage, with real binaries, one JSON
//! object: `cargo bench -p procwarden-tests --bench drain`.
//!
//! The collector is down, the agent starts with a spool of 30,000 findings of
//! realistic size and cannot connect; then the collector comes back. The rate
//! counts from the first acknowledgement that the agent kept to the last.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use procwarden_tests::agent::Agent;
use procwarden_tests::collector::Collector;
use procwarden_tests::spool;
use procwarden_tests::wait::eventually;
use serde_json::{Value, json};

/// What waits: 1.5 KB each, so that they fit into a spool of 64 MiB.
const FINDINGS: u64 = 30_000;

/// How often the acknowledgements are read.
const TICK: Duration = Duration::from_millis(2);
/// Longest outage and drain.
const DRAIN_MAX: Duration = Duration::from_secs(300);

fn main() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new()
        .prefix("procwarden-bench-")
        .tempdir()?;
    let mut collector = Collector::init(directory.path(), None);
    collector.start();
    let mut agent = Agent::enrolled(directory.path(), &collector.token(&[]));
    ensure!(collector.stop().success(), "the collector did not stop");
    let spool = spool::of(&agent.state_dir());
    let bytes = spool::fill(&spool, FINDINGS)?;
    agent.start();
    eventually("an agent that cannot connect", || {
        let status = status(&agent)?;
        let waits = status["spool_events"].as_u64() >= Some(FINDINGS);
        waits.then_some(()).ok_or_else(|| status.to_string())
    });

    let began = Instant::now();
    collector.start();
    let wait_until = |sequence: u64| -> anyhow::Result<(u64, Instant)> {
        loop {
            let acked = spool::acked(&spool)?;
            if acked >= sequence {
                return Ok((acked, Instant::now()));
            }
            ensure!(began.elapsed() < DRAIN_MAX, "only {acked} in 300 s");
            std::thread::sleep(TICK);
        }
    };
    let (first, first_at) = wait_until(1)?;
    let (_, last_at) = wait_until(FINDINGS)?;
    let secs = (last_at - first_at).as_secs_f64();
    let stored = collector.json(&["status"]).map_err(anyhow::Error::msg)?;
    let stored = stored.first().context("no status")?["findings"].as_u64();
    ensure!(stored >= Some(FINDINGS), "only {stored:?} were stored");
    let status = status(&agent).map_err(anyhow::Error::msg)?;
    let report = json!({
        "findings": FINDINGS,
        "bytes": bytes,
        "until_first_ack_secs": (first_at - began).as_secs_f64(),
        "drain_secs": secs,
        "findings_per_sec": ((FINDINGS - first) as f64 / secs).round(),
        "agent_status": status,
    });
    #[expect(clippy::print_stdout, reason = "the report is the program's output")]
    {
        println!("{report}");
    }
    Ok(())
}

fn status(agent: &Agent) -> Result<Value, String> {
    let mut command = agent.command("status");
    let output = command.arg("--json").output().map_err(|e| e.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}
