//! `procwarden-collector`: enrols hosts, records their findings, sends alerts
//! and policies.

use std::process::ExitCode;

mod accept;
mod admin;
mod alert;
mod backup;
mod ca;
mod cli;
mod clock;
mod config;
mod dedup;
mod enroll;
mod findings;
mod fleet;
mod hosts;
mod journal;
mod ledger;
mod logging;
mod metrics;
mod open_files;
mod policy;
mod rollouts;
mod run;
mod service;
mod session;
mod sessions;
mod store;
mod tls;
mod tokens;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(help_or_error) => return run::explain(&help_or_error),
    };
    logging::start();
    match run::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
