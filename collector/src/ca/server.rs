//! The collector's TLS configuration: a fresh certificate, the chain that
//! agents pin, and the check of client certificates.
//!
//! Promises: TLS 1.2 or 1.3, HTTP/2 only, no session resumption: a resumed
//! session would not be checked against the clock again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use procwarden_common::clock::UnixMillis;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Authority, AuthorityError, issue};

/// Life of the collector's own certificate.
pub(crate) const SERVER_DAYS: i64 = 90;

impl Authority {
    /// A configuration with a certificate made at `now`. With `client_auth`,
    /// only peers with a certificate of this fleet finish the handshake.
    ///
    /// # Errors
    /// When the authority has ended, or a part refuses to work.
    pub(crate) fn server_config(
        &self,
        client_auth: bool,
        now: UnixMillis,
    ) -> Result<ServerConfig, AuthorityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = KeyPair::generate()?;
        let leaf = issue::server(self, &key, now, SERVER_DAYS)?;
        let not_after = issue::end_of(self, now, SERVER_DAYS)?;
        self.server_not_after.store(not_after.0, Ordering::Relaxed);
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = if client_auth {
            builder.with_client_cert_verifier(self.client_verifier(provider)?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, private)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client_verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, AuthorityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
    }
}
