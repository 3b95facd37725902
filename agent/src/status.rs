//! `status.json`, and the command that shows it.
//!
//! The running agent replaces the file after each scan and whenever the link
//! to the collector changes. Whether an agent runs is decided by the lock of
//! the state directory, never by the file, which outlives the agent.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use procwarden_common::clock::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::address::Address;
use crate::files::{self, FileError};
use crate::health::{Board, Health};
use crate::identity::Facts;
use crate::{clock, lock};

const NAME: &str = "status.json";

/// The document. A field that does not apply is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pid: u32,
    version: String,
    started_at: String,
    written_at: String,
    host_id: String,
    fleet_id: String,
    collector: String,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    policies: Vec<StatusPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_refused: Option<String>,
    scans: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_at: Option<String>,
    last_scan_us: u64,
    last_scan_cpu_us: u64,
    scan_interval_s: u64,
    syscalls_skipped: u64,
    processes: u64,
    read_errors: u64,
    reported: u64,
    spool_events: u64,
    spool_bytes: u64,
    spool_dropped: u64,
    events_on: bool,
    events_seen: u64,
    looks: u64,
    events_skipped: u64,
    event_overflows: u64,
    rss_bytes: u64,
    cpu_us: u64,
    cpu_share_ppm: u64,
    cpu_recent_ppm: u64,
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StatusPolicy {
    name: String,
    revision: u64,
}

/// What does not change while the agent runs.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) facts: Facts,
    pub(crate) started_at: UnixMillis,
}

/// The file of a running agent.
#[derive(Debug)]
pub(crate) struct StatusFile {
    state_dir: PathBuf,
    who: Who,
    collector: watch::Receiver<Address>,
    /// Scanner and uplink both write.
    writing: Mutex<()>,
}

impl StatusFile {
    pub(crate) fn new(state_dir: &Path, who: Who, collector: watch::Receiver<Address>) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            who,
            collector,
            writing: Mutex::new(()),
        }
    }

    /// Writes what the board says now. A disk that refuses is told elsewhere:
    /// the status is not worth more than a line for whoever debugs.
    pub(crate) fn write(&self, board: &Board) {
        let collector = self.collector.borrow().clone();
        let health = board.snapshot();
        let status = Status::of(&self.who, &collector, &health, clock::now());
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = status.write(&self.state_dir) {
            tracing::debug!(%error, "The status could not be written.");
        }
    }
}

impl Status {
    /// The document of this moment.
    fn of(who: &Who, collector: &Address, health: &Health, now: UnixMillis) -> Self {
        let policy = &health.policy;
        let named = |p: &procwarden_proto::v1::AppliedPolicy| StatusPolicy {
            name: p.name.clone(),
            revision: p.revision,
        };
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: who.started_at.to_string(),
            written_at: now.to_string(),
            host_id: who.facts.host_id.to_string(),
            fleet_id: who.facts.fleet_id.to_string(),
            collector: collector.to_string(),
            connected: health.link.connected_since.is_some(),
            connected_since: health.link.connected_since.map(|at| at.to_string()),
            last_error: health.link.last_error.clone(),
            policies: policy.applied.iter().map(named).collect(),
            policy_hash: some(HEXLOWER.encode(&policy.applied_hash)),
            policy_refused: some(policy.refused_reason.clone()),
            scans: health.scans,
            last_scan_at: health.last_scan_at.map(|at| at.to_string()),
            last_scan_us: health.last_scan.wall_us,
            last_scan_cpu_us: health.last_scan.cpu_us,
            scan_interval_s: health.scan_interval.as_secs(),
            syscalls_skipped: health.syscalls_skipped,
            processes: health.last_scan.processes,
            read_errors: health.read_errors,
            reported: health.reported,
            spool_events: health.spool.events,
            spool_bytes: health.spool.bytes,
            spool_dropped: health.spool.dropped,
            events_on: health.events.is_on,
            events_seen: health.events.seen,
            looks: health.events.looks,
            events_skipped: health.events.skipped,
            event_overflows: health.events.overflows,
            rss_bytes: health.usage.rss_bytes,
            cpu_us: health.usage.cpu_us,
            cpu_share_ppm: health.usage.cpu_share_ppm,
            cpu_recent_ppm: health.usage.cpu_recent_ppm,
            notes: health.notes(),
        }
    }

    /// Replaces the file.
    fn write(&self, state_dir: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::replace_quickly(&state_dir.join(NAME), &text)
    }

    /// The lines a person reads.
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        self.print_whose(out)?;
        self.print_work(out)?;
        for note in &self.notes {
            writeln!(out, "note       {note}")?;
        }
        Ok(())
    }

    /// Which agent of which host, and what it runs.
    fn print_whose(&self, out: &mut dyn Write) -> io::Result<()> {
        let link = match (&self.connected_since, &self.last_error) {
            (Some(since), _) => format!("connected since {since}"),
            (None, Some(error)) => format!("not connected: {error}"),
            (None, None) => "not connected yet".to_owned(),
        };
        let policies: Vec<String> = self
            .policies
            .iter()
            .map(|p| format!("{} revision {}", p.name, p.revision))
            .collect();
        let policies = if policies.is_empty() {
            "none: nothing is ignored".to_owned()
        } else {
            policies.join(", ")
        };
        let (pid, version, since) = (self.pid, &self.version, &self.started_at);
        writeln!(
            out,
            "agent      pid {pid}, version {version}, since {since}"
        )?;
        let (host, fleet) = (&self.host_id, &self.fleet_id);
        writeln!(out, "host       {host} of fleet {fleet}")?;
        writeln!(out, "collector  {}, {link}", self.collector)?;
        writeln!(out, "policy     {policies}")?;
        if let Some(reason) = &self.policy_refused {
            writeln!(out, "refused    {reason}")?;
        }
        Ok(())
    }

    /// What it did, and what that cost.
    fn print_work(&self, out: &mut dyn Write) -> io::Result<()> {
        let scan = match &self.last_scan_at {
            None => "none yet".to_owned(),
            Some(at) => format!(
                "{at}, {} processes in {} ms ({} ms CPU), next within {} s",
                self.processes,
                self.last_scan_us / 1000,
                self.last_scan_cpu_us / 1000,
                self.scan_interval_s
            ),
        };
        writeln!(
            out,
            "scan       {scan}; {} scans, {} read errors, {} system calls saved",
            self.scans, self.read_errors, self.syscalls_skipped
        )?;
        writeln!(
            out,
            "events     {}; {} seen, {} processes looked at, {} skipped, {} overflows",
            if self.events_on { "on" } else { "off" },
            self.events_seen,
            self.looks,
            self.events_skipped,
            self.event_overflows
        )?;
        writeln!(out, "reported   {} that still run", self.reported)?;
        writeln!(
            out,
            "spool      {} events ({} bytes) wait, {} dropped",
            self.spool_events, self.spool_bytes, self.spool_dropped
        )?;
        writeln!(
            out,
            "uses       {} KiB memory, {} ms CPU: {} of a processor since the start, {} lately",
            self.rss_bytes / 1024,
            self.cpu_us / 1000,
            percent(self.cpu_share_ppm),
            percent(self.cpu_recent_ppm)
        )
    }
}

/// `procwarden-agent status`: 0 when an agent runs, 1 when none does.
pub(crate) fn show(state_dir: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let dir = state_dir.display();
    if !lock::is_held(state_dir)? {
        anyhow::bail!(
            "no agent runs with the state directory {dir}: start it with `procwarden-agent run`"
        );
    }
    let Some(text) = files::read_if_there(&state_dir.join(NAME))? else {
        anyhow::bail!("the agent has only just started: ask again in a moment");
    };
    let status: Status = serde_json::from_slice(&text)
        .with_context(|| format!("cannot read {dir}/{NAME}: is the agent of another version?"))?;
    if json {
        serde_json::to_writer(&mut *out, &status)?;
        writeln!(out)?;
    } else {
        status.print(out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Millionths as a percentage.
fn percent(ppm: u64) -> String {
    format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let facts = Facts {
            host_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            fleet_id: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
            collector: "collector.test:7443".parse().unwrap(),
        };
        let who = Who {
            facts,
            started_at: UnixMillis(0),
        };
        let mut health = Health::default();
        health.scans = 3;
        health.link.last_error = Some("refused".into());
        let collector = who.facts.collector.clone();
        Status::of(&who, &collector, &health, UnixMillis(1000))
    }

    fn shown(dir: &Path, json: bool) -> String {
        let mut out = Vec::new();
        show(dir, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_file_of_a_dead_agent_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        status().write(dir.path()).unwrap();
        let error = show(dir.path(), true, &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no agent runs"), "{error}");
    }

    #[test]
    fn json_is_one_line_and_a_table_is_for_people() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = lock::take(dir.path()).unwrap();
        status().write(dir.path()).unwrap();
        let json = shown(dir.path(), true);
        assert_eq!(json.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
        let table = shown(dir.path(), false);
        assert!(
            table.contains("collector.test:7443, not connected: refused"),
            "{table}"
        );
        assert!(table.contains("none: nothing is ignored"), "{table}");
        assert!(table.contains("events     off; 0 seen"), "{table}");
        assert_eq!(
            (percent(1_234), percent(1_000_000)),
            ("0.12 %".into(), "100.00 %".into())
        );
    }
}
