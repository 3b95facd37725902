//! What events bring and cost, with real binaries, one JSON object each:
//!
//! `cargo bench -p procwarden-tests --bench events -- latency`: from execve(2)
//! of a program in /dev/shm to its finding on the collector, 100 times.
//! `cargo bench -p procwarden-tests --bench events -- flood`: 10,000 programs
//! per second are started for 30 s; the agent's share of a processor, what it
//! passed over, and whether it found all that outlived it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use procwarden_tests::cc::compile;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, Running, volatile_directory};
use procwarden_tests::usage::Usage;
use procwarden_tests::wait::eventually;
use procwarden_tests::watch::Watch;
use serde_json::{Value, json};

/// Everything counts from its first moment, and scans are rare: what is found
/// in time, events found.
const SETTINGS: &str = "[scan]\nmin_age_secs = 0\ninterval_secs = 60\n";

/// Starts whose way to the collector is measured.
const STARTS: usize = 100;
/// Longest wait for one of them.
const ONE_START_MAX: Duration = Duration::from_secs(30);

/// How long the flood lasts, and how many programs in it stay.
const FLOOD: Duration = Duration::from_secs(30);
const SURVIVORS: usize = 20;
/// Starts programs and waits for their ends.
const SPAWNER: &str = include_str!("events/spawner.c");
/// What it starts: without any library, an exec costs a tenth.
const ENDS: &str = include_str!("events/ends.c");
/// Programs to start per second.
const EXECS_PER_SEC: usize = 10_000;

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let mode = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let report = match mode.as_deref() {
        Some("latency") => latency()?,
        Some("flood") => flood()?,
        _ => bail!("say what to measure: `-- latency` or `-- flood`"),
    };
    #[expect(clippy::print_stdout, reason = "the report is the program's output")]
    {
        println!("{report}");
    }
    Ok(())
}

fn latency() -> anyhow::Result<Value> {
    let fleet = start()?;
    let directory = volatile_directory()?;
    let payload = Payload::at(&directory.path().join("x"));
    let watch = Watch::start(&fleet.collector, Some("exe-in-volatile-dir"))?;
    let mut millis = Vec::new();
    for number in 0..STARTS {
        let began = Instant::now();
        let running = payload.start();
        millis.push(wait_for(&watch, running.pid(), began)?);
        drop(running);
        // Not in step with anything that happens at intervals.
        std::thread::sleep(Duration::from_millis(37 * (number as u64 % 11)));
    }
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis.get((STARTS * percent).div_ceil(100) - 1);
    Ok(json!({
        "starts": STARTS,
        "p50_ms": at(50),
        "p90_ms": at(90),
        "p99_ms": at(99),
        "max_ms": millis.last(),
    }))
}

/// A fleet whose agent has scanned once and gets events.
fn start() -> anyhow::Result<Fleet> {
    let fleet = Fleet::start_with(SETTINGS)?;
    fleet.wait_until_applied();
    eventually("the first scan and events", || {
        let status = fleet.agent.status()?;
        if status["events_on"] == true && status["scans"].as_u64() > Some(0) {
            return Ok(());
        }
        Err(status.to_string())
    });
    Ok(fleet)
}

fn wait_for(watch: &Watch, pid: u32, began: Instant) -> anyhow::Result<f64> {
    loop {
        let (finding, at) = watch.next(ONE_START_MAX).context("no finding came")?;
        if finding["pid"] == pid {
            return Ok((at - began).as_secs_f64() * 1000.0);
        }
    }
}

fn flood() -> anyhow::Result<Value> {
    let fleet = start()?;
    let directory = volatile_directory()?;
    let spawner = directory.path().join("spawner");
    compile(&spawner, SPAWNER, &["-O2"])?;
    let ends = directory.path().join("ends");
    compile(&ends, ENDS, &["-O2", "-static", "-nostdlib"])?;
    let payload = Payload::at(&directory.path().join("x")).argv0("[kworker/0:1]");

    let agent = fleet.agent.pid();
    let (before, began) = (Usage::of(agent)?, Instant::now());
    let processors = std::thread::available_parallelism()?.get();
    let mut spawners = Vec::new();
    for _ in 0..processors {
        let mut command = Command::new(&spawner);
        command.arg(FLOOD.as_secs().to_string());
        command
            .arg((EXECS_PER_SEC / processors).to_string())
            .arg(&ends);
        spawners.push(command.stdout(Stdio::piped()).spawn()?);
    }
    let survivors: Vec<Running> = (0..SURVIVORS)
        .map(|_| {
            std::thread::sleep(FLOOD / (SURVIVORS as u32 + 1));
            payload.start()
        })
        .collect();
    let mut execs = 0;
    for spawner in spawners {
        let output = spawner.wait_with_output()?;
        ensure!(output.status.success(), "a spawner failed: {output:?}");
        let count: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
        execs += count;
    }
    let secs = began.elapsed().as_secs_f64();
    let used = Usage::of(agent)?.cpu_secs - before.cpu_secs;
    let found = eventually("the survivors", || {
        let findings = fleet
            .collector
            .json(&["findings", "list", "--limit", "100000"])?;
        let is_found = |s: &&Running| {
            findings
                .iter()
                .any(|f| f["pid"] == s.pid() && f["severity"] == "critical")
        };
        let found = survivors.iter().filter(is_found).count();
        if found == SURVIVORS {
            return Ok(found);
        }
        Err(format!("{found} of {SURVIVORS}"))
    });
    let status = fleet.agent.status().map_err(anyhow::Error::msg)?;
    Ok(json!({
        "seconds": secs,
        "execs_per_s": execs as f64 / secs,
        "agent_cpu_percent": used / secs * 100.0,
        "ceiling_percent": 10,
        "survivors": SURVIVORS,
        "survivors_found": found,
        "events_seen": status["events_seen"],
        "looks": status["looks"],
        "skipped": status["events_skipped"],
        "overflows": status["event_overflows"],
        "scans": status["scans"],
        "rss_bytes": status["rss_bytes"],
    }))
}
