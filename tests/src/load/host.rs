//! A simulated host: its identity and the address it connects from.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};

/// A host with an identity, ready to connect.
pub(crate) struct Host {
    /// Which one; its boot id and its processes follow from it.
    pub(crate) number: usize,
    pub(super) tls: Arc<ClientConfig>,
    /// Where its fleet listens, by name and port.
    pub(super) address: String,
    pub(super) server_name: ServerName<'static>,
}

impl Host {
    pub(super) fn new(
        number: usize,
        tls: Arc<ClientConfig>,
        address: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            number,
            tls,
            server_name: name_of(address)?,
            address: address.to_owned(),
        })
    }

    /// The same host, for a collector that listens on another port by now.
    pub(crate) fn on_port(&self, port: u16) -> anyhow::Result<Self> {
        let parts = self.address.rsplit_once(':');
        let (name, _) = parts.context("the address has no port")?;
        Self::new(
            self.number,
            Arc::clone(&self.tls),
            &format!("{name}:{port}"),
        )
    }
}

/// The name that the certificate at an address must have.
pub(super) fn name_of(address: &str) -> anyhow::Result<ServerName<'static>> {
    let (name, _) = address.rsplit_once(':').context("an address has a port")?;
    Ok(ServerName::try_from(name.to_owned())?)
}

/// A TCP connection from the address of host `number`: one source address has
/// ports for 28,000 connections, and a collector counts what each network does.
pub(super) async fn tcp(number: usize, address: &str) -> anyhow::Result<TcpStream> {
    let mut found = tokio::net::lookup_host(address).await?;
    let to = found
        .find(SocketAddr::is_ipv4)
        .context("the address has no IPv4 form")?;
    let socket = TcpSocket::new_v4()?;
    if to.ip().is_loopback() {
        socket.bind((source(number), 0).into())?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// 127.1.0.1 and up: all of 127/8 is this machine.
fn source(number: usize) -> Ipv4Addr {
    let part = |number: usize| u8::try_from(number % 250).unwrap_or(0);
    Ipv4Addr::new(
        127,
        part(number / 62_500) + 1,
        part(number / 250),
        part(number) + 1,
    )
}

/// A TLS client that trusts one CA, and shows itself if it has a certificate.
pub(super) fn tls(
    ca: &CertificateDer<'static>,
    identity: Option<(
        Vec<CertificateDer<'static>>,
        rustls_pki_types::PrivateKeyDer<'static>,
    )>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Agents make a whole handshake every time, and so does this.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_host_has_a_source_address_of_its_own() {
        let sources: HashSet<Ipv4Addr> = (0..100_000).map(source).collect();
        assert_eq!(sources.len(), 100_000);
        assert!(sources.iter().all(Ipv4Addr::is_loopback));
    }
}
