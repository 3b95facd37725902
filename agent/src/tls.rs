//! TLS of the agent: who is trusted, and how a connection is made.
//!
//! Promises: on the fleet's port only the fleet's own CA is trusted, never
//! the system's; at enrolment only the CA that the token pins
//! (`tls/pinned.rs`). Always TLS 1.3, HTTP/2, and a name that fits.
//! Never: waits without a limit, or decides on the text of an error.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::address::Address;

mod live;
mod pinned;

pub(crate) use live::LiveCertificate;
use pinned::PinnedVerifier;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What TLS could not be set up with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// rustls refused a part.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
    /// The CA cannot be used as one.
    #[error("cannot use the fleet's CA")]
    Root(#[source] rustls::Error),
}

/// The one provider of cryptography in this program.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For the fleet's port: only its CA is trusted, and the host shows itself.
pub(crate) fn fleet_config(
    ca: &CertificateDer<'static>,
    certificate: Arc<LiveCertificate>,
) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(TlsError::Root)?;
    let config = builder()?
        .with_root_certificates(roots)
        .with_client_cert_resolver(certificate);
    Ok(with_http2(config))
}

/// For the enrolment port: the server must chain up to the pinned CA.
pub(crate) fn enrolment_config(ca_sha256: [u8; 32]) -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> =
        Arc::new(PinnedVerifier::new(ca_sha256, provider()));
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(with_http2(config))
}

/// A gRPC channel over one TLS connection to `address`.
pub(crate) async fn connect(
    address: &Address,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    // The scheme only names the origin of requests: TLS is the connector's.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let address = address.clone();
    let connector = tower::service_fn(move |_| {
        let (address, config) = (address.clone(), Arc::clone(&config));
        async move { open(&address, config).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await
}

async fn open(address: &Address, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = address.server_name().map_err(io::Error::other)?;
    let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(address.to_connect()))
        .await
        .map_err(|_| timed_out("no connection within 10 s"))??;
    tcp.set_nodelay(true)?;
    timeout(
        HANDSHAKE_TIMEOUT,
        TlsConnector::from(config).connect(name, tcp),
    )
    .await
    .map_err(|_| timed_out("no TLS handshake within 10 s"))?
}

fn timed_out(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
}

fn with_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
