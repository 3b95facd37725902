//! Enrolment of the simulated hosts over the real listener, many at a time,
//! and tonic's own client for those who need no speed.

use std::sync::Arc;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use procwarden_common::token::Token;
use procwarden_proto::v1;
use procwarden_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use procwarden_proto::v1::fleet_service_client::FleetServiceClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::host;
pub(crate) use super::host::Host;

/// Enrolments at the same time.
const AT_ONCE: usize = 64;

/// Enrols hosts 0 to `agents`, each with a key of its own.
///
/// # Errors
/// When one cannot be enrolled.
pub(super) async fn enroll_all(
    token: &Token,
    ca: &CertificateDer<'static>,
    agents: usize,
) -> anyhow::Result<Vec<Arc<Host>>> {
    let (turns, token, ca) = (
        Arc::new(Semaphore::new(AT_ONCE)),
        Arc::new(token.clone()),
        Arc::new(ca.clone()),
    );
    let mut tasks = JoinSet::new();
    for number in 0..agents {
        let turn = Arc::clone(&turns).acquire_owned().await?;
        let (token, ca) = (Arc::clone(&token), Arc::clone(&ca));
        tasks.spawn(async move {
            let host = enroll(&token, &ca, number).await;
            drop(turn);
            host.with_context(|| format!("host {number} cannot be enrolled"))
        });
    }
    let mut hosts = Vec::with_capacity(agents);
    while let Some(host) = tasks.join_next().await {
        hosts.push(Arc::new(host??));
    }
    hosts.sort_unstable_by_key(|host| host.number);
    Ok(hosts)
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
    let channel = channel(number, address, host::tls(ca, None)?).await?;
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
    let (name, _) = address
        .rsplit_once(':')
        .context("the token's address has no port")?;
    let fleet = format!("{name}:{}", response.fleet_port);
    Host::new(number, host::tls(ca, Some((chain, key)))?, &fleet)
}

/// A client on a connection of its own, as every agent has.
pub(crate) async fn fleet_client(host: &Host) -> anyhow::Result<FleetServiceClient<Channel>> {
    let channel = channel(host.number, &host.address, Arc::clone(&host.tls)).await?;
    Ok(FleetServiceClient::new(channel))
}

async fn channel(number: usize, address: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Channel> {
    let connector = TlsConnector::from(tls);
    let (name, target) = (host::name_of(address)?, address.to_owned());
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
        async move {
            let stream = host::tcp(number, &target)
                .await
                .map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_with_connector(connect).await?)
}
