//! Enrolment and streams of the simulated hosts, over real TLS.

use std::sync::Arc;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use procwarden_common::token::Token;
use procwarden_proto::v1;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use v1::enrollment_service_client::EnrollmentServiceClient;
use v1::fleet_service_client::FleetServiceClient;

/// A host with an identity, ready to connect.
pub(crate) struct Host {
    tls: Arc<ClientConfig>,
    address: String,
}

impl Host {
    /// The same host, for a collector that listens on another port by now.
    pub(crate) fn on_port(&self, port: u16) -> anyhow::Result<Self> {
        let parts = self.address.rsplit_once(':');
        let (name, _) = parts.context("the address has no port")?;
        Ok(Self {
            tls: Arc::clone(&self.tls),
            address: format!("{name}:{port}"),
        })
    }
}

/// Makes a key, asks for a certificate with the token, and keeps both.
pub(crate) async fn enroll(
    token: &Token,
    ca: &CertificateDer<'static>,
    number: usize,
) -> anyhow::Result<Host> {
    let address = token
        .addresses
        .first()
        .context("the token has no address")?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::new(Vec::<String>::new())?.serialize_request(&key)?;
    let channel = channel(address, Arc::new(trusting(ca)?.with_no_client_auth())).await?;
    let response = EnrollmentServiceClient::new(channel)
        .enroll(v1::EnrollRequest {
            token_id: token.id.clone(),
            secret: token.secret.to_vec().into(),
            csr: request.pem()?,
            host_name: format!("load-{number}"),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
        .await?
        .into_inner();
    let chain = CertificateDer::pem_slice_iter(response.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = trusting(ca)?.with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let (name, _) = address
        .rsplit_once(':')
        .context("the token's address has no port")?;
    Ok(Host {
        tls: Arc::new(tls),
        address: format!("{name}:{}", response.fleet_port),
    })
}

/// All hosts come from one address here, and the collector refuses an address
/// that has too many unfinished handshakes.
static CONNECTING: Semaphore = Semaphore::const_new(64);

/// A client on a connection of its own, as every agent has.
pub(crate) async fn fleet_client(host: &Host) -> anyhow::Result<FleetServiceClient<Channel>> {
    let _turn = CONNECTING.acquire().await?;
    Ok(FleetServiceClient::new(
        channel(&host.address, Arc::clone(&host.tls)).await?,
    ))
}

fn trusting(
    ca: &CertificateDer<'static>,
) -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}

async fn channel(address: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Channel> {
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let (name, _) = address.rsplit_once(':').context("an address has a port")?;
    let name = ServerName::try_from(name.to_owned())?;
    let target = address.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(&target).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_with_connector(connect).await?)
}
