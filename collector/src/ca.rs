//! The fleet's certificate authority: made once by `init`, it signs the
//! collector's own certificates and those of the hosts.
//!
//! Promises: `init` makes the whole identity or nothing, and never overwrites
//! one; a private key is never readable by others, printed or sent; a host's
//! certificate says only what the collector decided, whatever the request
//! wished for. Never reads a clock: the time is an argument.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FleetId, HostId};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use uuid::Uuid;

mod csr;
mod error;
mod files;
mod issue;
mod names;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use error::{AuthorityError, SignError};
use names::Names;

/// Life of the authority's own certificate.
const CA_DAYS: i64 = 3650;

/// Life of a host's certificate.
pub(crate) const HOST_DAYS: i64 = 30;

/// The fleet's identity, ready to sign.
pub(crate) struct Authority {
    fleet_id: FleetId,
    names: Names,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    sha256: [u8; 32],
    not_after: UnixMillis,
    issuer: Issuer<'static, KeyPair>,
    /// In Unix milliseconds; 0 before there is one.
    server_not_after: AtomicI64,
}

/// A certificate that the authority has just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedCertificate {
    /// The certificate in PEM.
    pub(crate) pem: String,
    /// Its random serial number, big endian.
    pub(crate) serial: Vec<u8>,
    /// When it ends.
    pub(crate) not_after: UnixMillis,
}

impl Authority {
    /// Makes a new fleet below `data_dir`. `names` are the DNS names and IP
    /// addresses by which agents reach the collector.
    ///
    /// # Errors
    /// When there is an authority already, a name is none, or a file cannot be
    /// written; then nothing is left behind.
    pub(crate) fn init(
        data_dir: &Path,
        names: &[String],
        now: UnixMillis,
    ) -> Result<Self, AuthorityError> {
        let names = Names::parse(names)?;
        let fleet_id = FleetId::from_uuid(Uuid::new_v4());
        let key = KeyPair::generate()?;
        let certificate = issue::self_signed(fleet_id, &key, now)?;
        files::create(
            data_dir,
            &files::Contents {
                certificate_pem: &certificate.pem(),
                key_pem: &zeroize::Zeroizing::new(key.serialize_pem()),
                fleet_id,
                names: names.as_strings(),
            },
        )?;
        Self::load(data_dir)
    }

    /// Reads the identity that `init` made.
    ///
    /// # Errors
    /// Names the file that is missing or wrong, and what to do about it.
    pub(crate) fn load(data_dir: &Path) -> Result<Self, AuthorityError> {
        let stored = files::read(data_dir)?;
        let names = Names::parse(&stored.names)?;
        let checked = files::check(&stored)?;
        let issuer = Issuer::from_ca_cert_der(&stored.certificate, checked.key)?;
        Ok(Self {
            fleet_id: stored.fleet_id,
            names,
            sha256: Sha256::digest(&stored.certificate).into(),
            certificate_pem: stored.certificate_pem,
            certificate: stored.certificate,
            not_after: checked.not_after,
            issuer,
            server_not_after: AtomicI64::new(0),
        })
    }

    /// The fleet.
    pub(crate) fn fleet_id(&self) -> FleetId {
        self.fleet_id
    }

    /// The DNS names and IP addresses by which agents reach the collector.
    pub(crate) fn names(&self) -> &[String] {
        self.names.as_strings()
    }

    /// End of the newest certificate that the collector serves with; nothing
    /// before it has one.
    pub(crate) fn server_not_after(&self) -> Option<UnixMillis> {
        let millis = self.server_not_after.load(Ordering::Relaxed);
        (millis != 0).then_some(UnixMillis(millis))
    }

    /// The authority's certificate in PEM.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the authority's certificate in DER: what tokens pin.
    pub(crate) fn ca_sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// When the authority's certificate ends, and the fleet with it.
    pub(crate) fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// Signs a certificate for `host`. Of the request only the public key is
    /// used, after the request proved that its sender holds the private one.
    ///
    /// # Errors
    /// When the request is too long, malformed, of an unsupported key type or
    /// wrongly signed; or when signing itself failed.
    pub(crate) fn sign_host(
        &self,
        host: HostId,
        csr_pem: &str,
        now: UnixMillis,
    ) -> Result<IssuedCertificate, SignError> {
        let public_key = csr::public_key(csr_pem)?;
        Ok(issue::host(self, host, &public_key, now)?)
    }
}
