//! What the operator's command asks of the collector, over a Unix socket.
//!
//! One file per noun answers; `service` only hands over. Every decision goes
//! to the ledger under the name of the account that asked.
//!
//! Promises: nobody is answered but root, the account that runs the collector
//! and the members of the group that owns the socket. Never trusts a name that
//! a message carries.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::limits::MESSAGE_BYTES_MAX;
use procwarden_proto::v1;
use procwarden_proto::v1::admin_service_server::AdminServiceServer;
use procwarden_proto::v1::backup_service_server::BackupServiceServer;
use procwarden_proto::v1::ledger_record::Entry;
use tokio::sync::watch;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;

use crate::alert::Outbox;
use crate::ca::Authority;
use crate::config::Config;
use crate::findings::Findings;
use crate::hosts::Moment;
use crate::ledger::{CommitError, Ledger, LedgerState};
use crate::rollouts::Rollouts;
use crate::sessions::Sessions;

mod alerts;
mod audit;
mod caller;
mod export;
mod findings;
mod hits;
mod hosts;
mod ignore;
mod learning;
mod policies;
mod preview;
mod refusal;
mod rollouts;
mod service;
mod socket;
mod status;
mod tokens;

pub(crate) use audit::audit_entry;
use caller::Caller;
pub(crate) use socket::AdminSocket;

/// What the answers are made from.
pub(crate) struct AdminContext {
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) ledger: Ledger,
    pub(crate) authority: Arc<Authority>,
    pub(crate) findings: Findings,
    pub(crate) sessions: Sessions,
    pub(crate) rollouts: Rollouts,
    pub(crate) outbox: Outbox,
    pub(crate) started_at: UnixMillis,
    /// As bound, with the port that the kernel chose.
    pub(crate) fleet_address: SocketAddr,
    pub(crate) enroll_address: SocketAddr,
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// Answers until `shutdown` becomes true, then finishes what is in flight.
pub(crate) async fn serve(
    socket: AdminSocket,
    context: AdminContext,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let backup = export::Backup::new(&context);
    let backup = InterceptedService::new(BackupServiceServer::new(backup), caller::admit);
    let service = AdminServiceServer::new(service::Admin::new(context))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let service = InterceptedService::new(service, caller::admit);
    let (incoming, _remove_at_end) = socket.connections(shutdown.clone());
    let stopped = async move { drop(shutdown.wait_for(|stop| *stop).await) };
    tonic::transport::Server::builder()
        .add_service(service)
        .add_service(backup)
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

impl AdminContext {
    /// Commits a decision of the caller to the ledger.
    async fn commit(
        &self,
        caller: &Caller,
        decide: impl FnOnce(&LedgerState) -> Result<Entry, Status>,
    ) -> Result<(), Status> {
        match self
            .ledger
            .commit(crate::clock::now(), caller.actor(), decide)
            .await
        {
            Ok(()) => Ok(()),
            Err(CommitError::Refused(refused)) => Err(refused),
            Err(CommitError::Stopped(why)) => Err(refusal::internal(why)),
        }
    }

    /// The moment that an answer is about.
    fn moment(&self) -> Moment {
        Moment {
            now: crate::clock::now(),
            collector_started_at: self.started_at,
        }
    }
}

/// Remarks as messages.
fn messages(remarks: &[Diagnostic]) -> Vec<v1::Diagnostic> {
    remarks.iter().map(v1::Diagnostic::from).collect()
}

#[cfg(test)]
mod tests;
