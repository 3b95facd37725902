//! What the agent in use holds in memory, one JSON object per size of the
//! machine: `cargo bench -p procwarden-tests --bench resident`.
//!
//! The real agent, enrolled, with TLS, spool and events, runs 500 rules that
//! the collector sent, beside 1,000 and 10,000 processes. It is read after a
//! minute in which nothing happens.

use std::time::{Duration, Instant};

use anyhow::ensure;
use procwarden_tests::herd::Herd;
use procwarden_tests::unit::{Unit, rules};
use procwarden_tests::usage::{Usage, load_average};
use serde_json::{Value, json};

/// Processes, and the megabytes that are asked for.
const HERDS: [(usize, f64); 2] = [(1000, 10.0), (10_000, 20.0)];
const DESCRIPTORS: usize = 10;
const RULES: usize = 500;

/// Scans are frequent, so that the agent has walked all descriptors by then,
/// of 250 processes in each. A loaded machine has fewer.
const SETTINGS: &str = "[scan]\ninterval_secs = 1\n";
const SCANS_MIN: u64 = 3;
/// How long nothing happens.
const QUIET: Duration = Duration::from_secs(60);
/// Asking for the status starts a process, which the agent looks at.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for the scans.
const SCANS_MAX: Duration = Duration::from_secs(900);

fn main() -> anyhow::Result<()> {
    for (count, asked_mb) in HERDS {
        print(&measure(count, asked_mb)?);
    }
    Ok(())
}

fn measure(count: usize, asked_mb: f64) -> anyhow::Result<Value> {
    let load_before = load_average();
    let herd = Herd::start(count, DESCRIPTORS, 0)?;
    let unit = Unit::start(&rules(RULES), SETTINGS)?;
    let status = rest(&unit)?;
    let usage = Usage::of(unit.pid())?;
    drop(herd);
    Ok(json!({
        "herd": count,
        "processes": status["processes"],
        "rules": RULES,
        "rss_mb": mb(usage.rss_bytes),
        "asked_mb": asked_mb,
        "rss_kib": usage.rss_bytes / 1024,
        "anonymous_kib": usage.rss_anonymous_bytes / 1024,
        "file_kib": usage.rss_file_bytes / 1024,
        "peak_kib": usage.rss_peak_bytes / 1024,
        "peak_mb": mb(usage.rss_peak_bytes),
        "scans": status["scans"],
        "events_on": status["events_on"],
        "connected": status["connected"],
        "load_before": load_before,
        "load_after": load_average(),
    }))
}

/// Its status after the quiet.
fn rest(unit: &Unit) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        std::thread::sleep(PAUSE);
        let status = unit.status().map_err(anyhow::Error::msg)?;
        if began.elapsed() >= QUIET && status["scans"].as_u64() >= Some(SCANS_MIN) {
            return Ok(status);
        }
        ensure!(began.elapsed() < SCANS_MAX, "too few scans: {status}");
    }
}

/// Decimal, as the target is.
fn mb(bytes: u64) -> f64 {
    (bytes as f64 / 1e4).round() / 100.0
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn print(line: &Value) {
    println!("{line}");
}
