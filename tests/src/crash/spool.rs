//! Power cuts under an agent: what its spool had said was durable arrives, once,
//! and what was running is found again.
//!
//! Every round the collector is away, so that findings wait in the spool of a
//! real agent, whose state directory lies on the disk that is cut. Some of the
//! processes end before the cut: only the spool knows of them. Others start
//! just before it, so that it falls into writes. Then agent and collector come
//! back, and the collector is asked.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::disk::{Disk, SMALL_BYTES};
use super::{DARK_MS, Plan, wait_for};
use crate::agent::Agent;
use crate::collector::{Collector, text};
use crate::payload::{Payload, Running, volatile_directory};

/// What is older than nothing is looked at every second.
const SETTINGS: &str = "[scan]\nmin_age_secs = 0\ninterval_secs = 1\n";

/// Processes whose findings are durable before the cut, at most, and processes
/// that start just before it.
const DURABLE_MAX: usize = 6;
const LATE_MAX: usize = 4;

/// Longest time between the last start and the cut; scans come every second.
const LATE_MS: u64 = 1_500;

/// What came of it.
#[derive(Default)]
struct Tally {
    acked: u64,
    checked: u64,
    lost: u64,
    doubled: u64,
    left_open: u64,
}

/// Runs the rounds of a plan and reports what was lost, doubled or never said
/// to have ended.
///
/// # Errors
/// When agent or collector do not come back.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let mut host = Host::begin(plan)?;
    let mut tally = Tally::default();
    for round in 0..plan.rounds {
        let done = host.round(&mut tally);
        done.with_context(|| format!("in round {round}\n{}", host.agent.log()))?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(json!({
        "mode": plan.mode.word(),
        "rounds": plan.rounds,
        "acked": tally.acked,
        "checked": tally.checked,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "left_open": tally.left_open,
        "seconds": seconds,
        "seconds_per_round": seconds / plan.rounds.max(1) as f64,
    }))
}

/// One agent, its disk, and the collector of its fleet.
struct Host {
    agent: Agent,
    collector: Collector,
    disk: Disk,
    payload: Payload,
    _payloads: tempfile::TempDir,
    /// The files of both; the last one to go.
    _directory: tempfile::TempDir,
}

impl Host {
    fn begin(plan: &Plan) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procwarden-crash-")
            .tempdir_in(&plan.directory)?;
        let mut collector = Collector::init(directory.path(), None);
        collector.start();
        let settings = directory.path().join("settings.toml");
        std::fs::write(&settings, SETTINGS)?;
        let settings = settings.display().to_string();
        let set = ["policy", "set", "default", &settings, "--comment", "crash"];
        let _published = collector.told(&set);
        // Its configuration and its log stay beside the disk.
        let host = directory.path().join("host");
        std::fs::create_dir(&host)?;
        let disk = Disk::create(directory.path(), &host.join("agent"), SMALL_BYTES)?;
        let mut agent = Agent::enrolled(&host, &collector.token(&[]));
        agent.start();
        wait_for("the policy to be applied", || {
            let status = collector.operator(&["policy", "status", "default"]);
            status.status.success()
        })?;
        let payloads = volatile_directory()?;
        Ok(Self {
            agent,
            collector,
            disk,
            payload: Payload::at(&payloads.path().join("payload")),
            _payloads: payloads,
            _directory: directory,
        })
    }

    fn round(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        wait_for("an empty spool", || self.spooled() == Some(0))?;
        self.collector.kill();
        let mut durable = self.start(fastrand::usize(1..=DURABLE_MAX));
        let wanted = durable.len() as u64;
        wait_for("the findings to be durable", || {
            self.spooled().is_some_and(|events| events >= wanted)
        })?;
        tally.acked += wanted;
        let stays = fastrand::usize(..=durable.len());
        let ended = pids(&durable.split_off(stays));
        let late = self.start(fastrand::usize(..=LATE_MAX));
        std::thread::sleep(Duration::from_millis(fastrand::u64(..=LATE_MS)));

        self.disk.cut()?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(..=DARK_MS)));
        self.agent.kill();
        self.disk.revive()?;
        self.collector.start();
        self.agent.start();
        let alive = [pids(&durable), pids(&late)].concat();
        self.check(&alive, "open", tally);
        self.check(&ended, "ended", tally);
        drop((durable, late));
        self.check(&alive, "ended", tally);
        Ok(())
    }

    fn start(&self, count: usize) -> Vec<Running> {
        (0..count).map(|_| self.payload.start()).collect()
    }

    /// Waits until each process has one finding in this state, and counts
    /// those that have not.
    fn check(&self, pids: &[u32], state: &str, tally: &mut Tally) {
        let mut seen = Vec::new();
        let _late = wait_for("the findings", || {
            seen = self.states();
            pids.iter().all(|pid| states_of(&seen, *pid) == [state])
        });
        for pid in pids {
            let states = states_of(&seen, *pid);
            tally.checked += 1;
            tally.lost += u64::from(states.is_empty());
            tally.doubled += (states.len() as u64).saturating_sub(1);
            tally.left_open += u64::from(states.iter().any(|seen| *seen != state));
        }
    }

    /// Every finding's process and state; none while the collector starts.
    fn states(&self) -> Vec<(u64, String)> {
        let list = ["findings", "list", "--limit", "100000"];
        let findings = self.collector.json(&list).unwrap_or_default();
        let state = |finding: &Value| {
            let state = finding["state"].as_str()?.to_owned();
            Some((finding["pid"].as_u64()?, state))
        };
        findings.iter().filter_map(state).collect()
    }

    /// Events in the spool, as the agent says them.
    fn spooled(&self) -> Option<u64> {
        let output = self.agent.command("status").arg("--json").output().ok()?;
        let status: Value = serde_json::from_str(&text(&output.stdout)).ok()?;
        status["spool_events"].as_u64()
    }
}

fn states_of(seen: &[(u64, String)], pid: u32) -> Vec<&str> {
    let of = seen.iter().filter(|(of, _)| *of == u64::from(pid));
    of.map(|(_, state)| state.as_str()).collect()
}

fn pids(running: &[Running]) -> Vec<u32> {
    running.iter().map(Running::pid).collect()
}
