//! `procwarden-load`: puts load on a collector and prints one JSON object with
//! what it measured.
//!
//! Without `--token-file` it starts a collector of its own in a temporary
//! directory, so that one command gives one figure:
//! `cargo run --release -p procwarden-tests --bin procwarden-load -- ingest`.
//! With `--floor` the same load goes to a bare server in the same run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use procwarden_tests::load::{self, Plan, Where};
use serde_json::Value;

#[derive(Parser)]
#[command(
    name = "procwarden-load",
    about = "Puts load on a procwarden collector and measures it"
)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Connects agents that have nothing to say: memory, CPU.
    Connect {
        #[command(flatten)]
        fleet: Fleet,
        /// How long to leave them idle.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Sends findings in batches and waits for each to be durable.
    Ingest(Ingest),
    /// Publishes policies and waits until every agent runs them.
    Push {
        #[command(flatten)]
        fleet: Fleet,
        /// Bytes of the policy.
        #[arg(long, default_value_t = 20_000)]
        bytes: usize,
        /// Revisions to publish.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Breaks every connection at once and waits until all are back.
    Storm {
        #[command(flatten)]
        fleet: Fleet,
        /// Restarts the collector; agents wait as real ones do.
        #[arg(long)]
        restart: bool,
    },
    /// Keeps agents and a stream of findings for a long time.
    Soak {
        #[command(flatten)]
        fleet: Fleet,
        /// How long.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Findings per second.
        #[arg(long, default_value_t = 1_000.0)]
        rate: f64,
    },
    /// Serves as the floor; started by the program itself.
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Fleet {
    /// Hosts to simulate.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
struct Target {
    /// A token with as many uses as there are agents, of a collector that runs
    /// already.
    #[arg(long, requires = "ca")]
    token_file: Option<PathBuf>,
    /// The fleet's CA certificate: `ca/ca.pem` of the collector's data directory.
    #[arg(long, requires = "token_file")]
    ca: Option<PathBuf>,
    /// PID of that collector: its CPU and memory are reported as well.
    #[arg(long, requires = "token_file")]
    server_pid: Option<u32>,
    /// Where the data directory of an own collector is made. For durable
    /// figures it must be on a real disk.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Measures a bare server in the same run.
    #[arg(long)]
    floor: bool,
}

#[derive(Args)]
struct Ingest {
    /// Hosts to simulate.
    #[arg(long, default_value_t = 256)]
    agents: usize,
    #[command(flatten)]
    target: Target,
    /// Findings of one batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Batches a host sends before it waits for an acknowledgement.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Findings per second of all hosts together, evenly spread.
    #[arg(long)]
    rate: Option<f64>,
    /// How long to send.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let files = load::raise_open_files();
    match run(Cli::parse().mode).await {
        Ok(Some(report)) => {
            #[expect(clippy::print_stdout, reason = "the report is the program's output")]
            {
                println!("{report}");
            }
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the failure is for a person")]
            {
                eprintln!("procwarden-load: {error:#} (the limit of open files is {files})");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(mode: Mode) -> anyhow::Result<Option<Value>> {
    match mode {
        Mode::Connect { fleet, seconds } => load::connect(&plan(fleet), seconds).await,
        Mode::Ingest(ingest) => {
            let how = load::Ingest {
                batch: ingest.batch,
                in_flight: ingest.in_flight,
                rate: ingest.rate,
                seconds: ingest.seconds,
            };
            let (agents, target) = (ingest.agents, ingest.target);
            load::ingest(&plan(Fleet { agents, target }), how).await
        }
        Mode::Push {
            fleet,
            bytes,
            rounds,
        } => load::push(&plan(fleet), load::Push { bytes, rounds }).await,
        Mode::Storm { fleet, restart } => load::storm(&plan(fleet), load::Storm { restart }).await,
        Mode::Soak {
            fleet,
            seconds,
            rate,
        } => load::soak(&plan(fleet), load::Soak { seconds, rate }).await,
        Mode::Floor { dir } => return load::serve_floor(&dir).await.map(|()| None),
    }
    .map(Some)
}

fn plan(fleet: Fleet) -> Plan {
    let Fleet { agents, target } = fleet;
    let place = match (target.token_file, target.ca) {
        (Some(token_file), Some(ca_file)) => Where::Given {
            token_file,
            ca_file,
            pid: target.server_pid,
        },
        _ => Where::Own(target.dir),
    };
    Plan {
        agents,
        target: place,
        floor: target.floor,
    }
}
