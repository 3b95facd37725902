//! Certificate signing requests of hosts that are not trusted yet.
//!
//! Promises: returns a public key whose private half signed the request, or a
//! reason. Never looks at the names, extensions and flags that the request
//! asks for, so there is no wish to forget to ignore. Never panics on hostile
//! input, and reads a bounded amount of it.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Bytes of a request in PEM. One with a P-256 key has about 400.
pub(crate) const CSR_BYTES_MAX: usize = 8 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCsr {
    #[error("the certificate request has more than {CSR_BYTES_MAX} bytes")]
    TooLong,
    #[error("the certificate request is not a PEM of PKCS#10")]
    Malformed,
    #[error("the certificate request is not signed with its own key")]
    WrongSignature,
    #[error("the key of the certificate request is neither ECDSA P-256 nor Ed25519")]
    UnsupportedKey,
}

/// The public key of a request, after its signature was checked with it.
pub(super) fn public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, InvalidCsr> {
    if csr_pem.len() > CSR_BYTES_MAX {
        return Err(InvalidCsr::TooLong);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| InvalidCsr::Malformed)?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| InvalidCsr::Malformed)?;
    if !rest.is_empty() {
        return Err(InvalidCsr::Malformed);
    }
    let spki = request.certification_request_info.subject_pki.raw;
    let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| InvalidCsr::UnsupportedKey)?;
    if !is_supported(&key) {
        return Err(InvalidCsr::UnsupportedKey);
    }
    request
        .verify_signature()
        .map_err(|_| InvalidCsr::WrongSignature)?;
    Ok(key)
}

/// Two key types that every TLS peer here speaks, in their only good length
/// (an uncompressed point; 32 bytes).
fn is_supported(key: &SubjectPublicKeyInfo) -> bool {
    let algorithm = key.algorithm();
    (*algorithm == rcgen::PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65)
        || (*algorithm == rcgen::PKCS_ED25519 && key.der_bytes().len() == 32)
}
