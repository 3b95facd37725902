//! How a command can fail, what is said about it and with which exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::printable::printable;
use tokio::task::JoinError;

/// Failed at run time.
const EXIT_FAILED: u8 = 1;
/// The check asked for came out negative.
const EXIT_NEGATIVE: u8 = 2;
/// Usage or configuration error.
const EXIT_USAGE: u8 = 64;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operator has to change how the command is called.
    Usage(String),
    /// The configuration is wrong; the remarks say where.
    Config(Vec<Diagnostic>),
    /// The check asked for came out negative.
    Negative(String),
    /// Everything else.
    Runtime(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}

impl Failure {
    /// There is no identity below the data directory.
    pub(super) fn not_initialised(data_dir: &Path) -> Self {
        let dir = printable(data_dir.as_os_str().as_encoded_bytes());
        Self::Usage(format!(
            "{dir} holds no collector yet: make one with \
             `procwarden-collector init --data-dir {dir} --name NAME`"
        ))
    }

    /// The truth cannot be written any more.
    pub(super) fn stopped(why: String) -> Self {
        tracing::error!(error = %why, "What hosts report can not be recorded any more; ending.");
        Self::Runtime(anyhow::Error::msg(why))
    }

    /// A listener must not end before the collector does.
    pub(super) fn server_ended(
        ended: Result<(&'static str, anyhow::Result<()>), JoinError>,
    ) -> Self {
        Self::Runtime(match ended {
            Ok((name, Ok(()))) => anyhow::anyhow!("the {name} listener ended"),
            Ok((name, Err(error))) => error.context(format!("the {name} listener failed")),
            Err(error) => anyhow::Error::new(error).context("a listener failed"),
        })
    }

    /// Says on standard error what failed; the exit code says how.
    pub(crate) fn report(&self) -> ExitCode {
        let named = |what: &dyn std::fmt::Display| vec![format!("procwarden-collector: {what}")];
        let (lines, code) = match self {
            Self::Usage(sentence) => (named(sentence), EXIT_USAGE),
            Self::Config(remarks) => (
                remarks.iter().map(Diagnostic::to_string).collect(),
                EXIT_USAGE,
            ),
            Self::Negative(sentence) => (named(sentence), EXIT_NEGATIVE),
            Self::Runtime(error) => (named(&format!("{error:#}")), EXIT_FAILED),
        };
        complain(&lines);
        ExitCode::from(code)
    }
}

/// Says on standard error what is wrong or worth knowing.
pub(super) fn complain(lines: &[String]) {
    let mut out = std::io::stderr().lock();
    for line in lines {
        // Nobody reads standard error: the exit code is all that is left.
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

/// Prints help, version or what is wrong with the command line.
pub(crate) fn explain(help_or_error: &clap::Error) -> ExitCode {
    // As above: without anybody reading, the exit code tells.
    drop(help_or_error.print());
    if help_or_error.use_stderr() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::SUCCESS
    }
}
