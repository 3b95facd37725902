//! A load generator: enrolls many hosts with a real token, opens one real
//! mutual-TLS stream each, sends findings as fast as they are acknowledged,
//! and prints one JSON object with what it measured.
//!
//! `procwarden-load ingest --token-file FILE --ca FILE [--agents 256]
//!  [--batch 100] [--in-flight 4] [--seconds 10] [--server-pid PID]`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use procwarden_tests::load;

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
    /// Sends findings in batches and waits for each to be durable.
    Ingest(Ingest),
}

#[derive(Args)]
struct Ingest {
    /// A token with as many uses as there are agents.
    #[arg(long)]
    token_file: PathBuf,
    /// The fleet's CA certificate: `ca/ca.pem` of the collector's data directory.
    #[arg(long)]
    ca: PathBuf,
    /// Hosts to simulate.
    #[arg(long, default_value_t = 256)]
    agents: usize,
    /// Findings of one batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Batches a host sends before it waits for an acknowledgement.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// How long to send.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// PID of the collector: its CPU and memory are reported as well.
    #[arg(long)]
    server_pid: Option<u32>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Mode::Ingest(ingest) = Cli::parse().mode;
    match load::ingest(&plan(ingest)).await {
        Ok(report) => {
            #[expect(clippy::print_stdout, reason = "the report is the program's output")]
            {
                println!("{report}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the failure is for a person")]
            {
                eprintln!("procwarden-load: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn plan(ingest: Ingest) -> load::Plan {
    load::Plan {
        token_file: ingest.token_file,
        ca_file: ingest.ca,
        agents: ingest.agents,
        batch: ingest.batch,
        in_flight: ingest.in_flight,
        seconds: ingest.seconds,
        server_pid: ingest.server_pid,
    }
}
