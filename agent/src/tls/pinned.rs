//! Trust at enrolment: the CA whose SHA-256 the token carries, nothing else.
//!
//! Promises: a server is accepted when it presents the pinned certificate in
//! its chain, its own certificate is signed by that CA, is valid now, and
//! names the address that was connected to. Never asks the system's roots.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

/// The server is not of the fleet that made the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server is not the collector that made this token: it does not present the CA that the \
     token pins (is the address right, or is something between this host and the collector?)"
)]
pub(crate) struct PinMismatch;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct PinnedVerifier {
    ca_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    pub(crate) fn new(ca_sha256: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self {
            ca_sha256,
            provider,
        }
    }

    fn pinned_among<'c>(
        &self,
        mut presented: impl Iterator<Item = &'c CertificateDer<'c>>,
    ) -> Option<CertificateDer<'static>> {
        presented
            .find(|der| <[u8; 32]>::from(Sha256::digest(der)) == self.ca_sha256)
            .map(|der| der.clone().into_owned())
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = self
            .pinned_among(std::iter::once(end_entity).chain(intermediates))
            .ok_or_else(|| CertificateError::Other(OtherError(Arc::new(PinMismatch))))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca)?;
        let inner = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|e| Error::General(e.to_string()))?;
        inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};

    struct Ca {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Ca {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn leaf(ca: &Ca, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        params.signed_by(&key, &ca.issuer).unwrap().der().clone()
    }

    fn verdict(pin: &Ca, chain: &[CertificateDer<'_>], name: &str) -> Result<(), Error> {
        let pin = Sha256::digest(pin.certificate.der()).into();
        let verifier = PinnedVerifier::new(pin, crate::tls::provider());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
            .map(drop)
    }

    #[test]
    fn the_pinned_ca_and_the_right_name_are_accepted() {
        let ca = ca();
        for name in ["collector.test", "127.0.0.1"] {
            let chain = [leaf(&ca, name), ca.certificate.der().clone()];
            assert_eq!(verdict(&ca, &chain, name), Ok(()), "{name}");
        }
    }

    #[test]
    fn another_ca_is_refused() {
        let (pinned, other) = (ca(), ca());
        let chain = [
            leaf(&other, "collector.test"),
            other.certificate.der().clone(),
        ];
        let refused = verdict(&pinned, &chain, "collector.test").unwrap_err();
        let Error::InvalidCertificate(CertificateError::Other(inner)) = refused else {
            panic!("{refused:?}")
        };
        assert!(inner.0.downcast_ref::<PinMismatch>().is_some());
    }

    #[test]
    fn showing_the_pinned_ca_without_being_signed_by_it_is_refused() {
        let (pinned, other) = (ca(), ca());
        let chain = [
            leaf(&other, "collector.test"),
            pinned.certificate.der().clone(),
        ];
        assert!(verdict(&pinned, &chain, "collector.test").is_err());
    }

    #[test]
    fn another_name_is_refused() {
        let ca = ca();
        let chain = [leaf(&ca, "elsewhere.test"), ca.certificate.der().clone()];
        assert!(verdict(&ca, &chain, "collector.test").is_err());
    }
}
