//! The command lines that write whitelists: `import` and `ignore`.

use std::path::PathBuf;

use clap::Subcommand;

use super::parse_name;

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Publish a server's csf.pignore, and csf.conf, as one revision; any
    /// error ends with exit code 2 and nothing published
    Csf {
        /// The server's csf.pignore
        #[arg(long, value_name = "FILE")]
        pignore: PathBuf,
        /// The server's csf.conf; without it the policy keeps its settings
        #[arg(long, value_name = "FILE")]
        conf: Option<PathBuf>,
        /// Name of the policy
        #[arg(long, value_name = "POLICY", value_parser = parse_name)]
        policy: String,
        /// Why, for the log
        #[arg(long, default_value = "imported from csf")]
        comment: String,
        /// Publish nothing, print what would be published
        #[arg(long)]
        dry_run: bool,
    },
}
