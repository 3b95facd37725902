//! The agent, measured from outside: figures of its own, and its memory as
//! the kernel counts it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use procwarden_tests::binaries::binary;
use serde_json::{Value, json};

/// What one run of the agent showed.
pub(crate) struct Run {
    /// One object per scan: the output of `--stats`.
    scans: Vec<Value>,
    /// Between the last two scans.
    pub(crate) memory: Memory,
}

/// Resident memory, as the kernel counts it.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) now_kb: u64,
    pub(crate) max_kb: u64,
    /// Without the pages of files, which belong to everybody.
    pub(crate) anonymous_kb: u64,
}

/// Lets the agent scan `scans` times, one second apart.
///
/// # Errors
/// When it does not run or prints something else.
pub(crate) fn run(rules: &Path, scans: usize) -> anyhow::Result<Run> {
    let mut child = Command::new(binary("procwarden-agent"))
        .args(["scan", "--json", "--stats", "--interval", "1"])
        .args([
            "--min-age",
            "0",
            "--repeat",
            &scans.to_string(),
            "--pignore",
        ])
        .arg(rules)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let stderr = child.stderr.take().context("no standard error")?;
    let (mut seen, mut memory) = (Vec::new(), Memory::default());
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        let Ok(stats) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        seen.push(stats);
        if seen.len() < scans {
            memory = resident(&std::fs::read_to_string(&status)?)?;
        }
    }
    child.wait()?;
    // One more where something on this machine had to be confirmed.
    anyhow::ensure!(
        seen.len() >= scans,
        "the agent scanned {} times",
        seen.len()
    );
    Ok(Run {
        scans: seen,
        memory,
    })
}

/// `VmRSS`, `VmHWM` and `RssAnon` of a status file.
fn resident(status: &str) -> anyhow::Result<Memory> {
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no {name}"))
    };
    Ok(Memory {
        now_kb: field("VmRSS:")?,
        max_kb: field("VmHWM:")?,
        anonymous_kb: field("RssAnon:")?,
    })
}

impl Run {
    /// The first scan, per process.
    pub(crate) fn first(&self, way: &str) -> anyhow::Result<Value> {
        let first = self.scans.first().context("no scan")?;
        Ok(row(
            way,
            first,
            number(first, "wall_us"),
            number(first, "cpu_us"),
        ))
    }

    /// The median of the scans in the second half, per process.
    pub(crate) fn steady(&self, way: &str) -> anyhow::Result<Value> {
        let last = self.scans.last().context("no scan")?;
        let wall = self.median("wall_us").context("no steady scan")?;
        let cpu = self.median("cpu_us").context("no steady scan")?;
        Ok(row(way, last, wall, cpu))
    }

    /// CPU time of a steady scan.
    pub(crate) fn steady_cpu_us(&self) -> Option<f64> {
        self.median("cpu_us")
    }

    fn median(&self, field: &str) -> Option<f64> {
        let half = self.scans.get(self.scans.len() / 2..)?;
        let mut values: Vec<f64> = half.iter().map(|scan| number(scan, field)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

fn row(way: &str, scan: &Value, wall_us: f64, cpu_us: f64) -> Value {
    let processes = number(scan, "processes").max(1.0);
    let each = |micros: f64| (micros / processes * 100.0).round() / 100.0;
    json!({
        "way": way,
        "processes": processes,
        "wall_us_per_process": each(wall_us),
        "cpu_us_per_process": each(cpu_us),
        "syscalls_skipped": scan["syscalls_skipped"],
        "read_errors": scan["read_errors"],
    })
}

fn number(scan: &Value, field: &str) -> f64 {
    scan[field].as_f64().unwrap_or(0.0)
}
