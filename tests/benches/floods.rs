//! What an account can do to the agent, with real binaries, one JSON object
//! each; as root only, for it takes several accounts.
//!
//! `cargo bench -p procwarden-tests --bench floods -- arguments`: 200 processes
//! per second with 32 KiB of arguments each.
//! `cargo bench -p procwarden-tests --bench floods -- evidence`: 1,200 findings
//! at once whose evidence is dear, with the quota that the unit sets.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use procwarden_tests::payload::is_root;
use procwarden_tests::unit::Unit;
use procwarden_tests::usage::Usage;
use serde_json::Value;

#[path = "floods/arguments.rs"]
mod arguments;
#[path = "floods/evidence.rs"]
mod evidence;

/// Rules of the policy, so that commands are judged by something.
const RULES: usize = 500;
/// A name that no program has a reason to wear.
const DISGUISE: &str = "[kworker/0:1]";
/// How often memory is looked at.
const SAMPLE_PAUSE: Duration = Duration::from_millis(200);

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let mode = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    ensure!(is_root(), "only root can start processes of other accounts");
    let report = match mode.as_deref() {
        Some("arguments") => arguments::measure()?,
        Some("evidence") => evidence::measure()?,
        _ => bail!("say what to measure: `-- arguments` or `-- evidence`"),
    };
    #[expect(clippy::print_stdout, reason = "the report is the program's output")]
    {
        println!("{report}");
    }
    Ok(())
}

/// What the agent uses from here on.
struct Meter {
    pid: u32,
    began: Instant,
    before: Usage,
    sampled_at: Instant,
    rss_max: u64,
}

impl Meter {
    fn start(unit: &Unit) -> anyhow::Result<Self> {
        let (now, before) = (Instant::now(), Usage::of(unit.pid())?);
        Ok(Self {
            pid: unit.pid(),
            began: now,
            before,
            sampled_at: now,
            rss_max: before.rss_bytes,
        })
    }

    /// Looks at the memory, when it is time again.
    fn sample(&mut self) -> anyhow::Result<()> {
        if self.sampled_at.elapsed() >= SAMPLE_PAUSE {
            self.sampled_at = Instant::now();
            self.rss_max = self.rss_max.max(Usage::of(self.pid)?.rss_bytes);
        }
        Ok(())
    }

    fn secs(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Shares and memory until now, put into a report.
    fn add_to(&self, report: &mut Value) -> anyhow::Result<()> {
        let usage = Usage::of(self.pid)?;
        let percent = (usage.cpu_secs - self.before.cpu_secs) / self.secs() * 100.0;
        report["seconds"] = self.secs().into();
        report["agent_cpu_percent"] = percent.into();
        report["ceiling_percent"] = procwarden_tests::unit::CPU_PERCENT.into();
        report["rss_kib_before"] = (self.before.rss_bytes / 1024).into();
        report["rss_kib_sampled_max"] = (self.rss_max / 1024).into();
        report["peak_kib"] = (usage.rss_peak_bytes / 1024).into();
        Ok(())
    }
}
