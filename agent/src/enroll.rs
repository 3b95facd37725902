//! `procwarden-agent enroll`: from a token to an identity.
//!
//! Promises: the key is made here and never leaves; the token is sent to
//! nobody but the collector whose CA it pins; the identity is on the disk,
//! whole, before success is told. A refusal leaves everything as it was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use procwarden_common::id::{FleetId, HostId};
use procwarden_common::token::Token;
use procwarden_proto::v1;
use procwarden_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::Code;

use crate::address::Address;
use crate::identity::{self, Facts, IdentityError, KeyRequest};
use crate::lock::{self, LockError};
use crate::tls::{self, TlsError};
use crate::{clock, errors, host};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the host is not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    /// The collector said no.
    #[error("the collector at {address} refused the enrolment: {reason}")]
    Refused {
        /// Who said so.
        address: Address,
        /// Its words, made safe.
        reason: String,
    },
    /// Nobody answered who may be trusted with the token.
    #[error("no collector could be reached with this token:\n  {}", .0.join("\n  "))]
    Unreachable(Vec<String>),
    /// The answer is not one of the collector that made the token.
    #[error("the collector at {address} gave a wrong answer, nothing was kept: {reason}")]
    WrongAnswer {
        /// Who gave it.
        address: Address,
        /// What is wrong with it.
        reason: String,
    },
    /// The state directory is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The identity is there already, or cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Enrols this host. An old identity is replaced only when `force` is set.
pub(crate) async fn enroll(
    state_dir: &Path,
    token: &Token,
    force: bool,
) -> Result<Facts, EnrollError> {
    let dir = identity::dir(state_dir);
    if dir.exists() && !force {
        return Err(IdentityError::Exists {
            dir: dir.display().to_string(),
        }
        .into());
    }
    let _lock = lock::take(state_dir)?;
    let request = KeyRequest::generate()?;
    let config = Arc::new(tls::enrolment_config(token.ca_sha256)?);
    let (address, answer) = ask(token, &request, config).await?;
    let facts = take_answer(token, &request, &address, &answer)?;
    let host_pem = request.host_pem(&answer.certificate);
    identity::create(state_dir, &facts, &answer.ca_certificate, &host_pem, force)?;
    Ok(facts)
}

/// Asks one address after the other until a collector answers.
async fn ask(
    token: &Token,
    request: &KeyRequest,
    config: Arc<ClientConfig>,
) -> Result<(Address, v1::EnrollResponse), EnrollError> {
    let mut tried = Vec::new();
    for text in &token.addresses {
        let address: Address = match text.parse() {
            Ok(address) => address,
            Err(error) => {
                tried.push(format!("{}: {error}", errors::safe(text)));
                continue;
            }
        };
        match ask_one(&address, token, request, Arc::clone(&config)).await {
            Ok(answer) => return Ok((address, answer)),
            Err(Attempt::Refused(reason)) => return Err(EnrollError::Refused { address, reason }),
            Err(Attempt::Failed(reason)) => {
                tracing::warn!(%address, reason, "The collector could not be reached.");
                tried.push(format!("{address}: {reason}"));
            }
        }
    }
    Err(EnrollError::Unreachable(tried))
}

enum Attempt {
    /// Another address may do better.
    Failed(String),
    Refused(String),
}

async fn ask_one(
    address: &Address,
    token: &Token,
    request: &KeyRequest,
    config: Arc<ClientConfig>,
) -> Result<v1::EnrollResponse, Attempt> {
    let channel = tls::connect(address, config)
        .await
        .map_err(|error| Attempt::Failed(errors::chain(&error)))?;
    let message = v1::EnrollRequest {
        token_id: token.id.clone(),
        secret: Bytes::copy_from_slice(&token.secret),
        csr: request.csr_pem(),
        host_name: host::name(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut client = EnrollmentServiceClient::new(channel);
    match timeout(CALL_TIMEOUT, client.enroll(message)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Attempt::Failed(errors::chain(&status))
            }
            _ => Attempt::Refused(errors::chain(&status)),
        }),
        Err(_) => Err(Attempt::Failed("no answer within 30 s".to_owned())),
    }
}

/// Checks every part of the answer against token and key.
fn take_answer(
    token: &Token,
    request: &KeyRequest,
    address: &Address,
    answer: &v1::EnrollResponse,
) -> Result<Facts, EnrollError> {
    let wrong = |reason: String| EnrollError::WrongAnswer {
        address: address.clone(),
        reason: errors::safe(&reason),
    };
    let host_id = HostId::from_slice(&answer.host_id).map_err(|e| wrong(e.to_string()))?;
    let fleet_id: FleetId = answer.fleet_id.parse().map_err(|e| wrong(format!("{e}")))?;
    let port = u16::try_from(answer.fleet_port)
        .ok()
        .filter(|&port| port != 0);
    let port = port.ok_or_else(|| wrong("its fleet port is out of range".to_owned()))?;
    let pem = |text: &str| {
        CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| wrong(e.to_string()))
    };
    let (ca, leaf) = (pem(&answer.ca_certificate)?, pem(&answer.certificate)?);
    if <[u8; 32]>::from(Sha256::digest(&ca)) != token.ca_sha256 {
        return Err(wrong(
            "its CA is not the one that the token pins".to_owned(),
        ));
    }
    identity::check(&leaf, &ca, host_id, fleet_id, clock::now())
        .map_err(|e| wrong(e.to_string()))?;
    identity::read_host_pem(request.host_pem(&answer.certificate).as_bytes())
        .map_err(|e| wrong(e.to_string()))?;
    Ok(Facts {
        host_id,
        fleet_id,
        collector: address.with_port(port),
    })
}
