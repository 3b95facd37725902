//! The certificate that the host shows, replaceable while the agent runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

/// Holds the newest certificate: each handshake shows the one that is in
/// place at that moment, so a renewal needs no restart.
#[derive(Debug)]
pub(crate) struct LiveCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl LiveCertificate {
    pub(crate) fn new(key: CertifiedKey) -> Self {
        Self {
            current: RwLock::new(Arc::new(key)),
        }
    }

    /// Puts another certificate in place, for handshakes from now on.
    pub(crate) fn replace(&self, key: CertifiedKey) {
        // A poisoned lock still holds a whole value: it is only ever replaced.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl ResolvesClientCert for LiveCertificate {
    /// There is one certificate only: it is shown whatever CA the server
    /// hints at, so that a wrong collector refuses it by itself, with a reason.
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.current.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
