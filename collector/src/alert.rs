//! Alerts: from findings that were recorded to mails that were sent.
//!
//! Two tasks and one durable list between them. [`queue`] follows the findings
//! journal, gathers what belongs together ([`group`], pure) and writes alerts
//! to the ledger. [`outbox`] takes unsent alerts from there, renders them
//! ([`render`], pure) and hands them to the mail transport ([`mailer`]).
//!
//! Promises: every alertable finding reaches every recipient whose route
//! matches, whatever is killed or unreachable meanwhile; a mail that had to be
//! sent twice carries the same Message-ID; nothing is dropped silently.
//! Never changes or hides a finding.

use std::sync::Arc;

use arc_swap::ArcSwap;
use procwarden_common::id::FleetId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::findings::Findings;
use crate::ledger::Ledger;

pub(crate) mod expiry;
pub(crate) mod group;
pub(crate) mod mailer;
pub(crate) mod outbox;
pub(crate) mod queue;
pub(crate) mod render;
pub(crate) mod retry;
pub(crate) mod route;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use mailer::send_test;
pub(crate) use outbox::Outbox;

/// What both tasks work with.
#[derive(Clone)]
pub(crate) struct AlertContext {
    /// The newest configuration that passed its checks.
    pub(crate) config: Arc<ArcSwap<Config>>,
    /// Holds the outbox and its place in the findings journal.
    pub(crate) ledger: Ledger,
    /// What alerts are about.
    pub(crate) findings: Findings,
    /// Makes Message-IDs of different fleets differ.
    pub(crate) fleet_id: FleetId,
}

/// The actor of the alerts' entries in the ledger.
const ACTOR: &str = "collector";

/// Starts both tasks. They end when `shutdown` becomes true: a mail in flight
/// is finished (bounded), everything else stays durable.
pub(crate) fn start(
    context: AlertContext,
    shutdown: watch::Receiver<bool>,
) -> (Outbox, JoinHandle<()>) {
    let outbox = Outbox::new(context.ledger.clone());
    let sender = outbox.clone();
    let task = tokio::spawn(async move {
        tokio::join!(
            queue::run(context.clone(), shutdown.clone()),
            outbox::run(context.clone(), sender, shutdown.clone()),
        );
    });
    (outbox, task)
}

/// Resolves once the process is asked to stop, or nobody can ask any more.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the asking side is gone, which also means to stop.
    drop(shutdown.wait_for(|stop| *stop).await);
}
