//! What a scan costs: 3,000 processes with 10 descriptors each, looked at in
//! every way side by side, then the agent's memory at 1,000, 3,000 and 10,000
//! processes with 500 rules. Prints one JSON object per line.
//!
//! The ways are the floors (list, stat, stat + status + cmdline + exe, all
//! descriptors), the plain API of the procfs crate, and the agent's own first
//! and steady scans as `procwarden-agent scan --stats` reports them. Floors
//! look at the herd alone; the agent looks at the whole machine, and its
//! figures are per process that it listed.

use std::time::Duration;

use anyhow::Context;
use procwarden_tests::herd::Herd;
use serde_json::{Value, json};

#[path = "scan/agent.rs"]
mod agent;
#[path = "scan/floors.rs"]
mod floors;

/// Sizes of the herd, in the order in which it grows.
const HERDS: [usize; 3] = [1000, 3000, 10_000];
/// The size at which times are measured.
const TIMED: usize = 3000;
const DESCRIPTORS: usize = 10;
/// Scans of the agent in one run; the first is none of the steady ones.
const SCANS: usize = 25;
/// Seconds between two scans of an agent in use.
const INTERVAL: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let rules = directory.path().join("rules.pignore");
    std::fs::write(&rules, agent::rules(500))?;
    for count in HERDS {
        let herd = Herd::start(count, DESCRIPTORS, 0)?;
        if count == TIMED {
            for floor in floors::measure(&herd.pids())? {
                print(&floor);
            }
        }
        let run = agent::run(&rules, SCANS)?;
        if count == TIMED {
            print(&run.first("agent: first scan")?);
            let steady = run.steady("agent: steady state")?;
            print(&steady);
            print(&idle(&run)?);
        }
        print(&json!({
            "way": "agent: resident memory",
            "herd": count,
            "rules": 500,
            "rss_kb": run.rss_kb,
            "rss_kb_max": run.rss_kb_max,
        }));
    }
    let herd = Herd::start(TIMED, DESCRIPTORS, 1)?;
    let run = agent::run(&rules, SCANS)?;
    print(&run.first("agent: first scan, a listener in each process")?);
    print(&run.steady("agent: steady state, a listener in each process")?);
    drop(herd);
    Ok(())
}

/// The share of a core that a scan per interval takes.
fn idle(run: &agent::Run) -> anyhow::Result<Value> {
    let cpu_us = run.steady_cpu_us().context("there was no steady scan")?;
    let share = cpu_us / INTERVAL.as_micros() as f64;
    Ok(json!({
        "way": "agent: idle, a scan every 60 s",
        "percent_of_a_core": (share * 1e6).round() / 1e4,
    }))
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn print(line: &Value) {
    println!("{line}");
}
