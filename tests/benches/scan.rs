//! What a scan costs: processes with 10 descriptors each, 3,000 of them looked
//! at in every way side by side, and the agent's time and memory at 1,000,
//! 3,000 and 10,000 of them with 500 rules. Prints one JSON object per line.
//!
//! The ways are the floors (list, stat, stat + status + cmdline + exe, all
//! descriptors), the plain API of the procfs crate, and the agent's own first
//! and steady scans as `procwarden-agent scan --stats` reports them. Floors
//! look at the herd alone; the agent looks at the whole machine, and its
//! figures are per process that it listed.

use std::time::Duration;

use anyhow::Context;
use procwarden_tests::herd::Herd;
use procwarden_tests::unit::rules;
use serde_json::{Value, json};

#[path = "scan/agent.rs"]
mod agent;
#[path = "scan/floors.rs"]
mod floors;

/// Sizes of the herd, in the order in which it grows.
const HERDS: [usize; 3] = [1000, 3000, 10_000];
/// The size at which floors, and a herd of listeners, are measured.
const TIMED: usize = 3000;
const DESCRIPTORS: usize = 10;
const RULES: usize = 500;
/// Seconds between two scans of an agent in use.
const INTERVAL: Duration = Duration::from_secs(60);
/// In use, what an agent knows is older than the time between two scans; it
/// looks at younger processes of root twice.
const SETTLING: Duration = Duration::from_secs(61);

fn main() -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), rules(RULES))?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    print(&json!({"way": "machine", "loadavg": load.trim()}));
    for count in HERDS {
        let herd = Herd::start(count, DESCRIPTORS, 0)?;
        std::thread::sleep(SETTLING);
        if count == TIMED {
            for floor in floors::measure(&herd.pids())? {
                print(&floor);
            }
        }
        let run = agent::run(file.path(), scans(count))?;
        print_both(&run, "")?;
        print(&idle(&run)?);
        print(&json!({
            "way": "agent: resident memory",
            "herd": count,
            "rules": RULES,
            "rss_kb": run.memory.now_kb,
            "rss_kb_max": run.memory.max_kb,
            "anonymous_kb": run.memory.anonymous_kb,
        }));
    }
    let _herd = Herd::start(TIMED, DESCRIPTORS, 1)?;
    std::thread::sleep(SETTLING);
    let run = agent::run(file.path(), scans(TIMED))?;
    print_both(&run, ", a listener in each process")?;
    Ok(())
}

/// Scans of the agent in one run. Those of the first half are no steady ones:
/// the agent walks the descriptors of 250 processes per scan until it has seen
/// all of them, which takes it 32 scans at most.
fn scans(count: usize) -> usize {
    2 * ((count / 250).min(32) + 4)
}

fn print_both(run: &agent::Run, what: &str) -> anyhow::Result<()> {
    print(&run.first(&format!("agent: first scan{what}"))?);
    print(&run.steady(&format!("agent: steady state{what}"))?);
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
