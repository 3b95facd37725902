//! The command line. Pure: names, flags and their forms, nothing is done here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use procwarden_common::finding::FindingState;
use procwarden_common::indicator::IndicatorId;
use procwarden_common::severity::Severity;
use procwarden_common::wire::is_name;

use crate::client::parse_collector;
use crate::since::{Since, parse_span};

mod learn;
mod publish;
mod rollout;
mod whitelist;
pub(crate) use learn::{LearnArgs, LearnCommand, LearnGroupArgs};
pub(crate) use publish::PublishArgs;
pub(crate) use rollout::{MoveArgs, OnStop, RolloutArgs, RolloutCommand, StartArgs};
pub(crate) use whitelist::{IgnoreArgs, ImportCommand, ImportCsfArgs};

/// Asks and directs the collector of a procwarden fleet.
#[derive(Debug, Parser)]
#[command(
    name = "procwarden",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 the check asked for came out negative, \
                  64 wrong usage."
)]
pub(crate) struct Cli {
    /// The collector's socket
    #[arg(
        long,
        global = true,
        env = "PROCWARDEN_COLLECTOR",
        default_value = "unix:/run/procwarden/admin.sock",
        value_name = "unix:PATH",
        value_parser = parse_collector
    )]
    pub(crate) collector: PathBuf,
    /// Print one JSON object per line instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how the collector is doing
    Status,
    /// Tokens, with which servers enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// Hosts of the fleet
    #[command(subcommand)]
    Hosts(HostsCommand),
    /// What the agents found
    #[command(subcommand)]
    Findings(FindingsCommand),
    /// Whitelists and settings of the agents
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Say which rule would hide a finding, and what else; --yes publishes it
    Ignore(IgnoreArgs),
    /// Take over what another program was configured with
    #[command(subcommand)]
    Import(ImportCommand),
    /// Mails about findings
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Show who decided what, newest first
    Audit {
        /// Only decisions since then: a time, or 30d, 12h, 15m
        #[arg(long)]
        since: Option<Since>,
        /// At most this many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it
    Create {
        /// Group that hosts enrolled with it belong to (repeatable)
        #[arg(long = "group", value_name = "GROUP", value_parser = parse_name)]
        groups: Vec<String>,
        /// How long it can be used, such as 30m, 24h or 7d
        #[arg(long, default_value = "24h", value_parser = parse_span)]
        ttl: Duration,
        /// How many hosts can enrol with it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
    },
    /// List the tokens
    List,
    /// Make a token useless
    Revoke {
        /// Id of the token, as listed
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostsCommand {
    /// List the hosts
    List {
        /// Only hosts of this group
        #[arg(long, value_parser = parse_name)]
        group: Option<String>,
        /// Only hosts that are silent
        #[arg(long)]
        silent: bool,
    },
    /// Show one host: what it runs, and where each part comes from
    Show {
        /// Name or id
        host: String,
        /// List every rule with its origin instead
        #[arg(long)]
        rules: bool,
    },
    /// Say which groups a host belongs to
    Set {
        /// Name or id
        host: String,
        #[command(flatten)]
        groups: Groups,
    },
    /// Shut a host out for good: its certificate is worth nothing from now on
    Revoke {
        /// Name or id
        host: String,
    },
    /// Have a host scan now
    Scan {
        /// Name or id
        host: String,
    },
}

/// Groups that replace the earlier ones.
#[derive(Debug, Args)]
pub(crate) struct Groups {
    /// Group (repeatable); these groups replace the earlier ones
    #[arg(
        long = "group",
        value_name = "GROUP",
        num_args = 1..,
        required_unless_present = "no_group",
        value_parser = parse_name
    )]
    pub(crate) groups: Vec<String>,
    /// No group at all
    #[arg(long, conflicts_with = "groups")]
    pub(crate) no_group: bool,
}

/// Groups and hosts that replace the earlier ones.
#[derive(Debug, Args)]
pub(crate) struct Assignment {
    /// Group (repeatable); what is given replaces the earlier groups and hosts
    #[arg(
        long = "group",
        value_name = "GROUP",
        num_args = 1..,
        required_unless_present_any = ["hosts", "no_group"],
        value_parser = parse_name
    )]
    pub(crate) groups: Vec<String>,
    /// One host, by name or id (repeatable)
    #[arg(long = "host", value_name = "HOST", num_args = 1..)]
    pub(crate) hosts: Vec<String>,
    /// No group and no host at all
    #[arg(long, conflicts_with_all = ["groups", "hosts"])]
    pub(crate) no_group: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FindingsCommand {
    /// List findings, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only findings first seen since then: a time, or 30d, 12h, 15m
        #[arg(long)]
        since: Option<Since>,
        /// Only findings first seen before then
        #[arg(long)]
        until: Option<Since>,
        /// At most this many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Show one finding with everything that is known of it
    Show {
        /// Id, or at least its first 6 digits
        #[arg(value_parser = parse_finding_id)]
        id: String,
    },
    /// Show findings as they arrive
    Watch {
        #[command(flatten)]
        filter: Filter,
    },
}

/// Which findings.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Name or id of a host
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Account, as listed
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Indicator, such as exe-deleted
    #[arg(long)]
    pub(crate) indicator: Option<IndicatorId>,
    /// This severity and higher ones: info, low, medium, high or critical
    #[arg(long)]
    pub(crate) severity: Option<Severity>,
    /// open, ended or resolved
    #[arg(long, value_parser = parse_state)]
    pub(crate) state: Option<FindingState>,
    /// Executable: its path as listed, or its SHA-256
    #[arg(long)]
    pub(crate) exe: Option<String>,
    /// Part of the executable's path or of the command line
    #[arg(long)]
    pub(crate) text: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a pignore file or settings; needs no collector
    Check {
        /// The file
        file: PathBuf,
        /// It holds settings (TOML) even though its name does not end in .toml
        #[arg(long)]
        settings: bool,
        /// Exit with 2 on warnings, too
        #[arg(long)]
        strict: bool,
    },
    /// Check and publish: all hosts of the policy's groups get it
    Set {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
        /// pignore file, or settings when its name ends in .toml; what is not
        /// given stays as it is
        file: PathBuf,
        /// Why, for the log
        #[arg(long)]
        comment: String,
        /// Settings to publish together with the pignore file
        #[arg(long, value_name = "FILE.toml")]
        settings: Option<PathBuf>,
        #[command(flatten)]
        how: PublishArgs,
    },
    /// Say what publishing would hide and bring back; changes nothing
    Preview {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
        /// pignore file, or settings when its name ends in .toml; what is not
        /// given stays as it is
        file: PathBuf,
        /// Settings that would be published together with the pignore file
        #[arg(long, value_name = "FILE.toml")]
        settings: Option<PathBuf>,
        /// Only findings first seen since then, and those that are open still: a
        /// time, or 30d, 12h, 15m
        #[arg(long, default_value = "30d")]
        since: Since,
    },
    /// Show a policy's text
    Show {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
        /// Another revision than the newest
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        revision: Option<u64>,
    },
    /// List the policies
    List,
    /// List a policy's revisions
    Log {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
    },
    /// Show what differs between two revisions
    Diff {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
        /// The older revision
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        old: u64,
        /// The newer revision
        #[arg(value_name = "M", value_parser = clap::value_parser!(u64).range(1..))]
        new: u64,
    },
    /// Publish the content of an older revision as a new one
    Rollback {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
        /// The revision whose content is wanted back
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        revision: u64,
        /// Why, for the log
        #[arg(long, default_value = "", hide_default_value = true)]
        comment: String,
    },
    /// Say which groups and hosts get a policy
    Assign {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
        #[command(flatten)]
        to: Assignment,
    },
    /// Bring a revision to the hosts step by step, or say what became of it
    Rollout(RolloutArgs),
    /// Send fewer alerts of a group for a while, then propose a policy for it
    Learn(LearnArgs),
    /// Show which hosts run what they should; exit code 2 unless all do
    Status {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// Send a test mail now
    Test {
        /// Recipient
        #[arg(long, value_name = "ADDRESS")]
        to: String,
    },
    /// List recent mails and those that wait
    List,
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of the characters a-z 0-9 - _ .".into())
}

fn parse_state(text: &str) -> Result<FindingState, String> {
    let found = FindingState::ALL.iter().find(|(_, word)| *word == text);
    found
        .map(|(state, _)| *state)
        .ok_or_else(|| "use open, ended or resolved".into())
}

fn parse_finding_id(text: &str) -> Result<String, String> {
    let good = (6..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if good {
        return Ok(text.to_ascii_lowercase());
    }
    Err("a finding's id has 32 hexadecimal digits; give at least the first 6".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::failure::exit_code_of_usage;

    fn parse(line: &str) -> Result<Cli, u8> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| exit_code_of_usage(&error))
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_contract_is_understood() {
        for line in [
            "procwarden status",
            "procwarden --json status",
            "procwarden status --json --collector unix:/tmp/x",
            "procwarden token create",
            "procwarden token create --group web --group db --ttl 24h --uses 3",
            "procwarden token list",
            "procwarden token revoke abc",
            "procwarden hosts list --group web --silent",
            "procwarden hosts show web1",
            "procwarden hosts set web1 --group a --group b",
            "procwarden hosts set web1 --group a b",
            "procwarden hosts set web1 --no-group",
            "procwarden hosts revoke web1",
            "procwarden hosts scan web1",
            "procwarden findings list --host h --user u --indicator exe-memfd --severity high \
             --state open --since 30d --limit 5",
            "procwarden findings show ABCDEF",
            "procwarden findings watch --severity medium",
            "procwarden policy check x.pignore",
            "procwarden policy check x --settings",
            "procwarden policy set web x.pignore --comment why --settings s.toml --group web",
            "procwarden policy preview web x.pignore --settings s.toml --since 7d --json",
            "procwarden policy show web --revision 2",
            "procwarden policy list",
            "procwarden policy log web",
            "procwarden policy diff web 1 2",
            "procwarden policy rollback web 1",
            "procwarden policy rollback web 1 --comment why",
            "procwarden policy assign web --group a b",
            "procwarden policy assign web --host web1 web2 --group a",
            "procwarden policy assign web --no-group",
            "procwarden hosts show web1 --rules",
            "procwarden policy status web",
            "procwarden policy set web x.pignore --comment why --base 3 --staged",
            "procwarden policy learn web --for 7d",
            "procwarden policy learn web --propose",
            "procwarden policy learn web --propose web.pignore",
            "procwarden policy learn list",
            "procwarden policy learn show web",
            "procwarden policy learn end web",
            "procwarden policy rollout web 3",
            "procwarden policy rollout web 3 --steps 1%,10%,50%,100% --every 30m \
             --stop-if refused=1,severity=high,silent=5% --on-stop hold",
            "procwarden policy rollout status web",
            "procwarden policy rollout pause web",
            "procwarden policy rollout resume web",
            "procwarden policy rollout abort web --reason why",
            "procwarden ignore abcdef --reason why",
            "procwarden ignore abcdef --by pcmd --policy web --expires 2027-01-31 --reason why \
             --since 7d --yes --force",
            "procwarden import csf --pignore csf.pignore --policy web",
            "procwarden import csf --pignore p --conf csf.conf --policy web --comment x --dry-run",
            "procwarden import csf --pignore p --policy web --root copy --base 3 --staged --strict \
             --group web --group db --json",
            "procwarden alerts test --to root@example.net",
            "procwarden alerts list",
            "procwarden audit",
            "procwarden audit --since 30d --limit 5",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn wrong_usage_is_64_and_help_is_0() {
        for (line, code) in [
            ("procwarden", 64),
            ("procwarden nonsense", 64),
            ("procwarden status --nonsense", 64),
            ("procwarden --collector https://collector:7443 status", 64),
            ("procwarden --collector /run/x status", 64),
            ("procwarden token create --ttl soon", 64),
            ("procwarden token create --uses 0", 64),
            ("procwarden token create --group Web", 64),
            ("procwarden hosts set web1", 64),
            ("procwarden hosts set web1 --group a --no-group", 64),
            ("procwarden findings list --state new", 64),
            ("procwarden findings list --severity bad", 64),
            ("procwarden findings list --since yesterday", 64),
            ("procwarden findings show abc", 64),
            ("procwarden policy set web x.pignore", 64),
            ("procwarden policy diff web 1", 64),
            ("procwarden policy rollback web 0", 64),
            ("procwarden policy learn", 64),
            ("procwarden policy learn web", 64),
            ("procwarden policy learn web --for soon", 64),
            ("procwarden policy learn web --for 1d --propose", 64),
            ("procwarden policy learn end", 64),
            ("procwarden policy rollout", 64),
            ("procwarden policy rollout web", 64),
            ("procwarden policy rollout web 3 --steps 50%,10%", 64),
            ("procwarden policy rollout web 3 --stop-if refused", 64),
            ("procwarden policy rollout abort", 64),
            ("procwarden ignore abcdef", 64),
            ("procwarden ignore abc --reason why", 64),
            ("procwarden ignore abcdef --reason why --by puser", 64),
            ("procwarden ignore abcdef --reason why --expires soon", 64),
            ("procwarden import csf --pignore p", 64),
            ("procwarden import csf --conf c --policy web", 64),
            ("procwarden policy preview web", 64),
            ("procwarden policy preview web x --since yesterday", 64),
            ("procwarden policy assign web", 64),
            ("procwarden policy assign web --no-group --host a", 64),
            ("procwarden alerts test", 64),
            ("procwarden --help", 0),
            ("procwarden policy set --help", 0),
            ("procwarden --version", 0),
        ] {
            assert_eq!(parse(line).err(), Some(code), "{line}");
        }
    }
}
