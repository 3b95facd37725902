//! A collector and one enrolled agent that runs as the shipped unit has it:
//! its environment, and its default share of a processor.

use std::path::Path;

use serde_json::Value;

use crate::agent::Agent;
use crate::child::Guarded;
use crate::collector::{Collector, text};
use crate::quota::Quota;
use crate::wait::eventually;

/// `CPUQuota=` of the unit, which is the default of `[limits] cpu` too.
pub const CPU_PERCENT: u64 = 10;

const UNIT: &str = include_str!("../../deploy/systemd/procwarden-agent.service");

/// The variables that the unit sets.
fn environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = UNIT.lines();
    let all = lines.filter_map(|line| line.strip_prefix("Environment="));
    all.flat_map(str::split_whitespace)
        .filter_map(|variable| variable.split_once('='))
}

/// A running agent with its collector; both end with the value.
pub struct Unit {
    // In the order in which they have to go.
    child: Guarded,
    quota: Option<Quota>,
    agent: Agent,
    /// The collector.
    pub collector: Collector,
    _directory: tempfile::TempDir,
}

impl Unit {
    /// Starts both, and waits until the agent runs the policy and has scanned.
    ///
    /// # Errors
    /// When a file cannot be written.
    ///
    /// # Panics
    /// When a program does not do its part.
    pub fn start(rules: &str, settings: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procwarden-bench-")
            .tempdir()?;
        let mut collector = Collector::init(directory.path(), None);
        collector.start();
        let agent = Agent::enrolled(directory.path(), &collector.token(&[]));
        publish(directory.path(), &collector, rules, settings)?;
        let mut run = agent.command("run");
        run.envs(environment());
        let unit = Self {
            child: Guarded::start(&mut run, &directory.path().join("agent.log")),
            quota: None,
            agent,
            collector,
            _directory: directory,
        };
        eventually("the policy to be applied, and a scan", || {
            let output = unit.collector.operator(&["policy", "status", "default"]);
            if output.status.success() && unit.status()?["scans"].as_u64() > Some(0) {
                return Ok(());
            }
            Err(format!("{}\n{}", text(&output.stdout), unit.child.log()))
        });
        Ok(unit)
    }

    /// Has the kernel hold the agent to its share as well, where that can be,
    /// and says by which means.
    pub fn hold_to_share(&mut self) -> &'static str {
        self.quota = Quota::hold(self.pid(), CPU_PERCENT);
        self.quota.as_ref().map_or("none", Quota::kind)
    }

    /// The agent's PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What the agent says of itself.
    ///
    /// # Errors
    /// When it has written no status yet.
    pub fn status(&self) -> Result<Value, String> {
        self.agent.status()
    }
}

fn publish(
    directory: &Path,
    collector: &Collector,
    rules: &str,
    settings: &str,
) -> anyhow::Result<()> {
    let file = |name: &str, content: &str| -> anyhow::Result<String> {
        let path = directory.join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let rules = file("rules.pignore", rules)?;
    let settings = file("settings.toml", settings)?;
    let files = [&rules, "--settings", &settings];
    let set = ["policy", "set", "default", "--comment", "to measure"];
    let _published = collector.told(&[&set[..], &files].concat());
    Ok(())
}

/// Rules as a policy of a fleet has them: exact paths, patterns, command
/// lines and accounts. None covers a process that a benchmark starts.
#[must_use]
pub fn rules(count: usize) -> String {
    let rule = |number: usize| match number % 4 {
        0 => format!("exe:/opt/vendor{number}/bin/daemon"),
        1 => format!("pexe:/opt/app{number}/releases/[0-9]+/bin/.*"),
        2 => format!("pcmd:/usr/bin/tool{number} --serve .*"),
        _ => format!("user:account{number}"),
    };
    let rules: Vec<String> = (0..count).map(rule).collect();
    rules.join("\n") + "\n"
}
