//! What a process uses, read from /proc.

use anyhow::Context;
use serde_json::{Value, json};

/// Clock ticks per second of /proc/PID/stat: USER_HZ, 100 on every Linux
/// that procwarden runs on.
const TICKS_PER_SEC: f64 = 100.0;

/// CPU and memory at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time on a processor since its start.
    pub cpu_secs: f64,
    /// Resident memory (`VmRSS`).
    pub rss_bytes: u64,
    /// The most it ever was (`VmHWM`).
    pub rss_peak_bytes: u64,
    /// What of it belongs to no file (`RssAnon`).
    pub rss_anonymous_bytes: u64,
    /// What of it are pages of files (`RssFile`), such as the program itself.
    pub rss_file_bytes: u64,
}

impl Usage {
    /// What a process uses now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("cannot read the usage of process {pid}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let fields = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let ticks = |number: usize| -> f64 {
            // Field 3 of proc(5) is the first one behind comm.
            let field = fields.split_whitespace().nth(number - 3);
            field.and_then(|f| f.parse().ok()).unwrap_or(0.0)
        };
        let bytes = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.split_whitespace().next());
            kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Ok(Self {
            cpu_secs: (ticks(14) + ticks(15)) / TICKS_PER_SEC,
            rss_bytes: bytes("VmRSS:"),
            rss_peak_bytes: bytes("VmHWM:"),
            rss_anonymous_bytes: bytes("RssAnon:"),
            rss_file_bytes: bytes("RssFile:"),
        })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Value {
        json!({
            "cpu_secs": rounded(self.cpu_secs - before.cpu_secs),
            "rss_bytes": self.rss_bytes,
            "rss_peak_bytes": self.rss_peak_bytes,
        })
    }
}

/// The machine's load at this moment, for a figure is not read without it.
#[must_use]
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.trim().to_owned()
}

/// To thousandths: more digits are noise.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
