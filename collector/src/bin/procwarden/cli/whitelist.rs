//! The command lines that write whitelists: `import` and `ignore`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use procwarden_common::policy::{LastDay, RuleKey};

use super::{PublishArgs, parse_finding_id, parse_name};
use crate::since::Since;

/// What a rule for a finding looks like.
#[derive(Debug, Args)]
pub(crate) struct IgnoreArgs {
    /// Id, or at least its first 6 digits
    #[arg(value_parser = parse_finding_id)]
    pub(crate) finding: String,
    /// What the rule looks at: exe, pexe, user, cmd or pcmd; the safest that
    /// there is when not given
    #[arg(long, value_parser = parse_key)]
    pub(crate) by: Option<RuleKey>,
    /// The policy that gets the rule
    #[arg(long, value_name = "POLICY", default_value = "default", value_parser = parse_name)]
    pub(crate) policy: String,
    /// The last day on which the rule holds, such as 2027-01-31
    #[arg(long, value_name = "DATE", value_parser = parse_day)]
    pub(crate) expires: Option<LastDay>,
    /// Why, for whoever reads the rule
    #[arg(long)]
    pub(crate) reason: String,
    /// Preview over findings first seen since then, and those that are open
    /// still: a time, or 30d, 12h, 15m
    #[arg(long, default_value = "30d")]
    pub(crate) since: Since,
    /// Publish the rule as a new revision
    #[arg(long)]
    pub(crate) yes: bool,
    /// Publish it although it is in a place where accounts can write
    #[arg(long)]
    pub(crate) force: bool,
}

fn parse_key(text: &str) -> Result<RuleKey, String> {
    let offered = RuleKey::ALL
        .iter()
        .filter(|(key, _)| *key != RuleKey::Puser);
    let found = offered
        .map(|(key, word)| (*key, *word))
        .find(|(_, word)| *word == text);
    found
        .map(|(key, _)| key)
        .ok_or_else(|| "use exe, pexe, user, cmd or pcmd".into())
}

fn parse_day(text: &str) -> Result<LastDay, String> {
    LastDay::parse(text).ok_or_else(|| "write a day such as 2027-01-31".into())
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Publish a server's csf.pignore, and csf.conf, as one revision; any
    /// error ends with exit code 2 and nothing published
    Csf(ImportCsfArgs),
}

/// A server's files, and what becomes of them.
#[derive(Debug, Args)]
pub(crate) struct ImportCsfArgs {
    /// The server's csf.pignore
    #[arg(long, value_name = "FILE")]
    pub(crate) pignore: PathBuf,
    /// The server's csf.conf; without it the policy keeps its settings
    #[arg(long, value_name = "FILE")]
    pub(crate) conf: Option<PathBuf>,
    /// Where a copy of the server's file tree begins: absolute paths of
    /// Include lines are looked up below it, and links never lead out of it
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Name of the policy
    #[arg(long, value_name = "POLICY", value_parser = parse_name)]
    pub(crate) policy: String,
    /// Why, for the log
    #[arg(long, default_value = "imported from csf")]
    pub(crate) comment: String,
    /// Publish nothing, print what would be published; with --json a report
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) how: PublishArgs,
}
