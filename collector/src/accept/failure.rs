//! Why a handshake failed, in words that say who has to do what.
//!
//! Promises: nothing the peer sent is repeated; the words are our own.

use std::fmt;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The words, and whether they are worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    words: String,
    noise: bool,
}

pub(super) const NO_CERTIFICATE: &str =
    "it showed no client certificate: only enrolled agents may connect here";
pub(super) const UNKNOWN_ISSUER: &str = "its certificate is of another fleet or authority: enrol the host with a token of this collector";
pub(super) const EXPIRED: &str =
    "its certificate has expired: enrol the host anew, and check its clock";

impl Failure {
    /// Of the error that the acceptor returned.
    pub(super) fn of(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(error) => Self {
                words: of_tls(error),
                noise: false,
            },
            // Port scans and health checks of load balancers.
            None => Self {
                words: format!("the connection broke off: {error}"),
                noise: true,
            },
        }
    }

    pub(super) fn timed_out(limit: Duration) -> Self {
        Self {
            words: format!("no handshake within {} s", limit.as_secs()),
            noise: false,
        }
    }

    pub(super) fn overdue(limit: Duration) -> Self {
        Self {
            words: format!(
                "too many others came at the same time: it had no turn within {} s",
                limit.as_secs()
            ),
            noise: false,
        }
    }

    pub(super) fn crowded() -> Self {
        Self {
            words: "it holds too many connections already".to_owned(),
            noise: false,
        }
    }

    pub(super) fn hasty() -> Self {
        Self {
            words: "its network has too many unfinished handshakes".to_owned(),
            noise: false,
        }
    }

    /// A peer that just went away.
    pub(super) fn is_noise(&self) -> bool {
        self.noise
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

fn of_tls(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => NO_CERTIFICATE.to_owned(),
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS".to_owned()
        }
        Error::NoApplicationProtocol => "it does not speak HTTP/2".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            UNKNOWN_ISSUER.to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => EXPIRED.to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: check the clocks of host and collector".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for hosts".to_owned()
        }
        other => format!("its certificate is not valid: {other}"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => format!(
            "it does not trust this collector's certificate ({alert:?}): \
             it was enrolled, or its token was made, elsewhere"
        ),
        AlertDescription::CertificateExpired => {
            "it takes this collector's certificate for expired: check the clocks of host and collector".to_owned()
        }
        other => format!("it ended the handshake with the alert {other:?}"),
    }
}
