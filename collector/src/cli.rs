//! The collector's command line. Pure: from arguments to a command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::backup::Format;

/// What the operator asked for.
#[derive(Debug, Parser)]
#[command(
    name = "procwarden-collector",
    version,
    about = "The collector of procwarden",
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Make a new fleet: the data directory with its certificate authority
    Init(InitOptions),
    /// Run the collector
    Serve(ConfigOption),
    /// Look after the history of findings: check, rebuild, export, restore
    #[command(subcommand)]
    Store(StoreCommand),
}

/// Options of `init`.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct InitOptions {
    /// Directory to make; everything the collector knows lives there
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// DNS name or IP address by which agents reach this collector; repeatable
    #[arg(long = "name", value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Write a commented configuration here, unless the file exists
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The configuration that a command works with.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct ConfigOption {
    /// The collector's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Subcommands of `store`.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum StoreCommand {
    /// Compare the index with the journal; exit 2 when they differ
    Check(ConfigOption),
    /// Make the index anew from the journal
    Rebuild(ConfigOption),
    /// Copy everything to a new directory, while the collector serves too
    Export(ExportOptions),
    /// Put a native copy into an empty data directory
    Restore(RestoreOptions),
}

/// Options of `store export`.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct ExportOptions {
    #[command(flatten)]
    pub(crate) config: ConfigOption,
    /// What the copy is for
    #[arg(long, value_enum)]
    pub(crate) format: Format,
    /// Directory to make
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Copy the private key of the certificate authority as well: whoever has
    /// it can make hosts of this fleet
    #[arg(long)]
    pub(crate) with_ca_key: bool,
}

/// Options of `store restore`.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct RestoreOptions {
    /// A native copy
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Data directory to make
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
}

/// Reads the command line; the error carries help and version texts as well.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    Cli::try_parse_from(arguments).map(|cli| cli.command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn of(line: &str) -> Result<Command, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_carry_their_options() {
        let config = || ConfigOption {
            config: "c.toml".into(),
        };
        let init = Command::Init(InitOptions {
            data_dir: "d".into(),
            names: vec!["a".into(), "b".into()],
            config: None,
        });
        let cases = [
            ("x init --data-dir d --name a --name b", init),
            ("x serve --config c.toml", Command::Serve(config())),
            (
                "x store check --config c.toml",
                Command::Store(StoreCommand::Check(config())),
            ),
            (
                "x store rebuild --config c.toml",
                Command::Store(StoreCommand::Rebuild(config())),
            ),
            (
                "x store export --config c.toml --format native --to t",
                Command::Store(StoreCommand::Export(ExportOptions {
                    config: config(),
                    format: Format::Native,
                    to: "t".into(),
                    with_ca_key: false,
                })),
            ),
            (
                "x store restore --from t --data-dir d",
                Command::Store(StoreCommand::Restore(RestoreOptions {
                    from: "t".into(),
                    data_dir: "d".into(),
                })),
            ),
        ];
        for (line, command) in cases {
            assert_eq!(of(line).unwrap(), command, "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_an_error_and_help_is_not() {
        for line in [
            "x",
            "x init --data-dir d",
            "x init --name n",
            "x serve",
            "x store export",
            "x store export --config c.toml --format tar --to t",
            "x store restore --from t",
        ] {
            assert!(of(line).unwrap_err().use_stderr(), "{line}");
        }
        for line in ["x --help", "x --version", "x init --help"] {
            assert!(!of(line).unwrap_err().use_stderr(), "{line}");
        }
    }
}
