//! One agent's stream: hello, then batches and heartbeats up; acks, policies
//! and scan requests down.
//!
//! Three things happen side by side: `read` takes messages in, `record` makes
//! batches durable and acks them, `direct` sends what the agent shall run or
//! do. Batches are read while earlier ones become durable; what has queued up
//! meanwhile is recorded and acked together, in order.
//!
//! Promises: an ack leaves only after its events are durable; an event that
//! makes no sense is logged, counted and acked, so it never blocks an agent's
//! spool; every queue is bounded, and an agent that does not read is cut off.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{BootId, HostId};
use procwarden_proto::v1;
use procwarden_proto::v1::received_request::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

use crate::accept::LogLimit;
use crate::clock;
use crate::fleet::{FleetContext, overload};
use crate::sessions::{Seat, SessionInfo};
use crate::tls::stopping;

mod direct;
mod end;
mod fair;
mod ingest;
pub(crate) mod intake;
mod outgoing;
mod read;
mod record;
mod requests;
mod wanted;

use end::End;
pub(crate) use ingest::Ingest;
pub(crate) use outgoing::Outgoing;
pub(crate) use requests::Requests;
pub(crate) use wanted::WantedPolicies;

/// How long a connected agent may keep silent before its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Batches of one session between the socket and the disk.
const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// What a session works with.
pub(crate) struct Link {
    pub(crate) host_id: HostId,
    /// As the ledger has it: what the host calls itself is only shown.
    pub(crate) host_name: String,
    pub(crate) certificate_not_after: UnixMillis,
    pub(crate) peer: SocketAddr,
    pub(crate) ctx: FleetContext,
    pub(crate) wanted: Arc<WantedPolicies>,
    /// Room for batches of all sessions that wait to become durable.
    pub(crate) ingest: Ingest,
    /// Its place among those that are being greeted, until its hello.
    pub(crate) greeting: Option<OwnedSemaphorePermit>,
    /// Its place among the streams.
    pub(crate) _stream: OwnedSemaphorePermit,
    /// For every line that a host can cause: it may reconnect, or send
    /// nonsense, as often as it likes.
    pub(crate) lines: Arc<LogLimit>,
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// Runs a session to its end and tells the agent why it ended.
pub(crate) async fn run(mut link: Link, mut requests: Requests, outgoing: Outgoing) {
    let mut shutdown = link.shutdown.clone();
    let greeted = tokio::select! {
        () = stopping(&mut shutdown) => Err(End::Stopping),
        greeted = timeout(HELLO_TIMEOUT, greet(&mut requests)) => {
            greeted.unwrap_or(Err(End::NoHello))
        }
    };
    link.greeting = None;
    let end = match greeted {
        Ok(hello) => talk(&link, hello, requests, &outgoing).await,
        Err(end) => end,
    };
    log_end(&link, &end);
    let come_back = match end {
        End::Stopping => Some(overload::stopping(link.ctx.sessions.known_count())),
        _ => None,
    };
    outgoing.finish(come_back, end.status()).await;
}

/// What a hello said, checked.
struct Greeting {
    boot_id: BootId,
    hello: v1::Hello,
}

async fn greet(requests: &mut Requests) -> Result<Greeting, End> {
    let request = requests
        .message()
        .await
        .map_err(End::Broken)?
        .ok_or(End::PeerLeft)?;
    let Some(Message::Hello(hello)) = request.message else {
        return Err(End::Protocol("the first message is no hello"));
    };
    let boot_id = BootId::from_slice(&hello.boot_id)
        .map_err(|_| End::Protocol("the boot id of the hello has not 16 bytes"))?;
    Ok(Greeting { boot_id, hello })
}

async fn talk(link: &Link, greeting: Greeting, requests: Requests, outgoing: &Outgoing) -> End {
    let info = info_of(link, greeting);
    let runs = info.policy.applied_hash.to_vec();
    log_start(link, &info);
    let boot_id = info.boot_id;
    let seat = link.ctx.sessions.open(link.host_id, info);
    log_replaced(link, &seat, boot_id);

    let (queue, batches) = mpsc::channel(BATCHES_IN_FLIGHT_MAX);
    let mut recording = pin!(record::record(link, batches, outgoing));
    let mut shutdown = link.shutdown.clone();
    let end = tokio::select! {
        cut = seat.cut() => return End::Cut(cut),
        () = stopping(&mut shutdown) => End::Stopping,
        () = certificate_end(link) => End::CertificateEnded,
        recorded = &mut recording => return recorded.err().unwrap_or(End::PeerLeft),
        end = direct::direct(link, &seat, outgoing, runs) => end,
        end = read::read(link, &seat, requests, queue) => end,
    };
    // The queue's end is gone with `read`: what was read is finished.
    tokio::select! {
        cut = seat.cut() => End::Cut(cut),
        recorded = recording => recorded.err().unwrap_or(end),
    }
}

fn info_of(link: &Link, greeting: Greeting) -> SessionInfo {
    let Greeting { boot_id, hello } = greeting;
    SessionInfo {
        connected: true,
        host_name: intake::host_name(&hello.host_name).unwrap_or_else(|_| link.host_name.clone()),
        agent_version: intake::words(&hello.agent_version, intake::WORD_BYTES_MAX),
        kernel: intake::words(&hello.kernel, intake::WORD_BYTES_MAX),
        boot_id,
        last_heartbeat: Some(clock::now()),
        policy: intake::policy_state(hello.policy.unwrap_or_default()),
        health: None,
        held_back: v1::HeldBack::default(),
    }
}

/// A stream must not outlive the certificate it was opened with.
async fn certificate_end(link: &Link) {
    let left = link.certificate_not_after.millis_since(clock::now());
    tokio::time::sleep(Duration::from_millis(left)).await;
}

fn log_start(link: &Link, info: &SessionInfo) {
    let Some(suppressed) = link.lines.admit() else {
        return;
    };
    tracing::info!(
        host = %link.host_id, name = link.host_name, calls_itself = info.host_name,
        agent_version = info.agent_version, boot_id = %info.boot_id,
        peer = %link.peer, suppressed, "An agent connected."
    );
}

fn log_replaced(link: &Link, seat: &Seat, boot_id: BootId) {
    match seat.replaced {
        Some(old) if old != boot_id => {
            let Some(suppressed) = link.lines.admit() else {
                return;
            };
            tracing::warn!(
                host = %link.host_id, name = link.host_name, boot_id = %boot_id,
                other_boot_id = %old, peer = %link.peer, suppressed,
                "Two running machines use the certificate of one host: was the machine cloned? \
                 Enrol one of them anew."
            );
        }
        Some(_) => tracing::debug!(host = %link.host_id, "A newer stream replaced an older one."),
        None => {}
    }
}

fn log_end(link: &Link, end: &End) {
    let peer = link.peer;
    let Some(suppressed) = link.lines.admit() else {
        return;
    };
    if end.is_ordinary() {
        tracing::info!(host = %link.host_id, name = link.host_name, peer = %peer, reason = %end, suppressed, "An agent's stream ended.");
    } else {
        tracing::warn!(host = %link.host_id, name = link.host_name, peer = %peer, reason = %end, suppressed, "An agent's stream was cut.");
    }
}
