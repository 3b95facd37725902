//! How long `policy preview` takes: a real collector whose history holds
//! 100,000 findings, and a candidate of 500 rules. Prints one JSON object.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use procwarden_tests::collector::Collector;
use procwarden_tests::load::{Ingest, Plan, Where, ingest};
use serde_json::{Value, json};

const FINDINGS: u64 = 100_000;
const RULES: usize = 500;
const AGENTS: usize = 8;
const RUNS: usize = 5;

fn main() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new()
        .prefix("procwarden-bench-")
        .tempdir()?;
    let mut collector = Collector::init(directory.path(), None);
    collector.start();
    while stored(&collector)? < FINDINGS {
        fill(&collector, directory.path())?;
    }
    let candidate = directory.path().join("candidate.pignore");
    std::fs::write(&candidate, rules())?;
    let candidate = candidate.display().to_string();

    let mut seconds = Vec::new();
    let mut summary = Value::Null;
    for _ in 0..RUNS {
        let begin = Instant::now();
        let said = collector.json(&["policy", "preview", "default", &candidate]);
        seconds.push(begin.elapsed().as_secs_f64());
        let said = said.map_err(anyhow::Error::msg)?;
        summary = said.last().cloned().unwrap_or_default();
    }
    seconds.sort_by(f64::total_cmp);
    let report = json!({
        "rules": RULES,
        "findings": summary["findings"],
        "hidden": summary["hidden"],
        "seconds_best": seconds.first(),
        "seconds_median": seconds.get(RUNS / 2),
        "seconds_worst": seconds.last(),
    });
    #[expect(clippy::print_stdout, reason = "the report is the program's output")]
    {
        println!("{report}");
    }
    Ok(())
}

fn stored(collector: &Collector) -> anyhow::Result<u64> {
    let status = collector.json(&["status"]).map_err(anyhow::Error::msg)?;
    let findings = status.first().map(|status| &status["findings"]);
    findings
        .and_then(Value::as_u64)
        .context("the status names no number of findings")
}

fn fill(collector: &Collector, directory: &Path) -> anyhow::Result<()> {
    let token_file = directory.join("token");
    std::fs::write(
        &token_file,
        collector.token(&["--uses", &AGENTS.to_string()]),
    )?;
    let plan = Plan {
        agents: AGENTS,
        target: Where::Given {
            token_file,
            ca_file: collector.data_dir().join("ca/ca.pem"),
            pid: None,
        },
        floor: false,
    };
    let how = Ingest {
        batch: 100,
        in_flight: 4,
        rate: None,
        seconds: 1,
    };
    tokio::runtime::Runtime::new()?.block_on(ingest(&plan, how))?;
    Ok(())
}

/// Exact rules and patterns in equal parts; some cover what is stored.
fn rules() -> String {
    let rule = |n: usize| match n % 4 {
        0 => format!("exe:/dev/shm/.cache-{n}/dbus\n"),
        1 => format!("pexe:/dev/shm/\\.cache-{n}\\d/.*\n"),
        2 => format!("puser:customer{n}(-old)?\n"),
        _ => format!("pcmd:/usr/sbin/httpd -k (stop|graceful) {n}.*\n"),
    };
    (0..RULES).map(rule).collect()
}
