//! The command line as values. Decides nothing, opens nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::oneshot::ScanArgs;

/// Watches the processes of this server and reports suspicious ones.
#[derive(Debug, Parser)]
#[command(name = "procwarden-agent", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this server a host of a fleet, with a token of its collector
    Enroll(EnrollArgs),
    /// Scan, judge and report to the collector until stopped
    Run(CommonArgs),
    /// Look at this machine now and print what is suspicious; needs no collector
    Scan(ScanArgs),
    /// Show how the running agent fares
    Status(StatusArgs),
}

/// Flags that several commands share.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Read this file [default: /etc/procwarden/agent.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep the agent's state here (overrides the file)
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Flags of `enroll`.
#[derive(Debug, Args)]
pub(crate) struct EnrollArgs {
    #[command(flatten)]
    pub(crate) token: TokenArgs,
    /// Replace the identity that this host has; the collector sees a new host
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Exactly one source of the token.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TokenArgs {
    /// The token, as `procwarden token create` printed it
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Read the token from this file: other users cannot see it in the process list then
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// The token is a secret.
impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs")
            .field("token_file", &self.token_file)
            .finish_non_exhaustive()
    }
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn enrolment_takes_exactly_one_token() {
        let parse =
            |args: &[&str]| Cli::try_parse_from([&["procwarden-agent", "enroll"], args].concat());
        assert!(parse(&["--token", "pwt1.x"]).is_ok());
        assert!(parse(&["--token-file", "f", "--state-dir", "d"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--token", "t", "--token-file", "f"]).is_err());
    }

    #[test]
    fn a_token_is_not_printed_by_accident() {
        let cli =
            Cli::try_parse_from(["procwarden-agent", "enroll", "--token", "pwt1.secret"]).unwrap();
        assert!(!format!("{cli:?}").contains("secret"));
    }
}
