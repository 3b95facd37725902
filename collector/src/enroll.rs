//! Enrolment: token in, identity out. The one listener that talks to peers
//! without a certificate, so everything here is bounded.
//!
//! The road: attempts of the peer's network -> token -> certificate -> commit,
//! in which the token is checked again -> answer. Two hosts can never both
//! take the last use of a token, and a certificate that was handed out is in
//! the ledger.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use procwarden_common::id::HostId;
use procwarden_common::printable::printable;
use procwarden_proto::v1;
use procwarden_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use procwarden_proto::v1::ledger_record::Entry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::accept::{Acceptor, ConnectInfo, HANDSHAKES_EACH_MAX, HANDSHAKES_MAX, LogLimit};
use crate::ca::{Authority, IssuedCertificate, SignError};
use crate::clock;
use crate::fleet::drain;
use crate::ledger::{CommitError, Ledger};
use crate::session::intake;
use crate::tls::ServerTls;
use crate::tokens::{self, TokenRefusal};

use together::Together;

mod attempts;
#[cfg(test)]
mod tests;
mod together;
pub(crate) use attempts::{Attempts, network_of};

/// Open connections: an enrolment takes a moment, and nobody stays longer.
const CONNECTIONS_MAX: usize = 1024;
const CONNECTIONS_EACH_MAX: usize = 64;
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30);
const CONNECTION_GRACE: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const REQUESTS_PER_CONNECTION: u32 = 2;
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// Failed attempts of one network within the window.
const FAILURES_MAX: u32 = 20;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);

/// Lines about refused enrolments per second.
const REFUSAL_LINES_PER_SECOND: u32 = 5;

/// What enrolment works with.
#[derive(Clone)]
pub(crate) struct EnrollContext {
    pub(crate) authority: Arc<Authority>,
    pub(crate) ledger: Ledger,
    /// Port of the fleet listener, which agents are sent to.
    pub(crate) fleet_port: u16,
}

/// Serves enrolments until `shutdown`; returns when drained.
///
/// # Errors
/// When there is no certificate to serve with, or the server failed.
pub(crate) async fn serve(
    listener: TcpListener,
    ctx: EnrollContext,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let tls = ServerTls::new(Arc::clone(&ctx.authority), false, clock::now())
        .context("cannot serve enrolments")?;
    let tls = Arc::new(tls);
    let incoming = Acceptor {
        name: "enroll",
        listener,
        tls: Arc::clone(&tls),
        connections_max: CONNECTIONS_MAX,
        connections_each_max: CONNECTIONS_EACH_MAX,
        handshakes_max: HANDSHAKES_MAX,
        handshakes_each_max: HANDSHAKES_EACH_MAX,
    }
    .start(shutdown.clone());
    let api = Api {
        ctx,
        together: Together::default(),
        failures: Attempts::new(FAILURES_MAX, FAILURES_WINDOW),
        lines: LogLimit::per_second(REFUSAL_LINES_PER_SECOND),
    };
    let service = EnrollmentServiceServer::new(api).max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = Server::builder()
        .timeout(REQUEST_TIMEOUT)
        .max_concurrent_streams(REQUESTS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_connection_age(CONNECTION_AGE_MAX)
        .max_connection_age_grace(CONNECTION_GRACE)
        .add_service(service);
    let mut stop = shutdown.clone();
    let serving = server.serve_with_incoming_shutdown(incoming, async move {
        crate::tls::stopping(&mut stop).await;
    });
    drain::serve("enroll", serving, &tls, shutdown).await
}

struct Api {
    ctx: EnrollContext,
    together: Together,
    failures: Attempts<IpAddr>,
    lines: LogLimit,
}

/// Why a host was not enrolled.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("too many enrolments from this address failed: try again in a minute")]
    TooOften,
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    #[error("the host name {0}")]
    HostName(&'static str),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("{0}")]
    Stopped(String),
}

/// What was decided about a host.
struct Enrolled {
    host_id: HostId,
    host_name: String,
    certificate: IssuedCertificate,
}

// === impl Api ===

#[tonic::async_trait]
impl EnrollmentService for Api {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let peer = request
            .extensions()
            .get::<ConnectInfo>()
            .map(|info| info.peer)
            .ok_or_else(|| Status::internal("the peer of the connection is not known"))?;
        let network = network_of(peer.ip());
        if !self.failures.may_try(&network, Instant::now()) {
            self.log(&Refusal::TooOften, "", peer);
            return Err(Refusal::TooOften.status());
        }
        let request = request.into_inner();
        let token_id = printable(
            request
                .token_id
                .as_bytes()
                .get(..64)
                .unwrap_or(request.token_id.as_bytes()),
        );
        match self.decide(request).await {
            Ok(enrolled) => {
                tracing::info!(
                    host = %enrolled.host_id, name = enrolled.host_name, token = token_id, peer = %peer,
                    "A host was enrolled."
                );
                self.together.look(&self.ctx.ledger, enrolled.host_id);
                Ok(Response::new(self.answer(enrolled)))
            }
            Err(refusal) => {
                if refusal.is_peers_fault() {
                    self.failures.note(network, Instant::now());
                }
                self.log(&refusal, &token_id, peer);
                Err(refusal.status())
            }
        }
    }
}

impl Api {
    async fn decide(&self, request: v1::EnrollRequest) -> Result<Enrolled, Refusal> {
        let now = clock::now();
        let EnrollContext {
            authority, ledger, ..
        } = &self.ctx;
        let v1::EnrollRequest {
            token_id,
            secret,
            csr,
            host_name,
            ..
        } = request;
        ledger.read(|state| tokens::check(state, &token_id, &secret, now).map(drop))?;
        let host_name = intake::host_name(&host_name).map_err(Refusal::HostName)?;
        let host_id = HostId::from_uuid(Uuid::new_v4());
        let certificate = authority.sign_host(host_id, &csr, now)?;
        let mut entry = v1::HostEnrolled {
            host_id: host_id.as_bytes().to_vec().into(),
            host_name: host_name.clone(),
            token_id,
            groups: Vec::new(),
            serial: certificate.serial.clone().into(),
            not_after_ms: certificate.not_after.0,
        };
        ledger
            .commit(now, &format!("host:{host_id}"), |state| {
                let token = tokens::check(state, &entry.token_id, &secret, now)?;
                entry.groups = token.groups.clone();
                Ok(Entry::HostEnrolled(entry))
            })
            .await?;
        Ok(Enrolled {
            host_id,
            host_name,
            certificate,
        })
    }

    fn answer(&self, enrolled: Enrolled) -> v1::EnrollResponse {
        v1::EnrollResponse {
            host_id: enrolled.host_id.as_bytes().to_vec().into(),
            fleet_id: self.ctx.authority.fleet_id().to_string(),
            ca_certificate: self.ctx.authority.ca_pem().to_owned(),
            certificate: enrolled.certificate.pem,
            fleet_port: self.ctx.fleet_port.into(),
        }
    }

    fn log(&self, refusal: &Refusal, token_id: &str, peer: SocketAddr) {
        if let Some(suppressed) = self.lines.admit() {
            tracing::warn!(
                token = token_id, peer = %peer, reason = %refusal, suppressed,
                "An enrolment was refused."
            );
        }
    }
}

// === impl Refusal ===

impl Refusal {
    fn is_peers_fault(&self) -> bool {
        !matches!(self, Self::Stopped(_) | Self::Sign(SignError::Authority(_)))
    }

    /// The peer learns what it can mend; of the collector's own trouble, only
    /// that there is some.
    fn status(&self) -> Status {
        match self {
            Self::TooOften => Status::resource_exhausted(self.to_string()),
            Self::Token(_) => Status::permission_denied(self.to_string()),
            Self::HostName(_) | Self::Sign(SignError::Csr(_)) => {
                Status::invalid_argument(self.to_string())
            }
            Self::Sign(SignError::Authority(_)) | Self::Stopped(_) => {
                Status::unavailable("the collector cannot enrol hosts now: its log says why")
            }
        }
    }
}

impl From<CommitError<TokenRefusal>> for Refusal {
    fn from(error: CommitError<TokenRefusal>) -> Self {
        match error {
            CommitError::Refused(refusal) => Self::Token(refusal),
            CommitError::Stopped(why) => Self::Stopped(why),
        }
    }
}
