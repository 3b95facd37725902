//! A fresh key and the request to certify it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use super::IdentityError;

/// A P-256 key that was made here, and its certificate signing request. The
/// request names nothing: who the host is, the collector decides.
pub(crate) struct KeyRequest {
    key_pem: Zeroizing<String>,
    csr_pem: String,
}

impl KeyRequest {
    /// Makes a key.
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let failed = |e: rcgen::Error| IdentityError::invalid("the new key", e);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr_pem = params
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(failed)?;
        Ok(Self {
            key_pem: Zeroizing::new(key.serialize_pem()),
            csr_pem,
        })
    }

    /// The request, in PEM.
    pub(crate) fn csr_pem(&self) -> String {
        self.csr_pem.clone()
    }

    /// The content of `host.pem` once the certificate is there.
    pub(crate) fn host_pem(&self, certificate_pem: &str) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{}\n{}\n",
            self.key_pem.trim_end(),
            certificate_pem.trim()
        ))
    }
}
