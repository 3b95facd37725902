//! A new certificate for a host that still has a good one. The host id stays.

use std::time::Instant;

use procwarden_common::id::HostId;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tonic::Status;

use super::FleetContext;
use super::admission::{self, AdmissionRefusal};
use crate::ca::SignError;
use crate::clock;
use crate::enroll::Attempts;
use crate::ledger::CommitError;

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewRefusal {
    #[error(transparent)]
    Host(#[from] AdmissionRefusal),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("the host renewed its certificate too often: try again in an hour")]
    TooOften,
    #[error("{0}")]
    Stopped(String),
}

/// Signs for the same host and notes it in the ledger, where a revocation
/// that came in between still stops it.
pub(super) async fn renew(
    ctx: &FleetContext,
    renewals: &Attempts<HostId>,
    host: HostId,
    csr: &str,
) -> Result<v1::RenewResponse, RenewRefusal> {
    if !renewals.may_try(&host, Instant::now()) {
        return Err(RenewRefusal::TooOften);
    }
    renewals.note(host, Instant::now());
    let now = clock::now();
    let certificate = ctx.authority.sign_host(host, csr, now)?;
    let renewed = v1::HostRenewed {
        host_id: host.as_bytes().to_vec().into(),
        serial: certificate.serial.into(),
        not_after_ms: certificate.not_after.0,
    };
    ctx.ledger
        .commit(now, &format!("host:{host}"), |state| {
            admission::name_of(state, host)?;
            Ok(Entry::HostRenewed(renewed))
        })
        .await
        .map_err(|error| match error {
            CommitError::Refused(refusal) => RenewRefusal::Host(refusal),
            CommitError::Stopped(why) => RenewRefusal::Stopped(why),
        })?;
    tracing::info!(host = %host, not_after = %certificate.not_after, "A host's certificate was renewed.");
    Ok(v1::RenewResponse {
        certificate: certificate.pem,
        ca_certificate: ctx.authority.ca_pem().to_owned(),
    })
}

impl RenewRefusal {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Host(_) => Status::permission_denied(self.to_string()),
            Self::Sign(SignError::Csr(_)) => Status::invalid_argument(self.to_string()),
            Self::TooOften => Status::resource_exhausted(self.to_string()),
            Self::Sign(SignError::Authority(_)) | Self::Stopped(_) => {
                Status::unavailable("the collector cannot renew certificates now: its log says why")
            }
        }
    }
}
