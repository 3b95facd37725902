//! Real handshakes on loopback: who gets in, who does not, and what both
//! sides learn of it.

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_stream::StreamExt;

use super::failure::{EXPIRED, NO_CERTIFICATE, UNKNOWN_ISSUER};
use super::*;
use crate::clock;
use crate::tls::PeerIdentity;
use crate::tls::testing::{DAY_MILLIS, Fleet, client_config, fleet, host_id};

async fn connect(address: SocketAddr, config: ClientConfig) -> io::Result<ClientStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn server_tls(fleet: &Fleet) -> Arc<ServerTls> {
    Arc::new(ServerTls::new(Arc::clone(&fleet.authority), true, clock::now()).unwrap())
}

fn acceptor(fleet: &Fleet, listener: TcpListener, connections_max: usize) -> Acceptor {
    let tls = server_tls(fleet);
    Acceptor {
        name: "fleet",
        listener,
        tls,
        connections_max,
        connections_each_max: 2,
        handshakes_max: 16,
        handshakes_each_max: 4,
    }
}

/// What the collector's log says about a handshake with `config`.
async fn reason_for(fleet: &Fleet, config: ClientConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::spawn(async move {
        if let Ok(mut stream) = connect(address, config).await {
            drop(stream.read_u8().await);
        }
    });
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = TlsAcceptor::from(server_tls(fleet).config())
        .accept(stream)
        .await;
    let words = Failure::of(&accepted.err().unwrap()).to_string();
    client.await.unwrap();
    words
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason_in_words() {
    let (fleet, other) = (fleet(), fleet());
    let now = clock::now();
    let long_ago = now.plus_millis(-40 * DAY_MILLIS);
    let later = now.plus_millis(10 * DAY_MILLIS);
    let table = [
        (client_config(&fleet.authority, None), NO_CERTIFICATE),
        (
            other.host_config(&fleet.authority, host_id(1), now),
            UNKNOWN_ISSUER,
        ),
        (
            fleet.host_config(&fleet.authority, host_id(1), long_ago),
            EXPIRED,
        ),
        (
            fleet.host_config(&fleet.authority, host_id(1), later),
            "not valid yet",
        ),
        (
            client_config(&other.authority, None),
            "does not trust this collector's certificate",
        ),
    ];
    for (config, words) in table {
        let reason = reason_for(&fleet, config).await;
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn a_host_of_the_fleet_gets_in_past_silent_and_refused_peers() {
    let fleet = fleet();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, shutdown) = watch::channel(false);
    let acceptor = acceptor(&fleet, listener, 10);
    let mut connections = acceptor.start(shutdown);

    let silent = TcpStream::connect(address).await.unwrap();
    // The refused peer gets to read why: an alert, not a reset.
    let refused = connect(address, client_config(&fleet.authority, None)).await;
    let error = match refused {
        Ok(mut stream) => stream.read_u8().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("CertificateRequired"), "{error}");

    let config = fleet.host_config(&fleet.authority, host_id(5), clock::now());
    let client = tokio::spawn(connect(address, config));
    let connection = connections.next().await.unwrap().unwrap();
    let info = tonic::transport::server::Connected::connect_info(&connection);
    let identity =
        PeerIdentity::of_certificate(&info.certificate.unwrap(), fleet.authority.fleet_id());
    assert_eq!(identity.unwrap().host_id, host_id(5));
    let client = client.await.unwrap().unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let chain = client.get_ref().1.peer_certificates().unwrap();
    use sha2::Digest;
    let pin: [u8; 32] = sha2::Sha256::digest(&chain[1]).into();
    assert_eq!(
        pin,
        fleet.authority.ca_sha256(),
        "the chain carries what tokens pin"
    );

    drop(silent);
    stop.send_replace(true);
    assert!(connections.next().await.is_none());
}

#[tokio::test]
async fn a_full_house_makes_newcomers_wait() {
    let fleet = fleet();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, shutdown) = watch::channel(false);
    let acceptor = acceptor(&fleet, listener, 1);
    let mut connections = acceptor.start(shutdown);
    let config = fleet.host_config(&fleet.authority, host_id(5), clock::now());
    let first = tokio::spawn(connect(address, config.clone()));
    let served = connections.next().await.unwrap().unwrap();
    let second = tokio::spawn(connect(address, config));
    drop(served);
    connections.next().await.unwrap().unwrap();
    drop((first.await, second.await));
}

#[tokio::test]
async fn who_comes_while_all_handshakes_are_taken_waits_for_a_turn() {
    let fleet = fleet();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, shutdown) = watch::channel(false);
    let mut acceptor = acceptor(&fleet, listener, 10);
    acceptor.handshakes_max = 1;
    let mut connections = acceptor.start(shutdown);
    let silent = TcpStream::connect(address).await.unwrap();
    let config = fleet.host_config(&fleet.authority, host_id(5), clock::now());
    let client = tokio::spawn(connect(address, config));
    let early = timeout(Duration::from_millis(300), connections.next()).await;
    assert!(early.is_err(), "the only handshake is taken");
    drop(silent);
    connections.next().await.unwrap().unwrap();
    drop(client.await);
}

#[tokio::test]
async fn one_host_cannot_hold_more_than_its_share_of_connections() {
    let fleet = fleet();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, shutdown) = watch::channel(false);
    let mut connections = acceptor(&fleet, listener, 10).start(shutdown);
    let greedy = fleet.host_config(&fleet.authority, host_id(5), clock::now());
    let mut held = Vec::new();
    for _ in 0..2 {
        let client = tokio::spawn(connect(address, greedy.clone()));
        held.push((
            connections.next().await.unwrap().unwrap(),
            client.await.unwrap().unwrap(),
        ));
    }
    let mut refused = connect(address, greedy).await.unwrap();
    assert!(refused.read_u8().await.is_err(), "the third is closed");
    let modest = fleet.host_config(&fleet.authority, host_id(6), clock::now());
    let client = tokio::spawn(connect(address, modest));
    connections.next().await.unwrap().unwrap();
    drop(client.await);
}

#[tokio::test]
async fn silent_peers_take_no_more_than_their_networks_share_of_handshakes() {
    let fleet = fleet();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, shutdown) = watch::channel(false);
    let mut connections = acceptor(&fleet, listener, 10).start(shutdown);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut refused = TcpStream::connect(address).await.unwrap();
    let answer = refused.read_u8().await;
    assert!(answer.is_err(), "closed at once, not after the timeout");
    // The share comes back with the end of a handshake.
    drop(silent);
    let config = fleet.host_config(&fleet.authority, host_id(5), clock::now());
    while connect(address, config.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    connections.next().await.unwrap().unwrap();
}

#[tokio::test]
async fn the_certificate_renews_itself_at_two_thirds_and_when_the_clock_steps_back() {
    let fleet = fleet();
    let now = clock::now();
    let tls = ServerTls::new(Arc::clone(&fleet.authority), true, now).unwrap();
    let first = tls.config();
    assert!(!tls.renew_if_due(now.plus_millis(59 * DAY_MILLIS)).unwrap());
    assert!(Arc::ptr_eq(&first, &tls.config()));
    let later = now.plus_millis(60 * DAY_MILLIS);
    assert!(tls.renew_if_due(later).unwrap());
    assert!(!Arc::ptr_eq(&first, &tls.config()));
    assert!(!tls.renew_if_due(later).unwrap());
    assert!(tls.renew_if_due(now).unwrap());
}
