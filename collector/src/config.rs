//! The collector's configuration: TOML, checked as a whole (shared design,
//! "Commands"). Pure: takes text, returns a configuration or every error.
//!
//! Promises: a `Config` can be used as it is; every default is in it. Never
//! opens a file: whether a password file can be read is seen where it is used.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use procwarden_common::diagnostic::{Diagnostic, has_errors};
use procwarden_common::severity::Severity;
use procwarden_common::toml_config::TomlFile;

mod forms;
mod mail;
mod read;

/// Everything that `serve` has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: ListenConfig,
    pub(crate) mail: Option<MailConfig>,
    pub(crate) routes: Vec<Route>,
    pub(crate) alert: AlertConfig,
    /// `retention.days`: findings older than this are dropped by whole segments.
    pub(crate) retention_days: Option<u32>,
    /// `retention.max_bytes`: the oldest segments are dropped while the findings
    /// journal is larger than this.
    pub(crate) retention_max_bytes: Option<u64>,
}

/// Where the collector listens; port 0 lets the kernel choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenConfig {
    /// Default `0.0.0.0:7443`.
    pub(crate) fleet: SocketAddr,
    /// Default `0.0.0.0:7442`.
    pub(crate) enroll: SocketAddr,
    /// Path of the socket. Default `unix:/run/procwarden/admin.sock`.
    pub(crate) admin: PathBuf,
    /// `/metrics` for Prometheus; off without an address.
    pub(crate) metrics: Option<SocketAddr>,
}

/// How mails leave, from whom, and to whom without any route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailConfig {
    pub(crate) transport: MailTransport,
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
}

/// The three ways out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MailTransport {
    Smtp(SmtpConfig),
    /// `sendmail.command`, default `/usr/sbin/sendmail`.
    Sendmail {
        command: PathBuf,
    },
    /// `file.dir`: one `.eml` per mail.
    File {
        dir: PathBuf,
    },
}

/// The mail relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SmtpConfig {
    pub(crate) host: String,
    /// Default 587 with starttls, 465 with implicit, 25 with none.
    pub(crate) port: u16,
    pub(crate) tls: SmtpTls,
    pub(crate) username: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    /// PEM of a CA to trust besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// When the connection to the relay is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmtpTls {
    Starttls,
    Implicit,
    None,
}

/// `[[route]]`: who gets the findings of which hosts. Without any route,
/// `mail.to` gets everything of `alert.min_severity` and above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Empty: every host.
    pub(crate) groups: Vec<String>,
    pub(crate) min_severity: Severity,
    pub(crate) to: Vec<String>,
}

/// When alerts are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertConfig {
    /// Default medium.
    pub(crate) min_severity: Severity,
    /// Default 30 s.
    pub(crate) group_wait: Duration,
    /// Mails per route and hour; more findings wait for the next mail. Default 60.
    pub(crate) max_per_hour: u32,
}

impl Config {
    /// Reads and checks a configuration; `file` is its name in remarks.
    ///
    /// # Errors
    /// Every remark, warnings included, when one of them is an error.
    pub(crate) fn parse(
        file: &str,
        text: &str,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let toml = TomlFile::parse(file, text)?;
        let config = read::config(&toml.root());
        let remarks = toml.finish();
        match config {
            Some(config) if !has_errors(&remarks) => Ok((config, remarks)),
            _ => Err(remarks),
        }
    }
}

#[cfg(test)]
mod tests;
