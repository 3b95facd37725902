//! The command lines of learn mode.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::parse_name;
use crate::since::parse_span;

/// Either a group and what to do with it, or one of the words.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct LearnArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LearnCommand>,
    #[command(flatten)]
    pub(crate) group: Option<LearnGroupArgs>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["span", "propose"]))]
pub(crate) struct LearnGroupArgs {
    /// Name of the group
    #[arg(value_name = "GROUP", value_parser = parse_name)]
    pub(crate) name: String,
    /// Send only alerts from severity high up for so long, such as 7d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
    pub(crate) span: Option<Duration>,
    /// Write the proposed policy to this file, or to standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) propose: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LearnCommand {
    /// List the groups that are or were learned from
    List,
    /// Show one of them
    Show {
        /// Name of the group
        #[arg(value_name = "GROUP", value_parser = parse_name)]
        name: String,
    },
    /// End it before its time
    End {
        /// Name of the group
        #[arg(value_name = "GROUP", value_parser = parse_name)]
        name: String,
    },
}
