//! A share of a processor that the kernel holds a process to, as `CPUQuota=`
//! of a unit does.
//!
//! Promises: the group it makes holds that one process and is removed again;
//! nothing of the machine's own groups is changed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::payload::is_root;

/// How long a share is counted over: what systemd takes.
const PERIOD_US: u64 = 100_000;

/// A group with a quota. The process in it has to end before it is dropped.
pub struct Quota {
    group: PathBuf,
    kind: &'static str,
}

impl Quota {
    /// Holds a process to a share, where this machine lets root set one.
    #[must_use]
    pub fn hold(pid: u32, percent: u64) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let quota_us = PERIOD_US * percent / 100;
        Self::unified(pid, quota_us).or_else(|| Self::legacy(pid, quota_us))
    }

    /// What holds the process, for a report.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    fn unified(pid: u32, quota_us: u64) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
        if !enabled.split_whitespace().any(|word| word == "cpu") {
            return None;
        }
        let limit = ("cpu.max", format!("{quota_us} {PERIOD_US}"));
        Self::make(root, "cgroup v2 cpu.max", pid, &[limit])
    }

    fn legacy(pid: u32, quota_us: u64) -> Option<Self> {
        let limits = [
            ("cpu.cfs_period_us", PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", quota_us.to_string()),
        ];
        let root = Path::new("/sys/fs/cgroup/cpu");
        Self::make(root, "cgroup v1 cpu.cfs_quota_us", pid, &limits)
    }

    fn make(root: &Path, kind: &'static str, pid: u32, limits: &[(&str, String)]) -> Option<Self> {
        let group = root.join(format!("procwarden-bench-{pid}"));
        fs::create_dir(&group).ok()?;
        // From here on it is removed when something fails.
        let quota = Self { group, kind };
        for (file, value) in limits {
            fs::write(quota.group.join(file), value).ok()?;
        }
        fs::write(quota.group.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _kept = fs::remove_dir(&self.group).is_err();
    }
}
