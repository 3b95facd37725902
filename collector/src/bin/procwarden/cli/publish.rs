//! The ways of publishing a revision, for every command that publishes files.

use clap::Args;

use super::parse_name;

/// How a revision is published.
#[derive(Debug, Default, Args)]
pub(crate) struct PublishArgs {
    /// Publish nothing when there are warnings
    #[arg(long)]
    pub(crate) strict: bool,
    /// The revision that the file was made from: nothing is published over
    /// a newer one (0: the policy has none yet)
    #[arg(long, value_name = "N")]
    pub(crate) base: Option<u64>,
    /// Publish, but leave hosts on what they run until `policy rollout`
    #[arg(long)]
    pub(crate) staged: bool,
    /// Assign to this group as well (repeatable); replaces the earlier groups
    #[arg(long = "group", value_name = "GROUP", value_parser = parse_name)]
    pub(crate) groups: Vec<String>,
}
