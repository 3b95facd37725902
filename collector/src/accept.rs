//! Accepting TLS connections: every handshake in a task of its own, bounded in
//! number and time, so that one slow or hostile peer never holds up another.
//!
//! Connections are taken from the kernel at once and wait here for their turn
//! at a handshake: when ten thousand hosts come back in the same second, the
//! kernel's queue would overflow and hosts find out only seconds later.
//!
//! Promises: a failed handshake is logged with the peer's address and a reason
//! in words, but never faster than the log can bear; a peer that is refused
//! gets to read why before the connection closes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::enroll::network_of;
use crate::tls::{PeerIdentity, ServerTls, stopping};

mod connection;
mod crowd;
mod failure;
mod log_limit;

pub(crate) use connection::{ConnectInfo, Connection};
use crowd::{Crowd, Party, Place};
use failure::Failure;
pub(crate) use log_limit::LogLimit;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at the same time; more wait for their turn.
pub(crate) const HANDSHAKES_MAX: usize = 512;

/// Who had no turn for so long is let go: agents wait 10 s for a handshake, and
/// one that nobody waits for any more would only make the next ones late.
const TURN_TIMEOUT: Duration = Duration::from_secs(8);

/// Of them, those of one network: who opens connections and says nothing must
/// not keep everybody else out.
pub(crate) const HANDSHAKES_EACH_MAX: usize = 128;

/// Connections that are ready, but not yet served.
const READY_MAX: usize = 64;

/// After accept(2) failed, most likely for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long, and how much, a refused peer may still send before it must have
/// read the refusal. Closing with unread bytes would reset the connection and
/// lose the alert that says why.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 64 * 1024;

/// When a silent TCP connection is probed; HTTP/2 pings find most of them
/// sooner.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Lines about failed handshakes per second.
const FAILURE_LINES_PER_SECOND: u32 = 5;

/// One listener with its limits.
pub(crate) struct Acceptor {
    /// What the log calls it: `fleet` or `enroll`.
    pub(crate) name: &'static str,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerTls>,
    /// Open connections; more wait in the listen backlog.
    pub(crate) connections_max: usize,
    /// Open connections of one host, or of one network of strangers; more are
    /// refused.
    pub(crate) connections_each_max: usize,
    /// Handshakes at the same time; more wait.
    pub(crate) handshakes_max: usize,
    /// Handshakes of one network, waiting ones too; more are refused.
    pub(crate) handshakes_each_max: usize,
}

/// What the tasks of one acceptor share.
struct Shared {
    name: &'static str,
    tls: Arc<ServerTls>,
    failures: LogLimit,
    crowd: Crowd,
    /// Who has not shown yet who it is.
    handshaking: Crowd,
    turns: Semaphore,
    ready: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    /// Accepts until `shutdown`, or until the stream is dropped.
    pub(crate) fn start(
        self,
        shutdown: watch::Receiver<bool>,
    ) -> ReceiverStream<io::Result<Connection>> {
        let (ready, connections) = mpsc::channel(READY_MAX);
        let shared = Arc::new(Shared {
            name: self.name,
            tls: self.tls,
            failures: LogLimit::per_second(FAILURE_LINES_PER_SECOND),
            crowd: Crowd::new(self.connections_each_max),
            handshaking: Crowd::new(self.handshakes_each_max),
            turns: Semaphore::new(self.handshakes_max),
            ready,
        });
        tokio::spawn(accept_all(
            self.listener,
            self.connections_max,
            shared,
            shutdown,
        ));
        ReceiverStream::new(connections)
    }
}

async fn accept_all(
    listener: TcpListener,
    connections_max: usize,
    shared: Arc<Shared>,
    mut shutdown: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(connections_max));
    loop {
        let next = next_peer(&listener, &connections);
        let accepted = tokio::select! {
            () = stopping(&mut shutdown) => return,
            () = shared.ready.closed() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok(peer) => begin(peer, &shared),
            Err(error) => {
                if let Some(suppressed) = shared.failures.admit() {
                    tracing::warn!(
                        listener = shared.name, error = %error, suppressed,
                        "A connection could not be accepted; is the limit of open files too low?"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A TCP connection, with its place among the connections.
struct Peer {
    stream: TcpStream,
    address: SocketAddr,
    connection: OwnedSemaphorePermit,
}

async fn next_peer(listener: &TcpListener, connections: &Arc<Semaphore>) -> io::Result<Peer> {
    let place = Arc::clone(connections).acquire_owned();
    let connection = place.await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok(Peer {
        stream,
        address,
        connection,
    })
}

/// Begins a handshake, if the peer's network has not taken its share of them.
fn begin(peer: Peer, shared: &Arc<Shared>) {
    let network = Party::Network(network_of(peer.address.ip()));
    match shared.handshaking.enter(network) {
        Some(share) => drop(tokio::spawn(handshake(peer, share, Arc::clone(shared)))),
        None => log_failure(shared, peer.address, &Failure::hasty()),
    }
}

async fn handshake(peer: Peer, share: Place, shared: Arc<Shared>) {
    let Peer {
        stream,
        address,
        connection,
    } = peer;
    // The semaphore is never closed: no turn means that it took too long.
    let Ok(Ok(turn)) = timeout(TURN_TIMEOUT, shared.turns.acquire()).await else {
        log_failure(&shared, address, &Failure::overdue(TURN_TIMEOUT));
        return;
    };
    if let Err(error) = set_options(&stream) {
        // The peer may be gone already; the handshake will tell.
        tracing::debug!(peer = %address, error = %error, "Socket options could not be set.");
    }
    let accepting = TlsAcceptor::from(shared.tls.config())
        .accept(stream)
        .into_fallible();
    let failure = match timeout(HANDSHAKE_TIMEOUT, accepting).await {
        Ok(Ok(stream)) => {
            drop((turn, share));
            match shared.crowd.enter(party_of(&stream, address, &shared.tls)) {
                Some(place) => {
                    let connection = Connection::new(stream, address, (connection, place));
                    // Fails when the listener closes: then this one does too.
                    drop(shared.ready.send(Ok(connection)).await);
                    return;
                }
                None => Failure::crowded(),
            }
        }
        Ok(Err((error, stream))) => {
            let failure = Failure::of(&error);
            linger(stream).await;
            failure
        }
        Err(_) => Failure::timed_out(HANDSHAKE_TIMEOUT),
    };
    log_failure(&shared, address, &failure);
}

fn party_of(stream: &TlsStream<TcpStream>, address: SocketAddr, tls: &ServerTls) -> Party {
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    leaf.and_then(|leaf| PeerIdentity::of_certificate(leaf, tls.fleet_id()).ok())
        .map_or_else(
            || Party::Network(network_of(address.ip())),
            |peer| Party::Host(peer.host_id),
        )
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    Ok(())
}

/// Lets the peer read the alert.
async fn linger(mut stream: TcpStream) {
    let wait_for_end = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // However it ends, the connection is over.
    drop(timeout(LINGER_TIMEOUT, wait_for_end).await);
}

fn log_failure(shared: &Shared, peer: SocketAddr, failure: &Failure) {
    if failure.is_noise() {
        tracing::debug!(listener = shared.name, peer = %peer, reason = %failure, "A handshake was not finished.");
        return;
    }
    if let Some(suppressed) = shared.failures.admit() {
        tracing::warn!(
            listener = shared.name, peer = %peer, reason = %failure, suppressed,
            "A connection was refused."
        );
    }
}

#[cfg(test)]
mod tests;
