//! Findings with the moment at which the collector showed each:
//! `procwarden findings watch`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::binaries::binary;
use crate::collector::Collector;

/// The running command; it ends with the value.
pub struct Watch {
    child: Child,
    findings: Receiver<(Value, Instant)>,
}

impl Watch {
    /// Follows the findings that have an indicator, or all.
    ///
    /// # Errors
    /// When the command does not start.
    pub fn start(collector: &Collector, indicator: Option<&str>) -> anyhow::Result<Self> {
        let mut child = Command::new(binary("procwarden"))
            .arg("--collector")
            .arg(format!("unix:{}", collector.socket().display()))
            .args(["--json", "findings", "watch"])
            .args(indicator.map(|id| ["--indicator", id]).iter().flatten())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let (sender, findings) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let now = Instant::now();
                let finding = serde_json::from_str(&line).unwrap_or_default();
                if sender.send((finding, now)).is_err() {
                    return;
                }
            }
        });
        // It follows from the moment at which the collector has heard of it.
        std::thread::sleep(Duration::from_secs(2));
        Ok(Self { child, findings })
    }

    /// The next one, if it comes in time.
    #[must_use]
    pub fn next(&self, within: Duration) -> Option<(Value, Instant)> {
        self.findings.recv_timeout(within).ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ended = self.child.kill().is_err();
        let _gone = self.child.wait().is_err();
    }
}
