//! For tests: fleets, host keys, and the agent's end of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::HostId;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use uuid::Uuid;

use crate::ca::Authority;
use crate::clock;

pub(crate) const DAY_MILLIS: i64 = 86_400_000;

/// A fleet that was made 100 days ago.
pub(crate) struct Fleet {
    pub(crate) dir: TempDir,
    pub(crate) authority: Arc<Authority>,
}

pub(crate) fn fleet() -> Fleet {
    let dir = tempfile::tempdir().unwrap();
    let made = clock::now().plus_millis(-100 * DAY_MILLIS);
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let authority = Arc::new(Authority::init(dir.path(), &names, made).unwrap());
    Fleet { dir, authority }
}

/// A key and the request that an agent makes with it.
pub(crate) struct HostKey {
    pub(crate) key: KeyPair,
    pub(crate) csr: String,
}

pub(crate) fn host_key() -> HostKey {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    HostKey { key, csr }
}

pub(crate) fn host_id(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

impl Fleet {
    /// The client configuration of a host with a certificate made at `at`.
    pub(crate) fn host_config(
        &self,
        trusts: &Authority,
        host: HostId,
        at: UnixMillis,
    ) -> ClientConfig {
        let HostKey { key, csr } = host_key();
        let issued = self.authority.sign_host(host, &csr, at).unwrap();
        client_config(trusts, Some((&issued.pem, &key)))
    }
}

/// The configuration of a client that trusts one authority.
pub(crate) fn client_config(trusts: &Authority, own: Option<(&str, &KeyPair)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusts.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some((pem, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A gRPC connection to a collector on loopback.
pub(crate) async fn channel(
    address: SocketAddr,
    config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://collector")
        .connect_with_connector(connect)
        .await
}
