//! Who this host is: key, certificate, the fleet's CA and a few facts.
//!
//! In `<state_dir>/identity/`, readable by the owner only:
//! - `host.pem`: private key, then certificate. One file, so that a renewal
//!   replaces both in one rename and they never disagree;
//! - `ca.pem`: the fleet's CA, the only one that is trusted;
//! - `identity.json`: host id, fleet id, address of the fleet's port.
//!
//! Promises: the directory appears whole or not at all; a key never leaves
//! this host. Never: trusts a certificate that does not fit its key, its host
//! id and its CA ([`check`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FleetId, HostId};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::address::Address;
use crate::files::{self, FileError};
use crate::tls;

mod request;

pub(crate) use request::KeyRequest;

const DIR: &str = "identity";
const HOST_FILE: &str = "host.pem";
const CA_FILE: &str = "ca.pem";
const FACTS_FILE: &str = "identity.json";

/// The identity as it is used.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) facts: Facts,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) certified: CertifiedKey,
    pub(crate) validity: Validity,
}

/// What does not lie in a certificate, or is wanted without parsing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) host_id: HostId,
    pub(crate) fleet_id: FleetId,
    /// The fleet's port, as enrolment found it.
    pub(crate) collector: Address,
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: UnixMillis,
    pub(crate) not_after: UnixMillis,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The host never enrolled, or another state directory is meant.
    #[error(
        "this host is not enrolled ({dir} is missing): create a token with `procwarden token \
         create` on the collector, then run `procwarden-agent enroll --token TOKEN`"
    )]
    NotEnrolled {
        /// The directory.
        dir: String,
    },
    /// It was there before.
    #[error(
        "this host is enrolled already ({dir} exists): to replace its identity, add --force; the \
         collector then sees a new host"
    )]
    Exists {
        /// The directory.
        dir: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is damaged, or a certificate is not what it should be.
    #[error("{what} cannot be used: {reason}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl IdentityError {
    pub(crate) fn invalid(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Invalid {
            what,
            reason: reason.to_string(),
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredFacts {
    host_id: String,
    fleet_id: String,
    collector: String,
}

impl Validity {
    /// When two thirds of the life are over: time to renew.
    pub(crate) fn renew_at(&self) -> UnixMillis {
        let life = self.not_after.0.saturating_sub(self.not_before.0);
        self.not_before.plus_millis(life / 3 * 2)
    }
}

/// The directory of the identity.
pub(crate) fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join(DIR)
}

/// Reads the identity and checks that its parts belong together.
pub(crate) fn load(state_dir: &Path) -> Result<Identity, IdentityError> {
    let dir = dir(state_dir);
    let Some(facts) = files::read_if_there(&dir.join(FACTS_FILE))? else {
        return Err(IdentityError::NotEnrolled {
            dir: dir.display().to_string(),
        });
    };
    let facts = decode_facts(&facts).map_err(|e| IdentityError::invalid("identity.json", e))?;
    let ca = read_part(&dir.join(CA_FILE))?;
    let ca =
        CertificateDer::from_pem_slice(&ca).map_err(|e| IdentityError::invalid("ca.pem", e))?;
    let host = Zeroizing::new(read_part(&dir.join(HOST_FILE))?);
    let (certified, validity) = read_host_pem(&host)?;
    Ok(Identity {
        facts,
        ca,
        certified,
        validity,
    })
}

/// Writes a new identity; an old one is replaced only when `force` is set.
pub(crate) fn create(
    state_dir: &Path,
    facts: &Facts,
    ca_pem: &str,
    host_pem: &str,
    force: bool,
) -> Result<(), IdentityError> {
    let (dir, fresh) = (dir(state_dir), state_dir.join("identity.new"));
    let old = state_dir.join("identity.old");
    if dir.exists() && !force {
        return Err(IdentityError::Exists {
            dir: dir.display().to_string(),
        });
    }
    remove_dir(&fresh)?;
    files::make_dir(&fresh)?;
    files::write_new(&fresh.join(HOST_FILE), host_pem.as_bytes())?;
    files::write_new(&fresh.join(CA_FILE), ca_pem.as_bytes())?;
    files::write_new(&fresh.join(FACTS_FILE), &encode_facts(facts))?;
    files::sync_dir(&fresh)?;
    remove_dir(&old)?;
    if dir.exists() {
        std::fs::rename(&dir, &old).map_err(|e| FileError::new("move away", &dir, e))?;
    }
    std::fs::rename(&fresh, &dir).map_err(|e| FileError::new("put in place", &dir, e))?;
    files::sync_dir(state_dir)?;
    remove_dir(&old)?;
    Ok(())
}

/// Puts a renewed key and certificate in place, in one step.
pub(crate) fn replace_host_pem(state_dir: &Path, host_pem: &str) -> Result<(), IdentityError> {
    Ok(files::replace(
        &dir(state_dir).join(HOST_FILE),
        host_pem.as_bytes(),
    )?)
}

/// Key and certificate of a `host.pem`; refused when they do not belong
/// together.
pub(crate) fn read_host_pem(pem: &[u8]) -> Result<(CertifiedKey, Validity), IdentityError> {
    let invalid = |e: String| IdentityError::invalid("host.pem", e);
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|e| invalid(e.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| invalid(e.to_string()))?;
    let leaf = chain
        .first()
        .ok_or_else(|| invalid("it holds no certificate".to_owned()))?;
    let validity = parse(leaf).map(|c| validity_of(&c))?;
    let certified =
        CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|e| invalid(e.to_string()))?;
    Ok((certified, validity))
}

/// Whether a certificate is one of this host, of this fleet, signed by its CA
/// and valid now.
pub(crate) fn check(
    certificate: &CertificateDer<'_>,
    ca: &CertificateDer<'static>,
    host_id: HostId,
    fleet_id: FleetId,
    now: UnixMillis,
) -> Result<(), IdentityError> {
    let invalid = |e: String| IdentityError::invalid("the certificate", e);
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.clone())
        .map_err(|e| IdentityError::invalid("the fleet's CA", e))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .build()
        .map_err(|e| invalid(e.to_string()))?;
    let now = std::time::Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    verifier
        .verify_client_cert(certificate, &[], UnixTime::since_unix_epoch(now))
        .map_err(|e| invalid(e.to_string()))?;
    let wanted = fleet_id.host_uri(host_id);
    let parsed = parse(certificate)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| invalid(e.to_string()))?;
    let named = names.is_some_and(|names| {
        names
            .value
            .general_names
            .iter()
            .any(|n| matches!(n, GeneralName::URI(uri) if *uri == wanted))
    });
    if named {
        Ok(())
    } else {
        Err(invalid(format!("it does not name {wanted}")))
    }
}

fn parse<'c>(der: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, IdentityError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| IdentityError::invalid("the certificate", e))
}

fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let millis = |secs: i64| UnixMillis(secs.saturating_mul(1000));
    Validity {
        not_before: millis(certificate.validity().not_before.timestamp()),
        not_after: millis(certificate.validity().not_after.timestamp()),
    }
}

fn encode_facts(facts: &Facts) -> Vec<u8> {
    let object = serde_json::json!({
        "host_id": facts.host_id.to_string(),
        "fleet_id": facts.fleet_id.to_string(),
        "collector": facts.collector.to_string(),
    });
    format!("{object:#}\n").into_bytes()
}

fn decode_facts(bytes: &[u8]) -> anyhow::Result<Facts> {
    let stored: StoredFacts = serde_json::from_slice(bytes)?;
    Ok(Facts {
        host_id: stored.host_id.parse()?,
        fleet_id: stored.fleet_id.parse()?,
        collector: stored.collector.parse()?,
    })
}

fn read_part(path: &Path) -> Result<Vec<u8>, IdentityError> {
    files::read_if_there(path)?.ok_or_else(|| {
        IdentityError::invalid("the identity", format!("{} is missing", path.display()))
    })
}

fn remove_dir(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(FileError::new("remove", path, e)),
    }
}

#[cfg(test)]
mod tests;
