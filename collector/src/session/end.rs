//! Why a session ends, and how the agent is told.

use procwarden_common::printable::printable;
use tonic::Status;

use crate::fleet::admission::AdmissionRefusal;
use crate::sessions::Cut;

/// See the module. The words of `Display` go to the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the agent closed it")]
    PeerLeft,
    #[error("the connection broke: {}", printable(.0.message().as_bytes()))]
    Broken(Status),
    #[error("the collector is stopping")]
    Stopping,
    #[error("the agent said no hello")]
    NoHello,
    #[error("the agent broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the agent does not read what it is sent")]
    SlowReader,
    #[error("the certificate it was opened with has expired: connect with the renewed one")]
    CertificateEnded,
    #[error(transparent)]
    Refused(#[from] AdmissionRefusal),
    #[error("{}", words_of(.0))]
    Cut(Cut),
    #[error("findings cannot be stored: {0}")]
    StoreFailed(String),
}

fn words_of(cut: &Cut) -> &str {
    match cut {
        Cut::Replaced => "a newer connection of the same host replaced it",
        Cut::Disconnected(reason) => reason,
    }
}

impl End {
    /// Ends that happen every day.
    pub(super) fn is_ordinary(&self) -> bool {
        matches!(
            self,
            Self::PeerLeft
                | Self::Broken(_)
                | Self::Stopping
                | Self::CertificateEnded
                | Self::Cut(Cut::Replaced)
        )
    }

    /// What the agent is told; nothing when it is gone.
    pub(super) fn status(&self) -> Option<Status> {
        let words = self.to_string();
        Some(match self {
            Self::PeerLeft | Self::Broken(_) => return None,
            Self::Stopping | Self::CertificateEnded => Status::unavailable(words),
            Self::NoHello => Status::deadline_exceeded(words),
            Self::Protocol(_) => Status::invalid_argument(words),
            Self::SlowReader => Status::resource_exhausted(words),
            Self::Refused(_) | Self::Cut(Cut::Disconnected(_)) => Status::permission_denied(words),
            Self::Cut(Cut::Replaced) => Status::aborted(words),
            Self::StoreFailed(_) => {
                Status::unavailable("the collector cannot store findings: its log says why")
            }
        })
    }
}
