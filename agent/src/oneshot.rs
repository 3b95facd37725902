//! `procwarden-agent scan`: looks at this machine now, without a collector.
//!
//! Promises: with `--json` nothing but one object per line on standard
//! output; remarks, notes and figures go to standard error; findings do not
//! change the exit code. Never writes a file and never talks to the network.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::view::FindingView;
use procwarden_common::policy::{Policy, Verdict};

use crate::evidence::Depth;
use crate::scan::{ScanOutcome, Scanner, Suspect};

mod policy;
mod table;

/// Exit code for files and settings that are wrong.
const EXIT_USAGE: u8 = 64;
/// Time between the two readings that confirm what can race.
const CONFIRMATION_WAIT: Duration = Duration::from_millis(400);

/// Flags of `procwarden-agent scan`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ScanArgs {
    /// Ignore what the rules of this pignore file cover (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) pignore: Vec<PathBuf>,
    /// Take settings from this TOML file with the sections scan, limits and detectors
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Look only at processes of at least this age (overrides the settings)
    #[arg(long, value_name = "SECS")]
    pub(crate) min_age: Option<u64>,
    /// Read processes below this directory
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) proc: PathBuf,
    /// Show ignored processes too, with the rule that covers them
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    /// Scan this many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,
    /// Wait this long between two scans (default: the settings' interval)
    #[arg(long, value_name = "SECS")]
    pub(crate) interval: Option<u64>,
    /// Print the figures of each scan as JSON on standard error
    #[arg(long)]
    pub(crate) stats: bool,
}

/// Scans and prints. The exit code is 0 whether or not there are findings,
/// and 64 when a file or a setting is wrong.
///
/// # Errors
/// When /proc cannot be read or the output cannot be written.
pub(crate) fn run(args: ScanArgs) -> anyhow::Result<ExitCode> {
    let mut stderr = anstream::stderr();
    let wanted = policy::Wanted {
        pignore: &args.pignore,
        settings: args.settings.as_deref(),
        min_age_secs: args.min_age,
    };
    let policy = match policy::load(&wanted) {
        Ok((policy, warnings)) => {
            for warning in warnings {
                writeln!(stderr, "{warning}")?;
            }
            policy
        }
        Err(diagnostics) => {
            for diagnostic in diagnostics {
                writeln!(stderr, "{diagnostic}")?;
            }
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut scanner = Scanner::new(&args.proc)?;
    if args.repeat == 1 {
        scanner.put_nothing_off();
    }
    match scan_and_print(&mut scanner, &policy, &args) {
        // The reader has seen enough (`| head`).
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn scan_and_print(scanner: &mut Scanner, policy: &Policy, args: &ScanArgs) -> anyhow::Result<()> {
    let host = host_name(scanner);
    let interval = Duration::from_secs(args.interval.unwrap_or(policy.settings().interval_secs));
    let mut said = Vec::new();
    for round in 0..args.repeat {
        if round > 0 {
            std::thread::sleep(interval);
        }
        let mut outcome = scanner.scan(policy, now()?);
        if round == 0 && scanner.awaits_confirmation() {
            print_stats(&outcome, args)?;
            std::thread::sleep(CONFIRMATION_WAIT);
            outcome = scanner.scan(policy, now()?);
        }
        outcome
            .suspects
            .retain(|suspect| args.all || suspect.verdict == Verdict::Report);
        let suspects = std::mem::take(&mut outcome.suspects);
        if args.json {
            print_objects(suspects, scanner, &host)?;
        } else if !suspects.is_empty() {
            writeln!(anstream::stdout(), "{}", table::render(&suspects, args.all))?;
        }
        print_remarks(&outcome, &mut said, args)?;
    }
    Ok(())
}

/// One after the other: the evidence about thousands would fill the memory.
fn print_objects(suspects: Vec<Suspect>, scanner: &Scanner, host: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    let mut gatherer = scanner.gatherer();
    for suspect in suspects {
        let mut finding = suspect.finding();
        // A process that ended meanwhile keeps the facts of the scan.
        gatherer.gather(&mut finding, Depth::Whole);
        let view = FindingView::of_scan(host, &finding, &suspect.verdict);
        serde_json::to_writer(&mut stdout, &view).map_err(std::io::Error::from)?;
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    Ok(())
}

/// What goes to standard error: notes, once each, then figures or a summary.
fn print_remarks(
    outcome: &ScanOutcome,
    said: &mut Vec<String>,
    args: &ScanArgs,
) -> anyhow::Result<()> {
    let mut stderr = anstream::stderr();
    for note in &outcome.notes {
        if !said.contains(note) {
            writeln!(stderr, "note: {note}")?;
            said.push(note.clone());
        }
    }
    print_stats(outcome, args)?;
    if !args.stats && !args.json {
        writeln!(stderr, "{}", summary(outcome))?;
    }
    Ok(())
}

/// The figures of a scan, where they are wanted.
fn print_stats(outcome: &ScanOutcome, args: &ScanArgs) -> anyhow::Result<()> {
    if args.stats {
        let figures = serde_json::to_string(&outcome.stats)?;
        writeln!(anstream::stderr(), "{figures}")?;
    }
    Ok(())
}

fn summary(outcome: &ScanOutcome) -> String {
    let counted = |count: u64, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let stats = outcome.stats;
    let mut text = format!(
        "{} looked at, {}",
        counted(stats.processes, "process", "processes"),
        counted(stats.findings, "finding", "findings")
    );
    if stats.read_errors > 0 {
        text.push_str(&format!(
            ", {}",
            counted(stats.read_errors, "failed read", "failed reads")
        ));
    }
    text
}

fn host_name(scanner: &Scanner) -> String {
    scanner.host_name().unwrap_or_else(|| {
        procwarden_common::printable::printable(rustix::system::uname().nodename().to_bytes())
    })
}

fn now() -> anyhow::Result<UnixMillis> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock of this host stands before 1970: set it")?;
    Ok(UnixMillis(
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
    ))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
