//! `procwarden`, the operator's command: asks the collector over its Unix
//! socket and shows the answers.
//!
//! Promises: what goes to standard output is the answer and nothing else;
//! remarks and failures go to standard error; exit codes are those of
//! [`failure::Failure`]. Never decides anything itself: the collector does.

mod alerts;
mod audit;
mod cli;
mod client;
mod context;
mod failure;
mod findings;
mod hosts;
mod ignore;
mod import;
mod json;
mod output;
mod policy;
mod since;
mod status;
mod table;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok();
            return failure::exit_code_of_usage(&error).into();
        }
    };
    let mut context = Context::new(cli.collector, cli.json);
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(run(cli.command, &mut context)))
        .and_then(|()| context.out.flush());
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    if !matches!(failure, Failure::OutputClosed) {
        context.out.remark(&format!("procwarden: {failure}"));
    }
    failure.exit_code().into()
}

async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Status => status::run(context).await,
        Command::Token(command) => token::run(command, context).await,
        Command::Hosts(command) => hosts::run(command, context).await,
        Command::Findings(command) => findings::run(command, context).await,
        Command::Policy(command) => policy::run(command, context).await,
        Command::Ignore(args) => ignore::run(args, context).await,
        Command::Import(command) => import::run(command, context).await,
        Command::Alerts(command) => alerts::run(command, context).await,
        Command::Audit { since, limit } => audit::run(since, limit, context).await,
    }
}
