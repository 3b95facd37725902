//! Ends a collector at random moments under load, again and again, and counts
//! what was acknowledged, lost and doubled. Prints one JSON object.
//!
//! `procwarden-crash --mode kill [--rounds 20] [--history 20] [--dir DIR]`
//!
//! Exit code 0: nothing was lost or doubled. 1: something was, or the run
//! could not be finished.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use procwarden_tests::crash;

#[derive(Parser)]
#[command(
    name = "procwarden-crash",
    about = "Crashes a procwarden collector under load and counts what it lost"
)]
struct Cli {
    /// How the collector is ended
    #[arg(long)]
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let plan = crash::Plan {
        mode: match cli.mode {
            Mode::Kill => crash::Mode::Kill,
        },
        rounds: cli.rounds,
        history: cli.history,
        directory: cli.dir.unwrap_or_else(std::env::temp_dir),
    };
    match crash::run(&plan) {
        Ok(report) => {
            #[expect(clippy::print_stdout, reason = "the report is the program's output")]
            {
                println!("{report}");
            }
            let is_clean = report["lost"] == 0 && report["doubled"] == 0;
            ExitCode::from(u8::from(!is_clean))
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the failure is for a person")]
            {
                eprintln!("procwarden-crash: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
