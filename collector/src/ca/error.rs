//! What can go wrong with the authority, and what the operator does about it.

use std::io;
use std::path::PathBuf;

use super::csr::InvalidCsr;

/// The authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("{} exists: this collector has its identity already; choose another data directory for a new fleet", dir.display())]
    Exists { dir: PathBuf },
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is missing: make the identity with `procwarden-collector init`, or restore it from a backup", path.display())]
    Missing { path: PathBuf },
    #[error("{} is wrong: {reason}; restore the directory from a backup", path.display())]
    InvalidFile { path: PathBuf, reason: String },
    #[error("{} can be read by others (mode {mode:04o}): run `chmod 600` on it, and make a new fleet if anyone may have copied it", path.display())]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error(
        "no name given: name at least one DNS name or IP address by which agents reach this collector"
    )]
    NoName,
    #[error(
        "`{name}` is neither a DNS name nor an IP address: give the bare name, without port or scheme"
    )]
    InvalidName { name: String },
    #[error("the clock is out of range for certificates: set the system's time")]
    TimeOutOfRange,
    #[error(
        "the fleet's certificate authority ended at {not_after}: make a new fleet with `procwarden-collector init`"
    )]
    Ended {
        not_after: procwarden_common::clock::UnixMillis,
    },
    #[error("the system gave no random bytes: {0}")]
    Random(String),
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot check client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A host got no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// The request is at fault.
    #[error(transparent)]
    Csr(#[from] InvalidCsr),
    /// The collector is at fault.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}
