//! The command lines of staged roll-outs, and the words of what stops one.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use procwarden_common::severity::Severity;
use procwarden_common::wire::severity_to_wire;
use procwarden_proto::v1;
use procwarden_proto::v1::rollout_threshold::Least;

use super::parse_name;
use crate::since::parse_span;

/// Either a start, or one of the words.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RolloutCommand>,
    #[command(flatten)]
    pub(crate) start: Option<StartArgs>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Name of the policy
    #[arg(value_name = "POLICY", value_parser = parse_name)]
    pub(crate) name: String,
    /// The revision, published with `policy set --staged` or an older one
    #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: u64,
    /// Percent of the policy's hosts at each step, at least one host
    #[arg(long, value_name = "P%,...", default_value = "1%,10%,50%,100%")]
    pub(crate) steps: Steps,
    /// How long a step lasts, such as 30m; the next one also waits until every
    /// host of this one runs the revision
    #[arg(long, default_value = "30m", value_parser = parse_span)]
    pub(crate) every: Duration,
    /// What stops it: refused=N|N%, silent=N|N% (hosts), severity=LEVEL (of
    /// what is newly ignored); each may be never, what is left out keeps its
    /// default
    #[arg(
        long,
        value_name = "WHAT=LIMIT,...",
        default_value = "refused=1,severity=high,silent=5%"
    )]
    pub(crate) stop_if: StopIf,
    /// When it stops by itself: hosts go back to what they ran, or those that
    /// have the revision keep it
    #[arg(long, value_enum, default_value_t = OnStop::Revert)]
    pub(crate) on_stop: OnStop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnStop {
    Revert,
    Hold,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Show how far a roll-out is; exit code 2 when it stopped by itself
    Status {
        /// Name of the policy
        #[arg(value_name = "POLICY", value_parser = parse_name)]
        name: String,
    },
    /// Stay at this step; nothing stops it meanwhile
    Pause(MoveArgs),
    /// Go on from this step
    Resume(MoveArgs),
    /// End it: every host goes back to what it ran
    Abort(MoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// Name of the policy
    #[arg(value_name = "POLICY", value_parser = parse_name)]
    pub(crate) name: String,
    /// Why, for the audit trail
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

/// `1%,10%,50%,100%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Steps(pub(crate) Vec<u32>);

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let step = |word: &str| percent(word).ok_or_else(|| format!("'{word}' is no percentage"));
        let steps: Vec<u32> = text.split(',').map(step).collect::<Result<_, _>>()?;
        if !steps.is_sorted_by(|a, b| a < b) || steps.last() != Some(&100) {
            return Err("write rising percentages that end in 100%, such as 1%,10%,100%".into());
        }
        Ok(Self(steps))
    }
}

/// `refused=1,severity=high,silent=5%`, as parts of a plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StopIf {
    pub(crate) refused: Option<v1::RolloutThreshold>,
    pub(crate) silent: Option<v1::RolloutThreshold>,
    pub(crate) severity: v1::Severity,
}

impl Default for StopIf {
    fn default() -> Self {
        let threshold = |least| Some(v1::RolloutThreshold { least: Some(least) });
        Self {
            refused: threshold(Least::Hosts(1)),
            silent: threshold(Least::Percent(5)),
            severity: v1::Severity::High,
        }
    }
}

impl FromStr for StopIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut stop_if = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for word in text.split(',') {
            let (what, limit) = word
                .split_once('=')
                .ok_or_else(|| format!("'{word}' has no limit: write {EXAMPLE}"))?;
            if seen.contains(&what) {
                return Err(format!("{what} is given twice"));
            }
            seen.push(what);
            match what {
                "refused" => stop_if.refused = threshold(limit)?,
                "silent" => stop_if.silent = threshold(limit)?,
                "severity" => stop_if.severity = severity(limit)?,
                _ => return Err(format!("nothing stops at '{what}': write {EXAMPLE}")),
            }
        }
        Ok(stop_if)
    }
}

const EXAMPLE: &str = "refused=1,severity=high,silent=5%, or never instead of a limit";

fn threshold(text: &str) -> Result<Option<v1::RolloutThreshold>, String> {
    if text == "never" {
        return Ok(None);
    }
    let hosts = || text.parse().ok().filter(|hosts| *hosts > 0);
    let least = percent(text)
        .map(Least::Percent)
        .or_else(|| hosts().map(Least::Hosts))
        .ok_or_else(|| format!("'{text}' is no number of hosts: write 1, 5% or never"))?;
    Ok(Some(v1::RolloutThreshold { least: Some(least) }))
}

fn severity(text: &str) -> Result<v1::Severity, String> {
    if text == "never" {
        return Ok(v1::Severity::Unspecified);
    }
    let severity: Severity = text
        .parse()
        .map_err(|error| format!("'{text}' is {error}, or never"))?;
    Ok(severity_to_wire(severity))
}

/// `5%`, from 1 to 100.
fn percent(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?.parse().ok()?;
    (1..=100).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_roll_out_is_read_and_the_rest_keeps_its_default() {
        let default = StopIf::default();
        let all: StopIf = "refused=1,severity=high,silent=5%".parse().unwrap();
        assert_eq!(all, default, "the default of the flag is the default");
        let some: StopIf = "silent=never,severity=critical".parse().unwrap();
        assert_eq!((some.silent, some.severity), (None, v1::Severity::Critical));
        assert_eq!(some.refused, default.refused);
        for text in [
            "",
            "refused",
            "refused=0",
            "refused=0%",
            "silent=101%",
            "silent=-1",
            "severity=bad",
            "refused=1,refused=2",
            "hits=1",
        ] {
            assert!(text.parse::<StopIf>().is_err(), "{text}");
        }
    }

    #[test]
    fn steps_rise_to_all_hosts() {
        assert_eq!("1%,100%".parse(), Ok(Steps(vec![1, 100])));
        for text in [
            "",
            "1%",
            "0%,100%",
            "50%,10%,100%",
            "1,100",
            "1.5%,100%",
            "100%,100%",
        ] {
            assert!(text.parse::<Steps>().is_err(), "{text}");
        }
    }
}
