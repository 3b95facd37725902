//! The fleet's listener: mutual TLS, one stream per agent, and the renewal of
//! certificates.
//!
//! Promises: the host id comes from the client certificate alone; a host that
//! the ledger does not know, or that was revoked, gets nothing but the reason.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use procwarden_common::id::HostId;
use procwarden_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::transport::Server;
use tonic::{Extensions, Request, Response, Status};

use crate::accept::{Acceptor, ConnectInfo, HANDSHAKES_EACH_MAX, HANDSHAKES_MAX, LogLimit};
use crate::ca::Authority;
use crate::clock;
use crate::enroll::Attempts;
use crate::findings::Findings;
use crate::ledger::Ledger;
use crate::metrics::Meters;
use crate::open_files;
use crate::session::{self, Ingest, Link, Outgoing, Requests, WantedPolicies};
use crate::sessions::Sessions;
use crate::tls::{PeerIdentity, ServerTls};
use service::FleetRoutes;

pub(crate) mod admission;
pub(crate) mod drain;
pub(crate) mod overload;
mod renew;
mod service;
#[cfg(test)]
mod tests;

/// Open connections; the limit of open files usually comes first.
const CONNECTIONS_MAX: usize = 65_536;

/// Of one host: its stream, a renewal, and old ones that nobody closed.
const CONNECTIONS_EACH_MAX: usize = 8;

/// One stream, one renewal, and some that are just ending.
const REQUESTS_PER_CONNECTION: u32 = 8;
const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// Until an answer begins; how long a stream then lasts is another matter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A peer that does not answer a ping is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams whose hello has not come yet; who comes later is asked to wait.
const GREETING_MAX: usize = 4_096;

/// Connections that are kept to tell hosts that there is no place left.
const REFUSING_MAX: usize = 256;

/// Renewals of one host within the window: each is a record in the ledger.
const RENEWALS_MAX: u32 = 6;
const RENEWALS_WINDOW: Duration = Duration::from_secs(3600);

/// Lines about refused hosts per second.
const REFUSAL_LINES_PER_SECOND: u32 = 5;

/// Lines about the coming, going and nonsense of admitted hosts per second.
const SESSION_LINES_PER_SECOND: u32 = 50;

/// Streams at once: as many as the limit of open files leaves room for.
fn streams_max() -> usize {
    open_files::for_connections().clamp(1, CONNECTIONS_MAX)
}

/// What the fleet's listener works with.
#[derive(Clone)]
pub(crate) struct FleetContext {
    pub(crate) authority: Arc<Authority>,
    pub(crate) ledger: Ledger,
    pub(crate) findings: Findings,
    pub(crate) sessions: Sessions,
    pub(crate) meters: Meters,
}

/// Serves agents until `shutdown`; returns when drained.
///
/// # Errors
/// When there is no certificate to serve with, or the server failed.
pub(crate) async fn serve(
    listener: TcpListener,
    ctx: FleetContext,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let tls = ServerTls::new(Arc::clone(&ctx.authority), true, clock::now())
        .context("cannot serve the fleet")?;
    let tls = Arc::new(tls);
    let incoming = Acceptor {
        name: "fleet",
        listener,
        tls: Arc::clone(&tls),
        connections_max: streams_max() + REFUSING_MAX,
        connections_each_max: CONNECTIONS_EACH_MAX,
        handshakes_max: HANDSHAKES_MAX,
        handshakes_each_max: HANDSHAKES_EACH_MAX,
    }
    .start(shutdown.clone());
    let service = FleetRoutes(Arc::new(Api::new(ctx, shutdown.clone())));
    let server = Server::builder()
        .timeout(ANSWER_TIMEOUT)
        .max_concurrent_streams(REQUESTS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(service);
    let mut stop = shutdown.clone();
    let serving = server.serve_with_incoming_shutdown(incoming, async move {
        crate::tls::stopping(&mut stop).await;
    });
    drain::serve("fleet", serving, &tls, shutdown).await
}

struct Api {
    ctx: FleetContext,
    wanted: Arc<WantedPolicies>,
    ingest: Ingest,
    streams: Arc<Semaphore>,
    greeting: Arc<Semaphore>,
    renewals: Attempts<HostId>,
    lines: LogLimit,
    session_lines: Arc<LogLimit>,
    shutdown: watch::Receiver<bool>,
}

/// A host that may talk to the collector.
struct Admitted {
    identity: PeerIdentity,
    /// Its name in the ledger.
    name: String,
}

// === impl Api ===

impl Api {
    fn new(ctx: FleetContext, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            ctx,
            wanted: Arc::default(),
            ingest: Ingest::new(),
            streams: Arc::new(Semaphore::new(streams_max())),
            greeting: Arc::new(Semaphore::new(GREETING_MAX)),
            renewals: Attempts::new(RENEWALS_MAX, RENEWALS_WINDOW),
            lines: LogLimit::per_second(REFUSAL_LINES_PER_SECOND),
            session_lines: Arc::new(LogLimit::per_second(SESSION_LINES_PER_SECOND)),
            shutdown,
        }
    }

    /// Begins a session with a host that may have one. One that finds no place
    /// is told when to come back.
    fn connect(
        &self,
        peer: &ConnectInfo,
        requests: Requests,
        outgoing: Outgoing,
    ) -> Result<(), Status> {
        let admitted = self.admit(peer)?;
        let (stream, greeting) = match self.places() {
            Ok(places) => places,
            Err(come_back) => {
                self.turn_away(&admitted, come_back, outgoing);
                return Ok(());
            }
        };
        let link = Link {
            host_id: admitted.identity.host_id,
            host_name: admitted.name,
            certificate_not_after: admitted.identity.not_after,
            peer: peer.peer,
            ctx: self.ctx.clone(),
            wanted: Arc::clone(&self.wanted),
            ingest: self.ingest.clone(),
            greeting: Some(greeting),
            _stream: stream,
            lines: Arc::clone(&self.session_lines),
            shutdown: self.shutdown.clone(),
        };
        tokio::spawn(session::run(link, requests, outgoing));
        Ok(())
    }

    fn places(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), v1::RetryAfter> {
        let place = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
        let stream = place(&self.streams).map_err(|_| overload::full())?;
        let greeting = place(&self.greeting).map_err(|_| overload::busy(GREETING_MAX))?;
        Ok((stream, greeting))
    }

    fn turn_away(&self, admitted: &Admitted, come_back: v1::RetryAfter, outgoing: Outgoing) {
        if let Some(suppressed) = self.lines.admit() {
            tracing::warn!(
                host = %admitted.identity.host_id, name = admitted.name,
                after_ms = come_back.after_ms, spread_ms = come_back.spread_ms, suppressed,
                "The collector is full or busy: an agent was asked to come back later."
            );
        }
        let status = Status::resource_exhausted("the collector has no place for a stream now");
        tokio::spawn(outgoing.finish(Some(come_back), Some(status)));
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let admitted = self.admit(peer_of(request.extensions())?)?;
        let host = admitted.identity.host_id;
        let csr = request.into_inner().csr;
        renew::renew(&self.ctx, &self.renewals, host, &csr).await.map(Response::new).map_err(
            |refusal| {
                if let Some(suppressed) = self.lines.admit() {
                    tracing::warn!(host = %host, name = admitted.name, reason = %refusal, suppressed, "A certificate was not renewed.");
                }
                refusal.status()
            },
        )
    }

    /// Who asks, if it may.
    fn admit(&self, peer: &ConnectInfo) -> Result<Admitted, Status> {
        let identity = self
            .identify(peer)
            .map_err(|reason| self.refuse(peer, None, reason))?;
        let host = identity.host_id;
        self.ctx
            .ledger
            .read(|state| admission::name_of(state, host))
            .map(|name| Admitted { identity, name })
            .map_err(|reason| self.refuse(peer, Some(host), reason.to_string()))
    }

    fn identify(&self, peer: &ConnectInfo) -> Result<PeerIdentity, String> {
        let certificate = peer.certificate.as_ref();
        let certificate =
            certificate.ok_or_else(|| "the connection has no client certificate".to_owned())?;
        PeerIdentity::of_certificate(certificate, self.ctx.authority.fleet_id())
    }

    fn refuse(&self, peer: &ConnectInfo, host: Option<HostId>, reason: String) -> Status {
        if let Some(suppressed) = self.lines.admit() {
            tracing::warn!(
                peer = %peer.peer, host = host.map(tracing::field::display),
                reason, suppressed, "An agent was refused."
            );
        }
        Status::permission_denied(reason)
    }
}

fn peer_of(extensions: &Extensions) -> Result<&ConnectInfo, Status> {
    extensions
        .get()
        .ok_or_else(|| Status::internal("the peer of the connection is not known"))
}
