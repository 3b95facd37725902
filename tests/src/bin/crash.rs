//! Ends a collector at random moments under load, again and again, and counts
//! what was acknowledged, lost and doubled. Prints one JSON object.
//!
//! `procwarden-crash --mode kill|power|control|spool [--rounds 20] [--history 20] [--dir DIR]`
//!
//! `power`, `control` and `spool` need root and loop devices, and run in a mount
//! namespace of their own; where they cannot, the object says `skipped`.
//!
//! Exit code 0: nothing was lost or doubled, or the control lost something, or
//! nothing could be tried. 1: anything else.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use procwarden_tests::crash;
use serde_json::Value;

#[derive(Parser)]
#[command(
    name = "procwarden-crash",
    about = "Crashes a procwarden collector under load and counts what it lost"
)]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// How the collector is ended
    #[arg(long, default_value = "kill")]
    mode: Mode,
    /// How often it is ended
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Rounds after which everything is compared and a new fleet begins
    #[arg(long, default_value_t = 20)]
    history: u64,
    /// Where directories and disk images are made [default: the system's
    /// temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// SIGKILL
    Kill,
    /// The disk loses its power
    Power,
    /// The disk loses its power under sled alone: has to lose something
    Control,
    /// The disk of an agent loses its power while its collector is away
    Spool,
}

/// What `control` runs as processes of their own.
#[derive(Subcommand)]
enum Inner {
    #[command(hide = true)]
    SledWriter { directory: PathBuf },
    #[command(hide = true)]
    SledReader { directory: PathBuf, count: u64 },
}

/// Says that the namespace is there.
const INSIDE: &str = "PROCWARDEN_CRASH_INSIDE";

/// A program that runs another one in namespaces of its own: mounts end with
/// the last process inside, and no process outlives the first.
const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the failure is for a person")]
            {
                eprintln!("procwarden-crash: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.inner {
        Some(Inner::SledWriter { directory }) => {
            crash::control::write_for_ever(&directory)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Inner::SledReader { directory, count }) => {
            print(&crash::control::count_kept(&directory, count)?.into());
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let mode = match cli.mode {
        Mode::Kill => crash::Mode::Kill,
        Mode::Power => crash::Mode::Power,
        Mode::Control => crash::Mode::Control,
        Mode::Spool => crash::Mode::Spool,
    };
    let plan = crash::Plan {
        mode,
        rounds: cli.rounds,
        history: cli.history,
        directory: cli.dir.unwrap_or_else(std::env::temp_dir),
    };
    if mode != crash::Mode::Kill && std::env::var_os(INSIDE).is_none() {
        return Ok(match can_separate() {
            Ok(()) => separately()?,
            Err(why) => {
                print(&crash::skipped(&plan, &why));
                ExitCode::SUCCESS
            }
        });
    }
    let report = crash::run(&plan)?;
    print(&report);
    let is_good = match mode {
        _ if report["skipped"].is_string() => true,
        crash::Mode::Control => report["lost"].as_u64() > Some(0),
        crash::Mode::Kill | crash::Mode::Power => report["lost"] == 0 && report["doubled"] == 0,
        crash::Mode::Spool => ["lost", "doubled", "left_open"]
            .iter()
            .all(|count| report[count] == 0),
    };
    Ok(ExitCode::from(u8::from(!is_good)))
}

fn can_separate() -> anyhow::Result<()> {
    let tried = Command::new("unshare")
        .args(NAMESPACES)
        .arg("true")
        .output();
    let tried = tried.context("cannot run unshare")?;
    let said = String::from_utf8_lossy(&tried.stderr);
    ensure!(tried.status.success(), "{}", said.trim());
    Ok(())
}

/// The same program once more, in namespaces of its own.
fn separately() -> anyhow::Result<ExitCode> {
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    let code = command.status()?.code();
    Ok(code.map_or(ExitCode::FAILURE, |code| {
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }))
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn print(report: &Value) {
    println!("{report}");
}
