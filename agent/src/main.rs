//! The agent of procwarden: one process per server that scans, judges and
//! reports. This file only dispatches; `run.rs` is the road to read, `scan.rs`
//! what it is for.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use clap::error::ErrorKind;
use procwarden_common::token::{InvalidToken, Token};

use cli::{Cli, Command, EnrollArgs, StatusArgs, TokenArgs};
use config::InvalidConfig;
use identity::IdentityError;

mod actions;
mod address;
mod cli;
mod clock;
mod config;
mod confirm;
mod detect;
mod enroll;
mod errors;
mod events;
mod evidence;
mod files;
mod health;
mod hits;
mod host;
mod identity;
mod load;
mod lock;
mod logging;
mod oneshot;
mod policy;
mod procfs;
mod progress;
mod reported;
mod run;
mod scan;
mod service;
mod snapshot;
mod sockets;
mod spool;
mod status;
mod tls;
mod uplink;
mod users;

/// Usage or configuration is wrong (sysexits' EX_USAGE).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return show_usage(&error),
    };
    logging::start();
    match dispatch(cli.command) {
        Ok(code) => code,
        // Who pipes into `head` has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // A standard error that takes nothing must not change the exit code.
            let told = writeln!(anstream::stderr(), "procwarden-agent: {error:#}");
            drop(told);
            exit_code_of(&error)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    // The first in the tree wins; anything else would be a second provider.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another provider of cryptography is installed already");
    }
    match command {
        Command::Enroll(args) => enroll_host(&args),
        Command::Run(args) => run::run(&args),
        Command::Scan(args) => oneshot::run(args),
        Command::Status(args) => show_status(&args),
    }
}

fn enroll_host(args: &EnrollArgs) -> anyhow::Result<ExitCode> {
    let config = run::load_config(&args.common)?;
    let token = Token::parse(&token_text(&args.token)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(enroll::enroll(&config.state_dir, &token, args.force)) {
        Ok(facts) => {
            tracing::info!(host_id = %facts.host_id, "The host is enrolled.");
            anstream::println!(
                "enrolled as host {} of fleet {}; the collector is {}",
                facts.host_id,
                facts.fleet_id,
                facts.collector
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            tracing::error!(%error, "The host is not enrolled.");
            Err(error.into())
        }
    }
}

fn token_text(args: &TokenArgs) -> anyhow::Result<String> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the token file {}", file.display())),
        (None, None) => Ok(String::new()),
    }
}

fn show_status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let config = run::load_config(&args.common)?;
    status::show(&config.state_dir, args.json, &mut anstream::stdout())
}

fn show_usage(error: &clap::Error) -> ExitCode {
    // A closed standard output leaves nobody to tell.
    let printed = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if printed.is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_USAGE),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// 64 for what a person has to correct before trying again, else 1.
fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    let is_usage = error.is::<InvalidConfig>()
        || error.is::<InvalidToken>()
        || matches!(
            error.downcast_ref(),
            Some(IdentityError::NotEnrolled { .. })
        );
    if is_usage {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_has_to_correct_exits_64() {
        let usage = format!("{:?}", ExitCode::from(EXIT_USAGE));
        for (error, is_usage) in [
            (InvalidConfig(vec![]).into(), true),
            (Token::parse("x").unwrap_err().into(), true),
            (IdentityError::NotEnrolled { dir: "d".into() }.into(), true),
            (IdentityError::Exists { dir: "d".into() }.into(), false),
            (anyhow::anyhow!("network"), false),
        ] {
            assert_eq!(
                format!("{:?}", exit_code_of(&error)) == usage,
                is_usage,
                "{error}"
            );
        }
    }
}
