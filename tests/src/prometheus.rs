//! Reads a collector's `/metrics`, and runs a real Prometheus where there is
//! one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::binaries::workspace;
use crate::child::Guarded;
use crate::wait::PATIENCE;

/// The answer to one request: its head and its body.
///
/// # Errors
/// When nobody answers, or something else than HTTP.
pub fn request(address: &str, method: &str, path: &str) -> Result<(String, String), String> {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Version 1.0: the answer comes in one piece.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().map_err(|e| format!("{address} does not answer: {e}"))?;
    let parts = answer.split_once("\r\n\r\n");
    let (head, body) = parts.ok_or_else(|| format!("no HTTP: {answer:?}"))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// Every sample of a page: name with labels -> value.
///
/// # Errors
/// When the page is not there, or a line of it is no sample.
pub fn samples(address: &str) -> Result<BTreeMap<String, f64>, String> {
    let (head, body) = request(address, "GET", "/metrics")?;
    if !head.contains(" 200 ") {
        return Err(head);
    }
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines
        .map(|line| sample(line).ok_or_else(|| format!("no sample: {line:?}")))
        .collect()
}

/// Whether a program of Prometheus is installed.
#[must_use]
pub fn has(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    asked.is_ok_and(|answer| answer.status.success())
}

/// A Prometheus that scrapes one collector every second and has the alert
/// rules of `deploy/prometheus`. Ends when this is dropped.
pub struct Prometheus {
    /// Where it answers.
    pub address: String,
    child: Guarded,
}

impl Prometheus {
    /// Starts it in `directory`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(directory: &Path, collector: &str) -> Self {
        let config = directory.join("prometheus.yml");
        let rules = workspace().join("deploy/prometheus/procwarden.rules.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs: [{{job_name: procwarden, \
             static_configs: [{{targets: [{collector:?}]}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap_or_else(|e| panic!("{}: {e}", config.display()));
        // It does not say which port it was given for 0.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free
            .unwrap_or_else(|e| panic!("no free port: {e}"))
            .to_string();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            directory.join("tsdb").display()
        ));
        command.arg(format!("--web.listen-address={address}"));
        let child = Guarded::start(&mut command, &directory.join("prometheus.log"));
        Self { address, child }
    }

    /// What its API answers.
    ///
    /// # Errors
    /// When it does not answer, or no JSON.
    pub fn api(&self, path: &str) -> Result<serde_json::Value, String> {
        let (_, body) = request(&self.address, "GET", path)
            .map_err(|error| format!("{error}; its log:\n{}", self.child.log()))?;
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    }
}
