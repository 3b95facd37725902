//! What the collector under load uses, read from /proc.

use anyhow::Context;

/// Clock ticks per second of /proc/PID/stat: USER_HZ, 100 on every Linux
/// that procwarden runs on.
const TICKS_PER_SEC: f64 = 100.0;

/// CPU and memory at one moment.
pub(super) struct Usage {
    pub(super) cpu_secs: f64,
    pub(super) rss_bytes: u64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("cannot read the usage of process {pid}"))?;
        let fields = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let field = |number: usize| -> f64 {
            // Field 3 of proc(5) is the first one behind comm.
            fields
                .split_whitespace()
                .nth(number - 3)
                .and_then(|f| f.parse().ok())
                .unwrap_or(0.0)
        };
        let page = rustix::param::page_size() as u64;
        Ok(Self {
            cpu_secs: (field(14) + field(15)) / TICKS_PER_SEC,
            rss_bytes: field(24) as u64 * page,
        })
    }
}
