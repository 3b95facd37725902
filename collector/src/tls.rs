//! The two ends of a TLS connection as the collector sees them: its own
//! certificate, which renews itself while it runs, and the peer's, from which
//! the host id comes.
//!
//! Promises: a host id is only ever taken from the URI of a certificate of
//! this fleet. Whether the certificate is genuine was decided by the
//! handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FleetId, HostId};
use procwarden_common::printable::printable;
use rustls::ServerConfig;
use tokio::sync::watch;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::ca::{Authority, AuthorityError};
use crate::clock;

#[cfg(test)]
pub(crate) mod testing;

/// Two thirds of the 90 days that the collector's certificate lives.
const RENEW_AFTER_MILLIS: i64 = 60 * 24 * 60 * 60 * 1000;

/// How often the age of the certificate is looked at: the wall clock may
/// jump, so sleeping until the day is no option.
const RENEW_CHECK_INTERVAL: Duration = Duration::from_secs(600);

/// The configuration that new connections use.
pub(crate) struct ServerTls {
    authority: Arc<Authority>,
    client_auth: bool,
    current: ArcSwap<ServerConfig>,
    issued_at_ms: AtomicI64,
}

impl ServerTls {
    /// With a certificate made at `now`.
    ///
    /// # Errors
    /// When the authority cannot make one.
    pub(crate) fn new(
        authority: Arc<Authority>,
        client_auth: bool,
        now: UnixMillis,
    ) -> Result<Self, AuthorityError> {
        let config = authority.server_config(client_auth, now)?;
        Ok(Self {
            authority,
            client_auth,
            current: ArcSwap::from_pointee(config),
            issued_at_ms: AtomicI64::new(now.0),
        })
    }

    /// The fleet whose hosts may connect.
    pub(crate) fn fleet_id(&self) -> FleetId {
        self.authority.fleet_id()
    }

    /// The configuration for the next handshake.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Makes a new certificate when the current one is old, or when the clock
    /// went back behind its beginning. Says whether it did.
    ///
    /// # Errors
    /// When the authority cannot make one; the current one stays.
    pub(crate) fn renew_if_due(&self, now: UnixMillis) -> Result<bool, AuthorityError> {
        let issued_at = self.issued_at_ms.load(Ordering::Relaxed);
        if (issued_at..issued_at.saturating_add(RENEW_AFTER_MILLIS)).contains(&now.0) {
            return Ok(false);
        }
        let config = self.authority.server_config(self.client_auth, now)?;
        self.current.store(Arc::new(config));
        self.issued_at_ms.store(now.0, Ordering::Relaxed);
        Ok(true)
    }

    /// Renews until `shutdown`.
    pub(crate) async fn keep_fresh(&self, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = tokio::time::sleep(RENEW_CHECK_INTERVAL) => {}
            }
            match self.renew_if_due(clock::now()) {
                Ok(true) => tracing::info!("The collector's certificate was renewed."),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %error, "The collector's certificate could not be renewed.");
                }
            }
        }
    }
}

/// Resolves when the collector stops, or whoever would say so is gone.
pub(crate) async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody is left to serve for.
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Who is at the other end of a connection, by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerIdentity {
    pub(crate) host_id: HostId,
    /// When the certificate ends.
    pub(crate) not_after: UnixMillis,
}

impl PeerIdentity {
    /// Reads the certificate that a handshake accepted.
    ///
    /// # Errors
    /// In words, when it does not name a host of this fleet.
    pub(crate) fn of_certificate(der: &[u8], fleet_id: FleetId) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|_| "the certificate cannot be parsed".to_owned())?;
        let uri = only_uri(&certificate)?;
        let host_id = fleet_id.host_of_uri(uri).map_err(|error| {
            format!(
                "the certificate names {}: {error}",
                printable(uri.as_bytes())
            )
        })?;
        let not_after_secs = certificate.validity().not_after.timestamp();
        Ok(Self {
            host_id,
            not_after: UnixMillis(not_after_secs.saturating_mul(1000)),
        })
    }
}

/// The URI of a certificate that has exactly one: with two, which one counts
/// would be a matter of taste.
pub(crate) fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| "the certificate has a malformed alternative name".to_owned())?
        .map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None, _) => Err("the certificate names no host".to_owned()),
        (Some(_), Some(_)) => Err("the certificate names more than one URI".to_owned()),
    }
}
